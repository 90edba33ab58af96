"""A study's result as one page: self-contained, without scripts, for light, dark and narrow screens."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from math import isfinite

from fedstep.evaluation.scores import AGES, Scores, calibration_curve, learning_curve
from fedstep.evaluation.study import Study
from fedstep.report.html import name as code
from fedstep.report.html import number, table, table_row, text, tile
from fedstep.report.text import STYLE
from fedstep.report.units import shorten, visible

Point = tuple[float, float]
CHART_WIDTH, HEIGHT = 1000.0, 320.0
SERIES = ("own", "other", "third", "fourth")


def bars(rows: Sequence[tuple[str, Mapping[str, float]]], names: Sequence[str], mark: float) -> str:
    """Rows of horizontal bars, one a name, with a vertical line at `mark`; labels are HTML."""
    finite = [value for _, values in rows for value in values.values() if isfinite(value)]
    top = max([*finite, mark]) * 1.02 or 1.0
    lines = "".join(_row(label, values, names, top, mark) for label, values in rows)
    return f'<div class="bars">{lines}</div>'


def curves(
    series: Mapping[str, Sequence[Point]],
    across: tuple[float, float],
    up: tuple[float, float],
    ends: tuple[str, str],
) -> str:
    """Curves in one frame, `ends` written below it; a diagonal or a level is a series like the others."""
    paths = "".join(
        f'<path class="{SERIES[number % len(SERIES)]}" d="{_path(points, across, up)}"/>'
        for number, points in enumerate(series.values())
        if points
    )
    left = f'<div class="ends"><span>{up[1]:.2g}</span><span>{up[0]:.2g}</span></div>'
    below = f'<div class="numbers"><span>{escape(ends[0])}</span><span>{escape(ends[1])}</span></div>'
    frame = f'<svg viewBox="0 0 {CHART_WIDTH:g} {HEIGHT:g}" preserveAspectRatio="none" role="img">{paths}</svg>'
    return f'<div class="curves">{left}{frame}</div>{below}{_legend(tuple(series))}'


def _row(label: str, values: Mapping[str, float], names: Sequence[str], top: float, mark: float) -> str:
    drawn = "".join(
        f'<i class="{SERIES[number % len(SERIES)]}" style="width:{100 * values[name] / top:.2f}%" '
        f'title="{escape(name)} {values[name]:.3f}"></i>'
        for number, name in enumerate(names)
        if isfinite(values.get(name, float("nan")))
    )
    return (
        f'<div class="bar"><span>{escape(label)}</span>'
        f'<div class="track">{drawn}<u style="left:{100 * mark / top:.2f}%"></u></div></div>'
    )


def _path(points: Sequence[Point], across: tuple[float, float], up: tuple[float, float]) -> str:
    placed = (
        (CHART_WIDTH * _share(x, across), HEIGHT * (1.0 - _share(y, up)))
        for x, y in points
        if isfinite(x) and isfinite(y)
    )
    return "M" + " ".join(f"{x:.1f} {y:.1f}" for x, y in placed)


def _share(value: float, ends: tuple[float, float]) -> float:
    return min(max((value - ends[0]) / (ends[1] - ends[0]), 0.0), 1.0)


def _legend(names: Sequence[str]) -> str:
    lines = (f'<svg viewBox="0 0 30 12"><path class="{kind}" d="M0 6H30"/></svg>' for kind in SERIES)
    items = "".join(f"<li>{line}{escape(name)}</li>" for line, name in zip(lines, names, strict=False) if name)
    return f'<ul class="legend">{items}</ul>'


STUDY_STYLE = """
.bars { display: grid; gap: 5px; } .bar { display: grid; grid-template-columns: 190px 1fr; gap: 12px; }
.bar span { font-size: 13px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; text-align: right; }
.track { position: relative; background: none; } .track i { display: block; height: 7px; border-radius: 2px; }
.track u { position: absolute; top: -3px; bottom: -3px; width: 0; border-left: 1.5px dashed var(--soft); }
i.own { background: var(--blue); } i.other { background: var(--bar); } i.third { background: var(--grey); }
i.fourth { background: var(--rule); }
.curves { position: relative; height: 280px; margin: 8px 0 0 48px; border: 1px solid var(--rule); }
.curves svg { width: 100%; height: 100%; display: block; }
svg .own { stroke: var(--blue); stroke-width: 2.5; } svg .other { stroke: var(--red); stroke-width: 2; }
svg .third { stroke: var(--grey); stroke-width: 1.5; stroke-dasharray: 5 4; } svg .fourth { stroke: var(--green); }
.ends { position: absolute; right: calc(100% + 8px); top: -10px; bottom: -10px; display: flex; font-size: 13px;
  flex-direction: column; justify-content: space-between; color: var(--soft); }
