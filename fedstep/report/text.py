"""Findings for a terminal: the essentials in three lines, then a list; never wider than 100 columns.

`predict` loads this cold: nothing but fedstep's own small modules is imported here. Warnings are not part of these
texts: stdout is the result, `warning_text` is for stderr.
"""

from collections.abc import Iterable, Iterator, Sequence

from fedstep.report.reasons import ReasonPhrase, causes
from fedstep.report.units import columns, count, percent, shorten, size, span, spread, visible
from fedstep.results import (
    ExampleCounts,
    Exchange,
    FailureVerdict,
    FeatureContribution,
    Interval,
    ModelUsed,
    MutedFailure,
    Prediction,
    ReportCounts,
    Risk,
    TestRisk,
    TrainReport,
    TriageReport,
)
from fedstep.types import Duration, Unavailable

WIDTH = 100
LABEL = 14


def row(label: str, text: str) -> Iterator[str]:
    """A label and its text; lines after the first stand below the text.

    >>> list(row("Status", "ok"))
    ['Status        ok']
    """
    first, *rest = wrapped(text, LABEL) or (" " * LABEL,)
    yield f"{label:<{LABEL}}{first[LABEL:]}"
    yield from rest


def wrapped(text: str, indent: int) -> list[str]:
    """The words of a text in lines of at most WIDTH columns, all indented."""
    lines: list[str] = []
    room = WIDTH - indent
    for word in (shorten(word, room) for word in text.split(" ")):
        if lines and columns(lines[-1]) + 1 + columns(word) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [" " * indent + line.rstrip() for line in lines if line.strip()]


def padded(text: str, width: int) -> str:
    """The text with blanks up to a width in terminal columns."""
    return text + " " * (width - columns(text))


def page(lines: Iterable[str]) -> str:
    """The lines, each with a newline at its end and no blanks before it."""
    return "".join(f"{line.rstrip()}\n" for line in lines)


STYLE = """
:root { color-scheme: light dark;
  --paper: #fbfaf8; --card: #ffffff; --ink: #1d2129; --soft: #5c6370; --rule: #e3e1dc;
  --blue: #2563a8; --band: #2563a82e; --grey: #8a8f98; --red: #c2410c; --green: #177245; --bar: #dbe7f3; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #15171b; --card: #1d2025; --ink: #e7e6e3; --soft: #a2a8b3; --rule: #32363d;
  --blue: #7fb2e8; --band: #7fb2e833; --grey: #8d929c; --red: #ff8a5c; --green: #6fcf9a; --bar: #2b3a4b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 32px; line-height: 1.2; margin: 0 0 8px; letter-spacing: -0.01em; }
h2 { font-size: 22px; margin: 48px 0 8px; }
h3 { font-size: 18px; margin: 0; overflow-wrap: anywhere; }
h4 { font-size: 15px; margin: 20px 0 4px; }
p { margin: 4px 0 12px; max-width: 72ch; }
.lead { font-size: 18px; color: var(--soft); }
.soft, .note, figcaption, footer { color: var(--soft); }
.note, figcaption, footer { font-size: 14px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 16px; margin: 28px 0 0; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 16px 18px; }
.tile b { display: block; font-size: 30px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile span { display: block; font-size: 14px; color: var(--soft); margin-top: 4px; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; }
.card { margin: 16px 0; padding: 20px 22px; }
.task { display: flex; flex-wrap: wrap; gap: 4px 16px; justify-content: space-between; align-items: baseline; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 15px; }
th { text-align: left; font-weight: 600; font-size: 13px; color: var(--soft); vertical-align: bottom; }
th, td { padding: 8px 14px 8px 0; border-bottom: 1px solid var(--rule); }
td { vertical-align: top; }
th:last-child, td:last-child { padding-right: 0; }
td:first-child { overflow-wrap: anywhere; }
tr:last-child td { border-bottom: 0; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font: 13.5px/1.45 ui-monospace, monospace; overflow-wrap: anywhere; }
.runs { display: block; letter-spacing: 1px; }
.good { color: var(--green); font-weight: 600; } .bad { color: var(--red); font-weight: 600; }
.meter { display: block; height: 6px; border-radius: 3px; background: var(--bar); margin-top: 5px; min-width: 60px; }
.meter i { display: block; height: 6px; border-radius: 3px; background: var(--blue); }
.meter.grey i { background: var(--grey); }
.small { font-size: 14px; }
.why { color: var(--soft); font-size: 14px; } .why div { padding-left: 14px; text-indent: -14px; }
figure { margin: 14px 0 0; }
.strip { position: relative; height: 220px; margin: 8px 0 0 84px; }
.strip svg { width: 100%; height: 100%; display: block; overflow: visible; }
.times span { position: absolute; right: calc(100% + 8px); transform: translateY(50%); font-size: 13px;
  color: var(--soft); white-space: nowrap; font-variant-numeric: tabular-nums; }
.numbers { display: flex; justify-content: space-between; margin: 8px 0 0 84px; font-size: 13px; color: var(--soft); }
svg path { fill: none; vector-effect: non-scaling-stroke; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .band { fill: var(--band); }
svg .expected { stroke: var(--blue); stroke-width: 2; }
svg .jenkins { stroke: var(--grey); stroke-width: 1.5; stroke-dasharray: 5 4; }
svg .passed { stroke: var(--ink); stroke-width: 5; stroke-linecap: round; }
svg .failed { stroke: var(--red); stroke-width: 7; stroke-linecap: round; }
.legend { display: flex; flex-wrap: wrap; gap: 6px 22px; font-size: 14px;
  color: var(--soft); padding: 0; margin: 12px 0; }
.legend li { list-style: none; display: flex; align-items: center; gap: 8px; }
.legend svg { width: 30px; height: 12px; flex: none; }
details { margin-top: 12px; font-size: 15px; } summary { cursor: pointer; color: var(--blue); font-size: 14px; }
footer { margin-top: 48px; border-top: 1px solid var(--rule); padding-top: 14px; }
@media (max-width: 640px) {
  main { padding: 24px 14px 40px; } h1 { font-size: 26px; } .card { padding: 16px 14px; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 10px; } .tile { padding: 12px; } .tile b { font-size: 24px; }
  .strip { height: 160px; margin-left: 72px; } .numbers { margin-left: 72px; }
  table.tests, table.tests tbody, table.tests tr, table.tests td { display: block; }
  table.tests thead { display: none; } table.tests td { border: 0; padding: 2px 0; text-align: left; }
  table.tests tr { border-bottom: 1px solid var(--rule); padding: 10px 0; } table.tests tr:last-child { border: 0; }
}
"""


