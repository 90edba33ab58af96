"""Phrase the reasons of a prediction and the figures of a result in words.

In the tables of phrases, `{n}` is the window of a feature and `{whose}` its scope. A number has a phrase of its own
where the general one would read oddly: none, or one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import exp, isfinite
from typing import NamedTuple, TypeVar

from fedstep.ingest.change_impact import group_of
from fedstep.report.units import count, percent, size, span, visible
from fedstep.results import (
    ExampleCounts,
    Exchange,
    FailingSince,
    FailureGroup,
    FailureVerdict,
    FeatureContribution,
    Interval,
    ModelUsed,
    NotRun,
    Prediction,
    ReportCounts,
    SlowerTest,
    TestRisk,
)
from fedstep.types import LeftOut, SelectionTally, TimeChange, Unavailable

_DRAWN = {"p": ".", "f": "F", "c": "F", "k": "~", "s": "-"}
FLAKY_RUNS, FLAKY_FROM = 20, 0.1  # of the flaky task: a test is called likely to flake from this chance on
LEGEND = "runs, oldest first:  . passed  F failed  ~ failed and passed  - skipped;  + raises, - lowers"
AS_ABOVE = "for the same reasons as the failure above"
VERDICTS = ("regression", "unsure", "flaky")  # most urgent first
STATUS = {
    "ok": "ok",
    "local": "local: no aggregator is configured, this project's own history is used",
    "degraded": "degraded: something failed, see the warnings",
}


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
    "same-kinds": "how builds with changes to such files went",
    "same-running": "how builds went while as many others ran",
    "same-kinds-running": "how builds with such changes went while as many others ran",
    "low": "the shorter times of builds like this one",
    "high": "the longer times of builds like this one",
    "last-5": "how long the last five builds took",
    "passed": "how long the last builds that passed took",
    "last-3": "how long the last three builds took",
    "last-20": "how long the last twenty builds took",
    "last-branch": "how long the last build of the branch took",
    "moved": "how much longer or shorter builds became lately",
}

_ROUND: Mapping[str, Mapping[str, str]] = {
    "runs": {"0": "has no earlier run", "1": "has 1 earlier run"},
    "runs:build": {"0": "the first known build {whose}", "1": "1 earlier build {whose} is known"},
    "failure-rate": {"0": "never failed in its last {n} runs"},
    "failure-rate:build": {"0": "none of the recent builds {whose} failed"},
    "rate:build": {"0": "none of the recent builds {whose} failed"},
    "failing:build": {"0": "no build {whose} failed just before", "1": "the last build {whose} failed"},
    "passing:build": {"0": "no build {whose} passed just before", "1": "the last build {whose} passed"},
    "flip-rate": {"0": "never flipped in its last {n} runs"},
    "gold-rate": {"0": "never passed and failed on one commit in its last {n} runs"},
    "runs-since-failure": {"1": "last failed 1 run ago"},
    "runs-since-flip": {"1": "last flipped 1 run ago"},
    "classmates-flip-rate": {"0": "no other test of its class flipped"},
    "classmates-failure-rate": {"0": "no other test of its class failed"},
    "project-flip-rate": {"0": "no test of this project flipped"},
    "seconds-variation": {"0": "its time hardly varies"},
    "source-words": {"0": "its source has no known word"},
    "failures-in-a-row": {"0": "had not failed just before", "1": "failed once just before"},
    "failures-in-build": {"1": "no other test failed in this build"},
    "classmates-failing": {"0": "no other test of its class fails with it", "1": "1 test of its class fails with it"},
    "files-changed": {"0": "no file changed", "1": "1 file changed"},
    "files:build": {"0": "no file changed", "1": "1 file changed"},
    "lines:build": {"0": "no line changed", "1": "1 line changed"},
    "running:build": {"0": "no other build of this job was running", "1": "1 other build of this job was running"},
}

CHOICES: Mapping[str, Mapping[str, str]] = {
    "change": {
        "itself": "this change touches the test or what it tests",
        "near": "this change touches files near it",
        "build-file": "this change touches a build file",
        "elsewhere": "this change touches other files only",
        "nothing": "this change touches no file",
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
    **{key: {"": "what its past runs show"} for key in ("evidence", "flake-rate", "flipped")},
    "build-file": {"True": "this change touches a build file", "False": "this change touches no build file"},
    "last-outcome:build": _OUTCOMES,
    "outcome:build": _OUTCOMES,
    "last:build": {**_OUTCOMES, "": "how long the last build took"},
    **{f"{name}:build": {"": phrase} for name, phrase in _RESEMBLING.items()},
    **_ROUND,
}


def _plain(value: float) -> str:
    return f"{value:g}"


def _share(share: float) -> str:
    return f"{100 * share:.1g} %" if 0 < share < 0.01 else percent(share)


def _ratio(logarithm: float) -> str:
    ratio = exp(min(logarithm, 20.0))
    return f"{ratio:,.0f} ×" if ratio >= 10 else f"{ratio:.2g} ×"


LONGEST_RANK = 0.99  # no test takes longer than all tests, of which it is one


def _rank(rank: float) -> str:
    """Return where a time lies among the project's: -1 is the shortest, 1 the longest."""
    share = percent(min((1.0 + abs(rank)) / 2, LONGEST_RANK))
    return f"takes longer than {share}" if rank >= 0 else f"is quicker than {share}"


