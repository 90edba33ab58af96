"""Commands that forget a project: delete its history here, and ask the aggregator to delete what it holds of it."""

import os
import re
import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

import fedstep
from fedstep.cli.options import HELPER, HISTORY, NETWORK, PART, aggregator_from, combine, link_to, option
from fedstep.cli.output import echo_result, echo_warnings
from fedstep.errors import AggregatorError, HistoryError, UsageError
from fedstep.history.project_store import ProjectStore
from fedstep.types import Unavailable

if TYPE_CHECKING:
    from fedstep.federation.client import ErasureReceipt
    from fedstep.federation.sync import AggregatorLink
    from fedstep.pipeline.context import RunContext

PATIENT_SECONDS = 120.0  # for a fetch or push that a person waits for
OUT_OF_REACH = (
    "This command does not reach other clones and caches that hold a copy (the next `fedstep train` there publishes "
    "it again), and what git servers keep until they clean up"
)
KEPT_BY_AGGREGATOR = (
    "The aggregator keeps coefficients that were aggregated into the shared model, which cannot be removed from it; "
    "receipts and totals, which name no project; what was spent of a privacy budget; and backups and logs, until its "
    "operator deletes them."
)
DELETION = combine(
    option("remote", is_flag=True, help="Also delete the ref of the remote."),
    option("yes", is_flag=True, help="Do not ask for confirmation."),
)


@click.command()
@DELETION
@option("dry-run", is_flag=True, help="Show what would be deleted, and delete nothing.")
@option(
    "pseudonym",
    metavar="HEX",
    default="",
    help="Only ask the aggregator, for a project whose history is gone: the `project` that fedstep inspect shows.",
)
@NETWORK
@HELPER
@HISTORY
@PART
def forget(
    remote: bool,
    yes: bool,
    dry_run: bool,
    pseudonym: str,
    aggregator: str,
    token: str,
    timeout: float,
    budget: float,
    helper: str,
    helper_token: str,
    history: str,
    part: str,
) -> int:
    """Delete the history of this project, and ask the aggregator to delete what it holds of the project.

    \b
    Example: fedstep forget --aggregator https://fedstep.example.org --dry-run
    """
    project = fedstep.Project.discover(history=history, part=part)
    context = project.context()
    receiver = aggregator_from(aggregator, token, timeout, helper, helper_token)
    if receiver:  # first: an unusable URL is reported before anything is deleted
        link_to(receiver, context.now, budget)
    urls = tuple(filter(None, (aggregator, helper))) if aggregator else ()
    local = () if pseudonym else list_deletions(context, remote)
    _check_request(context, pseudonym, urls)
    deletions = (*local, *(f"what {url} holds of this project" for url in urls))
    if dry_run:
        echo_result("".join(f"would be deleted: {name}\n" for name in deletions))
        return 0
    project_name = _pseudonym(context.store, pseudonym) if receiver else ""  # while the key exists
    confirm(deletions, yes)
    answers = []
    if receiver:  # from now on: a person may have answered slowly
        from fedstep.pipeline.connection import connect

        answers = [
            _request_erasure(endpoint, project_name) for endpoint in _endpoints(connect(receiver, budget, os.environ))
        ]
    if local:
        delete_history(context, remote)
        echo_result("".join(f"forgotten: {name}\n" for name in local) + f"{OUT_OF_REACH}.\n")
    return _print_answers(answers)


def list_deletions(context: "RunContext", remote: bool) -> tuple[str, ...]:
    """Return what will be deleted, as text. Raises UsageError if the folder is not a history: it is never deleted."""
    from fedstep.history.git_ref import REF

    store = context.store
    folder = os.path.realpath(store.folder)
    holds_repository = os.path.commonpath([os.path.realpath(context.root), folder]) == folder
    if not context.shares_history and (holds_repository or not os.path.exists(store.path("key"))):
        raise UsageError(f"{store.folder} is no history", "Name its folder with --history")
    if remote and not context.shares_history:
        raise UsageError("--remote needs a history in a git ref", "Add --history git")
    part = f" ({context.part})" if context.part else ""
    local_refs = (f"{REF} of this clone{part}",) if context.shares_history else ()
    remote_refs = (f"{REF} of the remote{part}",) if remote else ()
    return (f"{store.folder}{_audit_note(store)}", *local_refs, *remote_refs)