STATUS = {
    "ok": "ok",
    "local": "local: no aggregator is configured, this project's own history is used",
    "degraded": "degraded: something failed, see the warnings",
}
VERDICTS = ("regression", "unsure", "flaky")  # most urgent first
LEGEND = "runs, oldest first:  . passed  F failed  ~ failed and passed  - skipped;  + raises, - lowers"
_DRAWN = {"p": ".", "f": "F", "c": "F", "k": "~", "s": "-"}


def sparkline(last_outcomes: str, most: int = 20) -> str:
    """The last outcomes as one picture, oldest first.

    >>> sparkline("ppfks")
    '..F~-'
    """
    return "".join(_DRAWN.get(letter, "?") for letter in last_outcomes[-most:])


def describe_history(risk: TestRisk) -> str:
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
    age = "" if isinstance(model.age_seconds, Unavailable) else f", pulled {span(model.age_seconds)} ago"
    return f"{'production model' if model.kind == 'production' else 'model'} {model.version}{age}"


def known(prediction: Prediction) -> str:
    """How much of the project's past the prediction stands on."""
    return f"{count(prediction.builds_known, 'build')} and {count(prediction.tests_known, 'test')} known"


def describe_reports(reading: ReportCounts) -> str:
    """How many files and tests were read, and how many were not used as they stood."""
    repaired = sum(dropped.kept for dropped in reading.dropped)
    lost = len(reading.dropped) - repaired
    parts = [count(reading.files, "report file"), count(reading.tests, "test")]
    return ", ".join(parts + [f"{lost:,} dropped"] * bool(lost) + [f"{repaired:,} repaired"] * bool(repaired))


def learned(examples: ExampleCounts) -> str:
    """Say how many examples were learned and how many wait to be sent."""
    return f"{count(examples.learned, 'example')} learned, {examples.waiting:,} waiting"


def exchanged(exchange: Exchange) -> str:
    """What was sent and which versions came back."""
    total = sum(update.size for update in exchange.sent)
    nothing = f"nothing is sent: {exchange.withheld}" if exchange.withheld else "nothing to send yet"
    sent = f"{count(len(exchange.sent), 'update')} sent ({size(total)})" if exchange.sent else nothing
    waiting = f", {exchange.unsent:,} waiting in the outbox" if exchange.unsent else ""
    task = _step("head", exchange.candidate_before, exchange.candidate_after)
    return f"{sent}{waiting}; {task}, {_step('production', exchange.production_before, exchange.production_after)}"


