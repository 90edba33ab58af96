"""What a feature means that has one answer: of a list, "" where its name is all there is, or a round number.

`{n}` and `{whose}` are as in `phrases.py`. A number is here where its phrase would read oddly: none, or one.
"""

from collections.abc import Mapping

__all__ = ["CHOICES"]

_OUTCOMES: Mapping[str, str] = {
    "passed": "the last build {whose} passed",
    "unstable": "tests failed in the last build {whose}",
    "failed": "the last build {whose} failed",
    "none": "no earlier build {whose} is known",
}

_RESEMBLING: Mapping[str, str] = {
    "similar": "how builds like this one went",
    "own": "how all builds of this job went",
    "newest": "how the newest builds went",
    "any-age": "how builds like this one went, old ones too",
    "same-branch": "how builds of the same branch went",
    "any-branch": "how builds of all branches went",
    "any-kind": "how builds went, whatever started them",
    "same-author": "how builds of the same author went",
    "same-size": "how builds with as large a change went",
    "same-hour": "how builds at this hour went",
    "same-weekend": "how builds on such a day of the week went",
    "same-before": "how builds went after such a build of their branch",
    "same-previous": "how builds went after such a build of the job",
    "low": "the shorter times of builds like this one",
    "high": "the longer times of builds like this one",
    "last-5": "how long the last five builds took",
    "passed": "how long the last builds that passed took",
}

_ROUND: Mapping[str, Mapping[str, str]] = {
    "runs": {"0": "has no earlier run", "1": "has 1 earlier run"},
    "runs:build": {"0": "no earlier build {whose} is known", "1": "1 earlier build {whose} is known"},
    "failure-rate": {"0": "never failed in its last {n} runs"},
    "failure-rate:build": {"0": "none of the recent builds {whose} failed"},
    "rate:build": {"0": "none of the recent builds {whose} failed"},
    "failing:build": {"0": "no build {whose} failed just before", "1": "1 build {whose} failed just before"},
    "passing:build": {"0": "no build {whose} passed just before", "1": "1 build {whose} passed just before"},
    "flip-rate": {"0": "never changed its outcome in its last {n} runs"},
    "gold-rate": {"0": "never passed and failed on one commit in its last {n} runs"},
    "runs-since-failure": {"1": "last failed 1 run ago"},
    "runs-since-flip": {"1": "last changed its outcome 1 run ago"},
    "classmates-flip-rate": {"0": "no other test of its class changed its outcome"},
    "classmates-failure-rate": {"0": "no other test of its class failed"},
    "project-flip-rate": {"0": "no test of this project changed its outcome"},
    "seconds-variation": {"0": "its time hardly varies"},
    "source-words": {"0": "its source has no known word"},
    "failures-in-a-row": {"0": "had not failed just before", "1": "failed once just before"},
    "failures-in-build": {"1": "no other test failed in this build"},
    "classmates-failing": {"0": "no other test of its class fails with it", "1": "1 test of its class fails with it"},
    "files-changed": {"0": "no file changed", "1": "1 file changed"},
    "files:build": {"0": "no file changed", "1": "1 file changed"},
    "lines:build": {"0": "no line changed", "1": "1 line changed"},
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
    "last:build": {**_OUTCOMES, "": "how long the last build took"},
    **{f"{name}:build": {"": phrase} for name, phrase in _RESEMBLING.items()},
    **_ROUND,
}
