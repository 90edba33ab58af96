"""Where a command works and with whom it talks, from its options."""

import os
import time
from typing import Any

from fedstep.build.gitrun import common_folder, repository_root
from fedstep.build.record import Absent, CiRun
from fedstep.commands.options import Given
from fedstep.commands.sinks import say
from fedstep.errors import FedstepError, HistoryError, UsageError
from fedstep.history.home import Home
from fedstep.workplace import Workplace, find_workplace, in_ci

__all__ = [
    "aggregator_of",
    "mark_start",
    "marked_start",
    "nameless",
    "needed_aggregator",
    "part_of",
    "place_of",
    "readable",
    "travels",
]

WITHOUT_GIT = ".fedstep"  # the folder, from the root, where a history that is to travel cannot
LONGEST_PART = 80  # bytes; each may become three letters in the name of one folder


def place_of(given: Given) -> Workplace:
    """The workplace, with the history that the options name: a folder, or the copy of a ref in the folder of git."""
    folder, part = given["history"], part_of(given)
    if travels(given):
        folder = f"{common_folder(repository_root(os.getcwd()))}/fedstep"
    elif folder == "git":
        folder = WITHOUT_GIT
    if part:
        from fedstep.history.shared import folder_name

        folder = f"{folder or WITHOUT_GIT}/parts/{folder_name(part)}"
    return find_workplace(folder, os.environ)


def travels(given: Given) -> bool:
    """Whether the history is kept in a ref: it is asked for, and this is a repository."""
    return bool(given["history"] == "git" and repository_root(os.getcwd()))


def part_of(given: Given) -> str:
    """The part of the repository that has a history of its own. Raises UsageError for a path that leads out of it."""
    path = str(given.get("path") or "").replace("\\", "/")
    folders = [folder for folder in path.split("/") if folder not in ("", ".")]
    if ".." in folders or path.startswith("/") or not path.isprintable() or len(path.encode()) > LONGEST_PART:
        raise UsageError(f"--path {path[:80]!r} is no folder of this repository", "Give it from the root: services/api")
    return "/".join(folders)


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
    """Remember that the job starts now, where the CI names its run; the error survived, if any."""
    try:
        place.home.prepare()
        if place.ci.run:
            place.home.mark_start(_run_name(place), place.now)
    except HistoryError as error:
        return (error,)
    return ()


def marked_start(place: Workplace) -> float | None:
    """When `mark_start` was called in this job run; None where it was not, or nothing tells this run from another."""
    return place.home.started(_run_name(place)) if place.ci.run else None


def nameless(ci: CiRun) -> str:
    """What is lost in a CI that names no run and no start, and the remedy; "" elsewhere."""
    if ci.run or isinstance(ci.started_at, float) or not in_ci(ci):
        return ""
    return (
        "this CI does not tell which run this is: the build's time is the sum of its tests' times. "
        "Set FEDSTEP_CI_RUN to a number of the run, for all steps"
    )


def _run_name(place: Workplace) -> str:
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

    if not given["aggregator"]:
        raise UsageError("no aggregator is given", "Give one with --aggregator or FEDSTEP_AGGREGATOR")
    spent = time.time() - place.now
    patience = Patience(timeout=given["timeout"], deadline=time.monotonic() + given["budget"] - spent)
    send = _send_to(given["aggregator"], given["token"])
    return Aggregator(given["aggregator"], send, patience, _helper_of(given))


def _helper_of(given: Given) -> Any:
    """The helper, or the reason why there is none. Raises UsageError for one that is the aggregator itself."""
    from urllib.parse import urlsplit

    from fedstep.federation.twins import Peer

    url = given.get("helper") or ""
    if not url:
        return Absent("no helper is configured")
    if urlsplit(url).netloc.lower() == urlsplit(given["aggregator"]).netloc.lower():
        raise UsageError("--helper is the aggregator itself, which would hold both halves", "Give the helper's URL.")
    return Peer(url, _send_to(url, given["helper_token"]))


def _send_to(url: str, token: str) -> Any:
    """What asks there. A token that others can read on its way is said: in a network of one's own that may be meant."""
    from fedstep.federation.ci_token import ci_send
    from fedstep.federation.transport import exposed, redacted

    send = ci_send(url, token, os.environ)
    if token.strip() and exposed(url):
        say(f"the token for {redacted(url)} travels for everyone on the way to read. Use an https:// URL")
    return send
