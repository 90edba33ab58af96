"""Synchronization of a store with its ref: importing and publishing records without losing any."""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from fedstep.errors import HistoryError
from fedstep.history.git_ref import REF, GitWriter, SharedHistory, merge_records, write_history, write_without_part
from fedstep.history.git_transport import GitChannel, fetch, find_remote, local_commit, push, set_local
from fedstep.history.merge import (
    ImportResult,
    SyncState,
    complete_records,
    import_ref,
    load_sync_state,
    read_floor,
    save_sync_state,
)
from fedstep.history.project_store import ProjectStore
from fedstep.ingest.git_process import TIMED_OUT, GitResult, owner_remedy, summarize_error

ALLOW = f"Let this job write to {REF} (on GitHub: contents: write)"
WAITS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 1.6, 1.6, 1.6, 1.6)  # seconds before each further attempt
# Messages of git, of git servers and of JGit.
LATE = ("stale info", "fetch first", "non-fast-forward", "lock", "already exists", "old value", "failed to update ref")


class PublishResult(NamedTuple):
    """The commit of the ref, whether it is new, and the number of attempts."""

    commit: str
    new: bool
    attempts: int


def open_channel(root: str, part: str) -> GitChannel:
    """Return the channel of this repository and part, with the configured remote."""
    return GitChannel(root, find_remote(root), part)


def fetch_and_import(store: ProjectStore, channel: GitChannel, seconds: float, now: float) -> ImportResult:
    """Fetch the ref and import it; without a remote, import this clone's ref. Raise HistoryError on failure."""
    seen = load_sync_state(store)._replace(tried_at=now)
    save_sync_state(store, seen)
    there = bool(channel.remote) and fetch(channel, store.folder, seconds)
    taken = import_ref(store, channel)
    remote = taken.shared.commit if there else ""
    save_sync_state(store, SyncState(taken.shared.commit, remote, now if channel.remote else seen.fetched_at, now))
    return taken._replace(remote=remote)


def publish(
    store: ProjectStore, channel: GitChannel, keep: int, now: float, seconds: float, waits: Iterable[float] = WAITS
) -> PublishResult:
    """Publish the merged records of the store and the ref (the newest `keep`, 0: all), retrying after concurrent jobs.

    Raise HistoryError if the remote does not accept it in time: everything stays in the store for the next run.
    """
    return _change(store, channel, lambda taken: _stored(store, channel, taken.shared, keep, now), now, seconds, waits)


def withdraw(
    store: ProjectStore, channel: GitChannel, now: float, seconds: float, waits: Iterable[float] = WAITS
) -> PublishResult:
    """Remove this part from the ref. Raise HistoryError as `publish` does."""
    place = GitWriter(channel.root, channel.part, now)
    return _change(store, channel, lambda taken: write_without_part(place, store, taken.shared), now, seconds, waits)


def _change(
    store: ProjectStore,
    channel: GitChannel,
    commit_after: Callable[[ImportResult], str],
    now: float,
    seconds: float,
    waits: Iterable[float],
) -> PublishResult:
    """Import the ref, commit the change and push it; start again whenever another job was first."""
    deadline = time.monotonic() + seconds
    taken: ImportResult | None = _already_taken(store, channel)
    failed_at, why = "never", "no time was left for it"
    for attempt, wait in enumerate((0.0, *waits), 1):
        if time.monotonic() + wait >= deadline:
            break
        time.sleep(wait)
        taken = taken or fetch_and_import(store, channel, deadline - time.monotonic(), now)
        commit = commit_after(taken)
        ran = _offer(channel, store, taken, commit, deadline - time.monotonic())
        if ran.code == 0:
            save_sync_state(
                store, load_sync_state(store)._replace(commit=commit, remote=commit if channel.remote else "")
            )
            return PublishResult(commit, commit != (taken.remote if channel.remote else taken.shared.commit), attempt)
        if ran.code == TIMED_OUT or (not _was_late(ran) and failed_at == taken.remote):
            raise _refused(store, channel, summarize_error(ran), owner_remedy(ran, channel.root) or ALLOW)
        failed_at, why = taken.remote, f"other jobs were first {attempt} times"
        taken = None
    raise _refused(store, channel, why, "Raise --budget" if failed_at == "never" else ALLOW)


def _already_taken(store: ProjectStore, channel: GitChannel) -> ImportResult | None:
    """Import the local ref if it is the last one seen at the remote; else return None, and the remote must be asked."""
    seen = load_sync_state(store)
    if channel.remote and not (seen.remote and local_commit(channel.root) == seen.remote):
        return None
    taken = import_ref(store, channel)
    return taken._replace(remote=seen.remote) if seen.remote in ("", taken.shared.commit) else None


def _stored(store: ProjectStore, channel: GitChannel, shared: SharedHistory, keep: int, now: float) -> str:
    """Write the merged local and shared records and return the commit, "" if there are none."""
    floor = read_floor(store)
    united = merge_records([*shared.records, *complete_records(store)], floor, keep)
    if not united.records and not shared.commit:
        return ""
    if united.floor != floor:
        store.write("floor", f"{united.floor}\n".encode())
    return write_history(GitWriter(channel.root, channel.part, now), store, shared, united)


def _offer(channel: GitChannel, store: ProjectStore, taken: ImportResult, commit: str, seconds: float) -> GitResult:
    """Set the ref at the remote (else here) to this commit if it is unchanged since the import; return git's result."""
    before = taken.shared.commit
    if not commit:
        return GitResult(0)
    if not channel.remote:
        moved = commit == before or set_local(channel.root, commit, before or "0" * len(commit))
        return GitResult(0 if moved else 1, b"stale info")
    if commit == taken.remote:
        return GitResult(0)
    ran = push(channel, store.folder, commit, taken.remote, seconds)
    if ran.code == 0:
        set_local(channel.root, commit)
    return ran


def _was_late(ran: GitResult) -> bool:
    """Return whether git's or the server's message says that another job was first."""
    text = (ran.out.decode("utf-8", "replace") + ran.err).lower()
    return any(words in text for words in LATE)


def _refused(store: ProjectStore, channel: GitChannel, why: str, remedy: str = ALLOW) -> HistoryError:
    where = channel.remote or "git"
    kept = f"All of it is in {store.folder}, and the next run that can publishes it"
    return HistoryError(f"{where} did not take the history ({why})", f"{remedy}. {kept}")
