"""Which words of the public list occur in the tests behind a view; and whether any other string can be read at all."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedstep.evaluation.corpus import BuildStep, RerunTest, read_tests
from fedstep.evaluation.replay_tests import rerun_steps
from fedstep.evaluation.simulated_federation import key_by
from fedstep.federation.messages import Update, pack_update
from fedstep.federation.update_builder import make_update
from fedstep.model.labels import LabelledExample
from fedstep.model.state import ExampleQueue
from fedstep.model.training import learn_shared
from fedstep.schema.schema import schema, sub_words
from tests.studies.attacks.finding import Finding
from tests.studies.attacks.scene import TASK, AttackScene, Member, Real, head_model, word_columns, words_of
from tests.studies.attacks.view import PROTECTIONS, Protection, View, views

SPARSE = 0.9  # of all coordinates: a view with more that are not zero has noise, and is ranked
SMALLEST = 1e-9


def attack_words(scene: AttackScene) -> Iterator[Finding]:
    """Precision and recall of the words named for one project; guessing names the most usual ones."""
    for protection in PROTECTIONS:
        yield from word_findings("words", protection, scene)


def word_findings(attack: str, protection: Protection, scene: AttackScene) -> Iterator[Finding]:
    """The two figures of one protection, means over views."""
    usual = usual_words(scene.own)
    reached, guessed = [], []
    for view in views(protection, scene.attacked, scene, attack):
        truth = words_of(view.rows)
        named = named_words(view, usual)
        reached.append(_precision_recall(named, truth))
        guessed.append(_precision_recall(_highest(usual, int(usual.sum())), truth))
    for place, measure in enumerate(("precision of words", "recall of words")):
        values = (float(np.mean([one[place] for one in found])) for found in (reached, guessed))
        yield Finding(attack, measure, protection.name, *values)


def usual_words(members: Sequence[Member]) -> Real:
    """For each word the share of these members that use it; they add up to the words of a typical one."""
    return np.asarray(np.mean([words_of(one.rows) for one in members], axis=0), np.float64)


def named_words(view: View, usual: Real) -> NDArray[np.bool_]:
    """The words that have moved; in noise, as many of those that moved most as a project has."""
    moved = np.abs(view.vector[word_columns()])
    if np.mean(moved > SMALLEST) < SPARSE:
        return np.asarray(moved > SMALLEST)
    return _highest(moved, int(usual.sum()))


def _highest(values: Real, count: int) -> NDArray[np.bool_]:
    named = np.zeros(len(values), bool)
    named[np.argsort(-values, kind="stable")[:count]] = True
    return named


def _precision_recall(named: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[float, float]:
    hits = float((named & truth).sum())
    return hits / max(1, int(named.sum())), hits / max(1, int(truth.sum()))


def attack_strangers(scene: AttackScene) -> Iterator[Finding]:
    """The share of a project's own words outside the list that an update gives away, with an open list and with ours.

    An update that stays the same to the last byte when all those words are taken out of the sources has none of them.
    """
    found = [_strangers(read_tests(project.path)) for project in scene.projects]
    total = max(1, sum(count for _, _, count in found))
    open_list, closed = (sum(one[place] for one in found) / total for place in (0, 1))
    yield Finding("strangers", "words outside the list", "off (open list)", open_list, 0.0)
    for protection in PROTECTIONS[1:]:  # what is summed or noised has no more in it than an update has
        yield Finding("strangers", "words outside the list", protection.name, closed, 0.0)


def _strangers(tests: Sequence[RerunTest]) -> tuple[int, int, int]:
    """Of the first batch of tests: words outside the list read from an open one, from ours, and how many there are."""
    tests = _first_batch(tests)
    listed = schema().words("source").index
    outside = [tuple(word for word in sub_words(test.identifiers) if word not in listed) for test in tests]
    unknown = sorted({word for words in outside for word in words})
    without = [
        replace(test, identifiers=tuple(word for word in sub_words(test.identifiers) if word in listed))
        for test in tests
    ]
    same = _sent(_ripe(tests)) == _sent(_ripe(without))
    return _read_from_open_list(_ripe(tests), outside, unknown), 0 if same else len(unknown), len(unknown)


def _first_batch(tests: Sequence[RerunTest]) -> Sequence[RerunTest]:
    """The fewest of them that make an update: two updates that do not exist would be the same."""
    counts = range(schema().tasks[TASK].minimum_rows, len(tests) + 1)
    return next((tests[:count] for count in counts if _sent(_ripe(tests[:count]))), ())


def _ripe(tests: Sequence[RerunTest]) -> tuple[LabelledExample, ...]:
    asked, known = (step for step in rerun_steps(tests) if isinstance(step, BuildStep))
    return tuple(LabelledExample(case.row, one.label) for case, one in zip(asked.cases, known.known, strict=True))


def _sent(rows: Sequence[LabelledExample]) -> bytes:
    update, _ = make_update(ExampleQueue(waiting={TASK: tuple(rows)}), head_model(), key_by("strangers"))
    return pack_update(update) if isinstance(update, Update) else b""


def _read_from_open_list(
    rows: Sequence[LabelledExample], outside: Sequence[Sequence[str]], unknown: Sequence[str]
) -> int:
    """How many of the words would have a coefficient that moves, if every word had a coordinate."""
    start = schema().tasks[TASK].start()
    places = {word: len(start) + number for number, word in enumerate(unknown)}
    opened = [_with(ripe, [places[word] for word in words]) for ripe, words in zip(rows, outside, strict=True)]
    learned = np.array(learn_shared(TASK, [*start, *(0.0 for _ in unknown)], opened))
    return int((np.abs(learned[len(start) :]) > SMALLEST).sum())


def _with(ripe: LabelledExample, places: Sequence[int]) -> LabelledExample:
    values = tuple(len(places) ** -0.5 for _ in places)
    return ripe._replace(
        example=ripe.example._replace(indices=(*ripe.example.indices, *places), values=(*ripe.example.values, *values))
    )
