"""An explanation for a terminal: the verdict, the past, what speaks for and against it, what would change it."""

import time
from collections.abc import Iterable, Iterator, Sequence

from fedstep.build.record import Absent
from fedstep.model.linear import Reason
from fedstep.report.escape import columns, visible
from fedstep.report.explained import METALS, Contribution, Explained, SeenRun, WhatIf
from fedstep.report.lines import WIDTH, padded, page, row
from fedstep.report.reasons import causes
from fedstep.report.units import count, percent, span
from fedstep.report.wording import drawn, model_name

__all__ = [
    "COUNTED",
    "NO_CHANGE",
    "SMALLEST",
    "explanation_text",
    "feature_words",
    "past_words",
    "phrase_of",
    "turns_nothing",
    "verdict_words",
]

MOST_FEATURES = 15
MOST_FAILURES = 8
SMALLEST = 0.005  # log-odds that are shown
NO_CHANGE = "None of these alone changes whether it is likely to flake."
LEGEND = "(. passed, F failed, ~ failed and passed, - skipped; g gold flip, s silver flip)"
COUNTED = {"c": "failed, reruns too", "f": "failed", "k": "failed and passed"}


def explanation_text(explained: Explained) -> str:
    """The explanation; lines end with a newline."""
    return page(
        (
            *row("Test", visible(explained.test, 240)),
            *(row("Formerly", visible(explained.former, 240)) if explained.former else ()),
            *row("Likely flaky", verdict_words(explained)),
            *row("Past", past_words(explained)),
            *_strip(explained.runs),
            *_failures(explained.runs),
            *_contributions(explained),
            *_changes(explained),
            "",
            *row("Model", model_name(explained.model)),
        )
    )


def verdict_words(explained: Explained) -> str:
    """The probability, before and after calibration, and what follows from it."""
    chance = f"{percent(explained.probability)} that it flips in its next {explained.horizon} runs"
    raw = f"{percent(explained.raw)} before this project's calibration"
    if not explained.recently:
        return f"{chance}; {raw}; predict leaves it out, because it did not run lately"
    likely = f"{'likely' if explained.named else 'not likely'} to flake, which begins at {percent(explained.threshold)}"
    return f"{chance}; {raw}. It is {likely}"


def past_words(explained: Explained) -> str:
    """How often it ran, failed and flipped, and how long it takes."""
    seconds = explained.typical_seconds
    takes = seconds.reason if isinstance(seconds, Absent) else f"usually takes {span(seconds)}"
    runs = f"{count(explained.runs_known, 'run')}, {count(explained.failures, 'failure')}"
    return f"{runs}, {count(explained.flips, 'flip')}; {takes}"


def phrase_of(contribution: Contribution) -> str:
    """The feature in words, "" where its name says all."""
    if contribution.feature == "bias":
        return "every test"
    name = contribution.feature if "=" in contribution.feature else f"{contribution.feature}={contribution.value}"
    found = causes((Reason(name, 1.0),))
    return f"{found[0].phrase} {found[0].word}".strip() if found and found[0].phrase else ""


def feature_words(contribution: Contribution) -> str:
    """The feature in words and by its name, or by its name and value."""
    phrase = phrase_of(contribution)
    value = f" {contribution.value}" if contribution.value != "yes" else ""
    return f"{phrase} ({contribution.feature})" if phrase else f"{contribution.feature}{value}"


def turns_nothing(explained: Explained) -> bool:
    """Whether no single change that was tried changes the verdict."""
    return all(one.named == explained.named for one in explained.changes)


def _strip(runs: Sequence[SeenRun]) -> Iterator[str]:
    if runs:
        yield from row("Runs", f"{drawn(''.join(run.outcome for run in runs), len(runs))}  oldest first")
        metals = "".join(run.metal if run.metal in METALS else " " for run in runs)
        if metals.strip():
            yield f"{'':<14}{metals.rstrip()}"
        yield from row("", LEGEND)


def _failures(runs: Sequence[SeenRun]) -> Iterator[str]:
    failed = [run for run in reversed(runs) if run.outcome in COUNTED]
    if failed:
        yield from ("", "Failures, newest first (UTC)")
    for run in failed[:MOST_FAILURES]:
        when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(run.finished_at))
        metal = "incident" if run.incident else METALS.get(run.metal, "")
        place = f"{visible(run.commit[:7], 7)} {visible(run.branch, 16)}".strip()
        facts = f"{COUNTED[run.outcome]:<21}{metal:<10}{padded(place, 26)}"
        yield f"  {when}  {facts}{visible(run.failure_type.rpartition('.')[2], WIDTH - 20 - columns(facts))}"
    if len(failed) > MOST_FAILURES:
        yield f"  and {len(failed) - MOST_FAILURES:,} more"


def _contributions(explained: Explained) -> Iterator[str]:
    yield from ("", "What raises (+) and lowers (-) it, in log-odds: shared by all projects, learned here")
    yield f"  {'sum':>7}  {'shared':>7}  {'here':>7}  feature"
    rows = (*explained.contributions, *explained.private)
    shown = sorted((one for one in rows if abs(one.total) >= SMALLEST), key=lambda one: -abs(one.total))
    for one in shown[:MOST_FEATURES]:
        yield f"  {_line(one, one in explained.private)}"
    rest = sum(one.total for one in shown[MOST_FEATURES:])
    if shown[MOST_FEATURES:]:
        yield f"  {rest:>+7.2f}  {'':>16}  {len(shown) - MOST_FEATURES} others together"
    total = sum(one.total for one in rows)
    yield f"  {total:>+7.2f}  {'':>16}  all together: {percent(explained.raw)}"
    scaled = f"calibration makes it {explained.slope:.2f} × {total:+.2f} {explained.offset:+.2f}"
    yield f"  {explained.slope * total + explained.offset:>+7.2f}  {'':>16}  {scaled}: {percent(explained.probability)}"


def _line(one: Contribution, private: bool) -> str:
    numbers = f"{one.total:>+7.2f}  {'' if private else f'{one.shared:+.2f}':>7}  {one.local:>+7.2f}"
    return f"{numbers}  {visible(f'{one.feature}, known here alone' if private else feature_words(one), WIDTH - 29)}"


def _changes(explained: Explained) -> Iterable[str]:
    if not explained.changes:
        return ()
    lines = (_change(one, explained.named) for one in explained.changes)
    none = (f"  {NO_CHANGE}",) if turns_nothing(explained) else ()
    return ("", "What would change it, all else as it is", *lines, *none)


def _change(one: WhatIf, named: bool) -> str:
    verdict = "" if one.named == named else "  then likely" if one.named else "  no longer likely"
    return f"  {percent(one.probability):>5}  {visible(one.says, 74)}{verdict}"
