"""Learning of the records that the caches have not seen, by scikit-learn's SGD through partial_fit.

The only client module that loads scikit-learn.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.sparse import csr_matrix
from scipy.special import expit
from sklearn import config_context
from sklearn.linear_model import SGDClassifier, SGDRegressor

from fedstep.errors import HistoryError
from fedstep.history.project_store import BACKLOG, CORRECTION, ProjectStore
from fedstep.history.records import BuildRecord
from fedstep.history.summary import (
    Summary,
    apply_record,
    cache_key,
    forget_pruned,
    read_summary,
    save_summary,
    unprocessed_records,
)
from fedstep.history.test_table import TestTable
from fedstep.history.timeline import Timeline, apply_to_timeline, catch_up_timeline, read_timeline, save_timeline
from fedstep.model.experts import START, combine, observe_departure
from fedstep.model.labels import LabelledExample, renumber_runs, resolve_labels
from fedstep.model.linear import (
    CalibrationScore,
    LocalWeights,
    QuantileTrackers,
    initial_scaling,
    observe_outcome,
    observe_residual,
    score_outcome,
)
from fedstep.model.predictor import chance_of, full_margin, is_flipped
from fedstep.model.state import (
    ExampleQueue,
    LocalModel,
    count_outdated,
    decode_local_model,
    decode_queue,
    encode_local_model,
    encode_queue,
)
from fedstep.schema.schema import TASK_NAMES, SparseVector, schema
from fedstep.types import Dropped, TimeChange, Unavailable

Floats = NDArray[np.float64]
NEGLIGIBLE = 1e-6  # shared corrections smaller than this are not kept
NEGLIGIBLE_PRIVATE = 1e-3  # nor private weights: each stable test would have one, and `predict` reads all


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """The learning constants of one task. `decay` is the factor on local weights after a batch.

    Of what is learned locally predictions count the part `trust`, because a part of it is noise. A version is
    evaluated with an intercept of the project, whose standard deviation in log-odds is `own_intercept`.
    """

    loss: str
    shared_rate: float
    local_rate: float
    decay: float = 0.999
    trust: float = 1.0
    own_intercept: float = 0.0


PACES: Mapping[str, Hyperparameters] = {
    "flaky": Hyperparameters("log_loss", shared_rate=0.05, local_rate=0.05),
    "triage": Hyperparameters("log_loss", shared_rate=0.005, local_rate=0.002),
    "build-failure": Hyperparameters(
        "log_loss", shared_rate=0.02, local_rate=0.03, decay=0.997, trust=0.7, own_intercept=1.0
    ),
    "build-duration": Hyperparameters("epsilon_insensitive", shared_rate=0.001, local_rate=0.01),
}


def learn_shared(task: str, weights: Sequence[float], rows: Sequence[LabelledExample]) -> "array[float]":
    """Return the weights after one pass over the examples, in the given order; private features are ignored."""
    matrix = sparse_matrix([row.example.indices for row in rows], [row.example.values for row in rows], len(weights))
    pace = PACES[task]
    return array("f", _fit(pace, pace.shared_rate, np.array(weights, dtype=np.float64), matrix, rows))


def learn_local(
    task: str, production: Sequence[float], local: LocalWeights, rows: Sequence[LabelledExample]
) -> LocalWeights:
    """Return the local weights after one pass, fitted to the residual of the fixed `production` weights.

    The joint weights start at production + local, as it was before the part `trust` was taken of it; their difference
    from production after the steps is local.
    """
    pace = PACES[task]
    names = sorted({name for row in rows for name in row.example.private})
    columns = {name: len(production) + index for index, name in enumerate(names)}
    shared = np.array(production, dtype=np.float64)
    start = shared.copy()
    for index, value in local.shared.items():
        start[index] += value / pace.trust
    joint = np.concatenate([start, [local.private.get(name, 0.0) / pace.trust for name in names]])
    fitted = _fit(pace, pace.local_rate, joint, _with_private(rows, columns, len(joint)), rows)
    kept = pace.decay * pace.trust
    moved = (fitted[: len(shared)] - shared) * kept
    return LocalWeights(
        {int(index): float(moved[index]) for index in np.flatnonzero(np.abs(moved) > NEGLIGIBLE)},
        _update_private(local.private, names, fitted[len(shared) :] * kept),
    )


def _update_private(private: Mapping[str, float], names: Sequence[str], values: Any) -> Mapping[str, float]:
    """Return the private weights with new values for these names; the other thousands are not examined."""
    after = dict(private)
    for name, value in zip(names, map(float, values), strict=True):
        if abs(value) > NEGLIGIBLE_PRIVATE:
            after[name] = value
        else:
            after.pop(name, None)
    return after


def _with_private(rows: Sequence[LabelledExample], columns: Mapping[str, int], width: int) -> Any:
    indices = [(*row.example.indices, *(columns[name] for name in row.example.private)) for row in rows]
    values = [(*row.example.values, *(1.0 for _ in row.example.private)) for row in rows]
    return sparse_matrix(indices, values, width)


def mean_loss(task: str, outputs: ArrayLike, labels: ArrayLike, weights: ArrayLike) -> float:
    """Return the weighted mean loss of outputs: the log loss in nats, or of a duration the absolute error in spreads.

    How often builds fail differs more between projects than between versions, and a project learns it by itself. So
    build failures have an intercept of the project, at its most likely value for these outputs, and the penalty of a
    normal prior for it: a version whose intercept is wrong for most projects has a higher loss in most.
    """
    margins, targets, shares = (np.asarray(column, dtype=np.float64) for column in (outputs, labels, weights))
    pace, penalty = PACES[task], 0.0
    if pace.loss != "log_loss":
        return float(shares @ np.abs(targets - margins) / shares.sum())
    if pace.own_intercept:
        precision = pace.own_intercept**-2
        intercept = _fit_intercept(margins, targets, shares, precision)
        margins, penalty = margins + intercept, precision * intercept**2 / 2
    losses = np.logaddexp(0.0, np.where(targets == 1.0, -margins, margins))
    return float((shares @ losses + penalty) / shares.sum())


def _fit_intercept(margins: Floats, targets: Floats, shares: Floats, precision: float) -> float:
    """Return the intercept at which the log loss, with the penalty of the prior, is least."""

    def slope(intercept: float) -> float:
        return float(shares @ (expit(margins + intercept) - targets)) + precision * intercept

    farthest = 1.0 + float(shares.sum()) / precision
    return float(brentq(slope, -farthest, farthest))


def sparse_matrix(indices: Sequence[Sequence[int]], values: Sequence[Sequence[float]], width: int) -> Any:
    """Return the SciPy matrix of these sparse rows, one row for each."""
    starts = np.cumsum([0, *(len(row) for row in indices)])
    flat_values = np.array([value for row in values for value in row], dtype=np.float64)
    flat_indices = np.array([index for row in indices for index in row], dtype=np.int32)
    return csr_matrix((flat_values, flat_indices, starts), shape=(len(indices), width))


def _fit(pace: Hyperparameters, rate: float, start: Any, matrix: Any, rows: Sequence[LabelledExample]) -> Any:
    """Return the coefficients after one partial_fit. `start` must be a copy: partial_fit writes into its array.

    No intercept (sparse input scales its step by 0.01; the bias is a feature), no penalty (L2 makes every delta dense),
    a constant rate (the default diverges when every run restarts its clock).
    """
    labels = np.array([row.label for row in rows])
    # Argument checks are most of the cost of a small partial_fit, and these are finite by construction.
    with config_context(assume_finite=True, skip_parameter_validation=True):
        return _partial_fit(pace, rate, start, matrix, labels, _weights(rows))


def _weights(rows: Sequence[LabelledExample]) -> Any:
    """Return the weights of the examples; None if all are 1, which spares scikit-learn their validation."""
    weights = [row.weight for row in rows]
    return None if all(weight == 1.0 for weight in weights) else np.array(weights)


def _partial_fit(pace: Hyperparameters, rate: float, start: Any, matrix: Any, labels: Any, weights: Any) -> Any:
    common = {"penalty": None, "fit_intercept": False, "learning_rate": "constant", "eta0": rate, "shuffle": False}
    if pace.loss == "log_loss":
        learner = SGDClassifier(loss="log_loss", **common)
        learner.classes_ = np.array([0.0, 1.0])
        learner.coef_, learner.intercept_ = start.reshape(1, -1).copy(), np.zeros(1)
        learner.partial_fit(matrix, labels, classes=learner.classes_, sample_weight=weights)
        return learner.coef_.ravel()
    learner = SGDRegressor(loss=pace.loss, epsilon=0.0, **common)  # epsilon 0: the absolute error
    learner.coef_, learner.intercept_ = start.copy(), np.zeros(1)
    learner.partial_fit(matrix, labels, sample_weight=weights)
    return learner.coef_.ravel()


MOST_WAITING = 2000  # unsent examples of one task; without an aggregator the oldest are dropped
REPLAYED = {"flaky": 30, "triage": 30}  # recent examples replayed with each new batch; build tasks do not gain by it

Production = Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class LearnStep:
    """The correction and the backlog after a record, the number of newly labelled examples, and failures judged."""

    correction: LocalModel
    backlog: ExampleQueue
    labels_known: int
    flakes: Mapping[str, bool]  # by test, whether its failures were flakes


def learn_record(
    correction: LocalModel, backlog: ExampleQueue, record: BuildRecord, table: TestTable, production: Production
) -> LearnStep:
    """Learn from one more record, which is already applied to `table`; `production` is fixed."""
    labels_known, flakes = 0, {}
    for task in TASK_NAMES:
        fresh = record.rows.get(task, ()) if record.schema == schema().digest else ()
        resolved, pending = resolve_labels(task, (*backlog.pending.get(task, ()), *renumber_runs(fresh, table)), table)
        backlog = backlog._replace(pending={**backlog.pending, task: tuple(pending)})
        correction, backlog = learn_examples(task, correction, backlog, resolved, production[task], record.stream)
        labels_known += len(resolved)
        if task == "triage":
            flakes = {labelled.example.subject: labelled.label > 0.5 for labelled in resolved}
    return LearnStep(correction, backlog, labels_known, flakes)


def learn_examples(
    task: str,
    correction: LocalModel,
    backlog: ExampleQueue,
    resolved: Sequence[LabelledExample],
    weights: Sequence[float],
    stream: str,
) -> tuple[LocalModel, ExampleQueue]:
    """Learn newly labelled examples of one task; `weights` are its production weights, `stream` is their build's."""
    learned = _learn(task, correction, backlog.recent.get(task, ()), resolved, weights, stream)
    return learned, _file(task, backlog, resolved)


