"""Facts about what the two build tasks know before a build starts."""

import math
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.features.build_features import (
    DURATION_VIEWS,
    FAILURE_VIEWS,
    Estimate,
    compress,
    duration_example,
    duration_features,
    expand,
    failure_features,
    find_change,
    finished_builds,
    followed_change,
    jenkins_estimate,
    missed_by,
    quantile,
    running_builds,
    weigh_by_similarity,
)
from fedstep.history.summary import PastBuild, PlannedBuild
from fedstep.schema.schema import Raw, schema
from fedstep.types import Unavailable

NOON = 1_700_000_000.0


def past_build(hours: int, seconds: float = 100.0, outcome: str = "passed", **known: object) -> PastBuild:
    """The build that started so many hours before noon."""
    started_at = NOON - 3600 * hours
    build = PastBuild(
        stream="tests", started_at=started_at, finished_at=started_at + seconds, seconds=seconds, outcome=outcome
    )
    return build._replace(**known)  # type: ignore[arg-type]


def planned(**known: object) -> PlannedBuild:
    return PlannedBuild(stream="tests", started_at=NOON)._replace(**known)  # type: ignore[arg-type]


names = st.sampled_from(["", "main", "topic"])
counts = st.none() | st.floats(0, 1e6)
hours = st.none() | st.floats(0, 24, exclude_max=True)
weekdays = st.none() | st.integers(0, 6)
situations = {
    "stream": st.sampled_from(["tests", "lint"]),
    "started_at": st.floats(NOON - 1e6, NOON + 1e6),
    "branch": names,
    "base_branch": names,
    "event": names,
    "author": names,
    "commit": names,
    "is_pr": st.none() | st.booleans(),
    "hour": hours,
    "weekday": weekdays,
    "files": counts,
    "lines": counts,
    "build_file_touched": st.none() | st.booleans(),
    "kinds": st.sampled_from(["", "docs", "docs source-python"]),
    "number": st.none() | st.integers(0, 60),
}
past_builds = st.lists(
    st.builds(
        PastBuild,
        **situations,
        finished_at=st.floats(NOON - 1e6, NOON + 1e6),
        outcome=st.sampled_from(["passed", "unstable", "failed", "not_built"]),
        seconds=st.floats(0, 1e9) | st.just(math.nan),
    ),
    max_size=40,
)
plans = st.builds(PlannedBuild, **situations)


class TestPastBuilds:
    @given(past_builds, plans)
    def test_features_depend_only_on_builds_finished_before(self, past: list[PastBuild], now: PlannedBuild) -> None:
        """Features depend only on builds that finished before the start."""
        known = [build for build in past if build.finished_at <= now.started_at]
        assert duration_features(past, now) == duration_features(known, now)
        assert failure_features(past, now) == failure_features(known, now)
        assert jenkins_estimate(past, now) == jenkins_estimate(known, now)

    @given(past_builds, plans, st.randoms())
    def test_builds_that_finish_later_may_stand_in_any_order(
        self, past: list[PastBuild], now: PlannedBuild, random: Random
    ) -> None:
        later = [build._replace(finished_at=now.started_at + 1) for build in past]
        shuffled = sorted(later, key=lambda _: random.random())
        assert duration_features([*past, *later], now) == duration_features([*shuffled, *past], now)
        assert failure_features([*past, *later], now) == failure_features([*shuffled, *past], now)

    @given(past_builds, plans)
    def test_any_past_gives_finite_features_of_the_schema(self, past: list[PastBuild], now: PlannedBuild) -> None:
        duration, failure = duration_features(past, now), failure_features(past, now)
        rows = [schema().tasks["build-failure"].encode(failure)]
        if not isinstance(duration, Unavailable):
            assert 0 < duration[0].seconds < math.inf
            assert 0.02 <= duration[0].spread <= 1.0
            rows.append(schema().tasks["build-duration"].encode(duration[1]))
        assert all(math.isfinite(value) for row in rows for value in row.values)


class TestSchema:
    @given(past_builds, plans)
    def test_every_raw_value_has_a_part_in_the_schema(self, past: list[PastBuild], now: PlannedBuild) -> None:
        assert set(failure_features(past, now)) == {part.name for part in schema().tasks["build-failure"].parts}
        duration = duration_features(past, now)
        if not isinstance(duration, Unavailable):
            assert set(duration[1]) == {part.name for part in schema().tasks["build-duration"].parts}

    def test_views_name_distances_that_exist(self) -> None:
        distances = weigh_by_similarity([past_build(1)], planned(), {"age": 1.0}).distances
        named = {name for view in (*DURATION_VIEWS.values(), *FAILURE_VIEWS.values()) for name in view}
        assert named <= set(distances)


