"""Findings as Markdown for the step summaries of GitHub, GitLab and Jenkins.

GitHub drops a summary over 1 MiB without a word: every list has a limit and every name a length, so that no finding
gets near 900 kB.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from fedstep.ingest.code_host import NO_CODE_HOST, CodeHost
from fedstep.report import wording
from fedstep.report.units import MOST_COLUMNS, percent, size, span, spread, visible
from fedstep.results import (
    Exchange,
    FailureGroup,
    FailureVerdict,
    FeatureContribution,
    Interval,
    ModelUsed,
    MutedFailure,
    NotRun,
    Prediction,
    Risk,
    SelectionReport,
    TestRisk,
    TrainReport,
    TriageReport,
)
from fedstep.types import Dropped, Duration, TimeChange, Unavailable

CELLS = 60


def interval_drawing(expected: Interval, actual: float) -> str:
    """Two lines: the interval as `[==o==]` with the actual time as `x`, and the axis from 0 that they stand on.

    >>> print(interval_drawing(Interval(30.0, 20.0, 40.0), 50.0))
    |...................[=========o=========].........x..........
    0 s                                                1 min 00 s
    """
    full = 1.2 * max(expected.high, actual, 1e-9)
    low, high = _chart_cell(expected.low, full), _chart_cell(expected.high, full)
    point, end = _chart_cell(expected.seconds, full), _chart_cell(actual, full)
    cells = ["|", *"." * CELLS]
    cells[low : high + 1] = ["="] * (high + 1 - low)
    cells[low], cells[high], cells[point] = "[", "]", "o"
    cells[end] = "x" if end != point else "*"
    return f"{''.join(cells)}\n0 s{span(full):>{CELLS - 2}}"


def _chart_cell(seconds: float, full: float) -> int:
    share = seconds / full
    return round(CELLS * min(max(share, 0.0), 1.0)) if share == share else 0  # NaN is not equal to itself


def code(text: str, most: int = MOST_COLUMNS) -> str:
    """Hostile text as a code span: nothing in it is markup, a mention or a reference.

    >>> code("a`b")
    '``a`b``'
    """
    displayed = visible(text, most)
    displayed = displayed if displayed.strip() else "(blank)"
    longest = max(map(len, "".join(c if c == "`" else " " for c in displayed).split()), default=0)
    fence, pad = "`" * (longest + 1), " " if displayed[0] in "` " or displayed[-1] in "` " else ""
    return f"{fence}{pad}{displayed}{pad}{fence}"


# Words that neither GitHub nor GitLab takes for an address, a reference (GH-2) or a milestone (%1).
_PLAIN_WORD = re.compile(r"(?!www\.|[(\"']?(?:gh-\d|%\w))[(\"']?[\w.%–-]+[)\"'.,;:?]{0,2}|[.,;:)]{1,2}", re.IGNORECASE)
_QUOTED = re.compile(r"(?<!\S)`([^`]+)`(?=[.,;:)]{0,2}(?:\s|$))")  # no other code span may touch it


def prose(text: str, most: int = MOST_COLUMNS) -> str:
    """Hostile text as prose: plain words stay, and each run of others becomes a code span, where nothing is markup.

    What a message of ours quotes with backticks is one code span.

    >>> prose("cannot read **/*.xml, a glob: give `junit: [a.xml]`, or none")
    'cannot read `**/*.xml`, a glob: give `junit: [a.xml]`, or none'
    """
    parts = _QUOTED.split(visible(text, most))  # outside, inside, outside, ...
    return "".join(code(part, most) if at % 2 else _outside(part, most) for at, part in enumerate(parts))


def _outside(text: str, most: int) -> str:
    runs = groupby(text.split(" "), lambda word: not word or (bool(_PLAIN_WORD.fullmatch(word)) and "_" not in word))
    return " ".join(" ".join(run) if plain else _span(" ".join(run), most) for plain, run in runs)


def _span(text: str, most: int) -> str:
    """Return a code span, without the punctuation of the sentence that follows it."""
    name = text.rstrip(",;:") or text
    return code(name, most) + text[len(name) :]


def link_to_changes(address: str) -> str:
    """Return a link to what changed, "" without an address, which `CodeHost.link` made: it has plain letters alone."""
    return f" ([what changed]({address}))" if address else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; each cell is one line of Markdown."""
    lines = (header, ["---"] * len(header), *(tuple(map(_cell, cells)) for cells in rows))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def details(summary: str, body: str) -> str:
    """Return a body that is collapsed until its summary is clicked."""
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"


