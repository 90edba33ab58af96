"""A history that travels: fetched before a command works with it, published after."""

import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from fedstep.commands.options import Given
from fedstep.commands.place import WITHOUT_GIT, part_of, travels
from fedstep.commands.sinks import say
from fedstep.errors import FedstepError, HistoryError
from fedstep.report.findings import Prediction, Training, Triage
from fedstep.workplace import Workplace, in_ci

if TYPE_CHECKING:
    from fedstep.history.gitref import Channel

__all__ = ["channel_of", "fetch_now", "fetched", "publish_now", "published", "worse"]

F = TypeVar("F", Prediction, Training, Triage)
Problems = tuple[FedstepError, ...]

BY_HAND_SECONDS = 1.0  # what a developer waits for a fetch
IN_CI_SECONDS = 10.0
FRESH_FOR = 4 * 3600.0  # seconds in which a developer's commands do not ask the remote again
RETRY_AFTER = 15 * 60.0  # seconds after an attempt that failed


def fetched(given: Given, place: Workplace, seconds: float = 0.0) -> Problems:
    """Take in what others have published, where the history is one that travels; the errors survived.

    The remote is asked, for so many seconds; with 0 only where that is due.
    """
    if given["history"] != "git":
        return ()
    if not travels(given):
        remedy = f"Run it inside a clone; the folder {WITHOUT_GIT} is used"
        return (HistoryError("--history git needs a git repository, and this is none", remedy),)
    try:
        if seconds:
            fetch_now(given, place, seconds)
        else:
            _fetch_if_due(given, place)
    except HistoryError as error:
        with suppress(HistoryError):
            _take_what_is_here(given, place)
        return (error,)
    return ()


def published(given: Given, place: Workplace) -> Problems:
    """Publish what is new here, where the history travels and the run is one of ours; the errors survived."""
    if not travels(given) or place.ci.untrusted:
        return ()
    try:
        publish_now(given, place, given["keep"], given["budget"] - (time.time() - place.now))
    except HistoryError as error:
        return (error,)
    return ()


def worse(finding: F, problems: Problems) -> F:
    """The finding with these problems said first."""
    if not problems:
        return finding
    return finding._replace(status="degraded", warnings=(*map(str, problems), *finding.warnings))


def channel_of(given: Given, place: Workplace) -> "Channel":
    """The ref in which this history travels."""
    from fedstep.history.sync import open_channel

    return open_channel(place.root, part_of(given))


def fetch_now(given: Given, place: Workplace, seconds: float) -> None:
    """Fetch and take in, within this time; what is ignored is said. HistoryError where it failed."""
    from fedstep.history.sync import receive

    say(*receive(place.home, channel_of(given, place), seconds, place.now).warnings)


def publish_now(given: Given, place: Workplace, keep: int, seconds: float) -> bool:
    """Publish within this time; whether there was anything new. HistoryError where it failed."""
    from random import random

    from fedstep.history.sync import WAITS, publish

    waits = tuple(wait * (0.5 + random()) for wait in WAITS)
    return publish(place.home, channel_of(given, place), keep, place.now, seconds, waits).new


def _fetch_if_due(given: Given, place: Workplace) -> None:
    """In CI always; by hand when the last fetch is old; else take in what git has fetched since."""
    from fedstep.history.intake import load_seen

    seen = load_seen(place.home)
    if in_ci(place.ci):
        fetch_now(given, place, IN_CI_SECONDS)
    elif place.now - seen.fetched_at >= FRESH_FOR and place.now - seen.tried_at >= RETRY_AFTER:
        fetch_now(given, place, BY_HAND_SECONDS)
    else:
        _take_what_is_here(given, place)


def _take_what_is_here(given: Given, place: Workplace) -> None:
    """Take the ref of this clone in, if it is not the one that was taken in last: somebody has run `git fetch`."""
    from fedstep.history.gitref import Channel, local_commit
    from fedstep.history.intake import load_seen, take_in

    if local_commit(place.root) != load_seen(place.home).commit:
        say(*take_in(place.home, Channel(place.root, part=part_of(given))).warnings)