def _hour(hour: float) -> str:
    minutes = round(60 * hour) % (24 * 60)
    return f"{minutes // 60}:{minutes % 60:02}"


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

# What raises and what lowers: the value of these is nats, or a weight, which no reader has a use for.
SIGNED: Mapping[str, tuple[str, str]] = {
    "evidence-past": ("it or its neighbours flipped before", "it and its neighbours hardly ever flipped"),
    "evidence-repeats": ("it does not go on failing", "it goes on failing"),
    "evidence-change": ("this change touches nothing near it", "this change touches it or files near it"),
    "evidence-companions": ("no other test began to fail with it", "other tests of its package began to fail with it"),
    "evidence-kind": ("it failed as it did when it flipped", "it never failed in this way before"),
    "evidence-time": (
        "takes longer than most of the project's tests",
        "takes less time than most of the project's tests",
    ),
    "evidence-environment": ("its message names the network or the machine", "its message names no machine"),
    "evidence-words": (
        "its words are like those of flaky tests elsewhere",
        "its words are like those of steady tests elsewhere",
    ),
    "evidence-commit": ("it passed on this very commit", "it failed before on this very commit"),
    "doubted": ("it failed and passed again, which may have been a flake", "it failed and passed again"),
    "classmates-flakes": ("other tests of its class flaked", "other tests of its class hardly flake"),
    "project-flips": ("other tests of this project flip", "tests of this project hardly flip"),
    "test": ("turned out flaky here more often than predicted", "turned out flaky here less often than predicted"),
    "class": (
        "its class turned out flaky more often than predicted",
        "its class turned out flaky less often than predicted",
    ),
    "branch": ("this branch failed more often than predicted", "this branch failed less often than predicted"),
    "job": ("this job failed more often than predicted", "this job failed less often than predicted"),
    "author": (
        "this author's builds failed more often than predicted",
        "this author's builds failed less often than predicted",
    ),
}

NUMBERS: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "runs": ("has {} earlier runs", _plain),
    "runs:build": ("{} earlier builds {whose} are known", _plain),
    "failure-rate": ("failed in {} of its last {n} runs", _share),
    "failure-rate:build": ("{} of the recent builds {whose} failed", _share),
    "rate:build": ("{} of the recent builds {whose} failed", _share),
    "failing:build": ("{} builds {whose} failed in a row", _plain),
    "passing:build": ("{} builds {whose} passed in a row", _plain),
    "flip-rate": ("flipped in {} of its last {n} runs", _share),
    "gold-rate": ("passed and failed on one commit in {} of its last {n} runs", _share),
    "runs-since-failure": ("last failed {} runs ago", _plain),
    "runs-since-flip": ("last flipped {} runs ago", _plain),
    "classmates-flip-rate": ("tests of its class flip in {} of runs", _share),
    "classmates-failure-rate": ("tests of its class fail in {} of runs", _share),
    "project-flip-rate": ("tests of this project flip in {} of runs", _share),
    "seconds": ("takes {}", span),
    "time-rank": ("{} of the project's tests", _rank),
    "seconds-variation": ("its time varies by {}", _share),
    "source-words": ("its source has {} known words", _plain),
    "failures-in-a-row": ("failed {} times in a row before", _plain),
    "failures-in-build": ("{} tests failed in this build", _plain),
    "classmates-failing": ("{} tests of its class fail with it", _plain),
    "files-changed": ("{} files changed", _plain),
    "files:build": ("{} files changed", _plain),
    "lines:build": ("{} lines changed", _plain),
    "running:build": ("{} other builds of this job were running", _plain),
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
    "runs-since-flip": "it never flipped",
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
    "running:build": "how many builds were running is not known",
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


MOST_CAUSES = 3
SMALLEST = 0.005  # of the margin: rounds to 0.00 and moves no probability by half a percent
Entry = TypeVar("Entry")


class ReasonPhrase(NamedTuple):
    """One phrase, the word it ends with ("" for most), and the sum of its contributions to the margin."""

    phrase: str
    word: str
    contribution: float

    @property
    def sign(self) -> str:
        """Return `+` for what raises the prediction, `-` for what lowers it, "" for what does neither."""
        return "+" if self.contribution > 0 else "-" if self.contribution else ""