def _learn(
    task: str,
    before: LocalModel,
    recent: Sequence[LabelledExample],
    resolved: Sequence[LabelledExample],
    weights: Sequence[float],
    stream: str,
) -> LocalModel:
    """Calibrate on the new examples with the model that has not seen them, then learn them."""
    if not resolved:
        return before
    local = before.local.get(task, LocalWeights())
    after = before
    for labelled in resolved:
        if task == "build-duration":
            after = _observe_time(after, stream, labelled, full_margin(weights, local, labelled.example))
        else:
            after = _observe(after, task, labelled, weights, local)
    learned = learn_local(task, weights, local, [*_newest(recent, REPLAYED.get(task, 0)), *resolved])
    return after._replace(local={**after.local, task: learned})


def _observe(
    correction: LocalModel, task: str, resolved: LabelledExample, weights: Sequence[float], local: LocalWeights
) -> LocalModel:
    platt, example = correction.platt.get(task, initial_scaling(task)), resolved.example
    chance = chance_of(task, weights, local, platt, example)
    fared = score_outcome(correction.scores.get(task, CalibrationScore()), chance, resolved.label)
    if task != "flaky" or not is_flipped(task, example):  # a test that was seen to flip is not calibrated by others
        platt = observe_outcome(platt, full_margin(weights, local, example), resolved.label, resolved.weight)
    return correction._replace(platt={**correction.platt, task: platt}, scores={**correction.scores, task: fared})


