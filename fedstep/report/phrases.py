"""What each feature means, in words: the vocabulary from which `reasons.py` makes its phrases.

`{}` is the feature's value, `{n}` the number of runs it looks at, `{whose}` the builds it looks at. A key with
`:build` is what the part means when it is said of a build rather than of a test.
"""

from collections.abc import Callable, Mapping
from math import exp

from fedstep.report.units import percent, span

__all__ = ["ABSENT", "NUMBERS", "PRIVATE", "SCOPES", "WORDS"]


def _plain(number: float) -> str:
    return f"{number:g}"


def _share(share: float) -> str:
    return f"{100 * share:g} %" if 0 < share < 0.01 else percent(share)


def _ratio(logarithm: float) -> str:
    return f"{exp(logarithm):.2g} ×"


def _hour(hour: float) -> str:
    return f"{hour:g} h"


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

PRIVATE: Mapping[str, str] = {
    "test": "what was learned here of this very test",
    "class": "what was learned here of its class",
    "branch": "what was learned here of this branch",
    "job": "what was learned here of this job",
    "author": "what was learned here of this author",
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
    "hour:build": ("starts at {} UTC", _hour),
    "seconds-ratio": ("took {} its usual time", _ratio),
    "last:build": ("the last build {whose} took {} the usual time", _ratio),
    "last-passed:build": ("the last build that passed took {} the usual time", _ratio),
    "last-failed:build": ("the last build that failed took {} the usual time", _ratio),
    "minimum:build": ("the shortest of {n} builds took {} the usual time", _ratio),
    "maximum:build": ("the longest of {n} builds took {} the usual time", _ratio),
    "gap:build": ("the last build {whose} started {} before", span),
    "idle:build": ("the last build {whose} ended {} before", span),
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
    "hour:build": "its hour is not known",
    **dict.fromkeys(
        (
            "runs:build",
            "failing:build",
            "passing:build",
            "failure-rate:build",
            "rate:build",
            "last:build",
            "gap:build",
            "idle:build",
        ),
        "no earlier build {whose} is known",
    ),
}