# What a person thinks of as one thing: the features of each concept, by the beginning of their names. The first fits.
CONCEPTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "test": {
        "here": ("test", "class"),
        "flips": (
            "flip-rate",
            "gold-rate",
            "runs-since-flip",
            "evidence-past",
            "flake-rate",
            "evidence-kind",
            "doubted",
        ),
        "failures": ("failure-rate", "runs-since-failure", "failures-in-a-row", "evidence-repeats"),
        "neighbours": (
            "classmates-flakes",
            "project-flips",
            "classmates-flip-rate",
            "classmates-failure-rate",
            "project-flip-rate",
        ),
        "runs": ("runs",),
        "time": ("time-rank", "evidence-time", "seconds"),
        "words": ("name", "source"),
        "likeness": ("evidence-words",),
        "change": ("change", "evidence-change", "files-changed"),
        "commit": ("same-commit", "evidence-commit"),
        "company": ("failures-in-build", "classmates-failing", "evidence-companions"),
        "kind": ("failure-kind", "evidence-kind", "evidence-environment"),
    },
    "build": {
        "branch": ("branch", "same-branch", "any-branch"),
        "author": ("author", "same-author"),
        "change": ("files", "lines", "same-size", "build-file"),
        "time": ("hour", "same-hour", "same-weekend", "weekday"),
        "builds": (
            *(
                "similar",
                "own",
                "newest",
                "any-age",
                "any-kind",
                "same-kinds",
                "same-running",
                "same-before",
                "same-previous",
                "runs",
                "failing",
            ),
            *("passing", "last-outcome", "rate", "failure-rate", "job", "project", "kind", "event"),
        ),
    },
}
# How a large value of a feature speaks: for a flake or a failure (+1), or against it. Where it is none it is never a
# reason that speaks the same way.
_RISING = (
    "flip-rate",
    "gold-rate",
    "failure-rate",
    "classmates",
    "project-flip",
    "failing",
    "rate",
    "branch-failing",
    "runs-since",
)
_FALLING = ("passing", "branch-passing")
_NONE = ("0", "0.0", "absent", "none", "")
_NEIGHBOURS = ("classmates-flip-rate", "project-flip-rate")  # of flips per run; usual is none at all
SELDOM = 0.01  # below it a rate reads as a reason against a flake, whatever is usual; from it on as one for it
# True of most failures, or known of nothing.
_SAYS_NOTHING = (
    ("same-commit", "unseen"),
    ("failures-in-build", "1"),
    ("classmates-failing", "0"),
    ("failure-kind", "other"),
)
_NEAR = ("itself", "near", "build-file")  # what a change touches, where it speaks for a break
_PAST = ("flips", "failures", "runs")  # concepts that a test without a run has nothing of
NO_HISTORY, NEVER_FAILED, NEVER_FLIPPED = "no history yet", "never failed", "never flipped"
CONFIRMED = "failed again in every rerun"
MANY_BROKEN = 0.25  # of the builds: from it on their number is a fact, no reason that the next one passes
LAST_OF_BRANCH = "the last build of this branch"
FEW_RUNS = 5  # from which on it says something that a test never flipped
LEAST_SHARE = 0.1  # of the largest cause: what adds less is not worth a reader's time
TELLER_SHARE = 1 / 3  # of a cause: a feature that adds less of it does not tell it
SHORTEST_TOLD = 0.1  # seconds of a test whose time is worth comparing with its usual one: noise is larger below
SMALLEST_WORD = 0.05  # of the margin: a word that adds less is not quoted
MOST_WORDS = 2
# Words that a reader sees a cause in: time, chance, threads, the network, what is outside of the test. Other words of
# the schema count, too, but to be told that a name has "with" is of no use.
TELLING_WORDS = (
    " async await cache cancel cluster concurrency concurrent connect connected connection connections consumer "
    "daemon database date day delay disk docker event events executor expiration expire expired future heartbeat "
    "hour http https idle interrupt interrupted interval io kafka kill latch leader listener localhost lock "
    "memory millis milliseconds minute network now parallel pool port process producer queue race random "
    "reconnect redis remote restart retries retry schedule scheduled scheduler seconds selector server shutdown "
    "signal singleton sleep socket stream streaming sync synchronized temp thread threads time timeout timer "
    "timestamp tmp ttl upload url wait waiting zone zookeeper "
)


def rank_failure_causes(reasons: Iterable[FeatureContribution]) -> tuple[ReasonPhrase, ...]:
    """Return the causes of a failure's verdict, without what `describe_group` says of it: that it has no history."""
    return tuple(cause for cause in rank_causes(reasons) if cause.phrase != NO_HISTORY)


def rank_causes(reasons: Iterable[FeatureContribution], subject: str = "test") -> tuple[ReasonPhrase, ...]:
    """Return the MOST_CAUSES largest causes of a `subject`, test or build; the features of one concept are one cause.

    A cause is told by the feature that adds most to it. One whose features are all absent is no cause for what their
    presence would cause.

    >>> rank_causes([FeatureContribution("seconds=2.5", 0.5), FeatureContribution("seconds-variation=0", 0.25)])
    (ReasonPhrase(phrase='takes 2.5 s', word='', contribution=0.75),)
    """
    facts: dict[str, str] = {}
    concepts: dict[str, list[FeatureContribution]] = {}
    for reason in reasons:
        part, _, answer = reason.feature.partition("=")
        facts[part] = answer
        if reason.feature and part != "bias" and not part.startswith("recent-") and part != "runs-known":
            concepts.setdefault(_concept(part, subject) or reason.feature, []).append(reason)
    is_new = facts.get("runs-known") == "0"
    sums = {name: sum(member.contribution for member in members) for name, members in concepts.items()}
    least = max(SMALLEST, LEAST_SHARE * max(map(abs, sums.values()), default=0.0))
    ranked = sorted((name for name in sums if abs(sums[name]) >= least), key=lambda name: -abs(sums[name]))
    causes = [ReasonPhrase(NO_HISTORY, "", 0.0)] if is_new else []
    for name in ranked:
        if (is_new and name in _PAST) or (name == "branch" and facts.get("recent-branch") == "unknown"):
            continue
        phrase = _tell(name, concepts[name], sums[name], facts, subject)
        is_fact = name == "builds" and sums[name] < 0 and _share_broken(facts) >= MANY_BROKEN
        is_fact = is_fact and phrase is not None and phrase[0].endswith(" builds failed")
        if phrase and phrase[0] not in (cause.phrase for cause in causes):
            causes.append(ReasonPhrase(*phrase, 0.0 if is_fact else sums[name]))
    if any(cause.phrase.startswith(NEVER_FAILED) for cause in causes[:MOST_CAUSES]):  # then it did not flip, either
        causes = [cause for cause in causes if not cause.phrase.startswith(NEVER_FLIPPED)]
    if facts.get("recent-builds") and _whole(facts.get("recent-broken")) in (0, _whole(facts["recent-builds"])):
        causes = [cause for cause in causes if not cause.phrase.startswith(LAST_OF_BRANCH)]  # all ended as that one
    return tuple(causes[:MOST_CAUSES])


