"""Learning of the records that the caches have not seen. Needs scikit-learn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

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
from fedstep.model.sgd import learn_local
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
    for one in resolved:
        if task == "build-duration":
            after = _observe_time(after, stream, one, full_margin(weights, local, one.example))
        else:
            after = _observe(after, task, one, weights, local)
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
    state = _cached(store)
    return LearnedState() if isinstance(state, Unavailable) else state


def is_learned_state_lost(store: ProjectStore) -> bool:
    """Return whether learned caches exist but are damaged, incomplete or do not match."""
    return isinstance(_cached(store), Unavailable) and _was_learned(store)


def load_unsent(store: ProjectStore) -> Mapping[str, tuple[LabelledExample, ...]]:
    """Return the unsent examples, whether or not the other caches match; none if they cannot be read."""
    try:
        return decode_queue(store.read(BACKLOG))[0].waiting
    except HistoryError:
        return {}


def outdated_examples(store: ProjectStore) -> tuple[str, ...]:
    """Return a sentence about the unsent examples that another version of fedstep made; nothing where there are none.

    They are lost when the state is saved: no model has their features any more.
    """
    count = count_outdated(store.read(BACKLOG))
    told = f"{count} examples waiting to be sent are dropped: another version of fedstep made them, with other features"
    return (told,) if count else ()


def save_state(store: ProjectStore, state: LearnedState) -> None:
    """Save the state; a reader between the writes sees generations that do not match, and learns again."""
    name = cache_key(state.summary)
    store.write(BACKLOG, encode_queue(state.backlog, name))
    store.write(CORRECTION, encode_local_model(state.correction, name))
    save_timeline(store, state.timeline)  # holds builds of its own name: it need not match
    save_summary(store, state.summary)


def learn_new_records(store: ProjectStore, production: Production) -> CatchUpProgress:
    """Return the state with every record of the log learned, oldest first; `save_state` stores it."""
    state = _cached(store)
    if not isinstance(state, Unavailable):
        return _caught_up(store, state, production)
    return relearn_all(store, production) if _was_learned(store) else _caught_up(store, LearnedState(), production)


def relearn_all(store: ProjectStore, production: Production) -> CatchUpProgress:
    """Learn every record from an empty state; only the examples known to be unsent stay queued for sending.

    The timeline stays: it has builds that the log has no more.
    """
    progress = _caught_up(store, LearnedState(timeline=read_timeline(store)), production)
    backlog = progress.state.backlog._replace(waiting=load_unsent(store))
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
        (*progress.changes, *(change for change in timeline.changes if change.found_in == record.name)),
    )


def _past(progress: CatchUpProgress, dropped: Dropped) -> CatchUpProgress:
    summary = progress.state.summary
    return replace(
        progress,
        state=replace(progress.state, summary=replace(summary, seen=summary.seen | {dropped.source})),
        warnings=(*progress.warnings, f"{dropped.source} is skipped: {dropped.reason}"),
    )


def _cached(store: ProjectStore) -> LearnedState | Unavailable:
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