def _observe_time(correction: LocalModel, stream: str, resolved: LabelledExample, score: float) -> LocalModel:
    """Update the weights of the experts, and the interval around what they expected together."""
    row = SparseVector(resolved.example.indices, resolved.example.values)
    weights = correction.experts.get(stream, START)
    missed = resolved.label - combine(weights, row, score)
    trackers = observe_residual(correction.trackers.get(stream, QuantileTrackers()), missed)
    return correction._replace(
        trackers={**correction.trackers, stream: trackers},
        experts={**correction.experts, stream: observe_departure(weights, row, score, resolved.label)},
    )


def _file(task: str, backlog: ExampleQueue, resolved: Sequence[LabelledExample]) -> ExampleQueue:
    waiting = (*backlog.waiting.get(task, ()), *resolved)[-MOST_WAITING:]
    recent = _newest((*backlog.recent.get(task, ()), *resolved), REPLAYED.get(task, 0))
    return backlog._replace(waiting={**backlog.waiting, task: waiting}, recent={**backlog.recent, task: recent})


def _newest(rows: Sequence[LabelledExample], most: int) -> tuple[LabelledExample, ...]:
    return tuple(rows[max(0, len(rows) - most) :])


@dataclass(frozen=True, slots=True)
class LearnedState:
    """Everything derived from the log."""

    summary: Summary = field(default_factory=Summary)
    correction: LocalModel = field(default_factory=LocalModel)
    backlog: ExampleQueue = field(default_factory=ExampleQueue)
    timeline: Timeline = field(default_factory=Timeline)


@dataclass(frozen=True, slots=True)
class CatchUpProgress:
    """The state after learning new records, with the counts of records and labelled examples, and warnings."""

    state: LearnedState
    records: int = 0
    labels_known: int = 0
    warnings: tuple[str, ...] = ()
    changes: tuple[TimeChange, ...] = ()  # of time, found in these records