def more(left_out: int) -> Iterator[str]:
    """Yield a line with the number of entries that a limit left out, if any."""
    if left_out > 0:
        yield f"and {left_out:,} more"


def page(*blocks: str) -> str:
    """Join the blocks with an empty line between them."""
    return "\n\n".join(blocks) + "\n"


def _cell(markdown: str) -> str:
    """Escape pipes, which end a cell even inside a code span.

    Parsers disagree about two backslashes before a pipe: that pipe becomes a visible escape instead.
    """
    return markdown.replace("\\|", "\\\\x7c").replace("|", "\\|")


MOST_FAILURES = 100
MOST_MEMBERS = 4  # tests of one cause that are named
MOST_OF_A_NAME = 1000  # columns: a name that is cut cannot be copied
MOST_TESTS = 25
MOST_OTHERS = 50
MOST_OF_A_WARNING = 600  # columns: a truncated remedy is useless


def prediction_markdown(prediction: Prediction) -> str:
    """Return what to expect of the next build."""
    return page(
        "## fedstep: what to expect",
        "\n".join(
            (
                f"- **Build time**: {_format_expected(prediction.duration)}",
                f"- **Failure risk**: {_risk(prediction.risk)}",
                f"- **Flaky tests**: {wording.describe_flaky_count(prediction)}",
                f"- **Based on**: {_basis(prediction)}",
            )
        ),
        *_risks(prediction.flaky),
        *_suspects(prediction.suspects),
        *_end(prediction.model, prediction.status, prediction.warnings),
    )


def triage_markdown(triage: TriageReport, host: CodeHost = NO_CODE_HOST) -> str:
    """Return each failure of a report and how likely it is flaky; `host` is where commits are shown."""
    return page(
        f"## fedstep: {_counts(triage)}",
        *_ruling(triage),
        *_incident(triage.incident, triage.incident_reason),
        *_not_run(triage.not_run),
        *_failures(triage, host),
        *_format_muted(triage.muted),
        details(wording.describe_reports(triage.reading), _format_dropped(triage.reading.dropped)),
        *_end(triage.model, triage.status, triage.warnings),
    )


def training_markdown(training: TrainReport, host: CodeHost = NO_CODE_HOST) -> str:
    """Return the build beside its prediction, its failures, what was learned and sent; `host` shows its commits."""
    return page(
        f"## fedstep: build {training.outcome.value}{_took(training.duration)}",
        *_incident(training.incident, training.incident_reason),
        *_not_run(training.not_run),
        *_failures(training, host),
        *_format_muted(training.muted),
        *_time_changes(training.changes, host),
        *_selection(training.selection),
        *_comparison(training.duration, training.expected),
        *(
            ["\n".join(f"- {prose(wording.describe_slow_test(slow))}" for slow in training.slower)]
            if training.slower
            else ()
        ),
        *_risks(training.flakiest),
        "### Learned and exchanged",
        f"Learned {wording.format_learning(training.examples, training.exchange)}.",
        *_exchange(training.exchange),
        details(wording.describe_reports(training.reading), _format_dropped(training.reading.dropped)),
        *_end(training.model, training.status, training.warnings),
    )


def plan_markdown(sentence: str, shards: Sequence[tuple[str, str, float]]) -> str:
    """Return what a CI run will run: a sentence, and number, tests and predicted seconds of each machine."""
    rows = [(machine, tests, span(seconds)) for machine, tests, seconds in shards[:MOST_TESTS]]
    blocks = [table(("machine", "tests", "expected"), rows)] if len(shards) > 1 else []
    return page("## fedstep: what to run", prose(sentence, MOST_OF_A_WARNING), *blocks, *more(len(shards) - MOST_TESTS))


