"""Compare rules that find changes of time on recorded times, and write their table into docs/reference/results.md.

    python -m tests.benchmarks.time_changes [--otava PYTHON] [--corpora FOLDER]

A factor is injected into each recorded series at a random run; a rule finds it if it reports a slower test in that run
or the five after it. Runs where the recorded times themselves changed for good are left out of this part. PYTHON is an
interpreter with apache-otava, which needs other versions of numpy than this project; without it its row stays as it
is. Otava takes much longer than the others and is given every fourth series. The tests of one project are also followed
build by build, as `fedstep train` does, and the jobs of FOLDER, the recorded builds that `make evaluate` uses.
"""

import argparse
import csv
import gzip
import io
import json
import random
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from math import log
from pathlib import Path
from statistics import mean, median, pstdev

from fedstep.evaluation.corpus import read_builds
from fedstep.history.records import BuildRecord
from fedstep.history.test_table import new_test
from fedstep.history.time_changes import Direction, TimeLevel
from fedstep.history.timeline import JOB_STEP, TEST_STEP, Timeline, apply_to_timeline
from fedstep.types import BuildOutcome, Outcome, TestRun

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests/data/durations"
PAGE = ROOT / "docs/reference/results.md"
START, END = "<!-- changes of time: start -->\n", "<!-- changes of time: end -->\n"
FACTORS = (1.1, 1.3, 2.0, 3.0)
WITHIN, EARLIEST = 6, 30
Series = Sequence[float]
Rule = Callable[[Series], list[int]]  # the runs in which a slower test is reported


def fedstep_rule(times: Series, step: float = TEST_STEP) -> list[int]:
    """Return the runs in which fedstep reports a slower test, or with another step a slower job."""
    level = TimeLevel()
    shifts = ((run, level.observe(seconds, run, step)) for run, seconds in enumerate(times))
    return [run for run, shift in shifts if shift and shift.direction is Direction.SLOWER and not shift.is_return]


def deviations_rule(times: Series) -> list[int]:
    """Return the runs above the mean of the last 20 by three standard deviations, and by a tenth."""
    found = []
    for run in range(8, len(times)):
        past = times[max(0, run - 20) : run]
        if times[run] > max(mean(past) + 3 * pstdev(past), 1.1 * mean(past)):
            found.append(run)
    return _starts(found)


def ten_ago_rule(times: Series) -> list[int]:
    """Return the runs that took 1.5 times as long as ten runs before (docs.flakiness.io, "Duration Trends")."""
    return _starts([run for run in range(10, len(times)) if times[run] > 1.5 * times[run - 10]])


def medians_rule(times: Series) -> list[int]:
    """Return the runs where the median of five is 1.5 times that of the 20 before (as apache/airflow#69113 has it)."""
    runs = range(13, len(times) + 1)
    return _starts(
        [run - 1 for run in runs if median(times[run - 5 : run]) > 1.5 * median(times[max(0, run - 25) : run - 5])]
    )


def _starts(runs: Sequence[int]) -> list[int]:
    """Return the runs that do not follow another one: an alarm that goes on is one alarm."""
    return [run for place, run in enumerate(runs) if not place or run - runs[place - 1] > 1]


RULES: dict[str, Rule] = {
    "fedstep": fedstep_rule,
    "median of 5 against 20, × 1.5": medians_rule,
    "ten runs ago, × 1.5": ten_ago_rule,
    "mean + 3 standard deviations": deviations_rule,
}
NULLS = ("by chance", "in blocks")
OTAVA = "Apache Otava 0.8, defaults, every fourth series"


@dataclass(frozen=True)
class Case:
    """One series and the run at which a factor is injected; `is_steady`: the recorded times do not change there."""

    times: Series
    at: int

    @property
    def is_steady(self) -> bool:
        """Return whether the medians around the run differ by less than a fifth."""
        middles = (self.times[max(0, self.at - 20) : self.at], self.times[self.at - 6 : self.at])
        after = median(self.times[self.at : self.at + 8])
        return all(abs(log(after / median(part))) < log(1.2) for part in middles)

    def injected(self, factor: float) -> Series:
        """Return the times up to the last run in which the change must be found."""
        return [*self.times[: self.at], *(factor * one for one in self.times[self.at : self.at + WITHIN])]


def read_cases(path: Path, seed: int = 1) -> list[Case]:
    """Return the series of a file, each with a run drawn at random."""
    draw = random.Random(seed)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        series = [list(map(float, row["seconds"].split())) for row in csv.DictReader(file)]
    return [Case(times, draw.randrange(EARLIEST, len(times) - 10)) for times in series]


@dataclass(frozen=True)
class Figures:
    """What one rule found: shares of series."""

    found: tuple[float, ...]  # by factor, in runs where nothing else changed
    alarming: float  # of untouched series, in at most 365 runs
    not_lasting: float  # ... with an alarm after which the time was not higher
    by_chance: float  # of series in a random order
    in_blocks: float  # of series without their slow changes, in blocks of ten runs in a random order


