"""Fetch and publish a history that is shared through the repository, before and after a step."""

from contextlib import suppress
from typing import NamedTuple

from fedstep.errors import HistoryError
from fedstep.pipeline.context import DEFAULT_HISTORY, GIT_HISTORY, RunContext, in_ci
from fedstep.results import Problems

DEVELOPER_SECONDS = 1.0  # a developer waits this long for a fetch
CI_SECONDS = 10.0
FRESH_SECONDS = 4 * 3600.0  # a developer's commands ask the remote again after this time
RETRY_SECONDS = 15 * 60.0  # after a failed attempt


class FetchResult(NamedTuple):
    """The errors that a fetch survived, and what it ignored."""

    problems: Problems = ()
    warnings: tuple[str, ...] = ()


def fetch_history(context: RunContext, seconds: float = 0.0) -> FetchResult:
    """Merge what others have published into the history, if it is shared.

    Ask the remote for at most `seconds`. With 0, ask it in CI, and on a developer's machine only if the last fetch is
    old; else merge what git itself has fetched.
    """
    if context.history != GIT_HISTORY:
        return FetchResult()
    if not context.shares_history:
        remedy = f"Run it inside a clone; the folder {DEFAULT_HISTORY} is used"
        return FetchResult((HistoryError("--history git needs a git repository, and this is none", remedy),))
    try:
        seconds = seconds or _seconds_due(context)
        return FetchResult(warnings=fetch_now(context, seconds) if seconds else _merge_local(context))
    except HistoryError as error:
        warnings: tuple[str, ...] = ()
        with suppress(HistoryError):
            warnings = _merge_local(context)
        return FetchResult((error,), warnings)


def publish_history(context: RunContext, keep: int, seconds: float) -> Problems:
    """Publish new records within `seconds` if the history is shared and the run is trusted; return the error survived.

    `keep` is the number of records that stay in the ref.
    """
    if not context.shares_history or context.ci.untrusted:
        return ()
    try:
        publish_now(context, keep, seconds)
    except HistoryError as error:
        return (error,)
    return ()


def fetch_now(context: RunContext, seconds: float) -> tuple[str, ...]:
    """Fetch and merge within `seconds`; return what was ignored. Raises HistoryError if the remote is not reached."""
    from fedstep.history.git_sync import fetch_and_import, open_channel

    return fetch_and_import(context.store, open_channel(context.root, context.part), seconds, context.now).warnings


def publish_now(context: RunContext, keep: int, seconds: float) -> bool:
    """Publish within `seconds`; return whether anything was new. Raises HistoryError if the remote does not take it."""
    from random import random

    from fedstep.history.git_sync import WAITS, open_channel, publish

    waits = tuple(wait * (0.5 + random()) for wait in WAITS)
    channel = open_channel(context.root, context.part)
    return publish(context.store, channel, keep, context.now, seconds, waits).new


def _seconds_due(context: RunContext) -> float:
    """Return how long to ask the remote now, 0 if that is not due."""
    from fedstep.history.merge import load_sync_state

    if in_ci(context.ci):
        return CI_SECONDS
    seen = load_sync_state(context.store)
    is_fresh = context.now - seen.fetched_at < FRESH_SECONDS or context.now - seen.tried_at < RETRY_SECONDS
    return 0.0 if is_fresh else DEVELOPER_SECONDS


def _merge_local(context: RunContext) -> tuple[str, ...]:
    """Merge the ref of this clone if it has changed since, as after `git fetch`; return what was ignored."""
    from fedstep.history.git_transport import GitChannel, local_commit
    from fedstep.history.merge import import_ref, load_sync_state

    if local_commit(context.root) == load_sync_state(context.store).commit:
        return ()
    return import_ref(context.store, GitChannel(context.root, part=context.part)).warnings
