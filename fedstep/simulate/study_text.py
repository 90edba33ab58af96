"""A study's result for a terminal, and as JSON."""

import json
from collections.abc import Iterator, Mapping
from math import isfinite

from fedstep.report.escape import shorten, visible
from fedstep.simulate.scores import Scores
from fedstep.simulate.study import Study

__all__ = ["study_json", "study_text"]

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
    blocks = (_projects(study), _summary(study), _baselines(study), _dropped(study))
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


def _projects(study: Study) -> list[str]:
    columns = COLUMNS.get(study.plan.task, CHANCES)
    head = f"{'':<30}" + "".join(f"{HEADINGS.get(name, name):>{WIDTH}}" for name in columns)
    rows = (
        f"{shorten(visible(name), 30):<30}" + "".join(f"{_cell(column, scores):>{WIDTH}}" for column in columns)
        for name, scores in study.projects.items()
    )
    return [f"{study.plan.task}, {study.plan.mode}, {len(study.projects)} projects", head, *rows]


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
