"""Findings for a terminal: the essentials in three lines, then a list; never wider than 100 columns.

`predict` loads this cold: nothing but fedstep's own small modules is imported here. Warnings are not part of these
texts: stdout is the result, `warning_text` is for stderr.
"""

from collections.abc import Iterable, Iterator, Sequence

from fedstep.build.record import Absent, Duration
from fedstep.model.linear import Reason
from fedstep.report.escape import visible
from fedstep.report.findings import (
    FailureVerdict,
    Interval,
    ModelUsed,
    MutedFailure,
    Prediction,
    Risk,
    TestRisk,
    Training,
    Triage,
)
from fedstep.report.lines import LABEL, WIDTH, row, wrapped
from fedstep.report.reasons import Cause, causes
from fedstep.report.units import count, percent, span, spread
from fedstep.report.wording import (
    LEGEND,
    STATUS,
    by_urgency,
    drawn,
    exchanged,
    interval,
    known,
    learned,
    model_name,
    past,
    read,
    verdict_counts,
)

__all__ = ["WIDTH", "prediction_text", "training_text", "triage_text", "warning_text"]

MOST_TESTS = 10
MOST_FAILURES = 30
BOLD, RED, YELLOW, DIM, PLAIN = "\x1b[1m", "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"
VERDICT_COLOURS = {"regression": RED, "unsure": YELLOW}


def prediction_text(prediction: Prediction, colour: bool = False, most: int = MOST_TESTS) -> str:
    """What to expect of the next build, `most` tests named; lines end with a newline. `colour` adds ANSI colours."""
    lines = [
        *row("Build time", _expected(prediction.duration)),
        *row("Failure risk", _risk(prediction.risk)),
        *row("Flaky tests", _flaky_count(prediction)),
        *_risks(prediction.flaky, most),
        "",
        *_footer(prediction.model, prediction.status, f"{visible(prediction.base)}; {known(prediction)}".lstrip("; ")),
    ]
    return _finished(lines, colour)


def triage_text(triage: Triage, colour: bool = False) -> str:
    """Each failure of a report and how likely it is flaky; lines end with a newline."""
    lines = [
        *row("Failures", _failure_count(triage.failures, len(triage.muted))),
        *row("Verdict", _verdict(triage)),
        *row("Read", read(triage.reading)),
        *_failures(triage.failures),
        *_muted(triage.muted),
        "",
        *_footer(triage.model, triage.status),
    ]
    return _finished(lines, colour)


def training_text(training: Training, colour: bool = False) -> str:
    """What a build was, what was learned from it and what was exchanged; lines end with a newline."""
    lines = [
        *row("Build", f"{training.outcome.value}; {_actual(training.duration, training.expected)}"),
        *row("Tests", f"{read(training.reading)}; {_failure_count(training.failures, len(training.muted))}"),
        *row("Learned", f"{learned(training.rows)}; {_exchange(training)}"),
        *(row("Incident", visible(training.incident_reason)) if training.incident else ()),
        *_failures(training.failures),
        *_muted(training.muted),
        *_risks(training.flakiest),
        "",
        *_footer(training.model, training.status),
    ]
    return _finished(lines, colour)


def warning_text(warnings: Iterable[str]) -> str:
    """One line a warning, for stderr; lines end with a newline."""
    return "".join(f"fedstep: {visible(warning, 500)}\n" for warning in warnings)


def _expected(expected: Interval | Absent) -> str:
    if isinstance(expected, Absent):
        return f"not known: {visible(expected.reason)}"
    return f"{interval(expected)}{_jenkins(expected)}"


def _jenkins(expected: Interval) -> str:
    jenkins = expected.jenkins_seconds
    return "" if isinstance(jenkins, Absent) else f" (Jenkins would say {span(jenkins)})"


def _risk(risk: Risk | Absent) -> str:
    if isinstance(risk, Absent):
        return f"not known: {visible(risk.reason)}"
    return f"{percent(risk.probability)} likely to fail: {_because(risk.reasons, 'build')}".rstrip(": ")


def _flaky_count(prediction: Prediction) -> str:
    of = f"of {count(prediction.tests_known, 'known test')}" if prediction.tests_known else "known"
    return f"{len(prediction.flaky):,} {of} likely to flake in the next runs"


def _failure_count(failures: Sequence[FailureVerdict], muted: int) -> str:
    counts = ", ".join(filter(None, (verdict_counts(failures), f"{muted:,} muted" if muted else "")))
    return f"{len(failures) + muted:,} failed: {counts}" if counts else "no test failed"


