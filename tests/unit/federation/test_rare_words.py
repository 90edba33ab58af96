"""No word of too few tests is in an update."""

from array import array
from collections.abc import Collection, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstep.evaluation.simulated_federation import key_by
from fedstep.federation.messages import Model, Update, pack_update
from fedstep.federation.update_builder import make_update, suppress_rare_words
from fedstep.history.records import Example
from fedstep.model.labels import LabelledExample
from fedstep.model.state import ExampleQueue, LocalModel
from fedstep.model.training import learn_examples
from fedstep.schema.schema import Value, schema
from tests.helpers.narrow import expect

TASK = schema().tasks["flaky"]
NAMES = {name: number for number, name in enumerate(TASK.names())}
LISTED = sorted(schema().words("source").index)[:40]
USUAL, RARE = LISTED[:10], LISTED[10:]
BATCH = TASK.minimum_rows
KEYED = key_by("project")
WORDS = st.lists(st.sets(st.sampled_from(USUAL)), min_size=BATCH, max_size=BATCH + 10)


def row(number: int, words: Collection[str] = (), run: int = 0, label: float = 0.0) -> LabelledExample:
    """A row of one test as features make it, with these words in its source."""
    raw: dict[str, Value] = dict.fromkeys(part.name for part in TASK.parts)
    raw |= {"bias": 1.0, "source": schema().words("source").listed(words)}
    return LabelledExample(Example(f"a.B#t{number}", run, *TASK.encode(raw), ()), label)


def steady(words: Sequence[Collection[str]]) -> tuple[LabelledExample, ...]:
    return tuple(row(number, some) for number, some in enumerate(words))


def model(trial: bool = False) -> Model:
    """The schema's start, and where asked for a version on trial that weighs every word."""
    start = {name: task.start() for name, task in schema().tasks.items()}
    tried = array("f", (weight + 0.01 * (number % 7) for number, weight in enumerate(TASK.start())))
    plain = Model(schema().digest, 1, 1, "", start, start)
    return plain._replace(trials={"flaky": 3}, trial={"flaky": tried}) if trial else plain


def sent(rows: Sequence[LabelledExample], trial: bool = False) -> bytes:
    update, _ = make_update(ExampleQueue(waiting={"flaky": tuple(rows)}), model(trial), KEYED)
    assert isinstance(update, Update), update
    return pack_update(update)


class TestRareWords:
    @pytest.mark.slow
    @given(WORDS, st.dictionaries(st.sampled_from(RARE), st.sets(st.integers(0, BATCH - 1), max_size=2)), st.booleans())
    @settings(deadline=None, max_examples=30)
    def test_word_of_fewer_than_three_tests_changes_no_byte(self, words, rare, trial):
        """A word of fewer than three tests leaves the bytes of the update as they were."""
        with_rare = [{*some, *(word for word, users in rare.items() if n in users)} for n, some in enumerate(words)]
        assert sent(steady(with_rare), trial) == sent(steady(words), trial)

    @pytest.mark.parametrize("users", range(1, 6))
    def test_a_word_acts_from_its_third_test_on(self, users):
        words = [(RARE[0],) if number < users else () for number in range(BATCH)]
        update, _ = make_update(ExampleQueue(waiting={"flaky": steady(words)}), model(), KEYED)
        assert bool(expect(Update, update).deltas["flaky"][NAMES[f"source={RARE[0]}"]]) == (users >= 3)

    def test_one_test_in_many_builds_is_one_user_of_its_words(self):
        rows = [row(number % 25, (RARE[0],) if number % 25 < 2 else (), run=number) for number in range(75)]
        assert sent(rows) == sent([row(number % 25, run=number) for number in range(75)])

    def test_remaining_words_of_a_row_weigh_as_the_whole_row(self):
        """The words that are left of an example weigh as if they were all there is."""
        rows = [row(number, (USUAL[0], RARE[number])) for number in range(5)]
        assert suppress_rare_words(TASK, rows) == tuple(row(number, (USUAL[0],)) for number in range(5))

    def test_at_home_the_words_of_a_single_test_are_learned(self):
        rows = steady([(*USUAL, RARE[0]), *([USUAL] * (BATCH - 1))])
        correction, backlog = learn_examples("flaky", LocalModel(), ExampleQueue(), rows, TASK.start(), "")
        assert correction.local["flaky"].shared[NAMES[f"source={RARE[0]}"]] < 0
        assert backlog.waiting["flaky"] == rows

    def test_tasks_without_words_are_told_as_they_are(self):
        task = schema().tasks["build-failure"]
        rows = tuple(
            LabelledExample(Example(f"b{n}", n, (0, 1 + n), (1.0, 0.5), ()), float(n == 0))
            for n in range(task.minimum_rows)
        )
        assert suppress_rare_words(task, rows) == rows
