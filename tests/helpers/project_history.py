"""A history with all that the page of a project shows: flaky and slower tests, a slower job, red builds, forecasts."""

import random
from collections.abc import Collection
from hashlib import sha1
from pathlib import Path

from fedstep.history.project_store import ProjectStore
from fedstep.history.records import BuildRecord, Forecast
from fedstep.history.summary import Summary, apply_record, save_summary
from fedstep.history.timeline import Timeline, apply_to_timeline, save_timeline
from fedstep.types import BuildOutcome, Outcome, TestRun

HOSTILE = (
    "<script>alert(1)</script>#\"onload='x'",
    "a</style><img src=x onerror=alert(1)>#{{ 7 * 7 }}",
    "x\u202e\x1b[31m#`|]] ;rm -rf ~`<!channel>",
)
PLAIN = tuple(f"shop.cart.CartTest#case_{number}" for number in range(17))
TESTS = (*HOSTILE, *PLAIN)
FLAKY, SLOW, BROKEN = PLAIN[4], PLAIN[7], PLAIN[9]
BUILDS = 90


def build_record(number: int) -> BuildRecord:
    """A build of twenty tests: from the 60th on a test and the job take three times as long."""
    draw = random.Random(number)
    late = number >= 60
    runs, flaky = [], {}
    for place, test in enumerate(TESTS):
        slower = 3.0 if late and (test == SLOW or place == 0) else 1.0
        flakes = (test == FLAKY and number % 6 == 0) or (place < 3 and number % 29 == place)
        outcome = (Outcome.FLAKED if number % 4 == 0 else Outcome.FAILED) if flakes else Outcome.PASSED
        if flakes:
            flaky[test] = 0.9
        runs.append(TestRun(test, outcome, (0.2 + place / 10) * slower * draw.lognormvariate(0, 0.05)))
    failed = any(run.outcome == Outcome.FAILED for run in runs)
    seconds = (900.0 if late else 300.0) * draw.lognormvariate(0, 0.05)
    at = 1_790_000_000.0 + 21_600 * number
    forecast = Forecast(310.0, 250.0, 420.0, 330.0, 0.1 + 0.8 * (number % 6 == 0), flaky, 3)
    return BuildRecord(
        name=f"{number:032x}",
        started_at=at,
        finished_at=at + seconds,
        seconds=seconds,
        stream="unit|py3.11|github",
        outcome=BuildOutcome.FAILED if failed else BuildOutcome.PASSED,
        branch="main",
        commit=sha1(str(number).encode()).hexdigest(),
        tests=tuple(runs),
        forecast=forecast if number > 3 else Forecast(),
    )


def with_failure(record: BuildRecord, test: str) -> BuildRecord:
    """Return the build with a failure of one test."""
    runs = tuple(run._replace(outcome=Outcome.FAILED) if run.test == test else run for run in record.tests)
    return record._replace(tests=runs, outcome=BuildOutcome.FAILED)


def without_flakes(record: BuildRecord) -> BuildRecord:
    """Return the build with passes of the flaky test alone."""
    runs = tuple(run._replace(outcome=Outcome.PASSED) if run.test == FLAKY else run for run in record.tests)
    return record._replace(tests=runs)


def write_history(
    folder: Path,
    builds: int = BUILDS,
    broken_from: int = BUILDS,
    calm_from: int = BUILDS,
    passes_in: Collection[int] = (),
) -> ProjectStore:
    """Write the history of so many builds below a folder, and return it; nothing is learned, no model is used.

    From build `broken_from` on the test `BROKEN` fails every time but in the builds `passes_in`, from `calm_from` on
    the test `FLAKY` passes.
    """
    store = ProjectStore(str(folder / ".fedstep"))
    store.prepare()
    summary, timeline = Summary(), Timeline()
    for number in range(builds):
        record = build_record(number)
        record = with_failure(record, BROKEN) if number >= broken_from and number not in passes_in else record
        record = without_flakes(record) if number >= calm_from else record
        file = store.log.append(record)
        summary = apply_record(summary, file, record)
        judged = {run.test: True for run in record.tests if summary.tests[run.test].last_flip >= 0}
        timeline = apply_to_timeline(timeline, record, summary.tests, judged)
    save_summary(store, summary)
    save_timeline(store, timeline)
    return store
