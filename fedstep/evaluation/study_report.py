"""The result of a study as text, as JSON and as an HTML page."""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, nan
from pathlib import Path

from fedstep.evaluation.scores import AGES, Scores, calibration_curve, learning_curve
from fedstep.evaluation.study import Study
from fedstep.report.html import Point, render_page
from fedstep.report.units import shorten, visible

TEMPLATES = Path(__file__).parent / "templates"
CURVES_WIDTH, CURVES_HEIGHT = 1000.0, 320.0
SERIES = ("own", "other", "third", "fourth")  # classes, by place in the legend
MEANINGS = {
    "mae_ratio_jenkins": "of the error of Jenkins' estimate, median over projects",
    "wins": "of projects predicted better than by Jenkins",
    "coverage_90": "of builds ended inside the 90 % interval",
    "mdape": "median error of a build's time",
    "auc": "AUC, mean over projects",
    "ap": "average precision, mean over projects",
    "mcc": "MCC at the shipped threshold, mean over projects",
    "regressions_suppressed": "of regressions called flaky",
    "brier_skill": "Brier skill against the base rate",
}
ENDS = ("the first builds", "1,000 and more")
SHARES = {"wins", "coverage_90", "mdape", "regressions_suppressed"}
GUESSES = {
    "build-duration": ("median-20", "last"),
    "build-failure": ("branch-rate-20", "last"),
    "flaky": ("classmates", "flip-rate"),
    "triage": ("classmates", "flip-rate"),
}


@dataclass(frozen=True, slots=True)
class BarRow:
    """Horizontal bars of one project. A bar is its class, its width in percent, its name and its value."""

    label: str
    bars: tuple[tuple[str, str, str, str], ...]


@dataclass(frozen=True, slots=True)
class BarChart:
    """Rows of bars with a vertical line at `mark` percent of the width."""

    rows: tuple[BarRow, ...]
    mark: str
    legend: tuple[tuple[str, str], ...] = ()  # class and name


@dataclass(frozen=True, slots=True)
class CurveChart:
    """Curves in one frame: each has a class and an SVG path. `ends` are the labels left and right below it."""

    paths: tuple[tuple[str, str], ...]
    top: str
    bottom: str
    ends: tuple[str, str]
    legend: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Growth:
    """Errors by age of a project: the chart, the headings of its table, and a row for each range of ages."""

    yardstick: str
    chart: CurveChart
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def study_page(study: Study, alone: Study | None) -> str:
    """Return a whole HTML document; `alone` is the same study with each project by itself, for the learning curve."""
    is_duration = study.plan.task == "build-duration"
    baseline_names = sorted({key for scores in study.baselines.values() for key in scores})
    return render_page(
        "study.html",
        TEMPLATES,
        plan=study.plan,
        count=len(study.projects),
        is_duration=is_duration,
        tiles=[
            (_format_figure(name, study.summary[name]), meaning)
            for name, meaning in MEANINGS.items()
            if isfinite(study.summary.get(name, nan))
        ],
        projects=_project_bars(study),
        coverage=_coverage_bars(study) if is_duration else None,
        calibration=None if is_duration else _calibration_curves(study),
        growth=_growth(study, alone),
        figures=[
            (name, _short(value), _ends(study.intervals.get(name)), _short(study.second.get(name)))
            for name, value in study.summary.items()
        ],
        baseline_headings=["", *(f">{name}" for name in baseline_names)],
        baselines=[
            (name, [_short(scores.get(key)) for key in baseline_names]) for name, scores in study.baselines.items()
        ],
    )


def _project_bars(study: Study) -> BarChart:
    is_duration = study.plan.task == "build-duration"
    names = ("fedstep", *GUESSES[study.plan.task])
    rows = [(name, _bar_values(scores, names, is_duration)) for name, scores in study.projects.items()]
    return _bar_chart([row for row in rows if row[1]], names, 1.0 if is_duration else 0.5, _legend(names))


