"""One train step from evidence to report: whatever goes wrong on the way, what went right is kept and said."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from fedstep.build.record import Absent, Evidence
from fedstep.errors import AggregatorError, Declined, HistoryError, MissingExtra
from fedstep.federation.exchange import Aggregator, deliver, refresh
from fedstep.federation.kept import Kept, kept_model
from fedstep.federation.outbox import Outbox
from fedstep.federation.turn import is_turn, took_turn
from fedstep.federation.wire import Update, pack_update, unpack_update
from fedstep.history.home import Home
from fedstep.history.lock import Busy, alone
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
NO_PULL = "the model was not pulled"
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
    home: Home,
    evidence: Evidence,
    words: Words,
    aggregator: Aggregator | Absent,
    now: float,
    keep: int,
    withheld: str = "",
) -> Trained:
    """Pull the model, judge the build with it, record and learn the build, send the update when a batch is full.

    No update is made where `withheld` says why.
    """
    trusted = not evidence.situation.ci.untrusted
    pulled = _pull(home, aggregator if trusted else Absent(UNTRUSTED), now)
    seen = observe(home, evidence, pulled.after)
    if not trusted:
        flakiest = outlook(home, pulled.after, forecaster_for(home, pulled.after)).flakiest
        return _reported(flakiest, seen, pulled, Learned(warnings=(UNTRUSTED,)), Absent(UNTRUSTED), (), now)
    fresh = record(home, seen, words)
    home.log.prune(keep)
    learned, problems = _learn(home, pulled, withheld)
    exchange, more = _exchange(home, aggregator, pulled)
    exchange = exchange if isinstance(exchange, Absent) else exchange._replace(withheld=withheld)
    notes = learned if fresh else Learned(learned.rows, (ALREADY_KNOWN, *learned.warnings))
    flakiest = keep_outlook(home, pulled.after, forecaster_for(home, pulled.after)).flakiest
    return _reported(flakiest, seen, pulled, notes, exchange, (*pulled.problems, *problems, *more), now)


def learn(home: Home, kept: Kept, withheld: str = "") -> Learned:
    """Learn every record not yet learned; put an update into the outbox when a batch is full. Needs scikit-learn.

    No update is made where `withheld` says why: its rows wait. Raises MissingExtra, HistoryError.
    """
    try:
        from fedstep.federation.batch import make_update
        from fedstep.model.catch_up import catch_up, store_state
    except ImportError as error:
        remedy = "Run: pip install 'fedstep[train]'. The build is kept and will be learned then"
        raise MissingExtra(f"nothing was learned, {error.name or 'scikit-learn'} is not installed", remedy) from error
    with alone(home):
        progress = catch_up(home, kept.model.production)
        state = progress.state
        update: Update | Absent = Absent(withheld)
        if kept.url and not withheld and is_turn(home, kept):
            update, backlog = make_update(state.backlog, kept.model, home.keyed)
            state = replace(state, backlog=backlog)
        with _kept(home, kept, update):
            store_state(home, state)
    waiting = sum(len(rows) for rows in state.backlog.waiting.values())
    return Learned(Rows(progress.ripened, progress.ripened, progress.ripened, waiting), progress.warnings)


@contextmanager
def _kept(home: Home, kept: Kept, update: Update | Absent) -> Iterator[None]:
    """The update is in the outbox once the block has stored that its rows do not wait any more."""
    if isinstance(update, Absent):
        yield
        return
    with Outbox(Path(home.outbox)).keeping(pack_update(update)):
        took_turn(home, kept)
        yield


def _pull(home: Home, aggregator: Aggregator | Absent, now: float) -> _Pulled:
    before = kept_model(home)
    if isinstance(aggregator, Absent):
        return _Pulled(before, before)
    try:
        return _Pulled(before, refresh(home, aggregator, now))
    except AggregatorError as error:
        return _Pulled(before, before, (error,))


def _learn(home: Home, pulled: _Pulled, withheld: str) -> tuple[Learned, Problems]:
    """What was learned. After a pull that failed no update is made: it would be old before it could be sent."""
    try:
        return learn(home, pulled.after, withheld or (NO_PULL if pulled.problems else "")), ()
    except MissingExtra as error:
        return Learned(), (error,)
    except Busy as error:
        return Learned(warnings=(str(error),)), ()


def _exchange(home: Home, aggregator: Aggregator | Absent, pulled: _Pulled) -> tuple[Exchange | Absent, Problems]:
    """Send what waits; after a pull that failed nothing is tried again, the updates wait for the next build."""
    if isinstance(aggregator, Absent):
        return aggregator, ()
    if pulled.problems:
        waiting = Outbox(Path(home.outbox)).waiting()
        return _told(aggregator.url, (), len(waiting.updates), pulled), tuple(map(HistoryError, waiting.warnings))
    flushed = deliver(home, aggregator)
    damaged = map(HistoryError, flushed.warnings)
    refused = (error for error in flushed.refused if not isinstance(error, Declined))
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
