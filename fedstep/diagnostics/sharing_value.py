"""What the shared model gains on a project's own builds: its records, replayed with it and without it.

Needs scikit-learn. Losses are of predictions made before their label was known: log loss as `CalibrationScore` has it,
a decayed mean over about 200 predictions, and for durations the mean absolute error in seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean

from fedstep.history.project_store import ProjectStore
from fedstep.history.records import BuildRecord, Forecast
from fedstep.history.summary import PlannedBuild, Summary, apply_record, past_build
from fedstep.model.linear import zeros
from fedstep.model.predictor import Predictor
from fedstep.model.state import ExampleQueue, LocalModel
from fedstep.model.training import learn_record
from fedstep.report.project_page import ValueOfSharing
from fedstep.results import Interval
from fedstep.schema.schema import TASK_NAMES, schema
from fedstep.types import Unavailable

SCORED = ("flaky", "triage", "build-failure")
FEWEST = 20  # labelled examples of a task; with fewer it is left out


@dataclass(slots=True)
class _ReplayBuilder:
    """One way to learn the records: with these shared weights, from an empty local model."""

    production: Mapping[str, Sequence[float]]
    correction: LocalModel = field(default_factory=LocalModel)
    backlog: ExampleQueue = field(default_factory=ExampleQueue)
    errors: list[float] = field(default_factory=list)  # of durations, in seconds

    def predict(self, summary: Summary, planned: PlannedBuild, seconds: float) -> None:
        """Note the error of the expected duration."""
        expected = Predictor(self.production, self.correction).duration(summary, planned)
        if isinstance(expected, Interval):
            self.errors.append(abs(seconds - expected.seconds))

    def learn(self, record: BuildRecord, summary: Summary) -> None:
        """Learn a record that is applied to the summary."""
        step = learn_record(self.correction, self.backlog, record, summary.tests, self.production)
        self.correction = step.correction
        self.backlog = step.backlog._replace(waiting={})


def value_of_sharing(
    store: ProjectStore, production: Mapping[str, Sequence[float]]
) -> tuple[ValueOfSharing, ...] | Unavailable:
    """Return the losses without and with the shared weights `production`, by task; Unavailable with too few builds."""
    alone, shared = _ReplayBuilder(_no_weights()), _ReplayBuilder(production)
    _replay(store, (alone, shared))
    losses = [*_losses(alone.correction, shared.correction), *_errors(alone.errors, shared.errors)]
    return tuple(losses) or Unavailable(f"fewer than {FEWEST} predictions have a known outcome")


def value_of_live_sharing(store: ProjectStore, live: LocalModel) -> tuple[ValueOfSharing, ...] | Unavailable:
    """Return the losses of a replay without shared weights beside those of the predictions that were really made.

    `live` is the local model of the history, which was learned on top of the shared weights of each moment.
    """
    alone = _ReplayBuilder(_no_weights())
    records = _replay(store, (alone,))
    made = [
        abs(record.seconds - record.forecast.seconds)
        for record in records
        if isinstance(record.forecast, Forecast) and record.forecast.seconds > 0 and record.seconds > 0
    ]
    same = min(len(made), len(alone.errors))
    losses = [*_losses(alone.correction, live), *_errors(alone.errors[-same:], made[-same:] if same else [])]
    return tuple(losses) or Unavailable(f"fewer than {FEWEST} predictions have a known outcome")


def _no_weights() -> Mapping[str, Sequence[float]]:
    return {task: zeros(schema().tasks[task].size()) for task in TASK_NAMES}


def _replay(store: ProjectStore, replays: Sequence[_ReplayBuilder]) -> list[BuildRecord]:
    """Let each way predict and then learn every record of the log; return the records without their tests."""
    summary, records = Summary(), []
    for file, record in store.log.entries(store.log.files()):
        if not isinstance(record, BuildRecord):
            continue
        past = past_build(record)
        planned = PlannedBuild(**{name: getattr(past, name) for name in PlannedBuild._fields})
        for replay in replays:
            if record.seconds > 0:
                replay.predict(summary, planned, record.seconds)
        summary = apply_record(summary, file, record)
        for replay in replays:
            replay.learn(record, summary)
        records.append(record._replace(tests=(), rows={}, source_words={}))
    return records


def _losses(alone: LocalModel, shared: LocalModel) -> list[ValueOfSharing]:
    pairs = ((task, alone.scores.get(task), shared.scores.get(task)) for task in SCORED)
    return [
        ValueOfSharing(task, own.observed, own.log_loss, both.log_loss)
        for task, own, both in pairs
        if own and both and own.observed >= FEWEST
    ]


def _errors(alone: Sequence[float], shared: Sequence[float]) -> list[ValueOfSharing]:
    if min(len(alone), len(shared)) < FEWEST:
        return []
    return [ValueOfSharing("build-duration (s)", len(alone), mean(alone), mean(shared))]
