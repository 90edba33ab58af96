"""Which issuers and whose projects the options `--oidc` and `--allow` let in."""

import pytest

from fedstep.errors import UsageError
from fedstep.server.identity import AccessDenied, Identity
from fedstep.server.oidc import Pattern, issuers_of


class TestPatterns:
    @pytest.mark.parametrize(
        ("glob", "path", "fits"),
        [
            ("acme", "acme/web", True),
            ("ACME/Web", "acme/web", True),
            ("acme/w*", "acme/web", True),
            ("acme/w*", "acme/api", False),
            ("acme", "acme-evil/web", False),
            ("acme/web", "acme", False),
            ("group/*", "group/sub/project", True),
            ("*/web", "anyone/web", True),
            ("*", "", True),
            ("acme", "", False),
            ("acme/kit", "acme/\N{KELVIN SIGN}it", False),
            ("acme/Über", "ACME/Über", True),
        ],
    )
    def test_a_pattern_is_compared_segment_by_segment(self, glob, path, fits):
        assert Pattern(glob).matches(path) is fits

    def test_patterns_by_id_do_not_look_at_names(self):
        (github,) = issuers_of(["github"], ["github#7/*"])
        named = {"repository_id": 42, "repository_owner_id": 8, "repository": "7/web"}
        assert isinstance(github.sender(named), AccessDenied)
        assert github.sender({**named, "repository_owner_id": 7, "repository": "moved/web"}) == Identity(
            "github:7", "github:7/42"
        )

    def test_claim_with_a_slash_cannot_pose_as_another_owner(self):
        """A claim with a slash cannot look like a project of another owner."""
        (ci,) = issuers_of(["ci=https://ci.example,project=job,owner=team"], ["ci#a/*"])
        honest = ci.sender({"team": "a", "job": "b/c"})
        assert isinstance(honest, Identity)
        assert honest.project.count("/") == 1
        assert isinstance(ci.sender({"team": "a/b", "job": "c"}), AccessDenied)


class TestOptions:
    def test_issuers_and_patterns_with_their_defaults(self):
        github, corp = issuers_of(
            ["github", "corp=https://gitlab.corp.example,like=gitlab"], ["github:acme/*", "github#9/*", "corp:*"]
        )
        assert (github.project, len(github.allowed), corp.owner) == ("repository_id", 2, "namespace_id")
        assert corp.allowed == (Pattern("*"),)

    @pytest.mark.parametrize(
        ("given", "allow", "match"),
        [
            (["github"], [], "every project of github"),
            (["github", "gitlab"], ["github:acme"], "every project of gitlab"),
            (["github", "gitlab"], ["acme"], "no issuer"),
            (["github"], ["gitlab:acme"], "no issuer"),
            (["github"], ["a b"], "no pattern"),
            (["github", "github"], ["github:*"], "twice"),
            (["somewhere"], ["*"], "no issuer"),
            (["ci=http://ci.example,like=github"], ["*"], "no issuer"),
            (["ci=https://ci.example"], ["*"], "which claims"),
            (["ci=https://ci.example,like=github,audience=x"], ["*"], "which claims"),
            (["ci=https://ci.example:port,like=github"], ["*"], "no issuer"),
            (["ci=https://user:word@ci.example,like=github"], ["*"], "no issuer"),
        ],
    )
    def test_options_that_admit_nobody_or_everybody_are_refused(self, given, allow, match):
        """Options that would admit nobody or everybody are refused."""
        with pytest.raises(UsageError, match=match):
            issuers_of(given, allow)