USUAL = [0.05, -0.05] * 20  # what builds of a steady job are missed by


def missed(residuals: Sequence[float]) -> list[PastBuild]:
    """Builds that the slow estimates missed by these residuals, oldest first."""
    return [past_build(len(residuals) - number, missed=one) for number, one in enumerate(residuals)]


class TestLevelChange:
    @pytest.mark.parametrize("factor", [0.5, 2.0, 5.0])
    @pytest.mark.parametrize("builds", [3, 6, 12])
    def test_a_changed_level_is_found_from_the_third_build(self, factor: float, builds: int) -> None:
        """Three builds that all miss by about the same are a change; how many builds ago it was is found, too."""
        change = find_change(missed([*USUAL, *([math.log(factor) + 0.02, math.log(factor) - 0.02] * 6)[:builds]]))
        assert change is not None
        assert change.builds == builds
        assert change.log_factor == pytest.approx(math.log(factor), abs=0.03)

    @pytest.mark.parametrize("other", [-3.0, 0.0, 3.0])
    def test_a_build_that_does_not_fit_hides_no_change(self, other: float) -> None:
        """One of the builds since failed early, hung, or ran on an old machine."""
        change = find_change(missed([*USUAL, 0.7, 0.7, other, 0.7, 0.7]))
        assert change is not None
        assert change.builds == 5
        assert change.log_factor == pytest.approx(0.7)

    @given(st.lists(st.floats(-5.0, 5.0), max_size=2), st.integers(0, 5))
    def test_one_or_two_outliers_are_no_change(self, outliers: list[float], since: int) -> None:
        """However far they are out, and whether or not usual builds followed."""
        assert find_change(missed([*USUAL, *outliers, *USUAL[:since]])) is None

    def test_a_change_that_is_over_is_none(self) -> None:
        assert find_change(missed([*USUAL, 0.7, 0.7, 0.7, 0.7, 0.05])) is None

    def test_builds_that_miss_by_any_amount_are_no_change(self) -> None:
        """Three long builds are no new level where they have none in common."""
        assert find_change(missed([*USUAL, 3.0, 0.3, 1.0])) is None

    def test_what_is_usual_in_a_varying_job_is_no_change(self) -> None:
        """Where builds are missed by a factor of two now and then, three such builds say little."""
        assert find_change(missed([*[0.7, -0.7] * 20, 0.7, 0.7, 0.7])) is None

    def test_a_young_job_and_earlier_records_have_no_change(self) -> None:
        """Without ten builds to compare with, and in records that do not say what was missed."""
        assert find_change(missed([0.05] * 9 + [0.7] * 12)) is None
        assert find_change([past_build(number) for number in range(60, 0, -1)]) is None
        assert find_change([]) is None

    def test_the_past_moves_to_the_new_level(self) -> None:
        """After a change, builds of each branch are expected as much longer as those since took."""
        past = [
            past_build(
                60 - number,
                seconds=100.0 if number % 2 else 400.0,
                branch=("a", "b")[number % 2],
                missed=USUAL[number % 40],
            )
            for number in range(50)
        ]
        past += [past_build(10 - number, seconds=200.0, branch="b", missed=math.log(2.0)) for number in range(4)]
        estimate, raw = _known(past, planned(branch="a"))
        moved = raw["moved"]
        assert isinstance(moved, float)
        assert estimate.seconds == pytest.approx(400.0, rel=0.01)
        assert estimate.corrected(expand(moved)) == pytest.approx(800.0, rel=0.01)

    @pytest.mark.parametrize("since", [4, 12, 20, 40, 100])
    def test_the_spread_is_never_that_of_two_levels(self, since: int) -> None:
        """A steady job that takes twice as long since some builds has an interval of its new level, not of both."""
        draw = Random(3)
        misses = [*USUAL, *USUAL[:20], *([math.log(2.0)] * since)[:25], *USUAL * 2][: 60 + since]
        levels = [100.0] * 60 + [200.0] * since
        past = [
            past_build(60 + since - number, seconds=level * math.exp(draw.gauss(0.0, 0.03)), missed=missed_log)
            for number, (level, missed_log) in enumerate(zip(levels, misses, strict=True))
        ]
        estimate, _ = _known(past, planned())
        assert estimate.spread < 0.06

    def test_a_level_that_is_over_was_not_followed(self) -> None:
        """Twenty builds at another level, then the old one again: nothing moved for good."""
        residuals = [*USUAL, *[math.log(2.0)] * 20, *USUAL[:20]]
        over, stayed = [0.0] * 40 + [0.7] * 20 + [0.0] * 20, [0.0] * 40 + [0.7] * 40
        assert followed_change(missed(residuals), over) is None
        assert followed_change(missed(USUAL), [0.0] * 40) is None
        followed = followed_change(missed(residuals), stayed)
        assert followed is not None
        assert followed.builds == 40
        assert followed.log_factor == pytest.approx(math.log(2.0))

    def test_a_build_between_the_slow_estimates_missed_none(self) -> None:
        """What a queue or the kinds of changed files explain is no change of level."""
        example = duration_example([past_build(2), past_build(1)], planned(), "now", 200.0)
        assert not isinstance(example, Unavailable)
        estimate, row = example
        assert missed_by(estimate, row) == pytest.approx(math.log(2.0))
        index = schema().tasks["build-duration"].first("same-running")
        explained = row._replace(indices=(index,), values=(compress(row.target + 0.1),))
        assert missed_by(estimate, explained) == 0.0
        nearer = row._replace(indices=(index,), values=(compress(row.target - 0.1),))
        assert missed_by(estimate, nearer) == pytest.approx(0.1 * estimate.spread)


