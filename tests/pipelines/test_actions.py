"""The GitHub actions, run by act as a workflow would run them."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from fedstep import __version__
from fedstep.report.outputs import KEYS

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
ACTIONS = ROOT / "actions"
LOOP = HERE / "workflows" / "loop.yml"
EXAMPLE = HERE / "examples" / "github.yml"
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
    return sorted(path.stem for path in (tmp_path / "cache").glob("*/*.tar"))


def test_what_one_run_learns_the_next_one_knows(act, aggregator, fedstep, tmp_path):
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


def test_hostile_names_and_a_dead_aggregator_leave_the_build_alone(act, fedstep):
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


def test_inputs_arrive_as_they_were_written(act, recorder):
    glob = 'build/**/"$(touch pwned)"; `touch pwned` *.xml'
    run = one(act, COMMAND=recorder, REPORTS=f"  {glob}", AGGREGATOR="$(touch pwned)", TOKEN="a'b c")
    assert run.code == 0, run.log
    assert (run.kept / "train.arguments").read_text().splitlines() == [
        "train", "--junit", glob, "--junit", "re port $(touch pwned).xml",
    ]  # fmt: skip
    environment = (run.kept / "train.environment").read_text()
    for line in ("FEDSTEP_AGGREGATOR=$(touch pwned)", "FEDSTEP_TOKEN=a'b c", "FEDSTEP_OUTCOME=passed", '"cell": "one"'):
        assert line in environment
    assert (run.kept / "predict.arguments").read_text() == "predict\n"
    assert '"cell": "one"' in (run.kept / "predict.environment").read_text()
    assert "/pwned" not in (run.kept / "files").read_text()


def test_each_cell_of_a_matrix_has_its_own_history(act, recorder, tmp_path):
    run = act(LOOP, COMMAND=recorder)
    assert run.code == 0, run.log
    prefixes = {key.removesuffix("-1-1") for key in saved_keys(tmp_path)}
    assert len(prefixes) == 2
    assert (run.kept / "log").read_text() == "x\nx\n"


def test_a_failing_command_is_one_warning_and_fails_the_build_only_if_strict(act, recorder, tmp_path):
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


def test_a_cancelled_job_teaches_nothing(act, recorder, tmp_path):
    run = one(act, COMMAND=recorder, OUTCOME="cancelled")
    assert run.code == 0, run.log
    assert run.outputs("train")["status"] == "skipped"
    assert not (run.kept / "train.arguments").exists()
    assert saved_keys(tmp_path) == []


def test_an_installation_that_fails_is_one_warning_and_fails_the_build_only_if_strict(act):
    polite = one(act, PYTHON="/no/such/python", PACKAGE="fedstep==0.1.0")
    assert polite.code == 0, polite.log
    assert polite.outputs("train") | {"status": "degraded"} == polite.outputs("train")
    assert len(polite.obeyed("warning")) == 2, "one of predict, one of train"
    assert all("could not be installed" in text for text in polite.obeyed("warning"))
    strict = one(act, PYTHON="/no/such/python", PACKAGE="fedstep==0.1.0", STRICT="true")
    assert strict.code == 1
    assert strict.outputs("train")["status"] == "degraded"


def test_the_example_of_the_documentation_installs_and_runs(act, repository, wheels, tmp_path):
    """As it stands, but for the package of train: scikit-learn would take longer to install than all other tests."""
    light = tmp_path / "github.yml"
    light.write_text(EXAMPLE.read_text().replace("junit:", "package: fedstep==0.1.0\n          junit:"))
    for name in ("click.py", "fedstep.py"):
        (repository / name).write_text("raise SystemExit('the project stands in for our modules')\n")
    for command in (["add", "-A"], ["-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-qm", "Shadow"]):
        subprocess.run(["git", "-C", str(repository), *command], check=True, timeout=20)
    run = act(
        light, "--var", f"FEDSTEP_AGGREGATOR={DEAD}", **wheels, PYTHONPATH=".", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"
    )
    assert run.code == 0, run.log
    assert "pip install 'fedstep[train]'" in run.log
    assert run.log.count("::group::Install") == 1, "train uses what predict installed"
    assert "Based on" in run.log
    assert "the project stands in" not in run.log


def test_the_actions_offer_what_the_command_line_tells():
    for name in ("train", "predict"):
        text = (ACTIONS / name / "action.yml").read_text()
        assert re.findall(rf"value: \$\{{\{{ steps\.{name}\.outputs\.([\w-]+) \}}\}}", text) == list(KEYS)
        assert f"=={__version__}\n" in text, "each version of the actions installs its own fedstep"


def test_both_actions_carry_the_same_script():
    assert (ACTIONS / "train" / "step.sh").read_bytes() == (ACTIONS / "predict" / "step.sh").read_bytes()


@pytest.mark.parametrize("name", ["train", "predict"])
def test_the_action_is_valid(name, tool):
    schema = ("--builtin-schema", "vendor.github-actions")
    done = subprocess.run([tool("check-jsonschema"), *schema, ACTIONS / name / "action.yml"], timeout=60)
    assert done.returncode == 0


def test_the_example_is_valid(tool):
    schema = ("--builtin-schema", "vendor.github-workflows")
    assert subprocess.run([tool("check-jsonschema"), *schema, EXAMPLE], timeout=60).returncode == 0


def test_zizmor_finds_nothing(tool):
    flags = ("--offline", "--no-progress", "--format", "json", "--config", HERE / "zizmor.yml")
    done = subprocess.run([tool("zizmor"), *flags, ACTIONS, EXAMPLE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, json.loads(done.stdout)) == (0, []), done.stdout + done.stderr
