"""The exact fit of flaky tests whose reruns were counted, from which the starter model is made."""

from collections.abc import Sequence

import pytest

from fedstep.evaluation.simulated_federation import fit_tables, train_global
from fedstep.history.records import Example
from fedstep.model.labels import LabelledExample
from fedstep.model.linear import margin, sigmoid
from fedstep.schema.schema import schema

TASK = schema().tasks["flaky"]
BIAS, EVIDENCE, NAME = (TASK.first(part) for part in ("bias", "evidence", "name"))
COMMON, SINGLE, QUIET = NAME, NAME + 1, NAME + 2  # words


def some_tests(word: int, flaky: int, steady: int, classes: int = 0) -> list[LabelledExample]:
    """Tests with this word of which some are flaky, each of its own class unless so many are given; without a past."""
    row = Example("", 0, (BIAS, EVIDENCE, word), (1.0, -0.9, 1.0), ())
    return [
        LabelledExample(row._replace(subject=f"Word{word}Test{n % classes if classes else n}#t{n}"), float(n < flaky))
        for n in range(flaky + steady)
    ]


def project(*groups: Sequence[LabelledExample]) -> list[LabelledExample]:
    return [one for group in groups for one in group]


PLAIN = project(some_tests(COMMON, 5, 5), some_tests(QUIET, 5, 20))


class TestFit:
    def test_the_mean_probability_is_the_base_rate(self) -> None:
        """Balanced examples would call half of all tests flaky: too many would be worth a look."""
        weights = fit_tables("flaky", [PLAIN, PLAIN])
        chances = [sigmoid(margin(weights, one.example.indices, one.example.values)) for one in PLAIN]
        assert sum(chances) / len(chances) == pytest.approx(10 / 35, abs=1e-6)

    def test_more_steady_tests_change_no_word(self) -> None:
        few = fit_tables("flaky", [project(some_tests(COMMON, 5, 5), some_tests(QUIET, 5, 20))] * 2)
        many = fit_tables("flaky", [project(some_tests(COMMON, 5, 50), some_tests(QUIET, 5, 200))] * 2)
        assert many[COMMON] == pytest.approx(few[COMMON], abs=0.01)
        assert few[COMMON] > 0.1 > -0.1 > few[QUIET]

    def test_what_no_table_shows_stays_as_it_starts(self) -> None:
        """A table has no history: the evidence is the same for all, and the intercept takes what it would."""
        weights, start = fit_tables("flaky", [PLAIN, PLAIN]), TASK.start()
        moved = {n for n, (after, before) in enumerate(zip(weights, start, strict=True)) if abs(after - before) > 1e-3}
        assert moved == {BIAS, COMMON, QUIET}

    def test_what_one_project_shows_counts_less(self) -> None:
        """Twelve flaky tests with a word in one project say less than three in each of four."""
        usual = project(some_tests(COMMON, 6, 4), some_tests(QUIET, 2, 20))
        together = fit_tables("flaky", [project(usual, some_tests(SINGLE, 12, 12)), usual, usual, usual])
        spread = fit_tables("flaky", [project(usual, some_tests(SINGLE, 3, 3))] * 4)
        assert spread[SINGLE] > 1.2 * together[SINGLE] > 0.0

    def test_many_tests_of_one_class_count_as_their_square_root(self) -> None:
        """Sixteen flaky tests of one class say what four of four classes say: they may have one cause."""
        quiet = some_tests(QUIET, 0, 30)
        weights = fit_tables("flaky", [project(some_tests(COMMON, 4, 0), some_tests(SINGLE, 16, 0, classes=1), quiet)])
        assert weights[SINGLE] == pytest.approx(weights[COMMON], abs=0.01)
        assert weights[SINGLE] > 0.1


class TestTraining:
    def test_tables_are_fitted_and_histories_are_not_mixed_in(self) -> None:
        history = [
            one._replace(example=one.example._replace(private=("test=a",))) for one in some_tests(SINGLE, 30, 30)
        ]
        both = train_global("flaky", {"a": PLAIN, "b": PLAIN, "c": history}, seed=1)
        assert both == fit_tables("flaky", [PLAIN, PLAIN])

    def test_histories_alone_are_learned_through_the_aggregation(self) -> None:
        history = [
            LabelledExample(Example(f"t{n}", 5, (BIAS, COMMON), (1.0, 1.0), (f"test=t{n}",)), float(n % 2))
            for n in range(200)
        ]
        assert train_global("flaky", {"a": history}, seed=1) != train_global("flaky", {"a": history}, seed=2)
