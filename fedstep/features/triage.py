"""The features of a failure: the test's past, what else failed, what changed, and how it failed."""

from collections import Counter
from collections.abc import Sequence
from math import isnan, log
from typing import NamedTuple

from fedstep.build.record import Build, Change, Outcome, TestRun
from fedstep.build.relation import relation
from fedstep.features.flaky import group_of, history_values, rounded, typical_seconds
from fedstep.features.parts import Value
from fedstep.history.tests import TestTable

__all__ = ["failure_kind", "triage_values"]

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
    """One of the schema's kinds for an exception type or message word; None where there is none.

    >>> failure_kind("java.util.concurrent.TimeoutException")
    'timeout'
    """
    if not failure_type:
        return None
    text = failure_type.lower()
    return next((kind for kind, words in _KINDS if any(word in text for word in words)), "other")


class _Scene(NamedTuple):
    """What all failures of one build have in common."""

    failed: int
    failed_by_group: Counter[str]
    change: Change | None
    same_commit: bool  # as the build before in the same stream


def triage_values(table: TestTable, build: Build, previous_commit: str) -> list[tuple[TestRun, tuple[Value, ...]]]:
    """For each failure of the build, with the table as it stood before it, the triage head's raw values in order.

    Every failed test must have a row in the table (`with_tests`).
    """
    failures = [run for run in build.reports.tests if run.outcome in "fck"]
    if not failures:
        return []
    scene = _scene(build, failures, previous_commit)
    rows = {test: number for number, test in enumerate(table.ids)}
    history = history_values(table)
    return [
        (run, (1.0, *history[rows[run.test]], *_circumstances(table, rows[run.test], run, scene))) for run in failures
    ]


def _scene(build: Build, failures: Sequence[TestRun], previous_commit: str) -> _Scene:
    change = build.situation.change if isinstance(build.situation.change, Change) else None
    commit = change.commit if change else ""
    groups = Counter(group_of(run.test) for run in failures)
    return _Scene(len(failures), groups, change, bool(commit) and commit == previous_commit)


def _circumstances(table: TestTable, number: int, run: TestRun, scene: _Scene) -> tuple[Value, ...]:
    typical = typical_seconds(table, number)
    seconds = None if isnan(run.seconds) else max(run.seconds, 0.001)
    return (
        table.streak[number],
        scene.failed,
        scene.failed_by_group[group_of(run.test)] - 1,
        relation(run.test, scene.change.files) if scene.change else None,
        len(scene.change.files) if scene.change else None,
        _on_this_commit(table.recent[number], scene.same_commit),
        failure_kind(run.failure_type),
        round(log(seconds / max(typical, 0.001)), 1) if typical and seconds else None,
        rounded(seconds) if seconds else None,
    )


def _on_this_commit(recent: str, same_commit: bool) -> str:
    if not same_commit or not recent:
        return "unseen"
    return "failed" if recent[-1] in (Outcome.FAILED, Outcome.CONFIRMED) else "passed"
