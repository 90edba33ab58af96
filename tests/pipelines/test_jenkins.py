"""The Jenkins shared library, in the Groovy that Jenkins embeds; its shell steps run for real."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedstep import __version__
from fedstep.report.outputs import KEYS

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LIBRARY = ROOT / "jenkins"
EXAMPLE = HERE / "examples" / "Jenkinsfile"
JAVA_HOME = "/usr/lib/jvm/java-17-openjdk-amd64"  # Groovy 2.4 does not run on the newest
DEAD = "http://127.0.0.1:9"


@pytest.fixture
def jenkins(repository, tmp_path, tool):
    """A function that runs scenarios, one after another, in one workspace; each comes back as what it came to."""

    def run(*scenarios):
        (tmp_path / "shop@tmp").mkdir(exist_ok=True)
        agent = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "JENKINS_URL": "http://127.0.0.1:8080/",
            "JOB_NAME": "shop/main",
            "BRANCH_NAME": "main",
            "WORKSPACE": str(repository),
            "WORKSPACE_TMP": str(tmp_path / "shop@tmp"),
        }
        given = [
            scenario | {"environment": agent | {"BUILD_NUMBER": str(number)} | scenario.get("environment", {})}
            for number, scenario in enumerate(scenarios, 1)
        ]
        (tmp_path / "scenarios.json").write_text(json.dumps(given))
        path = f"{LIBRARY / 'src'}:{HERE / 'harness/stubs'}"
        command = [tool("groovy"), "-cp", path, HERE / "harness/harness.groovy"]
        done = subprocess.run(
            [*command, LIBRARY, tmp_path / "scenarios.json"],
            env={"PATH": os.environ["PATH"], "JAVA_HOME": JAVA_HOME},
            capture_output=True, text=True, timeout=90,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def recorder(tmp_path):
    """A command that writes down how it was called and does what the variable DO says."""
    path = tmp_path / "a recorder"
    path.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/arguments\nenv >{tmp_path}/environment\n'
        'echo "FEDSTEP_STATUS=ok\nFEDSTEP_ETA_SECONDS=12.5\nPATH=x" >>"$FEDSTEP_DOTENV"\neval "${DO:-true}"\n'
    )
    path.chmod(0o755)
    return str(path)


def train(**options):
    return {"step": "fedstepTrain", "options": options}


def predict(**options):
    return {"step": "fedstepPredict", "options": options}


def talk(result):
    return "\n".join(text for said in result["told"] for text in (said.get("talk"), said.get("echo")) if text)


def test_one_build_after_another(jenkins, aggregator, fedstep, repository):
    before, first, after = jenkins(
        predict(command=fedstep),
        train(command=fedstep, junit="report.xml", aggregator=aggregator) | {"result": "UNSTABLE"},
        predict(command=fedstep),
    )
    assert before["returned"]["model-version"] == "0", talk(before)
    assert first["returned"]["status"] == "ok", talk(first)
    assert "Build         unstable" in talk(first)
    assert after["returned"]["status"] == "ok", talk(after)
    for result in (before, first, after):
        assert set(result["returned"]) == set(KEYS)
        assert all(isinstance(value, str) for value in result["returned"].values())
    assert first["returned"]["flaky-count"].isdigit()
    assert len(list((repository / ".fedstep" / "builds").iterdir())) == 1


def test_strict_ends_with_the_exit_code_of_fedstep(jenkins, fedstep):
    quick = {"environment": {"FEDSTEP_TIMEOUT": "1"}}
    (result,) = jenkins(train(command=fedstep, junit=["report.xml"], aggregator=DEAD, strict=True) | quick)
    assert result["error"]["message"] == "script returned exit code 5"
    assert "127.0.0.1:9" in talk(result)


def test_options_arrive_as_they_were_written(jenkins, recorder, tmp_path, repository):
    globs = ["a b/**/*.xml", '"$(touch pwned)`touch pwned`"; touch pwned #']
    given = {"command": recorder, "junit": globs, "aggregator": "$(touch pwned)", "cell": "jdk 21", "python": None}
    (result,) = jenkins(
        train(**given, credentialsId="ours") | {"credentials": {"ours": "s3 $cret"}, "started": 1767323045678}
    )
    assert result["returned"] == dict.fromkeys(KEYS, "") | {"status": "ok", "eta-seconds": "12.5"}
    assert (tmp_path / "arguments").read_text().splitlines() == ["train", "--junit", globs[0], "--junit", globs[1]]
    environment = (tmp_path / "environment").read_text().splitlines()
    for line in (
        "FEDSTEP_AGGREGATOR=$(touch pwned)",
        "FEDSTEP_CI_CELL=jdk 21",
        "FEDSTEP_CI_STARTED_AT=1767323045678",
        "FEDSTEP_HISTORY=.fedstep",
        "FEDSTEP_OUTCOME=passed",
        "FEDSTEP_TOKEN=s3 $cret",
    ):
        assert line in environment
    assert not (repository / "pwned").exists()
    assert "s3" not in talk(result)
    assert not list((tmp_path / "shop@tmp").glob("fedstep.*")), "the file of the outputs is gone"


def test_whatever_goes_wrong_the_build_goes_on_unless_strict(jenkins, recorder):
    def failing(**options):
        return [train(**options), train(**options, strict=True)]

    crash, no_crash, absent, no_absent, secret, no_secret, slow, no_slow, abort = jenkins(
        *(case | {"environment": {"DO": "exit 3"}} for case in failing(command=recorder)),
        *failing(python="/no/such/python"),
        *failing(command=recorder, credentialsId="nobody's"),
        *(case | {"environment": {"DO": "exec sleep 2"}} for case in failing(command=recorder, minutes=0.01)),
        train(command=recorder) | {"abort": True},
    )
    for polite, strict, reason in (
        (crash, no_crash, "did not finish"),
        (absent, no_absent, "could not be installed"),
        (secret, no_secret, "Could not find credentials"),
        (slow, no_slow, "took more than 0.01 minutes"),
    ):
        assert polite["returned"]["status"] == "degraded", polite
        assert talk(polite).count("WARNING") == 1
        assert reason in talk(polite)
        assert "error" in strict, strict
    assert no_crash["error"]["message"] == "script returned exit code 3"
    assert crash["returned"]["eta-seconds"] == "12.5", "what was known is told"
    assert abort["error"]["type"] == "FlowInterruptedException", "a person's abort is not swallowed"


def test_an_unknown_option_is_refused_by_name(jenkins):
    one, other = jenkins(train(jnuit="x"), predict(aggregator=DEAD))
    assert one["error"]["type"] == "IllegalArgumentException"
    assert one["error"]["message"].startswith("fedstepTrain: jnuit is no option of it. The options are: junit, ")
    assert other["error"]["message"].startswith("fedstepPredict: aggregator is no option of it. ")


def test_a_build_without_an_end_teaches_nothing(jenkins, recorder, tmp_path):
    aborted, failed = jenkins(*(train(command=recorder) | {"result": result} for result in ("ABORTED", "FAILURE")))
    assert aborted["returned"]["status"] == "skipped"
    assert aborted["told"] == [{"echo": "fedstep: the build is ABORTED: nothing is learned from it"}]
    assert failed["returned"]["status"] == "ok"
    assert "FEDSTEP_OUTCOME=failed\n" in (tmp_path / "environment").read_text()


def test_a_windows_agent_gets_the_batch_file_and_the_same_variables(jenkins):
    glob = 'a b\\**\\*.xml" & echo pwned %PATH%'
    told = "FEDSTEP_STATUS=local\r\nFEDSTEP_ETA_LOW=3.0\r\n"
    (result,) = jenkins(train(junit=[glob]) | {"unix": False, "stdout": told})
    assert result["returned"]["status"] == "local"
    assert result["returned"]["eta-low"] == "3.0"
    (said,) = result["told"]
    text = said["bat"]["script"]
    assert said["environment"]["WITH_JUNIT_0"] == glob
    assert "pwned" not in text
    assert re.findall(r"(?<!%)%(?!RANDOM%)\w+", text) == [], "only !NAME! is safe from what a value says"
    assert text.count("\n") == text.count("\r\n")


def test_the_example_of_the_documentation_uses_the_environment_that_the_agent_keeps(jenkins, tmp_path):
    kept = tmp_path / "shop@tmp" / "fedstep-venv"
    (kept / "bin").mkdir(parents=True)
    (kept / "installed").write_text(f"fedstep[train]=={__version__}\n")
    (kept / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (kept / "bin" / "python").chmod(0o755)
    environment = {"FEDSTEP_AGGREGATOR": DEAD}
    (result,) = jenkins({"jenkinsfile": str(EXAMPLE), "credentials": {"fedstep": "x"}, "environment": environment})
    assert "error" not in result, result
    _, tests, trained = result["told"]
    assert tests["sh"] == "pytest --junit-xml=report.xml"
    assert "1 passed" in tests["output"]
    assert trained["sh"] == "fedstep train"
    assert "FEDSTEP_STATUS=degraded" in trained["output"], "no aggregator answers there"
    assert "1 report file" in trained["talk"]


def test_the_step_installs_fedstep_beside_the_workspace(jenkins, wheels, repository):
    for name in ("click.py", "fedstep.py"):
        (repository / name).write_text("raise SystemExit('the project stands in for our modules')\n")
    scenario = predict(package="fedstep==0.1.0") | {"environment": wheels | {"PYTHONPATH": "."}}
    first, second = jenkins(scenario, scenario)
    for result in (first, second):
        assert result["returned"]["flaky-count"] == "0", talk(result)
        assert "the project stands in" not in talk(result)
    assert "Installing fedstep==0.1.0\n" in talk(first)
    assert "Installing fedstep==0.1.0\n" not in talk(second), "the agent keeps it"


def test_the_help_names_every_option_and_output():
    for name in ("fedstepTrain", "fedstepPredict"):
        code = (LIBRARY / "vars" / f"{name}.groovy").read_text()
        options = re.findall(r"^        (\w+) *: .*// ", code, re.MULTILINE)
        text = (LIBRARY / "vars" / f"{name}.txt").read_text()
        assert re.findall(r"<tr><td>(\w+)</td>", text) == options
        assert all(f"<code>{key}</code>" in text for key in KEYS)
        assert f"=={__version__}'" in code