class TestDuration:
    def test_a_steady_project_is_expected_to_stay_as_it_is(self) -> None:
        past = [past_build(number, seconds=120.0) for number in range(20, 0, -1)]
        estimate, raw = _known(past, planned())
        assert estimate.seconds == pytest.approx(120.0)
        assert estimate.spread == pytest.approx(0.5 / 20)
        assert raw["last-branch"] is raw["moved"] is None
        assert [value for value in raw.values() if value is not None] == pytest.approx([0.0] * (len(raw) - 2))

    def test_a_departure_and_its_correction_undo_each_other(self) -> None:
        estimate = Estimate(seconds=200.0, spread=0.1, builds=20)
        assert estimate.corrected(estimate.departure(250.0)) == pytest.approx(250.0)
        assert estimate.corrected(0.0) == 200.0

    def test_the_estimate_follows_builds_of_the_same_kind(self) -> None:
        quick = [past_build(number, seconds=60.0, event="push") for number in range(20, 10, -1)]
        slow = [past_build(number, seconds=600.0, event="schedule") for number in range(10, 0, -1)]
        estimate, _ = _known([*quick, *slow], planned(event="push"))
        assert estimate.seconds < 70.0

    def test_a_job_never_seen_has_no_estimate(self) -> None:
        assert isinstance(duration_features([past_build(1)], planned(stream="lint")), Unavailable)
        assert isinstance(jenkins_estimate([past_build(1)], planned(stream="lint")), Unavailable)

    @pytest.mark.parametrize("factor", [1e-3, 1e3])
    def test_targets_are_bounded_alike_in_both_directions(self, factor: float) -> None:
        """A build a thousand times quicker or slower than usual has a target of fifty spreads."""
        past = [past_build(number, seconds=100.0) for number in range(20, 0, -1)]
        found = duration_example(past, planned(), "", 100.0 * factor)
        assert not isinstance(found, Unavailable)
        assert found[1].target == math.copysign(50.0, factor - 1.0)

    def test_one_build_gives_an_estimate_with_a_wide_spread(self) -> None:
        """After one build the spread is that of a job of which nothing else is known."""
        estimate, _ = _known([past_build(1, seconds=120.0)], planned())
        assert estimate.seconds == pytest.approx(120.0)
        assert estimate.spread == 0.5

    def test_a_rerun_is_compared_with_other_reruns(self) -> None:
        """A rerun of failed jobs takes a third of a first attempt: the attempt is known before it starts."""
        past = [past_build(60 - n, run=f"{n}/1", seconds=600.0) for n in range(40)]
        past += [past_build(20 - n, run=f"{n}/2", seconds=200.0) for n in range(5)]
        first, again = (_known(past, planned(run=f"99/{attempt}"))[0] for attempt in (1, 2))
        assert first.seconds == pytest.approx(600.0, rel=0.05)
        assert again.seconds == pytest.approx(200.0, rel=0.05)

    @given(st.floats(-50, 50), st.floats(-50, 0), st.floats(0, 50), st.integers(0, 200))
    def test_an_interval_holds_what_is_expected(self, margin: float, low: float, high: float, builds: int) -> None:
        estimate = Estimate(600.0, 1.0, builds, 90.0, 700.0)
        below, seconds, above = estimate.interval(margin, (low, high))
        assert below <= seconds <= above

    def test_no_interval_ends_far_beyond_what_was_seen(self) -> None:
        """Half the builds fail after 90 seconds, the others take ten minutes: none will take an hour and a half."""
        estimate = Estimate(570.0, 1.0, 100, 85.0, 640.0)
        below, _, above = estimate.interval(0.0, (-2.9, 2.2))
        assert [below, above] == pytest.approx([68.0, 800.0], rel=0.01)
        assert list(estimate.interval(0.0, (-0.1, 0.05))) == pytest.approx([515.8, 570.0, 599.2], abs=0.1)

    def test_a_weekly_build_is_compared_with_weekly_builds(self) -> None:
        """A hundred pushes between two builds that take six times as long: it was said to take as long as a push."""
        past = [
            past_build(400 - n, event="push", seconds=600.0)
            if n % 100
            else past_build(400 - n, event="schedule", seconds=3600.0)
            for n in range(400)
        ]
        pushed, scheduled = (_known(past, planned(event=event))[0] for event in ("push", "schedule"))
        assert scheduled.seconds == pytest.approx(3600.0, rel=0.05)
        assert pushed.seconds == pytest.approx(600.0, rel=0.05)

    def test_a_new_matrix_cell_is_estimated_by_the_others(self) -> None:
        """Of forty cells one is added: as wide an interval as after one build, not nothing."""
        cells = [past_build(1 + n, stream=f"CI/test|py3.{n}|mark", seconds=600.0 + n) for n in range(5, 13)]
        others = [past_build(1, stream="CI/lint||mark", seconds=9.0), past_build(1, stream="CI/test|x|tests")]
        estimate, _ = _known([*cells, *others], planned(stream="CI/test|py3.13|mark"))
        assert estimate.seconds == pytest.approx(608.0, abs=4.0)
        assert (estimate.spread, estimate.builds) == (0.5, 0)
        renamed, _ = _known([*cells, *others], planned(stream="Checks/test||mark"))
        assert (renamed.seconds, renamed.spread) == (estimate.seconds, 0.5)
        own = past_build(1, stream="CI/test|py3.13|mark", seconds=300.0)
        assert _known([*cells, own], planned(stream="CI/test|py3.13|mark"))[0].seconds == pytest.approx(300.0)

    def test_a_build_still_running_is_not_known(self) -> None:
        assert finished_builds([past_build(1, seconds=7200.0)], planned()) == []


