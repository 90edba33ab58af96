"""A history that travels, as a user meets it: a real bare remote, clones, and the commands."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.cli import Checkout, Ran, bare_env, forty_tests, junit, new_checkout

CASES = forty_tests(12)
REF = "refs/fedstep/history"
CI = {"CI": "true", "FEDSTEP_CI_JOB": "test", "FEDSTEP_CI_BRANCH": "main"}


@pytest.fixture
def origin(tmp_path: Path) -> Checkout:
    """A bare repository that CI and developers share."""
    first = new_checkout(tmp_path / "first")
    bare = Checkout(tmp_path / "origin.git", first.env)
    first.git("clone", "-q", "--bare", ".", str(bare.root))
    return bare


@pytest.fixture
def laptop(origin: Checkout, tmp_path: Path) -> Checkout:
    """A developer's clone that has never run fedstep."""
    return clone(origin, tmp_path / "laptop")


@pytest.fixture
def job(origin: Checkout, tmp_path: Path, without_sklearn: Callable[[Checkout], Checkout]) -> Checkout:
    """A CI job in a shallow clone of its own; it records and publishes, and learns nothing."""
    place = clone(origin, tmp_path / "job", "--depth", "1").with_env(**CI, FEDSTEP_CI_RUN="1")
    return without_sklearn(place)


def clone(origin: Checkout, root: Path, *options: str) -> Checkout:
    origin.git("clone", "-q", *options, origin.root.as_uri(), str(root))
    return Checkout(root, bare_env(root.parent / f"{root.name}-home")).with_env(FEDSTEP_HISTORY="git")


def recorded(origin: Checkout) -> list[str]:
    listed = origin.git("ls-tree", "-r", "--name-only", REF).splitlines()
    return [path for path in listed if path.endswith(".rec")]


def told(ran: Ran) -> dict[str, Any]:
    assert ran.code == 0, ran.err
    result: dict[str, Any] = json.loads(ran.out)
    return result


def timeless(prediction: dict) -> dict:
    """What a prediction says that does not depend on the time of day."""
    return {key: prediction[key] for key in ("builds_known", "tests_known", "flaky", "model")}


def train(place: Checkout, *more: str):
    return place.run("train", "--junit", place.report(CASES), "--format", "json", *more)


