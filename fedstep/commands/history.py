"""The history itself: show it, bring histories together, make it smaller, learn it again, forget it."""

import os
from typing import Any

import click

from fedstep.build.record import Absent
from fedstep.commands.forget import OUT_OF_REACH, PATIENT_SECONDS, SURELY, confirm, doomed, erase
from fedstep.commands.options import FORMAT, HISTORY, PART, Given, option
from fedstep.commands.place import part_of, place_of, travels
from fedstep.commands.sinks import say, show
from fedstep.commands.travel import channel_of, fetch_now, publish_now
from fedstep.errors import MissingExtra, UsageError
from fedstep.history.home import Home
from fedstep.workplace import Workplace

__all__ = ["history"]

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
    from fedstep.commands.history_view import overview_json, overview_markdown, overview_text
    from fedstep.history.overview import overview, travel_of

    place = place_of(given)
    seen = overview(place.home)
    travel = travel_of(place.home, channel_of(given, place), ASKING_SECONDS) if travels(given) else Absent("a folder")
    say(*seen.warnings)
    render = {"json": overview_json, "markdown": overview_markdown, "text": overview_text}[given["format"]]
    show(render(seen, travel))
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
    from fedstep.history.merging import Merged, merge_folder, merge_ref

    place = _prepared(given)
    before = len(place.home.log.files())
    if travels(given):
        fetch_now(given, place, PATIENT_SECONDS)
    elif not given["source"]:
        raise UsageError("nothing to merge is named", "Give a folder or a ref; --history git fetches from the remote")
    merged = Merged(added=len(place.home.log.files()) - before)
    if given["source"] and os.path.isdir(given["source"]):
        merged = merge_folder(place.home, given["source"])
    elif given["source"]:
        merged = merge_ref(place.home, place.root, given["source"], part_of(given))
    say(*merged.refused)
    published = _published(given, place, 0)
    gone = f", {merged.pruned} pruned before" if merged.pruned else ""
    show(f"{merged.added} builds added, {merged.known} known already{gone}{published}\n")
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
    before = len(place.home.log.files())
    if travels(given):
        fetch_now(given, place, PATIENT_SECONDS)
        before = len(place.home.log.files())
    published = _published(given, place, given["keep"])
    place.home.log.prune(given["keep"])
    kept = len(place.home.log.files())
    show(f"{before - kept} builds deleted, {kept} kept{published}\n")
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
    if travels(given):
        fetch_now(given, place, PATIENT_SECONDS)
    told = _rebuilt(place.home)
    show(f"{told}{_published(given, place, 0)}\n")
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
    place = place_of(given)
    names = doomed(given, place)
    confirm(given, names)
    erase(given, place)
    sent = "and what was sent to an aggregator, which `fedstep forget` asks to delete it"
    show("".join(f"forgotten: {name}\n" for name in names) + f"{OUT_OF_REACH}, {sent}.\n")
    return 0


def _prepared(given: Given) -> Workplace:
    place = place_of(given)
    if given["history"] == "git" and not travels(given):
        raise UsageError("--history git needs a git repository, and this is none", "Run it inside a clone")
    place.home.prepare()
    return place


def _published(given: Given, place: Workplace, keep: int) -> str:
    """Publish what is new, unless this is a run of somebody else's code; a few words about it."""
    if not travels(given):
        return ""
    if place.ci.untrusted:
        return "; not published, because this run comes from a fork"
    return "; published" if publish_now(given, place, keep, PATIENT_SECONDS) else "; nothing to publish"


def _rebuilt(home: Home) -> str:
    """Learn all again; what waits to be sent stays as it was, or rows that were sent would be sent again."""
    try:
        from fedstep.model.catch_up import learn_again, store_state
    except ImportError as error:
        remedy = "Run: pip install 'fedstep[train]'. Nothing was changed"
        raise MissingExtra(f"{error.name or 'scikit-learn'} is not installed", remedy) from error
    from fedstep.federation.kept import kept_model
    from fedstep.history.lock import alone
    from fedstep.outlook import keep_outlook
    from fedstep.steps import forecaster_for

    kept = kept_model(home)
    with alone(home):
        progress = learn_again(home, kept.model.production)
        store_state(home, progress.state)
    keep_outlook(home, kept, forecaster_for(home, kept))
    say(*progress.warnings)
    return f"{progress.records} builds learned, {progress.ripened} rows"