def measure(rule: Rule, cases: Sequence[Case]) -> Figures:
    """Return the figures of a rule."""
    steady = [case for case in cases if case.is_steady]
    clean = [rule(case.times) for case in cases]
    found = (mean(any(run >= case.at for run in rule(case.injected(f))) for case in steady) for f in FACTORS)
    wrong = [any(not _lasts(case.times, run) for run in runs) for case, runs in zip(cases, clean, strict=True)]
    return Figures(tuple(found), mean(map(bool, clean)), mean(wrong), *_measure_nulls(rule, cases))


def _measure_nulls(rule: Rule, cases: Sequence[Case]) -> tuple[float, float]:
    """Return the shares of series that alarm although nothing changes for good: by chance, and in blocks."""
    draw, draw_blocks = random.Random(3), random.Random(4)
    shuffled = [bool(rule(draw.sample(case.times, len(case.times)))) for case in cases]
    return mean(shuffled), mean(bool(rule(in_blocks(case.times, draw_blocks))) for case in cases)


def in_blocks(times: Series, draw: random.Random, around: int = 10, length: int = 10) -> Series:
    """Return times over the median of the runs around each of them, in blocks in a random order.

    Noise, modes and runs that are slow together stay; what lasts longer than `around` runs is divided out.
    """
    levelled = [one / median(times[max(0, run - around) : run + around + 1]) for run, one in enumerate(times)]
    blocks = [levelled[start : start + length] for start in range(0, len(times), length)]
    return [one for block in draw.sample(blocks, len(blocks)) for one in block]


def _lasts(times: Series, run: int, by: float = 1.2) -> bool:
    """Return whether the 20 runs after an alarm took longer than those before it, by a fifth in the median."""
    before, after = times[max(0, run - 30) : max(1, run - 6)], times[run + 1 : run + 21]
    return len(after) < 5 or len(before) < 5 or median(after) > by * median(before)


