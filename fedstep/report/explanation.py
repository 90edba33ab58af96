"""The explanation of one test: its values, and its text for a terminal. The HTML page is in html.py."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import exp, log

from fedstep.report.text import WIDTH, join_lines, labelled_lines, pad
from fedstep.report.units import columns, count, percent, span, visible
from fedstep.report.wording import draw_sparkline, format_model, phrase_feature
from fedstep.results import ModelUsed
from fedstep.types import Unavailable

METALS = {"g": "gold", "s": "silver"}


@dataclass(frozen=True, slots=True)
class SeenRun:
    """One run of the test, as recorded in the log."""

    finished_at: float  # seconds since the epoch
    outcome: str  # a letter of `Outcome`
    seconds: float  # NO_SECONDS where no report gave a time
    metal: str = "-"  # g: revealed as a gold flip, s: silver, -: neither
    branch: str = ""
    commit: str = ""
    failure_type: str = ""
    incident: bool = False  # it failed with so many others that it is no evidence


@dataclass(frozen=True, slots=True)
class ExplainedFeature:
    """What one feature adds to the margin: by the shared weights, and by this project's own."""

    feature: str
    value: str
    shared: float
    local: float

    @property
    def total(self) -> float:
        """Return the sum of both, in log-odds."""
        return self.shared + self.local


@dataclass(frozen=True, slots=True)
class WhatIf:
    """A single change, the probability that the model would give then, and whether it would be likely to flake."""

    says: str
    probability: float
    named: bool


@dataclass(frozen=True, slots=True)
class TestExplanation:
    """One test: its past, its probability to flake within its next runs, its features, and what would change it.

    `raw` is the probability before calibration: the sigmoid of the margin, which is the sum of all contributions.
    """

    __test__ = False  # pytest: a value, not a test class

    test: str
    probability: float
    raw: float
    threshold: float  # from this probability on a test is called likely to flake
    horizon: int  # runs
    recently: bool  # False: it did not run lately and is not named, whatever its probability
    slope: float
    offset: float
    contributions: tuple[ExplainedFeature, ...]  # of shared features, the largest first
    private: tuple[ExplainedFeature, ...]  # of the test itself and its class: never shared
    changes: tuple[WhatIf, ...]
    runs: tuple[SeenRun, ...]  # oldest first, as far as the log has them
    runs_known: int
    failures: int
    flips: int
    typical_seconds: float | Unavailable
    model: ModelUsed
    warnings: tuple[str, ...] = ()
    former: str = ""  # its id before a rename: older runs have that

    @property
    def named(self) -> bool:
        """Return whether the test is likely to flake; `predict` names the ten most likely."""
        return self.recently and self.probability >= self.threshold


MOST_FEATURES = 15
MOST_FAILURES = 8
SMALLEST = 0.05  # log-odds that have a line of their own: one percent point at most
NO_CHANGE = "None of these alone changes whether it is likely to flake."
LEGEND = "(. passed, F failed, ~ failed and passed, - skipped; g gold flip, s silver flip)"
COUNTED = {"c": "failed, reruns too", "f": "failed", "k": "failed and passed"}


def explanation_text(explained: TestExplanation) -> str:
    """Return the explanation as text; lines end with a newline."""
    return join_lines(
        (
            *labelled_lines("Test", visible(explained.test, 240)),
            *(labelled_lines("Formerly", visible(explained.former, 240)) if explained.former else ()),
            *labelled_lines("Likely flaky", describe_verdict(explained)),
            *labelled_lines("Past", describe_past(explained)),
            *_strip(explained.runs),
            *_failures(explained.runs),
            *_contributions(explained),
            *_text_changes(explained),
            "",
            *labelled_lines("Model", format_model(explained.model)),
        )
    )


def describe_verdict(explained: TestExplanation) -> str:
    """Return the probability before and after calibration, and the verdict that follows."""
    chance = f"{percent(explained.probability)} that it flips in its next {explained.horizon} runs"
    raw = f"{percent(explained.raw)} before its calibration and bounds"
    if not explained.recently:
        return f"{chance}; {raw}; predict leaves it out, because it did not run lately"
    likely = f"{'likely' if explained.named else 'not likely'} to flake, which begins at {percent(explained.threshold)}"
    return f"{chance}; {raw}. It is {likely}"


def describe_past(explained: TestExplanation) -> str:
    """Return how often the test ran, failed and flipped, and how long it takes."""
    seconds = explained.typical_seconds
    takes = seconds.reason if isinstance(seconds, Unavailable) else f"takes about {span(seconds)}"
    runs = f"{count(explained.runs_known, 'run')}, {count(explained.failures, 'failure')}"
    return f"{runs}, {count(explained.flips, 'flip')}; {takes}"


