"""Facts about the timeline: builds beside their predictions, and changes of time with the commits around them."""

import math
import random
from collections.abc import Mapping
from itertools import pairwise

import pytest

from fedstep.errors import HistoryError
from fedstep.history.project_store import ProjectStore
from fedstep.history.records import BuildRecord, Forecast
from fedstep.history.test_table import TestTable, new_test
from fedstep.history.timeline import (
    MOST_BUILDS,
    Timeline,
    apply_to_timeline,
    catch_up_timeline,
    decode_timeline,
    encode_timeline,
    read_timeline,
    save_timeline,
)
from fedstep.report.wording import name_subject
from fedstep.types import BuildOutcome, Outcome, TestRun

TESTS = tuple(f"shop.CartTest#case{number}" for number in range(20))
SLOW = TESTS[3]
TABLE: TestTable = {test: new_test(test) for test in TESTS}


def build(
    number: int, factors: Mapping[str, float] | None = None, machine: float = 1.0, **fields: object
) -> BuildRecord:
    """A build of 20 tests that take about a second each, times their factor."""
    draw = random.Random(number)
    runs = tuple(
        TestRun(test, Outcome.PASSED, machine * draw.lognormvariate(0, 0.05) * (factors or {}).get(test, 1.0))
        for test in TESTS
    )
    at = 1_760_000_000.0 + 3600 * number
    record = BuildRecord(
        name=f"{number:032x}",
        started_at=at,
        finished_at=at + 60,
        seconds=60.0 * machine,
        stream="unit||mark",
        outcome=BuildOutcome.PASSED,
        commit=f"{number:040x}",
        tests=runs,
    )
    return record._replace(**fields)  # type: ignore[arg-type]


def live(*records: BuildRecord, table: TestTable = TABLE, start: Timeline | None = None) -> Timeline:
    timeline = start or Timeline()
    for record in records:
        timeline = apply_to_timeline(timeline, record, table, {})
    return timeline


class TestChanges:
    def test_one_slower_test_is_named_with_its_commits(self) -> None:
        timeline = live(*(build(number, {SLOW: 3.0} if number >= 40 else {}) for number in range(46)))
        [change] = timeline.changes
        assert (change.kind, change.subject) == ("test", SLOW)
        assert (int(change.commit_before, 16), int(change.commit_after, 16)) == (39, 40)
        assert change.before == pytest.approx(1.0, rel=0.1)
        assert change.after == pytest.approx(3.0, rel=0.1)
        assert timeline.open_changes() == (change,)

    def test_a_slow_machine_alarms_nobody(self) -> None:
        """All tests of a build are divided by what the build's tests have in common."""
        records = [build(number, machine=3.0 if number >= 40 else 1.0, seconds=math.nan) for number in range(60)]
        assert live(*records).changes == ()

    def test_a_slower_job_is_a_change_of_its_own(self) -> None:
        timeline = live(*(build(number, machine=2.0 if number >= 40 else 1.0) for number in range(60)))
        assert [(change.kind, change.subject) for change in timeline.changes] == [("job", "unit||mark")]

    def test_a_change_that_goes_back_is_resolved(self) -> None:
        timeline = live(*(build(number, {SLOW: 3.0} if 40 <= number < 60 else {}) for number in range(70)))
        slower, faster = timeline.changes
        assert slower.resolved_at == faster.found_at > slower.found_at
        assert timeline.open_changes() == ()

    def test_failed_runs_say_nothing_about_times(self) -> None:
        """A failure may take as long as its timeout."""

        def failing(number: int) -> BuildRecord:
            record = build(number)
            runs = (
                run._replace(outcome=Outcome.FAILED, seconds=30.0) if run.test == SLOW else run for run in record.tests
            )
            return record._replace(tests=tuple(runs))

        assert live(*(failing(n) if n >= 40 else build(n) for n in range(60))).changes == ()

    def test_milliseconds_are_no_change(self) -> None:
        """A test that takes 80 ms in place of 40 costs nobody anything."""
        factors = {SLOW: 0.04}
        assert live(*(build(n, {SLOW: 0.08} if n >= 40 else factors) for n in range(60))).changes == ()

    def test_a_renamed_test_keeps_its_usual_time(self) -> None:
        before = live(*(build(number) for number in range(40)))
        renamed = new_test("shop.BasketTest#case3")
        renamed.former = SLOW
        table = {**{test: stats for test, stats in TABLE.items() if test != SLOW}, renamed.test: renamed}

        def moved(number: int) -> BuildRecord:
            record = build(number, {SLOW: 3.0})
            return record._replace(
                tests=tuple(run._replace(test=renamed.test) if run.test == SLOW else run for run in record.tests)
            )

        after = live(*(moved(number) for number in range(40, 46)), table=table, start=before)
        assert [change.subject for change in after.changes] == [renamed.test]