.curves + .numbers { margin-left: 48px; }
@media (max-width: 640px) { .bar { grid-template-columns: 110px 1fr; } }
"""
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


def study_page(study: Study, alone: Study | None) -> str:
    """A whole HTML document; `alone` is the same study with each project by itself, for the learning curve."""
    blocks = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>fedstep: {text(study.plan.task)}</title><style>{STYLE}{STUDY_STYLE}</style></head><body><main>",
        *_opening(study),
        *_projects(study),
        *(_intervals(study) if study.plan.task == "build-duration" else _calibration(study)),
        *_growth(study, alone),
        *_figures(study),
        "</main></body></html>\n",
    )
    return "\n".join(blocks)


def _opening(study: Study) -> Iterable[str]:
    plan, projects = study.plan, len(study.projects)
    yield f"<h1>{text(plan.task)}, {text(plan.mode)}</h1>"
    yield (
        f'<p class="lead">{projects} recorded projects replayed in the order of time. Every prediction was made before '
        "its build was learned, from builds that had finished.</p>"
    )
    tiles = (
        tile(_figure(name, study.summary[name]), meaning)
        for name, meaning in MEANINGS.items()
        if isfinite(study.summary.get(name, float("nan")))
    )
    yield f'<div class="tiles">{"".join(tiles)}</div>'


def _projects(study: Study) -> Iterable[str]:
    timed = study.plan.task == "build-duration"
    first, *others = GUESSES[study.plan.task]
    names = ("fedstep", first, *others)
    yield "<h2>By project</h2>"
    if timed:
        yield "<p>Mean absolute error in units of that of Jenkins' estimate (dashed). Shorter is better.</p>"
    else:
        yield "<p>Area under the ROC curve; the dashed line is a coin. Longer is better.</p>"
    rows = [(name, _bars(scores, names, timed)) for name, scores in study.projects.items()]
    yield f'<div class="card">{bars([one for one in rows if one[1]], names, 1.0 if timed else 0.5)}{_key(names)}</div>'


def _bars(scores: Mapping[str, float], names: tuple[str, ...], timed: bool) -> Mapping[str, float]:
    if timed:
        own = scores["mae_ratio_jenkins"]
        return {"fedstep": own, **{name: own / scores.get(f"mae_ratio_{name}", float("nan")) for name in names[1:]}}
    if "auc" not in scores:
        return {}
    return {"fedstep": scores["auc"], **{name: scores.get(f"auc_{name}", float("nan")) for name in names[1:]}}


def _key(names: tuple[str, ...]) -> str:
    kinds = ("own", "other", "third", "fourth")
    items = (
        f'<li><i class="{kind}" style="width:22px;height:8px;border-radius:2px"></i>{text(name)}</li>'
        for name, kind in zip(names, kinds, strict=False)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def _intervals(study: Study) -> Iterable[str]:
    yield "<h2>Interval coverage</h2>"
    yield "<p>Share of builds that ended inside the 90 % interval given before they started (dashed: 90 %).</p>"
    rows = [(name, {"fedstep": scores["coverage_90"]}) for name, scores in study.projects.items()]
    yield f'<div class="card">{bars(rows, ("fedstep",), 0.9)}</div>'


def _calibration(study: Study) -> Iterable[str]:
    yield "<h2>Calibration</h2>"
    yield "<p>Across: the chance that was said. Up: the share that came true. On the diagonal, chances are kept.</p>"
    series = {"fedstep": calibration_curve(study.tallies), "": [], "kept exactly": [(0.0, 0.0), (1.0, 1.0)]}
    yield f'<div class="card">{curves(series, (0.0, 1.0), (0.0, 1.0), ("0", "1"))}</div>'


def _growth(study: Study, alone: Study | None) -> Iterable[str]:
    own = learning_curve(study.tallies)
    lone = learning_curve(alone.tallies) if alone else []
    finite = [value for value in (*own, *lone) if isfinite(value)]
    if not finite:
        return
    yard = "Jenkins' error" if study.plan.task == "build-duration" else "the Brier score of the base rate"
    yield "<h2>As a project grows older</h2>"
    yield f"<p>Error in units of {yard}, by the number of the build in its project; mean over projects.</p>"
    ages = list(pairwise(AGES))
    series = {study.plan.mode: list(enumerate(own)), **({"each project alone": list(enumerate(lone))} if alone else {})}
    shown = {name: [(float(x), y) for x, y in points] for name, points in series.items()}
    yield f'<div class="card">{curves(shown, (0.0, len(ages) - 1.0), (min(0.0, *finite), max(finite) * 1.05), ENDS)}'
    tasks = ("builds", *(f">{study.plan.mode}", ">alone")[: 2 if alone else 1])
    rows = (
        table_row(
            f"<td>{start} to {end if end < AGES[-1] else '…'}</td>",
            *(number(_short(one[place])) for one in (own, lone) if one),
        )
        for place, (start, end) in enumerate(ages)
    )
    yield f"{table(tasks, rows)}</div>"


def _figures(study: Study) -> Iterable[str]:
    yield "<h2>All figures</h2>"
    rows = (
        table_row(
            f"<td>{code(name)}</td>",
            number(_short(value)),
            number(_ends(study.intervals.get(name))),
            number(_short(study.second.get(name))),
        )
        for name, value in study.summary.items()
    )
    yield table(("", ">value", ">95 % over projects", ">another interleaving"), rows)
    yield "<h2>Simple predictors</h2>"
    names = sorted({key for scores in study.baselines.values() for key in scores})
    simple = (
        table_row(f"<td>{code(name)}</td>", *(number(_short(scores.get(key))) for key in names))
        for name, scores in study.baselines.items()
    )
    yield table(("", *(f">{text(name)}" for name in names)), simple)


def _figure(name: str, value: float) -> str:
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
    "mae": "MAE, s",
    "mae_ratio_jenkins": "/ Jenkins",
    "mae_ratio_median-20": "/ median 20",
    "mae_ratio_jenkins_cold": "cold",
    "coverage_90": "in 90 %",
    "interval_ratio": "high/low",
    "mdape_median-20": "of median 20",
    "mdape_ratio": "ratio",
    "mdape_ratio_all": "all runs",
}
WIDTH = 14


def study_text(study: Study) -> str:
    """A table of projects, the summary with its intervals, the simple predictors, and what was not read."""
    blocks = (_project_lines(study), _summary(study), _baselines(study), _dropped(study))
    return "\n".join("".join(f"{line}\n" for line in block) for block in blocks if block)


def study_json(study: Study) -> str:
    """`task`, `mode`, `projects`, `summary`, `intervals`, `baselines`, `second_interleaving`, `seed`, `dropped`."""
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
        "dropped": {"count": study.dropped, "named": [list(one[:2]) for one in study.named]},
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
    lines = [f"{'Summary':<30}{'':>{WIDTH}}   95 % over projects{'other interleaving' if study.second else '':>22}"]
    for name in study.summary:
        ends = study.intervals.get(name)
        between = f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else ""
        other = _cell(name, study.second) if study.second else ""
        lines.append(f"{name:<30}{_cell(name, study.summary):>{WIDTH}}   {between:<18}{other:>22}".rstrip())
    return lines


def _baselines(study: Study) -> list[str]:
    names = sorted({key for scores in study.baselines.values() for key in scores})
    lines = [f"{'Simple predictors':<30}" + "".join(f"{name:>24}" for name in names)]
    for name, scores in study.baselines.items():
        lines.append(f"{name:<30}" + "".join(f"{_cell(key, scores):>24}" for key in names))
    return lines


def _dropped(study: Study) -> list[str]:
    if not study.dropped:
        return []
    named = [f"  {visible(one.source)}: {visible(one.reason)}" for one in study.named]
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
    return dict(_rounded(scores))


def _rounded(scores: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    return ((name, round(value, 6)) for name, value in scores.items() if isfinite(value))