class TestRunningBuilds:
    def test_missing_numbers_are_runs_that_have_not_finished(self) -> None:
        """Of five numbered runs, the two that are not known are running."""
        slow = [past_build(6 - number, number=number, seconds=9000.0) for number in (1, 2)]
        known = [*slow, past_build(2, number=4, seconds=600.0)]
        assert running_builds(known, known, planned(number=6)) == 2.0

    def test_a_number_missing_for_long_was_never_recorded(self) -> None:
        """A run that began before one that finished long ago is not waited for."""
        known = [past_build(60 - number, number=number, seconds=60.0) for number in (1, 2, 4, 5)]
        assert running_builds(known, known, planned(number=6)) == 0.0

    def test_a_build_without_a_known_time_is_not_running(self) -> None:
        """A run that ended before its job could be timed has finished, in a stream of its own."""
        timed = [past_build(5 - number, number=number, stream="unit||mark", seconds=9000.0) for number in (1, 2)]
        untimed = past_build(2, number=3, stream="unit||")._replace(seconds=math.nan)
        of_another_job = past_build(2, number=3, stream="lint||mark")
        now = planned(number=4, stream="unit||mark")
        assert running_builds(timed, [*timed, untimed], now) == 0.0
        assert running_builds(timed, [*timed, of_another_job], now) == 1.0

    def test_without_numbers_nothing_is_said(self) -> None:
        """Where the CI numbers no runs, how many are running is unknown."""
        assert running_builds([past_build(1)], [past_build(1)], planned()) is None
        assert running_builds([past_build(1)], [past_build(1)], planned(number=3)) is None

    def test_builds_in_a_queue_are_expected_to_take_longer(self) -> None:
        """A job that takes twice as long beside another is expected to do so again."""
        past = []
        for number in range(0, 40, 2):
            start = NOON - 7200.0 * (40 - number)
            alone = PastBuild("tests", start, start + 600.0, "passed", 600.0, number=number)
            beside = PastBuild("tests", start + 60.0, start + 1260.0, "passed", 1200.0, number=number + 1)
            past += [alone, beside]
        alone_now, beside_now = (_known(past, planned(number=number))[1] for number in (40, 41))
        assert expand(_value(beside_now, "same-running")) > expand(_value(alone_now, "same-running"))


