"""The history itself: show it, bring histories together, make it smaller, learn it again, forget it."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from fedstep.cli.forget import OUT_OF_REACH, PATIENT_SECONDS, SURELY, confirm, doomed, erase
from fedstep.cli.options import FORMAT, HISTORY, PART, Options, option
from fedstep.cli.output import echo_result, echo_warnings
from fedstep.cli.session import channel_of, context_from, fetch_now, part_of, publish_now, uses_git_history
from fedstep.errors import MissingExtra, UsageError
from fedstep.history.history_overview import HistoryOverview, RefStatus
from fedstep.history.project_store import ProjectStore
from fedstep.pipeline.context import RunContext
from fedstep.report.markdown import code, page, table
from fedstep.types import Unavailable

ASKING_SECONDS = 2.0  # for a remote that is only asked what it has


@click.group()
def history() -> None:
    """Show, merge, prune, rebuild or forget the history of this project."""


@history.command("show")
@HISTORY
@PART
@FORMAT
def show_history(**given: Any) -> int:
    """Say where the history is, what it holds, and how far it has travelled.

    \b
    Example: fedstep history show --history git
    """

    from fedstep.history.history_overview import describe_ref, summarize_history

    place = context_from(given)
    seen = summarize_history(place.store)
    travel = (
        describe_ref(place.store, channel_of(given, place), ASKING_SECONDS)
        if uses_git_history(given)
        else Unavailable("a folder")
    )
    echo_warnings(*seen.warnings)
    render = {"json": overview_json, "markdown": overview_markdown, "text": overview_text}[given["format"]]
    echo_result(render(seen, travel))
    return 0


@history.command("merge")
@click.argument("source", required=False, metavar="[PATH_OR_REF]")
@HISTORY
@PART
def merge(**given: Any) -> int:
    """Add the records of another folder, clone or ref; without one, those of the remote.

    \b
    Example: fedstep history merge ../other-clone
    """
    from fedstep.history.merge import MergeResult, merge_folder, merge_ref

    place = _prepared(given)
    before = len(place.store.log.files())
    if uses_git_history(given):
        fetch_now(given, place, PATIENT_SECONDS)
    elif not given["source"]:
        raise UsageError("nothing to merge is named", "Give a folder or a ref; --history git fetches from the remote")
    merged = MergeResult(added=len(place.store.log.files()) - before)
    if given["source"] and os.path.isdir(given["source"]):
        merged = merge_folder(place.store, given["source"])
    elif given["source"]:
        merged = merge_ref(place.store, place.root, given["source"], part_of(given))
    echo_warnings(*merged.refused)
    published = _published(given, place, 0)
    gone = f", {merged.pruned} pruned before" if merged.pruned else ""
    echo_result(f"{merged.added} builds added, {merged.known} known already{gone}{published}\n")
    return 0


@history.command("prune")
@option("keep", type=click.IntRange(1), default=500, show_default=True, help="Builds kept in the history.")
@HISTORY
@PART
def prune(**given: Any) -> int:
    """Delete all but the newest builds, for everyone who shares the history.

    \b
    Example: fedstep history prune --keep 200
    """
    place = _prepared(given)
    before = len(place.store.log.files())
    if uses_git_history(given):
        fetch_now(given, place, PATIENT_SECONDS)
        before = len(place.store.log.files())
    published = _published(given, place, given["keep"])
    place.store.log.prune(given["keep"])
    kept = len(place.store.log.files())
    echo_result(f"{before - kept} builds deleted, {kept} kept{published}\n")
    return 0


@history.command("rebuild")
@HISTORY
@PART
def rebuild(**given: Any) -> int:
    """Throw away what was learned, and learn all builds again in the order in which they ended.

    \b
    Example: fedstep history rebuild
    """
    place = _prepared(given)
    if uses_git_history(given):
        fetch_now(given, place, PATIENT_SECONDS)
    told = _rebuilt(place.store)
    echo_result(f"{told}{_published(given, place, 0)}\n")
    return 0


@history.command("forget")
@SURELY
@HISTORY
@PART
def forget_history(**given: Any) -> int:
    """Delete the history, what was learned from it, and updates that wait.

    \b
    Example: fedstep history forget --remote --yes
    """
    place = context_from(given)
    names = doomed(given, place)
    confirm(given, names)
    erase(given, place)
    sent = "and what was sent to an aggregator, which `fedstep forget` asks to delete it"
    echo_result("".join(f"forgotten: {name}\n" for name in names) + f"{OUT_OF_REACH}, {sent}.\n")
    return 0


def _prepared(given: Options) -> RunContext:
    place = context_from(given)
    if given["history"] == "git" and not uses_git_history(given):
        raise UsageError("--history git needs a git repository, and this is none", "Run it inside a clone")
    place.store.prepare()
    return place


def _published(given: Options, place: RunContext, keep: int) -> str:
    """Publish what is new, unless this is a run of somebody else's code; a few words about it."""
    if not uses_git_history(given):
        return ""
    if place.ci.untrusted:
        return "; not published, because this run comes from a fork"
    return "; published" if publish_now(given, place, keep, PATIENT_SECONDS) else "; nothing to publish"


