"""Render HTML pages from Jinja2 templates: the page that explains a test, and what several pages draw.

Pages are self-contained: one style sheet, no scripts, nothing fetched, for light, dark and narrow screens. Jinja2
escapes every value. Only commands that write a page import this module: Jinja2 takes 70 ms to load.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby, zip_longest
from math import isfinite, isnan
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from fedstep.ingest.code_host import NO_CODE_HOST, CodeHost
from fedstep.report.explanation import (
    COUNTED,
    METALS,
    NO_CHANGE,
    SMALLEST,
    ExplainedFeature,
    SeenRun,
    TestExplanation,
    describe_feature,
    describe_past,
    describe_verdict,
    is_unchanged,
)
from fedstep.report.units import count, percent, size, span, spread, visible
from fedstep.report.wording import describe_history, draw_sparkline, format_model, rank_causes
from fedstep.results import Interval
from fedstep.types import BuildOutcome, Unavailable

TEMPLATES = Path(__file__).parent / "templates"


def render_page(template: str, folder: Path = TEMPLATES, **values: object) -> str:
    """Return the HTML of a template in `folder`, which may extend those of fedstep/report/templates."""
    return _environment(folder).get_template(template).render(values)


@cache
def _environment(folder: Path) -> Environment:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader([folder, TEMPLATES]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    formats = (breakable_code, count, describe_history, draw_sparkline, percent, size, span, spread, visible)
    environment.filters |= {function.__name__: function for function in formats}
    environment.filters |= {"causes": rank_causes, "meter_width": meter_width}
    environment.tests["unavailable"] = lambda value: isinstance(value, Unavailable)
    return environment


def breakable_code(name: str) -> Markup:
    """Return a name from outside as code with a possible line break after each separator and before each capital.

    >>> breakable_code("a.B#readsAll")
    Markup('<code>a.<wbr>B#<wbr>reads<wbr>All</code>')
    """
    text = visible(name)
    breaks = (
        letter in "./#:_" or (letter.islower() and following.isupper())
        for letter, following in zip_longest(text, text[1:], fillvalue="")
    )
    pieces = (escape(letter) + Markup("<wbr>") * is_break for letter, is_break in zip(text, breaks, strict=True))
    return Markup("<code>{}</code>").format(Markup("").join(pieces))


def meter_width(share: float) -> str:
    """Return a share as a width in percent, limited to 0 to 100; NaN is 0."""
    return f"{100 * min(max(share, 0.0), 1.0) if share == share else 0.0:.0f}"


@dataclass(frozen=True, slots=True)
class TimedBuild:
    """One build: how long it took and what was expected before it ran."""

    number: int
    seconds: float
    expected: Interval | Unavailable
    outcome: BuildOutcome


CHART_WIDTH, CHART_HEIGHT, EDGE = 1000.0, 220.0, 10.0
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class BuildTimesChart:
    """Paths of inline SVG, drawn by the macro `build_times`: expected time with its interval and what builds took.

    The drawing is stretched to the width of the page, so it contains no text: labels are HTML beside it. A dot is a
    line of no length with round ends, which stays round however the drawing is stretched.
    """

    ticks: tuple[tuple[str, str], ...]  # distance from the top in percent, label
    grid: str
    band: str
    jenkins: str
    expected: str
    passed: str
    failed: str
    first: int
    last: int
    longer: tuple[float, ...]  # seconds of the builds that are longer than the axis


def build_times_chart(builds: Sequence[TimedBuild]) -> BuildTimesChart:
    """Return the chart; its time axis starts at zero, and the chart says where a build is longer than it shows."""
    top = _top(builds)
    ticks = [tick for tick in _ticks(top) if tick <= top]
    points = [(_x(index, len(builds)), build) for index, build in enumerate(builds)]
    runs = [
        [(x, build.expected) for x, build in group if isinstance(build.expected, Interval)]
        for is_predicted, group in groupby(points, lambda point: isinstance(point[1].expected, Interval))
        if is_predicted
    ]
    jenkins = (
        [(x, _y(seconds, top)) for x, expected in run if isfinite(seconds := _jenkins(expected))] for run in runs
    )
    outcomes = {
        is_passed: [(x, _y(build.seconds, top)) for x, build in points if (build.outcome == "passed") == is_passed]
        for is_passed in (True, False)
    }
    return BuildTimesChart(
        ticks=tuple((f"{100 * (1 - tick / top):.2f}", span(tick)) for tick in ticks),
        grid="".join(f"M0 {_y(tick, top):.1f}H{CHART_WIDTH:g}" for tick in ticks),
        band="".join(_band(run, top) for run in runs),
        jenkins="".join(map(_line, jenkins)),
        expected="".join(_line([(x, _y(expected.seconds, top)) for x, expected in run]) for run in runs),
        passed=_dots(outcomes[True]),
        failed=_dots(outcomes[False]),
        first=builds[0].number,
        last=builds[-1].number,
        longer=tuple(build.seconds for build in builds if build.seconds > top),
    )


def _top(builds: Sequence[TimedBuild]) -> float:
    """Return the longest build or interval, unless a few would flatten all others: then twice the 95th percentile."""
    seconds = sorted(build.seconds for build in builds)
    usual = seconds[int(0.95 * (len(seconds) - 1))]
    highs = [build.expected.high for build in builds if isinstance(build.expected, Interval)]
    return max(min(max(seconds[-1], *highs, 0.0) * 1.05, 2.0 * usual), 1e-3)


def _ticks(top: float) -> Iterable[float]:
    step = next((step for step in STEPS if top / step <= 5), top / 4)
    return [tick * step for tick in range(6)]


def _jenkins(expected: Interval) -> float:
    seconds = expected.jenkins_seconds
    return float("nan") if isinstance(seconds, Unavailable) else seconds


def _band(run: Sequence[tuple[float, Interval]], top: float) -> str:
    upper = [(x, _y(expected.high, top)) for x, expected in run]
    lower = [(x, _y(expected.low, top)) for x, expected in reversed(run)]
    return f"{_line([*upper, *lower])}Z"


def _line(points: Sequence[Point]) -> str:
    """Return a path through the points: `M` takes the first pair, and all that follow are lines."""
    return "M" + " ".join(f"{x:.1f} {y:.1f}" for x, y in points) if points else ""


def _dots(points: Iterable[Point]) -> str:
    return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)


def _x(index: int, builds: int) -> float:
    return EDGE + (CHART_WIDTH - 2 * EDGE) * (index / (builds - 1) if builds > 1 else 0.5)


def _y(seconds: float, top: float) -> float:
    return CHART_HEIGHT * (1.0 - min(max(seconds / top, 0.0), 1.0))


KINDS = {"p": "passed", "f": "failed", "c": "failed", "k": "flaked", "s": "skipped"}
OUTCOME_WORDS = {**COUNTED, "p": "passed", "s": "skipped"}
KEYS = (
    ("passed", "passed"),
    ("failed", "failed"),
    ("flaked", "failed and passed in one build"),
    ("skipped", "skipped"),
    ("gold", "gold flip: both outcomes on one commit"),
    ("silver", "silver flip: more speaks for a flake"),
)


@dataclass(frozen=True, slots=True)
class RunBar:
    """One run as the page shows it. `kind` is the class of its bar, `flip` the metal of its flip or ""."""

    when: str
    kind: str
    outcome: str
    flip: str
    commit: str
    branch: str
    failure_type: str


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """What one feature adds to the log-odds, in words and with signs. `shared` is "" for a private feature."""

    meaning: str
    shared: str
    local: str
    total: float


def explanation_html(explained: TestExplanation, host: CodeHost = NO_CODE_HOST, stylesheet: str = "") -> str:
    """Return the explanation as a whole HTML document; with the name of a style sheet, that is not inside it.

    `host` is where commits are shown.
    """
    failures = [run for run in reversed(explained.runs) if run.outcome in COUNTED]
    bars = [_bar(run) for run in explained.runs]
    kinds = {bar.kind for bar in bars} | {bar.flip for bar in bars}
    features = sorted((*explained.contributions, *explained.private), key=lambda feature: -abs(feature.total))
    return render_page(
        "explanation.html",
        explained=explained,
        host=host,
        stylesheet=stylesheet,
        verdict=describe_verdict(explained),
        past=describe_past(explained),
        model=format_model(explained.model),
        bars=bars,
        keys=[key for key in KEYS if key[0] in kinds],
        chart=_chart(explained.runs),
        failures=[replace(_bar(run), flip="incident") if run.incident else _bar(run) for run in failures],
        features=[_feature_row(feature, explained) for feature in features if abs(feature.total) >= SMALLEST],
        largest=max((abs(feature.total) for feature in features), default=0.0) or 1.0,
        total=sum(feature.total for feature in features),
        no_change=NO_CHANGE if is_unchanged(explained) else "",
    )


def _bar(run: SeenRun) -> RunBar:
    return RunBar(
        when=time.strftime("%Y-%m-%d %H:%M", time.gmtime(run.finished_at)),
        kind=KINDS.get(run.outcome, "skipped"),
        outcome=OUTCOME_WORDS.get(run.outcome, "unknown"),
        flip=METALS.get(run.metal, ""),
        commit=run.commit,
        branch=run.branch,
        failure_type=run.failure_type,
    )


def _feature_row(feature: ExplainedFeature, explained: TestExplanation) -> FeatureRow:
    if feature in explained.private:
        return FeatureRow(f"{feature.feature}, known here alone", "", f"{feature.local:+.2f}", feature.total)
    return FeatureRow(describe_feature(feature), f"{feature.shared:+.2f}", f"{feature.local:+.2f}", feature.total)


def _chart(runs: Sequence[SeenRun]) -> BuildTimesChart | None:
    """Return the times of the runs that have one, None where none has."""
    builds = tuple(
        TimedBuild(
            index,
            run.seconds,
            Unavailable("of a test"),
            BuildOutcome.FAILED if run.outcome in COUNTED else BuildOutcome.PASSED,
        )
        for index, run in enumerate(runs, 1)
        if not isnan(run.seconds)
    )
    return build_times_chart(builds) if builds else None
