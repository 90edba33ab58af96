"""Findings as Markdown for the step summaries of GitHub, GitLab and Jenkins.

GitHub drops a summary over 1 MiB without a word: every list has a limit and every name a length, so that no finding
gets near 900 kB.
"""

from collections.abc import Iterable, Iterator, Sequence

from fedstep.build.record import Absent, Dropped, Duration
from fedstep.model.linear import Reason
from fedstep.report.drawing import interval_drawing
from fedstep.report.findings import (
    Exchange,
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
from fedstep.report.markup import code, details, more, page, table
from fedstep.report.reasons import Cause, causes
from fedstep.report.units import percent, size, span, spread
from fedstep.report.wording import (
    by_urgency,
    drawn,
    exchanged,
    interval,
    known,
    learned,
    model_name,
    past,
    read,
    sent_rows,
    verdict_counts,
)

__all__ = ["failure_table", "prediction_markdown", "training_markdown", "triage_markdown"]

MOST_FAILURES = 100
MOST_TESTS = 25
MOST_OTHERS = 50
MOST_OF_A_WARNING = 600  # columns: a remedy that is cut off helps nobody


def prediction_markdown(prediction: Prediction) -> str:
    """What to expect of the next build."""
    return page(
        "## fedstep: what to expect",
        table(
            ("", ""),
            (
                ("Build time", _expected(prediction.duration)),
                ("Failure risk", _risk(prediction.risk)),
                ("Flaky tests", f"{len(prediction.flaky):,} likely to flake in the next runs"),
                ("Based on", f"{code(prediction.base)}; {known(prediction)}" if prediction.base else known(prediction)),
            ),
        ),
        *_risks(prediction.flaky),
        *_end(prediction.model, prediction.status, prediction.warnings),
    )


def triage_markdown(triage: Triage) -> str:
    """Each failure of a report and how likely it is flaky."""
    return page(
        f"## fedstep: {_counts(triage)}",
        *_incident(triage.incident, triage.incident_reason),
        *_failures(triage.failures),
        *_muted(triage.muted),
        details(read(triage.reading), _dropped(triage.reading.dropped)),
        *_end(triage.model, triage.status, triage.warnings),
    )


def training_markdown(training: Training) -> str:
    """What a build was against what was expected, its failures, what was learned and what was sent."""
    return page(
        f"## fedstep: build {training.outcome.value}{_took(training.duration)}",
        *_comparison(training.duration, training.expected),
        *_incident(training.incident, training.incident_reason),
        *_failures(training.failures),
        *_muted(training.muted),
        *_risks(training.flakiest),
        "### Learned and exchanged",
        f"{learned(training.rows)}.",
        *_exchange(training.exchange),
        details(read(training.reading), _dropped(training.reading.dropped)),
        *_end(training.model, training.status, training.warnings),
    )


def failure_table(failures: Sequence[FailureVerdict], most: int) -> Iterator[str]:
    """Blocks with the failures that are least likely flaky, at most so many, and how many there are beside them."""
    if failures:
        if most:
            yield table(("verdict", "flaky", "test", "why"), map(_failure, by_urgency(failures)[:most]))
        yield from more(len(failures) - most)


def _counts(triage: Triage) -> str:
    muted = f"{len(triage.muted):,} muted" if triage.muted else ""
    return ", ".join(filter(None, (verdict_counts(triage.failures), muted))) or "no test failed"


def _expected(expected: Interval | Absent) -> str:
    if isinstance(expected, Absent):
        return f"not known: {code(expected.reason)}"
    jenkins = expected.jenkins_seconds
    beside = "" if isinstance(jenkins, Absent) else f" (Jenkins would say {span(jenkins)})"
    return f"**{span(expected.seconds)}**{interval(expected).removeprefix(span(expected.seconds))}{beside}"


def _risk(risk: Risk | Absent) -> str:
    if isinstance(risk, Absent):
        return f"not known: {code(risk.reason)}"
    return f"**{percent(risk.probability)}** likely to fail<br>{_because(risk.reasons, 'build')}".removesuffix("<br>")


def _took(duration: Duration | Absent) -> str:
    return "" if isinstance(duration, Absent) else f" after {span(duration.seconds)}"


def _comparison(duration: Duration | Absent, expected: Interval | Absent) -> Iterator[str]:
    missing = next((value for value in (duration, expected) if isinstance(value, Absent)), None)
    if isinstance(duration, Absent) or isinstance(expected, Absent):
        yield f"The build's time was not compared: {code(missing.reason) if missing else ''}"
        return
    inside = "inside" if expected.low <= duration.seconds <= expected.high else "**outside**"
    jenkins = expected.jenkins_seconds
    yield table(
        ("actual", "expected", "90 % interval", "", "Jenkins would say"),
        (
            (
                span(duration.seconds),
                span(expected.seconds),
                spread(expected.low, expected.high),
                inside,
                "–" if isinstance(jenkins, Absent) else span(jenkins),
            ),
        ),
    )
    yield f"```text\n{interval_drawing(expected, duration.seconds)}\n[ ] 90 % interval   o expected   x actual\n```"


def _incident(incident: bool, reason: str) -> Iterator[str]:
    if incident:
        yield f"> **Incident**, no evidence about single tests: {code(reason)}"


def _failures(failures: Sequence[FailureVerdict]) -> Iterator[str]:
    if failures:
        yield f"### Failures: {verdict_counts(failures)}"
        yield from failure_table(failures, MOST_FAILURES)


def _failure(failure: FailureVerdict) -> Sequence[str]:
    verdict = {"regression": "**regression**", "flaky": "flaky"}.get(failure.verdict, "unsure")
    place = f"{failure.file}:{failure.line}" if failure.line else failure.file
    facts = "<br>".join(code(fact) for fact in (failure.test, failure.failure_type, place) if fact)
    return (verdict, percent(failure.flaky_probability), facts, _because(failure.reasons))


def _muted(muted: Sequence[MutedFailure]) -> Iterator[str]:
    if muted:
        rows = [
            (failure.verdict, percent(failure.flaky_probability), code(failure.test), code(owner), code(reason), until)
            for failure, owner, reason, until in muted[:MOST_OTHERS]
        ]
        shown = table(("verdict", "flaky", "test", "owner", "reason", "until"), rows)
        yield details(f"Muted, not counted: {len(muted):,}", "\n\n".join((shown, *more(len(muted) - MOST_OTHERS))))


def _risks(risks: Sequence[TestRisk]) -> Iterator[str]:
    if risks:
        yield "### Most likely to flake"
        yield table(("chance", "test", "last runs", "why"), map(_test, risks[:MOST_TESTS]))
        yield from more(len(risks) - MOST_TESTS)
        yield "<sub>`.` passed, `F` failed, `~` failed and passed, `-` skipped; + raises, − lowers</sub>"


def _test(risk: TestRisk) -> Sequence[str]:
    runs = f"`{drawn(risk.last_outcomes)}`<br>" if risk.last_outcomes else ""
    return (percent(risk.probability), code(risk.test), f"{runs}{past(risk)}", _because(risk.reasons))


def _because(reasons: Iterable[Reason], subject: str = "test") -> str:
    return "<br>".join(map(_cause, causes(reasons, subject)))


def _cause(cause: Cause) -> str:
    sign = "+" if cause.sign == "+" else "−"
    return " ".join(filter(None, (sign, cause.phrase, code(cause.word) if cause.word else "")))


def _exchange(exchange: Exchange | Absent) -> Iterator[str]:
    if isinstance(exchange, Absent):
        yield f"Nothing was exchanged: {code(exchange.reason)}"
        return
    steps = exchanged(exchange).replace("->", "→")
    yield f"{steps}, with {code(exchange.url)}. No name, source, log or branch is part of an update."
    updates = [(size(update.size), sent_rows(update.rows)) for update in exchange.sent[:MOST_OTHERS]]
    if updates:
        yield details("What was sent", table(("size", "learned from (rows, rounded down)"), updates))


def _dropped(dropped: Sequence[Dropped]) -> str:
    if not dropped:
        return "All of it was used as it stood."
    shown = dropped[:MOST_OTHERS]
    rows = [("repaired" if drop.kept else "dropped", code(drop.source), code(drop.reason)) for drop in shown]
    return "\n\n".join((table(("", "where", "why"), rows), *more(len(dropped) - MOST_OTHERS)))


def _end(model: ModelUsed, status: str, warnings: Sequence[str]) -> Iterator[str]:
    if warnings:
        yield "\n".join(f"- ⚠ {code(warning, MOST_OF_A_WARNING)}" for warning in warnings[:MOST_OTHERS])
        yield from more(len(warnings) - MOST_OTHERS)
    yield f"<sub>status {status}; {model_name(model)}{f' from {code(model.url)}' if model.url else ''}</sub>"
