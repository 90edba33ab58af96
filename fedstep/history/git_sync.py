"""Synchronization of a store with its ref: importing and publishing records without losing any, and what each holds."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from fedstep.errors import HistoryError
from fedstep.history.git_ref import (
    REF,
    GitChannel,
    GitWriter,
    SharedHistory,
    fetch,
    find_remote,
    local_commit,
    merge_records,
    push,
    read_shared,
    set_local,
    write_history,
    write_without_part,
)
from fedstep.history.merge import (
    ImportResult,
    SyncState,
    complete_records,
    import_ref,
    load_sync_state,
    read_floor,
    save_sync_state,
)
from fedstep.history.project_store import ProjectStore, build_name
from fedstep.history.summary import cache_key, load_summary, read_summary
from fedstep.ingest.change_impact import count_tests
from fedstep.ingest.git_objects import open_objects
from fedstep.ingest.git_process import TIMED_OUT, GitResult, owner_remedy, run_remote_git, summarize_error
from fedstep.types import Unavailable

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
    return _change(
        store, channel, lambda taken: _store_merged(store, channel, taken.shared, keep, now), now, seconds, waits
    )


def withdraw(store: ProjectStore, channel: GitChannel, now: float, seconds: float) -> PublishResult:
    """Remove this part from the ref. Raise HistoryError as `publish` does."""
    writer = GitWriter(channel.root, channel.part, now)
    return _change(store, channel, lambda taken: write_without_part(writer, store, taken.shared), now, seconds, WAITS)


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
            raise _refusal(store, channel, summarize_error(ran), owner_remedy(ran, channel.root) or ALLOW)
        failed_at, why = taken.remote, f"other jobs were first {attempt} times"
        taken = None
    raise _refusal(store, channel, why, "Raise --budget" if failed_at == "never" else ALLOW)


def _already_taken(store: ProjectStore, channel: GitChannel) -> ImportResult | None:
    """Import the local ref if it is the last one seen at the remote; else return None, and the remote must be asked."""
    seen = load_sync_state(store)
    if channel.remote and not (seen.remote and local_commit(channel.root) == seen.remote):
        return None
    taken = import_ref(store, channel)
    return taken._replace(remote=seen.remote) if seen.remote in ("", taken.shared.commit) else None


def _store_merged(store: ProjectStore, channel: GitChannel, shared: SharedHistory, keep: int, now: float) -> str:
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


def _refusal(store: ProjectStore, channel: GitChannel, why: str, remedy: str = ALLOW) -> HistoryError:
    where = channel.remote or "git"
    kept = f"All of it is in {store.folder}, and the next run that can publishes it"
    return HistoryError(f"{where} did not take the history ({why})", f"{remedy}. {kept}")


NONE = Unavailable("no build is known")


class HistoryOverview(NamedTuple):
    """One history. Times are seconds since the epoch, sizes bytes."""

    folder: str
    builds: int
    unlearned: int  # builds that no cache knows yet
    tests: int
    first: float | Unavailable  # end of the oldest and the newest build
    last: float | Unavailable
    streams: tuple[tuple[str, int], ...]  # job|cell|source, and how many of the last 400 builds, most first
    record_bytes: int
    all_bytes: int
    generation: str  # of the caches
    pruned_up_to: str  # record file, "" where nothing was pruned from the ref
    warnings: tuple[str, ...]


class RefStatus(NamedTuple):
    """The ref of a history: what this clone has, what the remote has."""

    ref: str
    local: str  # commit, "" where there is none
    remote_name: str  # "" where there is no remote
    remote: str | Unavailable  # commit, "" where it has none
    unpublished: int  # records that the ref of this clone lacks
    fetched_at: float  # seconds since the epoch, 0.0: never


def summarize_history(store: ProjectStore) -> HistoryOverview:
    """Return the sizes, time range, streams and warnings of this history."""
    cached, remembered, names = read_summary(store), load_summary(store), store.log.files()
    learned = set(map(build_name, cached.seen))
    streams = Counter(build.stream for build in remembered.summary.builds)
    return HistoryOverview(
        folder=store.folder,
        builds=len(names),
        unlearned=sum(build_name(name) not in learned for name in names),
        tests=count_tests(remembered.summary.tests),
        first=_read_end(names[0]) if names else NONE,
        last=_read_end(names[-1]) if names else NONE,
        streams=tuple(streams.most_common()),
        record_bytes=_size(store.path("builds")),
        all_bytes=_size(store.folder),
        generation=cache_key(cached),
        pruned_up_to=read_floor(store),
        warnings=remembered.warnings,
    )


def describe_ref(store: ProjectStore, channel: GitChannel, seconds: float) -> RefStatus:
    """Return the state of the ref here and at the remote, which is asked for at most `seconds`."""
    with open_objects(channel.root) as objects:
        shared = None if isinstance(objects, Unavailable) else read_shared(objects, channel.part)
    return RefStatus(
        ref=REF,
        local=shared.commit if shared else "",
        remote_name=channel.remote,
        remote=_ask_tip(channel, seconds) if channel.remote else Unavailable("there is no remote"),
        unpublished=len(complete_records(store) - (shared.records.keys() if shared else set())),
        fetched_at=load_sync_state(store).fetched_at,
    )


def _ask_tip(channel: GitChannel, seconds: float) -> str | Unavailable:
    ran = run_remote_git(channel.root, ("ls-remote", channel.remote, REF), seconds)
    if ran.code:
        return Unavailable(f"did not answer: {summarize_error(ran)}")
    return ran.out.decode("ascii", "replace").partition("\t")[0]


def _read_end(record: str) -> float:
    return int(record[:14]) / 1000


def _size(folder: str) -> int:
    """Return the total bytes of all files below the folder."""
    return sum(
        os.lstat(os.path.join(path, name)).st_size
        for path, _, names in os.walk(folder)
        for name in names
        if os.path.lexists(os.path.join(path, name))
    )
