"""To forget a project: its history here, and what the aggregator still holds of it."""

import os
import re
import shutil
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from fedstep.cli.options import HELPER, HISTORY, NETWORK, PART, Options, combine, option
from fedstep.cli.output import echo_result, echo_warnings
from fedstep.cli.session import aggregator_of, channel_of, context_from, part_of, uses_git_history
from fedstep.errors import AggregatorError, HistoryError, UsageError
from fedstep.history.project_store import ProjectStore
from fedstep.pipeline.context import RunContext
from fedstep.types import Unavailable

if TYPE_CHECKING:
    from fedstep.federation.client import ErasureReceipt
    from fedstep.federation.sync import AggregatorLink


PATIENT_SECONDS = 120.0  # for a fetch or push that somebody waits for
OUT_OF_REACH = (
    "Not in reach of this command: other clones and caches that hold a copy (the next `fedstep train` there publishes "
    "it again), what git servers keep until they clean up"
)
STAYS_THERE = (
    "What stays there: coefficients that were folded into the shared model, which nobody can take out again; receipts "
    "and totals, which name nobody; what was spent of a privacy budget; backups and logs, until whoever runs the "
    "aggregator deletes them."
)
SURELY = combine(
    option("remote", is_flag=True, help="Delete the ref of the remote too."),
    option("yes", is_flag=True, help="Do not ask."),
)


