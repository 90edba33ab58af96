"""What each feature means, in words: the vocabulary from which `reasons.py` makes its phrases.

`{}` is the feature's value, `{n}` the number of runs it looks at, `{whose}` the builds it looks at. A key with
`:build` is what the part means when it is said of a build rather than of a test.
"""

from collections.abc import Callable, Mapping
from math import exp

from fedstep.report.units import percent, span

__all__ = ["ABSENT", "CHOICES", "NUMBERS", "SCOPES", "WORDS"]


def _plain(number: float) -> str:
    return f"{number:g}"


def _share(share: float) -> str:
    return f"{100 * share:g} %" if 0 < share < 0.01 else percent(share)


def _ratio(logarithm: float) -> str:
    return f"{exp(logarithm):.2g} ×"


WORDS: Mapping[str, str] = {"name": "its name has", "source": "its source uses"}

SCOPES: Mapping[str, str] = {
    "branch": "of this branch",
    "author": "of this author",
    "base": "for this target branch",
    "kind": "of this kind",
    "job": "of this job",
    "stream": "of this job",
    "others": "of other branches",
    "project": "of this project",
}

NUMBERS: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "runs": ("has {} earlier runs", _plain),
    "runs:build": ("{} earlier builds {whose} are known", _plain),
    "failure-rate": ("failed in {} of its last {n} runs", _share),
    "failure-rate:build": ("{} of the recent builds {whose} failed", _share),
    "rate:build": ("{} of the recent builds {whose} failed", _share),
    "failing:build": ("{} builds {whose} failed in a row", _plain),
    "passing:build": ("{} builds {whose} passed in a row", _plain),
    "flip-rate": ("changed its outcome in {} of its last {n} runs", _share),
    "gold-rate": ("passed and failed on one commit in {} of its last {n} runs", _share),
    "runs-since-failure": ("last failed {} runs ago", _plain),
    "runs-since-flip": ("last changed its outcome {} runs ago", _plain),
    "classmates-flip-rate": ("tests of its class change outcome in {} of runs", _share),
    "classmates-failure-rate": ("tests of its class fail in {} of runs", _share),
    "project-flip-rate": ("tests of this project change outcome in {} of runs", _share),
    "seconds": ("takes {}", span),
    "seconds-variation": ("its time varies by {}", _share),
    "source-words": ("its source has {} known words", _plain),
    "failures-in-a-row": ("failed {} times in a row before", _plain),
    "failures-in-build": ("{} tests failed in this build", _plain),
    "classmates-failing": ("{} tests of its class fail with it", _plain),
    "files-changed": ("{} files changed", _plain),
    "files:build": ("{} files changed", _plain),
    "lines:build": ("{} lines changed", _plain),
    "seconds-ratio": ("took {} its usual time", _ratio),
    "last:build": ("the last build {whose} took {} the usual time", _ratio),
    "last-passed:build": ("the last build that passed took {} the usual time", _ratio),
    "last-failed:build": ("the last build that failed took {} the usual time", _ratio),
    "minimum:build": ("the shortest of {n} builds took {} the usual time", _ratio),
    "maximum:build": ("the longest of {n} builds took {} the usual time", _ratio),
    "gap:build": ("the last build {whose} started {} before", span),
    "idle:build": ("the last build {whose} ended {} before", span),
}

_OUTCOMES: Mapping[str, str] = {
    "passed": "the last build {whose} passed",
    "unstable": "tests failed in the last build {whose}",
    "failed": "the last build {whose} failed",
    "none": "no earlier build {whose} is known",
}

CHOICES: Mapping[str, Mapping[str, str]] = {
    "change": {
        "itself": "this change touches the test itself",
        "near": "this change touches files near it",
        "build-file": "this change touches a build file",
        "elsewhere": "this change touches other files only",
        "nothing": "nothing changed since it passed",
    },
    "same-commit": {
        "passed": "it passed before on this commit",
        "failed": "it failed before on this commit",
        "both": "it passed and failed before on this commit",
        "unseen": "its first run on this commit",
    },
    "failure-kind": {
        "assertion": "an assertion failed",
        "timeout": "it ran out of time",
        "connection": "a connection failed",
        "null": "it met a null reference",
        "state": "it met an illegal state",
        "io": "input or output failed",
        "memory": "it ran out of memory",
        "concurrency": "threads got in each other's way",
        "other": "an uncommon kind of failure",
    },
    "event": {
        "push": "a push started it",
        "pull_request": "a pull request started it",
        "schedule": "a schedule started it",
        "manual": "somebody started it by hand",
        "tag": "a tag started it",
    },
    "evidence-past": {"": "how often it, its class and the project flipped before"},
    "evidence-repeats": {"": "whether it goes on failing"},
    "evidence-change": {"": "what this change touches"},
    "evidence-companions": {"": "quiet tests of its package that fail with it"},
    "evidence-commit": {"": "it passed on this very commit"},
    "time-rank": {"": "how long it takes beside the project's other tests"},
    "build-file": {"True": "this change touches a build file", "False": "this change touches no build file"},
    "last-outcome:build": _OUTCOMES,
    "outcome:build": _OUTCOMES,
    "last:build": _OUTCOMES,
}

ABSENT: Mapping[str, str] = {
    "runs": "no earlier run is known",
    "failure-rate": "no earlier run is known",
    "flip-rate": "no earlier run is known",
    "gold-rate": "no earlier run is known",
    "runs-since-failure": "no failure of it is known",
    "runs-since-flip": "it never changed its outcome",
    "classmates-flip-rate": "no runs of its class are known",
    "classmates-failure-rate": "no runs of its class are known",
    "seconds": "its time is not known",
    "seconds-variation": "its time is not known",
    "seconds-ratio": "its usual time is not known",
    "source-words": "its source was not found",
    "files-changed": "the change is not known",
    "project-flip-rate": "no runs of this project are known",
    "failures-in-a-row": "no earlier run is known",
    **dict.fromkeys(("failures-in-build", "classmates-failing"), "the other failures are not known"),
    **dict.fromkeys(("files:build", "lines:build"), "the change is not known"),
    **dict.fromkeys(
        ("failure-rate:build", "rate:build", "last:build", "gap:build", "idle:build"),
        "no earlier build {whose} is known",
    ),
}
