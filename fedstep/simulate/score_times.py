"""How good predicted durations are, beside what Jenkins and simple averages would have said."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedstep.simulate.tally import Column, Tally

__all__ = ["COLD", "FIRST_SCORED", "JENKINS", "baselines_of_times", "summary_of_times", "times_of"]

FIRST_SCORED = 10  # builds of a project are lived through before one is scored
COLD = (5, 50)  # builds of a project in which little is known of it
ENOUGH = 200  # builds from which the coverage of one project means something
JENKINS = "jenkins"
Scores = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Seen:
    """The scored predictions of one project, as columns."""

    said: Column
    low: Column
    high: Column
    truth: Column
    guesses: Mapping[str, Column]


def times_of(tally: Tally, first: int = FIRST_SCORED) -> Scores:
    """The scores of one project over the builds that both fedstep and Jenkins could predict; {} where there is none.

    `mae` in seconds; `mae_ratio_jenkins` and `mae_ratio_<guess>` below 1 where fedstep is nearer; `mdape`, the median
    of |said - truth| / truth; `coverage_90`; `interval_ratio`, the median of upper / lower end, and
    `interval_ratio_constant`, that of the one width, found afterwards, that covers as much.
    """
    seen = _seen(tally, first, None)
    if not len(seen.truth):
        return {}
    error = np.abs(seen.said - seen.truth)
    inside = (seen.low <= seen.truth) & (seen.truth <= seen.high)
    return {
        "builds": float(len(error)),
        "mae": float(error.mean()),
        "mdape": _mdape(seen.said, seen.truth),
        "within_20": float((error <= 0.2 * seen.truth).mean()),
        "coverage_90": float(inside.mean()),
        "covered": float(inside.sum()),
        "interval_ratio": float(np.median(seen.high / seen.low)),
        "interval_ratio_constant": _constant_ratio(seen, float(inside.mean())),
        "mae_ratio_jenkins_cold": _ratio(_seen(tally, *COLD), JENKINS),
        **{f"mae_ratio_{name}": _ratio(seen, name) for name in seen.guesses},
        **{f"mdape_{name}": _mdape(guess, seen.truth) for name, guess in seen.guesses.items()},
    }


def summary_of_times(projects: Mapping[str, Scores]) -> Scores:
    """The scores of all projects together."""
    ratios = _all(projects, "mae_ratio_jenkins")
    long = [scores["coverage_90"] for scores in projects.values() if scores["builds"] >= ENOUGH] or [float("nan")]
    builds = sum(_all(projects, "builds"))
    return {
        "mae_ratio_jenkins": _median(ratios),
        "mae_ratio_jenkins_mean": float(np.mean(ratios)),
        "mae_ratio_jenkins_worst": float(np.max(ratios)),
        "mae_ratio_jenkins_cold": _median(_all(projects, "mae_ratio_jenkins_cold")),
        "mdape": _median(_all(projects, "mdape")),
        "within_20": float(np.average(_all(projects, "within_20"), weights=_all(projects, "builds"))),
        "coverage_90": sum(_all(projects, "covered")) / builds,
        "coverage_90_min": min(long),
        "coverage_90_max": max(long),
        "interval_ratio": _median(_all(projects, "interval_ratio")),
        "interval_ratio_constant": _median(_all(projects, "interval_ratio_constant")),
        "wins": float(np.mean(np.array(ratios) < 1)),
    }


def baselines_of_times(projects: Mapping[str, Scores]) -> Mapping[str, Scores]:
    """For each simple predictor its error over that of Jenkins, and its own median percentage error."""
    names = sorted({key.removeprefix("mdape_") for scores in projects.values() for key in scores if "mdape_" in key})
    return {name: _baseline(projects, name) for name in names}


def _baseline(projects: Mapping[str, Scores], name: str) -> Scores:
    ratios = [
        scores["mae_ratio_jenkins"] / scores[f"mae_ratio_{name}"]
        for scores in projects.values()
        if scores.get(f"mae_ratio_{name}")
    ]
    return {
        "mae_ratio_jenkins": _median(ratios),
        "mae_ratio_jenkins_mean": float(np.mean(ratios)),
        "mdape": _median([scores[f"mdape_{name}"] for scores in projects.values() if f"mdape_{name}" in scores]),
    }


def _seen(tally: Tally, first: int, end: int | None) -> _Seen:
    number, guesses = tally.column("number"), tally.guesses()
    keep = (number >= first) & (number < (np.inf if end is None else end))
    keep &= np.isfinite(guesses.get(JENKINS, np.full(len(number), np.nan)))
    said, low, high, truth = (tally.column(name)[keep] for name in ("said", "low", "high", "truth"))
    return _Seen(said, low, high, truth, {name: column[keep] for name, column in guesses.items()})


def _ratio(seen: _Seen, name: str) -> float:
    """The mean absolute error over that of a guess; NaN where there is nothing to compare."""
    theirs = np.abs(seen.guesses[name] - seen.truth).mean() if len(seen.truth) else 0.0
    return float(np.abs(seen.said - seen.truth).mean() / theirs) if theirs else float("nan")


def _mdape(said: Column, truth: Column) -> float:
    return float(np.median(np.abs(said - truth) / truth))


def _constant_ratio(seen: _Seen, coverage: float) -> float:
    """Upper over lower end of the narrowest fixed interval around what was said that covers this share, afterwards."""
    misses = np.sort(np.log(seen.truth / seen.said))
    span = max(int(np.ceil(coverage * len(misses))) - 1, 0)
    widths = misses[span:] - misses[: len(misses) - span]
    return float(np.exp(widths.min()))


def _all(projects: Mapping[str, Scores], name: str) -> list[float]:
    return [scores[name] for scores in projects.values()]


def _median(values: list[float]) -> float:
    return float(np.nanmedian(values))
