"""Learns every record that the caches have not seen, and keeps what was learned. Needs scikit-learn."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fedstep.build.record import Absent, Dropped
from fedstep.errors import HistoryError
from fedstep.history.entry import Entry
from fedstep.history.files import BACKLOG, CORRECTION
from fedstep.history.home import Home
from fedstep.history.memory import forget_pruned, generation, read_summary, store_summary, unseen
from fedstep.history.summary import Summary, fold
from fedstep.model.labels import Ripe
from fedstep.model.learner import Production, absorb
from fedstep.model.state import (
    Backlog,
    Correction,
    load_backlog,
    load_correction,
    save_backlog,
    save_correction,
)

__all__ = ["Progress", "State", "catch_up", "learn_again", "load_state", "lost", "store_state", "waiting_rows"]


@dataclass(frozen=True, slots=True)
class State:
    """All that is made from the log."""

    summary: Summary = field(default_factory=Summary)
    correction: Correction = field(default_factory=Correction)
    backlog: Backlog = field(default_factory=Backlog)


@dataclass(frozen=True, slots=True)
class Progress:
    """The state after catching up: how many records it took, how many rows ripened, and what was skipped."""

    state: State
    records: int = 0
    ripened: int = 0
    warnings: tuple[str, ...] = ()


def load_state(home: Home) -> State:
    """The cached state, or an empty one (then all is learned again) unless its parts fit each other."""
    state = _cached(home)
    return State() if isinstance(state, Absent) else state


def lost(home: Home) -> bool:
    """Whether something was learned here and its caches are damaged, in part gone, or do not fit each other."""
    return isinstance(_cached(home), Absent) and _was_learned(home)


def waiting_rows(home: Home) -> Mapping[str, tuple[Ripe, ...]]:
    """The rows that wait to be sent, whether or not the other caches fit; none where that cannot be read."""
    try:
        return load_backlog(home.read(BACKLOG))[0].waiting
    except HistoryError:
        return {}


def store_state(home: Home, state: State) -> None:
    """Keep the state; whoever reads between the writes sees generations that do not fit, and learns again."""
    name = generation(state.summary)
    home.write(BACKLOG, save_backlog(state.backlog, name))
    home.write(CORRECTION, save_correction(state.correction, name))
    store_summary(home, state.summary)


def catch_up(home: Home, production: Production) -> Progress:
    """The state with every record of the log learned, oldest first; stored by `store_state`, not here."""
    state = _cached(home)
    if not isinstance(state, Absent):
        return _caught_up(home, state, production)
    return learn_again(home, production) if _was_learned(home) else _caught_up(home, State(), production)


def learn_again(home: Home, production: Production) -> Progress:
    """The same from nothing. Only rows that waited to be sent wait: of the others nobody knows that they were not."""
    progress = _caught_up(home, State(), production)
    backlog = progress.state.backlog._replace(waiting=waiting_rows(home))
    return replace(progress, state=replace(progress.state, backlog=backlog))


def _caught_up(home: Home, state: State, production: Production) -> Progress:
    progress = Progress(replace(state, summary=forget_pruned(home, state.summary)))
    for name, entry in unseen(home, progress.state.summary):
        progress = (
            _after(progress, name, entry, production) if not isinstance(entry, Dropped) else _past(progress, entry)
        )
    return progress


def _after(progress: Progress, name: str, entry: Entry, production: Production) -> Progress:
    state = progress.state
    summary = fold(state.summary, name, entry)
    learned = absorb(state.correction, state.backlog, entry, summary.tests, production)
    return Progress(
        State(summary, learned.correction, learned.backlog),
        progress.records + 1,
        progress.ripened + learned.ripened,
        progress.warnings,
    )


def _past(progress: Progress, dropped: Dropped) -> Progress:
    summary = progress.state.summary
    return replace(
        progress,
        state=replace(progress.state, summary=replace(summary, seen=summary.seen | {dropped.source})),
        warnings=(*progress.warnings, f"{dropped.source} is skipped: {dropped.reason}"),
    )


def _cached(home: Home) -> State | Absent:
    summary = read_summary(home)
    try:
        backlog, at_backlog = load_backlog(home.read(BACKLOG))
        correction, at_correction = load_correction(home.read(CORRECTION))
    except HistoryError as error:
        return Absent(str(error))
    fits = at_backlog == at_correction == generation(summary)
    return State(summary, correction, backlog) if fits else Absent("the caches are of different generations")


def _was_learned(home: Home) -> bool:
    return any(map(home.read, (BACKLOG, CORRECTION)))
