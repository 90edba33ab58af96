"""The GitHub actions, run by act as a workflow would run them."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from fedstep.report.ci_outputs import KEYS

HERE = Path(__file__).parent
LOOP = HERE / "workflows" / "loop.yml"
TEAM = HERE / "examples" / "github-team.yml"
DEAD = "http://127.0.0.1:9"


@pytest.fixture
def recorder(tmp_path):
    """A command that writes down how it was called and leaves with CODE."""
    path = tmp_path / "a recorder"
    path.write_text(
        '#!/bin/sh\nprintf "%s\\n" "$@" >"$KEPT/$1.arguments"\nenv >"$KEPT/$1.environment"\n'
        'mkdir -p .fedstep && echo x >>.fedstep/log && cp .fedstep/log "$KEPT/log"\nexit "${CODE:-0}"\n'
    )
    path.chmod(0o755)
    return str(path)


def one(act, **variables):
    return act(LOOP, "--matrix", "cell:one", **variables)


def saved_keys(tmp_path):
    return sorted(path.stem for path in (tmp_path / "cache").glob("*/*/fedstep-v1-*.tar"))


class TestHistory:
    def test_what_one_run_learns_the_next_one_knows(self, act, aggregator, fedstep, tmp_path):
        given = {"COMMAND": fedstep, "AGGREGATOR": aggregator, "REPORTS": "report.xml"}
        first = one(act, **given, TESTS="sleep 3", GITHUB_RUN_ID="1")
        assert first.code == 0, first.log
        assert "starter model" in first.summary(), "nothing was pulled yet when predict ran"
        assert first.outputs("train")["status"] == "ok", first.log
        assert set(KEYS) == set(first.outputs("train"))
        assert "test_sleeps" in first.summary()
        seconds = re.search(r"build passed after ([\d.]+) s", first.summary())
        assert seconds, first.summary()
        assert float(seconds[1]) >= 3, "the mark that predict left at the job's start was lost"

        second = one(act, **given, TESTS="exit 1", GITHUB_RUN_ID="2")
        assert second.code == 1, "the job's own failure stands"
        assert "build failed" in second.summary()
        assert second.outputs("predict")["status"] == "ok", "the pulled model came with the cache"
        builds = [line for line in (second.kept / "files").read_text().splitlines() if "/.fedstep/builds/" in line]
        assert len(builds) == 2, builds
        (before, after) = saved_keys(tmp_path)
        assert before.removesuffix("-1-1") == after.removesuffix("-2-1")
        assert before.endswith("-test-1-1")


class TestInputs:
    def test_hostile_names_and_dead_aggregator_change_no_build(self, act, fedstep):
        """Hostile names and a dead aggregator leave the build alone."""
        given = {"COMMAND": fedstep, "AGGREGATOR": DEAD, "REPORTS": "*.xml", "FEDSTEP_TIMEOUT": "1"}
        run = one(act, **given, TESTS="echo ::error::control")
        assert run.code == 0, run.log
        assert run.outputs("train")["status"] == "degraded"
        assert "127.0.0.1:9" in run.log
        assert "/pwned" not in (run.kept / "files").read_text()
        assert not run.obeyed("add-mask")
        assert not run.obeyed("stop-commands")
        errors = run.obeyed("error")
        assert "control" in errors, "this test would see an obeyed command"
        assert not [text for text in errors if text.startswith("pwned")]
        assert "pwned" not in run.outputs("train")["status"]
        assert run.outputs("train")["failures-flaky"] != ""

    def test_inputs_arrive_as_they_were_written(self, act, recorder):
        glob = 'build/**/"$(touch pwned)"; `touch pwned` *.xml'
        run = one(act, COMMAND=recorder, REPORTS=f"  {glob}", AGGREGATOR="$(touch pwned)", TOKEN="a'b c")
        assert run.code == 0, run.log
        assert (run.kept / "train.arguments").read_text().splitlines() == [
            "train", "--junit", glob, "--junit", "re port $(touch pwned).xml",
        ]  # fmt: skip
        environment = (run.kept / "train.environment").read_text()
        cell = 'FEDSTEP_CI_CELL={"cell":"one"}'
        for line in ("FEDSTEP_AGGREGATOR=$(touch pwned)", "FEDSTEP_TOKEN=a'b c", "FEDSTEP_OUTCOME=passed", cell):
            assert line in environment
        assert (run.kept / "predict.arguments").read_text() == "predict\n"
        assert cell in (run.kept / "predict.environment").read_text()
        assert "/pwned" not in (run.kept / "files").read_text()


def pull_request(tmp_path, head="acme/shop", author="colleague"):
    """The flags with which act runs a pull request, from a repository and by an author."""
    event = {
        "number": 7,
        "pull_request": {
            "number": 7,
            "user": {"login": author},
            "head": {"ref": "patch", "sha": "b" * 40, "repo": {"full_name": head}},
            "base": {"ref": "main", "sha": "a" * 40, "repo": {"full_name": "acme/shop"}},
        },
        "repository": {"full_name": "acme/shop", "default_branch": "main"},
    }
    path = tmp_path / "event.json"
    path.write_text(json.dumps(event))
    return ("-e", str(path), "--matrix", "cell:one")


class TestJobs:
    def test_each_cell_of_a_matrix_has_its_own_history(self, act, recorder, tmp_path):
        run = act(LOOP, COMMAND=recorder)
        assert run.code == 0, run.log
        prefixes = {key.removesuffix("-1-1") for key in saved_keys(tmp_path)}
        assert len(prefixes) == 2
        assert (run.kept / "log").read_text() == "x\nx\n"

    def test_failing_command_fails_the_build_only_if_strict(self, act, recorder, tmp_path):
        """A failing command is one warning and fails the build only if strict."""
        polite = one(act, COMMAND=recorder, CODE="2")
        assert polite.code == 0, polite.log
        assert polite.outputs("train")["status"] == polite.outputs("predict")["status"] == "degraded"
        assert polite.obeyed("warning") == [
            f"fedstep {name} did not finish; the reason is in this step's log." for name in ("predict", "train")
        ]
        strict = one(act, COMMAND=recorder, CODE="5", STRICT="true", GITHUB_RUN_ID="2")
        assert strict.code == 1
        assert strict.outputs("train")["status"] == "degraded"
        assert len(strict.obeyed("error")) == 1
        assert len(saved_keys(tmp_path)) == 2, "what was learned before a strict failure is kept"

    def test_a_cancelled_job_teaches_nothing(self, act, recorder, tmp_path):
        run = one(act, COMMAND=recorder, OUTCOME="cancelled")
        assert run.code == 0, run.log
        assert run.outputs("train")["status"] == "skipped"
        assert not (run.kept / "train.arguments").exists()
        assert saved_keys(tmp_path) == []

    @pytest.mark.full
    def test_pull_request_reads_the_history_of_its_target(self, act, fedstep, tmp_path):
        """A pull request reads the history of its target and keeps its own."""
        given = {"COMMAND": fedstep, "REPORTS": "report.xml"}
        assert one(act, **given, GITHUB_RUN_ID="1").code == 0
        asked = act(LOOP, *pull_request(tmp_path), event="pull_request", **given, GITHUB_RUN_ID="2")
        assert asked.code == 0, asked.log
        assert "; 1 build and " in asked.summary()
        again = act(LOOP, *pull_request(tmp_path), event="pull_request", **given, GITHUB_RUN_ID="3")
        assert "; 2 builds and " in again.summary()
        assert "; 1 build and " in one(act, **given, GITHUB_RUN_ID="4").summary(), "main does not see a branch's"

    @pytest.mark.parametrize(
        ("event", "payload"),
        [
            ("merge_group", {"merge_group": {"base_ref": "refs/heads/main", "base_sha": "BASE"}}),
            ("schedule", {"schedule": "0 4 * * *"}),
            ("workflow_dispatch", {"inputs": {}}),
            ("push", {"ref": "refs/tags/v1", "before": "0" * 40, "base_ref": None}),
        ],
    )
    def test_every_kind_of_event_is_predicted_and_learned(self, act, fedstep, repository, tmp_path, event, payload):
        """A merge queue, a schedule, a run by hand and a tag: each step says ok, and the build is recorded."""
        base = subprocess.run(
            ("git", "-C", str(repository), "rev-parse", "HEAD"), capture_output=True, text=True, check=True
        ).stdout.strip()
        path = tmp_path / "event.json"
        path.write_text(json.dumps(payload).replace("BASE", base))
        given = {"COMMAND": fedstep, "REPORTS": "report.xml"}
        run = act(LOOP, "-e", str(path), "--matrix", "cell:one", event=event, **given)
        assert run.code == 0, run.log
        assert run.outputs("predict")["status"] in ("local", "degraded")
        assert run.outputs("train")["status"] == "local", run.log
        records = [line for line in (run.kept / "files").read_text().splitlines() if "/.fedstep/builds/" in line]
        assert len(records) == 1

    @pytest.mark.parametrize(
        ("head", "author"),
        [("stranger/shop", "stranger"), pytest.param("acme/shop", "dependabot[bot]", marks=pytest.mark.full)],
    )
    def test_run_without_secrets_is_judged_and_sends_nothing(self, act, fedstep, aggregator, tmp_path, head, author):
        """A run without secrets is predicted and judged, and tells nobody."""
        given = {"COMMAND": fedstep, "REPORTS": "report.xml", "AGGREGATOR": aggregator}
        assert one(act, **given, GITHUB_RUN_ID="1").code == 0
        run = act(LOOP, *pull_request(tmp_path, head, author), event="pull_request", **given, GITHUB_RUN_ID="2")
        assert run.code == 0, run.log
        assert "; 1 build and " in run.summary(), "the prediction is shown"
        assert "test_sleeps" in run.summary(), "the failure is judged"
        assert "Nothing was exchanged" in run.summary()
        assert "fork" in run.summary()
        builds = [line for line in (run.kept / "files").read_text().splitlines() if "/.fedstep/builds/" in line]
        assert len(builds) == 1, "nothing is recorded"


class TestExamples:
    @pytest.mark.full
    def test_the_example_for_teams_runs(self, act, fedstep, repository, tmp_path):
        remote = tmp_path / "origin.git"
        for words in (
            ("init", "-q", "--bare", "-b", "main", str(remote)),
            ("-C", str(repository), "remote", "set-url", "origin", remote.as_uri()),
            ("-C", str(repository), "push", "-q", "origin", "main"),
        ):
            subprocess.run(["git", *words], check=True, timeout=20)
        team = tmp_path / "github-team.yml"
        team.write_text(TEAM.read_text().replace("history: git", f"history: git\n          command: {fedstep}"))
        flags = ("-P", "macos-latest=-self-hosted", "--var", f"FEDSTEP_AGGREGATOR={DEAD}")
        run = act(team, *flags, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", FEDSTEP_TIMEOUT="1")
        assert run.code == 0, run.log
        listed = ("git", "-C", str(remote), "ls-tree", "-r", "--name-only", "refs/fedstep/history")
        names = subprocess.run(listed, check=True, capture_output=True, text=True, timeout=20).stdout.splitlines()
        assert len([name for name in names if name.endswith(".rec")]) == 2, "one a cell"
