"""Phrase the reasons of a prediction and the figures of a result in words.

In the tables of phrases, `{n}` is the window of a feature and `{whose}` its scope. A number has a phrase of its own
where the general one would read oddly: none, or one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import exp, isfinite
from typing import NamedTuple, TypeVar

from fedstep.report.units import count, percent, size, span, visible
from fedstep.results import (
    ExampleCounts,
    Exchange,
    FailureVerdict,
    FeatureContribution,
    Interval,
    ModelUsed,
    Prediction,
    ReportCounts,
    TestRisk,
)
from fedstep.types import TimeChange, Unavailable

_DRAWN = {"p": ".", "f": "F", "c": "F", "k": "~", "s": "-"}


LEGEND = "runs, oldest first:  . passed  F failed  ~ failed and passed  - skipped;  + raises, - lowers"


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


SMALLEST = 0.005  # of the margin: rounds to 0.00 and moves no probability by half a percent
Entry = TypeVar("Entry")


class ReasonPhrase(NamedTuple):
    """One phrase, the word it ends with ("" for most), and the sum of its contributions to the margin."""

    phrase: str
    word: str
    contribution: float

    @property
    def sign(self) -> str:
        """Return `+` for what raises the prediction, `-` for what lowers it."""
        return "+" if self.contribution > 0 else "-"


def rank_causes(
    reasons: Iterable[FeatureContribution], subject: str = "test", most: int = 3
) -> tuple[ReasonPhrase, ...]:
    """Return the `most` largest causes of a `subject`, test or build; adjacent knots of a number are one cause.

    >>> rank_causes([FeatureContribution("seconds=1", 0.5), FeatureContribution("seconds=3", 0.25)])
    (ReasonPhrase(phrase='takes 1–3 s', word='', contribution=0.75),)
    """
    sums: dict[str, float] = {}
    answers: dict[str, list[str]] = {}
    for reason in reasons:
        part, _, answer = reason.feature.partition("=")
        key = reason.feature if part in WORDS or not part else part
        sums[key] = sums.get(key, 0.0) + reason.contribution
        answers.setdefault(key, []).append(answer)
    ranked = sorted(
        (key for key in sums if key != "bias" and abs(sums[key]) >= SMALLEST), key=lambda key: -abs(sums[key])
    )
    return tuple(ReasonPhrase(*_phrase(key, answers[key], subject), sums[key]) for key in ranked[:most])


def _phrase(key: str, answers: list[str], subject: str) -> tuple[str, str]:
    """Phrase and word; a feature that is not known here is its own word."""
    part, _, word = key.partition("=")
    if part in WORDS and word:
        return WORDS[part], word
    if part in PRIVATE and any(answers):
        return PRIVATE[part], ""
    phrase = _choice(part, answers, subject) or _absent(part, answers, subject) or _number(part, answers, subject)
    return (phrase, "") if phrase else ("", f"{part}={'/'.join(answers)}" if any(answers) else part or key)


def _choice(part: str, answers: list[str], subject: str) -> str:
    if len(set(answers)) > 1:
        return ""  # two knots: the value lies between them
    for entry, n, whose in _entries(CHOICES, part, subject):
        template = entry.get("" if entry.keys() == {""} else answers[0], "")
        if template:
            return _joined(template, n=n, whose=whose)
    return ""


def _absent(part: str, answers: list[str], subject: str) -> str:
    entries = _entries(ABSENT, part, subject) if "absent" in answers else iter(())
    return next((_joined(template, whose=whose) for template, _, whose in entries), "")


def _number(part: str, answers: list[str], subject: str) -> str:
    values = [_float(answer) for answer in answers]
    entry = next(_entries(NUMBERS, part, subject), None)
    if entry is None or not all(map(isfinite, values)):
        return ""
    (template, write), window, whose = entry
    return _joined(template, _between(min(values), max(values), write), n=window, whose=whose)


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


def _joined(template: str, value: str = "", n: str = "", whose: str = "") -> str:
    return " ".join(template.format(value, n=n, whose=whose).split())


def _float(answer: str) -> float:
    try:
        return float(answer)
    except ValueError:
        return float("nan")


def _between(low: float, high: float, write: Callable[[float], str]) -> str:
    """Return the value between two knots: `1–3 s`, `3–10 %`, or one of them where they read the same."""
    (first, unit), (last, same) = _unit(write(low)), _unit(write(high))
    if write(low) == write(high):
        return write(low)
    return f"{first}–{last}{same}" if unit == same else f"{write(low)} – {write(high)}"


def _unit(written: str) -> tuple[str, str]:
    number, space, unit = written.partition(" ")
    return (number, space + unit) if " " not in unit else (written, "")


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
    return f"{failed}, changed its outcome {count(risk.flips, 'time')}" if risk.flips else failed


def format_interval(expected: Interval) -> str:
    """Format the expected time and its uncertainty."""
    return f"{span(expected.seconds)}, 90 % between {span(expected.low)} and {span(expected.high)}"


def format_model(model: ModelUsed) -> str:
    """Which model answered, and how old it is."""
    if model.kind == "starter":
        return "starter model, shipped with fedstep"
    age = "" if isinstance(model.age_seconds, Unavailable) else f", pulled {span(model.age_seconds)} ago"
    return f"{'production model' if model.kind == 'production' else 'model'} {model.version}{age}"


def format_knowledge(prediction: Prediction) -> str:
    """Format how much of the project's past the prediction is based on."""
    return f"{count(prediction.builds_known, 'build')} and {count(prediction.tests_known, 'test')} known"


