"""The step's outputs for later steps: GITHUB_OUTPUT for GitHub Actions, a dotenv report for GitLab."""

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from string import ascii_letters, digits

from fedstep.build.record import Absent
from fedstep.report.findings import FailureVerdict, Interval, Prediction, Risk, TestRisk, Training, Triage

__all__ = ["KEYS", "dotenv", "github_output", "outputs"]

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
    "model-version",
)
MOST_CHARACTERS = 4_000  # of the list of tests: GitLab refuses a dotenv report over 5 kB
_PLAIN = frozenset(f"{ascii_letters}{digits}_./:-")


def outputs(finding: Prediction | Triage | Training) -> dict[str, str]:
    """A value for every key of KEYS, "" for what this step does not tell; each one line of ASCII.

    Nothing in a value means anything to a shell, even where a pipeline pastes it into a script: in the list of tests
    all but letters, digits and `_./:-` is a JSON escape. `failures-real` counts the likely regressions.
    """
    values = {"status": finding.status, "model-version": str(finding.model.version)}
    match finding:
        case Prediction():
            values |= _duration(finding.duration) | _risk(finding.risk) | _flaky(finding.flaky)
        case Training():
            values |= _duration(finding.expected) | _flaky(finding.flakiest) | _failures(finding.failures)
        case Triage():
            values |= _failures(finding.failures)
    return {key: values.get(key, "") for key in KEYS}


def github_output(values: Mapping[str, str], delimiter: str) -> str:
    """Lines to append to the file GITHUB_OUTPUT. `delimiter` must be random: raises ValueError where a value has it."""
    if not delimiter.isalnum() or any(delimiter in value for value in values.values()):
        raise ValueError("a delimiter of letters and digits that occurs in no value is needed")
    return "".join(f"{key}<<{delimiter}\n{value}\n{delimiter}\n" for key, value in values.items())


def dotenv(values: Mapping[str, str], prefix: str = "FEDSTEP_") -> str:
    """One `FEDSTEP_KEY=value` line a value that is not empty.

    GitLab takes everything after the first `=` as it stands and knows no quotes; a shell that sources the file finds
    nothing to expand.
    """
    lines = (f"{prefix}{key.upper().replace('-', '_')}={value}\n" for key, value in values.items() if value)
    return "".join(lines)


def _duration(expected: Interval | Absent) -> dict[str, str]:
    if isinstance(expected, Absent):
        return {}
    ends = {"eta-seconds": expected.seconds, "eta-low": expected.low, "eta-high": expected.high}
    return {key: f"{seconds:.1f}" for key, seconds in ends.items() if isfinite(seconds)}


def _risk(risk: Risk | Absent) -> dict[str, str]:
    if isinstance(risk, Absent) or not isfinite(risk.probability):
        return {}
    return {"failure-risk": f"{risk.probability:.3f}"}


def _flaky(risks: Sequence[TestRisk]) -> dict[str, str]:
    return {"flaky-count": str(len(risks)), "flaky-tests": _listed(risk.test for risk in risks)}


def _failures(failures: Sequence[FailureVerdict]) -> dict[str, str]:
    counts = {verdict: sum(failure.verdict == verdict for failure in failures) for verdict in ("flaky", "regression")}
    return {"failures-flaky": str(counts["flaky"]), "failures-real": str(counts["regression"])}


def _listed(names: Iterable[str]) -> str:
    """A JSON list of whole names, as many from the start as fit."""
    written, room = [], MOST_CHARACTERS
    for name in names:
        item = _inert(name)
        room -= len(item) + 1
        if room < 0:
            break
        written.append(item)
    return f"[{','.join(written)}]"


def _inert(name: str) -> str:
    """The name as a JSON string in which a shell, a template or a log reader finds nothing to obey."""
    name = name.encode("utf-8", "backslashreplace").decode()
    return '"' + "".join(character if character in _PLAIN else _escaped(character) for character in name) + '"'


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
