"""What a checkout may steer: configuration, links, git's own configuration, and committed files of the history."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.cli import Checkout, answering, forty_tests, new_checkout, recording, server

TOKEN = "a-secret-of-sixteen-characters"


@contextmanager
def refusing() -> Iterator[tuple[str, list[bytes]]]:
    """A server that keeps every request that it gets."""
    requests: list[bytes] = []
    with server(recording(requests, answering("401 Unauthorized"))) as url:
        yield url, requests


def fork_of(place: Checkout) -> Checkout:
    """The same checkout, in a job that Jenkins runs for a fork's pull request."""
    variables = {"JENKINS_URL": "http://ci", "JOB_NAME": "a", "BUILD_NUMBER": "1", "CHANGE_ID": "7", "CHANGE_FORK": "x"}
    return place.with_env(**variables)


class TestSecrets:
    @pytest.mark.parametrize("command", ["pull", "push", "train", "doctor", "forget"])
    def test_no_token_for_an_address_of_the_repository(self, command: str, tmp_path: Path, learned_history: Path):
        """A static token is not sent where only `.fedstep.toml` says so, and one line names the remedy."""
        place = new_checkout(tmp_path / "repo", learned_history).with_env(FEDSTEP_TOKEN=TOKEN)
        report = place.report(forty_tests(1))
        with refusing() as (url, requests):
            (place.root / ".fedstep.toml").write_text(f'aggregator = "{url}"\nhelper = "http://127.0.0.1:9"\n')
            more = {"train": ("--junit", report), "forget": ("--yes",)}.get(command, ())
            ran = place.run(command, *more)
            assert TOKEN.encode() not in b"".join(requests)
            assert f"no token is sent to {url}" in ran.err
            assert f"fedstep trust {url}" in ran.err

    def test_token_goes_where_the_user_confirmed(self, tmp_path: Path, learned_history: Path):
        place = new_checkout(tmp_path / "repo", learned_history).with_env(FEDSTEP_TOKEN=TOKEN)
        with refusing() as (url, requests):
            (place.root / ".fedstep.toml").write_text(f'aggregator = "{url}"\n')
            assert place.run("trust", url).code == 0
            ran = place.run("pull")
            assert "no token is sent" not in ran.err
            assert f"Bearer {TOKEN}".encode() in b"".join(requests)

    def test_pinned_token_stays_with_its_address(self, tmp_path: Path, learned_history: Path):
        place = new_checkout(tmp_path / "repo", learned_history)
        with refusing() as (url, requests), refusing() as (other, others):
            place = place.with_env(FEDSTEP_TOKEN=f"{url} {TOKEN}")
            place.run("pull", "--aggregator", other)
            (place.root / ".fedstep.toml").write_text(f'aggregator = "{url}"\n')
            place.run("pull")
            assert TOKEN.encode() not in b"".join(others)
            assert f"Bearer {TOKEN}".encode() in b"".join(requests)

    def test_no_job_token_is_asked_for_such_an_address(self, tmp_path: Path, learned_history: Path):
        """On GitHub Actions, whose token would say which repository asks."""
        with refusing() as (github, asked), refusing() as (url, _):
            place = new_checkout(tmp_path / "repo", learned_history).with_env(
                GITHUB_ACTIONS="true",
                GITHUB_EVENT_NAME="push",
                ACTIONS_ID_TOKEN_REQUEST_URL=f"{github}/?a=b",
                ACTIONS_ID_TOKEN_REQUEST_TOKEN="request",
            )
            (place.root / ".fedstep.toml").write_text(f'aggregator = "{url}"\n')
            ran = place.run("pull")
            assert "no token is sent" in ran.err
            assert asked == []
            place.run("pull", "--aggregator", url)
            assert asked


class TestForks:
    @pytest.mark.parametrize("command", ["pull", "push", "doctor"])
    def test_a_fork_asks_no_aggregator(self, command: str, tmp_path: Path, learned_history: Path):
        place = fork_of(new_checkout(tmp_path / "repo", learned_history)).with_env(FEDSTEP_TOKEN=TOKEN)
        with refusing() as (url, requests):
            ran = place.run(command, "--aggregator", url)
            assert requests == []
            assert "fork" in ran.err + ran.out

    def test_pull_request_target_is_a_fork(self, tmp_path: Path, learned_history: Path):
        """It has the target's secrets, and often the files of the pull request, also of the same repository."""
        event = tmp_path / "event.json"
        same = {"repo": {"full_name": "acme/web"}}
        event.write_text(json.dumps({"pull_request": {"head": same, "base": same}}))
        place = new_checkout(tmp_path / "repo", learned_history).with_env(
            GITHUB_ACTIONS="true", GITHUB_EVENT_NAME="pull_request_target", GITHUB_EVENT_PATH=str(event)
        )
        with refusing() as (url, requests):
            place.run("pull", "--aggregator", url)
            assert requests == []