def rank_suspicions(risk: TestRisk) -> tuple[ReasonPhrase, ...]:
    """Return why a test that was never seen to flip may be worth a look: () where nothing can be told."""
    return tuple(cause for cause in rank_causes(risk.reasons) if cause.contribution > 0)


def _concept(part: str, subject: str) -> str:
    for concept, beginnings in CONCEPTS[subject].items():
        if any(part == beginning or part.startswith(f"{beginning}-") for beginning in beginnings):
            return concept
    return part


def _tell(
    concept: str, members: Sequence[FeatureContribution], total: float, facts: Mapping[str, str], subject: str
) -> tuple[str, str] | None:
    """Return phrase and word of a cause; None where nothing that can be said speaks the way it counts."""
    if concept == "words":
        return _tell_words(members, total)
    counted = _phrase_count(concept, facts, total > 0)
    if counted is not None:
        return (counted, "") if counted else None
    alike = sorted(
        (member for member in members if member.contribution * total > 0), key=lambda member: -abs(member.contribution)
    )
    for member in alike:
        part, _, answer = member.feature.partition("=")
        if abs(member.contribution) < TELLER_SHARE * abs(total) or _contradicts(part, answer, total > 0):
            continue
        if part in ("seconds", "seconds-ratio") and _float(facts.get("seconds", "nan")) < SHORTEST_TOLD:
            continue
        phrase, word = phrase_feature(member.feature, subject, raises=total > 0)
        if phrase or word:
            return phrase, word
    return None


def _contradicts(part: str, answer: str, raises: bool) -> bool:
    """Return whether a value that is none would be shown as what its presence would do."""
    if answer == "absent" or part.startswith("evidence-"):
        value = _float(answer)  # of evidence: in nats for a flake; none of it says nothing
        return answer == "absent" or not value or (value > 0) != raises
    if (part, answer) in _SAYS_NOTHING:
        return True
    if part in ("runs", "branch-runs"):
        return answer not in _NONE  # how many are known is no reason
    if part in ("last-outcome", "branch-outcome"):
        return (answer == "passed" and raises) or (answer in ("failed", "unstable") and not raises)
    if answer not in _NONE:
        return part in _NEIGHBOURS and raises == (_float(answer) < SELDOM)
    rising, falling = (any(part.startswith(name) for name in names) for names in (_RISING, _FALLING))
    return (rising and raises) or (falling and not raises)


def _tell_words(members: Sequence[FeatureContribution], total: float) -> tuple[str, str] | None:
    """Return the words that speak the way their sum does, at most two of one place."""
    words = [
        member
        for member in members
        if "=" in member.feature and member.contribution * total > 0 and abs(member.contribution) >= SMALLEST_WORD
    ]
    words = [member for member in words if _is_telling(*member.feature.split("=", 1))]
    if not words:
        return None
    words.sort(key=lambda member: -abs(member.contribution))
    part = words[0].feature.partition("=")[0]
    listed = [member.feature.partition("=")[2] for member in words if member.feature.startswith(f"{part}=")]
    return WORDS[part], ", ".join(listed[:MOST_WORDS])


def _is_telling(part: str, word: str) -> bool:
    return part in WORDS and f" {word} " in TELLING_WORDS


def _phrase_count(concept: str, facts: Mapping[str, str], raises: bool) -> str | None:
    """Return a phrase with a count of recent runs or builds, "" where it would contradict; None where none is known."""
    runs, builds = _whole(facts.get("recent-runs")), _whole(facts.get("recent-builds"))
    if concept == "flips" and runs:
        return _count_flips(_whole(facts.get("recent-flips")), runs, facts, raises)
    if concept == "failures" and runs:
        return _count_failures(_whole(facts.get("recent-failures")), runs, facts, raises)
    if concept == "builds" and facts.get("recent-builds"):
        return _count_broken(_whole(facts.get("recent-broken")), builds, facts, raises)
    if concept == "change" and facts.get("evidence-change") and facts.get("change") in CHOICES["change"]:
        return "" if raises == (facts["change"] in _NEAR) else CHOICES["change"][facts["change"]]
    return None


def _count_flips(flips: int, runs: int, facts: Mapping[str, str], raises: bool) -> str:
    if flips:
        return f"flipped {_times(flips)} in its last {count(runs, 'run')}" if raises else ""
    if raises:  # by failures that passed again and were not judged, or by its class
        mates = "other tests of its class flipped before" if _float(facts.get("classmates-flip-rate", "")) > 0 else ""
        return _count_failures(_whole(facts.get("recent-failures")), runs, facts, raises) or mates
    return (
        f"{NEVER_FLIPPED} in its last {runs} runs" if runs >= FEW_RUNS else f"only {count(runs, 'earlier run')} known"
    )


