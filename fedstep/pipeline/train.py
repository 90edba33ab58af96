"""One train step from evidence to report: whatever goes wrong on the way, what went right is kept and said."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from fedstep.errors import AggregatorError, ContributionNotDue, HistoryError, MissingExtra
from fedstep.federation.messages import Update, pack_update, unpack_update
from fedstep.federation.model_cache import CachedModel, load_model
from fedstep.federation.outbox import Outbox
from fedstep.federation.sync import Aggregator, may_contribute, pull_model, push_pending, record_contribution
from fedstep.history.project_store import Busy, ProjectStore, exclusive
from fedstep.pipeline.operations import (
    BuildEvaluation,
    Problems,
    Words,
    change_problems,
    count_reports,
    describe_model,
    evaluate_build,
    incident_reason,
    load_predictor,
    record_build,
    report_problems,
)
from fedstep.pipeline.prediction_cache import load_prediction, save_prediction
from fedstep.results import ExampleCounts, Exchange, SentUpdate, TestRisk, TrainReport
from fedstep.types import FinishedBuild, Unavailable

ALREADY_KNOWN = "this build is in the history already; nothing is learned twice"
NO_PULL = "the model was not pulled"
UNTRUSTED = "this run comes from a fork or Dependabot: nothing is learned or sent. Nothing to do, it counts once merged"


@dataclass(frozen=True, slots=True)
class TrainResult:
    """The report of a train step, and the errors that it survived."""

    training: TrainReport
    problems: Problems


@dataclass(frozen=True, slots=True)
class LearnResult:
    """What learning did: rows that ripened and that wait, the warnings on the way."""

    rows: ExampleCounts = field(default_factory=ExampleCounts)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Pulled:
    before: CachedModel
    after: CachedModel
    problems: Problems = ()


def train(
    home: ProjectStore,
    evidence: FinishedBuild,
    words: Words,
    aggregator: Aggregator | Unavailable,
    now: float,
    keep: int,
    withheld: str = "",
) -> TrainResult:
    """Pull the model, judge the build with it, record and learn the build, send the update when a batch is full.

    No update is made where `withheld` says why.
    """
    trusted = not evidence.situation.ci.untrusted
    pulled = _pull(home, aggregator if trusted else Unavailable(UNTRUSTED), now)
    seen = evaluate_build(home, evidence, pulled.after)
    if not trusted:
        flakiest = load_prediction(home, pulled.after, load_predictor(home, pulled.after)).flakiest
        return _reported(flakiest, seen, pulled, LearnResult(warnings=(UNTRUSTED,)), Unavailable(UNTRUSTED), (), now)
    fresh = record_build(home, seen, words)
    home.log.prune(keep)
    learned, problems = _learn(home, pulled, withheld)
    exchange, more = _exchange(home, aggregator, pulled)
    exchange = exchange if isinstance(exchange, Unavailable) else exchange._replace(withheld=withheld)
    notes = learned if fresh else LearnResult(learned.rows, (ALREADY_KNOWN, *learned.warnings))
    flakiest = save_prediction(home, pulled.after, load_predictor(home, pulled.after)).flakiest
    return _reported(flakiest, seen, pulled, notes, exchange, (*pulled.problems, *problems, *more), now)


def learn(home: ProjectStore, kept: CachedModel, withheld: str = "") -> LearnResult:
    """Learn every record not yet learned; put an update into the outbox when a batch is full. Needs scikit-learn.

    No update is made where `withheld` says why: its rows wait. Raises MissingExtra, HistoryError.
    """
    try:
        from fedstep.federation.update_builder import make_update
        from fedstep.model.training import learn_new_records, store_state
    except ImportError as error:
        remedy = "Run: pip install 'fedstep[train]'. The build is kept and will be learned then"
        raise MissingExtra(f"nothing was learned, {error.name or 'scikit-learn'} is not installed", remedy) from error
    with exclusive(home):
        progress = learn_new_records(home, kept.model.production)
        state = progress.state
        update: Update | Unavailable = Unavailable(withheld)
        if kept.url and not withheld and may_contribute(home, kept):
            update, backlog = make_update(state.backlog, kept.model, home.keyed)
            state = replace(state, backlog=backlog)
        with _kept(home, kept, update):
            store_state(home, state)
    waiting = sum(len(rows) for rows in state.backlog.waiting.values())
    return LearnResult(ExampleCounts(progress.ripened, progress.ripened, progress.ripened, waiting), progress.warnings)


@contextmanager
def _kept(home: ProjectStore, kept: CachedModel, update: Update | Unavailable) -> Iterator[None]:
    """The update is in the outbox once the block has stored that its rows do not wait any more."""
    if isinstance(update, Unavailable):
        yield
        return
    with Outbox(Path(home.outbox)).keeping(pack_update(update)):
        record_contribution(home, kept)
        yield


def _pull(home: ProjectStore, aggregator: Aggregator | Unavailable, now: float) -> _Pulled:
    before = load_model(home)
    if isinstance(aggregator, Unavailable):
        return _Pulled(before, before)
    try:
        return _Pulled(before, pull_model(home, aggregator, now))
    except AggregatorError as error:
        return _Pulled(before, before, (error,))


def _learn(home: ProjectStore, pulled: _Pulled, withheld: str) -> tuple[LearnResult, Problems]:
    """What was learned. After a pull that failed no update is made: it would be old before it could be sent."""
    try:
        return learn(home, pulled.after, withheld or (NO_PULL if pulled.problems else "")), ()
    except MissingExtra as error:
        return LearnResult(), (error,)
    except Busy as error:
        return LearnResult(warnings=(str(error),)), ()


def _exchange(
    home: ProjectStore, aggregator: Aggregator | Unavailable, pulled: _Pulled
) -> tuple[Exchange | Unavailable, Problems]:
    """Send what waits; after a pull that failed nothing is tried again, the updates wait for the next build."""
    if isinstance(aggregator, Unavailable):
        return aggregator, ()
    if pulled.problems:
        waiting = Outbox(Path(home.outbox)).waiting()
        return _told(aggregator.url, (), len(waiting.updates), pulled), tuple(map(HistoryError, waiting.warnings))
    flushed = push_pending(home, aggregator)
    damaged = map(HistoryError, flushed.warnings)
    refused = (error for error in flushed.refused if not isinstance(error, ContributionNotDue))
    sent = tuple(map(_sent, flushed.bodies))
    return _told(aggregator.url, sent, flushed.waiting, pulled), (*flushed.failures, *refused, *damaged)


def _sent(body: bytes) -> SentUpdate:
    return SentUpdate(len(body), tuple(unpack_update(body).rows.items()))


def _told(url: str, sent: tuple[SentUpdate, ...], unsent: int, pulled: _Pulled) -> Exchange:
    before, after = pulled.before.model, pulled.after.model
    return Exchange(
        url,
        sent,
        unsent,
        before.candidate_version,
        after.candidate_version,
        before.production_version,
        after.production_version,
    )


def _reported(
    flakiest: tuple[TestRisk, ...],
    seen: BuildEvaluation,
    pulled: _Pulled,
    learned: LearnResult,
    exchange: Exchange | Unavailable,
    problems: Problems,
    now: float,
) -> TrainResult:
    reports = seen.build.reports
    problems = (*report_problems(reports), *change_problems(seen.build.situation.change), *problems)
    degraded = bool(problems) or seen.build.situation.ci.untrusted
    status = "degraded" if degraded else "ok" if isinstance(exchange, Exchange) else "local"
    training = TrainReport(
        status=status,
        build=seen.build.name,
        outcome=seen.build.outcome,
        duration=seen.build.duration,
        expected=seen.expected,
        failures=seen.failures,
        flakiest=flakiest,
        model=describe_model(pulled.after, now),
        reading=count_reports(reports),
        rows=learned.rows,
        exchange=exchange,
        incident=bool(incident_reason(reports)),
        incident_reason=incident_reason(reports),
        # Once each: a record that cannot be read is met when the build is judged, and again when the past is learned.
        warnings=tuple(dict.fromkeys((*map(str, problems), *learned.warnings, *seen.warnings))),
    )
    return TrainResult(training, problems)
