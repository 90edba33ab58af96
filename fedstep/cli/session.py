"""Where a command works and with whom it talks, from its options."""

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from fedstep.cli.options import Options
from fedstep.cli.output import echo_warnings
from fedstep.errors import FedstepError, HistoryError, UsageError
from fedstep.history.project_store import ProjectStore
from fedstep.ingest.git_process import repository_root
from fedstep.pipeline.context import RunContext, find_context, in_ci, normalize_part
from fedstep.results import Prediction, TrainReport, TriageReport
from fedstep.types import CiRun, Unavailable

if TYPE_CHECKING:
    from fedstep.history.git_transport import GitChannel

WITHOUT_GIT = ".fedstep"  # the folder, from the root, where a history that is to travel cannot


def context_from(given: Options) -> RunContext:
    """The workplace, with the history that the options name: a folder, or the copy of a ref in the folder of git."""
    return find_context(os.getcwd(), given["history"], part_of(given), os.environ)


def uses_git_history(given: Options) -> bool:
    """Whether the history is kept in a ref: it is asked for, and this is a repository."""
    return bool(given["history"] == "git" and repository_root(os.getcwd()))


def part_of(given: Options) -> str:
    """The part of the repository that has a history of its own. Raises UsageError for a path that leads out of it."""
    return normalize_part(str(given.get("path") or ""))


def with_readable_store(place: RunContext) -> tuple[RunContext, tuple[FedstepError, ...]]:
    """The place itself; where its history cannot be read the same with an empty one, and why."""
    try:
        place.store.read("key")
        place.store.log.files()
    except HistoryError as error:
        empty = ProjectStore(f"{place.store.folder}.{os.urandom(8).hex()}")
        return place._replace(store=empty), (error,)
    return place, ()


def mark_start(place: RunContext) -> tuple[FedstepError, ...]:
    """Remember that the job starts now, where the CI names its run; the error survived, if any."""
    try:
        place.store.prepare()
        if place.ci.run:
            place.store.mark_start(_run_name(place), place.now)
    except HistoryError as error:
        return (error,)
    return ()


def marked_start(place: RunContext) -> float | None:
    """When `mark_start` was called in this job run; None where it was not, or nothing tells this run from another."""
    return place.store.started(_run_name(place)) if place.ci.run else None


def missing_run_warning(ci: CiRun) -> str:
    """What is lost in a CI that names no run and no start, and the remedy; "" elsewhere."""
    if ci.run or isinstance(ci.started_at, float) or not in_ci(ci):
        return ""
    return (
        "this CI does not tell which run this is: the build's time is the sum of its tests' times. "
        "Set FEDSTEP_CI_RUN to a number of the run, for all steps"
    )


def _run_name(place: RunContext) -> str:
    """A keyed hash that names the job run."""
    ci = place.ci
    return place.store.keyed("run", ci.vendor, ci.run, str(ci.attempt), ci.job, ci.cell)


def aggregator_of(given: Options, place: RunContext) -> Any:
    """The aggregator, or the reason why there is none."""
    if not given["aggregator"]:
        return Unavailable("no aggregator is configured")
    return needed_aggregator(given, place)


def needed_aggregator(given: Options, place: RunContext) -> Any:
    """The aggregator. Raises UsageError where none is given."""
    from fedstep.federation.sync import AggregatorLink
    from fedstep.federation.transport import RetryPolicy

    if not given["aggregator"]:
        raise UsageError("no aggregator is given", "Give one with --aggregator or FEDSTEP_AGGREGATOR")
    spent = time.time() - place.now
    retry = RetryPolicy(timeout=given["timeout"], deadline=time.monotonic() + given["budget"] - spent)
    send = _send_to(given["aggregator"], given["token"])
    return AggregatorLink(given["aggregator"], send, retry, _helper_of(given))


