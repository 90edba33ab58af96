"""How good expected times of tests are, beside the median of the last 20."""

from collections.abc import Mapping

import numpy as np

from fedstep.simulate.tally import Column, Tally
from fedstep.simulate.test_times import FINEST

__all__ = ["baselines_of_test_times", "summary_of_test_times", "test_times_of"]

MEDIAN = "median-20"
Scores = Mapping[str, float]


def test_times_of(tally: Tally) -> Scores:
    """The scores of one project; {} where no time can be told from the rounding of reports.

    `mdape` and `mdape_ratio`, over that of the median of 20: runs of tests whose past median is 10 ms or more. The
    same over all timed runs as `_all`, and over runs that themselves took 10 ms or more, which selects by what is to be
    predicted, as `_by_outcome`. A ratio is left out where the median of 20 hits most runs exactly.
    """
    said, truth, guess = tally.column("said"), tally.column("truth"), tally.guesses()[MEDIAN]
    keep = guess >= FINEST
    if not keep.any():
        return {}
    scores = {"runs": float(keep.sum()), "mdape": _mdape(said[keep], truth[keep])}
    scores[f"mdape_{MEDIAN}"] = _mdape(guess[keep], truth[keep])
    rules = {"": keep, "_all": truth > 0, "_by_outcome": truth >= FINEST}
    for name, chosen in rules.items():
        theirs = _mdape(guess[chosen], truth[chosen])
        if theirs:
            scores[f"mdape_ratio{name}"] = _mdape(said[chosen], truth[chosen]) / theirs
    return scores


test_times_of.__test__ = False  # type: ignore[attr-defined]  # pytest: no test


def summary_of_test_times(projects: Mapping[str, Scores]) -> Scores:
    """Medians over projects."""
    names = ("mdape", "mdape_ratio", "mdape_ratio_all", "mdape_ratio_by_outcome")
    columns = {name: [scores[name] for scores in projects.values() if name in scores] for name in names}
    return {name: float(np.median(values)) for name, values in columns.items() if values}


def baselines_of_test_times(projects: Mapping[str, Scores]) -> Mapping[str, Scores]:
    """The median of the last 20 times."""
    return {MEDIAN: {"mdape": float(np.median([scores[f"mdape_{MEDIAN}"] for scores in projects.values()]))}}


def _mdape(said: Column, truth: Column) -> float:
    return float(np.median(np.abs(said - truth) / truth)) if len(truth) else 0.0
