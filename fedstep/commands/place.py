"""Where a command works and with whom it talks, from its options."""

import os
import time
from typing import Any

from fedstep.build.record import Absent
from fedstep.commands.options import Given
from fedstep.errors import FedstepError, HistoryError, UsageError
from fedstep.history.home import Home
from fedstep.workplace import Workplace, find_workplace

__all__ = ["aggregator_of", "mark_start", "needed_aggregator", "place_of", "readable", "run_name"]


def place_of(given: Given) -> Workplace:
    """The workplace, with the history that the options name."""
    if given["history"] == "git":
        raise UsageError("--history git is not in this version of fedstep", "Give a folder")
    return find_workplace(given["history"], os.environ)


def readable(place: Workplace) -> tuple[Workplace, tuple[FedstepError, ...]]:
    """The place itself; where its history cannot be read the same with an empty one, and why."""
    try:
        place.home.read("key")
        place.home.log.files()
    except HistoryError as error:
        empty = Home(f"{place.home.folder}.{os.urandom(8).hex()}")
        return place._replace(home=empty), (error,)
    return place, ()


def mark_start(place: Workplace) -> tuple[FedstepError, ...]:
    """Remember that the job starts now; the error survived, if any."""
    try:
        place.home.prepare()
        place.home.mark_start(run_name(place), place.now)
    except HistoryError as error:
        return (error,)
    return ()


def run_name(place: Workplace) -> str:
    """A keyed hash that names the job run."""
    ci = place.ci
    return place.home.keyed("run", ci.vendor, ci.run, str(ci.attempt), ci.job, ci.cell)


def aggregator_of(given: Given, place: Workplace) -> Any:
    """The aggregator, or the reason why there is none."""
    if not given["aggregator"]:
        return Absent("no aggregator is configured")
    return needed_aggregator(given, place)


def needed_aggregator(given: Given, place: Workplace) -> Any:
    """The aggregator. Raises UsageError where none is given."""
    from fedstep.federation.exchange import Aggregator
    from fedstep.federation.patience import Patience
    from fedstep.federation.transport import requests_send

    if not given["aggregator"]:
        raise UsageError("no aggregator is given", "Give one with --aggregator or FEDSTEP_AGGREGATOR")
    spent = time.time() - place.now
    patience = Patience(timeout=given["timeout"], deadline=time.monotonic() + given["budget"] - spent)
    return Aggregator(given["aggregator"], requests_send(given["aggregator"], given["token"]), patience)