def failure_table(groups: Sequence[FailureGroup], most: int, host: CodeHost = NO_CODE_HOST) -> Iterator[str]:
    """Yield blocks with at most `most` groups of failures, the most urgent first, and the number left out."""
    if groups:
        if most:
            reasons = [
                "<br>".join(map(_cause, wording.rank_failure_causes(group.first.reasons))) for group in groups[:most]
            ]
            failure_rows = [
                wording.AS_ABOVE if why and why == above else why
                for above, why in zip(["", *reasons], reasons, strict=False)
            ]
            rows = (_group(group, why, host) for group, why in zip(groups, failure_rows, strict=False))
            yield table(("verdict", "flaky", "test", "why"), rows)
        yield from more(len(groups) - most)


def _counts(triage: TriageReport) -> str:
    muted = f"{len(triage.muted):,} muted" if triage.muted else ""
    counts = wording.count_failures(triage.failures, incident=triage.incident)
    return ", ".join(filter(None, (counts, muted))) or wording.name_no_failure(triage.reading)


def _format_expected(expected: Interval | Unavailable) -> str:
    if isinstance(expected, Unavailable):
        return f"not known: {prose(expected.reason)}"
    jenkins = wording.format_jenkins(expected)
    beside = f" (Jenkins estimate: {jenkins})" if jenkins else ""
    took = span(expected.seconds)
    return f"{wording.format_interval(expected).replace(took, f'**{took}**', 1)}{beside}"


def _basis(prediction: Prediction) -> str:
    against = (prose(prediction.base),) if prediction.base else ()
    return "; ".join((*against, wording.format_knowledge(prediction)))


def _risk(risk: Risk | Unavailable) -> str:
    if isinstance(risk, Unavailable):
        return f"not known: {prose(risk.reason)}"
    return f"**{percent(risk.probability)}** likely to fail<br>{_because(risk.reasons, 'build')}".removesuffix("<br>")


def _took(duration: Duration | Unavailable) -> str:
    return "" if isinstance(duration, Unavailable) else f" after {wording.format_time(*duration)}"


def _comparison(duration: Duration | Unavailable, expected: Interval | Unavailable) -> Iterator[str]:
    missing = next((value for value in (duration, expected) if isinstance(value, Unavailable)), None)
    if isinstance(duration, Unavailable) or isinstance(expected, Unavailable):
        yield f"The build's time was not compared: {prose(missing.reason) if missing else ''}"
        return
    comparison = wording.compare_time(expected, duration.seconds)
    comparison = f"**{comparison}**" if comparison in ("below", "above") else comparison
    comparison_text = (
        f"{comparison} what was {wording.TOO_VARIABLE}" if wording.is_too_variable(expected) else comparison
    )
    cells = {
        "actual": span(duration.seconds),
        "expected": span(expected.seconds),
        "90 % interval": spread(expected.low, expected.high),
        "": comparison_text,
        "Jenkins estimate": wording.format_jenkins(expected),
    }
    present = {name: cell for name, cell in cells.items() if cell}
    yield table(tuple(present), (tuple(present.values()),))
    drawing = interval_drawing(expected, duration.seconds)
    points = "* expected and actual" if "*" in drawing else "o expected   x actual"
    yield f"```text\n{drawing}\n[ ] 90 % interval   {points}\n```"


def _ruling(triage: TriageReport) -> Iterator[str]:
    """Yield whether the build passes, what was forgiven, and a cause that is no test."""
    if triage.ruling:
        reasons = "; ".join(map(prose, triage.ruling.reasons)) or "no failure counts"
        yield f"**The build {'passes' if triage.ruling.passed else 'fails'}**: {reasons}"
        rows = [(code(failure.test, MOST_OF_A_NAME), prose(why)) for failure, why in triage.ruling.forgiven]
        if rows:
            body = "\n\n".join((table(("test", "why"), rows[:MOST_OTHERS]), *more(len(rows) - MOST_OTHERS)))
            yield details(f"Forgiven: {len(rows):,}", body)
    if triage.cause == "infrastructure":
        yield f"> **Infrastructure**, run the job again: {prose(triage.cause_rule)}"
    elif triage.cause in ("code", "unknown"):
        yield f"> Cause: {triage.cause}, {prose(triage.cause_rule)}"


def _incident(incident: bool, reason: str) -> Iterator[str]:
    if incident:
        yield f"> **Incident**, look for one cause, single tests are not judged: {prose(reason)}"


