"""A finding in one line of our own words, for places with room for no more: the description of a build, a badge."""

from fedstep.build.record import Absent, Duration
from fedstep.report.findings import FailureVerdict, Interval, Prediction, Risk, Training, Triage
from fedstep.report.units import count, percent, span, spread
from fedstep.report.wording import verdict_counts

__all__ = ["headline"]


def headline(finding: Prediction | Triage | Training) -> str:
    """What matters most of it, Jenkins' own estimate beside ours; no name from the code under test is in it."""
    parts: tuple[str, ...]
    match finding:
        case Prediction():
            parts = (_expected(finding.duration), _risk(finding.risk), _flaky(len(finding.flaky)))
        case Training():
            parts = (_took(finding.duration, finding.expected), _failed(finding))
        case Triage():
            parts = (_failed(finding),)
    return ", ".join(filter(None, parts))


def _expected(expected: Interval | Absent) -> str:
    if isinstance(expected, Absent):
        return "build time not known yet"
    jenkins = expected.jenkins_seconds
    beside = "" if isinstance(jenkins, Absent) else f"; Jenkins would say {span(jenkins)}"
    return f"expected {span(expected.seconds)} ({spread(expected.low, expected.high)}{beside})"


def _took(duration: Duration | Absent, expected: Interval | Absent) -> str:
    took = "" if isinstance(duration, Absent) else f"took {span(duration.seconds)}"
    return ", ".join(filter(None, (took, "" if isinstance(expected, Absent) else _expected(expected))))


def _risk(risk: Risk | Absent) -> str:
    return "" if isinstance(risk, Absent) else f"{percent(risk.probability)} likely to fail"


def _flaky(tests: int) -> str:
    return f"{count(tests, 'test')} likely to flake" if tests else ""


def _failed(finding: Training | Triage) -> str:
    failures: tuple[FailureVerdict, ...] = finding.failures
    if finding.incident:
        return f"{len(failures):,} failed at once: an incident"
    muted = f"{len(finding.muted):,} muted" if finding.muted else ""
    counts = ", ".join(filter(None, (verdict_counts(failures), muted)))
    return f"{len(failures) + len(finding.muted):,} failed: {counts}" if counts else "no test failed"
