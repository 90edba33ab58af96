"""Features of the triage task: the failed test's past, what else failed, what changed, and how it failed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isnan, log
from typing import NamedTuple

from fedstep.features.flaky import history_columns, rounded, row_indices, row_of, typical_seconds
from fedstep.history.flakiness import WEIGHTS, FailureContext, failure_context
from fedstep.history.test_table import TestStats, TestTable, index_tests
from fedstep.ingest.change_impact import group_of
from fedstep.schema.encoders import Raw, Value
from fedstep.schema.schema import EVIDENCE
from fedstep.types import Build, Change, Outcome, TestRun

# The first kind whose word occurs in the lower-cased exception type; the kinds are the schema's FAILURE_KINDS.
_KINDS = (
    ("timeout", ("timeout", "timedout", "deadline")),
    ("connection", ("connect", "socket", "http", "network", "unknownhost", "ssl", "broken pipe", "bindexception")),
    ("concurrency", ("interrupt", "concurrent", "deadlock", "execution", "cancel", "lock")),
    ("memory", ("memory", "stackoverflow", "recursion")),
    ("assertion", ("assert", "comparison", "expect", "mismatch", "opentest4j")),
    ("null", ("nullpointer", "attributeerror", "typeerror", "nil", "undefined")),
    ("io", ("ioexception", "oserror", "file", "permission", "disk", "eof")),
    ("state", ("illegalstate", "illegalargument", "valueerror", "keyerror", "indexerror", "runtimeerror")),
)


def failure_kind(failure_type: str) -> str | None:
    """Return one of the schema's kinds for an exception type or message word; None where there is none.

    >>> failure_kind("java.util.concurrent.TimeoutException")
    'timeout'
    """
    if not failure_type:
        return None
    text = failure_type.lower()
    return next((kind for kind, words in _KINDS if any(word in text for word in words)), "other")


class _Failures(NamedTuple):
    """What all failures of one build have in common."""

    failed: int
    by_group: Counter[str]
    files: int | None
    same_commit: bool  # as the build before in the same stream
    context: FailureContext


def triage_values(tests: TestTable, build: Build, previous_commit: str) -> list[tuple[TestRun, Raw]]:
    """Return each failure of the build with the triage task's raw values by part name.

    Args:
        tests: The table as it stood before the build, with every failed test in it (`with_tests`).
        build: The build.
        previous_commit: The commit of the build before in the stream, "" where there is none.
    """
    runs = [run for run in build.reports.tests if run.outcome in "fck"]
    if not runs:
        return []
    failures = _common_facts(tests, build, runs, previous_commit)
    history, rows, by_id = history_columns(tests), row_indices(tests), index_tests(tests)
    return [(run, _values(by_id[run.test], run, failures, row_of(history, rows[run.test]))) for run in runs]


def _common_facts(tests: TestTable, build: Build, runs: Sequence[TestRun], previous_commit: str) -> _Failures:
    change = build.situation.change if isinstance(build.situation.change, Change) else None
    commit = change.commit if change else ""
    return _Failures(
        len(runs),
        Counter(group_of(run.test) for run in runs),
        len(change.files) if change else None,
        bool(commit) and commit == previous_commit,
        failure_context(tests, [run.test for run in runs], change.files if change else None),
    )


def _values(stats: TestStats, run: TestRun, failures: _Failures, history: Raw) -> Raw:
    commit = _on_this_commit(stats.recent, run, failures.same_commit)
    # A failure that was confirmed in every rerun counts as one more in a row.
    evidence = failures.context.evidence(stats, run.test, stats.streak + (run.outcome == Outcome.CONFIRMED))
    if commit in ("passed", "both"):
        evidence = evidence._replace(commit=WEIGHTS.passed_on_commit)
    return {
        "bias": 1.0,
        **history,
        **{f"evidence-{name}": round(getattr(evidence, name), 2) for name in EVIDENCE},
        **_facts(stats, run, failures, commit),
    }


def _facts(stats: TestStats, run: TestRun, failures: _Failures, commit: str) -> Mapping[str, Value]:
    typical = typical_seconds(stats)
    seconds = None if isnan(run.seconds) else max(run.seconds, 0.001)
    return {
        "failures-in-a-row": stats.streak,
        "failures-in-build": failures.failed,
        "classmates-failing": failures.by_group[group_of(run.test)] - 1,
        "change": failures.context.relation(run.test),
        "files-changed": failures.files,
        "same-commit": commit,
        "failure-kind": failure_kind(run.failure_type),
        "seconds-ratio": round(log(seconds / max(typical, 0.001)), 1) if typical and seconds else None,
        "seconds": rounded(seconds) if seconds else None,
    }


def _on_this_commit(recent: str, run: TestRun, same_commit: bool) -> str:
    """Return how the test went on this commit before: an option of the part `same-commit`."""
    if run.outcome == Outcome.FLAKED:
        return "both"
    if not same_commit or not recent:
        return "unseen"
    return "failed" if recent[-1] in (Outcome.FAILED, Outcome.CONFIRMED) else "passed"
