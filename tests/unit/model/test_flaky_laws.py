"""Laws of the list of flaky tests, over drawn histories and drawn weights: more evidence never says less."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedstep.history.flakiness import QUIET_RUNS
from fedstep.history.records import BuildRecord
from fedstep.history.summary import Summary, apply_record
from fedstep.model.linear import LocalWeights, PlattScaling
from fedstep.model.predictor import FLAKY_ABOVE, WORTH_NAMING, Predictor
from fedstep.model.state import LocalModel
from fedstep.results import TestRisk
from fedstep.schema.schema import schema
from fedstep.types import (
    Build,
    BuildContext,
    BuildOutcome,
    Change,
    CiRun,
    Duration,
    FileChange,
    Outcome,
    Reports,
    TestRun,
)

TEST = "org.acme.CartTest#sums"
OTHERS = tuple(f"org.acme{n % 3}.Other{n}Test#works" for n in range(20))  # enough for words to be evidence
ELSEWHERE, ITSELF = "docs/index.md", "src/main/java/org/acme/Cart.java"


def entry(number: int, letter: str, commit: str, file: str, draw: Random) -> BuildRecord:
    """A build of the test with this outcome, in which the others pass in changing times."""
    at = 1_700_000_000.0 + 600 * number
    runs = (TestRun(TEST, Outcome(letter), draw.random(), "AssertionError" if letter in "fck" else ""),)
    others = (TestRun(test, Outcome.PASSED, draw.random()) for test in OTHERS)
    return BuildRecord(
        name=f"{number:032x}",
        started_at=at,
        finished_at=at + 60,
        seconds=60.0,
        stream="unit||mark",
        outcome=BuildOutcome.PASSED,
        branch="main",
        commit=commit,
        change_known=True,
        files=(FileChange(file, 1, 0),),
        tests=(*runs, *others),
    )


class History:
    """A history that grows by runs of one test."""

    def __init__(self, letters: str = "", seed: int = 0) -> None:
        self.summary, self.number, self.draw = Summary(), 0, Random(seed)
        self.extend(letters)

    def extend(self, letters: str, commit: str = "", file: str = ELSEWHERE) -> "History":
        for letter in letters:
            record = entry(self.number, letter, commit or f"{self.number:040x}", file, self.draw)
            self.summary = apply_record(self.summary, str(self.number), record)
            self.number += 1
        return self

    def then(self, letters: str, commit: str = "", file: str = ELSEWHERE) -> "History":
        """Return a history with more runs; this one stays as it is."""
        other = History(seed=1)
        other.summary, other.number = self.summary, self.number
        return other.extend(letters, commit, file)


def drawn_predictor(seed: int) -> Predictor:
    """A predictor whose shared and local weights, and calibration, are anything."""
    draw = Random(seed)
    production = {name: [draw.gauss(0, 3) for _ in range(task.size())] for name, task in schema().tasks.items()}
    local = LocalWeights({n: draw.gauss(0, 3) for n in range(20)}, {f"test={TEST}": draw.gauss(0, 3)})
    platt = PlattScaling(draw.uniform(0.1, 3.0), draw.gauss(0, 3))
    correction = LocalModel({"flaky": local, "triage": local}, {"flaky": platt, "triage": platt})
    return Predictor(production, correction, words=production["flaky"])


def chance(history: History, predictor: Predictor) -> float:
    """The probability of the test, 0 where it is neither named nor worth a look."""
    found = (*predictor.flakiest(history.summary, 99, 0.0), *predictor.suspects(history.summary, 99, 0.0))
    return next(risk.probability for risk in found if risk.test == TEST)


def named(history: History, predictor: Predictor) -> TestRisk | None:
    return next((risk for risk in predictor.flakiest(history.summary, 10) if risk.test == TEST), None)


def outcomes(max_size: int) -> st.SearchStrategy[str]:
    """Return drawn outcomes, of which most are passes: of a text's alphabet each letter would count once."""
    return st.lists(st.sampled_from("ppppppfk"), max_size=max_size).map("".join)