def sent_rows(rows: Sequence[tuple[str, int]]) -> str:
    """The tasks of an update and how many rows each says it was learned from.

    >>> sent_rows([("flaky", 32), ("build-duration", 8)])
    'flaky 32+, build-duration 8+'
    """
    return ", ".join(f"{task} {bucket}+" for task, bucket in rows)


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


def triage_text(triage: TriageReport, colour: bool = False) -> str:
    """Each failure of a report and how likely it is flaky; lines end with a newline."""
    lines = [
        *row("Failures", _failure_count(triage.failures, len(triage.muted))),
        *row("Verdict", _verdict(triage)),
        *row("Read", describe_reports(triage.reading)),
        *_failures(triage.failures),
        *_muted(triage.muted),
        "",
        *_footer(triage.model, triage.status),
    ]
    return _finished(lines, colour)


def training_text(training: TrainReport, colour: bool = False) -> str:
    """What a build was, what was learned from it and what was exchanged; lines end with a newline."""
    lines = [
        *row("Build", f"{training.outcome.value}; {_actual(training.duration, training.expected)}"),
        *row(
            "Tests", f"{describe_reports(training.reading)}; {_failure_count(training.failures, len(training.muted))}"
        ),
        *row("Learned", f"{learned(training.examples)}; {_exchange(training)}"),
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


def _expected(expected: Interval | Unavailable) -> str:
    if isinstance(expected, Unavailable):
        return f"not known: {visible(expected.reason)}"
    return f"{interval(expected)}{_jenkins(expected)}"


def _jenkins(expected: Interval) -> str:
    jenkins = expected.jenkins_seconds
    return "" if isinstance(jenkins, Unavailable) else f" (Jenkins would say {span(jenkins)})"


def _risk(risk: Risk | Unavailable) -> str:
    if isinstance(risk, Unavailable):
        return f"not known: {visible(risk.reason)}"
    return f"{percent(risk.probability)} likely to fail: {_because(risk.reasons, 'build')}".rstrip(": ")


def _flaky_count(prediction: Prediction) -> str:
    of = f"of {count(prediction.tests_known, 'known test')}" if prediction.tests_known else "known"
    return f"{len(prediction.flaky):,} {of} likely to flake in the next runs"


def _failure_count(failures: Sequence[FailureVerdict], muted: int) -> str:
    counts = ", ".join(filter(None, (verdict_counts(failures), f"{muted:,} muted" if muted else "")))
    return f"{len(failures) + muted:,} failed: {counts}" if counts else "no test failed"


def _verdict(triage: TriageReport) -> str:
    if triage.incident:
        return f"an incident, no evidence about single tests: {visible(triage.incident_reason)}"
    regressions = sum(failure.verdict == "regression" for failure in triage.failures)
    if regressions:
        return f"look at {'the regression' if regressions == 1 else f'the {regressions:,} regressions'} first"
    unsure = any(failure.verdict == "unsure" for failure in triage.failures)
    return "look at the unsure ones first" if unsure else "nothing here looks like a regression"


def _actual(duration: Duration | Unavailable, expected: Interval | Unavailable) -> str:
    if isinstance(duration, Unavailable):
        return f"time not known: {visible(duration.reason)}"
    if isinstance(expected, Unavailable):
        return f"{span(duration.seconds)}, not predicted: {visible(expected.reason)}"
    inside = "inside" if expected.low <= duration.seconds <= expected.high else "outside"
    ours = f"{span(duration.seconds)}, {inside} the expected {spread(expected.low, expected.high)}"
    return f"{ours}{_jenkins(expected)}"


def _exchange(training: TrainReport) -> str:
    exchange = training.exchange
    return visible(exchange.reason) if isinstance(exchange, Unavailable) else exchanged(exchange)


def _risks(risks: Sequence[TestRisk], most: int = MOST_TESTS) -> Iterator[str]:
    if risks:
        yield from ("", "Most likely to flake")
    for risk in risks[:most]:
        yield f"  {percent(risk.probability):>5}  {visible(risk.test, WIDTH - 9)}"
        yield from wrapped(f"{sparkline(risk.last_outcomes)}  {describe_history(risk)}".strip(), 9)
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


def _because(reasons: Iterable[FeatureContribution], subject: str = "test") -> str:
    return "; ".join(
        " ".join(filter(None, (cause.sign, cause.phrase, _quoted(cause)))) for cause in causes(reasons, subject)
    )


def _quoted(cause: ReasonPhrase) -> str:
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