@click.command()
@SURELY
@option("dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@option("pseudonym", metavar="HEX", default="", help="Ask the aggregator alone, for a project whose history is gone.")
@NETWORK
@HELPER
@HISTORY
@PART
def forget(**given: Any) -> int:
    """Delete the history of this project, and ask the aggregator to delete what it holds of it.

    \b
    Example: fedstep forget --aggregator https://fedstep.example.org --dry-run
    """
    place = context_from(given)
    aggregator = aggregator_of(given, place)  # first: what is wrong with its URL is said before anything is gone
    here = () if given["pseudonym"] else doomed(given, place)
    _require(given, place)
    names = (*here, *(f"what {url} holds of this project" for url in _urls(given)))
    if given["dry_run"]:
        echo_result("".join(f"would be deleted: {name}\n" for name in names))
        return 0
    pseudonym = _pseudonym(given, place) if given["aggregator"] else ""  # while the key is there
    confirm(given, names)
    asked = [_asked(peer, pseudonym) for peer in _peers(given, aggregator)]
    if here:
        erase(given, place)
        echo_result("".join(f"forgotten: {name}\n" for name in here) + f"{OUT_OF_REACH}.\n")
    return _told(asked)


def doomed(given: Options, place: RunContext) -> tuple[str, ...]:
    """What will be gone, for people. UsageError where the folder is no history: nothing else is ever deleted."""
    from fedstep.history.git_ref import REF

    home = place.store
    inside = os.path.commonpath([os.path.realpath(place.root), os.path.realpath(home.folder)])
    if not uses_git_history(given) and (
        inside == os.path.realpath(home.folder) or not os.path.exists(home.path("key"))
    ):
        raise UsageError(f"{home.folder} is no history", "Name its folder with --history")
    if given["remote"] and not uses_git_history(given):
        raise UsageError("--remote belongs to a history that travels", "Add --history git")
    part = f" ({part_of(given)})" if part_of(given) else ""
    refs = (f"{REF} of this clone{part}",) if uses_git_history(given) else ()
    return (f"{home.folder}{_record(home)}", *refs, *((f"{REF} of the remote{part}",) if given["remote"] else ()))


def confirm(given: Options, names: tuple[str, ...]) -> None:
    """Nothing, once somebody has agreed. Raises UsageError where nobody can be asked."""
    if given["yes"]:
        return
    if not sys.stdin.isatty():
        raise UsageError("forgetting has to be confirmed, and nobody can be asked here", "Add --yes")
    if not click.confirm(f"Delete {', '.join(names)}?", err=True):
        raise UsageError("nothing is deleted", "Answer y, or add --yes")


def erase(given: Options, place: RunContext) -> None:
    """Delete the folder, and where the history travels its ref, with --remote there too. Raises HistoryError."""
    if uses_git_history(given):
        _forget_ref(given, place)
    shutil.rmtree(place.store.folder, ignore_errors=True)
    if os.path.exists(place.store.folder):
        raise HistoryError(f"{place.store.folder} was not deleted whole", "Check its permissions")


def _record(home: ProjectStore) -> str:
    """That the record of what was sent goes with the folder."""
    from fedstep.federation.outbox import read_audit
    from fedstep.report.units import count

    sent = len(read_audit(home).sent)
    return f" (with the record of {count(sent, 'update')} sent, see fedstep inspect --audit)" if sent else ""


def _require(given: Options, place: RunContext) -> None:
    """Nothing, where it is clear who has to forget what. Raises UsageError."""
    from fedstep.federation.outbox import host_of, read_audit

    if place.ci.untrusted:
        raise UsageError("this run comes from a fork: nothing is deleted", "Run it by hand")
    if given["pseudonym"] and not re.fullmatch("[0-9a-f]{32}", given["pseudonym"]):
        raise UsageError("--pseudonym is not 32 hex digits", "It is the `project` that fedstep inspect shows")
    hosts = dict.fromkeys(one.host for one in read_audit(place.store).sent)
    if not given["aggregator"] and (hosts or given["pseudonym"]):
        sent = f"updates were sent to {', '.join(hosts)}, and " if hosts else ""
        remedy = "Name it with --aggregator; `fedstep history forget` deletes the history alone"
        raise UsageError(f"{sent}no aggregator is named", remedy)
    asked = set(map(host_of, _urls(given)))
    others = [host for host in hosts if host not in asked]
    if others:
        echo_warnings(
            f"updates were sent to {', '.join(others)} too: before this, run it with --pseudonym for each of them"
        )


def _pseudonym(given: Options, place: RunContext) -> str:
    """What aggregators call the project. UsageError where its key lies on the ref and was never fetched to here."""
    if not given["pseudonym"] and not place.store.read("key"):
        raise UsageError("the key of this project is not here", "Run `fedstep history merge` first, it fetches the key")
    return given["pseudonym"] or place.store.keyed("project")


def _urls(given: Options) -> tuple[str, ...]:
    """Who is asked: the aggregator, and the helper where updates are split."""
    return tuple(filter(None, (given["aggregator"], given["aggregator"] and given["helper"])))


def _peers(given: Options, aggregator: "AggregatorLink | Unavailable") -> "tuple[AggregatorLink, ...]":
    """The aggregator and its helper, with time for both that begins now: people answer slowly."""
    if isinstance(aggregator, Unavailable):
        return ()
    retry = replace(aggregator.retry, deadline=time.monotonic() + given["budget"])
    asked, helper = replace(aggregator, retry=retry), aggregator.helper
    return (asked,) if isinstance(helper, Unavailable) else (asked, replace(asked, url=helper.url, send=helper.send))


def _asked(peer: "AggregatorLink", pseudonym: str) -> "tuple[str, ErasureReceipt | AggregatorError]":
    """Who was asked, and what it deleted; or the error, which says how to ask again."""
    from fedstep.federation.client import request_erasure
    from fedstep.federation.transport import redact_url

    where = redact_url(peer.url)
    try:
        return where, request_erasure(pseudonym, peer.url, peer.send, peer.retry)
    except AggregatorError as error:
        again = f"fedstep forget --pseudonym {pseudonym} --aggregator {where}"
        return where, AggregatorError(f"{where} has forgotten nothing: {error.args[0]}", f"Ask it again: {again}")


def _told(asked: "list[tuple[str, ErasureReceipt | AggregatorError]]") -> int:
    """Say what became of each question; the exit code."""
    from fedstep.report.units import count

    none = "nothing, it held no update of this project from this sender"
    failed = [said for _, said in asked if isinstance(said, AggregatorError)]
    gone = [(where, said) for where, said in asked if not isinstance(said, AggregatorError)]
    echo_warnings(*map(str, failed))
    for where, said in gone:
        deleted = f"{count(said.updates, 'update')} and {count(said.votes, 'vote')}"
        echo_result(f"forgotten by {where}: {deleted if said.updates or said.votes else none}\n")
    echo_result(f"{STAYS_THERE}\n" if gone else "")
    return AggregatorError.exit_code if failed else 0


def _forget_ref(given: Options, place: RunContext) -> None:
    """Delete the ref, or this part of it, here and with --remote there."""
    from fedstep.history.git_sync import withdraw
    from fedstep.history.git_transport import delete_local, delete_remote

    channel = channel_of(given, place)
    if given["remote"] and place.ci.untrusted:
        raise UsageError("this run comes from a fork: nothing is deleted on the remote", "Run it by hand")
    if channel.part:
        place.store.prepare()
        withdraw(place.store, channel if given["remote"] else channel._replace(remote=""), place.now, PATIENT_SECONDS)
        return
    if given["remote"]:
        delete_remote(channel, PATIENT_SECONDS)
    delete_local(channel.root)