def _bar_values(scores: Scores, names: Sequence[str], is_duration: bool) -> Mapping[str, float]:
    if is_duration:
        own = scores["mae_ratio_jenkins"]
        return {"fedstep": own, **{name: own / scores.get(f"mae_ratio_{name}", nan) for name in names[1:]}}
    if "auc" not in scores:
        return {}
    return {"fedstep": scores["auc"], **{name: scores.get(f"auc_{name}", nan) for name in names[1:]}}


def _coverage_bars(study: Study) -> BarChart:
    rows = [(name, {"fedstep": scores["coverage_90"]}) for name, scores in study.projects.items()]
    return _bar_chart(rows, ("fedstep",), 0.9)


def _bar_chart(
    rows: Sequence[tuple[str, Mapping[str, float]]],
    names: Sequence[str],
    mark: float,
    legend: tuple[tuple[str, str], ...] = (),
) -> BarChart:
    finite = [value for _, values in rows for value in values.values() if isfinite(value)]
    top = max([*finite, mark]) * 1.02 or 1.0
    bar_rows = (
        BarRow(
            label,
            tuple(
                (kind, f"{100 * values[name] / top:.2f}", name, f"{values[name]:.3f}")
                for name, kind in zip(names, SERIES, strict=False)
                if isfinite(values.get(name, nan))
            ),
        )
        for label, values in rows
    )
    return BarChart(tuple(bar_rows), f"{100 * mark / top:.2f}", legend)


def _calibration_curves(study: Study) -> CurveChart:
    series = {"fedstep": calibration_curve(study.tallies), "": [], "kept exactly": [(0.0, 0.0), (1.0, 1.0)]}
    return _curve_chart(series, (0.0, 1.0), (0.0, 1.0), ("0", "1"))


def _growth(study: Study, alone: Study | None) -> Growth | None:
    """Return the learning curve, None where no project is old enough to have one."""
    curves = {study.plan.mode: learning_curve(study.tallies)}
    if alone:
        curves["each project alone"] = learning_curve(alone.tallies)
    finite = [value for curve in curves.values() for value in curve if isfinite(value)]
    if not finite:
        return None
    ages = list(pairwise(AGES))
    series = {name: [(float(x), y) for x, y in enumerate(curve)] for name, curve in curves.items()}
    return Growth(
        "Jenkins' error" if study.plan.task == "build-duration" else "the Brier score of the base rate",
        _curve_chart(series, (0.0, len(ages) - 1.0), (min(0.0, *finite), max(finite) * 1.05), ENDS),
        ("builds", f">{study.plan.mode}", *((">alone",) if alone else ())),
        tuple(
            (
                f"{start} to {end if end < AGES[-1] else '…'}",
                *(_short(curve[index]) for curve in curves.values() if curve),
            )
            for index, (start, end) in enumerate(ages)
        ),
    )


def _curve_chart(
    series: Mapping[str, Sequence[Point]],
    across: tuple[float, float],
    up: tuple[float, float],
    ends: tuple[str, str],
) -> CurveChart:
    """Return curves in one frame; a diagonal or a level is a series like the others."""
    paths = ((kind, _path(points, across, up)) for kind, points in zip(SERIES, series.values(), strict=False) if points)
    return CurveChart(tuple(paths), f"{up[1]:.2g}", f"{up[0]:.2g}", ends, _legend(tuple(series)))