def _count_failures(failures: int, runs: int, facts: Mapping[str, str], raises: bool) -> str:
    """Return how often the test failed; failures in a row up to now speak for a break, whatever else they are."""
    in_a_row = _whole(facts.get("failures-in-a-row"))
    if in_a_row and failures:
        return "" if raises else f"failed in the {_plural(in_a_row, 'build')} before this"
    if not raises and _float(facts.get("evidence-repeats", "")) < 0:  # in its first build that is by reruns alone
        return CONFIRMED
    if raises or failures:  # failures between passes are no reason for a break
        return f"failed in {failures} of its last {count(runs, 'run')}" if raises and failures else ""
    return _never_failed(runs)


def _never_failed(runs: int) -> str:
    return f"{NEVER_FAILED} in its last {runs} runs" if runs >= FEW_RUNS else ""


def _count_broken(broken: int, builds: int, facts: Mapping[str, str], raises: bool) -> str:
    """Return how many of the last builds failed, or what says more: a row of failures, or builds like this one."""
    if not builds:
        return "no build of this job is known yet"
    if broken in (0, builds):
        if raises == (not broken):
            return ""
        if builds < 3:
            return f"{('the only build', 'both builds')[builds - 1]} known {'failed' if broken else 'passed'}"
        return f"{'all' if broken else 'none'} of the last {builds} builds failed"
    share, in_a_row = broken / builds, _whole(facts.get("failing"))
    if raises and in_a_row > 1:
        return f"the last {in_a_row} builds failed"
    alike = 1 / (1 + exp(-2 * _float(facts.get("similar", "nan"))))  # the feature is half of the log-odds
    if (raises and share < 0.5 < alike) or (not raises and alike < 0.5 <= share):
        return f"most builds like this one {'failed' if raises else 'passed'}"
    few = "" if raises or share >= MANY_BROKEN else "only "
    return f"{few}{broken} of the last {builds} builds failed"


def _share_broken(facts: Mapping[str, str]) -> float:
    return _whole(facts.get("recent-broken")) / max(_whole(facts.get("recent-builds")), 1)


def _times(occurrences: int) -> str:
    return "once" if occurrences == 1 else f"{occurrences} times"


def _plural(amount: int, noun: str) -> str:
    return noun if amount == 1 else f"{amount} {noun}s"


def _whole(text: str | None) -> int:
    value = _float(text or "")
    return int(value) if isfinite(value) else 0


def phrase_feature(feature: str, subject: str = "test", *, raises: bool = True) -> tuple[str, str]:
    """Return phrase and word of a feature with its value; a feature that is not known here is its own word.

    >>> phrase_feature("seconds=2.5"), phrase_feature("name=socket")
    (('takes 2.5 s', ''), ('its name has', 'socket'))
    """
    part, _, answer = feature.partition("=")
    if part in WORDS and answer:
        return WORDS[part], answer
    if part in SIGNED and answer:
        return SIGNED[part][not raises], ""
    phrase = _choice(part, answer, subject) or _phrase_absent(part, answer, subject) or _number(part, answer, subject)
    return (phrase, "") if phrase else ("", feature if answer else part or feature)


def _choice(part: str, answer: str, subject: str) -> str:
    for entry, n, whose in _entries(CHOICES, part, subject):
        template = entry.get("" if entry.keys() == {""} else answer, "")
        if template:
            return _fill(template, n=n, whose=whose)
    return ""


def _phrase_absent(part: str, answer: str, subject: str) -> str:
    entries = _entries(ABSENT, part, subject) if answer == "absent" else iter(())
    return next((_fill(template, whose=whose) for template, _, whose in entries), "")


def _number(part: str, answer: str, subject: str) -> str:
    value = _float(answer)
    entry = next(_entries(NUMBERS, part, subject), None)
    if entry is None or not isfinite(value):
        return ""
    (template, write), window, whose = entry
    return _fill(template, write(value), n=window, whose=whose)


def _entries(table: Mapping[str, Entry], part: str, subject: str) -> Iterator[tuple[Entry, str, str]]:
    """Yield the entries of a part with window and scope: `branch-rate-20` is `rate`, "20", "of this branch"."""
    stem, _, window = part.rpartition("-")
    stem, window = (stem, window) if window.isdecimal() else (part, "")
    scope, _, rest = stem.partition("-")
    if subject == "build" and scope in SCOPES and f"{rest}:build" in table:
        yield table[f"{rest}:build"], window, SCOPES[scope]
    for key in (f"{part}:{subject}", f"{stem}:{subject}", part, stem):
        if key in table:
            yield table[key], window, ""


def _fill(template: str, value: str = "", n: str = "", whose: str = "") -> str:
    return " ".join(template.format(value, n=n, whose=whose).split())


def _float(answer: str) -> float:
    try:
        return float(answer)
    except ValueError:
        return float("nan")


def draw_sparkline(last_outcomes: str, most: int = 20) -> str:
    """Return the last outcomes as a line of symbols, oldest first.

    >>> draw_sparkline("ppfks")
    '..F~-'
    """
    return "".join(_DRAWN.get(letter, "?") for letter in last_outcomes[-most:])


def describe_history(risk: TestRisk) -> str:
    """Describe the past runs of the test."""
    if not risk.runs:
        return "no run of it is known"
    failed = (
        f"failed in {risk.failures:,} of {count(risk.runs, 'run')}"
        if risk.failures
        else f"{count(risk.runs, 'run')}, none failed"
    )
    return f"{failed}, {_times_flaky(risk)}" if risk.failures else failed


