"""Facts about links to commits: which hosts are known, and that nothing but plain parts of a URL reaches a page."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.ingest.code_host import NO_CODE_HOST, CodeHost, find_code_host, parse_remote

OLD, NEW = "1" * 40, "2" * 40
GITHUB = "https://github.com/acme/shop"


class TestKnown:
    @pytest.mark.parametrize(
        ("url", "repository"),
        [
            ("https://github.com/acme/shop.git", GITHUB),
            ("https://github.com/acme/shop", GITHUB),
            ("https://github.com/acme/shop/", GITHUB),
            ("https://GitHub.com:443/acme/shop.git", GITHUB),
            ("git@github.com:acme/shop.git", GITHUB),
            ("ssh://git@github.com/acme/shop.git", GITHUB),
            ("ssh://git@ssh.github.com:443/acme/shop.git", GITHUB),
            ("git+ssh://git@github.com/acme/shop", GITHUB),
            ("git://github.com/acme/shop.git", GITHUB),
            ("https://github.example.com/acme/shop.git", "https://github.example.com/acme/shop"),
            ("https://gitlab.com/acme/tools/web/shop.git", "https://gitlab.com/acme/tools/web/shop"),
            ("git@gitlab.example.org:acme/shop.git", "https://gitlab.example.org/acme/shop"),
            ("ssh://git@gitlab.example.org:2222/acme/shop.git", "https://gitlab.example.org/acme/shop"),
            ("https://my-gitlab.example.org:8443/acme/shop.git", "https://my-gitlab.example.org:8443/acme/shop"),
            ("git@bitbucket.org:acme/shop.git", "https://bitbucket.org/acme/shop"),
            ("https://codeberg.org/acme/shop.git", "https://codeberg.org/acme/shop"),
            ("https://gitea.example.org/acme/shop.js.git", "https://gitea.example.org/acme/shop.js"),
        ],
    )
    def test_each_form_of_a_remote_is_one_address(self, url: str, repository: str) -> None:
        assert parse_remote(url).repository == repository

    @pytest.mark.parametrize(
        ("url", "one", "two"),
        [
            (GITHUB, f"/commit/{NEW}", f"/compare/{OLD}...{NEW}"),
            ("https://gitlab.com/acme/shop", f"/-/commit/{NEW}", f"/-/compare/{OLD}...{NEW}"),
            ("https://bitbucket.org/acme/shop", f"/commits/{NEW}", f"/branches/compare/{NEW}%0D{OLD}"),
            ("https://codeberg.org/acme/shop", f"/commit/{NEW}", f"/compare/{OLD}...{NEW}"),
        ],
    )
    def test_each_host_has_its_own_paths(self, url: str, one: str, two: str) -> None:
        host = parse_remote(url)
        assert host.link(NEW) == host.link(NEW, NEW) == url + one
        assert host.link(NEW, OLD) == url + two


class TestUnknown:
    @pytest.mark.parametrize(
        "url",
        [
            "",
            "/srv/git/shop.git",
            "../shop",
            "C:\\git\\shop",
            "file:///srv/github.com/acme/shop",
            "https://git.example.org/acme/shop.git",
            "https://bitbucket.example.org/scm/acme/shop.git",
            "http://github.com/acme/shop",
            "ext::sh -c x github.com/acme/shop",
            "javascript://github.com/acme/shop",
            "https://github.com/acme",
            "https://github.com/acme/shop/more",
            "https://github.com/acme/..",
            "https://github.com/../shop",
            "https://github.com/acme/sh op",
            'https://github.com/acme/"><script>alert(1)</script>',
            "https://github.com/acme/shop?x=1",
            "https://github.com/acme/shop#x",
            "https://github.com/acme/shop)[x](https://evil.example.org",
            "https://github.com/acme/shop\nhttps://evil.example.org",
            "https://github.com@evil.example.org/acme/shop",
            "https://github.com:x@evil.example.org/acme/shop",
            "https://github.com\\@evil.example.org/acme/shop",
            "https://github.com.evil.example.org%2f/acme/shop",
            "https://githubx.com/acme/shop",
            "https://evil.example.org/github.com/acme/shop",
            "https://ada:p@ss/word@github.com/acme/shop",
            "https://gıthub.com/acme/shop",
            "https://github.com/acme/" + "x" * 3000,
        ],
    )
    def test_no_link_is_made(self, url: str) -> None:
        host = parse_remote(url)
        assert host == NO_CODE_HOST
        assert host.link(NEW, OLD) == ""

    @pytest.mark.parametrize("commit", ["", "HEAD", "123", "../../settings", "1" * 40 + '"', "G" * 40])
    def test_what_is_no_commit_has_no_link(self, commit: str) -> None:
        host = CodeHost(GITHUB, "github")
        assert host.link(commit, OLD) == ""
        assert host.link(NEW, commit) == f"{GITHUB}/commit/{NEW}"

    @given(st.text(max_size=60), st.sampled_from(["https://{}@github.com/acme/shop", "https://github.com/{}/{}"]))
    def test_nothing_but_plain_letters_comes_out(self, text: str, form: str) -> None:
        host = parse_remote(form.format(text, text))
        assert not set(host.repository) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.~-:/"), (
            "a page, Markdown and Slack show it as it is"
        )


class TestSecrets:
    @pytest.mark.parametrize(
        "url", ["https://ada:s3cr3t@github.com/acme/shop.git", "https://s3cr3t@github.com/acme/shop", "ssh://s3cr3t:x@github.com/acme/shop"]
    )  # fmt: skip
    def test_a_credential_is_not_kept(self, url: str) -> None:
        assert "s3cr3t" not in parse_remote(url).link(NEW, OLD)
        assert parse_remote(url).repository == GITHUB


class TestRepository:
    def test_the_remote_of_a_repository_is_read(self, tmp_path: Path) -> None:
        for words in (("init", "-q"), ("remote", "add", "origin", "https://x:y@github.com/acme/shop.git")):
            subprocess.run(["git", "-C", str(tmp_path), *words], check=True, timeout=20)
        assert find_code_host(str(tmp_path), "origin").repository == GITHUB
        assert find_code_host(str(tmp_path), "other") == NO_CODE_HOST
        assert find_code_host(str(tmp_path), "") == NO_CODE_HOST