def _verdict(triage: Triage) -> str:
    if triage.incident:
        return f"an incident, no evidence about single tests: {visible(triage.incident_reason)}"
    regressions = sum(failure.verdict == "regression" for failure in triage.failures)
    if regressions:
        return f"look at {'the regression' if regressions == 1 else f'the {regressions:,} regressions'} first"
    unsure = any(failure.verdict == "unsure" for failure in triage.failures)
    return "look at the unsure ones first" if unsure else "nothing here looks like a regression"


def _actual(duration: Duration | Absent, expected: Interval | Absent) -> str:
    if isinstance(duration, Absent):
        return f"time not known: {visible(duration.reason)}"
    if isinstance(expected, Absent):
        return f"{span(duration.seconds)}, not predicted: {visible(expected.reason)}"
    inside = "inside" if expected.low <= duration.seconds <= expected.high else "outside"
    ours = f"{span(duration.seconds)}, {inside} the expected {spread(expected.low, expected.high)}"
    return f"{ours}{_jenkins(expected)}"


def _exchange(training: Training) -> str:
    exchange = training.exchange
    return visible(exchange.reason) if isinstance(exchange, Absent) else exchanged(exchange)


def _risks(risks: Sequence[TestRisk], most: int = MOST_TESTS) -> Iterator[str]:
    if risks:
        yield from ("", "Most likely to flake")
    for risk in risks[:most]:
        yield f"  {percent(risk.probability):>5}  {visible(risk.test, WIDTH - 9)}"
        yield from wrapped(f"{drawn(risk.last_outcomes)}  {past(risk)}".strip(), 9)
        yield from wrapped(_because(risk.reasons), 9)
    yield from _more(len(risks) - most)
    if risks:
        yield f"  ({LEGEND})"


def _failures(failures: Sequence[FailureVerdict]) -> Iterator[str]:
    if failures:
        yield from ("", "Failures, and how likely each is flaky")
    for failure in by_urgency(failures)[:MOST_FAILURES]:
        verdict = f"{visible(failure.verdict, 10):<10} {percent(failure.flaky_probability):>5}"
        yield f"  {verdict}  {visible(failure.test, WIDTH - 20)}"
        yield from wrapped("  ".join(filter(None, (visible(failure.failure_type, 60), _place(failure)))), 20)
        yield from wrapped(_because(failure.reasons), 20)
    yield from _more(len(failures) - MOST_FAILURES)
    if failures:
        yield "  (+ speaks for a flake, - for a regression)"


def _muted(muted: Sequence[MutedFailure]) -> Iterator[str]:
    if muted:
        yield from ("", "Muted failures, not counted")
    for failure, owner, reason, until in muted[:MOST_FAILURES]:
        verdict = f"{visible(failure.verdict, 10):<10} {percent(failure.flaky_probability):>5}"
        yield f"  {verdict}  {visible(failure.test, WIDTH - 20)}"
        yield from wrapped(f"until {until} by {visible(owner, 40)}: {visible(reason)}", 20)
    yield from _more(len(muted) - MOST_FAILURES)


def _place(failure: FailureVerdict) -> str:
    return visible(f"{failure.file}:{failure.line}" if failure.line else failure.file, 70)


def _because(reasons: Iterable[Reason], subject: str = "test") -> str:
    return "; ".join(
        " ".join(filter(None, (cause.sign, cause.phrase, _quoted(cause)))) for cause in causes(reasons, subject)
    )


def _quoted(cause: Cause) -> str:
    return f'"{visible(cause.word, 40)}"' if cause.phrase and cause.word else visible(cause.word, 40)


def _more(number: int) -> Iterator[str]:
    if number > 0:
        yield f"  and {number:,} more"


def _footer(model: ModelUsed, status: str, basis: str = "") -> Iterator[str]:
    yield from row("Based on", basis) if basis else ()
    yield from row("Model", f"{model_name(model)}{f' from {visible(model.url, 60)}' if model.url else ''}")
    yield from row("Status", STATUS.get(status, visible(status)))


def _finished(lines: Iterable[str], colour: bool) -> str:
    return "".join(f"{_painted(line) if colour else line}\n" for line in lines)


def _painted(line: str) -> str:
    """Labels and headings bold, regressions red and unsure failures yellow, all else as it is."""
    verdict = line[2:12].strip()
    if line.startswith("  ") and verdict in VERDICT_COLOURS:
        return f"{VERDICT_COLOURS[verdict]}{line[:19]}{PLAIN}{line[19:]}"
    if line.startswith("  ("):
        return f"{DIM}{line}{PLAIN}"
    if line and not line.startswith(" "):
        return (
            f"{BOLD}{line[:LABEL]}{PLAIN}{line[LABEL:]}" if line[LABEL - 2 : LABEL] == "  " else f"{BOLD}{line}{PLAIN}"
        )
    return line
