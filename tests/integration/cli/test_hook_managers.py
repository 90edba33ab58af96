"""Our hook beside pre-commit, prek, lefthook, simple-git-hooks and Husky, in any order: every push happens."""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.helpers.cli import Checkout

pytestmark = [pytest.mark.full, pytest.mark.slow]
PRE_COMMIT = """
repos:
  - repo: local
    hooks:
      - {id: theirs, name: of-pre-commit, entry: "true", language: system, stages: [pre-push], always_run: true}
"""
LEFTHOOK = "pre-push:\n  commands:\n    theirs: {run: echo of-lefthook}\n"
PACKAGES = ("lefthook@2", "husky@9", "simple-git-hooks@2")
SIMPLE = '{"simple-git-hooks": {"pre-push": "echo of-simple"}, "devDependencies": {"simple-git-hooks": "2"}}'
ORDERS = (
    *("pi fi pi fi pi fu pu fi fu", "fi pi fi pu fu", "pi fi pu fu", "fi pi fu pu", "fi fi pi pi fu pu"),
    *("li fi li fi li fi fu lu", "fi li fi li lu fu", "fi li lu fu", "li fi lu fi fu fi", "fi fi li li fi fu fi"),
    *("pi li fi pi fi fu", "li pi fi li fi pi fu lu pu"),
    *("ki fi ki fi fu ku", "fi ki fi ki ku fu", "si fi si fi fu su", "fi si fi fu su", "li ki fi li ki fi fu ku"),
)


@pytest.fixture(scope="module")
def managers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, ...]]:
    """Return the commands of the managers, from the registries of PyPI and npm."""
    folder = tmp_path_factory.mktemp("managers")
    venv.create(folder / "venv", with_pip=True)
    pip = (str(folder / "venv/bin/pip"), "install", "--quiet", "pre-commit", "prek")
    npm = ("npm", "install", "--no-fund", "--no-audit", "--no-save", "--prefix", str(folder), *PACKAGES)
    for command in (pip, npm):
        if not shutil.which(command[0]):
            pytest.skip(f"{command[0]} is missing: pre-commit, lefthook and Husky are not run beside our hook")
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder)
        if ran.returncode:
            pytest.skip(f"pre-commit, lefthook and Husky are not run beside our hook: {ran.stderr[-300:]}")
    lefthook = str(next((folder / "node_modules").glob("lefthook-*/bin/lefthook*")))
    pre_commit = str(folder / "venv/bin/pre-commit")
    ours = (sys.executable, "-P", "-m", "fedstep", "hook")
    return {
        "fi": (*ours, "install"),
        "fu": (*ours, "uninstall"),
        "pi": (pre_commit, "install", "--hook-type", "pre-push"),
        "pu": (pre_commit, "uninstall", "--hook-type", "pre-push"),
        "ki": (str(folder / "venv/bin/prek"), "install", "--hook-type", "pre-push"),
        "ku": (str(folder / "venv/bin/prek"), "uninstall", "--hook-type", "pre-push"),
        "si": ("node", str(folder / "node_modules/simple-git-hooks/cli.js")),
        "su": ("node", str(folder / "node_modules/simple-git-hooks/uninstall.js")),
        "li": (lefthook, "install"),
        "lu": (lefthook, "uninstall"),
        "husky": (str(folder / "node_modules/.bin/husky"),),
    }


