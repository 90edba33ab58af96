"""Shards: whatever a machine knows, the shards of one plan hold every test once."""

import zlib
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.errors import UsageError
from fedstep.history.summary import PastBuild
from fedstep.pipeline.shards import (
    MOST_PLACED,
    UNITS,
    check_shard,
    decode_plan,
    fixed_seconds,
    hash_plan,
    plan_shards,
    unit_of,
    with_skipped,
)
from fedstep.types import LeftOut, Unavailable

TOTALS = st.integers(1, 9)
KINDS = st.sampled_from(UNITS)
TIMES = st.floats(0, 1e4) | st.just(Unavailable("no time"))
TESTS = st.lists(st.builds(lambda a, b: f"tests.test_{a}#test_{b}", st.integers(0, 9), st.integers(0, 30)), unique=True)


class TestPartition:
    @given(tests=TESTS, planned=TESTS, times=st.dictionaries(st.sampled_from("ab"), TIMES), total=TOTALS, unit=KINDS)
    def test_every_test_is_in_exactly_one_shard(
        self, tests: list[str], planned: list[str], times: dict[str, float | Unavailable], total: int, unit: str
    ) -> None:
        """Whatever the plan was made from: tests that it does not know are divided too."""
        seconds = {test: times.get(test[-1], 1.0) for test in planned}
        plan, _ = plan_shards(planned, seconds, total, unit)
        shards = [plan.choose(tests, number) for number in range(1, total + 1)]
        assert sorted(test for shard in shards for test in shard) == sorted(tests)

    @given(tests=TESTS, total=TOTALS, unit=KINDS)
    def test_a_unit_is_never_divided(self, tests: list[str], total: int, unit: str) -> None:
        """The tests of one file, class or test run on one machine."""
        plan, _ = plan_shards(tests[::2], {}, total, unit)
        places: dict[str, set[int]] = {}
        for test in tests:
            places.setdefault(unit_of(test, unit), set()).add(plan.shard_of(test))
        assert all(len(place) == 1 for place in places.values())

    @given(tests=TESTS, total=TOTALS, unit=KINDS)
    def test_a_plan_survives_the_way_to_other_machines(self, tests: list[str], total: int, unit: str) -> None:
        """The text of a plan gives the same plan, and is one word."""
        plan, _ = plan_shards(tests, {}, total, unit)
        assert decode_plan(plan.encode()) == plan
        assert len(plan.encode().split()) == 1

    @given(tests=TESTS, total=TOTALS, unit=KINDS)
    def test_a_plan_does_not_depend_on_the_order(self, tests: list[str], total: int, unit: str) -> None:
        """Two machines that list the same tests in another order make the same plan."""
        assert plan_shards(tests, {}, total, unit)[0] == plan_shards(tests[::-1], {}, total, unit)[0]

    def test_without_times_names_decide_everywhere_alike(self) -> None:
        """The plan that a machine without a history uses is the same in every process."""
        assert [hash_plan(4, "test").shard_of(f"t#{n}") for n in range(8)] == [2, 4, 1, 2, 1, 1, 4, 4]


class TestBalance:
    def test_the_longest_goes_to_the_machine_with_least(self) -> None:
        """Six tests of 5, 4, 3, 3, 2 and 1 seconds on two machines: 9 seconds each."""
        seconds = {f"a{n}#t": float(time) for n, time in enumerate((5, 4, 3, 3, 2, 1))}
        _, shards = plan_shards(seconds, seconds, 2, "test")
        assert [shard.seconds for shard in shards] == [9.0, 9.0]
        assert [shard.tests for shard in shards] == [3, 3]

    @given(times=st.lists(st.floats(0.001, 100), min_size=1, max_size=60), total=TOTALS)
    def test_no_plan_is_worse_than_the_known_bound(self, times: list[float], total: int) -> None:
        """Graham 1969: the longest machine takes at most the mean and one longest test more."""
        seconds = {f"a{n}#t": time for n, time in enumerate(times)}
        _, shards = plan_shards(seconds, seconds, total, "test")
        assert max(shard.seconds for shard in shards) <= sum(times) / total + max(times) + 1e-6

    def test_a_test_without_time_counts_as_the_median(self) -> None:
        """New tests are spread, they do not all go to one machine."""
        seconds: dict[str, float | Unavailable] = {"a#t": 2.0, "b#t": 2.0, "c#t": Unavailable("new")}
        _, shards = plan_shards([*seconds, "d#t"], seconds, 2, "test")
        assert [shard.seconds for shard in shards] == [4.0, 4.0]

    @pytest.mark.slow
    def test_a_large_plan_stays_short(self) -> None:
        """Of 50,000 tests only the longest have a place of their own; the plan still fits a CI variable."""
        seconds = {f"tests.test_a{n % 900}#test_{n}": 0.001 * (n % 500) for n in range(50_000)}
        plan, shards = plan_shards(seconds, seconds, 8, "test")
        assert len(plan.places) == MOST_PLACED
        assert len(plan.encode()) < 24_000
        assert max(shard.seconds for shard in shards) <= 1.01 * sum(seconds.values()) / 8
        assert all(shard.tests == len(plan.choose(seconds, shard.number)) for shard in shards)