def find_phrase(contribution: ExplainedFeature) -> str:
    """Return the feature in words, or "" where its name is enough."""
    if contribution.feature == "bias":
        return "a usual test, of all projects"
    name = contribution.feature if "=" in contribution.feature else f"{contribution.feature}={contribution.value}"
    phrase, word = phrase_feature(name, raises=contribution.total >= 0)
    return f"{phrase} {word}".strip() if phrase else ""


def describe_feature(contribution: ExplainedFeature) -> str:
    """Return the feature in words and by its name, or by its name and value."""
    phrase = find_phrase(contribution)
    value = f" {contribution.value}" if contribution.value != "yes" else ""
    return f"{phrase} ({contribution.feature})" if phrase else f"{contribution.feature}{value}"


def is_unchanged(explained: TestExplanation) -> bool:
    """Return whether no single change that was tried changes the verdict."""
    return all(change.named == explained.named for change in explained.changes)


def _strip(runs: Sequence[SeenRun]) -> Iterator[str]:
    if runs:
        yield from labelled_lines(
            "Runs", f"{draw_sparkline(''.join(run.outcome for run in runs), len(runs))}  oldest first"
        )
        metals = "".join(run.metal if run.metal in METALS else " " for run in runs)
        if metals.strip():
            yield f"{'':<14}{metals.rstrip()}"
        yield from labelled_lines("", LEGEND)


def _failures(runs: Sequence[SeenRun]) -> Iterator[str]:
    failed = [run for run in reversed(runs) if run.outcome in COUNTED]
    if failed:
        yield from ("", "Failures, newest first (UTC)")
    for run in failed[:MOST_FAILURES]:
        when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(run.finished_at))
        metal = "incident" if run.incident else METALS.get(run.metal, "")
        commit = f"{visible(run.commit[:7], 7)} {visible(run.branch, 16)}".strip()
        facts = f"{COUNTED[run.outcome]:<21}{metal:<10}{pad(commit, 26)}"
        yield f"  {when}  {facts}{visible(run.failure_type.rpartition('.')[2], WIDTH - 20 - columns(facts))}"
    if len(failed) > MOST_FAILURES:
        yield f"  and {len(failed) - MOST_FAILURES:,} more"


def _contributions(explained: TestExplanation) -> Iterator[str]:
    yield from (
        "",
        "What raises (+) and lowers (-) it against a usual test, in log-odds: shared, learned here",
    )
    yield f"  {'sum':>7}  {'shared':>7}  {'here':>7}  feature"
    rows = (*explained.contributions, *explained.private)
    ranked = sorted((term for term in rows if term.total), key=lambda term: -abs(term.total))
    largest = [term for term in ranked[:MOST_FEATURES] if abs(term.total) >= SMALLEST]
    for term in largest:
        yield f"  {_line(term, term in explained.private)}"
    if ranked[len(largest) :]:
        rest = sum(term.total for term in ranked[len(largest) :])
        yield f"  {rest:>+7.2f}  {'':>16}  {count(len(ranked) - len(largest), 'other')} together"
    total = sum(term.total for term in rows)
    yield f"  {total:>+7.2f}  {'':>16}  all together: {percent(explained.raw)}"
    yield from _steps(explained, total)


def _steps(explained: TestExplanation, total: float) -> Iterator[str]:
    """Yield what calibration and the bounds make of the sum, each where it changes something."""
    scaled = explained.slope * total + explained.offset
    if (explained.slope, explained.offset) != (1.0, 0.0):
        step = f"calibration makes it {explained.slope:.2f} × {total:+.2f} {explained.offset:+.2f}"
        yield f"  {scaled:>+7.2f}  {'':>16}  {step}: {percent(1 / (1 + exp(-scaled)))}"
    if 0.0 < explained.probability < 1.0:
        bounded = log(explained.probability / (1.0 - explained.probability))
        if abs(bounded - scaled) >= SMALLEST:
            sentence = f"its past counts in full, the rest within bounds: {percent(explained.probability)}"
            yield f"  {bounded:>+7.2f}  {'':>16}  {sentence}"


def _line(term: ExplainedFeature, private: bool) -> str:
    numbers = f"{term.total:>+7.2f}  {'' if private else f'{term.shared:+.2f}':>7}  {term.local:>+7.2f}"
    says = f"{term.feature}, known here alone" if private else describe_feature(term)
    return f"{numbers}  {visible(says, WIDTH - 29)}"


def _text_changes(explained: TestExplanation) -> Iterable[str]:
    if not explained.changes:
        return ()
    lines = (_change(change, explained.named) for change in explained.changes)
    none = (f"  {NO_CHANGE}",) if is_unchanged(explained) else ()
    return ("", "What would change it, all else as it is", *lines, *none)


def _change(change: WhatIf, named: bool) -> str:
    verdict = "" if change.named == named else "  then likely" if change.named else "  no longer likely"
    return f"  {percent(change.probability):>5}  {visible(change.says, 74)}{verdict}"
