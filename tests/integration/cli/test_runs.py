"""Which run a job is: a CI that names none, a pull request whose history is a copy, a job that is cancelled."""

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.helpers.cli import Checkout, ended, forty_tests

CASES = forty_tests(12)
NAMELESS = {"CI": "true", "FEDSTEP_CI_BRANCH": "main"}
WITHHELD = "nothing is sent: a pull request's rows stay with it"


def train(place: Checkout, *more: str):
    return place.run("train", "--junit", place.report(CASES), "--format", "json", *more)


class TestTimes:
    def test_in_a_ci_that_names_no_run_a_build_is_timed_by_its_tests(self, experienced):
        """The mark of one job would stand for all jobs of a week."""
        place = experienced.with_env(**NAMELESS)
        place.run("predict")
        assert not (place.history / "marks").exists()
        ran = train(place)
        assert json.loads(ran.out)["duration"]["source"] == "tests"
        said = [line for line in ran.warnings if "FEDSTEP_CI_RUN" in line]
        assert len(said) == 1, ran.err

    def test_named_run_is_timed_by_its_mark(self, experienced):
        """A run that has a name is timed by its mark and says nothing of it."""
        place = experienced.with_env(**NAMELESS, FEDSTEP_CI_RUN="7")
        place.run("predict")
        ran = train(place)
        assert json.loads(ran.out)["duration"]["source"] == "mark"
        assert "FEDSTEP_CI_RUN" not in ran.err


def _now(place: Checkout) -> str:
    path = place.root / "shop" / "cart.py"
    return path.read_text() if path.exists() else ""


class TestCopies:
    def test_equal_reports_of_two_commits_are_two_builds(self, experienced):
        """Equal reports of two commits are two builds where runs have no names."""
        place = experienced.with_env(**NAMELESS)
        before = len(place.builds())
        for text in ("one", "two", "two"):
            place.commit("shop/cart.py", text) if text not in _now(place) else None
            train(place)
        assert len(place.builds()) == before + 2

    def test_pull_request_with_a_history_copy_sends_nothing(self, connected, hub):
        """A pull request with a copy of the history learns and sends nothing."""
        place = connected.with_env(CI="true", FEDSTEP_CI_RUN="1", FEDSTEP_CI_EVENT="pull_request")
        ran = place.run("train", "--junit", place.report(CASES), "--aggregator", hub)
        assert WITHHELD in " ".join(ran.out.split())
        assert (place.outbox(), len(place.builds())) == ([], 13)
        assert json.loads((place.history / "backlog.json").read_text())["waiting"]["build-failure"]["labels"]
        pushed = connected.with_env(CI="true", FEDSTEP_CI_RUN="2", FEDSTEP_CI_EVENT="push")
        assert "1 update sent" in pushed.run("train", "--junit", "report.xml", "--aggregator", hub).out

    def test_a_pull_request_whose_history_travels_sends_as_others_do(self, connected, hub):
        place = connected.with_env(CI="true", FEDSTEP_CI_RUN="1", FEDSTEP_CI_EVENT="pull_request")
        place.git("init", "-q", "--bare", "../origin.git")
        place.git("remote", "add", "origin", str(place.root.parent / "origin.git"))
        assert place.run("history", "merge", ".fedstep", "--history", "git").code == 0
        place.git("update-ref", "-d", "refs/fedstep/history")
        ran = place.run("train", "--junit", place.report(CASES), "--aggregator", hub, "--history", "git")
        assert "1 update sent" in ran.out, ran.err


class TestCancellation:
    @pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
    def test_cancelled_job_leaves_no_git_and_no_file(self, fresh):
        """A job that is cancelled leaves no git process and no file behind."""
        fresh.commit("README", "")
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.settimeout(60)
            url = f"git://127.0.0.1:{silent.getsockname()[1]}/nothing"
            fresh.git("remote", "add", "origin", url)
            fresh.git("update-ref", "refs/fedstep/history", "HEAD")  # so that a file says what both sides have
            place = fresh.with_env(CI="true", FEDSTEP_CI_RUN="1", GIT_ALLOW_PROTOCOL="git")
            with place.start("predict", "--history", "git") as process:
                connection, _ = silent.accept()
                assert _started_by(url, fresh)
                process.send_signal(signal.SIGTERM)
                _, err = ended(process)
                connection.close()
        assert (process.returncode, err) == (143, "")
        end = time.monotonic() + 10
        while _started_by(url, fresh) and time.monotonic() < end:
            time.sleep(0.05)
        assert _started_by(url, fresh) == []
        assert list((fresh.root / ".git" / "fedstep").glob("shallow.*")) == []


def _started_by(url: str, place: Checkout) -> list[str]:
    """The processes that work in this checkout, or with this address."""
    found = []
    for folder in filter(str.isdecimal, os.listdir("/proc")):
        try:
            words = Path("/proc", folder, "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "git" in words and (url in words or str(place.root) in words):
            found.append(words)
    return found
