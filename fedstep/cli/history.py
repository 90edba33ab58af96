"""Commands on the history (show, merge, prune, rebuild, forget), and the one that forgets a project everywhere."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Unpack

import click

import fedstep
from fedstep.cli.options import (
    FORMAT,
    HELPER,
    HISTORY,
    KEEP,
    NETWORK,
    PART,
    NetworkOptions,
    aggregator_from,
    combine,
    link_to,
    option,
)
from fedstep.cli.output import echo_result, echo_warnings
from fedstep.errors import AggregatorError, HistoryError, MissingExtra, UsageError
from fedstep.history.git_sync import HistoryOverview, RefStatus, describe_ref, open_channel, summarize_history
from fedstep.history.project_store import ProjectStore
from fedstep.report.markdown import code, page, table
from fedstep.report.units import size
from fedstep.report.wording import name_job
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
REMOTE_SECONDS = 2.0  # for a request that only asks the remote which commit it has


@click.group()
def history() -> None:
    """Show, merge, prune, rebuild or forget the history of this project."""


@history.command("show")
@HISTORY
@PART
@FORMAT
def show_history(history: str, part: str, output_format: str) -> int:
    """Show where the history is, what it holds, and whether it is published.

    \b
    Example: fedstep history show --history git
    """
    context = fedstep.Project.discover(history=history, part=part).context()
    summary = summarize_history(context.store)
    ref: RefStatus | Unavailable = Unavailable("a folder")
    if context.shares_history:
        ref = describe_ref(context.store, open_channel(context.root, context.part), REMOTE_SECONDS)
    echo_warnings(*summary.warnings)
    render = {"json": overview_json, "markdown": overview_markdown, "text": overview_text}[output_format]
    echo_result(render(summary, ref))
    return 0


@history.command("merge")
@click.argument("source", required=False, metavar="[PATH_OR_REF]")
@HISTORY
@PART
def merge(source: str | None, history: str, part: str) -> int:
    """Add the records of another folder, clone or ref; without one, those of the remote.

    \b
    Example: fedstep history merge ../other-clone
    """
    from fedstep.history.merge import MergeResult, merge_folder, merge_ref

    context = _prepare(history, part)
    count_before = len(context.store.log.files())
    if not source and not context.shares_history:
        raise UsageError("nothing to merge is named", "Give a folder or a ref; --history git fetches from the remote")
    _fetch(context)
    merged = MergeResult(added=len(context.store.log.files()) - count_before)
    if source and os.path.isdir(source):
        merged = merge_folder(context.store, source)
    elif source:
        merged = merge_ref(context.store, context.root, source, context.part)
    echo_warnings(*merged.refused)
    published = _publish(context, keep=0)
    pruned = f", {merged.pruned} pruned before" if merged.pruned else ""
    echo_result(f"{merged.added} builds added, {merged.known} known already{pruned}{published}\n")
    return 0


@history.command("prune")
@KEEP
@HISTORY
@PART
def prune(keep: int, history: str, part: str) -> int:
    """Delete all but the newest builds, also for others if the history is shared.

    \b
    Example: fedstep history prune --keep 200
    """
    context = _prepare(history, part)
    _fetch(context)
    count_before = len(context.store.log.files())
    published = _publish(context, keep)
    context.store.log.prune(keep)
    count = len(context.store.log.files())
    echo_result(f"{count_before - count} builds deleted, {count} kept{published}\n")
    return 0


@history.command("rebuild")
@HISTORY
@PART
def rebuild(history: str, part: str) -> int:
    """Discard what was learned, and learn from all builds again in the order in which they ended.

    \b
    Example: fedstep history rebuild
    """
    context = _prepare(history, part)
    _fetch(context)
    result = rebuild_model(context.store)
    echo_result(f"{result}{_publish(context, keep=0)}\n")
    return 0


@history.command("forget")
@DELETION
@HISTORY
@PART
def forget_history(remote: bool, yes: bool, history: str, part: str) -> int:
    """Delete the history, what was learned from it, and updates that were not sent.

    \b
    Example: fedstep history forget --remote --yes
    """
    context = fedstep.Project.discover(history=history, part=part).context()
    deletions = list_deletions(context, remote)
    confirm(deletions, yes)
    delete_history(context, remote)
    sent = "and what was sent to an aggregator, which `fedstep forget` asks to delete it"
    echo_result("".join(f"forgotten: {name}\n" for name in deletions) + f"{OUT_OF_REACH}, {sent}.\n")
    return 0


def _prepare(history: str, part: str) -> "RunContext":
    """Return the context with a history that can be written. Raises UsageError if it cannot be shared as asked."""
    context = fedstep.Project.discover(history=history, part=part).context()
    if history == "git" and not context.shares_history:
        raise UsageError("--history git needs a git repository, and this is none", "Run it inside a clone")
    context.store.prepare()
    return context


def _fetch(context: "RunContext") -> None:
    """Fetch and merge what others have published, if the history is shared. Raises HistoryError if that fails."""
    if context.shares_history:
        from fedstep.pipeline.context import fetch_now

        echo_warnings(*fetch_now(context, PATIENT_SECONDS))


def _publish(context: "RunContext", keep: int) -> str:
    """Publish new records, unless the history is not shared or the run is from a fork; return a note for the result.

    `keep` is the number of records that stay in the ref, 0 for all.
    """
    if not context.shares_history:
        return ""
    if context.ci.untrusted:
        return "; not published, because this run comes from a fork"
    from fedstep.pipeline.context import publish_now

    return "; published" if publish_now(context, keep, PATIENT_SECONDS) else "; nothing to publish"


def rebuild_model(store: ProjectStore) -> str:
    """Learn from all records again; return a note for the result.

    Updates in the outbox stay as they are: otherwise examples that were sent would be sent again.
    """
    try:
        from fedstep.model.training import relearn_all, save_state
    except ImportError as error:
        remedy = "Run: pip install 'fedstep[train]'. Nothing was changed"
        raise MissingExtra(f"{error.name or 'scikit-learn'} is not installed", remedy) from error
    from fedstep.federation.model_cache import load_model
    from fedstep.history.project_store import exclusive
    from fedstep.pipeline.predict import save_prediction

    cached = load_model(store)
    with exclusive(store):
        progress = relearn_all(store, cached.model.production)
        save_state(store, progress.state)
    save_prediction(store, cached)
    echo_warnings(*progress.warnings)
    return f"learned from {progress.records} builds and {progress.labels_known} outcomes"


LABEL_WIDTH = 14
MOST_STREAMS = 10
SHORT = 12  # hex digits of a commit


def overview_text(overview: HistoryOverview, ref: RefStatus | Unavailable) -> str:
    """Return one line per fact."""
    return "".join(f"{label:<{LABEL_WIDTH}}{_printable(text)}\n" for label, text in _lines(overview, ref))


def overview_markdown(overview: HistoryOverview, ref: RefStatus | Unavailable) -> str:
    """Return a Markdown table for a step summary."""
    return page("## fedstep: history", table(("", ""), [(label, code(text)) for label, text in _lines(overview, ref)]))


def overview_json(overview: HistoryOverview, ref: RefStatus | Unavailable) -> str:
    """Return a JSON object; times are in seconds since the epoch, unknown values are null."""
    fields = {**overview._asdict(), "streams": [{"stream": name, "builds": count} for name, count in overview.streams]}
    fields["ref"] = None if isinstance(ref, Unavailable) else {k: _or_null(v) for k, v in ref._asdict().items()}
    return json.dumps({name: _or_null(value) for name, value in fields.items()}, indent=1) + "\n"


def _lines(overview: HistoryOverview, ref: RefStatus | Unavailable) -> Iterator[tuple[str, str]]:
    yield "History", overview.folder
    unlearned = f", {overview.unlearned} not learned yet" if overview.unlearned else ""
    yield "Builds", f"{overview.builds}{unlearned}"
    if not isinstance(overview.first, Unavailable) and not isinstance(overview.last, Unavailable):
        yield "Ended", f"from {_format_time(overview.first)} to {_format_time(overview.last)} UTC"
    yield "Tests", str(overview.tests)
    for index, (stream, count) in enumerate(overview.streams[:MOST_STREAMS]):
        yield "" if index else "Jobs", f"{count:>4}  {name_job(stream)}{_describe_timing(stream)}"
    records, total = size(overview.record_bytes), size(overview.all_bytes)
    yield "Size", f"{records} in records, {total} with what is made from them"
    if overview.pruned_up_to:
        yield "Pruned", f"up to builds that ended {_format_time(int(overview.pruned_up_to[:14]) / 1000)} UTC"
    if not isinstance(ref, Unavailable):
        yield from _ref_lines(ref)


def _describe_timing(stream: str) -> str:
    """Return how the builds of a stream were timed, which keeps their times apart from others of the same job."""
    source = stream.rpartition("|")[2]
    return {"tests": ", timed by their tests", "mark": ", timed from fedstep predict", "": ", without times"}.get(
        source, f", timed by {source}"
    )


def _ref_lines(ref: RefStatus) -> Iterator[tuple[str, str]]:
    yield "Ref", ref.ref
    commit = ref.local[:SHORT] or "not there"
    yield "This clone", f"{commit}, {ref.unpublished} of its builds not in it" if ref.unpublished else commit
    if not ref.remote_name:
        yield "Remote", "none"
    elif isinstance(ref.remote, Unavailable):
        yield ref.remote_name, ref.remote.reason
    else:
        yield ref.remote_name, (ref.remote[:SHORT] or "not there") + _compare(ref)
    if ref.fetched_at:
        yield "Fetched", f"{_format_time(ref.fetched_at)} UTC"


def _compare(ref: RefStatus) -> str:
    return ", the same" if ref.remote and ref.remote == ref.local else ""


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _or_null(value: object) -> object:
    return None if isinstance(value, Unavailable) else value


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


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
    history: str,
    part: str,
    **network: Unpack[NetworkOptions],
) -> int:
    """Delete the history of this project, and ask the aggregator to delete what it holds of the project.

    \b
    Example: fedstep forget --aggregator https://fedstep.example.org --dry-run
    """
    project = fedstep.Project.discover(history=history, part=part)
    context = project.context()
    receiver, budget = aggregator_from(network), network["budget"]
    if receiver:  # first: an unusable URL is reported before anything is deleted
        link_to(receiver, context.now, budget)
    urls = tuple(filter(None, (network["aggregator"], network["helper"]))) if network["aggregator"] else ()
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
        from fedstep.federation.sync import connect

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
    return pseudonym or store.keyed_hash("project")


def _endpoints(link: "AggregatorLink") -> "tuple[AggregatorLink, ...]":
    """Return links to the aggregator and, if updates are split, to its helper."""
    helper = link.helper
    return (link,) if isinstance(helper, Unavailable) else (link, replace(link, url=helper.url, send=helper.send))


def _request_erasure(endpoint: "AggregatorLink", pseudonym: str) -> "tuple[str, ErasureReceipt | AggregatorError]":
    """Return the address and what it deleted, or an error that says how to ask again."""
    from fedstep.federation.client import request_erasure
    from fedstep.federation.trust import redact_url

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
    from fedstep.history.git_ref import delete_local, delete_remote
    from fedstep.history.git_sync import open_channel, withdraw

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
