"""Facts about the features of failures."""

import pytest

from fedstep.build.record import (
    Absent,
    Build,
    BuildOutcome,
    Change,
    CiRun,
    Duration,
    FileChange,
    Outcome,
    Reports,
    Situation,
    TestRun,
)
from fedstep.features.schema import FAILURE_KINDS, schema
from fedstep.features.triage import failure_kind, triage_values
from fedstep.history.entry import entry_of
from fedstep.history.summary import Summary, fold
from fedstep.history.tests import with_tests

HEAD = schema().heads["triage"]
CHANGE = Change("c2", "", "ann", (FileChange("src/org/foo/Bar.java", 1, 0), FileChange("docs/a.md", 1, 0)))


def build(number: int, runs: tuple[TestRun, ...], change: Change | Absent = CHANGE) -> Build:
    situation = Situation(CiRun(), change, 1_700_000_000.0 + 600 * number)
    duration = Duration(60.0, "mark")
    return Build(f"{number:032x}", situation, situation.started_at + 60, duration, BuildOutcome.FAILED, Reports(runs))


def facts(summary: Summary, one: Build, previous: str = "") -> dict[str, dict[str, object]]:
    table = with_tests(summary.tests, (run.test for run in one.failures()))
    names = [part.name for part in HEAD.parts]
    return {run.test: dict(zip(names, values, strict=True)) for run, values in triage_values(table, one, previous)}


def past(letters: str, test: str = "org.foo.BarTest#works") -> Summary:
    summary = Summary()
    for number, letter in enumerate(letters):
        one = build(number, (TestRun(test, Outcome(letter), 0.5),), Change(f"p{number}", "", "ann", ()))
        summary = fold(summary, str(number), entry_of(one, "||mark", ""))
    return summary


def test_a_failure_is_seen_with_its_circumstances() -> None:
    runs = (
        TestRun("org.foo.BarTest#works", Outcome.FAILED, 5.0, "java.net.ConnectException"),
        TestRun("org.foo.BarTest#other", Outcome.CONFIRMED),
        TestRun("org.foo.BazTest#fine", Outcome.PASSED),
        TestRun("org.foo.QuxTest#fails", Outcome.FLAKED),
    )
    found = facts(past("ppf"), build(9, runs))
    assert set(found) == {runs[0].test, runs[1].test, runs[3].test}
    here = found["org.foo.BarTest#works"]
    assert (here["failures-in-a-row"], here["failures-in-build"], here["classmates-failing"]) == (1, 3, 1)
    assert (here["change"], here["files-changed"], here["failure-kind"]) == ("itself", 2, "connection")
    assert (here["seconds"], here["seconds-ratio"]) == (5.0, pytest.approx(2.3))
    assert here["same-commit"] == "unseen"
    new = found["org.foo.QuxTest#fails"]
    assert (new["runs"], new["change"], new["failure-kind"], new["seconds"]) == (0, "near", None, None)


def test_without_git_the_change_is_absent() -> None:
    found = facts(past("p"), build(9, (TestRun("a#b", Outcome.FAILED),), Absent("no git")))
    assert (found["a#b"]["change"], found["a#b"]["files-changed"]) == (None, None)


@pytest.mark.parametrize(
    ("letters", "expected"), [("p", "passed"), ("k", "passed"), ("pf", "failed"), ("pc", "failed")]
)
def test_a_rerun_of_the_commit_before_is_told_how_it_went(letters: str, expected: str) -> None:
    one = build(9, (TestRun("org.foo.BarTest#works", Outcome.FAILED),))
    assert facts(past(letters), one, previous="c2")["org.foo.BarTest#works"]["same-commit"] == expected
    assert facts(past(letters), one, previous="c1")["org.foo.BarTest#works"]["same-commit"] == "unseen"


def test_a_build_without_failures_has_no_rows() -> None:
    assert facts(past("p"), build(9, (TestRun("org.foo.BarTest#works", Outcome.PASSED),))) == {}


def test_the_build_itself_is_not_among_its_features() -> None:
    summary = past("ppp")
    text = repr(summary)
    facts(summary, build(9, (TestRun("org.foo.BarTest#works", Outcome.FAILED),)))
    assert repr(summary) == text


@pytest.mark.parametrize(
    ("failure_type", "kind"),
    [
        ("", None),
        ("java.util.concurrent.TimeoutException", "timeout"),
        ("requests.exceptions.ConnectionError", "connection"),
        ("AssertionError", "assertion"),
        ("org.junit.ComparisonFailure", "assertion"),
        ("TypeError", "null"),
        ("FileNotFoundError", "io"),
        ("java.lang.OutOfMemoryError", "memory"),
        ("ZeroDivisionError", "other"),
    ],
)
def test_an_exception_type_becomes_one_of_the_public_kinds(failure_type: str, kind: str | None) -> None:
    assert failure_kind(failure_type) == kind
    assert kind is None or kind in FAILURE_KINDS
