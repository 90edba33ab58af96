"""Sentences that more than one sink needs. They hold no name from the code under test: each sink escapes its own."""

from collections.abc import Sequence

from fedstep.build.record import Absent
from fedstep.report.findings import Exchange, FailureVerdict, Interval, ModelUsed, Prediction, Reading, Rows, TestRisk
from fedstep.report.units import count, size, span

__all__ = [
    "LEGEND",
    "STATUS",
    "VERDICTS",
    "by_urgency",
    "drawn",
    "exchanged",
    "interval",
    "known",
    "learned",
    "model_name",
    "past",
    "read",
    "sent_rows",
    "verdict_counts",
]

STATUS = {
    "ok": "ok",
    "local": "local: no aggregator is configured, this project's own history is used",
    "degraded": "degraded: something failed, see the warnings",
}
VERDICTS = ("regression", "unsure", "flaky")  # most urgent first
LEGEND = "runs, oldest first:  . passed  F failed  ~ failed and passed  - skipped;  + raises, - lowers"
_DRAWN = {"p": ".", "f": "F", "c": "F", "k": "~", "s": "-"}


def drawn(last_outcomes: str, most: int = 20) -> str:
    """The last outcomes as one picture, oldest first.

    >>> drawn("ppfks")
    '..F~-'
    """
    return "".join(_DRAWN.get(letter, "?") for letter in last_outcomes[-most:])


def past(risk: TestRisk) -> str:
    """What happened to the test so far."""
    if not risk.runs:
        return "no run of it is known"
    failed = (
        f"failed in {risk.failures:,} of {count(risk.runs, 'run')}"
        if risk.failures
        else f"{count(risk.runs, 'run')}, none failed"
    )
    return f"{failed}, changed its outcome {count(risk.flips, 'time')}" if risk.flips else failed


def interval(expected: Interval) -> str:
    """The expected time and how sure it is."""
    return f"{span(expected.seconds)}, 90 % between {span(expected.low)} and {span(expected.high)}"


def model_name(model: ModelUsed) -> str:
    """Which model answered, and how old it is."""
    if model.kind == "starter":
        return "starter model, shipped with fedstep"
    age = "" if isinstance(model.age_seconds, Absent) else f", pulled {span(model.age_seconds)} ago"
    return f"{'production model' if model.kind == 'production' else 'model'} {model.version}{age}"


def known(prediction: Prediction) -> str:
    """How much of the project's past the prediction stands on."""
    return f"{count(prediction.builds_known, 'build')} and {count(prediction.tests_known, 'test')} known"


def read(reading: Reading) -> str:
    """How many files and tests were read, and how many were not used as they stood."""
    repaired = sum(dropped.kept for dropped in reading.dropped)
    lost = len(reading.dropped) - repaired
    parts = [count(reading.files, "report file"), count(reading.tests, "test")]
    return ", ".join(parts + [f"{lost:,} dropped"] * bool(lost) + [f"{repaired:,} repaired"] * bool(repaired))


def learned(rows: Rows) -> str:
    """What became of the history's rows."""
    others = f"{rows.scored:,} scored, {rows.ripened:,} ripened, {rows.waiting:,} waiting"
    return f"{count(rows.learned, 'row')} learned, {others}"


def exchanged(exchange: Exchange) -> str:
    """What was sent and which versions came back."""
    total = sum(update.size for update in exchange.sent)
    nothing = f"nothing is sent: {exchange.withheld}" if exchange.withheld else "nothing to send yet"
    sent = f"{count(len(exchange.sent), 'update')} sent ({size(total)})" if exchange.sent else nothing
    waiting = f", {exchange.unsent:,} waiting in the outbox" if exchange.unsent else ""
    head = _step("head", exchange.head_before, exchange.head_after)
    return f"{sent}{waiting}; {head}, {_step('production', exchange.production_before, exchange.production_after)}"


def sent_rows(rows: Sequence[tuple[str, int]]) -> str:
    """The heads of an update and how many rows each says it was learned from.

    >>> sent_rows([("flaky", 32), ("build-duration", 8)])
    'flaky 32+, build-duration 8+'
    """
    return ", ".join(f"{head} {bucket}+" for head, bucket in rows)


def verdict_counts(failures: Sequence[FailureVerdict]) -> str:
    """How many failures of each verdict, the urgent ones first."""
    counts = {verdict: sum(failure.verdict == verdict for failure in failures) for verdict in VERDICTS}
    nouns = {"regression": "likely regression", "unsure": "unsure", "flaky": "likely flaky"}
    plurals = {"regression": "likely regressions", "unsure": "unsure", "flaky": "likely flaky"}
    return ", ".join(count(number, nouns[verdict], plurals[verdict]) for verdict, number in counts.items() if number)


def by_urgency(failures: Sequence[FailureVerdict]) -> list[FailureVerdict]:
    """The failures with what is least likely flaky first."""
    return sorted(failures, key=lambda failure: failure.flaky_probability)


def _step(name: str, before: int, after: int) -> str:
    return f"{name} {before} -> {after}" if before != after else f"{name} {after}"