def describe_company(tests: Sequence[str], failures: int) -> str:
    """Say that these tests failed together each time, "" for one that failed alone.

    >>> describe_company(("a.B#x", "a.B#y", "a.B#z"), failures=2)
    '3 tests of a.B failed together in the same 2 builds: likely one cause'
    """
    if len(tests) < 2:
        return ""
    classes = set(map(group_of, tests))
    of = min(classes) if len(classes) == 1 else count(len(classes), "class", "classes")
    builds = "one build" if failures == 1 else f"the same {failures:,} builds"
    return f"{len(tests):,} tests of {of} failed together in {builds}: likely one cause"


def _times_flaky(risk: TestRisk) -> str:
    """Say how many of the failures were judged flaky.

    >>> _times_flaky(TestRisk("", 0.5, failures=3, flips=2)), _times_flaky(TestRisk("", 0.5, failures=3))
    ('flaky 2 of 3 times', 'never seen to be flaky')
    """
    if not risk.flips:
        return "never seen to be flaky"
    if risk.failures == 1:
        return "and was flaky"
    return "each time flaky" if risk.flips == risk.failures else f"flaky {risk.flips:,} of {risk.failures:,} times"


def format_interval(expected: Interval) -> str:
    """Format the expected time and its uncertainty.

    >>> format_interval(Interval(30.0, 20.0, 40.0)), format_interval(Interval(30.0, 10.0, 90.0))
    ('30 s, 90 % between 20 s and 40 s', 'about 30 s, too variable to tell (90 % between 10 s and 1 min 30 s)')
    """
    ends = f"90 % between {span(expected.low)} and {span(expected.high)}"
    took = format_time(expected.seconds, expected.source)
    return f"about {took}, {TOO_VARIABLE} ({ends})" if is_too_variable(expected) else f"{took}, {ends}"


def format_time(seconds: float, source: str) -> str:
    """Return the time of a build, and that it is one of its tests where the start of the job is not known.

    >>> format_time(12.0, "tests"), format_time(12.0, "mark")
    ('12 s of tests', '12 s')
    """
    return f"{span(seconds)} of tests" if source == "tests" else span(seconds)


TOO_VARIABLE = "too variable to tell"


WIDEST = 4.0  # upper over lower end of an interval that is of use


UNNOTICED_SECONDS, UNNOTICED_SHARE = 0.1, 0.05  # beyond an end of the interval; nobody looks for the cause of less


def compare_time(expected: Interval, seconds: float) -> str:
    """Return where a time lies: inside the interval, below or above it, or "just" so.

    As a reader sees both: "3.8 s, above 3.8 s - 14 s" is nonsense, and a build of 30 ms is not slow beside 26 ms.
    """
    is_end = span(seconds) in (span(expected.low), span(expected.high))
    if expected.low <= seconds <= expected.high or is_end:
        return "inside"
    end, side = (expected.low, "below") if seconds < expected.low else (expected.high, "above")
    is_near = abs(seconds - end) < max(UNNOTICED_SECONDS, UNNOTICED_SHARE * end)
    return f"just {side}" if is_near else side


def is_too_variable(expected: Interval) -> bool:
    """Return whether the interval is so wide that its middle says little."""
    return expected.high > WIDEST * expected.low


def format_jenkins(expected: Interval) -> str:
    """Return Jenkins' own estimate, "" where Jenkins does not time the builds and nobody asked for it."""
    seconds = expected.jenkins_seconds
    is_shown = expected.source == "jenkins" or expected.shows_jenkins
    return "" if isinstance(seconds, Unavailable) or not is_shown else span(seconds)


def format_model(model: ModelUsed) -> str:
    """Which model answered, and how old it is."""
    if model.kind == "starter":
        return "starter model, shipped with fedstep"
    age = "" if isinstance(model.age_seconds, Unavailable) else f", pulled {span(model.age_seconds)} ago"
    return f"{'production model' if model.kind == 'production' else 'model'} {model.version}{age}"


def describe_flaky_count(prediction: Prediction) -> str:
    """Say how many of the known tests are likely to flake, within how many runs, and what likely means."""
    if not prediction.tests_known:
        return "not known: no test of this project is recorded yet"
    likely = f"likely to flake in their next {FLAKY_RUNS} runs ({percent(FLAKY_FROM)} or more)"
    return f"{len(prediction.flaky):,} of {count(prediction.tests_known, 'known test')} {likely}"


def format_knowledge(prediction: Prediction) -> str:
    """Format how much of the project's past the prediction is based on."""
    return f"{count(prediction.builds_known, 'build')} and {count(prediction.tests_known, 'test')} known"


def describe_reports(reading: ReportCounts) -> str:
    """Describe how many files and tests were read, and how many were repaired or left out."""
    repaired = sum(dropped.kept for dropped in reading.dropped)
    lost = len(reading.dropped) - repaired
    skipped = f" ({reading.skipped:,} skipped)" if reading.skipped else ""
    parts = [count(reading.files, "report file"), f"{count(reading.tests, 'test')}{skipped}"]
    return ", ".join(parts + [f"{lost:,} not read"] * bool(lost) + [f"{repaired:,} repaired"] * bool(repaired))


def name_no_failure(reading: ReportCounts) -> str:
    """Say that no test failed, where there were tests and all that was reported was read."""
    if not reading.tests:
        return "no test was read"
    if reading.skipped == reading.tests:
        return "no test ran, all were skipped"
    return "no test failed" if reading.is_whole else "no failed test was read, but a part of the reports is missing"


MOST_NAMED = 3  # places or tests of a list in a sentence


