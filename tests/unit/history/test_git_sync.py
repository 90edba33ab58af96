"""Facts about a history on a ref, between real clones and a real bare remote."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from fedstep.errors import HistoryError
from fedstep.history.git_ref import REF
from fedstep.history.git_sync import publish, withdraw
from fedstep.ingest.git_process import GitResult, summarize_error
from tests.helpers.history import NOW, Clone, clone, git, listed, new_remote, recorded


class TestExchange:
    def test_what_one_clone_publishes_another_has(self, ada, bob):
        name = ada.record(1)
        assert ada.publish().new
        assert bob.receive().added == 1
        assert bob.home.log.files() == [name]
        assert bob.home.log.read(name) == ada.home.log.read(name)

    def test_ref_is_one_parentless_commit_with_monthly_folders(self, remote, ada):
        """The ref is one commit without parents, with a folder a month."""
        ada.record(1)
        ada.record(2, month=1)
        ada.publish()
        ada.record(3)
        ada.publish()
        commit = git(remote, "cat-file", "-p", REF)
        assert "parent" not in commit
        assert "author fedstep <noreply> 1795000000 +0000" in commit
        months = sorted({path.partition("/")[0] for path in listed(remote) if path.endswith(".rec")})
        assert months == ["2026-10", "2026-11"]

    def test_two_clones_that_never_met_lose_nothing(self, remote, ada, bob):
        names = sorted([ada.record(1), bob.record(2)])
        ada.publish()
        assert bob.publish().attempts == 1
        ada.receive()
        assert recorded(remote) == names == ada.home.log.files() == bob.home.log.files()

    def test_outdated_clone_takes_the_new_ref_and_tries_again(self, remote, ada, bob):
        """A clone whose view is old takes the new one in and tries again."""
        ada.record(1)
        ada.publish()
        bob.receive()
        ada.record(2)
        ada.publish()
        bob.record(3)
        published = bob.publish()
        assert (published.new, published.attempts) == (True, 2)
        assert len(recorded(remote)) == 3

    def test_the_key_of_the_remote_wins(self, ada, bob):
        ada.record(1)
        ada.publish()
        bob.record(2)
        assert ada.home.key() != bob.home.key()
        bob.publish()
        assert ada.home.key() == bob.home.key()

    def test_what_is_published_already_is_not_published_again(self, remote, ada):
        ada.record(1)
        ada.publish()
        before = git(remote, "rev-parse", REF)
        assert not publish(ada.home, ada.channel, 0, NOW + 3600, 30.0).new
        assert git(remote, "rev-parse", REF) == before


def packed(repository: Path) -> int:
    """How many objects have come in packs."""
    counts = dict(line.split(": ") for line in git(repository, "count-objects", "-v").splitlines())
    return int(counts["in-pack"])


class TestCost:
    def test_an_empty_history_makes_no_ref(self, remote, ada):
        ada.home.prepare()
        assert not ada.publish().new
        assert git(remote, "for-each-ref", "refs/fedstep") == ""

    def test_new_build_costs_a_few_objects(self, remote, ada, bob):
        """A new build costs a few objects and not the whole history."""
        for repository in (remote, bob.root):
            git(repository, "config", "transfer.unpackLimit", "1")
        for number in range(40):
            ada.record(number)
        ada.publish()
        bob.receive()
        at_remote, at_bob = packed(remote), packed(bob.root)
        ada.record(41)
        ada.publish()
        bob.receive()
        assert 0 < packed(remote) - at_remote < 10
        assert 0 < packed(bob.root) - at_bob < 10

    def test_fresh_clone_gets_caches_and_need_not_learn(self, ada, bob):
        """Caches come along and spare a fresh clone the learning."""
        ada.record(1)
        ada.home.write("summary.json", b'{"of": "ada"}')
        ada.home.write("unknown.json", b"{}")
        ada.publish()
        bob.receive()
        assert bob.home.read("summary.json") == b'{"of": "ada"}'
        assert bob.home.read("unknown.json") == b""

    def test_clone_keeps_what_it_learned_from_its_own_builds(self, ada, bob):
        """A clone with builds of its own keeps what it learned from them."""
        bob.record(2)
        bob.home.write("summary.json", b'{"of": "bob"}')
        ada.record(1)
        ada.home.write("summary.json", b'{"of": "ada"}')
        ada.publish()
        bob.receive()
        assert bob.home.read("summary.json") == b'{"of": "bob"}'


def state_of(root: Path) -> dict[str, object]:
    """All of a clone that is not ours."""
    folder = Path(git(root, "rev-parse", "--absolute-git-dir").strip())
    common = Path(git(root, "rev-parse", "--path-format=absolute", "--git-common-dir").strip())
    watched = [folder / "index", folder / "HEAD", folder / "FETCH_HEAD", common / "config", common / "shallow"]
    return {
        "refs": [line for line in git(root, "for-each-ref").splitlines() if REF not in line],
        "work tree": sorted(str(path) for path in root.iterdir()),
        "status": git(root, "status", "--porcelain", "--branch"),
        **{path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in watched if path.exists()},
    }


class TestRepositories:
    @pytest.mark.parametrize("kind", ["full", "shallow", "detached", "partial"])
    def test_branches_index_work_tree_and_config_are_untouched(self, remote, ada, tmp_path, kind):
        """Branches, index, work tree and configuration stay as they are."""
        git(remote, "config", "uploadpack.allowFilter", "true")
        options = {"shallow": ("--depth", "1"), "partial": ("--filter=blob:none",)}.get(kind, ())
        other = clone(remote, tmp_path / "other", *options)
        if kind == "detached":
            git(other.root, "checkout", "-q", "--detach", "HEAD~1")
        before = state_of(other.root)
        ada.record(1)
        ada.publish()
        other.receive()
        other.record(2)
        assert other.publish().new
        other.receive()
        assert state_of(other.root) == before
        assert len(recorded(remote)) == 2
        git(other.root, "fsck", "--connectivity-only")

    def test_worktrees_share_one_history(self, remote, ada, tmp_path):
        git(ada.root, "worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
        tree = Clone(tmp_path / "tree")
        tree.record(1)
        tree.publish()
        assert ada.home.folder == tree.home.folder
        assert not ada.publish().new
        assert len(recorded(remote)) == 1

    def test_a_submodule_has_the_history_of_its_own_repository(self, remote, tmp_path):
        outer = tmp_path / "outer"
        git(tmp_path, "init", "-q", str(outer))
        git(outer, "-c", "protocol.file.allow=always", "submodule", "add", "-q", remote.as_uri(), "inner")
        inner = Clone(outer / "inner")
        inner.record(1)
        inner.publish()
        assert len(recorded(remote)) == 1
        assert git(outer, "for-each-ref", "refs/fedstep") == ""
        assert git(outer / "inner", "status", "--porcelain") == ""

    def test_a_repository_of_long_ids_works_too(self, tmp_path):
        remote = new_remote(tmp_path, "--object-format=sha256")
        one, other = clone(remote, tmp_path / "one"), clone(remote, tmp_path / "other")
        one.record(1)
        one.publish()
        other.record(2)
        other.publish()
        assert len(recorded(remote)) == 2

    def test_without_a_remote_the_ref_of_the_clone_has_it(self, ada):
        git(ada.root, "remote", "remove", "origin")
        name = ada.record(1)
        assert ada.publish().new
        assert recorded(ada.root) == [name]
        ada.record(2)
        assert ada.publish().new
        assert len(recorded(ada.root)) == 2


class TestRemoteFailures:
    def test_remote_is_configured_else_origin_else_first(self, ada, remote):
        """The remote is the configured one, else origin, else the first."""
        git(ada.root, "remote", "rename", "origin", "zeta")
        assert ada.channel.remote == "zeta"
        git(ada.root, "remote", "add", "origin", remote.as_uri())
        assert ada.channel.remote == "origin"
        git(ada.root, "config", "fedstep.remote", "zeta")
        assert ada.channel.remote == "zeta"
        git(ada.root, "config", "fedstep.remote", "--upload-pack=x")
        assert ada.channel.remote == "origin"

    def test_next_push_brings_what_a_refused_one_could_not(self, remote, ada):
        """A refused push is said, and the next one that can brings it all."""
        # Not by a hook: those of a repository on this machine do not run.
        git(remote, "config", "receive.hideRefs", "refs/fedstep")
        ada.record(1)
        with pytest.raises(HistoryError, match=r"origin did not take the history .*next run that can publishes it"):
            ada.publish()
        ada.record(2)
        git(remote, "config", "--unset", "receive.hideRefs")
        assert ada.publish().new
        assert len(recorded(remote)) == 2

    def test_a_remote_that_is_gone_is_said_and_loses_nothing(self, remote, ada, tmp_path):
        name = ada.record(1)
        git(ada.root, "remote", "set-url", "origin", str(tmp_path / "nowhere"))
        with pytest.raises(HistoryError, match=r"not fetched from origin .*git ls-remote origin"):
            ada.publish()
        assert ada.home.log.files() == [name]
        git(ada.root, "remote", "set-url", "origin", str(remote))
        ada.publish()
        assert recorded(remote) == [name]

    def test_remote_messages_are_shortened_without_secrets(self):
        """What a remote says is repeated short, and without a password or control characters."""
        said = (
            "remote: hello\nfatal: unable to access 'https://ada:secret@example.org/x': \x1b[31mno\nhint: try again\n"
        )
        words = summarize_error(GitResult(128, b"", said + "x" * 500 + "\n"))
        assert words.startswith("fatal: unable to access 'https://example.org/x'")
        assert words.isprintable()
        assert summarize_error(GitResult(3, b"", "")) == "exit code 3"


class TestPruning:
    def test_hanging_remote_is_left_with_all_its_processes(self, ada, tmp_path, monkeypatch):
        """A remote that hangs is left in time, with all its processes."""
        script = tmp_path / "ssh"
        script.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
        script.chmod(0o755)
        monkeypatch.setenv("GIT_SSH_COMMAND", str(script))
        git(ada.root, "remote", "set-url", "origin", "ssh://example.invalid/x.git")
        with pytest.raises(HistoryError, match=rf"within 0\.5 s\. Run: git fetch origin \+{REF}:{REF}"):
            ada.receive(seconds=0.5)
        assert not runs(int((tmp_path / "pid").read_text()))


def runs(pid: int) -> bool:
    """Whether a process is there and has not ended; who has to bury it may take a while."""
    told = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return told.strip()[:1] not in ("", "Z")


class TestParts:
    def test_pruning_shrinks_the_ref_and_nothing_comes_back(self, remote, ada, bob):
        names = [ada.record(number) for number in range(6)]
        ada.publish()
        bob.receive()
        bob.record(7)
        ada.publish(keep=2)
        assert recorded(remote) == names[-2:]
        bob.publish()
        assert len(recorded(remote)) == 3
        assert not set(names[:4]) & set(recorded(remote) + bob.home.log.files())
        git(remote, "reflog", "expire", "--expire=now", "--all")
        git(remote, "gc", "-q", "--prune=now")
        assert git(remote, "rev-list", "--objects", "--all").count(".rec") == 3


class _PartOf(Clone):
    """A clone whose part has a name with a slash."""

    path = "services/api"

    @property
    def channel(self):
        return super().channel._replace(part=self.path)


def _of_part(place: Clone, path: str) -> Clone:
    made = _PartOf(place.root, place.part)
    assert made.path == path
    return made


class TestHooks:
    def test_parts_have_histories_of_their_own_in_one_ref(self, remote, ada, bob):
        api, web = Clone(ada.root, "services%2Fapi"), Clone(bob.root, "web")
        api = _of_part(api, "services/api")
        names = api.record(1), web.record(2), ada.record(3)
        for place in (api, web, ada):
            place.publish()
        assert sorted(path for path in listed(remote) if path.endswith(".rec")) == [
            f"2026-11/{names[2]}",
            f"parts/services%2Fapi/2026-11/{names[0]}",
            f"parts/web/2026-11/{names[1]}",
        ]
        assert len({place.home.key() for place in (api, web, ada)}) == 1
        web.receive()
        assert web.home.log.files() == [names[1]]
        withdraw(web.home, web.channel, NOW, 30.0)
        assert not any("web" in path for path in listed(remote))
        assert len(recorded(remote)) == 2

    def test_no_hook_of_the_clone_runs(self, ada):
        for name in ("pre-push", "reference-transaction", "post-checkout"):
            hook = ada.root / ".git" / "hooks" / name
            hook.parent.mkdir(exist_ok=True)
            hook.write_text(f"#!/bin/sh\ntouch '{ada.root}/ran'\n")
            hook.chmod(0o755)
        ada.record(1)
        assert ada.publish().new
        ada.receive()
        assert not (ada.root / "ran").exists()
