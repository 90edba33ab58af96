"""What fedstep itself costs on each surface: in a first run, and in one that has all that the surface keeps.

python -m tests.benchmarks.surfaces [RUNS [SURFACE ...]]

Each surface runs in turn with nothing of fedstep, with nothing kept, with what it keeps, and with an installed fedstep.
What the first takes is subtracted from the others; what the last takes less is the installation. Wheels come from this
disk: what a package index takes comes on top. Besides Python it needs act, npm, rsync and Groovy.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.actions import NOTHING, ROOT, STAND_INS, cache_commit
from tests.helpers.jenkins import controller, predict, train
from tests.pipelines.conftest import clean_environment

BIN = Path(sys.executable).parent
GITLAB_CLIENT = "gitlab-ci-local@4.62.0"
KINDS = ("nothing", "first", "cached", "installed")
REPORT = '<testsuite><testcase classname="test_shop" name="test_adds" time="0.1"/></testsuite>'
ACT = """name: {kind}
on: push
jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v7
"""
ACT_STEPS = """
      - uses: fedstep/predict@v1
        with: {{ find-links: "{wheels}", command: "{command}", package: "fedstep[train]==0.1.0" }}
      - uses: fedstep/train@v1
        with: {{ find-links: "{wheels}", command: "{command}", junit: report.xml }}
"""
GITLAB = """
test:
  script: ["true"]
"""
GITLAB_FEDSTEP = """
include:
  - local: templates/train.yml
    inputs: {junit: report.xml}

test:
  extends: .fedstep
  script: ["true"]