def describe_not_run(not_run: NotRun) -> str:
    """Say which known tests a build does not have, "" where none is missing.

    >>> describe_not_run(NotRun(("a#x", "a#y", "b#x"), ("tests.a",), 9, 2))
    '3 of 9 known tests: 2 of tests.a, which could not be loaded, and 1 more'
    >>> describe_not_run(NotRun(("a#x",), (), 9))
    '1 test that ran in the build before: a#x'
    """
    if not not_run.tests:
        return ""
    names = not_run.places or not_run.tests
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    named = f"{', '.join(visible(name, 200) for name in names[:MOST_NAMED])}{more}"
    if not_run.places:
        not_run_count = f"{len(not_run.tests):,} of {count(not_run.known, 'known test')}"
        others = len(not_run.tests) - not_run.unloaded
        rest = f", and {others:,} more" if others else ""
        return f"{not_run_count}: {not_run.unloaded:,} of {named}, which could not be loaded{rest}"
    return f"{count(len(not_run.tests), 'test')} that ran in the build before: {named}"


def describe_slow_test(slow: SlowerTest) -> str:
    """Say how long a test took beside its usual time.

    >>> describe_slow_test(SlowerTest("a#x", 12.0, 0.5))
    'a#x took 12 s, usually 0.5 s'
    """
    usual = slow.usual_seconds
    usually = "its first known run" if isinstance(usual, Unavailable) else f"usually {span(usual)}"
    return f"{visible(slow.test, 1000)} took {span(slow.seconds)}, {usually}"


def format_learning(examples: ExampleCounts, exchange: Exchange | Unavailable) -> str:
    """Say from how many outcomes was learned, and how many an update still waits for; without aggregator there is none.

    >>> format_learning(ExampleCounts(2, 29), Unavailable("no aggregator is configured"))
    'from 2 outcomes'
    """
    learned = f"from {count(examples.learned, 'outcome')}" if examples.learned else "nothing new in this build"
    if isinstance(exchange, Unavailable) or not examples.waiting:
        return learned
    return f"{learned}; {count(examples.waiting, 'outcome')} collected for the next update"


def _step(name: str, before: int, after: int) -> str:
    return f"{name} {before} -> {after}" if before != after else f"{name} {after}"


def format_exchange(exchange: Exchange) -> str:
    """Format what was sent and which versions were received."""
    total = sum(update.size for update in exchange.sent)
    nothing = f"nothing is sent: {exchange.withheld}" if exchange.withheld else "nothing to send yet"
    sent = f"{count(len(exchange.sent), 'update')} sent ({size(total)})" if exchange.sent else nothing
    waiting = f", {exchange.unsent:,} waiting in the outbox" if exchange.unsent else ""
    candidate = _step("candidate", exchange.candidate_before, exchange.candidate_after)
    return f"{sent}{waiting}; {candidate}, {_step('production', exchange.production_before, exchange.production_after)}"


def format_batches(rows: Sequence[tuple[str, int]]) -> str:
    """Format the tasks of an update with the minimum number of examples that each was learned from.

    >>> format_batches([("flaky", 32), ("build-duration", 8)])
    'flaky 32+, build-duration 8+'
    """
    return ", ".join(f"{task} {bucket}+" for task, bucket in rows)


def describe_change(change: TimeChange) -> str:
    """Format how a time changed and between which commits.

    >>> describe_change(TimeChange("test", "a#b", 0.5, 1.5, "1111111aa", "2222222bb", 0.0, 0.0, ""))
    '0.5 s before, 1.5 s now (3.0 ×), between 1111111 and 2222222'
    """
    commits = [short for short in map(short_commit, (change.commit_before, change.commit_after)) if short]
    where = f", between {' and '.join(commits)}" if len(set(commits)) > 1 else f", at {commits[0]}" if commits else ""
    return f"{describe_times(change)}{where}"


def describe_times(change: TimeChange) -> str:
    """Format how a time changed.

    >>> describe_times(TimeChange("test", "a#b", 1.5, 0.5, "", "", 0.0, 0.0, ""))
    '1.5 s before, 0.5 s now (3.0 × faster)'
    """
    factor = change.after / change.before if change.is_slower else change.before / change.after
    by = f"{factor:.1f} × {'' if change.is_slower else 'faster'}".strip()
    return f"{span(change.before)} before, {span(change.after)} now ({by})"


def short_commit(commit: str) -> str:
    """Return the start of a commit's id, "" for one with anything but letters and digits: a CI says what it is called.

    >>> short_commit("1a2b3c4d5e"), short_commit("<b>@all")
    ('1a2b3c4', '')
    """
    return commit[:7] if commit[:7].isascii() and commit[:7].isalnum() else ""


def name_job(stream: str) -> str:
    """Return how a page names the builds of a stream: job and matrix cell, and whether they ran a part of the tests.

    >>> name_job("unit|py3.11|github"), name_job("||mark"), name_job("unit||github selected")
    ('unit py3.11', 'the build', 'unit (a part of the tests)')
    """
    rest, _, source = stream.rpartition("|")
    job, _, cell = rest.partition("|")
    part = " (a part of the tests)" if source.endswith(" selected") else ""
    return f"{f'{job} {name_cell(cell)}'.strip() or 'the build'}{part}"


