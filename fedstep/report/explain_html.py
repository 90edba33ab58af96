"""An explanation as one page: self-contained, without scripts, for light, dark and narrow screens."""

import time
from collections.abc import Iterable, Sequence
from math import isnan

from fedstep.build.record import Absent, BuildOutcome
from fedstep.report.chart import strip
from fedstep.report.demo import DemoBuild
from fedstep.report.explain_text import (
    COUNTED,
    NO_CHANGE,
    SMALLEST,
    feature_words,
    past_words,
    turns_nothing,
    verdict_words,
)
from fedstep.report.explained import METALS, Contribution, Explained, SeenRun
from fedstep.report.html_parts import cell, meter, name, number, row, table, text, tile
from fedstep.report.style import STYLE
from fedstep.report.units import percent
from fedstep.report.wording import model_name

__all__ = ["explanation_html"]

MOST_FAILURES = 20
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


def explanation_html(explained: Explained) -> str:
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
        *_changes(explained),
        f"<footer><p>{text(model_name(explained.model))}. {text(past_words(explained), 300)}.</p></footer>",
        "</main></body></html>\n",
    )
    return "\n".join(blocks)


def _tiles(explained: Explained) -> Iterable[str]:
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
        rows = map(_failure, failed[:MOST_FAILURES])
        more = f'<p class="note">and {len(failed) - MOST_FAILURES:,} more</p>' if len(failed) > MOST_FAILURES else ""
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
        DemoBuild(
            place + 1,
            run.seconds,
            Absent("of a test"),
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
    return row(
        cell(_when(run)),
        cell(COUNTED[run.outcome]),
        cell(metal),
        cell(f"<code>{text(run.commit[:7])}</code>" if run.commit else ""),
        cell(name(run.branch) if run.branch else ""),
        cell(name(run.failure_type) if run.failure_type else ""),
    )


def _when(run: SeenRun) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(run.finished_at))


def _features(explained: Explained) -> Iterable[str]:
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


def _contribution(one: Contribution, private: bool, most: float) -> str:
    says = f"{one.feature}, known here alone" if private else feature_words(one)
    return row(
        cell(text(says, 200), "wide"),
        number("" if private else f"{one.shared:+.2f}"),
        number(f"{one.local:+.2f}"),
        number(f"<b>{one.total:+.2f}</b>"),
        cell(meter(abs(one.total) / most, "" if one.total > 0 else "grey")),
    )


def _changes(explained: Explained) -> Iterable[str]:
    if not explained.changes:
        return
    rows = (
        row(
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
