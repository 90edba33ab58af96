"""What a history holds, as values: how much, from when to when, and how far it has travelled."""

import os
from collections import Counter
from typing import NamedTuple

from fedstep.history.git_ref import REF, read_shared
from fedstep.history.git_transport import GitChannel
from fedstep.history.merge import complete_records, load_sync_state, read_floor
from fedstep.history.project_store import ProjectStore, build_name
from fedstep.history.summary import cache_key, load_summary, read_summary
from fedstep.ingest.git_objects import open_objects
from fedstep.ingest.git_process import run_remote_git, summarize_error
from fedstep.types import Unavailable

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
        tests=len(remembered.summary.tests),
        first=_ended(names[0]) if names else NONE,
        last=_ended(names[-1]) if names else NONE,
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
        remote=_asked(channel, seconds) if channel.remote else Unavailable("there is no remote"),
        unpublished=len(complete_records(store) - (shared.records.keys() if shared else set())),
        fetched_at=load_sync_state(store).fetched_at,
    )


def _asked(channel: GitChannel, seconds: float) -> str | Unavailable:
    ran = run_remote_git(channel.root, ("ls-remote", channel.remote, REF), seconds)
    if ran.code:
        return Unavailable(f"did not answer: {summarize_error(ran)}")
    return ran.out.decode("ascii", "replace").partition("\t")[0]


def _ended(record: str) -> float:
    return int(record[:14]) / 1000


def _size(folder: str) -> int:
    """Return the total bytes of all files below the folder."""
    return sum(
        os.lstat(os.path.join(path, name)).st_size
        for path, _, names in os.walk(folder)
        for name in names
        if os.path.lexists(os.path.join(path, name))
    )