def load_state(store: ProjectStore) -> LearnedState:
    """Return the cached state, or an empty one (everything is learned again) if its parts do not match."""
    state = _read_cached(store)
    return LearnedState() if isinstance(state, Unavailable) else state


def is_learned_state_lost(store: ProjectStore) -> bool:
    """Return whether learned caches exist but are damaged, incomplete or do not match."""
    return isinstance(_read_cached(store), Unavailable) and _was_learned(store)


def load_queue(store: ProjectStore) -> ExampleQueue:
    """Return the queue, whether or not the other caches match; an empty one if it cannot be read."""
    try:
        return decode_queue(store.read(BACKLOG))[0]
    except HistoryError:
        return ExampleQueue()


def outdated_examples(store: ProjectStore) -> tuple[str, ...]:
    """Return a sentence about the unsent examples that another version of fedstep made; nothing where there are none.

    They are lost when the state is saved: no model has their features any more.
    """
    count = count_outdated(store.read(BACKLOG))
    warning = (
        f"{count} examples waiting to be sent are dropped: another version of fedstep made them, with other features"
    )
    return (warning,) if count else ()


def save_state(store: ProjectStore, state: LearnedState) -> None:
    """Save the state; a reader between the writes sees generations that do not match, and learns again."""
    name = cache_key(state.summary)
    store.write(BACKLOG, encode_queue(state.backlog, name))
    store.write(CORRECTION, encode_local_model(state.correction, name))
    save_timeline(store, state.timeline)  # holds builds of its own name: it need not match
    save_summary(store, state.summary)


def learn_new_records(store: ProjectStore, production: Production) -> CatchUpProgress:
    """Return the state with every record of the log learned, oldest first; `save_state` stores it."""
    state = _read_cached(store)
    if not isinstance(state, Unavailable):
        return _caught_up(store, state, production)
    return relearn_all(store, production) if _was_learned(store) else _caught_up(store, LearnedState(), production)


def relearn_all(store: ProjectStore, production: Production) -> CatchUpProgress:
    """Learn every record from an empty state; only the examples known to be unsent stay queued for sending.

    What was sent is kept for evaluations, and the timeline stays: it has builds that the log has no more.
    """
    progress = _caught_up(store, LearnedState(timeline=read_timeline(store)), production)
    before = load_queue(store)
    backlog = progress.state.backlog._replace(waiting=before.waiting, sent=before.sent)
    warnings = (*outdated_examples(store), *progress.warnings)
    return replace(progress, state=replace(progress.state, backlog=backlog), warnings=warnings)


def _caught_up(store: ProjectStore, state: LearnedState, production: Production) -> CatchUpProgress:
    summary = forget_pruned(store, state.summary)
    timeline = catch_up_timeline(store, state.timeline, summary.seen, summary.tests)
    progress = CatchUpProgress(replace(state, summary=summary, timeline=timeline))
    for name, record in unprocessed_records(store, progress.state.summary):
        progress = (
            _after(progress, name, record, production) if not isinstance(record, Dropped) else _past(progress, record)
        )
    return progress


def _after(progress: CatchUpProgress, name: str, record: BuildRecord, production: Production) -> CatchUpProgress:
    state = progress.state
    summary = apply_record(state.summary, name, record)
    learned = learn_record(state.correction, state.backlog, record, summary.tests, production)
    timeline = apply_to_timeline(state.timeline, record, summary.tests, learned.flakes)
    return CatchUpProgress(
        LearnedState(summary, learned.correction, learned.backlog, timeline),
        progress.records + 1,
        progress.labels_known + learned.labels_known,
        progress.warnings,
        (*progress.changes, *timeline.list_changes_of(record.name)),
    )


def _past(progress: CatchUpProgress, dropped: Dropped) -> CatchUpProgress:
    summary = progress.state.summary
    return replace(
        progress,
        state=replace(progress.state, summary=replace(summary, seen=summary.seen | {dropped.source})),
        warnings=(*progress.warnings, f"{dropped.source} is skipped: {dropped.reason}"),
    )


def _read_cached(store: ProjectStore) -> LearnedState | Unavailable:
    summary = read_summary(store)
    try:
        backlog, at_backlog = decode_queue(store.read(BACKLOG))
        correction, at_correction = decode_local_model(store.read(CORRECTION))
    except HistoryError as error:
        return Unavailable(str(error))
    fits = at_backlog == at_correction == cache_key(summary)
    return (
        LearnedState(summary, correction, backlog, read_timeline(store))
        if fits
        else Unavailable("the caches are of different generations")
    )


def _was_learned(store: ProjectStore) -> bool:
    return any(map(store.read, (BACKLOG, CORRECTION)))