def _not_run(not_run: NotRun) -> Iterator[str]:
    description = wording.describe_not_run(not_run)
    if description:
        yield f"**Did not run**: {prose(description)}"


def _failures(report: TriageReport | TrainReport, host: CodeHost) -> Iterator[str]:
    if report.failures:
        yield f"### Failures: {wording.count_failures(report.failures, incident=report.incident)}"
        yield from failure_table(report.groups, MOST_FAILURES, host)


def _group(group: FailureGroup, reasons: str, host: CodeHost) -> Sequence[str]:
    failure = group.first
    verdict = {"regression": "**regression**", "flaky": "flaky"}.get(failure.verdict, "unsure")
    location = f"{failure.file}:{failure.line}" if failure.line else failure.file
    facts = [code(failure.test, MOST_OF_A_NAME), *(code(line) for line in failure.message.splitlines())]
    facts += [code(fact) for fact in (location, failure.last_touched) if fact]
    others = [_format_name(other, failure.verdict) for other in group.failures[1:MOST_MEMBERS]]
    if others:
        rest = len(group.failures) - 1 - len(others)
        facts += [f"also {', '.join(others)}{f' and {rest:,} more' if rest else ''}"]
    since = failure.since
    begun = "" if isinstance(since, Unavailable) else host.link(since.commit, since.commit_before)
    description = f"{wording.describe_group(group)}{link_to_changes(begun) if group.kind == 'failing' else ''}"
    if group.kind == "incident":
        return ("incident", "", "<br>".join(facts), description)
    why = "<br>".join(filter(None, (description, reasons)))
    return (verdict, percent(failure.flaky_probability), "<br>".join(facts), why)


def _format_name(failure: FailureVerdict, verdict: str) -> str:
    """Return the name of a failure, with its verdict where that of its group is another."""
    name = code(failure.test, MOST_OF_A_NAME)
    return name if failure.verdict == verdict else f"{visible(failure.verdict, 10)} {name}"


def _format_muted(muted: Sequence[MutedFailure]) -> Iterator[str]:
    if muted:
        rows = [
            (failure.verdict, percent(failure.flaky_probability), code(failure.test), code(owner), code(reason), until)
            for failure, owner, reason, until in muted[:MOST_OTHERS]
        ]
        body = table(("verdict", "flaky", "test", "owner", "reason", "until"), rows)
        yield details(f"Muted, not counted: {len(muted):,}", "\n\n".join((body, *more(len(muted) - MOST_OTHERS))))


def _selection(selection: SelectionReport | None) -> Iterator[str]:
    """Yield what a selection left out of this build, and what all of them saved and missed."""
    if selection:
        yield "### Tests that did not run"
        sentences = (wording.describe_left_out(selection.left_out), *wording.describe_selections(selection.tally))
        yield "\n".join(f"- {text}" for text in filter(None, sentences))


def _time_changes(changes: Sequence[TimeChange], host: CodeHost) -> Iterator[str]:
    if changes:
        yield "### Time changed for good"
        rows = [
            (
                "**slower**" if change.is_slower else "faster",
                code(wording.name_subject(change)),
                wording.describe_change(change) + link_to_changes(host.link(change.commit_after, change.commit_before)),
            )
            for change in changes[:MOST_TESTS]
        ]
        yield table(("", "test or job", "time"), rows)
        yield from more(len(changes) - MOST_TESTS)


def _risks(risks: Sequence[TestRisk]) -> Iterator[str]:
    if risks:
        yield "### Most likely to flake"
        yield table(("chance", "test", "last runs", "why"), map(_test, risks[:MOST_TESTS]))
        yield from more(len(risks) - MOST_TESTS)
        yield "<sub>`.` passed, `F` failed, `~` failed and passed, `-` skipped; + raises, − lowers</sub>"


def _suspects(suspects: Sequence[TestRisk]) -> Iterator[str]:
    """Yield a folded table of the tests that are only suspected; one without a reason is left out."""
    suspicions = [(risk, why) for risk in suspects if (why := wording.rank_suspicions(risk))]
    if suspicions:
        rows = [(percent(risk.probability), code(risk.test), "<br>".join(map(_cause, why))) for risk, why in suspicions]
        yield details(
            "Worth a look: never seen to flip, but like tests that do", table(("chance", "test", "why"), rows)
        )