def confirm(deletions: tuple[str, ...], yes: bool) -> None:
    """Ask whether to delete, unless `yes`. Raises UsageError without consent, or if nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("forgetting needs confirmation, and standard input is not a terminal", "Add --yes")
    if not click.confirm(f"Delete {', '.join(deletions)}?", err=True):
        raise UsageError("nothing is deleted", "Answer y, or add --yes")


def delete_history(context: "RunContext", remote: bool) -> None:
    """Delete the folder of the history and, if it is shared, its ref here and with `remote` there.

    Raises:
        HistoryError: The folder or the ref could not be deleted.
    """
    if context.shares_history:
        _delete_ref(context, remote)
    shutil.rmtree(context.store.folder, ignore_errors=True)
    if os.path.exists(context.store.folder):
        raise HistoryError(f"{context.store.folder} was not deleted completely", "Check its permissions")


def _audit_note(store: ProjectStore) -> str:
    """Return a note that the record of sent updates is deleted with the folder, "" if none was sent."""
    from fedstep.federation.outbox import read_audit
    from fedstep.report.units import count

    sent = len(read_audit(store).sent)
    return f" (with the record of {count(sent, 'update')} sent, see fedstep inspect --audit)" if sent else ""


def _check_request(context: "RunContext", pseudonym: str, urls: tuple[str, ...]) -> None:
    """Raise UsageError unless it is clear which aggregators have to forget which project."""
    from fedstep.federation.outbox import host_of, read_audit

    if context.ci.untrusted:
        raise UsageError("this run comes from a fork: nothing is deleted", "Run it by hand")
    if pseudonym and not re.fullmatch("[0-9a-f]{32}", pseudonym):
        raise UsageError("--pseudonym is not 32 hex digits", "It is the `project` that fedstep inspect shows")
    hosts = dict.fromkeys(each.host for each in read_audit(context.store).sent)
    if not urls and (hosts or pseudonym):
        sent = f"updates were sent to {', '.join(hosts)}, and " if hosts else ""
        remedy = "Name it with --aggregator; `fedstep history forget` deletes the history alone"
        raise UsageError(f"{sent}no aggregator is named", remedy)
    named_hosts = set(map(host_of, urls))
    other_hosts = [host for host in hosts if host not in named_hosts]
    if other_hosts:
        echo_warnings(
            f"updates were sent to {', '.join(other_hosts)} too: before this, run it with --pseudonym for each of them"
        )


def _pseudonym(store: ProjectStore, pseudonym: str) -> str:
    """Return the name under which aggregators know the project. Raises UsageError if its key was never fetched."""
    if not pseudonym and not store.read("key"):
        raise UsageError("the key of this project is not here", "Run `fedstep history merge` first, it fetches the key")
    return pseudonym or store.keyed("project")


def _endpoints(link: "AggregatorLink") -> "tuple[AggregatorLink, ...]":
    """Return links to the aggregator and, if updates are split, to its helper."""
    helper = link.helper
    return (link,) if isinstance(helper, Unavailable) else (link, replace(link, url=helper.url, send=helper.send))


def _request_erasure(endpoint: "AggregatorLink", pseudonym: str) -> "tuple[str, ErasureReceipt | AggregatorError]":
    """Return the address and what it deleted, or an error that says how to ask again."""
    from fedstep.federation.client import request_erasure
    from fedstep.federation.transport import redact_url

    url = redact_url(endpoint.url)
    try:
        return url, request_erasure(pseudonym, endpoint.url, endpoint.send, endpoint.retry)
    except AggregatorError as error:
        again = f"fedstep forget --pseudonym {pseudonym} --aggregator {url}"
        return url, AggregatorError(f"{url} has forgotten nothing: {error.args[0]}", f"Ask it again: {again}")


def _print_answers(answers: "list[tuple[str, ErasureReceipt | AggregatorError]]") -> int:
    """Print what each address deleted, and return the exit code."""
    from fedstep.report.units import count

    errors = [str(answer) for _, answer in answers if isinstance(answer, AggregatorError)]
    receipts = [(url, answer) for url, answer in answers if not isinstance(answer, AggregatorError)]
    echo_warnings(*errors)
    for url, receipt in receipts:
        deleted = f"{count(receipt.updates, 'update')} and {count(receipt.evaluations, 'evaluation')}"
        if not receipt.updates and not receipt.evaluations:
            deleted = "nothing, it held no update of this project from this sender"
        echo_result(f"forgotten by {url}: {deleted}\n")
    echo_result(f"{KEPT_BY_AGGREGATOR}\n" if receipts else "")
    return AggregatorError.exit_code if errors else 0


def _delete_ref(context: "RunContext", remote: bool) -> None:
    """Delete the ref, or this part of it, here and with `remote` there."""
    from fedstep.history.git_sync import open_channel, withdraw
    from fedstep.history.git_transport import delete_local, delete_remote

    channel = open_channel(context.root, context.part)
    if remote and context.ci.untrusted:
        raise UsageError("this run comes from a fork: nothing is deleted on the remote", "Run it by hand")
    if channel.part:
        context.store.prepare()
        withdraw(context.store, channel if remote else channel._replace(remote=""), context.now, PATIENT_SECONDS)
        return
    if remote:
        delete_remote(channel, PATIENT_SECONDS)
    delete_local(channel.root)