class TestPredictions:
    def test_what_ci_learned_a_developer_has_after_a_clone(self, origin, job, laptop):
        train(job)
        assert len(recorded(origin)) == 1
        assert told(laptop.run("predict", "--format", "json"))["builds_known"] == 1
        assert laptop.git("status", "--porcelain") == ""
        assert job.git("status", "--porcelain") == "?? report.xml\n"
        assert not laptop.history.exists()

    def test_fresh_clone_of_learned_history_predicts_the_same(self, origin, laptop, learned_history, tmp_path):
        """A history with what was learned predicts the same in a fresh clone."""
        teacher = clone(origin, tmp_path / "teacher")
        merged = teacher.run("history", "merge", str(learned_history))
        assert merged.out == "12 builds added, 0 known already; published\n", merged.err
        shutil.copytree(learned_history, laptop.root / "copy")
        for name in ("summary", "correction", "backlog", "outlook"):
            shutil.copy(learned_history / f"{name}.json", teacher.root / ".git" / "fedstep")
        teacher.run("history", "merge")
        fetched = told(laptop.run("predict", "--format", "json"))
        local = told(laptop.run("predict", "--format", "json", "--history", "copy"))
        assert fetched["builds_known"] == 12
        assert timeless(fetched) == timeless(local)

    def test_later_predictions_do_not_ask_the_remote(self, origin, job, laptop):
        train(job)
        laptop.run("predict")
        origin.root.rename(origin.root.parent / "moved.git")
        ran = laptop.run("predict", "--format", "json")
        assert told(ran)["builds_known"] == 1
        assert ran.warnings == []

    def test_old_fetch_is_repeated_and_its_failure_said(self, origin, job, laptop):
        """A prediction asks again when its fetch is old and says when that failed."""
        train(job)
        laptop.run("predict")
        state = laptop.root / ".git" / "fedstep" / "travel.json"
        state.write_text(json.dumps({**json.loads(state.read_text()), "fetched_at": 0, "tried_at": 0}))
        train(job.with_env(FEDSTEP_CI_RUN="2"))
        assert told(laptop.run("predict", "--format", "json"))["builds_known"] == 2
        state.write_text(json.dumps({**json.loads(state.read_text()), "fetched_at": 0, "tried_at": 0}))
        origin.root.rename(origin.root.parent / "moved.git")
        failed = laptop.run("predict", "--format", "json")
        assert told(failed)["builds_known"] == 2
        assert len(failed.warnings) == 1
        assert "not fetched from origin" in failed.warnings[0]
        assert laptop.run("predict").warnings == [], "an attempt that failed is not repeated at once"

    def test_slow_remote_is_left_after_a_second(self, job, laptop, tmp_path):
        """A remote that is too slow is left after a second, and git itself can bring the history."""
        train(job)
        script = tmp_path / "ssh"
        script.write_text("#!/bin/sh\nexec sleep 50\n")
        script.chmod(0o755)
        url = laptop.git("remote", "get-url", "origin").strip()
        laptop.git("remote", "set-url", "origin", "ssh://example.invalid/x.git")
        ran = laptop.with_env(GIT_SSH_COMMAND=str(script)).run("predict")
        assert ran.code == 0
        assert ran.seconds < 20
        assert "did not send the history within 1.0 s" in ran.err
        laptop.git("remote", "set-url", "origin", url)
        command = ran.warnings[0].split("Run: ")[1]
        subprocess.run(command.split(), cwd=laptop.root, env=dict(laptop.env), check=True, capture_output=True)
        assert told(laptop.run("predict", "--format", "json"))["builds_known"] == 1

    def test_what_predict_loads_stays_light_when_the_history_travels(self, job, laptop):
        train(job)
        for _ in range(2):
            ran = laptop.start("predict", python=("-X", "importtime"))
            with ran:
                _, err = ran.communicate(timeout=60)
            loaded = {line.rpartition("|")[2].strip() for line in err.splitlines() if line.startswith("import time:")}
            assert "fedstep.history.merge" in loaded
            assert not {"numpy", "sklearn", "scipy", "requests", "urllib3"} & loaded
        plain = laptop.start("predict", "--history", ".fedstep", python=("-X", "importtime"))
        with plain:
            _, err = plain.communicate(timeout=60)
        assert not any(name in err for name in ("history.intake", "history.sync", "history.gitref", "build.gittalk"))

    def test_mark_of_predict_times_the_job_with_a_fetched_key(self, origin, job, laptop):
        """A mark of `predict` times the job although the key is fetched."""
        train(job)
        second = laptop.with_env(**CI, FEDSTEP_CI_RUN="2", PYTHONPATH=job.env["PYTHONPATH"])
        second.run("predict")
        assert told(train(second))["duration"]["source"] == "mark"
        assert len(recorded(origin)) == 2


