"""Test cases that a service or a table tells, as the report of one build."""

from collections.abc import Iterable

from fedstep.build.record import TestRun
from fedstep.ingest.cases import MAX_NAME, MAX_TEXT, failure_word, make_identity
from fedstep.ingest.junit import combine_outcomes, merge_attempts

__all__ = ["identity", "kind_of_failure", "settled"]


def settled(runs: Iterable[TestRun]) -> tuple[TestRun, ...]:
    """One run a test: cases that share a name are its attempts."""
    tests: dict[str, TestRun] = {}
    attempts: dict[str, str] = {}
    for run in runs:
        tests[run.test] = merge_attempts(tests[run.test], run) if run.test in tests else run
        attempts[run.test] = attempts.get(run.test, "") + run.outcome
    repeated = {test for test, outcomes in attempts.items() if len(outcomes) > 1}
    return tuple(
        run._replace(outcome=combine_outcomes(attempts[test])) if test in repeated else run
        for test, run in tests.items()
    )


def identity(test: str) -> str:
    """A test's name `class#name` as the reader of reports would write it: printable, and not endless."""
    return test if len(test) <= MAX_NAME and test.isprintable() else make_identity(test)


def kind_of_failure(text: str) -> str:
    """The exception or the first word at the beginning of a message or stack trace."""
    return failure_word(text[:MAX_TEXT])