def _test(risk: TestRisk) -> Sequence[str]:
    runs = f"`{wording.draw_sparkline(risk.last_outcomes)}`<br>" if risk.last_outcomes else ""
    past = "<br>".join(
        filter(
            None,
            (wording.describe_history(risk), prose(wording.describe_company((risk.test, *risk.also), risk.failures))),
        )
    )
    return (percent(risk.probability), code(risk.test), f"{runs}{past}", _because(risk.reasons))


def _because(reasons: Iterable[FeatureContribution], subject: str = "test") -> str:
    return "<br>".join(map(_cause, wording.rank_causes(reasons, subject)))


def _cause(cause: wording.ReasonPhrase) -> str:
    sign = cause.sign.replace("-", "−")
    return " ".join(filter(None, (sign, cause.phrase, code(cause.word) if cause.word else "")))


def _exchange(exchange: Exchange | Unavailable) -> Iterator[str]:
    if isinstance(exchange, Unavailable):
        yield f"Nothing was exchanged: {prose(exchange.reason)}"
        return
    steps = wording.format_exchange(exchange).replace("->", "→")
    yield f"{steps}, with {code(exchange.url)}. No name, source, log or branch is part of an update."
    updates = [(size(update.size), wording.format_batches(update.rows)) for update in exchange.sent[:MOST_OTHERS]]
    if updates:
        yield details("What was sent", table(("size", "learned from (outcomes, rounded down)"), updates))


def _format_dropped(dropped: Sequence[Dropped]) -> str:
    if not dropped:
        return "All of it was used as it stood."
    first = dropped[:MOST_OTHERS]
    rows = [("repaired" if drop.kept else "dropped", code(drop.source), code(drop.reason)) for drop in first]
    return "\n\n".join((table(("", "where", "why"), rows), *more(len(dropped) - MOST_OTHERS)))


def _end(model: ModelUsed, status: str, warnings: Sequence[str]) -> Iterator[str]:
    if warnings:
        yield "\n".join(f"- ⚠ {prose(warning, MOST_OF_A_WARNING)}" for warning in warnings[:MOST_OTHERS])
        yield from more(len(warnings) - MOST_OTHERS)
    yield f"<sub>status {status}; {wording.format_model(model)}{f' from {code(model.url)}' if model.url else ''}</sub>"


MOST_CHARACTERS = 65_536  # GitHub refuses a longer comment
_MOST_FAILURES = (20, 10, 5, 2, 0)


def mark(name: str) -> str:
    """Return the hidden first line of the comments of one job; `name` is its hash, in hex."""
    return f"<!-- fedstep {name} -->"


def is_worth_a_comment(finding: TriageReport | TrainReport) -> bool:
    """Return whether the result deserves a first comment."""
    return bool(finding.failures) or finding.incident


def comment_markdown(
    finding: TriageReport | TrainReport, first_line: str, job: str, run_url: str, host: CodeHost = NO_CODE_HOST
) -> str:
    """Return the failures and time of a job, at most 65,536 characters, below the mark. `run_url` is the CI's."""
    written = (page(*_blocks(finding, first_line, job, run_url, most, host)) for most in _MOST_FAILURES)
    return next(text for text in written if len(text) <= MOST_CHARACTERS)


def _blocks(
    finding: TriageReport | TrainReport, first_line: str, job: str, run_url: str, most: int, host: CodeHost
) -> Iterator[str]:
    counts = wording.count_failures(finding.failures, incident=finding.incident) or wording.name_no_failure(
        finding.reading
    )
    yield f"{first_line}\n### fedstep: {counts} in {code(job)}"
    if finding.incident:
        yield f"**Incident**, look for one cause, single tests are not judged: {prose(finding.incident_reason)}"
    yield from failure_table(finding.groups, most, host)
    if isinstance(finding, TrainReport):
        yield from _time(finding)
    summary = f"[summary of the run]({run_url}); " if run_url else ""
    yield f"<sub>{summary}status {finding.status}; {wording.format_model(finding.model)}</sub>"


def _time(training: TrainReport) -> Iterator[str]:
    if not isinstance(training.duration, Unavailable) and not isinstance(training.expected, Unavailable):
        yield f"It took {span(training.duration.seconds)}; expected {wording.format_interval(training.expected)}."