LETTERS = outcomes(30)
SEEDS = st.integers(0, 1000)
COMMON = settings(max_examples=min(60, settings().max_examples), deadline=None)


class TestMonotone:
    @pytest.mark.slow
    @COMMON
    @given(LETTERS, SEEDS)
    def test_one_more_gold_flip_never_lowers_it(self, letters: str, seed: int) -> None:
        history, predictor = History(f"p{letters}"), drawn_predictor(seed)
        assert chance(history.then("k"), predictor) >= chance(history, predictor)

    @pytest.mark.slow
    @COMMON
    @given(LETTERS, SEEDS)
    def test_a_failure_that_is_judged_a_flake_never_lowers_it(self, letters: str, seed: int) -> None:
        history, predictor = History(f"p{letters}p"), drawn_predictor(seed)
        after = history.then("fp")
        assume(after.summary.tests[TEST].flips > history.summary.tests[TEST].flips)
        assert chance(after, predictor) >= chance(history.then("pp"), predictor)

    @pytest.mark.slow
    @COMMON
    @given(LETTERS, SEEDS)
    def test_one_more_pass_never_raises_it_once_it_flipped(self, letters: str, seed: int) -> None:
        """Nor does its time, its neighbours, or what was learned: only the evidence counts then."""
        history, predictor = History(f"p{letters}kp"), drawn_predictor(seed)
        chances = [chance(history.then("p" * count), predictor) for count in range(5)]
        assert all(after <= before for before, after in pairwise(chances))

    @pytest.mark.slow
    @COMMON
    @given(st.integers(0, 60), SEEDS)
    def test_a_pass_never_raises_the_start_model_of_a_quiet_test(self, runs: int, seed: int) -> None:
        predictor = Predictor({name: task.start() for name, task in schema().tasks.items()}, LocalModel())
        history = History("p" * (runs + 1), seed)
        assert chance(history.then("p"), predictor) <= chance(history, predictor)

    @pytest.mark.slow
    @COMMON
    @given(LETTERS, SEEDS)
    def test_gold_counts_at_least_as_much_as_silver(self, letters: str, seed: int) -> None:
        history, predictor = History(f"p{letters}p"), drawn_predictor(seed)
        silver = history.then("f").then("p")
        gold = history.then("fp", commit="one")
        assert chance(gold, predictor) >= chance(silver, predictor)

    @pytest.mark.slow
    @COMMON
    @given(LETTERS, SEEDS)
    def test_first_flip_counts_more_than_any_suspicion(self, letters: str, seed: int) -> None:
        history, predictor = History("p" * (len(letters) + 1)), drawn_predictor(seed)
        assert chance(history.then("k"), predictor) > chance(history, predictor)


class TestProof:
    @pytest.mark.slow
    @COMMON
    @given(st.lists(st.integers(0, 19), min_size=3, max_size=3, unique=True), st.integers(0, 300), SEEDS)
    def test_three_gold_flips_in_twenty_runs_are_80_percent(self, at: Sequence[int], before: int, seed: int) -> None:
        """After three gold flips in twenty runs it is above 0.8 until it was quiet for QUIET_RUNS."""
        last = max(at)
        letters = "".join("k" if n in at else "p" for n in range(last + 1))
        history, predictor = History("p" * min(before, 40) + letters), drawn_predictor(seed)
        for quiet in (0, 1, QUIET_RUNS):
            assert chance(history.then("p" * quiet), predictor) > 0.8

    def test_a_mended_test_is_forgiven(self) -> None:
        predictor = Predictor({name: task.start() for name, task in schema().tasks.items()}, LocalModel())
        history = History("pkpkpkp")
        assert named(history, predictor)
        assert named(history.then("p" * 300), predictor) is None


