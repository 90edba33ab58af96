"""Facts about the rows of a build: made from the past alone, one test a horizon, nothing of an incident."""

from collections.abc import Callable
from zlib import crc32

from fedstep.features.build_features import build_examples, private_build_features
from fedstep.features.test_features import private_test_features
from fedstep.history.records import make_record
from fedstep.history.summary import Summary, apply_record, plan_build, repeats_last
from fedstep.model.labels import is_due
from fedstep.schema.schema import schema
from fedstep.types import (
    Build,
    BuildContext,
    BuildOutcome,
    Change,
    CiRun,
    Duration,
    Outcome,
    Reports,
    TestRun,
    Unavailable,
)

STREAM = "unit||mark"


def build(number: int, runs: tuple[TestRun, ...], **known: object) -> Build:
    change = Change(f"c{number}", "", "ann", ())
    situation = BuildContext(CiRun(job="unit", branch="main", event="push"), change, 1_700_000_000.0 + 600 * number)
    outcome = BuildOutcome.FAILED if any(run.outcome in "fc" for run in runs) else BuildOutcome.PASSED
    made = Build(f"{number:032x}", situation, situation.started_at + 60, Duration(60.0, "mark"), outcome, Reports(runs))
    return made._replace(**known)  # type: ignore[arg-type]


def rows(summary: Summary, one: Build, due: Callable[[str, int], bool] = lambda _test, _runs: True):
    return build_examples(summary, one, plan_build(one.situation, STREAM, "a1"), due).rows


def known(*builds: Build) -> Summary:
    summary = Summary()
    for one in builds:
        summary = apply_record(summary, one.name, make_record(one, STREAM, "a1"))
    return summary


def many(letter: str, count: int = 40) -> tuple[TestRun, ...]:
    return tuple(TestRun(f"a.B{n % 4}Test#t{n}", Outcome(letter)) for n in range(count))


class TestTestRows:
    def test_five_thousand_tests_give_about_250_flaky_rows(self) -> None:
        """A build of five thousand tests stores about 250 flaky rows."""
        horizon = schema().tasks["flaky"].horizon
        one = build(1, many("p", 5000))
        made = rows(Summary(), one, lambda test, runs: is_due(crc32(test.encode()), runs, horizon))
        assert 200 <= len(made["flaky"]) <= 300
        assert made["triage"] == ()

    def test_a_row_knows_how_many_runs_came_before_it(self) -> None:
        summary = known(build(1, many("p", 2)), build(2, many("p", 1)))
        made = rows(summary, build(3, many("p", 3)))
        assert [row.run for row in made["flaky"]] == [2, 1, 0]

    def test_each_failure_outside_incidents_gives_a_triage_row(self) -> None:
        """Each failure gives a triage row, and an incident gives none."""
        few = (TestRun("a#x", Outcome.FAILED), TestRun("a#y", Outcome.FLAKED), TestRun("a#z", Outcome.PASSED))
        assert [row.subject for row in rows(Summary(), build(1, few))["triage"]] == ["a#x", "a#y"]
        assert rows(Summary(), build(1, many("f")))["triage"] == ()

    def test_failure_in_an_incident_gives_no_flaky_row(self) -> None:
        """A failure in an incident gives no flaky row, for its run is not counted."""
        runs = (*many("f", 30), TestRun("c#fine", Outcome.PASSED), TestRun("c#skipped", Outcome.SKIPPED))
        one = build(1, runs)
        assert [row.subject for row in rows(Summary(), one)["flaky"]] == ["c#fine"]
        assert list(known(one).tests) == ["c#fine"]


class TestBuildRows:
    def test_build_gives_one_row_a_task_where_outcome_is_known(self) -> None:
        """The build gives one failure row and one duration row where both are known."""
        summary = known(build(1, ()), build(2, ()))
        made = rows(summary, build(3, (TestRun("a#x", Outcome.FAILED),)))
        assert [row.target for row in made["build-failure"]] == [1.0]
        assert [round(row.target, 6) for row in made["build-duration"]] == [0.0]
        assert made["build-failure"][0].subject == f"{3:032x}"
        assert rows(Summary(), build(3, ()))["build-duration"] == ()
        assert rows(summary, build(3, (), duration=Unavailable("unknown")))["build-duration"] == ()

    def test_rows_depend_on_the_past_alone(self) -> None:
        past = [build(n, (TestRun("a#x", Outcome("pfk"[n % 3]), 0.1 * n),)) for n in range(9)]
        now = build(20, (TestRun("a#x", Outcome.FAILED, 3.0), TestRun("a#y", Outcome.PASSED, 1.0)))
        summary = known(*past)
        before = repr(rows(summary, now))
        known(*past, now, build(30, many("f")))
        assert repr(rows(summary, now)) == before

    def test_the_order_of_tests_in_the_report_changes_no_row(self) -> None:
        summary = known(*(build(n, many("pfk"[n % 3], 9)) for n in range(6)))
        runs = (*many("f", 9), TestRun("new#t", Outcome.PASSED))
        straight, reverse = (rows(summary, build(9, order)) for order in (runs, runs[::-1]))
        for task in ("flaky", "triage"):
            assert sorted(map(repr, straight[task])) == sorted(map(repr, reverse[task]))

    def test_private_features_are_named_and_never_coordinates(self) -> None:
        assert private_test_features("a.B#x") == ("test=a.B#x", "class=a.B")
        planned = plan_build(build(1, ()).situation, STREAM, "a1")
        assert private_build_features(planned) == ("branch=main", f"job={STREAM}", "author=a1")
        assert private_build_features(planned._replace(branch="", author="")) == (f"job={STREAM}",)

    def test_same_code_is_one_commit_in_the_same_stream(self) -> None:
        """A build repeats the newest one of its stream if it has its commit and its change."""
        builds = known(build(1, ()), build(2, ())).builds
        again = plan_build(build(2, ()).situation, STREAM, "")
        assert repeats_last(builds, again)
        assert repeats_last(builds, again._replace(branch="other"))
        assert not repeats_last(builds, again._replace(branch="other", files=7.0))
        assert not repeats_last(builds, again._replace(stream="other"))
        assert not repeats_last(builds, again._replace(commit="c1"))
        assert not repeats_last((), again)

    def test_one_commit_with_two_changes_is_not_the_same_code(self) -> None:
        """A patch that is built on a commit states that commit; other events measure a change otherwise."""
        builds = known(build(1, ()), build(2, ())).builds
        patched = plan_build(build(2, ()).situation, STREAM, "")._replace(files=7.0)
        assert not repeats_last(builds, patched)
        assert repeats_last(builds, patched._replace(event="schedule"))
        assert repeats_last(builds, patched._replace(files=None, lines=None)), "a change that is not known says nothing"


private_test_features.__test__ = False  # type: ignore[attr-defined]  # pytest: the function under test, not a test