class TestOrders:
    @pytest.mark.parametrize("order", ORDERS)
    def test_every_push_happens_and_is_predicted_once(
        self, experienced: Checkout, tmp_path: Path, managers: dict[str, tuple[str, ...]], order: str
    ) -> None:
        """After each step a push happens, predicts once where our hook is installed, and runs the others' hooks."""
        place = experienced
        place.git("init", "-q", "--bare", str(tmp_path / "remote.git"))
        place.git("remote", "add", "origin", str(tmp_path / "remote.git"))
        (place.root / ".pre-commit-config.yaml").write_text(PRE_COMMIT)
        (place.root / "lefthook.yml").write_text(LEFTHOOK)
        (place.root / "package.json").write_text(SIMPLE)
        for step in order.split():
            ran = subprocess.run(managers[step], cwd=place.root, env=place.env, capture_output=True, text=True)
            assert ran.returncode == 0, (step, ran.stderr)
            place.git("-c", "core.hooksPath=/dev/null", "commit", "-q", "--allow-empty", "-m", step)
            pushed = subprocess.run(
                ("git", "push", "origin", "HEAD"), cwd=place.root, env=place.env, capture_output=True, text=True
            )
            output = pushed.stdout + pushed.stderr
            assert pushed.returncode == 0, (step, output)
            installed = place.run("hook", "status").code == 0
            assert output.count("Build time") == installed, (step, output)
            assert step not in ("pi", "ki", "li", "si") or re.search("of-(pre-commit|lefthook|simple)", output), output


class TestHusky:
    @pytest.mark.parametrize(
        "order", ["fi husky husky fi fu", "husky fi husky fu", "pi husky pi husky pu", "li husky li fi husky lu fu"]
    )
    def test_every_push_happens_in_any_order(
        self, experienced: Checkout, tmp_path: Path, managers: dict[str, tuple[str, ...]], order: str
    ) -> None:
        """Husky leads git to its own folder, so ours and pre-commit's are refused there or no longer run."""
        place = experienced
        place.git("init", "-q", "--bare", str(tmp_path / "remote.git"))
        place.git("remote", "add", "origin", str(tmp_path / "remote.git"))
        (place.root / ".pre-commit-config.yaml").write_text(PRE_COMMIT)
        (place.root / "lefthook.yml").write_text(LEFTHOOK)
        (place.root / ".husky").mkdir()
        (place.root / ".husky/pre-push").write_text("echo of-husky\n")
        for step in order.split():
            ran = subprocess.run(managers[step], cwd=place.root, env=place.env, capture_output=True, text=True)
            assert ran.returncode == 0 or step != "husky", ran.stderr
            place.git("-c", "core.hooksPath=/dev/null", "commit", "-q", "--allow-empty", "-m", step)
            push = ("git", "push", "origin", "HEAD")
            pushed = subprocess.run(push, cwd=place.root, env=place.env, capture_output=True, text=True)
            assert pushed.returncode == 0, (step, pushed.stderr)
            assert step != "husky" or "of-husky" in pushed.stdout + pushed.stderr

    def test_the_documented_line_predicts_and_stops_no_push(
        self, experienced: Checkout, tmp_path: Path, managers: dict[str, tuple[str, ...]]
    ) -> None:
        """With fedstep, without it, and with a configuration that it refuses; Husky is installed twice."""
        place = experienced
        place.git("init", "-q", "--bare", str(tmp_path / "remote.git"))
        place.git("remote", "add", "origin", str(tmp_path / "remote.git"))
        page = (Path(__file__).parents[3] / "docs/how-to/local.md").read_text()
        line = page.partition("`.husky/pre-push`:\n\n```sh\n")[2].partition("\n")[0]
        assert line
        (place.root / ".husky").mkdir()
        (place.root / ".husky/pre-push").write_text(f"{line}\necho of-husky\n")
        with_fedstep = {**place.env, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
        without = {**place.env, "PATH": "/usr/bin:/bin"}
        told = []
        for env in (with_fedstep, without, with_fedstep):
            ran = subprocess.run(managers["husky"], cwd=place.root, env={**env, "PATH": os.environ["PATH"]}, check=True)
            assert ran.returncode == 0
            place.git("-c", "core.hooksPath=/dev/null", "commit", "-q", "--allow-empty", "-m", "x")
            pushed = subprocess.run(
                ("git", "push", "origin", "HEAD"), cwd=place.root, env=env, capture_output=True, text=True
            )
            output = pushed.stdout + pushed.stderr
            assert pushed.returncode == 0, output
            assert "of-husky" in output
            told.append("Build time" in output)
            (place.root / ".fedstep.toml").write_text("histroy = 'x'\n" if env is without else "")
        assert told == [True, False, False]
        assert place.run("hook", "install").code == 2, "Husky's own folder is refused, with the line to add"