class TestReal:
    @pytest.mark.slow
    @COMMON
    @given(outcomes(8), st.integers(60, 120), st.integers(3, 12), SEEDS)
    def test_failures_judged_real_never_raise_it(self, letters: str, quiet: int, count: int, seed: int) -> None:
        """Of a test that was quiet for long: else its earlier flips make its next failure a flake."""
        history, predictor = History(f"p{letters}" + "p" * quiet), drawn_predictor(seed)
        after = history.then("f" * count, file=ITSELF).then("p", file=ITSELF)
        assume(after.summary.tests[TEST].flips == history.summary.tests[TEST].flips)
        if history.summary.tests[TEST].flips:
            assert chance(after, predictor) <= chance(history, predictor)
        else:
            assert not after.summary.tests[TEST].flaked_100

    @pytest.mark.parametrize("before", ["", "p", "ppppp"])
    @pytest.mark.parametrize("file", [ELSEWHERE, ITSELF])
    def test_an_always_red_test_is_never_named(self, before: str, file: str) -> None:
        history, predictor = History(before), drawn_predictor(1)
        for _ in range(40):
            history.extend("f", file=file)
            assert predictor.flakiest(history.summary, 10, 0.0) == ()

    @COMMON
    @given(st.integers(1, 12), st.integers(1, 15), SEEDS)
    def test_a_broken_test_among_flaky_class_mates_is_not_named(self, passes: int, failures: int, seed: int) -> None:
        """However often its class-mates flip: a failure that follows another one shows nothing of a test that broke."""
        summary = Summary()
        for number, letter in enumerate("p" * passes + "f" * failures):
            record = entry(number, letter, f"{number:040x}", ELSEWHERE, Random(number))
            mates = tuple(TestRun(f"org.acme.CartTest#m{n}", Outcome("pk"[(number + n) % 2]), 0.1) for n in range(3))
            summary = apply_record(summary, str(number), record._replace(tests=(*record.tests, *mates)))
        assert TEST not in {risk.test for risk in drawn_predictor(seed).flakiest(summary, 99, 0.0)}

    def test_a_test_that_stays_red_is_a_flake_no_more(self) -> None:
        history = History("ppkppkppkpp" + "f" * 40)
        assert history.summary.tests[TEST].revealed.count("s") == 0


class TestList:
    @pytest.mark.slow
    @COMMON
    @given(st.integers(1, 40), SEEDS)
    def test_no_suspicion_reaches_the_threshold_of_the_list(self, runs: int, seed: int) -> None:
        assert chance(History("p" * runs, seed), drawn_predictor(seed)) < WORTH_NAMING

    @COMMON
    @given(SEEDS, st.integers(1, 30))
    def test_without_a_flip_nothing_is_named(self, seed: int, runs: int) -> None:
        assert drawn_predictor(seed).flakiest(History("p" * runs, seed).summary, 10, 0.0) == ()

    @COMMON
    @given(LETTERS, SEEDS)
    def test_what_is_named_was_seen_to_flip_and_suspects_were_not(self, letters: str, seed: int) -> None:
        summary, predictor = History(f"p{letters}").summary, drawn_predictor(seed)
        assert all(risk.flips > 0 and risk.probability >= WORTH_NAMING for risk in predictor.flakiest(summary, 10))
        assert all(risk.flips == 0 for risk in predictor.suspects(summary, 10))

    @COMMON
    @given(LETTERS)
    def test_counts_marks_and_outcomes_agree(self, letters: str) -> None:
        """Each flip is one failure and one mark beside it; no more flips than failures, no more than runs."""
        stats = History(f"p{letters}").summary.tests[TEST]
        assert stats.failures == letters.count("f") + letters.count("k")
        assert stats.flips <= stats.failures <= stats.runs == len(letters) + 1
        marked = sum(letter != "-" for letter in stats.revealed)
        assert marked == stats.flips if stats.runs == len(stats.revealed) else marked <= stats.flips
        assert stats.flaked_100 <= stats.flips


