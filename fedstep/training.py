"""One train step from evidence to report: whatever goes wrong on the way, what went right is kept and said."""

from dataclasses import dataclass, field
from pathlib import Path

from fedstep.build.record import Absent, Evidence
from fedstep.errors import AggregatorError, Declined, HistoryError, MissingExtra
from fedstep.federation.exchange import Aggregator, deliver, refresh
from fedstep.federation.kept import Kept, kept_model
from fedstep.federation.outbox import Outbox
from fedstep.federation.turn import is_turn, took_turn
from fedstep.federation.wire import pack_update, unpack_update
from fedstep.history.home import Home
from fedstep.outlook import keep_outlook, outlook
from fedstep.report.findings import Exchange, Rows, SentUpdate, TestRisk, Training
from fedstep.steps import (
    Observation,
    Problems,
    Words,
    blind,
    forecaster_for,
    incident_reason,
    model_used,
    observe,
    reading_of,
    record,
    unusable,
)

__all__ = ["Learned", "Trained", "learn", "train"]

ALREADY_KNOWN = "this build is in the history already; nothing is learned twice"
UNTRUSTED = "this run comes from a fork or Dependabot: nothing is learned or sent. Nothing to do, it counts once merged"


@dataclass(frozen=True, slots=True)
class Trained:
    """The report of a train step, and the errors that it survived."""

    training: Training
    problems: Problems


@dataclass(frozen=True, slots=True)
class Learned:
    """What learning did: rows that ripened and that wait, the warnings on the way."""

    rows: Rows = field(default_factory=Rows)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Pulled:
    before: Kept
    after: Kept
    problems: Problems = ()


def train(
    home: Home, evidence: Evidence, words: Words, aggregator: Aggregator | Absent, now: float, keep: int
) -> Trained:
    """Pull the model, judge the build with it, record and learn the build, send the update when a batch is full."""
    trusted = not evidence.situation.ci.untrusted
    pulled = _pull(home, aggregator if trusted else Absent(UNTRUSTED), now)
    seen = observe(home, evidence, pulled.after)
    if not trusted:
        flakiest = outlook(home, pulled.after, forecaster_for(home, pulled.after)).flakiest
        return _reported(flakiest, seen, pulled, Learned(warnings=(UNTRUSTED,)), Absent(UNTRUSTED), (), now)
    fresh = record(home, seen, words)
    home.log.prune(keep)
    learned, problems = _learn(home, pulled)
    exchange, more = _exchange(home, aggregator, pulled)
    notes = learned if fresh else Learned(learned.rows, (ALREADY_KNOWN, *learned.warnings))
    flakiest = keep_outlook(home, pulled.after, forecaster_for(home, pulled.after)).flakiest
    return _reported(flakiest, seen, pulled, notes, exchange, (*pulled.problems, *problems, *more), now)


def learn(home: Home, kept: Kept) -> Learned:
    """Learn every record not yet learned; put an update into the outbox when a batch is full. Needs scikit-learn."""
    try:
        from fedstep.federation.batch import make_update
        from fedstep.model.catch_up import catch_up, store_state
    except ImportError as error:
        remedy = "Run: pip install 'fedstep[train]'. The build is kept and will be learned then"
        raise MissingExtra(f"nothing was learned, {error.name or 'scikit-learn'} is not installed", remedy) from error
    progress = catch_up(home, kept.model.production)
    state = progress.state
    if kept.url and is_turn(home, kept):
        update, backlog = make_update(state.backlog, kept.model, home.keyed)
        if not isinstance(update, Absent):
            Outbox(Path(home.outbox)).keep(pack_update(update))
            took_turn(home, kept)
        state = type(state)(state.summary, state.correction, backlog)
    store_state(home, state)
    waiting = sum(len(rows) for rows in state.backlog.waiting.values())
    return Learned(Rows(progress.ripened, progress.ripened, progress.ripened, waiting), progress.warnings)


def _pull(home: Home, aggregator: Aggregator | Absent, now: float) -> _Pulled:
    before = kept_model(home)
    if isinstance(aggregator, Absent):
        return _Pulled(before, before)
    try:
        return _Pulled(before, refresh(home, aggregator, now))
    except AggregatorError as error:
        return _Pulled(before, before, (error,))


def _learn(home: Home, pulled: _Pulled) -> tuple[Learned, Problems]:
    try:
        return learn(home, pulled.after), ()
    except MissingExtra as error:
        return Learned(), (error,)


def _exchange(home: Home, aggregator: Aggregator | Absent, pulled: _Pulled) -> tuple[Exchange | Absent, Problems]:
    """Send what waits; after a pull that failed nothing is tried again, the updates wait for the next build."""
    if isinstance(aggregator, Absent):
        return aggregator, ()
    waiting = Outbox(Path(home.outbox)).waiting()
    if pulled.problems:
        return _told(aggregator.url, (), len(waiting.updates), pulled), ()
    flushed = deliver(home, aggregator)
    arrived = {receipt.id for receipt in flushed.sent}
    sent = tuple(_sent(body) for number, body in waiting.updates if number in arrived)
    damaged = map(HistoryError, flushed.warnings)
    refused = (error for error in flushed.refused if not isinstance(error, Declined))
    return _told(aggregator.url, sent, flushed.waiting, pulled), (*flushed.failures, *refused, *damaged)


def _sent(body: bytes) -> SentUpdate:
    return SentUpdate(len(body), tuple(unpack_update(body).rows.items()))


def _told(url: str, sent: tuple[SentUpdate, ...], unsent: int, pulled: _Pulled) -> Exchange:
    before, after = pulled.before.model, pulled.after.model
    return Exchange(
        url,
        sent,
        unsent,
        before.head_version,
        after.head_version,
        before.production_version,
        after.production_version,
    )


def _reported(
    flakiest: tuple[TestRisk, ...],
    seen: Observation,
    pulled: _Pulled,
    learned: Learned,
    exchange: Exchange | Absent,
    problems: Problems,
    now: float,
) -> Trained:
    reports = seen.build.reports
    problems = (*unusable(reports), *blind(seen.build.situation.change), *problems)
    degraded = bool(problems) or seen.build.situation.ci.untrusted
    status = "degraded" if degraded else "ok" if isinstance(exchange, Exchange) else "local"
    training = Training(
        status=status,
        build=seen.build.name,
        outcome=seen.build.outcome,
        duration=seen.build.duration,
        expected=seen.expected,
        failures=seen.failures,
        flakiest=flakiest,
        model=model_used(pulled.after, now),
        reading=reading_of(reports),
        rows=learned.rows,
        exchange=exchange,
        incident=bool(incident_reason(reports)),
        incident_reason=incident_reason(reports),
        # Once each: a record that cannot be read is met when the build is judged, and again when the past is learned.
        warnings=tuple(dict.fromkeys((*map(str, problems), *learned.warnings, *seen.warnings))),
    )
    return Trained(training, problems)
