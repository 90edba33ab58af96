"""A project of any size with a drawn history, for timing alone."""

import random
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.sax.saxutils import quoteattr

from fedstep.federation.model_cache import load_model
from fedstep.history.project_store import ProjectStore
from fedstep.pipeline.predict import save_prediction
from fedstep.pipeline.train import build_outcome, evaluate_build, learn, record_build
from fedstep.types import BuildContext, Change, CiRun, Duration, FileChange, FinishedBuild, Outcome, Reports, TestRun

WORDS = (
    *("open", "close", "read", "write", "retry", "wait", "connect", "parse"),
    *("render", "merge", "split", "login", "cache", "queue", "thread"),
)
HOUR = 3600.0
START = 1_760_000_000.0


def grow(home: ProjectStore, tests: int, builds: int) -> None:
    """Record and learn so many builds of a project of so many tests, 1 % of them flaky."""
    home.prepare()
    for number, evidence in enumerate(drawn_builds(tests, builds)):
        kept = load_model(home)
        record_build(home, evaluate_build(home, evidence, kept), _drawn_words)
        if number % 10 == 9 or number == builds - 1:
            learn(home, kept)
    save_prediction(home, kept)


def _drawn_words(runs: Iterable[TestRun]) -> dict[str, tuple[str, ...]]:
    """Thirty words of the source of each test, some of them much more frequent than others."""
    draw = random.Random(1)
    return {run.test: tuple({_word(draw) for _ in range(30)}) for run in runs}


def _word(draw: random.Random) -> str:
    """One of 3,000 words; digits become letters, since words have none."""
    return "word" + "".join(chr(ord("a") + int(digit)) for digit in str(int(3000 ** draw.random())))


def change_source(folder: Path) -> None:
    """Change fifty lines of a file before a push."""
    draw = random.Random(2)
    lines = (f"total = {_word(draw)}({_word(draw)})\n" for _ in range(50))
    (folder / "thing.py").write_text("".join(lines), encoding="utf-8")
    subprocess.run(["git", "-C", str(folder), "add", "thing.py"], check=True)


def drawn_builds(tests: int, builds: int, seed: int = 1) -> Iterator[FinishedBuild]:
    """Finished builds in time order."""
    draw = random.Random(seed)
    names = [name(number) for number in range(tests)]
    for build in range(builds):
        runs = tuple(TestRun(test, _outcome(draw, number), draw.expovariate(20)) for number, test in enumerate(names))
        reports = Reports(runs, 1, (), f"{build:064x}")
        ci = CiRun(vendor="bench", run=str(build), branch="main", event="push", job="test")
        change = Change(
            f"{build:040x}", f"{build:040x}", "a@example.org", (FileChange("src/org/acme/a/Thing.java", 3, 1),)
        )
        seconds = 300 + draw.expovariate(1 / 30)
        started = START + build * HOUR
        situation = BuildContext(ci, change, started)
        yield FinishedBuild(
            situation, started + seconds, Duration(seconds, "bench"), build_outcome(ci, reports), reports
        )


def name(number: int) -> str:
    """A test name of the usual length, made of common words."""
    first, second, third = (WORDS[number // power % len(WORDS)] for power in (1, 15, 225))
    return f"org.acme.{first}.{second.title()}{third.title()}Test#{second}And{first.title()}When{third.title()}{number}"


def write_report(path: Path, tests: int, failing: int = 3) -> None:
    """A Surefire-like report of the project's next build."""
    rows = []
    for number in range(tests):
        group, _, method = name(number).partition("#")
        body = '<failure type="java.lang.AssertionError"/>' if number < failing else ""
        rows.append(f"<testcase classname={quoteattr(group)} name={quoteattr(method)} time='0.05'>{body}</testcase>")
    path.write_text("<testsuite name='acme'>\n" + "\n".join(rows) + "\n</testsuite>\n", encoding="utf-8")


def _outcome(draw: random.Random, number: int) -> Outcome:
    return Outcome.FAILED if number % 100 == 7 and draw.random() < 0.05 else Outcome.PASSED