class TestOneCause:
    def test_a_class_that_fails_together_is_one_name(self) -> None:
        """A shared fixture fills no list: the entry names the others, which have its chance."""
        start = Predictor({name: task.start() for name, task in schema().tasks.items()}, LocalModel())
        summary = Summary()
        for number in range(12):
            outcome = Outcome.FLAKED if number == 5 else Outcome.PASSED
            mates = tuple(TestRun(f"org.acme.FixtureTest#t{n}", outcome, 0.1) for n in range(24))
            record = entry(number, "k" if number == 8 else "p", f"{number:040x}", ELSEWHERE, Random(number))
            summary = apply_record(summary, str(number), record._replace(tests=(*record.tests, *mates)))
        assert [(risk.test[-3:], len(risk.also)) for risk in start.flakiest(summary, 10)] == [("ums", 0), ("#t0", 23)]


class TestSuspicion:
    @pytest.mark.slow
    @COMMON
    @given(st.integers(1, 20), SEEDS)
    def test_doubted_failures_name_no_test(self, quiet: int, seed: int) -> None:
        """What may have been a flake raises a suspicion, never above what names a test."""
        table = History("p" * (quiet + 1), seed).summary
        stats = replace(table.tests[TEST], doubted_100=0.45, failures=1)
        doubted = replace(table, tests={**table.tests, TEST: stats})
        start = Predictor({name: task.start() for name, task in schema().tasks.items()}, LocalModel())
        calm, raised = (
            next(risk.probability for risk in start.suspects(summary, 99, 0.0) if risk.test == TEST)
            for summary in (table, doubted)
        )
        assert calm < raised < WORTH_NAMING
        assert TEST not in {risk.test for risk in drawn_predictor(seed).flakiest(doubted, 99, 0.0)}


def failure_after(
    history: History, predictor: Predictor, outcome: Outcome = Outcome.FAILED, message: str = "", kind: str = "Error"
) -> float:
    """How likely a further failure of the test is called flaky, far from the change and on a new commit."""
    failed = (TestRun(TEST, outcome, 0.1, kind, message=message),)
    context = BuildContext(CiRun(branch="main"), Change("new", "", "", (FileChange(ELSEWHERE),)), 1_800_000_000.0)
    build = Build("0" * 32, context, 1.8e9, Duration(9.0, "mark"), BuildOutcome.FAILED, Reports(failed))
    (verdict,) = predictor.failures(history.summary, build, "unit||mark")
    return verdict.flaky_probability


class TestUnproven:
    @COMMON
    @given(st.integers(1, 40), SEEDS)
    def test_a_failure_without_proof_is_never_called_certain(self, runs: int, seed: int) -> None:
        """However the model learned, a test that never flipped before is at 85 % at most."""
        assert failure_after(History("p" * runs), drawn_predictor(seed)) <= 0.853

    @COMMON
    @given(LETTERS, SEEDS)
    def test_no_failure_claims_more_than_its_runs_support(self, letters: str, seed: int) -> None:
        """The rule of succession, above the threshold of a verdict; a pass on the same commit is proof."""
        history = History(f"p{letters}k")
        runs = history.summary.tests[TEST].runs
        assert failure_after(history, drawn_predictor(seed)) <= max(0.7311, (runs + 1) / (runs + 2)) + 1e-9

    def test_a_message_of_the_network_speaks_for_a_flake(self) -> None:
        """A first failure that says "Connection refused" is no assertion that does not hold."""
        start = Predictor({name: task.start() for name, task in schema().tasks.items()}, LocalModel())
        history = History("p" * 9)
        messages = ("expected 1 to be 2", "connect ECONNREFUSED 127.0.0.1:5432", "assert 'connection refused' in log")
        real, refused, asserted = (failure_after(history, start, message=message) for message in messages)
        assert real == asserted < refused
        assert refused > FLAKY_ABOVE

    def test_a_pass_when_run_again_is_proof(self) -> None:
        start = Predictor({name: task.start() for name, task in schema().tasks.items()}, LocalModel())
        assert failure_after(History("ppkpp"), start, Outcome.FLAKED) > 6 / 7
