"""Findings for a terminal: the essentials in three lines, then a list; never wider than 100 columns.

`predict` loads this cold: nothing but fedstep's own small modules is imported here. Warnings are not part of these
texts: stdout is the result, `units.warning_text` is for stderr.
"""

from collections.abc import Iterable, Iterator, Sequence

from fedstep.report import wording
from fedstep.report.units import columns, count, percent, shorten, spread, visible
from fedstep.results import (
    PROBLEM,
    WARNING,
    BuildVerdict,
    Diagnosis,
    DiagnosticCheck,
    FailureGroup,
    FailureVerdict,
    FeatureContribution,
    Interval,
    ModelUsed,
    MutedFailure,
    NotRun,
    Prediction,
    Risk,
    TestRisk,
    TrainReport,
    TriageReport,
)
from fedstep.types import Duration, TimeChange, Unavailable

WIDTH = 100
LABEL = 14


def labelled_lines(label: str, text: str) -> Iterator[str]:
    """Yield a label with its text; further lines are aligned below the text.

    >>> list(labelled_lines("Status", "ok"))
    ['Status        ok']
    """
    first, *rest = wrap(text, LABEL) or (" " * LABEL,)
    yield f"{label:<{LABEL}}{first[LABEL:]}"
    yield from rest


def wrap(text: str, indent: int) -> list[str]:
    """Wrap a text into lines of at most WIDTH columns, all indented."""
    lines: list[str] = []
    room = WIDTH - indent
    for word in (shorten(word, room) for word in text.split(" ")):
        if lines and columns(lines[-1]) + 1 + columns(word) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [" " * indent + line.rstrip() for line in lines if line.strip()]


def pad(text: str, width: int) -> str:
    """Pad the text with spaces to a width in terminal columns."""
    return text + " " * (width - columns(text))


def join_lines(lines: Iterable[str]) -> str:
    """Join the lines, each without trailing spaces and with a newline at its end."""
    return "".join(f"{line.rstrip()}\n" for line in lines)


MOST_TESTS = 10
MOST_FAILURES = 30
MOST_CHANGES = 10
MOST_MEMBERS = 4  # tests of one cause that are named


def prediction_text(prediction: Prediction, most: int = MOST_TESTS) -> str:
    """Return what to expect of the next build and `most` tests; lines end with a newline."""
    lines = [
        *labelled_lines("Build time", _format_expected(prediction.duration)),
        *labelled_lines("Failure risk", _risk(prediction.risk)),
        *labelled_lines("Flaky tests", wording.describe_flaky_count(prediction)),
        *_risks(prediction.flaky, most),
        *_suspects(prediction.suspects),
        "",
        *_footer(
            prediction.model,
            prediction.status,
            f"{visible(prediction.base)}; {wording.format_knowledge(prediction)}".lstrip("; "),
        ),
    ]
    return _finish(lines)


def triage_text(triage: TriageReport) -> str:
    """Return each failure of a report and how likely it is flaky; lines end with a newline."""
    lines = [
        *labelled_lines("Failures", _failure_count(triage)),
        *labelled_lines("Verdict", _verdict(triage)),
        *_ruling(triage.ruling),
        *_cause(triage),
        *labelled_lines("Read", wording.describe_reports(triage.reading)),
        *_not_run(triage.not_run),
        *_failures(triage.groups),
        *_format_muted(triage.muted),
        "",
        *_footer(triage.model, triage.status),
    ]
    return _finish(lines)


