"""Explain a verdict: predict the same test again after each of several single changes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import accumulate, chain, repeat
from math import isnan
from typing import NamedTuple

from fedstep.errors import HistoryError, UsageError
from fedstep.features.test_duration import expected_test_seconds
from fedstep.features.test_features import (
    ACTIVE_BUILDS,
    flaky_columns,
    private_test_features,
    row_of,
    typical_seconds,
)
from fedstep.federation.model_cache import load_model
from fedstep.history.flakiness import Flip, PreviousBuilds, apply_test_runs, informative_runs
from fedstep.history.project_store import ProjectStore, build_name
from fedstep.history.records import BuildRecord
from fedstep.history.summary import Summary
from fedstep.history.test_table import TestTable, former_ids
from fedstep.ingest.change_impact import group_of
from fedstep.ingest.test_identity import earlier_ids
from fedstep.model.linear import LocalWeights, initial_scaling, sigmoid
from fedstep.model.predictor import WORTH_NAMING, Predictor, load_predictor
from fedstep.pipeline.context import describe_model
from fedstep.report.explanation import ExplainedFeature, SeenRun, TestExplanation, WhatIf
from fedstep.results import ModelUsed
from fedstep.schema.schema import BagOfWords, Encoder, Raw, Value, schema, sub_words
from fedstep.types import NO_SECONDS, BuildOutcome, Dropped, Outcome, TestRun

MOST_RUNS = 60
MOST_RECORDS = 300  # read at most: a record of 5,000 tests takes 15 ms


class _Past(NamedTuple):
    """What is looked for in the records of one test: its id and the one before a rename (no build has both).

    `letters` is what the table of tests has beside its last outcomes, a letter a run that is evidence.
    """

    ids: tuple[str, ...]
    letters: list[str]
    runs: list[SeenRun]


def past_runs(store: ProjectStore, table: TestTable, tests: Sequence[str]) -> Mapping[str, tuple[SeenRun, ...]]:
    """Return the newest runs of each of these tests, oldest first, without records that cannot be read.

    Every record is read once for all tests, until the newest MOST_RUNS of each are there.
    """
    formers = {now: old for old, now in former_ids(table).items()}
    pasts = {
        test: _Past((test, formers[test]) if test in formers else (test,), list(table[test].revealed), [])
        for test in tests
    }
    files = {build_name(name): name for name in store.log.files()}  # a build that is there twice counts once
    wanted = list(pasts.values())
    for _, entry in store.log.entries(sorted(files.values(), reverse=True)[:MOST_RECORDS]):
        if not isinstance(entry, Dropped):
            _add_runs(wanted, entry)
            wanted = [past for past in wanted if len(past.runs) < MOST_RUNS]
        if not wanted:
            break
    return {test: tuple(reversed(past.runs)) for test, past in pasts.items()}


def _add_runs(wanted: Sequence[_Past], entry: BuildRecord) -> None:
    """Add what this record has of the tests, and whether it is evidence."""
    by_id = {test_id: past for past in wanted for test_id in past.ids}
    ran = {run.test: run for run in reversed(entry.tests) if run.test in by_id}
    evidence = {run.test for run in informative_runs(entry.tests) if run.test in ran} if ran else set()
    for past in wanted:
        run = next((ran[test_id] for test_id in past.ids if test_id in ran), None)
        if run is not None:
            counts = run.test in evidence
            metal = past.letters.pop() if counts and past.letters else Flip.NONE
            past.runs.append(_seen(entry, run, metal, incident=not counts and run.outcome != Outcome.SKIPPED))


def _seen(entry: BuildRecord, run: TestRun, metal: str, incident: bool) -> SeenRun:
    return SeenRun(
        entry.finished_at, str(run.outcome), run.seconds, metal, entry.branch, entry.commit, run.failure_type, incident
    )


PASSES = (1, 2, 3, 5, 8, 12, 20, 30, 45, 70, 100, 150, 200)
FEW_PASSES = 20  # reported where no number of passes would change the verdict
MOST_WORDS = 3
WITHOUT = "without the word"
WORTH_TELLING = 0.01  # of the probability: one percent point, so that the figure that is shown is another one

Chance = Callable[[Raw], float]
"""The probability for raw values of the flaky task by part name."""


class ExplainedTest(NamedTuple):
    """The test to explain: the history, its id and its current raw values."""

    summary: Summary
    test: str
    values: Raw

    @property
    def table(self) -> TestTable:
        """Return the table of all tests."""
        return self.summary.tests


def what_ifs(subject: ExplainedTest, chance: Chance, is_named: Callable[[float], bool]) -> tuple[WhatIf, ...]:
    """Single changes, each with the probability that the model would give: more runs first, then other features.

    While a run is added all other tests stay as they are.
    """
    named = is_named(chance(subject.values))
    changes = chain(_passes(subject, chance, is_named, named), _failures(subject, chance), _features(subject, chance))
    return tuple(WhatIf(says, probability, is_named(probability)) for says, probability in changes)


def _passes(
    subject: ExplainedTest, chance: Chance, is_named: Callable[[float], bool], named: bool
) -> Iterator[tuple[str, float]]:
    """After the first number of passes that changes the verdict; where none does, after a few.

    Not every number is tried. Between the last that did not change it and the first that did, halving finds one
    that does where one pass fewer does not. A pass makes a test named only if it ends a spell.
    """
    run, known = _runner(subject), {0: subject.table}

    def after(passes: int) -> float:
        start = max(known_passes for known_passes in known if known_passes <= passes)
        *_, known[passes] = accumulate(repeat(Outcome.PASSED, passes - start), run, initial=known[start])
        return chance(_values(known[passes], subject.test))

    tried = PASSES if named or subject.table[subject.test].streak else ()
    right = next((passes for passes in tried if is_named(after(passes)) != named), 0)
    left = max((passes for passes in PASSES if passes < right), default=0)
    while right - left > 1:
        middle = (left + right) // 2
        left, right = (middle, right) if is_named(after(middle)) == named else (left, middle)
    passes = right or FEW_PASSES
    yield f"after {passes} more {'pass' if passes == 1 else 'passes'}", after(passes)


def _failures(subject: ExplainedTest, chance: Chance) -> Iterator[tuple[str, float]]:
    cases = (
        ("after one failure", (Outcome.FAILED,)),
        ("after one failure and a pass, nothing related changed", (Outcome.FAILED, Outcome.PASSED)),
        ("after a failure that passes when it is rerun (a gold flip)", (Outcome.FLAKED,)),
    )
    for says, outcomes in cases:
        *_, last = accumulate(outcomes, _runner(subject), initial=subject.table)
        yield says, chance(_values(last, subject.test))


def _features(subject: ExplainedTest, chance: Chance) -> Iterator[tuple[str, float]]:
    before, parts = chance(subject.values), schema().tasks["flaky"].parts
    features = chain.from_iterable(_of_part(subject, chance, part, subject.values[part.name]) for part in parts)
    return (
        (says, chance_then)
        for says, chance_then in features
        if abs(chance_then - before) >= WORTH_TELLING and not (says.startswith(WITHOUT) and chance_then > before)
    )


def _of_part(subject: ExplainedTest, chance: Chance, part: Encoder, value: Value) -> Iterator[tuple[str, float]]:
    """Yield the removal of each word that lowers the probability most, and classmates that never flip."""
    if isinstance(part, BagOfWords) and isinstance(value, Sequence) and not isinstance(value, str):
        listed, where = tuple(part.index), "name" if part.name == "name" else "source"
        without = (
            (chance({**subject.values, part.name: tuple(other for other in value if other != word)}), word)
            for word in value
        )
        for lower, word in sorted(without)[:MOST_WORDS]:
            yield f"{WITHOUT} {listed[word]} in its {where}", lower
    elif part.name == "classmates-flip-rate" and value:
        yield "if no other test of its class flipped", chance({**subject.values, part.name: 0.0})


def _runner(subject: ExplainedTest) -> Callable[[TestTable, Outcome], TestTable]:
    """Return a function that adds one more run of the test to a table, in the stream in which it failed last."""
    stats = subject.table[subject.test]
    seconds = typical_seconds(stats) or NO_SECONDS

    def run(table: TestTable, outcome: Outcome) -> TestTable:
        runs = (TestRun(subject.test, outcome, seconds),)
        entry = BuildRecord(
            "", 0.0, 0.0, NO_SECONDS, stats.failed_in, BuildOutcome.PASSED, change_known=True, tests=runs
        )
        return apply_test_runs(table, entry, PreviousBuilds(), subject.summary.count)

    return run


def _values(table: TestTable, test: str) -> Raw:
    if table[test].flips:  # nothing of other tests counts any more; a table of 5,000 takes 9 ms
        table = {test: table[test]}
    return row_of(flaky_columns(table), list(table).index(test))


def explain(
    store: ProjectStore, summary: Summary, test: str, now: float, warnings: tuple[str, ...] = ()
) -> TestExplanation:
    """Explain one test of the summary, which must contain it. Nothing is written."""
    return explain_tests(store, summary, (test,), now, warnings)[test]


def explain_tests(
    store: ProjectStore, summary: Summary, tests: Sequence[str], now: float, warnings: tuple[str, ...] = ()
) -> Mapping[str, TestExplanation]:
    """Explain several tests of the summary, as `explain` does each; the past builds are read once."""
    cached = load_model(store)
    predictor, runs = load_predictor(store, cached.model.production), past_runs(store, summary.tests, tests)
    template = _Template(predictor, summary, describe_model(cached, now), warnings)
    return {test: _explain(template, test, runs[test]) for test in tests}


class _Template(NamedTuple):
    """What the explanations of all tests have in common."""

    predictor: Predictor
    summary: Summary
    model: ModelUsed
    warnings: tuple[str, ...]


def _explain(template: _Template, test: str, runs: tuple[SeenRun, ...]) -> TestExplanation:
    forecaster, summary = template.predictor, template.summary
    table = summary.tests
    stats = table[test]
    former = next((old for old, now in former_ids(table).items() if now == test), "")
    platt = forecaster.correction.platt.get("flaky", initial_scaling("flaky"))
    subject = ExplainedTest(summary, test, _values(table, test))
    shared, private = _explain_shared(forecaster, subject.values), _explain_private(forecaster, test)

    def chance(values: Raw) -> float:
        return forecaster.chance("flaky", schema().tasks["flaky"].encode(values), private_test_features(test))

    score = _total(shared) + sum(term.local for term in private)
    recently = stats.last_build >= summary.count - ACTIVE_BUILDS
    return TestExplanation(
        test=test,
        former=former,
        probability=chance(subject.values),
        raw=sigmoid(score),
        threshold=WORTH_NAMING,
        horizon=schema().tasks["flaky"].horizon,
        recently=recently,
        slope=platt.slope,
        offset=platt.offset,
        contributions=tuple(sorted(shared, key=lambda term: (-abs(term.total), term.feature))),
        private=private,
        changes=what_ifs(subject, chance, lambda probability: probability >= WORTH_NAMING) if recently else (),
        runs=runs,
        runs_known=stats.runs,
        failures=stats.failures,
        flips=stats.flips,
        typical_seconds=expected_test_seconds(stats),
        model=template.model,
        warnings=template.warnings,
    )


def _explain_shared(forecaster: Predictor, values: Raw) -> list[ExplainedFeature]:
    """Return what each part of the flaky task contributes against what is usual, each listed word on its own.

    The first is the margin of a usual test.
    """
    task = schema().tasks["flaky"]
    production, usual = forecaster.production["flaky"], task.usual()
    local = forecaster.correction.local.get("flaky", LocalWeights()).shared
    base = ExplainedFeature("bias", "1", 0.0, 0.0)
    features: list[ExplainedFeature] = []
    for part, start, end in task.spans():
        usual_sum = sum(production[index] * usual[index] for index in range(start, end))
        theirs = sum(local.get(index, 0.0) * usual[index] for index in range(start, end))
        pieces = [
            ExplainedFeature(
                feature,
                label,
                sum(production[start + offset] * weight for offset, weight in pairs),
                sum(local.get(start + offset, 0.0) * weight for offset, weight in pairs),
            )
            for feature, label, pairs in _pieces(part, values[part.name])
        ]
        if part.name == "bias":
            base = replace(base, shared=base.shared + pieces[0].shared, local=base.local + pieces[0].local)
        else:
            base = replace(base, shared=base.shared + usual_sum, local=base.local + theirs)
            features += _against_usual(part, pieces, usual_sum, theirs)
    return [base, *features]


def _against_usual(
    part: Encoder, pieces: Sequence[ExplainedFeature], shared: float, local: float
) -> Iterator[ExplainedFeature]:
    """Yield the pieces less what is usual; for words, which are pieces of their own, that is one more piece."""
    if isinstance(part, BagOfWords):
        yield from pieces
        yield ExplainedFeature(part.name, "the usual words", -shared, -local)
    for piece in () if isinstance(part, BagOfWords) else pieces:
        yield replace(piece, shared=piece.shared - shared, local=piece.local - local)


def _pieces(part: Encoder, value: Value) -> Iterator[tuple[str, str, Sequence[tuple[int, float]]]]:
    """Yield the features of one part: name, value in a few characters, and its coordinates with their values."""
    pairs = part.encode(value)
    if isinstance(part, BagOfWords):
        names = tuple(part.index)
        yield from ((f"{part.name}={names[offset]}", "yes", ((offset, weight),)) for offset, weight in pairs)
    else:
        yield (
            part.name,
            "absent" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value),
            pairs,
        )


def _explain_private(forecaster: Predictor, test: str) -> tuple[ExplainedFeature, ...]:
    """Return the private weights of the test and of its class, which only this project has."""
    weights = forecaster.correction.local.get("flaky", LocalWeights()).private
    named = (("this test", f"test={test}"), ("its class", f"class={group_of(test)}"))
    return tuple(ExplainedFeature(label, "", 0.0, weights.get(name, 0.0)) for label, name in named)


def _total(contributions: Sequence[ExplainedFeature]) -> float:
    total = sum(term.total for term in contributions)
    assert not isnan(total)
    return total


MOST_MATCHES = 8
MOST_COMPARED = 300  # names that are compared letter by letter


def matches(wanted: str, tests: Sequence[str]) -> tuple[str, ...]:
    """Return the tests with this id, else with it in earlier versions, this name, this part of an id, in any case.

    >>> matches("b", ["A#b", "A#bc"])
    ('A#b',)
    """
    small = wanted.lower()
    kinds = (
        lambda test: test == wanted,
        lambda test: wanted in earlier_ids(test),
        lambda test: test.endswith(f"#{wanted}"),
        lambda test: wanted in test,
        lambda test: small in test.lower(),
    )
    by_kind = (tuple(filter(kind, tests)) for kind in kinds)
    return next((some for some in by_kind if some), ())


def find_test(name: str, table: TestTable) -> str:
    """Return the id of the one test that `name` means: its id, a part of it, or the name before a rename.

    Raises:
        UsageError: No test fits, or several do.
        HistoryError: The history knows no test.
    """
    if not table:
        raise HistoryError("no test of this project is known yet", "Run fedstep train after your tests")
    renamed = former_ids(table)
    candidates = matches(name, tuple(table)) or tuple(renamed[old] for old in matches(name, tuple(renamed)))
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        listed = ", ".join(candidates[:MOST_MATCHES])
        raise UsageError(f"{name} means {len(candidates)} tests", f"Give more of the name: {listed}")
    similar = nearest(name, tuple(table))
    remedy = f"Did you mean: {', '.join(similar)}" if similar else "See fedstep predict"
    raise UsageError(f"no test of the history is called {name}", remedy)


def nearest(wanted: str, tests: Sequence[str]) -> tuple[str, ...]:
    """Return the tests with the most similar names: those that share most words, compared letter by letter."""
    words = set(sub_words((wanted,)))
    shared = sorted(tests, key=lambda test: -len(words.intersection(sub_words((test,)))))[:MOST_COMPARED]
    names = {test.rpartition("#")[2]: test for test in reversed(shared)}
    alike = get_close_matches(wanted.rpartition("#")[2], names, MOST_MATCHES, 0.5)
    return tuple(names[name] for name in alike) or tuple(get_close_matches(wanted, shared, MOST_MATCHES, 0.3))
