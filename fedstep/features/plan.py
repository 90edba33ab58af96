"""What the build heads know of a build before it starts, taken from its situation."""

from collections import Counter
from collections.abc import Sequence

from fedstep.build.record import Change, CiRun, Situation
from fedstep.build.relation import is_build_file
from fedstep.features.builds import PastBuild, Planned

__all__ = ["plan", "stream_of", "usual_stream"]


def stream_of(ci: CiRun, source: str) -> str:
    """The stream of a job run: job, matrix cell and the source of its duration. Only equal streams are compared."""
    return "|".join((ci.job, ci.cell, source))


def usual_stream(builds: Sequence[PastBuild], ci: CiRun) -> str:
    """The stream whose next build is predicted: this job's newest, else (on a laptop) the most frequent of late."""
    own = stream_of(ci, "")
    newest = next((build.stream for build in reversed(builds) if build.stream.startswith(own)), None)
    if newest is not None:
        return newest
    counts = Counter(build.stream for build in builds[-50:]) if ci.vendor == "local" else Counter()
    return counts.most_common(1)[0][0] if counts else own


def plan(situation: Situation, stream: str, author: str) -> Planned:
    """The planned build; `author` is the keyed hash that stands for the change's author."""
    ci, change = situation.ci, situation.change
    known = change if isinstance(change, Change) else None
    day = situation.started_at / 86_400
    return Planned(
        stream=stream,
        started_at=situation.started_at,
        branch=ci.branch,
        base_branch=ci.base_branch,
        event=ci.event,
        author=author if known else "",
        commit=known.commit if known else "",
        is_pr=ci.event == "pull_request" if ci.event else None,
        hour=day % 1 * 24,
        weekday=int(day + 3) % 7,
        files=float(len(known.files)) if known else None,
        lines=float(sum(file.added + file.deleted for file in known.files)) if known else None,
        build_file_touched=any(is_build_file(file.path) for file in known.files) if known else None,
    )