def training_text(training: TrainReport) -> str:
    """Return the build, what was learned from it and what was exchanged; lines end with a newline."""
    failures = _failure_count(training)
    lines = [
        *labelled_lines("Build", f"{training.outcome.value}; {_actual(training.duration, training.expected)}"),
        *(line for slow in training.slower for line in labelled_lines("Slower", wording.describe_slow_test(slow))),
        *labelled_lines("Tests", f"{wording.describe_reports(training.reading)}; {failures}"),
        *_not_run(training.not_run),
        *labelled_lines(
            "Learned", f"{wording.format_learning(training.examples, training.exchange)}; {_exchange(training)}"
        ),
        *(labelled_lines("Incident", visible(training.incident_reason)) if training.incident else ()),
        *_selection(training),
        *_failures(training.groups),
        *_format_muted(training.muted),
        *_time_changes(training.changes),
        *_risks(training.flakiest),
        "",
        *_footer(training.model, training.status),
    ]
    return _finish(lines)


def _not_run(not_run: NotRun) -> Iterator[str]:
    """Yield which known tests are missing, though nothing was said to leave them out."""
    description = wording.describe_not_run(not_run)
    yield from labelled_lines("Did not run", description) if description else ()


def _selection(training: TrainReport) -> Iterator[str]:
    """Yield what a selection left out of this build, and what all of them saved and missed."""
    if training.selection:
        for text in (
            wording.describe_left_out(training.selection.left_out),
            *wording.describe_selections(training.selection.tally),
        ):
            yield from labelled_lines("Selected", text) if text else ()


def _time_changes(changes: Sequence[TimeChange]) -> Iterator[str]:
    """Yield the tests and jobs whose time changed for good, each once: in the build that made it certain."""
    if changes:
        yield from ("", "Time changed for good (fedstep ack accepts one)")
    for change in changes[:MOST_CHANGES]:
        yield f"  {'slower' if change.is_slower else 'faster'}  {visible(wording.name_subject(change), 100)}"
        yield f"          {wording.describe_change(change)}"
    yield from ([f"  and {len(changes) - MOST_CHANGES:,} more"] if len(changes) > MOST_CHANGES else [])


def _format_expected(expected: Interval | Unavailable) -> str:
    if isinstance(expected, Unavailable):
        return f"not known: {visible(expected.reason)}"
    return f"{wording.format_interval(expected)}{_jenkins(expected)}"


def _jenkins(expected: Interval) -> str:
    jenkins = wording.format_jenkins(expected)
    return f" (Jenkins estimate: {jenkins})" if jenkins else ""


def _risk(risk: Risk | Unavailable) -> str:
    if isinstance(risk, Unavailable):
        return f"not known: {visible(risk.reason)}"
    return f"{percent(risk.probability)} likely to fail: {_because(risk.reasons, 'build')}".rstrip(": ")


def _failure_count(report: TriageReport | TrainReport) -> str:
    failures, muted = report.failures, len(report.muted)
    failure_count = wording.count_failures(failures, incident=report.incident)
    counts = ", ".join(filter(None, (failure_count, f"{muted:,} muted" if muted else "")))
    if report.incident and failures:
        return counts
    return f"{len(failures) + muted:,} failed: {counts}" if counts else wording.name_no_failure(report.reading)


def _verdict(triage: TriageReport) -> str:
    if triage.incident:
        return f"{visible(triage.incident_reason)}: look for one cause, single tests are not judged"
    regressions = sum(failure.verdict == "regression" for failure in triage.failures)
    if regressions:
        return f"look at {'the regression' if regressions == 1 else f'the {regressions:,} regressions'} first"
    if triage.reading.tests == triage.reading.skipped:
        return "none, there is nothing to judge"
    unsure = sum(failure.verdict == "unsure" for failure in triage.failures)
    if unsure:
        return f"look at the unsure {'one' if unsure == 1 else 'ones'} first"
    return "nothing here looks like a regression" if triage.reading.is_whole else "none, the reports are not whole"


def _ruling(ruling: BuildVerdict | None) -> Iterator[str]:
    """Yield whether the build passes, and what was forgiven: never silently."""
    if ruling:
        reasons = "; ".join(map(visible, ruling.reasons)) or "no failure counts"
        yield from labelled_lines("Build", f"{'passes' if ruling.passed else 'fails'}: {reasons}")
        for failure, why in ruling.forgiven[:MOST_FAILURES]:
            yield from labelled_lines("Forgiven", f"{visible(failure.test, 1000)}: {visible(why)}")
        yield from _more(len(ruling.forgiven) - MOST_FAILURES)