def _legend(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple((kind, name) for kind, name in zip(SERIES, names, strict=False) if name)


def _path(points: Sequence[Point], across: tuple[float, float], up: tuple[float, float]) -> str:
    coordinates = (
        (CURVES_WIDTH * _share(x, across), CURVES_HEIGHT * (1.0 - _share(y, up)))
        for x, y in points
        if isfinite(x) and isfinite(y)
    )
    return "M" + " ".join(f"{x:.1f} {y:.1f}" for x, y in coordinates)


def _share(value: float, ends: tuple[float, float]) -> float:
    return min(max((value - ends[0]) / (ends[1] - ends[0]), 0.0), 1.0)


def _format_figure(name: str, value: float) -> str:
    return f"{100 * value:.0f} %" if name in SHARES else f"{value:.2f}"


def _short(value: float | None) -> str:
    return "–" if value is None or not isfinite(value) else f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"


def _ends(ends: tuple[float, float] | None) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else "–"


# What of a project's scores is a column of the table, by task.
COLUMNS = {
    "build-duration": (
        "builds",
        "mae",
        "mae_ratio_jenkins",
        "mae_ratio_median-20",
        "mae_ratio_jenkins_cold",
        "mdape",
        "coverage_90",
        "interval_ratio",
    ),
    "test-duration": ("runs", "mdape", "mdape_median-20", "mdape_ratio", "mdape_ratio_all"),
}
CHANCES = ("predictions", "positives", "auc", "ap", "mcc")
COUNTS = ("builds", "runs", "predictions", "positives", "projects_ranked")
HEADINGS = {
    "mae": "error, s",
    "mae_ratio_jenkins": "/ Jenkins",
    "mae_ratio_median-20": "/ median 20",
    "mae_ratio_jenkins_cold": "builds 5-50",
    "mdape": "median error",
    "coverage_90": "in 90 %",
    "interval_ratio": "high/low",
    "mdape_median-20": "of median 20",
    "mdape_ratio": "ratio",
    "mdape_ratio_all": "all runs",
    "auc": "AUC",
    "ap": "avg precision",
    "mcc": "MCC",
}
# What each figure is called in the text; the names in JSON stay, because programs read them.
LABELS = {
    "mae": "error, s",
    "mae_ratio_jenkins": "error / Jenkins",
    "mae_ratio_median-20": "/ median of 20",
    "mae_ratio_jenkins_mean": "- mean of projects",
    "mae_ratio_jenkins_worst": "- worst project",
    "mae_ratio_jenkins_cold": "- builds 5 to 50",
    "mae_ratio_jenkins_first": "- builds 2 to 20",
    "pinball_ratio_jenkins": "loss of interval / Jenkins",
    "largest_error_share": "largest error, share of all",
    "mdape": "median error",
    "mdape_median-20": "of median of 20",
    "mdape_ratio": "error / median of 20",
    "mdape_ratio_all": "- all runs",
    "mdape_ratio_by_outcome": "- runs of 10 ms or more",
    "within_20": "within 20 %",
    "coverage_90": "in 90 % interval",
    "coverage_90_min": "- least of a project",
    "coverage_90_max": "- most of a project",
    "interval_ratio": "interval, high / low",
    "interval_ratio_constant": "- of one constant width",
    "wins": "projects better than Jenkins",
    "auc": "AUC",
    "ap": "average precision",
    "mcc": "MCC",
    "auc_unseen": "AUC, tests without a flip",
    "capture_5": "positives in the top 5 %",
    "capture_10": "positives in the top 10 %",
    "capture_20": "positives in the top 20 %",
    "pooled_ap": "average precision, pooled",
    "brier_skill": "Brier skill",
    "calibration_slope": "calibration slope",
    "regressions_suppressed": "negatives called positive",
    "auc_cold": "AUC, builds 3 to 30",
    "mcc_first_failure": "MCC, first failure of a test",
    "mcc_second_failure": "MCC, second failure of a test",
    "threshold": "threshold",
    "projects_ranked": "projects with a ranking",
    "list_false_per_1000_first": "false names, first build, per 1000",
    "first_failure_share": "time to first failure, share",
    "first_failures": "tests to first failure, share",
    "time_for_95": "time for 95 % of the builds",
    "apfdc_cold": "APFDc, first builds",
}
KNOWN_RUNS_FIGURE = re.compile(r"(said|seen|cases)_runs_([\d-]+|more)(_named)?")


def label(name: str) -> str:
    """Return what a figure is called in the text.

    >>> label("list_precision_at_10_repeated"), label("seen_runs_6-20_named"), label("apfdc")
    ('list precision at 10, one commit', '- seen, of those named', 'APFDc')
    """
    if match := KNOWN_RUNS_FIGURE.fullmatch(name):
        what = {"said": "predicted", "seen": "- seen", "cases": "- cases"}[match[1]]
        if match[3]:
            return f"- {what.removeprefix('- ')}, of those named"
        return f"{what}, {match[2]} runs known" if match[1] == "said" else what
    if name.startswith("apfd"):
        return LABELS.get(name, name.upper().replace("APFDC", "APFDc"))
    plain, _, repeated = name.partition("_repeated")
    text = LABELS.get(plain, plain.replace("_", " "))
    return f"{text}, one commit" if name.endswith("_repeated") and not repeated else text


NAMES, WIDTH = 36, 14


def study_text(study: Study) -> str:
    """Return the table of projects, the summary with intervals, the simple predictors, and what was not read."""
    blocks = (_project_lines(study), _summary(study), _baselines(study), _describe_dropped(study))
    return "\n".join("".join(f"{line}\n" for line in block) for block in blocks if block)


def study_json(study: Study) -> str:
    """Return one JSON object with the plan, the projects, their summary with intervals, and the dropped rows."""
    content = {
        "task": study.plan.task,
        "mode": study.plan.mode,
        "seed": study.plan.seed,
        "held_out": list(study.plan.held_out),
        "projects": {name: _finite(scores) for name, scores in study.projects.items()},
        "summary": _finite(study.summary),
        "intervals": {name: list(ends) for name, ends in study.intervals.items() if all(map(isfinite, ends))},
        "baselines": {name: _finite(scores) for name, scores in study.baselines.items()},
        "second_interleaving": _finite(study.second),
        "dropped": {"count": study.dropped, "named": [list(drop[:2]) for drop in study.named]},
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _project_lines(study: Study) -> list[str]:
    columns = COLUMNS.get(study.plan.task, CHANCES)
    task = f"{'':<30}" + "".join(f"{HEADINGS.get(name, name):>{WIDTH}}" for name in columns)
    rows = (
        f"{shorten(visible(name), 30):<30}" + "".join(f"{_cell(column, scores):>{WIDTH}}" for column in columns)
        for name, scores in study.projects.items()
    )
    return [f"{study.plan.task}, {study.plan.mode}, {len(study.projects)} projects", task, *rows]


def _summary(study: Study) -> list[str]:
    lines = [
        f"{'Summary':<{NAMES}}{'':>{WIDTH}}   95 % over projects{'other interleaving' if study.second else '':>22}"
    ]
    for name in study.summary:
        ends = study.intervals.get(name)
        between = f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else ""
        other = _cell(name, study.second) if study.second else ""
        lines.append(f"{label(name):<{NAMES}}{_cell(name, study.summary):>{WIDTH}}   {between:<18}{other:>22}".rstrip())
    return lines


def _baselines(study: Study) -> list[str]:
    lines = ["Simple predictors"]
    for name, scores in study.baselines.items():
        cells = {label(key).removeprefix("- "): _cell(key, scores) for key in sorted(scores)}
        figures = ", ".join(f"{key} {value}" for key, value in cells.items() if value != "-")
        lines += (
            textwrap.wrap(f"{name}: {figures}", 100, initial_indent="  ", subsequent_indent="    ") if figures else []
        )
    return lines if len(lines) > 1 else []


def _describe_dropped(study: Study) -> list[str]:
    if not study.dropped:
        return []
    named = [f"  {visible(drop.source)}: {visible(drop.reason)}" for drop in study.named]
    more = [f"  and {study.dropped - len(named)} more"] if study.dropped > len(named) else []
    return [f"{study.dropped} records could not be used", *named, *more]


def _cell(name: str, scores: Scores) -> str:
    value = scores.get(name)
    if value is None or not isfinite(value):
        return "-"
    if name in COUNTS:
        return f"{value:.0f}"
    return f"{value:.1f}" if name == "mae" else f"{value:.3f}"


def _finite(scores: Mapping[str, float]) -> Mapping[str, float]:
    return dict(_round_scores(scores))


def _round_scores(scores: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    return ((name, round(value, 6)) for name, value in scores.items() if isfinite(value))