class TestFailureRate:
    def test_a_branch_that_fails_is_expected_to_fail_again(self) -> None:
        bad = [past_build(number, outcome="failed", branch="topic") for number in range(20, 10, -1)]
        good = [past_build(number, branch="main") for number in range(10, 0, -1)]
        on_topic, on_main = (failure_features([*bad, *good], planned(branch=branch)) for branch in ("topic", "main"))
        assert isinstance(on_topic["similar"], float)
        assert isinstance(on_main["similar"], float)
        assert on_main["similar"] < 0 < on_topic["similar"]
        assert (on_topic["branch-failing"], on_topic["failing"], on_topic["passing"]) == (10.0, 0.0, 10.0)

    def test_a_rerun_fails_as_often_as_reruns_do(self) -> None:
        """Three first attempts in four fail, and one rerun in three: the risk of a rerun was that of all builds."""
        firsts = [past_build(60 - n, outcome="failed" if n % 4 else "passed", run=f"{n}/1") for n in range(40)]
        reruns = [past_build(20 - n, outcome="passed" if n % 3 else "failed", run=f"{n}/2") for n in range(15)]
        first, again = (_value(failure_features([*firsts, *reruns], planned(run=f"99/{n}")), "similar") for n in (1, 2))
        assert again < 0 < first

    def test_log_odds_are_bounded_alike_in_both_directions(self) -> None:
        """Many passes give log-odds below -3 nats, as many failures give log-odds above 3."""
        passed, failed = (
            failure_features([past_build(number, outcome=outcome) for number in range(400, 0, -1)], planned())
            for outcome in ("passed", "failed")
        )
        assert _value(passed, "similar") < -3.0 / 2
        assert _value(failed, "similar") > 3.0 / 2

    def test_a_first_build_is_at_the_rate_of_an_average_project(self) -> None:
        assert failure_features([], planned())["similar"] == pytest.approx(math.log(0.3 / 0.7) / 2)


class TestJenkinsEstimate:
    @pytest.mark.parametrize(
        ("builds", "seconds"),
        [
            ([(10, "passed"), (20, "passed"), (30, "unstable"), (40, "passed")], 30.0),
            ([(10, "passed"), (100, "failed"), (20, "passed"), (30, "passed"), (200, "failed")], 20.0),
            ([(100, "failed"), (10, "passed"), (200, "failed"), (20, "unstable")], (10 + 20 + 200) / 3),
            ([(100, "failed"), (200, "failed"), (300, "failed"), (400, "failed")], 300.0),
            ([(10, "passed"), (50, "not_built")], 10.0),
        ],
    )
    def test_jenkins_takes_three_good_builds_and_fills_from_failures(
        self, builds: list[tuple[float, str]], seconds: float
    ) -> None:
        past = [past_build(len(builds) - place, *build) for place, build in enumerate(builds)]
        assert jenkins_estimate(past, planned()) == pytest.approx(seconds)

    def test_a_build_that_was_never_built_gives_jenkins_nothing(self) -> None:
        assert isinstance(jenkins_estimate([past_build(1, outcome="not_built")], planned()), Unavailable)


class TestWeightedMedian:
    def test_a_heavy_value_pulls_the_weighted_median(self) -> None:
        assert quantile([1.0, 2.0, 3.0], [1.0, 1.0, 100.0], 0.5) == pytest.approx(3.0, abs=0.05)


def _known(past: list[PastBuild], now: PlannedBuild) -> tuple[Estimate, Raw]:
    features = duration_features(past, now)
    assert not isinstance(features, Unavailable), features.reason
    return features


def _value(features: Raw, name: str) -> float:
    value = features[name]
    assert isinstance(value, float)
    return value