class TestPublishing:
    def test_refused_push_fails_nothing_and_is_made_up_for(self, origin, job):
        """A push that is refused fails nothing, and the next run publishes both."""
        # Not by a hook: those of a repository on this machine do not run.
        origin.git("--git-dir=.", "config", "receive.hideRefs", "refs/fedstep")
        ran = train(job)
        assert told(ran)["status"] == "degraded"
        assert any("origin did not take the history" in warning for warning in ran.warnings)
        assert train(job.with_env(FEDSTEP_CI_RUN="2"), "--strict").code == 4
        origin.git("--git-dir=.", "config", "--unset", "receive.hideRefs")
        train(job.with_env(FEDSTEP_CI_RUN="3"))
        assert len(recorded(origin)) == 3

    def test_a_dead_remote_is_said_once(self, origin, job):
        origin.root.rename(origin.root.parent / "moved.git")
        ran = train(job)
        assert sum("origin" in warning for warning in ran.warnings) == 1
        assert told(ran)["status"] == "degraded"

    def test_a_run_of_a_fork_reads_and_never_publishes(self, origin, job, laptop, tmp_path):
        train(job)
        event = tmp_path / "event.json"
        event.write_text(
            '{"pull_request": {"head": {"repo": {"full_name": "x/y"}}, "base": {"repo": {"full_name": "a/y"}}}}'
        )
        fork = laptop.with_env(
            CI="true",
            GITHUB_ACTIONS="true",
            GITHUB_RUN_ID="7",
            GITHUB_EVENT_NAME="pull_request",
            GITHUB_EVENT_PATH=str(event),
            PYTHONPATH=job.env["PYTHONPATH"],
        )
        before = origin.git("rev-parse", REF)
        assert told(train(fork))["status"] == "local"
        assert "not published" in fork.run("history", "merge").out
        assert fork.run("history", "forget", "--remote", "--yes").code == 2
        assert origin.git("rev-parse", REF) == before

    def test_parts_have_histories_of_their_own(self, origin, job):
        train(job, "--path", "services/api")
        train(job, "--path", "web/")
        assert sorted({path.rpartition("/2")[0] for path in recorded(origin)}) == ["parts/services%2Fapi", "parts/web"]
        assert told(job.run("predict", "--path", "./web", "--format", "json"))["builds_known"] == 1
        assert job.run("predict", "--path", "../web").code == 2
        ran = job.run("train", "--junit", "report.xml", "--path", "web", "--history", ".fedstep")
        assert ran.code == 0
        assert len(list(job.history.glob("parts/web/builds/*.rec"))) == 1

    def test_outside_a_repository_a_folder_is_used(self, bare, without_sklearn):
        """Outside a repository the folder is used, and that is said."""
        ran = without_sklearn(bare).run("train", "--junit", bare.report(CASES), "--history", "git")
        assert ran.code == 0
        assert any("--history git needs a git repository" in warning for warning in ran.warnings)
        assert len(bare.builds()) == 13


class TestShow:
    def test_show_tells_what_there_is_and_how_far_it_has_travelled(self, origin, job, laptop):
        train(job)
        laptop.run("predict")
        shown = told(laptop.run("history", "show", "--format", "json"))
        assert (shown["builds"], shown["tests"], shown["unlearned"]) == (1, 40, 1)
        assert shown["ref"]["local"] == shown["ref"]["remote"] == origin.git("rev-parse", REF).strip()
        assert shown["ref"]["unpublished"] == 0
        assert shown["streams"] == [{"stream": "test||tests", "builds": 1}]
        text = laptop.run("history", "show").out
        assert "1, 1 not learned yet" in text
        assert "origin" in text
        markdown = laptop.run("history", "show", "--format", "markdown").out
        assert markdown.startswith("## fedstep: history\n")
        assert "| Builds | `1, 1 not learned yet` |" in markdown
        folder = told(laptop.run("history", "show", "--history", ".fedstep", "--format", "json"))
        assert (folder["builds"], folder["first"], folder["ref"]) == (0, None, None)


class TestPrune:
    def test_prune_deletes_for_everyone(self, origin, job, laptop):
        for run in "123":
            train(job.with_env(FEDSTEP_CI_RUN=run))
        laptop.run("predict")
        assert job.run("history", "prune", "--keep", "1").out == "2 builds deleted, 1 kept; published\n"
        assert len(recorded(origin)) == 1
        assert laptop.run("history", "merge").out.endswith("nothing to publish\n")
        assert told(laptop.run("history", "show", "--format", "json"))["builds"] == 1

    def test_prune_of_a_folder_deletes_there(self, experienced):
        assert experienced.run("history", "prune", "--keep", "5").out == "7 builds deleted, 5 kept\n"
        assert len(experienced.builds()) == 5