def _rebuilt(home: ProjectStore) -> str:
    """Learn all again; what waits to be sent stays as it was, or rows that were sent would be sent again."""
    try:
        from fedstep.model.training import relearn_all, save_state
    except ImportError as error:
        remedy = "Run: pip install 'fedstep[train]'. Nothing was changed"
        raise MissingExtra(f"{error.name or 'scikit-learn'} is not installed", remedy) from error
    from fedstep.federation.model_cache import load_model
    from fedstep.history.project_store import exclusive
    from fedstep.pipeline.predict import load_predictor
    from fedstep.pipeline.prediction_cache import save_prediction

    kept = load_model(home)
    with exclusive(home):
        progress = relearn_all(home, kept.model.production)
        save_state(home, progress.state)
    save_prediction(home, kept, load_predictor(home, kept))
    echo_warnings(*progress.warnings)
    return f"{progress.records} builds learned, {progress.ripened} rows"


LABEL = 14
MOST_STREAMS = 10
SHORT = 12  # hex digits of a commit


def overview_text(seen: HistoryOverview, travel: RefStatus | Unavailable) -> str:
    """A line for each fact."""
    return "".join(f"{label:<{LABEL}}{_printable(text)}\n" for label, text in _lines(seen, travel))


def overview_markdown(seen: HistoryOverview, travel: RefStatus | Unavailable) -> str:
    """The same for a step summary."""
    return page("## fedstep: history", table(("", ""), [(label, code(text)) for label, text in _lines(seen, travel)]))


def overview_json(seen: HistoryOverview, travel: RefStatus | Unavailable) -> str:
    """One object; times are seconds since the epoch, what is not known is null."""
    fields = {**seen._asdict(), "streams": [{"stream": name, "builds": count} for name, count in seen.streams]}
    fields["ref"] = None if isinstance(travel, Unavailable) else {k: _known(v) for k, v in travel._asdict().items()}
    return json.dumps({name: _known(value) for name, value in fields.items()}, indent=1) + "\n"


def _lines(seen: HistoryOverview, travel: RefStatus | Unavailable) -> Iterator[tuple[str, str]]:
    yield "History", seen.folder
    yield "Builds", f"{seen.builds}, {seen.unlearned} not learned yet" if seen.unlearned else str(seen.builds)
    if not isinstance(seen.first, Unavailable) and not isinstance(seen.last, Unavailable):
        yield "Ended", f"from {_moment(seen.first)} to {_moment(seen.last)} UTC"
    yield "Tests", str(seen.tests)
    for number, (stream, count) in enumerate(seen.streams[:MOST_STREAMS]):
        yield "" if number else "Streams", f"{count:>4}  {stream}"
    yield (
        "Size",
        f"{_megabytes(seen.record_bytes)} in records, {_megabytes(seen.all_bytes)} with what is made from them",
    )
    yield "Generation", seen.generation
    if seen.pruned_up_to:
        yield "Pruned", f"up to builds that ended {_moment(int(seen.pruned_up_to[:14]) / 1000)} UTC"
    if not isinstance(travel, Unavailable):
        yield from _ref_lines(travel)


def _ref_lines(travel: RefStatus) -> Iterator[tuple[str, str]]:
    yield "Ref", travel.ref
    here = travel.local[:SHORT] or "not there"
    yield "This clone", f"{here}, {travel.unpublished} of its builds not in it" if travel.unpublished else here
    if not travel.remote_name:
        yield "Remote", "none"
    elif isinstance(travel.remote, Unavailable):
        yield travel.remote_name, travel.remote.reason
    else:
        yield travel.remote_name, (travel.remote[:SHORT] or "not there") + _compared(travel)
    if travel.fetched_at:
        yield "Fetched", f"{_moment(travel.fetched_at)} UTC"


def _compared(travel: RefStatus) -> str:
    return ", the same" if travel.remote and travel.remote == travel.local else ""


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _known(value: object) -> object:
    return None if isinstance(value, Unavailable) else value


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