class TestSkipped:
    def test_what_a_selection_leaves_out_runs_nowhere(self) -> None:
        """Tests that the plan does not know run; on one machine or on all it tells which known ones do not."""
        tests = [f"tests.test_a{n % 5}#test_{n}" for n in range(50)]
        made = with_skipped(plan_shards(tests, {}, 3, "file")[0], tests[:20], shadow=False)
        plan = decode_plan(made.encode())
        assert plan == made
        ran = [test for number in (1, 2, 3) for test in plan.choose([*tests, "tests.test_new#test_new"], number)]
        assert sorted(ran) == sorted([*tests[20:], "tests.test_new#test_new"])
        left_out = plan.find_left_out(tests, None)
        assert left_out == LeftOut(tuple(tests[:20]))
        parts = [plan.find_left_out(tests, number) for number in (1, 2, 3)]
        assert sorted(test for part in parts if part for test in part.tests) == sorted(tests[:20])

    def test_in_shadow_mode_all_tests_run(self) -> None:
        tests = [f"tests.test_a{n % 5}#test_{n}" for n in range(50)]
        plan = decode_plan(with_skipped(plan_shards(tests, {}, 2, "file")[0], tests[:20], shadow=True).encode())
        assert sorted(plan.choose(tests, 1) + plan.choose(tests, 2)) == sorted(tests)
        assert plan.find_left_out(tests, None) == LeftOut(tuple(tests[:20]), shadow=True)

    def test_a_damaged_list_is_refused(self) -> None:
        made = with_skipped(plan_shards(["a#t"], {}, 2, "file")[0], ["a#t"], shadow=False)
        damaged = made._replace(skipped=frozenset({"0123"}))
        with pytest.raises(UsageError, match="no test was chosen"):
            decode_plan(damaged.encode())


class TestRefusal:
    @pytest.mark.parametrize("text", ["", "abc", "!!!", "eNqrVkrLz1eyUgAAC7sC7A==", "é"])
    def test_a_damaged_plan_chooses_no_test(self, text: str) -> None:
        """A machine that cannot read the plan stops: it would leave tests out."""
        with pytest.raises(UsageError, match="no test was chosen"):
            decode_plan(text)

    @pytest.mark.parametrize("fields", ['"total":1e999,"places":{}', '"total":2,"places":{"a":Infinity}'])
    def test_endless_number_is_a_damaged_plan(self, fields: str) -> None:
        """It ended the command with a traceback."""
        text = f'{{"format":1,"unit":"file",{fields}}}'
        with pytest.raises(UsageError, match="no test was chosen"):
            decode_plan(urlsafe_b64encode(zlib.compress(text.encode())).decode())

    def test_a_truncated_plan_is_refused(self) -> None:
        """Half a plan is no plan."""
        text = plan_shards([f"a{n}#t" for n in range(20)], {}, 3, "test")[0].encode()
        with pytest.raises(UsageError):
            decode_plan(text[: len(text) // 2])

    @pytest.mark.parametrize(("index", "total"), [(0, 4), (5, 4), (-1, 4), (1, 0), (1, 1001)])
    def test_an_index_outside_of_the_total_is_refused(self, index: int, total: int) -> None:
        """Counting from 0 would leave out the last shard."""
        with pytest.raises(UsageError):
            check_shard(index, total)


class TestFixedTime:
    def test_it_is_the_median_of_what_jobs_take_beside_their_tests(self) -> None:
        """Of 40, 30 and 500 seconds 40; older ones than the newest twenty, and jobs without a time, do not count."""
        old = [job(100.0, 99.0)] * 30
        new = [job(100.0, 60.0), job(50.0, 20.0), job(700.0, 200.0), job(float("nan"), 3.0)] * 7
        assert fixed_seconds([*old, *new]) == 40.0

    @pytest.mark.parametrize(
        "builds", [[], [(80.0, 80.0, "tests")], [(40.0, 90.0, "mark")], [(40.0, float("nan"), "mark")]]
    )
    def test_without_a_time_of_the_job_it_is_not_known(self, builds: list[tuple[float, float, str]]) -> None:
        """No build, a time that is the sum of the tests, tests that ran beside each other, no times of tests."""
        assert isinstance(fixed_seconds([job(*one) for one in builds]), Unavailable)


def job(seconds: float, tests: float, source: str = "mark") -> PastBuild:
    return PastBuild(f"unit||{source}", 0.0, 1.0, "passed", seconds, test_seconds=tests)
