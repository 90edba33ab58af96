"""Our plugin beside pytest-randomly and pytest-split, which would shuffle and divide this suite if it had them."""

import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = [pytest.mark.full, pytest.mark.slow]
ROOT = Path(__file__).parents[3]
FILES = ("cart", "order", "pay")
ALL = sorted(f"test_{name}.py::test_{name}_{number}" for name in FILES for number in range(8))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the pytest of a fresh environment with the three plugins."""
    folder = tmp_path_factory.mktemp("plugins") / "venv"
    venv.create(folder, with_pip=True)
    install = (folder / "bin/pip", "install", "--quiet", ROOT, "pytest", "pytest-randomly", "pytest-split")
    ran = subprocess.run(install, capture_output=True, text=True, timeout=400)
    if ran.returncode:
        pytest.skip(f"pytest-randomly and pytest-split are not run beside our plugin: {ran.stderr[-300:]}")
    return str(folder / "bin/pytest")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with 24 tests in three files, and no history."""
    for name in FILES:
        tests = (f"def test_{name}_{number}(): pass" for number in range(8))
        (tmp_path / f"test_{name}.py").write_text("\n".join(tests))
    return tmp_path


def run(program: str, place: Path, *options: str) -> list[str]:
    """Return the tests that ran, in their order."""
    foreign = ("FEDSTEP_", "PYTEST_", "GITHUB_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(foreign) and name != "CI"}
    ran = subprocess.run((program, "-v", *options), cwd=place, env=env, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return [line.split(" ")[0] for line in ran.stdout.splitlines() if "::" in line and "PASSED" in line]


def together(parts: Sequence[list[str]]) -> list[str]:
    """Return the tests of all parts; each part has some of them."""
    assert all(parts)
    return sorted(test for part in parts for test in part)


class TestOtherPlugins:
    def test_our_order_holds_whatever_randomly_shuffled(self, program: str, place: Path) -> None:
        """The test that failed lately comes first with every seed; those that nothing tells apart stay shuffled."""
        cases = (f'<testcase classname="{test[:-2]}" name="{test}"/>' for test in ("test_cart_0", "test_pay_1"))
        failed = '<testcase classname="test_cart" name="test_cart_5"><failure message="no"/></testcase>'
        (place / "report.xml").write_text(f"<testsuite>{failed}{''.join(cases)}</testsuite>")
        train = (sys.executable, "-P", "-m", "fedstep", "train", "--junit", "report.xml")
        subprocess.run(train, cwd=place, check=True, capture_output=True, timeout=60)
        shuffled = [run(program, place, f"--randomly-seed={seed}") for seed in (1, 2)]
        ordered = [run(program, place, f"--randomly-seed={seed}", "--fedstep-order") for seed in (1, 2)]
        assert shuffled[0] != shuffled[1]
        assert [tests[0] for tests in ordered] == ["test_cart.py::test_cart_5"] * 2
        assert [sorted(tests) for tests in ordered] == [ALL, ALL]

    def test_shards_of_shuffled_machines_fit_together(self, program: str, place: Path) -> None:
        """Each machine has a seed of its own."""
        shards = [run(program, place, f"--randomly-seed={n}", "--fedstep-shard", f"{n}/2") for n in (1, 2)]
        assert together(shards) == ALL

    def test_groups_of_split_stay_whole_beside_our_order(self, program: str, place: Path) -> None:
        """The groups are those of pytest-split, each in our order."""
        options = ("-p", "no:randomly", "--fedstep-order", "--splits", "3")
        groups = [run(program, place, *options, "--group", str(number)) for number in (1, 2, 3)]
        assert together(groups) == ALL

    def test_a_selection_beside_both_runs_new_tests(self, program: str, place: Path) -> None:
        """Without a history every test is new."""
        groups = [
            run(program, place, "--randomly-seed=7", "--splits", "2", "--group", group, "--fedstep-select", "share=0.1")
            for group in ("1", "2")
        ]
        assert together(groups) == ALL