class TestPlanted:
    def test_committed_outbox_is_not_sent(self, tmp_path: Path, learned_history: Path):
        """Neither by `push` nor by `train`; both say how to mend it."""
        place = new_checkout(tmp_path / "repo", learned_history)
        place.git("add", "-f", ".fedstep")
        place.git("commit", "-q", "-m", "plant")
        report = place.report(forty_tests(2))
        with refusing() as (url, requests):
            for command in (("push",), ("train", "--junit", report)):
                ran = place.run(*command, "--aggregator", url)
                assert requests == []
                assert "git rm -r --cached .fedstep" in ran.err

    def test_ordinary_history_is_sent(self, tmp_path: Path, learned_history: Path):
        place = new_checkout(tmp_path / "repo", learned_history)
        with refusing() as (url, requests):
            place.run("train", "--junit", place.report(forty_tests(2)), "--aggregator", url)
            assert requests


class TestHistoryFolder:
    def test_file_of_the_repository_names_no_folder_outside(self, tmp_path: Path, learned_history: Path):
        """`forget` would delete it."""
        elsewhere = tmp_path / "elsewhere"
        shutil.copytree(learned_history, elsewhere)
        place = new_checkout(tmp_path / "repo")
        for folder in (str(elsewhere), "../elsewhere", "~/elsewhere", "a/../../elsewhere"):
            (place.root / ".fedstep.toml").write_text(f'history = "{folder}"\n')
            for command in (("forget", "--yes"), ("status",), ("predict",)):
                assert place.run(*command).code == 2
        assert (elsewhere / "key").exists()
        assert place.run("status", "--history", str(elsewhere)).code == 2  # the file is still wrong
        (place.root / ".fedstep.toml").unlink()
        assert place.run("status", "--history", str(elsewhere)).code == 0

    @pytest.mark.parametrize("link", [".fedstep", ".fedstep/builds", ".fedstep/outbox", "cache/fedstep"])
    def test_link_does_not_lead_the_history_elsewhere(self, link: str, tmp_path: Path, learned_history: Path):
        elsewhere = tmp_path / "elsewhere"
        shutil.copytree(learned_history, elsewhere)
        before = sorted(elsewhere.rglob("*"))
        place = new_checkout(tmp_path / "repo")
        path = place.root / link
        path.parent.mkdir(exist_ok=True)
        os.symlink(elsewhere if path.name != "builds" else elsewhere / "builds", path)
        history = link if link.startswith("cache") else ".fedstep"
        for command in (("forget", "--yes"), ("train", "--junit", place.report(forty_tests(1)))):
            ran = place.run(*command, "--history", history)
            assert ran.code == 4
            assert "link" in ran.err
        output = tmp_path / "output"
        build = place.with_env(CI="true", GITHUB_ACTIONS="true", GITHUB_OUTPUT=str(output))
        ran = build.run("train", "--junit", place.report(forty_tests(1)), "--history", history)
        assert (ran.code, output.read_text()) == (0, "status=degraded\n"), "a proposed link must not break the build"
        assert "link" in ran.err
        assert build.run("train", "--junit", "*.xml", "--history", history, "--strict").code == 4
        assert sorted(elsewhere.rglob("*")) == before


class TestGitConfiguration:
    @pytest.fixture
    def place(self, tmp_path: Path, learned_history: Path) -> Checkout:
        """A clone whose configuration names a program that writes its environment to a file."""
        place = new_checkout(tmp_path / "repo", learned_history)
        spy = tmp_path / "spy.sh"
        spy.write_text(f'#!/bin/sh\nenv >>"{tmp_path}/seen"\nexec cat\n')
        spy.chmod(0o755)
        (place.root / ".gitattributes").write_text("* filter=a.b=c\n")
        for key in ("clean", "process", "smudge"):
            place.git("config", f"filter.a.b=c.{key}", str(spy))
        place.git("config", "remote.origin.url", f"ext::{spy} %S")
        place.git("config", "protocol.ext.allow", "always")
        (place.root / "shop/cart.py").write_text("total = 2\n")
        return place.with_env(FEDSTEP_TOKEN=TOKEN)

    @pytest.mark.parametrize("command", ["predict", "train", "triage"])
    def test_no_filter_runs(self, command: str, place: Checkout, tmp_path: Path):
        place.run(command, "--junit", place.report(forty_tests(1)))
        assert not (tmp_path / "seen").exists()

    @pytest.mark.parametrize("command", [("history", "merge"), ("train", "--history", "git")])
    def test_no_program_stands_in_for_a_remote(self, command: tuple[str, ...], place: Checkout, tmp_path: Path):
        more = ("--junit", place.report(forty_tests(1))) if command[0] == "train" else ("--history", "git")
        place.run(*command, *more)
        assert not (tmp_path / "seen").exists()

    def test_filter_of_git_lfs_stays(self, place: Checkout):
        """Without it git would call each of its files changed."""
        from fedstep.ingest.git_process import _filters

        _filters.cache_clear()
        for key, words in (("clean", "clean -- %f"), ("smudge", "smudge -- %f"), ("process", "filter-process")):
            place.git("config", f"filter.lfs.{key}", f"git-lfs {words}")
        assert _filters(str(place.root)) == ("a.b=c",)

    def test_git_gets_none_of_our_tokens(self, place: Checkout, tmp_path: Path):
        """A program for the remote that the user allowed is started without them."""
        place.git("config", "remote.origin.url", f"ssh://nobody@127.0.0.1:9/{tmp_path}")
        place.git("config", "core.sshCommand", f"env >{tmp_path}/seen; false")
        place.run("history", "merge", "--history", "git")
        assert TOKEN not in (tmp_path / "seen").read_text()
