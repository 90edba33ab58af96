"""The history on the repository's own ref: jobs of a matrix at once, a remote that refuses, forks."""

import json
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LOOP = HERE / "workflows" / "loop.yml"
FOUR = HERE / "workflows" / "matrix.yml"
REF = "refs/fedstep/history"


@pytest.fixture
def remote(repository, tmp_path):
    """A real bare repository that the project's origin is."""
    folder = tmp_path / "origin.git"
    git("init", "-q", "--bare", "-b", "main", folder)
    git("-C", repository, "remote", "set-url", "origin", folder.as_uri())
    git("-C", repository, "push", "-q", "origin", "main")
    return folder


def git(*words):
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True, timeout=60).stdout


def records(remote):
    names = git("-C", remote, "ls-tree", "-r", "--name-only", REF).splitlines()
    return [name for name in names if name.endswith(".rec")]


class TestMatrix:
    @pytest.mark.full
    def test_four_jobs_of_a_matrix_that_end_at_once_lose_nothing(self, act, fedstep, remote, tmp_path):
        given = {"COMMAND": fedstep, "HISTORY": "git", "FEDSTEP_BUDGET": "120"}
        first = act(FOUR, **given, GITHUB_RUN_ID="1")
        assert first.code == 0, first.log
        assert len(records(remote)) == 4, first.log
        second = act(FOUR, **given, GITHUB_RUN_ID="2")
        assert second.code == 0, second.log
        assert len(records(remote)) == 8, second.log
        assert second.log.count("; 4 builds and ") >= 4, "each job predicts from what all four have published"
        assert not list((tmp_path / "cache").glob("*")), "the cache has no part in it"
        git("-C", remote, "fsck", "--connectivity-only")

    def test_a_build_travels_to_the_next_run_by_the_ref_alone(self, act, fedstep, remote, repository, tmp_path):
        given = {"COMMAND": fedstep, "HISTORY": "git", "REPORTS": "report.xml"}
        first = act(LOOP, "--matrix", "cell:one", **given, GITHUB_RUN_ID="1")
        assert first.code == 0, first.log
        assert first.outputs("train")["status"] == "local", first.log
        assert len(records(remote)) == 1
        assert not list((tmp_path / "cache").glob("*"))
        git("-C", repository, "update-ref", "-d", REF)  # another machine's clone
        second = act(LOOP, "--matrix", "cell:one", **given, GITHUB_RUN_ID="2")
        assert "; 1 build and " in second.summary()
        assert len(records(remote)) == 2


class TestPermissions:
    def test_token_that_may_not_push_is_said_and_build_is_green(self, act, fedstep, remote):
        """A token that may not push is one clear sentence, and the build stays green."""
        # Not by a hook: those of a repository on this machine do not run.
        git("-C", remote, "config", "receive.hideRefs", "refs/fedstep")
        run = act(LOOP, "--matrix", "cell:one", COMMAND=fedstep, HISTORY="git", REPORTS="report.xml")
        assert run.code == 0, run.log
        assert run.outputs("train")["status"] == "degraded"
        assert "origin did not take the history" in run.summary()
        assert "contents: write" in run.summary()
        assert REF not in git("-C", remote, "for-each-ref")

    @pytest.mark.full
    def test_fork_reads_the_ref_predicts_and_records_nothing(self, act, fedstep, remote, tmp_path):
        """A run of a fork reads the ref, predicts and records nothing."""
        given = {"COMMAND": fedstep, "HISTORY": "git", "REPORTS": "report.xml"}
        act(LOOP, "--matrix", "cell:one", **given, GITHUB_RUN_ID="1")
        event = tmp_path / "event.json"
        event.write_text(json.dumps(fork_event()))
        run = act(LOOP, "--matrix", "cell:one", "-e", str(event), event="pull_request", **given, GITHUB_RUN_ID="2")
        assert run.code == 0, run.log
        assert "; 1 build and " in run.summary()
        assert "test_sleeps" in run.summary()
        assert run.outputs("train")["failures-flaky"] != ""
        assert len(records(remote)) == 1, "nothing of a fork is recorded"


def fork_event():
    return {
        "number": 7,
        "pull_request": {
            "number": 7,
            "user": {"login": "stranger"},
            "head": {"ref": "patch", "sha": "b" * 40, "repo": {"full_name": "stranger/shop"}},
            "base": {"ref": "main", "sha": "a" * 40, "repo": {"full_name": "acme/shop"}},
        },
        "repository": {"full_name": "acme/shop", "default_branch": "main"},
    }
