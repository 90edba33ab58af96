"""The step of fedstep/predict with everything in the cache, against a composite step that does nothing; both under act.

python -m tests.benchmarks.actions [RUNS]

The stand-ins for the cache are tar on this disk: what GitHub's own cache takes over the network comes on top.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fedstep import __version__
from fedstep.history.project_store import ProjectStore
from tests.benchmarks.project import grow
from tests.benchmarks.timing import paired
from tests.helpers.narrow import present

__all__ = ["actions_figure"]

ROOT = Path(__file__).parents[2]
STAND_INS = ROOT / "tests/pipelines/stand-ins"
BIN = Path(sys.executable).parent
TESTS, BUILDS = 5_000, 100
SAVE = """
      - uses: {cache}
        with: {{ path: .fedstep, key: "benchmark-${{{{ github.run_id }}}}" }}"""
STEPS = {
    "prime": """
      - uses: fedstep/predict@v1
      - run: mkdir -p .fedstep && cp -R "$GROWN/." .fedstep/
      - uses: fedstep/train@v1
        with: {{ command: /bin/true }}""",
    "cached": "\n      - uses: fedstep/predict@v1" + SAVE,
    "nothing": "\n      - uses: fedstep/nothing@v1",
}
# One workflow and one job: the cache has its entries by their names.
WORKFLOW = """name: benchmark
on: push
jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v7{steps}
"""
NOTHING = """name: nothing
description: Does nothing
runs: {using: composite, steps: [{shell: bash, run: "true"}]}
"""


def actions_figure(target: float, runs: int = 9) -> Mapping[str, object]:
    """Seconds that restore, predict and save take beyond an empty composite step; a new machine each time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder)
        subprocess.run(
            _command(folder, "prime"),
            cwd=folder / "shop",
            env=_environment(folder),
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        (tools,) = folder.glob("**/fedstep/environment-*")
        new_machine = f"mv {tools} {folder}/trash.$$ 2>/dev/null; "
        cached, nothing = _command(folder, "cached", new_machine), _command(folder, "nothing")
        pair = paired(cached, nothing, str(folder / "shop"), _environment(folder), runs)
    seconds = round((pair.milliseconds - pair.yardstick) / 1000, 2)
    return {
        "name": f"cached step of fedstep/predict under act, {TESTS} tests, {BUILDS} builds",
        "value": seconds,
        "unit": "seconds more",
        "target": target,
        "yardstick": "a composite step that does nothing",
        "met": seconds <= target,
        "medians_ms": vars(pair),
    }


def _prepare(folder: Path) -> None:
    """A repository with a workflow of each kind, a history to be cached, and a wheel of this checkout."""
    shop = folder / "shop"
    git = ("git", "-c", "user.name=b", "-c", "user.email=b@example.org", "-C", str(shop))
    subprocess.run(["git", "init", "-q", "-b", "main", shop], check=True)
    subprocess.run([*git, "remote", "add", "origin", "https://github.com/acme/shop.git"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "start"], check=True)
    for kind, steps in STEPS.items():
        steps = steps.format(cache=f"actions/cache/save@{cache_commit()}")
        (folder / f"{kind}.yml").write_text(WORKFLOW.format(steps=steps))
    (folder / "nothing").mkdir()
    (folder / "nothing" / "action.yml").write_text(NOTHING)
    grow(ProjectStore(f"{folder}/grown"), TESTS, BUILDS)
    wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(folder / "wheels"), str(ROOT)]
    subprocess.run(wheel, check=True)


def _command(folder: Path, kind: str, before: str = "") -> list[str]:
    """A shell that runs act on the workflow as a run of its own."""
    places = {
        "fedstep/predict@v1": ROOT / "actions/predict",
        "fedstep/train@v1": ROOT / "actions/train",
        "fedstep/nothing@v1": folder / "nothing",
        f"actions/cache@{cache_commit()}": STAND_INS / "cache",
    }
    local = " ".join(f"--local-repository {name}={path}" for name, path in places.items())
    loopback = "--cache-server-addr 127.0.0.1 --artifact-server-addr 127.0.0.1"
    variables = f"--env CACHE_FOLDER={folder}/cache --env GROWN={folder}/grown --env GITHUB_RUN_ID=$(date +%s%N)"
    act = f"act push --workflows {folder}/{kind}.yml -P ubuntu-latest=-self-hosted {loopback} {local} {variables}"
    return ["/bin/sh", "-c", f"{before}{act} --action-cache-path {folder}/act --cache-server-path {folder}/actcache"]


def _environment(folder: Path) -> dict[str, str]:
    links = {"PIP_FIND_LINKS": f"{folder}/wheels", "UV_FIND_LINKS": f"{folder}/wheels"}
    kept = {name: value for name, value in os.environ.items() if re.match(r"PIP_|UV_|SSL_|REQUESTS_", name)}
    return {**kept, **links, "HOME": str(folder), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def cache_commit() -> str:
    text = (ROOT / "actions/train/action.yml").read_text(encoding="utf-8")
    return present(re.search(r"actions/cache/save@([0-9a-f]{40})", text)).group(1)


def main() -> None:
    assert shutil.which("act", path=str(BIN)), f"act is not installed beside {sys.executable}"
    figure = actions_figure(2.0, int(sys.argv[1]) if len(sys.argv) > 1 else 9)
    print(f"fedstep {__version__}: {figure}")


if __name__ == "__main__":
    main()
