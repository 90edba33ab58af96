"""Real programs for the pipelines' tests: act, an aggregator, a repository. Each is stopped by its own pid."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.lifetime import bound
from tests.helpers.narrow import present

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BIN = Path(sys.executable).parent
FEDSTEP = BIN / "fedstep"

REPORT = """<testsuite name="shop" tests="3" failures="1" time="1.5">
  <testcase classname="tests.test_cart" name="test_adds" file="tests/test_cart.py" time="0.5"/>
  <testcase classname="tests.test_cart" name="test_waits" file="tests/test_cart.py" time="0.7"/>
  <testcase classname="tests.test_cart" name="test_sleeps" file="tests/test_cart.py" time="0.3">
    <failure message="timed out">TimeoutError</failure>
  </testcase>
</testsuite>
"""

COMMANDS = ("::error::pwned", "::set-output name=status::pwned", "::add-mask::e", "::stop-commands::pwned")
HOSTILE_REPORT = (
    "<testsuite>"
    + "".join(
        f"""<testcase classname="tests.test_names" name="x&#10;{command}&#13;{command}" time="0.1">
    <failure message="&#10;{command}">&#10;{command}</failure></testcase>"""
        for command in COMMANDS
    )
    + "</testsuite>"
)


def find_tool(name: str) -> str:
    """The path of a program that these tests cannot do without."""
    found = shutil.which(name, path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    assert found, f"{name} is not installed; see RECIPES and the dev extra"
    return found


def clean_environment() -> dict[str, str]:
    """This environment without what another CI, or fedstep's own, has put into it."""
    foreign = re.compile(r"(FEDSTEP|GITHUB|RUNNER|JENKINS|CI|INPUT)(_|$)")
    return {name: value for name, value in os.environ.items() if not foreign.match(name)}


@dataclass(frozen=True, slots=True)
class ActRun:
    code: int
    log: str
    kept: Path

    def outputs(self, step: str) -> dict[str, str]:
        outputs: dict[str, str] = json.loads((self.kept / f"{step}.json").read_text())
        return outputs

    def obeyed(self, command: str) -> list[str]:
        """The workflow commands of this name that the runner obeyed; it puts a sign of its own before them."""
        return re.findall(rf"^\[[^]|]*\] +[^ |]+ +::{command}[^:]*::(.*)$", self.log, re.MULTILINE)

    def summary(self) -> str:
        """The summaries of all steps, as the runner shows them."""
        shown = r"^\[[^]|]*\] +[^ |]+ +Summary - (.*?)(?=^\[\w+/)"
        return "\n".join(re.findall(shown, self.log, re.MULTILINE | re.DOTALL))


@pytest.fixture
def tool() -> Callable[[str], str]:
    """`find_tool`."""
    return find_tool


@pytest.fixture
def fedstep() -> str:
    """The command of this environment, so that most tests install nothing."""
    return str(FEDSTEP)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """pip's variables by which it finds a wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, timeout=600)
    links = f"{folder} {os.environ.get('PIP_FIND_LINKS', '')}".strip()
    ours = {"PIP_FIND_LINKS": links, "PIP_CACHE_DIR": str(folder / "cache")}  # what several tests install comes once
    return {name: value for name, value in os.environ.items() if name.startswith("PIP_")} | ours


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A project with two commits, a remote and a report."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "report.xml").write_text(REPORT)
    (folder / "re port $(touch pwned).xml").write_text(HOSTILE_REPORT)
    (folder / "test_shop.py").write_text("def test_adds():\n    assert 1 + 1 == 2\n")
    git = ("git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-C", str(folder))
    for words in (
        ("init", "-q", "-b", "main"),
        ("remote", "add", "origin", "https://github.com/acme/shop.git"),
        ("commit", "-q", "--allow-empty", "-m", "Begin"),
        ("add", "-A"),
        ("commit", "-q", "-m", "Sell"),
    ):
        subprocess.run([*git, *words], check=True, timeout=20)
    return folder


@pytest.fixture
def act(repository: Path, tmp_path: Path) -> Callable[..., ActRun]:
    """A function that runs a workflow file in the repository; keyword arguments are variables of its steps."""

    def run(workflow: Path, *flags: str, event: str = "push", without: str = "", **variables: str) -> ActRun:
        target = repository / ".github" / "workflows" / workflow.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(workflow, target)
        kept, cache = tmp_path / "kept", tmp_path / "cache"
        for folder in (kept, cache):
            folder.mkdir(exist_ok=True)
        patient = {"FEDSTEP_TIMEOUT": "60", "FEDSTEP_BUDGET": "240"}  # a loaded machine is slow, not down
        variables = {**patient, **variables, "KEPT": str(kept), "CACHE_FOLDER": str(cache)}
        actions = {
            "fedstep/train@v1": ROOT / "actions/train",
            "fedstep/predict@v1": ROOT / "actions/predict",
            "fedstep/triage@v1": ROOT / "actions/triage",
            "fedstep/plan@v1": ROOT / "actions/plan",
            "actions/upload-artifact@v7": HERE / "stand-ins/upload-artifact",
            "actions/upload-pages-artifact@v5": HERE / "stand-ins/upload-pages-artifact",
            "actions/download-artifact@v8": HERE / "stand-ins/download-artifact",
            f"actions/cache@{cache_commit()}": HERE / "stand-ins/cache",
        }
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        if without:
            path = path_without(without, path, tmp_path / f"without-{without}")
        done = subprocess.run(
            [
                find_tool("act"), event, "--workflows", str(target), "-P", "ubuntu-latest=-self-hosted",
                "--cache-server-addr", "127.0.0.1", "--artifact-server-addr", "127.0.0.1",
                "--action-cache-path", str(tmp_path / "act"), "--cache-server-path", str(tmp_path / "actcache"),
                *(flag for name, path in actions.items() for flag in ("--local-repository", f"{name}={path}")),
                *(flag for name, value in variables.items() for flag in ("--env", f"{name}={value}")),
                *flags,
            ],
            cwd=repository,
            env={**clean_environment(), "HOME": str(tmp_path), "PATH": path},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
        )  # fmt: skip
        return ActRun(done.returncode, done.stdout, kept)

    return run


def path_without(program: str, path: str, folder: Path) -> str:
    """The PATH with a program hidden: folders that have it give way to one of links to all else in them."""
    folder.mkdir(exist_ok=True)
    folders = path.split(os.pathsep)
    having = [Path(name) for name in folders if (Path(name) / program).exists()]
    for file in (file for name in having for file in name.iterdir() if file.name != program):
        link = folder / file.name
        if not link.exists():
            link.symlink_to(file)
    return os.pathsep.join([str(folder), *(name for name in folders if Path(name) not in having)])


def cache_commit() -> str:
    """The one commit of actions/cache to which all actions are pinned."""
    texts = [(ROOT / "actions" / name / "action.yml").read_text() for name in ("train", "predict", "triage", "plan")]
    commits = {commit for text in texts for commit in re.findall(r"uses: actions/cache/\w+@([0-9a-f]{40}) #", text)}
    (commit,) = map(str, commits)
    return commit


@pytest.fixture
def aggregator(tmp_path: Path) -> Iterator[str]:
    """The address of a real aggregator on this machine."""
    store = f"sqlite:///{tmp_path / 'aggregator.db'}"
    arguments = bound(FEDSTEP, "serve", "--host", "127.0.0.1", "--port", "0", "--store", store)
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=clean_environment()) as server:
        try:
            log = present(server.stderr)
            said = log.readline()
            url = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert url, said + log.read()
            yield url.group()
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(15)