@dataclass(frozen=True)
class Followed:
    """What `train` would have reported of a project: numbers of tests, and of findings of many tests."""

    tests: int
    alone: int  # tests that alarmed by themselves
    not_lasting: int  # ... after which the time was not higher
    together: int  # tests that became slower with others ...
    findings: int  # ... in so many findings

    def __add__(self, other: "Followed") -> "Followed":
        """Return the sums of two projects."""
        return Followed(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


def follow_project(tests: dict[str, list[str]]) -> Followed:
    """Return what is reported of these tests, followed build by build; "-" where a build does not measure a test."""
    timeline, table = Timeline(), {test: new_test(test) for test in tests}
    for number in range(len(next(iter(tests.values())))):
        runs = (TestRun(t, Outcome.PASSED, float(times[number])) for t, times in tests.items() if times[number] != "-")
        at = 86_400.0 * number
        build = BuildRecord(f"{number:032x}", at, at + 1, 1.0, "", BuildOutcome.PASSED, tests=tuple(runs))
        timeline = apply_to_timeline(timeline, build, table, {})
    slower = [change for change in timeline.changes if change.is_slower]
    alone = {change.subject for change in slower if not change.members and not change.together}
    passing = {one.subject for one in slower if one.subject in alone and not _stays(tests[one.subject], one.found_at)}
    together = [change.together for change in slower if change.together]
    return Followed(len(tests), len(alone), len(passing), sum(together), len(together))


def follow_builds(name: str) -> str:
    """Return what is reported of the tests of a recording, in the order of its builds and with its builds shuffled.

    The builds of a project change places as a whole: its tests keep what they have in common, and nothing lasts.
    """
    jobs: dict[str, dict[str, list[str]]] = {}
    with gzip.open(DATA / f"{name}_builds.csv.gz", "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            jobs.setdefault(row.get("job", ""), {})[row["test"]] = row["seconds"].split()
    draw, nothing = random.Random(3), Followed(0, 0, 0, 0, 0)
    found = sum(map(follow_project, jobs.values()), nothing)
    shuffled = sum((follow_project(_in_another_order(tests, draw)) for tests in jobs.values()), nothing)
    return (
        f"| {name} | {found.tests:,} in {len(jobs)} {'job' if len(jobs) == 1 else 'jobs'} "
        f"| {found.alone / found.tests:.1%} | {found.not_lasting / found.tests:.1%} "
        f"| {found.together} in {found.findings} | {shuffled.alone / found.tests:.1%} | {shuffled.findings} |"
    )


def _in_another_order(tests: dict[str, list[str]], draw: random.Random) -> dict[str, list[str]]:
    builds = len(next(iter(tests.values())))
    order = draw.sample(range(builds), builds)
    return {test: [times[build] for build in order] for test, times in tests.items()}


def _stays(times: Sequence[str], found_at: float) -> bool:
    """Return whether the raw times of a test stay higher after the day of its alarm, as `_lasts` has it."""
    run = sum(one != "-" for one in times[: int(found_at // 86_400) + 1]) - 1
    return _lasts([float(one) for one in times if one != "-"], run)


def follow_jobs(corpora: Path) -> str:
    """Return how many recorded jobs alarm; a job whose builds are those of another is left out."""
    jobs: set[tuple[float, ...]] = set()
    for path in sorted(corpora.glob("*/*/builds.csv.gz")):
        streams: dict[str, list[float]] = {}
        for build in read_builds(path)[0]:
            if build.outcome == BuildOutcome.PASSED and build.seconds > 0:
                streams.setdefault(build.stream, []).append(build.seconds)
        jobs |= {tuple(times[-365:]) for times in streams.values() if len(times) >= 60}
    alarms = [(times, fedstep_rule(times, JOB_STEP)) for times in sorted(jobs)]
    passing = mean(any(not _lasts(times, run, 1.1) for run in runs) for times, runs in alarms)
    return f"{len(jobs)} recorded jobs: {mean(bool(runs) for _, runs in alarms):.0%} alarm, {passing:.0%} not lasting"


OTAVA_SCRIPT = """
import json, sys
from otava.analysis import compute_change_points
def rule(times):
    points, _ = compute_change_points(list(times), window_len=50, max_pvalue=0.001)
    return [int(point.index) for point in points if point.stats.mean_2 > point.stats.mean_1]
for line in sys.stdin:
    print(json.dumps(rule(json.loads(line))), flush=True)
"""


def otava_rule(python: str) -> Rule:
    """Return Otava as a rule: it is asked after each of the last runs, as a job would."""
    process = subprocess.Popen([python, "-c", OTAVA_SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def rule(times: Series) -> list[int]:
        assert process.stdin is not None
        assert process.stdout is not None
        print(json.dumps(list(times)), file=process.stdin, flush=True)
        found: list[int] = json.loads(process.stdout.readline())
        return found

    return rule


def measure_otava(rule: Rule, cases: Sequence[Case]) -> Figures:
    """Return the figures of Otava, which names the run of the change and not the run that shows it.

    It finds a factor if after one of the six runs it names a change within two runs of the injected one, which it did
    not name before. Untouched series are analysed once, as a whole.
    """
    steady = [case for case in cases if case.is_steady]

    def finds(case: Case, factor: float) -> bool:
        times, near = case.injected(factor), range(case.at - 2, case.at + WITHIN)
        known = set(rule(times[: case.at]))
        return any(run in near and run not in known for run in rule(times))

    clean = [rule(case.times) for case in cases]
    wrong = [any(not _lasts(case.times, run + 5) for run in runs) for case, runs in zip(cases, clean, strict=True)]
    found = tuple(mean(finds(case, factor) for case in steady) for factor in FACTORS)
    return Figures(found, mean(map(bool, clean)), mean(wrong), *_measure_nulls(rule, cases))


def table(otava: str, corpora: str) -> str:
    """Return the tables in Markdown, and what happens build by build."""
    out = io.StringIO()
    kept = dict(_kept_rows())
    for name in ("onegov", "pytorch"):
        cases = read_cases(DATA / f"{name}.csv.gz")
        steady = sum(case.is_steady for case in cases)
        print(f"\n{name}: {len(cases)} series, {steady} of them steady around the injected run\n", file=out)
        heads = (*(f"× {factor:g}" for factor in FACTORS), "alarming in a year", "... not lasting", *NULLS)
        print(f"| rule | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}", file=out)
        for label, rule in RULES.items():
            print(_row(label, measure(rule, cases)), file=out)
        if otava:
            print(_row(OTAVA, measure_otava(otava_rule(otava), cases[::4])), file=out)
        elif name in kept:
            print(kept[name], file=out)
    heads = (
        "tests, as `train` follows them",
        "alone",
        "... not lasting",
        "with others",
        "alone by chance",
        "findings by chance",
    )
    print(f"\n| | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}", file=out)
    for name in ("onegov", "pytorch"):
        print(follow_builds(name), file=out)
    if corpora:
        print(f"\n{follow_jobs(Path(corpora))}.", file=out)
    return out.getvalue().strip() + "\n"


def _row(label: str, figures: Figures) -> str:
    found = " | ".join(f"{share:.3f}" for share in figures.found)
    shares = (figures.alarming, figures.not_lasting, figures.by_chance, figures.in_blocks)
    rest = " | ".join(f"{share:.1%}" for share in shares)
    return f"| {label} | {found} | {rest} |"


def _kept_rows() -> list[tuple[str, str]]:
    """Return the rows of Otava that the page has, by the name of the recording."""
    lines = PAGE.read_text(encoding="utf-8").partition(START)[2].partition(END)[0].splitlines()
    names = [line.partition(":")[0] for line in lines if line.endswith("around the injected run")]
    return list(zip(names, (line for line in lines if line.startswith(f"| {OTAVA}")), strict=False))


def main() -> None:
    """Write the table between its marks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--otava", default="")
    parser.add_argument("--corpora", default="")
    given = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{START}\n{table(given.otava, given.corpora)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
