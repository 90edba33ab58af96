"""The step's outputs for later steps: GITHUB_OUTPUT for GitHub Actions, a dotenv report for GitLab."""

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from math import isfinite
from string import ascii_letters, digits

from fedstep.report.units import percent, visible
from fedstep.report.wording import VERDICTS, rank_causes, sort_by_urgency
from fedstep.results import (
    NO_BUILD_YET,
    FailureVerdict,
    FeatureContribution,
    Interval,
    Prediction,
    Risk,
    TestRisk,
    TrainReport,
    TriageReport,
)
from fedstep.types import TimeChange, Unavailable

MOST_ANNOTATIONS = 10  # GitHub drops what one step writes beyond ten of a level
MOST_PATH = 4_000
TITLES = {"flaky": "Likely flaky", "regression": "Likely a regression", "unsure": "Flaky or a regression"}


def failure_annotations(failures: Sequence[FailureVerdict]) -> str:
    """Return one `::warning` line per failure, the least likely flaky first, at most ten."""
    commands = [_failure(failure) for failure in sort_by_urgency(failures)]
    if len(commands) > MOST_ANNOTATIONS:
        kept = commands[: MOST_ANNOTATIONS - 1]
        more = f"and {len(commands) - len(kept):,} more: see the step summary"
        commands = [*kept, _command("warning", "", 0, "fedstep", more)]
    return "".join(f"{command}\n" for command in commands)


def warning_annotations(warnings: Sequence[str], most: int = MOST_ANNOTATIONS) -> str:
    """Return one `::warning` line for each thing that did not work, at most `most`; a first run is a `::notice`."""
    levels = ("notice" if text.startswith(NO_BUILD_YET) else "warning" for text in warnings[:most])
    lines = (
        _command(level, "", 0, "fedstep", visible(text, 600)) for level, text in zip(levels, warnings, strict=False)
    )
    return "".join(f"{line}\n" for line in lines)


def _failure(failure: FailureVerdict) -> str:
    title = f"{TITLES.get(failure.verdict, 'Failed')} ({percent(failure.flaky_probability)} flaky)"
    message_text = f": {visible(' '.join(failure.message.split()), 300)}" if failure.message else ""
    message = f"{visible(failure.test)}{message_text}{because(failure.reasons)}"
    return _command("warning", failure.file, failure.line, title, message)


def because(reasons: Iterable[FeatureContribution]) -> str:
    """Return a space and the largest reasons in brackets, or "" where there are none."""
    parts = [" ".join(filter(None, (c.sign, c.phrase, visible(c.word, 40)))) for c in rank_causes(reasons)]
    return f" ({'; '.join(parts)})" if parts else ""


def _command(level: str, file: str, line: int, title: str, message: str) -> str:
    properties = {"file": file if is_path(file) else "", "line": str(line) if line > 0 else "", "title": title}
    if not properties["file"]:
        del properties["line"]
    written = ",".join(f"{key}={_property(value)}" for key, value in properties.items() if value)
    return f"::{level} {written}::{_message(message)}"


def is_path(file: str) -> bool:
    """Return whether the path is inside the workspace and needs no escape, which would make it point nowhere."""
    inside = not file.startswith(("/", "\\")) and file[1:2] != ":" and ".." not in file.replace("\\", "/").split("/")
    return inside and file == visible(file, MOST_PATH)


