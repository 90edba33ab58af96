"""Facts about flips: what one test's outcomes reveal, build by build."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.history.flakiness import group_by_cause, is_incident
from fedstep.history.records import BuildRecord
from fedstep.history.summary import Summary, apply_record
from fedstep.history.test_table import (
    RECENT,
    TestStats,
    TestTable,
    decayed_rate,
    name_words,
    read_coordinates,
    with_tests,
)
from fedstep.schema.schema import schema
from fedstep.types import BuildOutcome, FileChange, Outcome, TestRun

TEST = "org.acme.CartTest#sums"


@dataclass(frozen=True)
class Step:
    """One build that ran the test: its outcome, commit, changed file and stream."""

    outcome: str
    commit: str = ""
    file: str = "docs/index.md"
    stream: str = "unit||mark"
    others: tuple[TestRun, ...] = ()


def entry(number: int, step: Step) -> BuildRecord:
    at = 1_700_000_000.0 + 600 * number
    runs = (TestRun(TEST, Outcome(step.outcome), 0.1),) if step.outcome else ()
    return BuildRecord(
        name=f"{number:032x}",
        started_at=at,
        finished_at=at + 60,
        seconds=60.0,
        stream=step.stream,
        outcome=BuildOutcome.PASSED,
        commit=step.commit or f"{number:040x}",
        change_known=True,
        files=(FileChange(step.file, 1, 0),),
        tests=(*runs, *step.others),
    )


def after(*steps: Step | str) -> TestTable:
    summary = Summary()
    for number, step in enumerate(steps):
        summary = apply_record(summary, str(number), entry(number, Step(step) if isinstance(step, str) else step))
    return summary.tests


def revealed(*steps: Step | str) -> str:
    return after(*steps)[TEST].revealed


ELSEWHERE = tuple(TestRun(f"org.other{n}.A{n}Test#works", Outcome.PASSED) for n in range(12))


class TestStreams:
    def test_a_test_that_passed_in_a_rerun_is_a_gold_flake(self) -> None:
        assert revealed("p", "k", "p") == "-g-"

    def test_pass_and_failure_of_one_commit_in_a_stream_are_gold(self) -> None:
        """A failure and a pass of one commit in two builds of one stream are gold."""
        assert revealed("p", Step("f", "same"), Step("p", "same")) == "-g-"
        assert revealed("p", Step("p", "same"), Step("f", "same")) == "--g"

    def test_the_same_outcomes_in_two_streams_are_no_flake(self) -> None:
        one, other = "linux||mark", "windows||mark"
        assert revealed(Step("p", "a", stream=one), Step("f", "a", stream=other)) == "--"
        assert "g" not in revealed(
            Step("f", "a", stream=other),
            Step("p", "a", stream=one),
            Step("f", "a", stream=other),
            Step("p", "b", stream=one),
        )

    def test_a_test_that_is_broken_on_one_system_alone_never_flips(self) -> None:
        matrix = [
            Step(outcome, f"{n}", stream=name) for n in range(8) for outcome, name in (("p", "linux"), ("f", "win"))
        ]
        assert set(revealed(*matrix)) == {"-"}

    def test_flip_is_seen_through_builds_of_another_stream(self) -> None:
        """A flip in one stream is seen through the builds of another."""
        one, other = "linux", "windows"
        steps = [Step("p", stream=one), Step("p", stream=other), Step("f", stream=one), Step("p", stream=other)]
        assert revealed(*steps, Step("p", stream=one)) == "--s--"


class TestRelatedChanges:
    def test_lone_failure_without_a_related_change_is_silver(self) -> None:
        """Passed, failed once and passed with nothing related changed is silver."""
        assert revealed("p", "f", "p") == "-s-"

    @pytest.mark.parametrize(
        "file", ["src/main/java/org/acme/Cart.java", "src/test/java/org/acme/Other.java", "pom.xml"]
    )
    @pytest.mark.parametrize("at", [1, 2])
    def test_related_change_explains_a_failure_or_a_pass(self, file: str, at: int) -> None:
        """A related change at the failure or at the pass explains it."""
        steps = [Step(outcome, others=ELSEWHERE) for outcome in "pfp"]
        steps[at] = replace(steps[at], file=file)
        assert revealed(*steps) == "---"

    def test_class_named_by_every_change_explains_nothing(self) -> None:
        """A change that names a class explains nothing where every change does."""
        assert revealed("p", Step("f", file="src/main/java/org/acme/Cart.java"), "p") == "-s-"

    def test_frequent_flipper_flips_again_whatever_changed(self) -> None:
        """A test that has flipped often flips again, whatever changed."""
        named = Step("f", file="src/main/java/org/acme/Cart.java", others=ELSEWHERE)
        assert (
            revealed(*(Step(outcome, others=ELSEWHERE) for outcome in "ppfppfppp"), named, Step("p")) == "--s--s---s-"
        )

    def test_continued_failures_are_flips_of_flaky_tests_only(self) -> None:
        """Failures that go on are no flips unless the test fails often."""
        seldom, often = "p" * 12 + "ffffp", "pfpfpfpfpfpfp" + "ffp"
        assert "s" not in revealed(*seldom)
        assert revealed(*often)[-3:] == "ss-"

    def test_a_dismissed_spell_is_judged_again_at_the_next(self) -> None:
        """Two failures in a row and a pass look like a regression, until the test fails again."""
        assert revealed(*"ppppffpp") == "--------"
        assert revealed(*"ppppffppf") == "-----s---"

    def test_a_spell_from_the_first_run_on_is_judged_again(self) -> None:
        """Nothing says that the test ever passed before it: only its next failure does."""
        assert revealed(*"fpp") == "---"
        assert revealed(*"fppf") == "s---"

    def test_a_failure_that_looks_real_judges_no_spell_again(self) -> None:
        """The change names the class of the test, and two others of its package begin to fail."""

        def others(outcome: Outcome) -> tuple[TestRun, ...]:
            return (*ELSEWHERE, *(TestRun(f"org.acme.Cart{n}Test#adds", outcome) for n in "AB"))

        before = [Step(outcome, others=others(Outcome.PASSED)) for outcome in "ppppffpp"]
        real = Step("f", file="src/main/java/org/acme/Cart.java", others=others(Outcome.FAILED))
        assert revealed(*before, real) == "---------"
        assert revealed(*before, replace(real, others=others(Outcome.PASSED))) == "-----s---"

    @pytest.mark.parametrize("letters", ["pcpppf", "pfpppc"])
    def test_spells_that_reruns_confirmed_are_not_judged_again(self, letters: str) -> None:
        """Neither one that failed in every rerun, nor an earlier one by a failure that did."""
        assert revealed(*letters)[:2] == revealed(*letters[:4])[:2]

    def test_a_flaking_run_judges_the_spell_before_it_again(self) -> None:
        """It proves that the test is flaky; each failure has its own mark."""
        assert revealed(*"pppffppk") == "----s--g"
        assert revealed(*"pppffk") == "----sg"

    def test_tests_that_fail_together_twice_are_not_judged_again(self) -> None:
        """Tests of one package that break together, and once more, are one coincidence, not four."""

        def step(outcome: str) -> Step:
            return Step(outcome, others=tuple(TestRun(f"org.acme.U{n}Test#logs", Outcome(outcome)) for n in range(3)))

        assert revealed(*(step(outcome) for outcome in "ppppffppf")) == "-" * 9
        assert revealed(*"ppppffpp", step("f")) == "-" * 9
        assert revealed(*(step(outcome) for outcome in "ppppffpp"), "f") == "-----s---"

    def test_quiet_companions_speak_for_a_regression(self) -> None:
        """Quiet tests of other classes that begin to fail with it speak for a regression."""

        def build(letter: str) -> Step:
            mates = tuple(TestRun(f"org.acme.Other{n}Test#works", Outcome(letter)) for n in range(3))
            return Step(letter, others=(*ELSEWHERE, *mates))

        assert revealed(*map(build, "ppfp")) == "----"
        assert revealed(*(Step(letter, others=ELSEWHERE) for letter in "ppfp")) == "--s-"


class TestFailures:
    def test_two_failures_in_a_row_are_no_flip(self) -> None:
        assert revealed("p", "f", "f", "p") == "----"

    def test_a_failure_in_every_rerun_is_no_flip(self) -> None:
        assert revealed("p", "c", "p") == "---"

    def test_a_test_that_failed_at_first_sight_is_no_flip(self) -> None:
        assert revealed("f", "p") == "--"

    def test_passing_rerun_reveals_the_open_failure_before_it(self) -> None:
        """A rerun that passes reveals the open failure before it, too."""
        assert revealed("p", "f", "k", "p") == "-sg-"
        assert revealed("p", "k", "k", "k") == "-ggg"

    def test_skips_are_left_out(self) -> None:
        stats = after("p", "s", "f", "s", "p")[TEST]
        assert (stats.recent, stats.runs, stats.revealed) == ("pfp", 3, "-s-")


CROWD = tuple(TestRun(f"org.acme.Other{n}Test#works", Outcome.FAILED) for n in range(12))


class TestIncidents:
    def test_failures_in_an_incident_are_no_evidence(self) -> None:
        table = after("p", Step("f", others=CROWD), "p")
        assert list(table) == [TEST]
        assert (table[TEST].recent, table[TEST].failures, table[TEST].flips) == ("pp", 0, 0)

    def test_incident_rerun_makes_no_gold_of_repeated_failures(self) -> None:
        """A rerun of an incident makes no gold of what fails again."""
        assert revealed("p", Step("f", "same", others=CROWD), Step("f", "same")) == "--"

    def test_ten_failures_and_three_in_ten_are_an_incident(self) -> None:
        passes = tuple(TestRun(f"a#{n}", Outcome.PASSED) for n in range(24))
        assert is_incident((*CROWD[:10], *passes[:23]))
        assert not is_incident((*CROWD[:10], *passes[:24]))
        assert not is_incident(CROWD[:9])


class TestColumns:
    def test_folding_never_changes_its_input(self) -> None:
        summary = Summary()
        for number, outcome in enumerate("pfpkc"):
            before, text = summary, repr(summary)
            summary = apply_record(summary, str(number), entry(number, Step(outcome)))
            assert repr(before) == text
            assert before != summary

    def test_blank_rows_leave_the_table_as_it_is(self) -> None:
        table = after("p", "f")
        text = repr(table)
        more = with_tests(table, ("new", TEST, "new"))
        assert {test: stats.runs for test, stats in more.items()} == {TEST: 2, "new": 0}
        assert repr(table) == text

    def test_times_are_a_decayed_mean_of_logs(self) -> None:
        summary = Summary()
        for number in range(60):
            step = entry(number, Step("p"))
            slow = TestRun(TEST, Outcome.PASSED, 0.1 if number < 30 else 10.0)
            summary = apply_record(summary, str(number), step._replace(tests=(slow,)))
        assert 0.5 < 2.718281828 ** summary.tests[TEST].log_seconds < 10.0

    @given(st.lists(st.sampled_from("pfcks"), max_size=40), st.integers(0, 2**40 - 1))
    def test_outcomes_and_flips_stay_paired_and_rates_rates(self, outcomes: Sequence[str], commits: int) -> None:
        table = after(*(Step(outcome, commit=str((commits >> n) & 1)) for n, outcome in enumerate(outcomes)))
        for test, stats in table.items():
            assert stats.test == test
            assert len(stats.recent) == len(stats.revealed) <= RECENT
            assert stats.flips <= stats.runs
            assert 0 <= decayed_rate(stats.failed_5, stats.runs, 1 / 5) <= 1
            marked = zip(stats.recent, stats.revealed, strict=True)
            assert all(letter == "-" or outcome in "fck" for outcome, letter in marked)

    @pytest.mark.parametrize(
        ("test", "words"),
        [
            ("org.acme.timeout.CacheTest#waits", {"cache", "test", "waits"}),
            ("tests/cache/test_timeout.py#test_wait", {"timeout", "test", "wait"}),
            ("tests.test_cache#test_wait", {"cache", "test", "wait"}),
            ("CacheTest", {"cache", "test"}),
        ],
    )
    def test_words_of_a_name_leave_the_package_out(self, test: str, words: set[str]) -> None:
        """The words of a name are those of its class or file, without the package."""
        listed = schema().words("name")
        numbers = read_coordinates(name_words(test))
        assert {word for word, number in listed.index.items() if number in numbers} == words & set(listed.index)
        assert words & set(listed.index)


def failing_together(count: int, message: str, letters: str, class_of: str = "org.shop{n}.S{n}Test") -> TestTable:
    """Return the table after builds in which these tests have these outcomes, beside others that pass."""
    summary = Summary()
    for number, letter in enumerate(letters):
        outcome = Outcome(letter)
        signature = message if letter != "p" else ""
        down = tuple(TestRun(f"{class_of.format(n=n)}#t{n}", outcome, 0.1, signature=signature) for n in range(count))
        summary = apply_record(summary, str(number), entry(number, Step("p", others=(*down, *ELSEWHERE))))
    return summary.tests


class TestTogether:
    def test_a_server_down_for_one_build_is_one_coincidence(self) -> None:
        """Tests of many packages that fail once, with one message, and pass again have not flipped."""
        assert not any(stats.flips for stats in failing_together(8, "refused", "pppfpp").values())
        assert any(stats.flips for stats in failing_together(3, "refused", "pppfpp").values())
        assert any(stats.flips for stats in failing_together(8, "", "pppfpp").values())

    def test_what_fails_together_again_has_flipped(self) -> None:
        assert sum(stats.flips > 0 for stats in failing_together(8, "refused", "pppfppppfpp").values()) == 8

    def test_a_class_that_failed_together_is_one_cause(self) -> None:
        tests = failing_together(4, "", "ppkpp", "org.shop.CartTest")
        (group,) = group_by_cause([stats for stats in tests.values() if stats.flips])
        assert [stats.test[-2:] for stats in group] == ["t0", "t1", "t2", "t3"]

    def test_one_message_is_one_cause_in_many_classes(self) -> None:
        flipped = [stats for stats in failing_together(4, "refused", "ppkpp").values() if stats.flips]
        assert (len(group_by_cause(flipped)), len(flipped)) == (1, 4)
        other = [stats for stats in failing_together(4, "", "ppkpp").values() if stats.flips]
        assert len(group_by_cause(other)) == 4

    def test_a_flip_in_another_build_is_another_cause(self) -> None:
        summary = Summary()
        for number in range(9):
            runs = tuple(
                TestRun(f"org.shop.CartTest#t{n}", Outcome.FLAKED if number == 2 + n else Outcome.PASSED, 0.1)
                for n in range(4)
            )
            summary = apply_record(summary, str(number), entry(number, Step("p", others=runs)))
        assert len(group_by_cause([stats for stats in summary.tests.values() if stats.flips])) == 4


class TestDoubt:
    def test_a_failure_that_may_have_been_a_flake_is_kept(self) -> None:
        """Judged no flake, though only just: the change and its end say as much for one as the past against it."""
        moved = Step("p", file="src/main/java/org/acme/Cart.java")
        doubted = after(*(Step("p", others=ELSEWHERE) for _ in range(9)), Step("f", others=ELSEWHERE), moved)[TEST]
        assert (doubted.flips, doubted.doubted_100) == (0, 0.0)  # the end of the spell names the test: it was real
        lone = apply_end_elsewhere()
        assert lone.flips == 0
        assert 0.3 < lone.doubted_100 < 0.5

    def test_evidence_that_balances_is_not_taken_for_none(self) -> None:
        """It is exactly 0 without the past, which once meant that there was no spell to judge again."""
        assert apply_end_elsewhere().dismissed == 0.01


def apply_end_elsewhere() -> TestStats:
    """Return the test after one failure on a branch that a pass on another branch ends."""
    summary = Summary()
    for number, letter in enumerate("p" * 20 + "fp"):
        branch = "feature" if letter == "f" else "main"
        record = entry(number, Step(letter, others=ELSEWHERE))._replace(branch=branch)
        summary = apply_record(summary, str(number), record)
    return summary.tests[TEST]