def name_cell(cell: str) -> str:
    """Return how a matrix cell is shown; one that is written as JSON, as GitHub's page shows it.

    >>> name_cell('{"os":"ubuntu-latest","python":3.12,"include":{}}'), name_cell("py3.11")
    ('(ubuntu-latest, 3.12)', 'py3.11')
    """
    if not cell.startswith("{"):
        return cell
    import json  # 3 ms, and a prediction names no cell

    try:
        values = json.loads(cell).values()
    except (ValueError, RecursionError):
        return cell
    texts = [str(value) for value in values if isinstance(value, str | int | float)]
    return f"({', '.join(texts)})" if texts else cell


def describe_selections(tally: SelectionTally) -> tuple[str, ...]:
    """Return what selections saved and missed so far, a sentence for builds of which a part ran, one for shadow mode.

    >>> print(*describe_selections(SelectionTally(shadow_builds=9, shadow_seconds=120.0, shadow_red=4, shadow_green=1)))
    9 builds in shadow mode would have saved 2 min 00 s; 1 of 4 red ones would have looked green (false green rate 25 %)
    >>> print(*describe_selections(SelectionTally(shadow_builds=1, shadow_seconds=9.0)))
    1 build in shadow mode would have saved 9 s; none of them was red
    """
    sentences = []
    if tally.builds:
        saved = f"{count(tally.builds, 'build')} ran a part of the tests and saved {span(tally.saved_seconds)}"
        rate = f" (escape rate {percent(tally.escape_rate)})" if isfinite(tally.escape_rate) else ""
        sentences.append(f"{saved}; {tally.caught} of them showed a failure, {tally.escaped} was seen only later{rate}")
    if tally.shadow_builds:
        saved = f"{count(tally.shadow_builds, 'build')} in shadow mode would have saved {span(tally.shadow_seconds)}"
        green = "none of them was red"
        if tally.shadow_red:
            rate = f"(false green rate {percent(tally.false_green_rate)})"
            green = f"{tally.shadow_green} of {tally.shadow_red} red ones would have looked green {rate}"
        sentences.append(f"{saved}; {green}")
    return tuple(sentences)


def describe_left_out(left_out: LeftOut | None) -> str:
    """Return what a selection left out of this build, "" where none was made."""
    if left_out is None:
        return ""
    verb = "would have left out" if left_out.shadow else "left out"
    saved = "saved" if not left_out.shadow else "would have saved"
    return f"the selection {verb} {count(len(left_out.tests), 'test')} and {saved} {span(left_out.seconds)}"


def name_subject(change: TimeChange) -> str:
    """Return the test or the job of a change; of many tests the first, and how many more."""
    if change.kind != "test":
        return name_job(change.subject)
    others = (len(change.members) or change.together) - 1
    return f"{change.subject} and {count(others, 'other test')}" if others > 0 else change.subject


def count_failures(failures: Sequence[FailureVerdict], *, incident: bool) -> str:
    """Format the number of failures of each verdict; in an incident, which says nothing of single tests, their number.

    >>> count_failures([FailureVerdict("a", 0.1, (), "regression")] * 60, incident=True)
    '60 failed at once: an incident'
    """
    return f"{len(failures):,} failed at once: an incident" if incident and failures else count_verdicts(failures)


def count_verdicts(failures: Sequence[FailureVerdict]) -> str:
    """Format the number of failures of each verdict, the urgent ones first."""
    counts = {verdict: sum(failure.verdict == verdict for failure in failures) for verdict in VERDICTS}
    nouns = {"regression": "likely regression", "unsure": "unsure", "flaky": "likely flaky"}
    plurals = {"regression": "likely regressions", "unsure": "unsure", "flaky": "likely flaky"}
    return ", ".join(count(total, nouns[verdict], plurals[verdict]) for verdict, total in counts.items() if total)


GROUP_KINDS: Mapping[str, str] = {
    "new": "new in this build",
    "new-way": "a known flake, failing in a new way",
    "failing": "failing since before",
    "flake": "a known flake",
    "incident": "part of an incident",
}


def describe_group(group: FailureGroup) -> str:
    """Return what a group of failures is: since when, on how many runs its judgement rests, how many tests it has."""
    tests = f"{count(len(group.failures), 'test')} with one cause" if len(group.failures) > 1 else ""
    since = group.first.since
    kind = GROUP_KINDS.get(group.kind, group.kind)
    if group.kind == "failing" and not isinstance(since, Unavailable):
        kind = describe_since(since)
    if group.kind == "new" and not group.first.runs:
        kind = "a test without history"
    runs = f"{count(group.first.runs, 'earlier run')} known" if group.first.runs and group.kind != "failing" else ""
    return ", ".join(filter(None, (kind, runs, tests)))


def describe_since(since: FailingSince) -> str:
    """Return for how many builds a test has been failing, and between which commits that began.

    >>> describe_since(FailingSince(3, "1a2b3c4d5e", "99aabbccdd"))
    'failing for 3 builds before this one, since 1a2b3c4 (99aabbc..1a2b3c4)'
    """
    failing = f"failing for {count(since.builds, 'build')} before this one"
    failing = "failing since the build before" if since.builds == 1 else failing
    commit, before = short_commit(since.commit), short_commit(since.commit_before)
    if not commit:
        return failing
    return f"{failing}, since {commit}{f' ({before}..{commit})' if before else ''}"


def sort_by_urgency(failures: Sequence[FailureVerdict]) -> list[FailureVerdict]:
    """Sort the failures, the least likely flaky first."""
    return sorted(failures, key=lambda failure: failure.flaky_probability)
