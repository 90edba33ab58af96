"""What the tests of the Jenkins library share: a controller that runs scenarios, and words for them."""

import atexit
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from fedstep import __version__

HERE = Path(__file__).parents[1] / "pipelines"
ROOT = HERE.parent.parent
LIBRARY = ROOT / "jenkins"
EXAMPLES = HERE / "examples"
JAVA_HOME = "/usr/lib/jvm/java-17-openjdk-amd64"  # Groovy 2.4 does not run on the newest
CPS = os.environ.get("GROOVY_CPS_CLASSPATH", "")  # groovy-cps, guava, workflow-cps: then scripts run as on a controller
PATIENCE = 600  # seconds
DEAD = "http://127.0.0.1:9"

Scenario = dict[str, Any]
Result = dict[str, Any]


def controller(folder: Path, workspace: Path) -> Callable[..., list[Result]]:
    """A function that runs scenarios as builds 1, 2, ... of one job; each comes back as what it came to.

    A scenario can name another workspace and its own build number; archives are kept in `folder`.
    """

    def run(*scenarios: Scenario) -> list[Result]:
        given = [_placed(scenario, number, folder, workspace) for number, scenario in enumerate(scenarios, 1)]
        (folder / "scenarios.json").write_text(json.dumps(given))
        return _answer(folder / "scenarios.json")

    return run


def groovy(script: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """A script of the harness, running."""
    program = shutil.which("groovy")
    assert program, "groovy is not installed; `make tools` installs it"
    # The controller has NonCPS and compiles the library's classes itself; without it there is a stub.
    classes = f"{CPS}:{HERE / 'harness/stubs'}" if CPS else f"{LIBRARY / 'src'}:{HERE / 'harness/stubs'}"
    return subprocess.Popen(
        [program, "-cp", f"{classes}:{HERE / 'harness'}", HERE / "harness" / script, *arguments],
        env={
            "PATH": os.environ["PATH"],
            "JAVA_HOME": JAVA_HOME,
            "JAVA_OPTS": "-XX:TieredStopAtLevel=1 -Dfile.encoding=UTF-8",
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@cache
def _harness() -> subprocess.Popen[str]:
    """One for all tests of this process: a JVM takes seconds to start. It ends with its standard input."""
    process = groovy("harness.groovy", LIBRARY, "CpsAgent" if CPS else "Agent")
    atexit.register(process.communicate, timeout=30)
    return process


def _answer(scenarios: Path) -> list[Result]:
    process = _harness()
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{scenarios}\n")
    process.stdin.flush()
    ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
    line = process.stdout.readline() if ready else ""
    if not line:
        process.kill()
        _harness.cache_clear()
    assert line, "the harness ended, or did not answer in time; its standard error says why"
    results: list[Result] = json.loads(line)
    return results


def recording(folder: Path) -> str:
    """A command that writes down how it was called and does what the variable DO says."""
    path = folder / "a recorder"
    path.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >{folder}/arguments\nenv >{folder}/environment\n'
        'echo "FEDSTEP_STATUS=ok\nFEDSTEP_ETA_SECONDS=12.5\nPATH=x" >>"$FEDSTEP_DOTENV"\neval "${DO:-true}"\n'
    )
    path.chmod(0o755)
    return str(path)


def keep_environment(workspace: Path) -> None:
    """The agent has installed fedstep in an earlier build: this checkout."""
    kept = workspace.with_name(f"{workspace.name}@tmp") / "fedstep-venv"
    (kept / "bin").mkdir(parents=True)
    (kept / "installed").write_text(f"fedstep[train]=={__version__}\n")
    (kept / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (kept / "bin" / "python").chmod(0o755)


def train(**options: object) -> Scenario:
    return {"step": "fedstepTrain", "options": options}


def predict(**options: object) -> Scenario:
    return {"step": "fedstepPredict", "options": options}


def triage(**options: object) -> Scenario:
    return {"step": "fedstepTriage", "options": options}


def talk(result: Result) -> str:
    """All that a person reads in the log of the build."""
    return "\n".join(text for said in result["told"] for text in (said.get("talk"), said.get("echo")) if text)


def _placed(scenario: Scenario, number: int, folder: Path, workspace: Path) -> Scenario:
    place = Path(scenario.get("workspace", workspace))
    temporary = place.with_name(f"{place.name}@tmp")
    temporary.mkdir(exist_ok=True)
    agent = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "JENKINS_URL": "http://127.0.0.1:8080/",
        "JOB_NAME": "shop/main",
        "BRANCH_NAME": "main",
        "BUILD_NUMBER": str(number),
        "WORKSPACE": str(place),
        "WORKSPACE_TMP": str(temporary),
    }
    begun = {"started": int((time.time() - 60) * 1000), "archives": str(folder / "archives")}
    return begun | scenario | {"environment": agent | scenario.get("environment", {})}