def _cause(triage: TriageReport) -> Iterator[str]:
    if triage.cause == "infrastructure":
        yield from labelled_lines("Cause", f"infrastructure, run the job again: {visible(triage.cause_rule)}")
    elif triage.cause in ("code", "unknown"):
        yield from labelled_lines("Cause", f"{triage.cause}: {visible(triage.cause_rule)}")


def _actual(duration: Duration | Unavailable, expected: Interval | Unavailable) -> str:
    if isinstance(duration, Unavailable):
        return f"time not known: {visible(duration.reason)}"
    if isinstance(expected, Unavailable):
        return f"{wording.format_time(*duration)}, not predicted: {visible(expected.reason)}"
    addition = f", which was {wording.TOO_VARIABLE}" if wording.is_too_variable(expected) else ""
    interval = spread(expected.low, expected.high)
    comparison = wording.compare_time(expected, duration.seconds)
    return f"{wording.format_time(*duration)}, {comparison} the expected {interval}{addition}{_jenkins(expected)}"


def _exchange(training: TrainReport) -> str:
    exchange = training.exchange
    return visible(exchange.reason) if isinstance(exchange, Unavailable) else wording.format_exchange(exchange)


def _risks(risks: Sequence[TestRisk], most: int = MOST_TESTS) -> Iterator[str]:
    if risks:
        yield from ("", "Most likely to flake")
    for risk in risks[:most]:
        yield f"  {percent(risk.probability):>5}  {visible(risk.test, WIDTH - 9)}"
        yield from wrap(f"{wording.draw_sparkline(risk.last_outcomes)}  {wording.describe_history(risk)}".strip(), 9)
        yield from wrap(visible(wording.describe_company((risk.test, *risk.also), risk.failures), 300), 9)
        yield from wrap(_because(risk.reasons), 9)
    yield from _more(len(risks) - most)
    if risks:
        yield f"  ({wording.LEGEND})"


def _suspects(suspects: Sequence[TestRisk]) -> Iterator[str]:
    """Name the tests that are only suspected; they were never seen to flip. One without a reason is left out."""
    suspicions = [(risk, _format_causes(causes)) for risk in suspects if (causes := wording.rank_suspicions(risk))]
    if suspicions:
        yield from ("", "Worth a look: never seen to flip, but like tests that do")
    for risk, reasons in suspicions:
        yield f"  {percent(risk.probability):>5}  {visible(risk.test, WIDTH - 9)}"
        yield from wrap(reasons, 9)


def _failures(groups: Sequence[FailureGroup]) -> Iterator[str]:
    if groups:
        yield from ("", "Failures, and how likely each is flaky")
    above = ""
    for group in groups[:MOST_FAILURES]:
        failure = group.first
        is_judged = group.kind != "incident"
        verdict = f"{visible(failure.verdict, 10):<10} {percent(failure.flaky_probability):>5}"
        yield from _format_name(f"  {verdict if is_judged else 'incident':<16}  ", failure.test)
        for line in failure.message.splitlines():
            yield from wrap(visible(line, 300), 20)
        yield from wrap("; ".join(filter(None, (wording.describe_group(group), _place(failure)))), 20)
        yield from wrap(visible(failure.last_touched and f"file last changed by {failure.last_touched}", 120), 20)
        causes = _format_causes(wording.rank_failure_causes(failure.reasons)) if is_judged else ""
        yield from wrap(wording.AS_ABOVE if causes and causes == above else causes, 20)
        above = causes
        for other in group.failures[1:MOST_MEMBERS]:
            verdict = "" if other.verdict == failure.verdict else f"{visible(other.verdict, 10)} "
            yield from _format_name(f"{'':20}also {verdict}", other.test)
        if len(group.failures) > MOST_MEMBERS:
            yield f"{'':20}and {len(group.failures) - MOST_MEMBERS:,} more with the same cause"
    yield from _more(len(groups) - MOST_FAILURES)
    if any(wording.rank_failure_causes(group.first.reasons) for group in groups if group.kind != "incident"):
        yield "  (+ speaks for a flake, - for a regression)"