def _helper_of(given: Options) -> Any:
    """The helper, or the reason why there is none. Raises UsageError for one that is the aggregator itself."""
    from urllib.parse import urlsplit

    from fedstep.federation.transport import Endpoint

    url = given.get("helper") or ""
    if not url:
        return Unavailable("no helper is configured")
    if urlsplit(url).netloc.lower() == urlsplit(given["aggregator"]).netloc.lower():
        raise UsageError("--helper is the aggregator itself, which would hold both halves", "Give the helper's URL.")
    return Endpoint(url, _send_to(url, given["helper_token"]))


def _send_to(url: str, token: str) -> Any:
    """What asks there. A token that others can read on its way is said: in a network of one's own that may be meant."""
    from fedstep.federation.ci_token import ci_transport
    from fedstep.federation.transport import is_exposed, redact_url

    send = ci_transport(url, token, os.environ)
    if token.strip() and is_exposed(url):
        echo_warnings(f"the token for {redact_url(url)} travels for everyone on the way to read. Use an https:// URL")
    return send


F = TypeVar("F", Prediction, TrainReport, TriageReport)
Problems = tuple[FedstepError, ...]

BY_HAND_SECONDS = 1.0  # what a developer waits for a fetch
IN_CI_SECONDS = 10.0
FRESH_FOR = 4 * 3600.0  # seconds in which a developer's commands do not ask the remote again
RETRY_AFTER = 15 * 60.0  # seconds after an attempt that failed


def fetch_history(given: Options, place: RunContext, seconds: float = 0.0) -> Problems:
    """Take in what others have published, where the history is one that travels; the errors survived.

    The remote is asked, for so many seconds; with 0 only where that is due.
    """
    if given["history"] != "git":
        return ()
    if not uses_git_history(given):
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


def publish_history(given: Options, place: RunContext) -> Problems:
    """Publish what is new here, where the history travels and the run is one of ours; the errors survived."""
    if not uses_git_history(given) or place.ci.untrusted:
        return ()
    try:
        publish_now(given, place, given["keep"], given["budget"] - (time.time() - place.now))
    except HistoryError as error:
        return (error,)
    return ()


def mark_degraded(finding: F, problems: Problems) -> F:
    """The finding with these problems said first."""
    if not problems:
        return finding
    return finding._replace(status="degraded", warnings=(*map(str, problems), *finding.warnings))


def channel_of(given: Options, place: RunContext) -> "GitChannel":
    """The ref in which this history travels."""
    from fedstep.history.git_sync import open_channel

    return open_channel(place.root, part_of(given))


def fetch_now(given: Options, place: RunContext, seconds: float) -> None:
    """Fetch and take in, within this time; what is ignored is said. HistoryError where it failed."""
    from fedstep.history.git_sync import fetch_and_import

    echo_warnings(*fetch_and_import(place.store, channel_of(given, place), seconds, place.now).warnings)


def publish_now(given: Options, place: RunContext, keep: int, seconds: float) -> bool:
    """Publish within this time; whether there was anything new. HistoryError where it failed."""
    from random import random

    from fedstep.history.git_sync import WAITS, publish

    waits = tuple(wait * (0.5 + random()) for wait in WAITS)
    return publish(place.store, channel_of(given, place), keep, place.now, seconds, waits).new


def _fetch_if_due(given: Options, place: RunContext) -> None:
    """In CI always; by hand when the last fetch is old; else take in what git has fetched since."""
    from fedstep.history.merge import load_sync_state

    seen = load_sync_state(place.store)
    if in_ci(place.ci):
        fetch_now(given, place, IN_CI_SECONDS)
    elif place.now - seen.fetched_at >= FRESH_FOR and place.now - seen.tried_at >= RETRY_AFTER:
        fetch_now(given, place, BY_HAND_SECONDS)
    else:
        _take_what_is_here(given, place)


def _take_what_is_here(given: Options, place: RunContext) -> None:
    """Take the ref of this clone in, if it is not the one that was taken in last: somebody has run `git fetch`."""
    from fedstep.history.git_transport import GitChannel, local_commit
    from fedstep.history.merge import import_ref, load_sync_state

    if local_commit(place.root) != load_sync_state(place.store).commit:
        echo_warnings(*import_ref(place.store, GitChannel(place.root, part=part_of(given))).warnings)
