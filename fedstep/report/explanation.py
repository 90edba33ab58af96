"""An explanation as one page: self-contained, without scripts, for light, dark and narrow screens."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isnan

from fedstep.report.charts import TimedBuild, strip
from fedstep.report.html import cell, meter, name, number, table, table_row, text, tile
from fedstep.report.reasons import causes
from fedstep.report.text import STYLE, WIDTH, model_name, padded, page, row, sparkline
from fedstep.report.units import columns, count, percent, span, visible
from fedstep.results import FeatureContribution, ModelUsed
from fedstep.types import BuildOutcome, Unavailable

METALS = {"g": "gold", "s": "silver"}


@dataclass(frozen=True, slots=True)
class SeenRun:
    """One run of the test, as the log has it."""

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
    """What one feature adds to the margin: by the shared weights, and by what this project learned on top."""

    feature: str
    value: str
    shared: float
    local: float

    @property
    def total(self) -> float:
        """Both together, in log-odds."""
        return self.shared + self.local


@dataclass(frozen=True, slots=True)
class WhatIf:
    """A single change, the probability that the model would give then, and whether it would be likely to flake."""

    says: str
    probability: float
    named: bool


@dataclass(frozen=True, slots=True)
class TestExplanation:
    """One test: its past, its probability to flake within its next runs, where that comes from, what would change it.

    `raw` is the probability before calibration: the sigmoid of the margin, which is the sum of all contributions.
    """

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
        """Whether it is likely to flake: `predict` names the ten that are most so."""
        return self.recently and self.probability >= self.threshold


MOST_FEATURES = 15
MOST_FAILURES = 8
SMALLEST = 0.005  # log-odds that are shown
NO_CHANGE = "None of these alone changes whether it is likely to flake."
LEGEND = "(. passed, F failed, ~ failed and passed, - skipped; g gold flip, s silver flip)"
COUNTED = {"c": "failed, reruns too", "f": "failed", "k": "failed and passed"}


def explanation_text(explained: TestExplanation) -> str:
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
            *_text_changes(explained),
            "",
            *row("Model", model_name(explained.model)),
        )
    )


def verdict_words(explained: TestExplanation) -> str:
    """The probability, before and after calibration, and what follows from it."""
    chance = f"{percent(explained.probability)} that it flips in its next {explained.horizon} runs"
    raw = f"{percent(explained.raw)} before this project's calibration"
    if not explained.recently:
        return f"{chance}; {raw}; predict leaves it out, because it did not run lately"
    likely = f"{'likely' if explained.named else 'not likely'} to flake, which begins at {percent(explained.threshold)}"
    return f"{chance}; {raw}. It is {likely}"


def past_words(explained: TestExplanation) -> str:
    """How often it ran, failed and flipped, and how long it takes."""
    seconds = explained.typical_seconds
    takes = seconds.reason if isinstance(seconds, Unavailable) else f"usually takes {span(seconds)}"
    runs = f"{count(explained.runs_known, 'run')}, {count(explained.failures, 'failure')}"
    return f"{runs}, {count(explained.flips, 'flip')}; {takes}"


def phrase_of(contribution: ExplainedFeature) -> str:
    """The feature in words, "" where its name says all."""
    if contribution.feature == "bias":
        return "every test"
    name = contribution.feature if "=" in contribution.feature else f"{contribution.feature}={contribution.value}"
    found = causes((FeatureContribution(name, 1.0),))
    return f"{found[0].phrase} {found[0].word}".strip() if found and found[0].phrase else ""


def feature_words(contribution: ExplainedFeature) -> str:
    """The feature in words and by its name, or by its name and value."""
    phrase = phrase_of(contribution)
    value = f" {contribution.value}" if contribution.value != "yes" else ""
    return f"{phrase} ({contribution.feature})" if phrase else f"{contribution.feature}{value}"


def turns_nothing(explained: TestExplanation) -> bool:
    """Whether no single change that was tried changes the verdict."""
    return all(one.named == explained.named for one in explained.changes)


def _strip(runs: Sequence[SeenRun]) -> Iterator[str]:
    if runs:
        yield from row("Runs", f"{sparkline(''.join(run.outcome for run in runs), len(runs))}  oldest first")
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


def _contributions(explained: TestExplanation) -> Iterator[str]:
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


def _line(one: ExplainedFeature, private: bool) -> str:
    numbers = f"{one.total:>+7.2f}  {'' if private else f'{one.shared:+.2f}':>7}  {one.local:>+7.2f}"
    return f"{numbers}  {visible(f'{one.feature}, known here alone' if private else feature_words(one), WIDTH - 29)}"


def _text_changes(explained: TestExplanation) -> Iterable[str]:
    if not explained.changes:
        return ()
    lines = (_change(one, explained.named) for one in explained.changes)
    none = (f"  {NO_CHANGE}",) if turns_nothing(explained) else ()
    return ("", "What would change it, all else as it is", *lines, *none)


def _change(one: WhatIf, named: bool) -> str:
    verdict = "" if one.named == named else "  then likely" if one.named else "  no longer likely"
    return f"  {percent(one.probability):>5}  {visible(one.says, 74)}{verdict}"


HTML_FAILURES = 20
CELL, TALL = 16, 34  # of the strip of outcomes, in its own units
FEWEST = 20  # places in the strip: a few runs are no wider than among many
KINDS = {"p": "passed", "f": "failed", "c": "failed", "k": "flaked", "s": "skipped"}
WORDS = {**COUNTED, "p": "passed", "s": "skipped"}
KEYS = (
    ("passed", "passed"),
    ("failed", "failed"),
    ("flaked", "failed and passed in one build"),
    ("skipped", "skipped"),
    ("gold", "gold flip: both outcomes on one commit"),
    ("silver", "silver flip: more speaks for a flake"),
)
OWN_STYLE = """
.outcomes { width: calc(100% - 84px); height: 48px; display: block; margin: 10px 0 0 84px; }
.outcomes rect { stroke: none; } .outcomes .passed { fill: var(--bar); stroke: none; }
.outcomes .failed { fill: var(--red); stroke: none; } .outcomes .skipped { fill: var(--rule); }
.outcomes .flaked { fill: var(--blue); } .outcomes .gold { fill: #c99700; } .outcomes .silver { fill: var(--grey); }
.keys { display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 0; margin: 10px 0 0; font-size: 14px; }
.keys li { list-style: none; color: var(--soft); display: flex; align-items: center; gap: 7px; }
.keys svg { width: 14px; height: 14px; margin: 0; } table.failures { min-width: 700px; }
h1 code { font-size: 22px; font-weight: 600; }
.wide { min-width: 220px; } .failures td:first-child { white-space: nowrap; }
@media (max-width: 640px) { .outcomes { width: calc(100% - 72px); margin-left: 72px; } }
"""


def explanation_html(explained: TestExplanation) -> str:
    """A whole HTML document."""
    title = f"fedstep: why {text(explained.test, 120)} is {'' if explained.named else 'not '}likely to flake"
    blocks = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title><style>{STYLE}{OWN_STYLE}</style></head><body><main>",
        f"<h1>{name(explained.test)}</h1>",
        *([f"<p>Formerly {name(explained.former)}.</p>"] if explained.former else ()),
        f'<p class="lead">{text(verdict_words(explained), 400)}.</p>',
        *_tiles(explained),
        *_past(explained.runs),
        *_features(explained),
        *_html_changes(explained),
        f"<footer><p>{text(model_name(explained.model))}. {text(past_words(explained), 300)}.</p></footer>",
        "</main></body></html>\n",
    )
    return "\n".join(blocks)


def _tiles(explained: TestExplanation) -> Iterable[str]:
    after = f"to flip in its next {explained.horizon} runs; {percent(explained.threshold)} or more is likely"
    tiles = (
        tile(percent(explained.probability), after),
        tile(percent(explained.raw), "before this project's calibration"),
        tile(f"{explained.failures:,} of {explained.runs_known:,}", "runs failed"),
        tile(f"{explained.flips:,}", "failures are known to be flaky: flips"),
    )
    yield f'<div class="tiles">{"".join(tiles)}</div>'


def _past(runs: Sequence[SeenRun]) -> Iterable[str]:
    if not runs:
        return
    yield f"<h2>Its last {len(runs)} runs</h2>"
    yield f'<section class="card">{_outcomes(runs)}{_keys(runs)}{_times(runs)}</section>'
    failed = [run for run in reversed(runs) if run.outcome in COUNTED]
    if failed:
        header = ("when (UTC)", "how", "flip", "commit", "branch", "with")
        rows = map(_failure, failed[:HTML_FAILURES])
        more = f'<p class="note">and {len(failed) - HTML_FAILURES:,} more</p>' if len(failed) > HTML_FAILURES else ""
        yield f'<section class="card"><h3>Failures, newest first</h3>{table(header, rows, "failures")}{more}</section>'


def _outcomes(runs: Sequence[SeenRun]) -> str:
    """One bar a run, oldest first; a mark below it for a flip."""
    bars = "".join(_bar(place, run) for place, run in enumerate(runs))
    box = f'viewBox="0 0 {CELL * max(len(runs), FEWEST)} {TALL}" preserveAspectRatio="none"'
    return f'<svg class="outcomes" {box} role="img" aria-label="outcomes, oldest first">{bars}</svg>'


def _bar(place: int, run: SeenRun) -> str:
    left = CELL * place
    metal = METALS.get(run.metal, "")
    flip = f'<rect class="{metal}" x="{left + 3}" y="27" width="{CELL - 6}" height="6" rx="3"/>' if metal else ""
    kind = KINDS.get(run.outcome, "skipped")
    bar = f'<rect class="{kind}" x="{left + 1}" y="0" width="{CELL - 2}" height="24" rx="2"/>'
    says = f"{_when(run)}: {WORDS.get(run.outcome, 'unknown')}{f', {metal} flip' if metal else ''}"
    return f"<g><title>{says}</title>{bar}{flip}</g>"


def _keys(runs: Sequence[SeenRun]) -> str:
    """What the colours mean, of those that are there."""
    there = {KINDS.get(run.outcome, "skipped") for run in runs} | {METALS.get(run.metal, "") for run in runs}
    drawing = '<svg class="outcomes" aria-hidden="true"><rect class="{}" width="14" height="14" rx="2"/></svg>'
    items = (f"<li>{drawing.format(kind)}{says}</li>" for kind, says in KEYS if kind in there)
    return f'<ul class="keys">{"".join(items)}</ul>'


def _times(runs: Sequence[SeenRun]) -> str:
    builds = tuple(
        TimedBuild(
            place + 1,
            run.seconds,
            Unavailable("of a test"),
            BuildOutcome.FAILED if run.outcome in COUNTED else BuildOutcome.PASSED,
        )
        for place, run in enumerate(runs)
        if not isnan(run.seconds)
    )
    if not builds:
        return '<p class="note">No report gave a time.</p>'
    plot = strip(builds).replace("<span>build ", "<span>run ").replace('"build times"', '"times of the test"')
    return f"<h4>How long it took</h4><figure>{plot}</figure>"


def _failure(run: SeenRun) -> str:
    metal = "incident" if run.incident else METALS.get(run.metal, "")
    return table_row(
        cell(_when(run)),
        cell(COUNTED[run.outcome]),
        cell(metal),
        cell(f"<code>{text(run.commit[:7])}</code>" if run.commit else ""),
        cell(name(run.branch) if run.branch else ""),
        cell(name(run.failure_type) if run.failure_type else ""),
    )


def _when(run: SeenRun) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(run.finished_at))


def _features(explained: TestExplanation) -> Iterable[str]:
    every = sorted((*explained.contributions, *explained.private), key=lambda one: -abs(one.total))
    most = max((abs(one.total) for one in every), default=0.0) or 1.0
    lines = [_contribution(one, one in explained.private, most) for one in every if abs(one.total) >= SMALLEST]
    total = sum(one.total for one in every)
    yield (
        "<h2>Where the probability comes from</h2><p>Each feature adds to the log-odds: by the weights that all "
        "projects share, and by what this project learned on top. What is known here alone is never sent.</p>"
    )
    header = ("feature", ">shared", ">here", ">sum", "")
    yield f'<section class="card">{table(header, lines)}'
    scaled = f"{explained.slope:.2f} × {total:+.2f} {explained.offset:+.2f}"
    yield (
        f'<p class="note">Together {total:+.2f}, which is {percent(explained.raw)}; calibration makes it {scaled}, '
        f"which is {percent(explained.probability)}.</p></section>"
    )


def _contribution(one: ExplainedFeature, private: bool, most: float) -> str:
    says = f"{one.feature}, known here alone" if private else feature_words(one)
    return table_row(
        cell(text(says, 200), "wide"),
        number("" if private else f"{one.shared:+.2f}"),
        number(f"{one.local:+.2f}"),
        number(f"<b>{one.total:+.2f}</b>"),
        cell(meter(abs(one.total) / most, "" if one.total > 0 else "grey")),
    )


def _html_changes(explained: TestExplanation) -> Iterable[str]:
    if not explained.changes:
        return
    rows = (
        table_row(
            number(percent(one.probability) + meter(one.probability)),
            cell(text(one.says)),
            cell(
                "" if one.named == explained.named else "then likely" if one.named else "no longer likely",
                "bad" * one.named,
            ),
        )
        for one in explained.changes
    )
    yield "<h2>What would change it</h2><p>One change at a time, all else as it is, asked of the same model.</p>"
    note = f'<p class="note">{NO_CHANGE}</p>' if turns_nothing(explained) else ""
    yield f'<section class="card">{table((">chance", "change", "verdict"), rows)}{note}</section>'