"""


class Place(NamedTuple):
    """A repository with a report, wheels of fedstep and of all that it needs, and an environment that has them."""

    folder: Path
    shop: Path
    wheels: Path
    installed: Path  # the program

    def environment(self) -> dict[str, str]:
        links = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        return {
            **clean_environment(),
            **links,
            "HOME": str(self.folder),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        }

    def run(self, *command: str | Path, code: int = 0) -> None:
        done = subprocess.run(
            command, cwd=self.shop, env=self.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == code, f"{command}: {done.stdout}{done.stderr}"

    def forget(self, *paths: Path) -> None:
        for path in (self.shop / ".fedstep", *paths):
            shutil.rmtree(path, ignore_errors=True)


Run = Callable[[str], None]


def plain(place: Place) -> Run:
    """Command line: an environment, predict with the light package, train with scikit-learn."""
    venv = place.folder / "plain"

    def run(kind: str) -> None:
        if kind == "forget":
            place.forget(venv)
        if kind in ("nothing", "forget"):
            return
        program = place.installed if kind == "installed" else venv / "bin/fedstep"
        if kind == "first":
            place.run(sys.executable, "-m", "venv", venv)
            place.run(venv / "bin/pip", "install", "-q", "fedstep==0.1.0")
        place.run(program, "predict")
        if kind == "first":
            place.run(venv / "bin/pip", "install", "-q", "fedstep[train]==0.1.0")
        place.run(program, "train", "--junit", "report.xml")

    return run


def github(place: Place) -> Run:
    """Predict and train of the actions under act; the cache is tar on this disk."""
    for kind in KINDS:
        command = place.installed if kind == "installed" else ""
        steps = "" if kind == "nothing" else ACT_STEPS.format(wheels=place.wheels, command=command)
        (place.folder / f"{kind}.yml").write_text(
            ACT.format(kind="benchmark") + (steps or "      - uses: fedstep/nothing@v1\n")
        )
    (place.folder / "nothing").mkdir()
    (place.folder / "nothing" / "action.yml").write_text(NOTHING)
    actions = {
        "fedstep/predict@v1": ROOT / "actions/predict",
        "fedstep/train@v1": ROOT / "actions/train",
        "fedstep/nothing@v1": place.folder / "nothing",
        f"actions/cache@{cache_commit()}": STAND_INS / "cache",
    }

    def run(kind: str) -> None:
        if kind == "forget":
            place.forget(place.folder / "cache")
            return
        for tools in place.folder.glob("**/fedstep/environment-*"):
            shutil.rmtree(tools)  # each job has another machine
        place.run(
            "act", "push", "--workflows", place.folder / f"{kind}.yml", "-P", "ubuntu-latest=-self-hosted",
            "--cache-server-addr", "127.0.0.1", "--artifact-server-addr", "127.0.0.1",
            "--action-cache-path", place.folder / "act", "--cache-server-path", place.folder / "actcache",
            "--env", f"CACHE_FOLDER={place.folder / 'cache'}", "--env", f"GITHUB_RUN_ID={time.time_ns()}",
            *(word for name, path in actions.items() for word in ("--local-repository", f"{name}={path}")),
        )  # fmt: skip

    return run


def gitlab(place: Place) -> Run:
    """The component under gitlab-ci-local, in a new image each time: what stays is .fedstep and .fedstep-pip."""
    npm = ("npm", "install", "--no-fund", "--no-audit", "--no-save", "--prefix", str(place.folder), GITLAB_CLIENT)
    subprocess.run(npm, check=True, capture_output=True)
    (place.shop / "templates").mkdir()
    shutil.copyfile(ROOT / "actions/gitlab/templates/train.yml", place.shop / "templates/train.yml")
    place.run("git", "add", "templates")  # the client reads what git knows
    beside = Path(f"{place.shop}.fedstep")

    def run(kind: str) -> None:
        if kind == "forget":
            place.forget(place.shop / ".fedstep-pip")
            return
        shutil.rmtree(beside, ignore_errors=True)
        (place.shop / ".gitlab-ci.yml").write_text(GITLAB if kind == "nothing" else GITLAB_FEDSTEP)
        command = place.installed if kind == "installed" else ""
        client = place.folder / "node_modules/.bin/gitlab-ci-local"
        flags = [f"FEDSTEP_WITH_COMMAND={command}", f"PIP_FIND_LINKS={place.wheels}", "PIP_NO_INDEX=1"]
        words = [word for flag in flags for word in ("--variable", flag)]
        place.run(client, "--force-shell-executor", *words, "test")

    return run


def jenkins(place: Place) -> Run:
    """Both steps of the shared library, in a Groovy that runs already; the agent keeps its environment."""
    jenkins = controller(place.folder, place.shop)
    kept = Path(f"{place.shop}@tmp") / "fedstep-venv"

    def run(kind: str) -> None:
        if kind == "forget":
            place.forget(kept)
        if kind in ("nothing", "forget"):
            return
        command = str(place.installed) if kind == "installed" else ""
        more = {"environment": {name: value for name, value in place.environment().items() if name != "PATH"}}
        for result in jenkins(predict(command=command) | more, train(command=command, junit="report.xml") | more):
            assert result["returned"]["status"] in ("local", "ok"), json.dumps(result)

    jenkins(predict(command="/bin/true"))  # starts Groovy
    return run


def hook(place: Place) -> Run:
    """A push with the pre-push hook; the first one comes after the installation of the light package."""
    venv = place.folder / "hook"
    place.run("git", "init", "-q", "--bare", place.folder / "remote.git")
    place.run("git", "remote", "set-url", "origin", place.folder / "remote.git")

    def run(kind: str) -> None:
        if kind == "forget":
            place.forget(venv)
            return
        if kind == "first":
            place.run(sys.executable, "-m", "venv", venv)
            place.run(venv / "bin/pip", "install", "-q", "fedstep==0.1.0")
            place.run(venv / "bin/fedstep", "hook", "install")
        place.run("git", "commit", "-q", "--allow-empty", "-m", "x")
        place.run("git", "push", "-q", *(["--no-verify"] if kind == "nothing" else []), "origin", "HEAD")

    return run


def plugin(place: Place) -> Run:
    """A session of one failing test, which is judged and recorded; the first with the installation."""
    venv = place.folder / "plugin"
    (place.shop / "test_shop.py").write_text("def test_adds():\n    assert False\n")
    place.run(sys.executable, "-m", "venv", venv)
    place.run(venv / "bin/pip", "install", "-q", "pytest")
    options: tuple[str, ...] = ("-p", "fedstep.pytest_plugin", "--fedstep-rerun", "--fedstep-record", "record.xml")

    def run(kind: str) -> None:
        if kind == "forget":
            place.forget()
            place.run(venv / "bin/pip", "uninstall", "-q", "-y", "fedstep")
            return
        if kind == "first":
            place.run(venv / "bin/pip", "install", "-q", "fedstep==0.1.0")
        place.run(venv / "bin/pytest", "-q", *(() if kind == "nothing" else options), code=1)

    return run


SURFACES = {
    "command line": plain,
    "GitHub": github,
    "GitLab": gitlab,
    "Jenkins": jenkins,
    "hook": hook,
    "pytest": plugin,
}


def install(folder: Path) -> Place:
    """Return a place without a repository: wheels, and an environment that has them."""
    wheels, venv = folder / "wheels", folder / "installed"
    pip = (sys.executable, "-m", "pip", "-q")
    subprocess.run([*pip, "wheel", "--wheel-dir", wheels, f"{ROOT}[train]", "pytest"], check=True)
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    place = Place(folder, folder, wheels, venv / "bin/fedstep")
    place.run(venv / "bin/pip", "install", "-q", "fedstep[train]==0.1.0")
    return place


def make_shop(installed: Place, name: str) -> Place:
    """Return the place with a folder and a repository of its own."""
    place = installed._replace(folder=installed.folder / name, shop=installed.folder / name / "shop")
    place.shop.mkdir(parents=True)
    (place.shop / "report.xml").write_text(REPORT)
    commands = (
        ("init", "-q", "-b", "main"),
        ("config", "user.name", "b"),
        ("config", "user.email", "b@example.org"),
        ("remote", "add", "origin", "https://github.com/acme/shop.git"),
        ("add", "-A"),
        ("commit", "-q", "-m", "one"),
        ("commit", "-q", "--allow-empty", "-m", "two"),
    )
    for words in commands:
        place.run("git", *words)
    return place


def measure(run: Run, place: Place, runs: int) -> dict[str, float]:
    """Return medians of the seconds that each kind of run takes beyond that without fedstep."""
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(runs):
        for kind in KINDS:
            (place.shop / "report.xml").touch()
            if kind == "first":
                run("forget")
            began = time.perf_counter()
            run(kind)
            seconds[kind].append(time.perf_counter() - began)
    nothing = seconds.pop("nothing")
    return {
        kind: statistics.median(took - less for took, less in zip(each, nothing, strict=True))
        for kind, each in seconds.items()
    }


def yardsticks(place: Place, runs: int) -> dict[str, float]:
    """Return medians of the seconds of `import numpy`, and of installing the wheels into a new environment."""
    venv = place.folder / "venv"
    took: dict[str, list[float]] = {"import numpy": [], "fedstep": [], "fedstep[train]": []}
    for _ in range(runs):
        for name, seconds in took.items():
            shutil.rmtree(venv, ignore_errors=True)
            began = time.perf_counter()
            if name == "import numpy":
                place.run(place.installed.with_name("python"), "-c", "import numpy")
            else:
                place.run(sys.executable, "-m", "venv", venv)
                place.run(venv / "bin/pip", "install", "-q", f"{name}==0.1.0")
            seconds.append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in took.items()}


def main() -> None:
    """Print a row of the table for each surface."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        installed = install(Path(folder).resolve())
        print({name: round(seconds, 2) for name, seconds in yardsticks(installed, runs).items()}, flush=True)
        for name in sys.argv[2:] or SURFACES:
            place = make_shop(installed, name.replace(" ", "-"))
            took = measure(SURFACES[name](place), place, runs)
            cells = []
            for kind in ("first", "cached"):
                share = max(0.0, 1 - took["installed"] / took[kind]) if took[kind] > 0 else 0.0
                cells += [f"{took[kind]:.1f} s", f"{share:.0%}"]
            print(f"| {name} | {' | '.join(cells)} | {took['installed']:.1f} s |", flush=True)


if __name__ == "__main__":
    main()
