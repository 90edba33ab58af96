"""The console excerpt of the README, run in a project with fourteen recorded builds."""

import os
import shlex
import subprocess
import sys
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest

from tests.helpers.earlier_data import AT_ANOTHER_TIME
from tests.pipelines.test_start_page import consoles, shows

ROOT = Path(__file__).parents[2]
BUILDS = 14
SECONDS = {"pays_by_card": 0.4, "waits_for_the_bank": 0.3, "sends_receipt_mail": 0.2, "cancels": 0.01}
FAILS = {"waits_for_the_bank": (2, 7, 12, 15), "sends_receipt_mail": (4, 13)}


def until_a_morning() -> int:
    """Return the seconds until ten o'clock UTC on a day from Monday to Friday.

    At night and on weekends the hour and the day are reasons, too.
    """
    now = datetime.now(UTC)
    mornings = (datetime.combine(now.date() + timedelta(days), time(10), UTC) for days in range(1, 5))
    return round((next(morning for morning in mornings if morning.weekday() < 5) - now).total_seconds())


def report(build: int) -> str:
    """Return the report of a build: 18 tests, of which two fail in some builds."""
    cases = [f'<testcase classname="tests.test_cart" name="test_quantities[{n}]" time="0.001"/>' for n in range(14)]
    for name, seconds in SECONDS.items():
        seconds *= 0.97 + 0.005 * build  # equal reports would count as one build
        failure = '<failure message="timeout">AssertionError</failure>' if build in FAILS.get(name, ()) else ""
        cases.append(
            f'<testcase classname="tests.test_checkout" name="test_{name}" time="{seconds:.4f}">{failure}</testcase>'
        )
    return f'<testsuite name="shop" tests="{len(cases)}">{"".join(cases)}</testsuite>'


@pytest.fixture
def shop(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """Return a project with a history of `BUILDS` builds and one uncommitted change, and its environment."""
    project = tmp_path / "shop"
    (project / "tests").mkdir(parents=True)
    (project / ".gitignore").write_text(".fedstep/\nreport.xml\n")
    later = tmp_path / "bin" / "fedstep"
    later.parent.mkdir()
    start = shlex.join((sys.executable, "-c", AT_ANOTHER_TIME))
    later.write_text(f'#!/bin/sh\nexec {start} "$(date -d "+{until_a_morning()} seconds" +%s.%N)" 1 "$@"\n')
    later.chmod(0o755)
    env = {"PATH": f"{later.parent}{os.pathsep}/usr/bin{os.pathsep}/bin", "HOME": str(tmp_path)}
    git = ("git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-C", str(project))
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True, timeout=20)
    for build in range(1, BUILDS + 1):
        (project / "tests/test_cart.py").write_text(f"# {build}\n")
        (project / "report.xml").write_text(report(build))
        subprocess.run([*git, "add", "-A"], check=True, timeout=20)
        subprocess.run([*git, "commit", "-q", "-m", f"Change {build}"], check=True, timeout=20)
        train = [str(later), "train", "--junit", "report.xml"]
        subprocess.run(train, cwd=project, env=env, check=True, capture_output=True, timeout=60)
    (project / "tests/test_cart.py").write_text("# next\n")
    (project / "report.xml").write_text(report(BUILDS + 1))
    return project, env


class TestReadme:
    @pytest.mark.full
    def test_the_prediction_is_what_the_program_prints(self, shop: tuple[Path, dict[str, str]]) -> None:
        """Numbers may differ, and `...` stands for any lines."""
        project, env = shop
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        steps = [step for step in consoles(text) if step[1].strip()]
        assert [command for command, _ in steps] == ["fedstep predict", "fedstep triage --junit report.xml"]
        for command, expected in steps:
            ran = subprocess.run(
                ["sh", "-c", command], cwd=project, env=env, capture_output=True, text=True, timeout=60
            )
            assert ran.returncode == 0, ran.stderr
            assert shows(expected.rstrip() + "\n...\n", ran.stdout), f"$ {command}\n{ran.stdout}"
