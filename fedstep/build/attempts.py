"""Several attempts at one test in one build, and the one outcome they have together."""

from re import sub

from fedstep.build.record import Outcome, TestRun

__all__ = ["joined", "last_attempt", "settle", "settle_pytest", "settle_reruns"]


def settle(outcomes: str) -> Outcome:
    """The outcome of a test with these attempts; their order does not matter."""
    failed = outcomes.count(Outcome.FAILED) + 2 * outcomes.count(Outcome.CONFIRMED)
    if Outcome.FLAKED in outcomes or (failed and Outcome.PASSED in outcomes):
        return Outcome.FLAKED
    if failed:
        return Outcome.CONFIRMED if failed > 1 else Outcome.FAILED
    return Outcome.PASSED if Outcome.PASSED in outcomes else Outcome.SKIPPED


def settle_pytest(outcomes: str) -> Outcome:
    """The same for a report of pytest, where two failures in a row are one attempt: its call and its teardown."""
    return settle(sub("f+", "f", outcomes))


def settle_reruns(outcomes: str) -> Outcome:
    """The same for pytest with pytest-rerunfailures or flaky, where order matters (seen with pytest 9.2).

    They write an attempt that failed and is run again as a case that passed, and leave it out of the suite's `tests`.

    >>> settle_reruns("pp"), settle_reruns("ppf")
    (<Outcome.FLAKED: 'k'>, <Outcome.CONFIRMED: 'c'>)
    """
    attempts = sub("f+", "f", outcomes.replace(Outcome.SKIPPED, ""))
    if len(attempts) < 2:
        return settle_pytest(outcomes)
    return Outcome.FLAKED if attempts.endswith(Outcome.PASSED) else Outcome.CONFIRMED


def joined(run: TestRun, other: TestRun) -> TestRun:
    """One test of two files. Equal outcome and seconds are one measurement, copied, as Ant's merged report does.

    A copy may tell more: Robot's output has the file and line that its xunit report lacks.
    """
    both = last_attempt(run, other)
    copied = run.outcome == other.outcome and repr(run.seconds) == repr(other.seconds)
    return both._replace(outcome=run.outcome if copied else settle(run.outcome + other.outcome))


def last_attempt(earlier: TestRun, later: TestRun) -> TestRun:
    """The later run, with what only the earlier one tells."""
    timed = later.seconds == later.seconds and later.outcome != Outcome.SKIPPED
    return TestRun(
        earlier.test,
        later.outcome,
        later.seconds if timed else earlier.seconds,
        earlier.failure_type or later.failure_type,
        earlier.file or later.file,
        earlier.line or later.line,
    )