class TestTogether:
    SEVEN = dict.fromkeys(TESTS[:7], 3.0)

    def test_many_tests_of_one_build_are_one_finding(self) -> None:
        """They have one cause: a library, a fixture, another order of the tests."""
        records = [build(number, self.SEVEN if number >= 40 else {}) for number in range(50)]
        [change] = live(*records).changes
        assert {one.test for one in change.members} == set(self.SEVEN)
        assert (change.together, int(change.commit_after, 16)) == (7, 40)
        assert change.before == pytest.approx(7.0, rel=0.2)
        assert change.after == pytest.approx(21.0, rel=0.2)
        assert name_subject(change) == f"{change.subject} and 6 other tests"

    def test_it_is_named_once_though_some_are_found_later(self) -> None:
        """A test that did not run in one of the builds joins the others."""

        def missing(number: int) -> BuildRecord:
            record = build(number, self.SEVEN if number >= 40 else {})
            return record._replace(tests=record.tests[1:]) if number in (41, 43) else record

        timeline = live(*map(missing, range(50)))
        [change] = timeline.changes
        assert change.together == 7
        assert [one for n in range(50) for one in timeline.list_changes_of(build(n).name)] == [change]

    def test_it_is_resolved_when_the_last_goes_back(self) -> None:
        """Until then those that are still slow are named."""
        slow = dict.fromkeys(TESTS[:2], 3.0)
        part = live(*(build(n, self.SEVEN if 40 <= n < 60 else slow if n >= 60 else {}) for n in range(75)))
        [change] = part.open_changes()
        assert ({one.test for one in change.members}, change.together) == (set(slow), 7)
        whole = live(*(build(number) for number in range(75, 90)), start=part)
        assert whole.open_changes() == ()

    def test_few_tests_of_one_build_are_findings_of_their_own(self) -> None:
        timeline = live(*(build(n, dict.fromkeys(TESTS[:3], 3.0) if n >= 40 else {}) for n in range(50)))
        assert [change.together for change in timeline.changes] == [0, 0, 0]

    def test_it_comes_back_from_the_cache(self) -> None:
        timeline = live(*(build(number, self.SEVEN if number >= 40 else {}) for number in range(50)))
        assert decode_timeline(encode_timeline(timeline)).changes[0].members == tuple(
            one._replace(before=round(one.before, 4), after=round(one.after, 4)) for one in timeline.changes[0].members
        )

    def test_faster_for_a_few_builds_is_resolved_and_no_alarm(self) -> None:
        records = [build(n, {SLOW: 1.0 if 40 <= n < 48 else 3.0}) for n in range(60)]
        [change] = live(*records).changes
        assert not change.is_slower
        assert change.resolved_at > change.found_at


class TestBuilds:
    def test_a_build_stands_beside_its_forecast(self) -> None:
        forecast = Forecast(50.0, 40.0, 70.0, 55.0, 0.1, {}, 7)
        [built] = live(build(1, forecast=forecast)).builds
        assert (built.seconds, built.expected, built.low, built.high, built.jenkins) == (60.0, 50.0, 40.0, 70.0, 55.0)
        assert (built.risk, built.version, built.tests) == (0.1, 7, 20)

    def test_a_build_of_before_has_no_forecast(self) -> None:
        [built] = live(build(1)).builds
        assert not built.is_predicted

    def test_failures_learn_what_they_were(self) -> None:
        record = build(1, forecast=Forecast(flaky={SLOW: 0.8}))
        runs = (run._replace(outcome=Outcome.FAILED) if run.test == SLOW else run for run in record.tests)
        timeline = live(record._replace(tests=tuple(runs)))
        [failure] = timeline.builds[0].failures
        assert (failure.test, failure.outcome, failure.flaky, failure.was_flake) == (SLOW, "f", 0.8, None)
        judged = apply_to_timeline(timeline, build(2), TABLE, {SLOW: True})
        assert judged.builds[0].failures[0].was_flake is True

    def test_the_same_build_counts_once(self) -> None:
        once = live(build(1))
        assert apply_to_timeline(once, build(1), TABLE, {}) is once

    def test_old_builds_are_left_out(self) -> None:
        timeline = live(*(build(number, tests=()) for number in range(MOST_BUILDS + 5)))
        assert len(timeline.builds) == MOST_BUILDS
        assert all(later.number == earlier.number + 1 for earlier, later in pairwise(timeline.builds))


class TestStored:
    def test_a_timeline_comes_back(self) -> None:
        forecast = Forecast(50.0, 40.0, 70.0, 55.0, 0.1, {}, 7)
        timeline = live(*(build(n, {SLOW: 3.0} if n >= 40 else {}, forecast=forecast) for n in range(50)))
        back = decode_timeline(encode_timeline(timeline))
        assert back.builds == timeline.builds
        assert encode_timeline(back) == encode_timeline(timeline)

    def test_a_later_column_is_left_out(self) -> None:
        """A newer fedstep may have written more than this one knows."""
        import json
        import zlib

        fields = json.loads(zlib.decompress(encode_timeline(live(build(1)))))
        fields["builds"]["later"] = [1]
        del fields["builds"]["incident"]
        back = decode_timeline(zlib.compress(json.dumps(fields).encode()))
        assert len(back.builds) == 1

    def test_endless_number_is_damage(self) -> None:
        import json
        import zlib

        fields = json.loads(zlib.decompress(encode_timeline(live(build(1)))))
        fields["count"] = float("inf")
        with pytest.raises(HistoryError):
            decode_timeline(zlib.compress(json.dumps(fields).encode()))

    @pytest.mark.parametrize("content", [b"x", b"", b"\x78\x9c\x03\x00\x00\x00\x00\x01"])
    def test_damage_is_an_error_and_not_a_crash(self, home: ProjectStore, content: bytes) -> None:
        with pytest.raises(HistoryError):
            decode_timeline(content)
        home.write("timeline.z", content)
        assert read_timeline(home) == Timeline()

    def test_records_without_a_timeline_are_caught_up(self, home: ProjectStore) -> None:
        """A history that was made before there was a timeline."""
        for number in range(5):
            home.log.append(build(number))
        timeline = catch_up_timeline(home, Timeline(), home.log.files(), TABLE)
        assert [one.name for one in timeline.builds] == [build(number).name for number in range(5)]
        save_timeline(home, timeline)
        assert catch_up_timeline(home, read_timeline(home), home.log.files(), TABLE).count == 5