def _message(text: str) -> str:
    """Escape the text as the runner's own `@actions/core` does, with "%" first."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")


MOST_ENTRIES = 500  # GitLab refuses reports of many megabytes; a merge request shows a few dozen
_SEVERITIES = {"regression": "major", "unsure": "minor", "flaky": "info"}


def code_quality(failures: Sequence[FailureVerdict]) -> str:
    """Return a JSON list with an entry for each failure whose file is known, the least likely flaky first.

    The fields are those that GitLab takes from Code Climate (docs.gitlab.com, "Code quality report format").
    """
    placed = [failure for failure in sort_by_urgency(failures) if failure.file and is_path(failure.file)]
    return f"{json.dumps([_entry(failure) for failure in placed[:MOST_ENTRIES]], indent=1)}\n"


def _entry(failure: FailureVerdict) -> dict[str, object]:
    title = f"{TITLES.get(failure.verdict, 'Failed')} ({percent(failure.flaky_probability)} flaky)"
    return {
        "description": f"{title}: {visible(failure.test)}{because(failure.reasons)}",
        "check_name": f"fedstep/{failure.verdict}",
        "fingerprint": _fingerprint(failure),
        "severity": _SEVERITIES.get(failure.verdict, "minor"),
        "location": {"path": failure.file.removeprefix("./"), "lines": {"begin": max(failure.line, 1)}},
    }


def _fingerprint(failure: FailureVerdict) -> str:
    """Without line and probability: GitLab shows what the target branch does not have, and both change all the time."""
    named = "\0".join((failure.verdict, failure.test, failure.file))
    return blake2b(named.encode(errors="backslashreplace"), digest_size=16).hexdigest()


KEYS = (
    "status",
    "eta-seconds",
    "eta-low",
    "eta-high",
    "failure-risk",
    "flaky-count",
    "flaky-tests",
    "failures-flaky",
    "failures-real",
    "failures-unsure",
    "failures-muted",
    "failures-forgiven",
    "failures",
    "verdict",
    "cause",
    "slower-tests",
    "build-time-change",
    "model-version",
)
MOST_CHARACTERS = 4_000  # of the list of tests: GitLab refuses a dotenv report over 5 kB
_PLAIN = frozenset(f"{ascii_letters}{digits}_./:-")


def outputs(finding: Prediction | TriageReport | TrainReport) -> dict[str, str]:
    """Return a value for every key of KEYS, "" where this step has none; each is one line of ASCII.

    Nothing in a value means anything to a shell, even where a pipeline pastes it into a script: in the list of tests
    all but letters, digits and `_./:-` is a JSON escape. `failures-real` counts the likely regressions alone: a gate
    needs `failures-unsure`, too.
    """
    values = {"status": finding.status, "model-version": str(finding.model.version)}
    match finding:
        case Prediction():
            values |= _duration(finding.duration) | _risk_output(finding.risk) | _flaky(finding.flaky)
        case TrainReport():
            values |= _duration(finding.expected) | _flaky(finding.flakiest) | _failures(finding)
            values |= _changes(finding.changes)
        case TriageReport():
            values |= _failures(finding) | _ruling(finding)
    return {key: values.get(key, "") for key in KEYS}


PLAN_KEYS = ("status", "shards", "plan", "selected", "saved-seconds")


def plan_outputs(plan: str, total: int, selected: int, saved_seconds: float) -> dict[str, str]:
    """Return a value for every key of PLAN_KEYS; `shards` is a matrix of GitHub Actions."""
    matrix = json.dumps({"index": list(range(1, total + 1))}, separators=(",", ":"))
    return dict(zip(PLAN_KEYS, ("ok", matrix, plan, str(selected), f"{saved_seconds:.1f}"), strict=True))


def github_output(values: Mapping[str, str], delimiter: str) -> str:
    """Return lines for the file GITHUB_OUTPUT. Raises ValueError where a value has `delimiter`; make it random."""
    if not delimiter.isalnum() or any(delimiter in value for value in values.values()):
        raise ValueError("a delimiter of letters and digits that occurs in no value is needed")
    return "".join(f"{key}<<{delimiter}\n{value}\n{delimiter}\n" for key, value in values.items())


def dotenv(values: Mapping[str, str]) -> str:
    """Return one `FEDSTEP_KEY=value` line for each value that is not empty.

    GitLab takes everything after the first `=` as it stands and knows no quotes; a shell that sources the file finds
    nothing to expand.
    """
    short = {key: value for key, value in values.items() if value and len(value) <= MOST_CHARACTERS}
    lines = (f"FEDSTEP_{key.upper().replace('-', '_')}={value}\n" for key, value in short.items())
    return "".join(lines)


def _duration(expected: Interval | Unavailable) -> dict[str, str]:
    if isinstance(expected, Unavailable):
        return {}
    ends = {"eta-seconds": expected.seconds, "eta-low": expected.low, "eta-high": expected.high}
    return {key: f"{seconds:.1f}" for key, seconds in ends.items() if isfinite(seconds)}


def _risk_output(risk: Risk | Unavailable) -> dict[str, str]:
    if isinstance(risk, Unavailable) or not isfinite(risk.probability):
        return {}
    return {"failure-risk": f"{risk.probability:.3f}"}


def _flaky(risks: Sequence[TestRisk]) -> dict[str, str]:
    return {"flaky-count": str(len(risks)), "flaky-tests": _list_json(risk.test for risk in risks)}


def _failures(finding: TriageReport | TrainReport) -> dict[str, str]:
    """Return how many tests failed, each once, whatever number of phases or attempts: in all and of each verdict."""
    counts = {verdict: sum(failure.verdict == verdict for failure in finding.failures) for verdict in VERDICTS}
    return {
        "failures-flaky": str(counts["flaky"]),
        "failures-real": str(counts["regression"]),
        "failures-unsure": str(counts["unsure"]),
        "failures-muted": str(len(finding.muted)),
        "failures": str(len(finding.failures) + len(finding.muted)),
    }


def _ruling(finding: TriageReport) -> dict[str, str]:
    values = {"cause": finding.cause}
    if finding.ruling:
        values["verdict"] = "passed" if finding.ruling.passed else "failed"
        values["failures-forgiven"] = str(len(finding.ruling.forgiven))
    return values


def _changes(changes: Sequence[TimeChange]) -> dict[str, str]:
    """Return the tests found to be slower, and the largest factor by which a job's time changed: "1.84", "0.62"."""
    tests = [change for change in changes if change.kind == "test" and change.is_slower]
    slower = [test for change in tests for test in ([each.test for each in change.members] or [change.subject])]
    factors = [change.after / change.before for change in changes if change.kind == "job"]
    largest = max(factors, key=lambda factor: max(factor, 1 / factor), default=0.0)
    return {"slower-tests": _list_json(slower), "build-time-change": f"{largest:.2f}" if largest else ""}


def _list_json(names: Iterable[str]) -> str:
    """Return a JSON list of whole names, as many from the start as fit."""
    written, room = [], MOST_CHARACTERS
    for name in names:
        item = _inert(name)
        room -= len(item) + 1
        if room < 0:
            break
        written.append(item)
    return f"[{','.join(written)}]"


def _inert(name: str) -> str:
    """Return the name as a JSON string without any syntax of a shell, a template or a log reader."""
    name = name.encode("utf-8", "backslashreplace").decode()
    return '"' + "".join(character if character in _PLAIN else _escape(character) for character in name) + '"'


def _escape(character: str) -> str:
    units = character.encode("utf-16-be").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
