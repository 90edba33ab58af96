"""What a history holds, as values: how much, from when to when, and how far it has travelled."""

import os
from collections import Counter
from typing import NamedTuple

from fedstep.build.gitobjects import open_objects
from fedstep.build.gittalk import last_words, talk
from fedstep.build.record import Absent
from fedstep.history.gitref import Channel
from fedstep.history.home import Home
from fedstep.history.intake import known_floor, load_seen, whole_records
from fedstep.history.log import build_of
from fedstep.history.memory import generation, read_summary, recall
from fedstep.history.shared import REF, read_shared

__all__ = ["Overview", "Travel", "overview", "travel_of"]

NONE = Absent("no build is known")


class Overview(NamedTuple):
    """One history. Times are seconds since the epoch, sizes bytes."""

    folder: str
    builds: int
    unlearned: int  # builds that no cache knows yet
    tests: int
    first: float | Absent  # when its oldest and its newest build ended
    last: float | Absent
    streams: tuple[tuple[str, int], ...]  # job|cell|source of the time, and how many of the last 400 builds; most first
    record_bytes: int
    all_bytes: int
    generation: str  # of the caches
    pruned_up_to: str  # record file, "" where nothing was pruned from the ref
    warnings: tuple[str, ...]


class Travel(NamedTuple):
    """The ref of a history: what this clone has, what the remote has."""

    ref: str
    local: str  # commit, "" where there is none
    remote_name: str  # "" where there is no remote
    remote: str | Absent  # commit, "" where it has none
    unpublished: int  # records that the ref of this clone lacks
    fetched_at: float  # seconds since the epoch, 0.0: never


def overview(home: Home) -> Overview:
    """What this history holds."""
    cached, remembered, names = read_summary(home), recall(home), home.log.files()
    learned = set(map(build_of, cached.seen))
    streams = Counter(build.stream for build in remembered.summary.builds)
    return Overview(
        folder=home.folder,
        builds=len(names),
        unlearned=sum(build_of(name) not in learned for name in names),
        tests=len(remembered.summary.tests.ids),
        first=_ended(names[0]) if names else NONE,
        last=_ended(names[-1]) if names else NONE,
        streams=tuple(streams.most_common()),
        record_bytes=_size(home.path("builds")),
        all_bytes=_size(home.folder),
        generation=generation(cached),
        pruned_up_to=known_floor(home),
        warnings=remembered.warnings,
    )


def travel_of(home: Home, channel: Channel, seconds: float) -> Travel:
    """The state of the ref; the remote is asked, for so many seconds at most."""
    with open_objects(channel.root) as objects:
        shared = None if isinstance(objects, Absent) else read_shared(objects, channel.part)
    return Travel(
        ref=REF,
        local=shared.commit if shared else "",
        remote_name=channel.remote,
        remote=_asked(channel, seconds) if channel.remote else Absent("there is no remote"),
        unpublished=len(whole_records(home) - (shared.records.keys() if shared else set())),
        fetched_at=load_seen(home).fetched_at,
    )


def _asked(channel: Channel, seconds: float) -> str | Absent:
    ran = talk(channel.root, ("ls-remote", channel.remote, REF), seconds)
    if ran.code:
        return Absent(f"did not answer: {last_words(ran)}")
    return ran.out.decode("ascii", "replace").partition("\t")[0]


def _ended(record: str) -> float:
    return int(record[:14]) / 1000


def _size(folder: str) -> int:
    """The bytes of all files below."""
    return sum(
        os.lstat(os.path.join(path, name)).st_size
        for path, _, names in os.walk(folder)
        for name in names
        if os.path.lexists(os.path.join(path, name))
    )