def _format_name(begin: str, test: str) -> Iterator[str]:
    """Yield the name of a test in full, to be copied: on a line of its own where it does not fit, indented."""
    name = visible(test, 1000)
    if len(begin) + columns(name) <= WIDTH:
        yield f"{begin}{name}"
    else:
        yield begin
        yield f"{'':{min(20, max(WIDTH - columns(name), 0))}}{name}"


def _format_muted(muted: Sequence[MutedFailure]) -> Iterator[str]:
    if muted:
        yield from ("", "Muted failures, not counted")
    for failure, owner, reason, until in muted[:MOST_FAILURES]:
        verdict = f"{visible(failure.verdict, 10):<10} {percent(failure.flaky_probability):>5}"
        yield f"  {verdict}  {visible(failure.test, WIDTH - 20)}"
        yield from wrap(f"until {until} by {visible(owner, 40)}: {visible(reason)}", 20)
    yield from _more(len(muted) - MOST_FAILURES)


def _place(failure: FailureVerdict) -> str:
    return visible(f"{failure.file}:{failure.line}" if failure.line else failure.file, 70)


def _because(reasons: Iterable[FeatureContribution], subject: str = "test") -> str:
    return _format_causes(wording.rank_causes(reasons, subject))


def _format_causes(causes: Iterable[wording.ReasonPhrase]) -> str:
    return "; ".join(" ".join(filter(None, (cause.sign, cause.phrase, _quote_word(cause)))) for cause in causes)


def _quote_word(cause: wording.ReasonPhrase) -> str:
    return f'"{visible(cause.word, 40)}"' if cause.phrase and cause.word else visible(cause.word, 40)


def _more(left_out: int) -> Iterator[str]:
    if left_out > 0:
        yield f"  and {left_out:,} more"


def _footer(model: ModelUsed, status: str, basis: str = "") -> Iterator[str]:
    yield from labelled_lines("Based on", basis) if basis else ()
    yield from labelled_lines(
        "Model", f"{wording.format_model(model)}{f' from {visible(model.url, 60)}' if model.url else ''}"
    )
    yield from labelled_lines("Status", wording.STATUS.get(status, visible(status)))


def _finish(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


CHECK_NAME, CHECK_TEXT = 9, 23  # columns at which a check's name begins, and what it says


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """Return the diagnosis as text; lines end with a newline."""
    lines = (line for check in diagnosis.checks for line in _check(check))
    return join_lines((*lines, "", _sum(diagnosis)))


def _check(check: DiagnosticCheck) -> Iterator[str]:
    first, *rest = wrap(visible(check.says, 600), CHECK_TEXT) or ("",)
    yield f"{check.state:<{CHECK_NAME}}{check.name:<{CHECK_TEXT - CHECK_NAME}}{first[CHECK_TEXT:]}"
    yield from rest
    if check.fix:
        yield from wrap(f"-> {visible(check.fix, 600)}", CHECK_TEXT)


def _sum(diagnosis: Diagnosis) -> str:
    problems, warnings = diagnosis.count_in(PROBLEM), diagnosis.count_in(WARNING)
    if not problems and not warnings:
        return "Nothing needs fixing."
    return f"{count(problems, 'problem')}, {count(warnings, 'warning')}."


def suggestions_text(suggestions: Sequence[tuple[str, str, str]]) -> str:
    """Return one suggestion on two lines: what to do with which test, and why; lines end with a newline."""
    lines = (f"{action:<11} {visible(test, 1000)}\n{'':12}{evidence}\n" for action, test, evidence in suggestions)
    return "".join(lines) or "nothing to quarantine, and nothing to release\n"