def describe_reports(reading: ReportCounts) -> str:
    """Describe how many files and tests were read, and how many were repaired or left out."""
    repaired = sum(dropped.kept for dropped in reading.dropped)
    lost = len(reading.dropped) - repaired
    parts = [count(reading.files, "report file"), count(reading.tests, "test")]
    return ", ".join(parts + [f"{lost:,} dropped"] * bool(lost) + [f"{repaired:,} repaired"] * bool(repaired))


def format_learning(examples: ExampleCounts) -> str:
    """Say how many examples were learned and how many wait to be sent."""
    return f"{count(examples.learned, 'example')} learned, {examples.waiting:,} waiting"


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
    """Format the tasks of an update with the minimum number of rows that each was learned from.

    >>> format_batches([("flaky", 32), ("build-duration", 8)])
    'flaky 32+, build-duration 8+'
    """
    return ", ".join(f"{task} {bucket}+" for task, bucket in rows)


def describe_change(change: TimeChange) -> str:
    """Format how a time changed and between which commits.

    >>> describe_change(TimeChange("test", "a#b", 0.5, 1.5, "1111111aa", "2222222bb", 0.0, 0.0, ""))
    '0.5 s before, 1.5 s now (3.0 ×), between 1111111 and 2222222'
    """
    factor = change.after / change.before if change.is_slower else change.before / change.after
    by = f"{factor:.1f} × {'' if change.is_slower else 'faster'}".strip()
    commits = [visible(commit[:7]) for commit in (change.commit_before, change.commit_after) if commit]
    where = f", between {' and '.join(commits)}" if len(set(commits)) > 1 else f", at {commits[0]}" if commits else ""
    return f"{span(change.before)} before, {span(change.after)} now ({by}){where}"


def name_job(stream: str) -> str:
    """Return how a page names the builds of a stream: job and matrix cell.

    >>> name_job("unit|py3.11|github"), name_job("||mark")
    ('unit py3.11', 'the build')
    """
    return " ".join(filter(None, stream.split("|")[:-1])) or "the build"


def name_subject(change: TimeChange) -> str:
    """Return the test or the job of a change."""
    return change.subject if change.kind == "test" else name_job(change.subject)


def count_verdicts(failures: Sequence[FailureVerdict]) -> str:
    """Format the number of failures of each verdict, the urgent ones first."""
    counts = {verdict: sum(failure.verdict == verdict for failure in failures) for verdict in VERDICTS}
    nouns = {"regression": "likely regression", "unsure": "unsure", "flaky": "likely flaky"}
    plurals = {"regression": "likely regressions", "unsure": "unsure", "flaky": "likely flaky"}
    return ", ".join(count(number, nouns[verdict], plurals[verdict]) for verdict, number in counts.items() if number)


def sort_by_urgency(failures: Sequence[FailureVerdict]) -> list[FailureVerdict]:
    """Sort the failures, the least likely flaky first."""
    return sorted(failures, key=lambda failure: failure.flaky_probability)