class TestRebuild:
    def test_rebuild_learns_all_again_and_sends_nothing_twice(self, experienced):
        before = told(experienced.run("predict", "--format", "json"))
        (experienced.history / "backlog.json").write_text("damaged")
        assert experienced.run("history", "rebuild").out.startswith("learned from 12 builds and ")
        assert timeless(told(experienced.run("predict", "--format", "json"))) == timeless(before)
        again = json.loads((experienced.history / "backlog.json").read_text())["waiting"]
        assert not any(rows["labels"] for rows in again.values()), "unknown whether it was sent: not sent again"

    def test_rebuild_keeps_what_waits_to_be_sent(self, experienced):
        waiting = json.loads((experienced.history / "backlog.json").read_text())["waiting"]
        experienced.run("history", "rebuild")
        assert json.loads((experienced.history / "backlog.json").read_text())["waiting"] == waiting

    def test_rebuild_without_scikit_learn_changes_nothing(self, experienced, without_sklearn):
        before = (experienced.history / "summary.json").read_bytes()
        ran = without_sklearn(experienced).run("history", "rebuild")
        assert ran.code == 6
        assert "Nothing was changed" in ran.err
        assert (experienced.history / "summary.json").read_bytes() == before


class TestForget:
    def test_forget_asks_and_says_what_it_cannot_reach(self, origin, job, laptop):
        train(job)
        laptop.run("predict")
        assert laptop.run("history", "forget").code == 2
        assert told(laptop.run("history", "show", "--format", "json"))["builds"] == 1
        ran = laptop.run("history", "forget", "--remote", "--yes")
        assert ran.code == 0
        assert "does not reach other clones" in ran.out
        assert "aggregator" in ran.out
        assert not (laptop.root / ".git" / "fedstep").exists()
        assert origin.git("for-each-ref", "refs/fedstep") == ""
        assert laptop.git("for-each-ref", "refs/fedstep") == ""

    def test_forget_without_remote_leaves_the_remote_alone(self, origin, job):
        train(job)
        before = origin.git("rev-parse", REF)
        assert job.run("history", "forget", "--yes").code == 0
        assert origin.git("rev-parse", REF) == before

    @pytest.mark.parametrize("folder", ["..", ".", "/", "shop"])
    def test_forget_deletes_nothing_but_a_history(self, experienced, folder):
        (experienced.root / "key").write_text("mine")
        ran = experienced.run("history", "forget", "--yes", "--history", folder)
        assert ran.code == 2
        assert "is no history" in ran.err
        assert (experienced.root / "shop" / "cart.py").exists()


class TestMerge:
    def test_merge_names_what_is_neither_folder_nor_ref(self, laptop, experienced):
        ran = laptop.run("history", "merge", "nowhere")
        assert ran.code == 2
        assert "nowhere is neither a folder nor a ref" in ran.err
        assert experienced.run("history", "merge").code == 2
        assert os.listdir(experienced.history / "builds")

    def test_a_past_that_was_learned_travels_at_once(self, origin: Checkout, laptop: Checkout, tmp_path: Path):
        for number in range(1, 5):
            build = tmp_path / "recorded" / f"{number:04d}"
            build.mkdir(parents=True)
            told_of = {
                "build": str(number),
                "started_at": f"2026-03-0{number}T10:00:00Z",
                "seconds": 60,
                "outcome": "passed",
            }
            (build / "build.json").write_text(json.dumps(told_of))
            (build / "report.xml").write_text(junit(CASES))
        ran = laptop.run("backfill", str(tmp_path / "recorded"))
        assert (ran.code, ran.err.count("error")) == (0, 0), ran.err
        assert len(recorded(origin)) == 4
        assert told(clone(origin, tmp_path / "other").run("predict", "--format", "json"))["builds_known"] == 4
