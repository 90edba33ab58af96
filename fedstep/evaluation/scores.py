"""Score predictions: errors of times, and ranking, calibration and threshold of chances."""

import random
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import nan
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, matthews_corrcoef, roc_auc_score

from fedstep.evaluation.ordering import COLD_UNTIL
from fedstep.evaluation.replay_tests import FINEST, KNOWN_FAILURES, KNOWN_RUNS
from fedstep.evaluation.simulated_federation import CasePrediction
from fedstep.history.summary import MAXIMUM_FIRST_FAILURES
from fedstep.model.predictor import FLAKY_ABOVE, WORTH_NAMING
from fedstep.pipeline.selection import promised_share

Column: TypeAlias = NDArray[np.float64]


FACTS = (KNOWN_RUNS, KNOWN_FAILURES)


class Tally:
    """Columns of predictions; NaN where a simple predictor has none."""

    def __init__(self) -> None:
        self._columns: dict[str, array[float]] = {
            name: array("d") for name in ("build_index", "predicted", "low", "high", "truth")
        }
        self._guesses: dict[str, array[float]] = {}

    def add(self, prediction: CasePrediction) -> None:
        """Add a prediction whose truth is known."""
        count = len(self)
        for name, column in self._columns.items():
            column.append(getattr(prediction, name))
        for name in prediction.guesses.keys() - self._guesses.keys():
            self._guesses[name] = array("d", [nan]) * count
        for name, column in self._guesses.items():
            column.append(prediction.guesses.get(name, nan))

    def __len__(self) -> int:
        return len(self._columns["predicted"])

    def column(self, name: str) -> Column:
        """Return `number`, `said`, `low`, `high` or `truth`, one value per prediction."""
        return np.array(self._columns[name])

    def guesses(self) -> Mapping[str, Column]:
        """Return the predictions of each simple predictor, by its name."""
        return {name: np.array(column) for name, column in sorted(self._guesses.items()) if name not in FACTS}

    def fact(self, name: str) -> Column:
        """Return how many runs or failures of the test were known at each prediction, NaN where that is not told."""
        return np.array(self._guesses.get(name, array("d", [nan]) * len(self)))


FIRST_SCORED = 10  # builds of a project before the first scored one
COLD = (5, 50)  # builds of a project in which little is known of it
FIRST = (1, 20)  # its second to twentieth build
ENOUGH = 200  # builds from which the coverage of one project means something
JENKINS = "jenkins"
Scores = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Seen:
    """The scored predictions of one project, as columns."""

    predicted: Column
    low: Column
    high: Column
    truth: Column
    guesses: Mapping[str, Column]


def times_of(tally: Tally, first: int = FIRST_SCORED) -> Scores:
    """Return the scores of one project over the builds that fedstep and Jenkins could predict; {} without any.

    `mae` in seconds; `mae_ratio_jenkins` and `mae_ratio_<guess>` below 1 where fedstep is nearer; `mdape`, the median
    of |said - truth| / truth; `pinball_ratio_jenkins`, the mean pinball loss of the ends of the interval over the error
    of Jenkins' estimate; `largest_error_share`, the part of all errors that is one build's; `coverage_90`;
    `interval_ratio`, the median of upper / lower end, and `interval_ratio_constant`, that of the one width, found
    afterwards, that covers as much.
    """
    seen = _scored_times(tally, first, None)
    if not len(seen.truth):
        return {}
    error = np.abs(seen.predicted - seen.truth)
    inside = (seen.low <= seen.truth) & (seen.truth <= seen.high)
    return {
        "builds": float(len(error)),
        "mae": float(error.mean()),
        "mdape": _mdape(seen.predicted, seen.truth),
        "within_20": float((error <= 0.2 * seen.truth).mean()),
        "coverage_90": float(inside.mean()),
        "covered": float(inside.sum()),
        "interval_ratio": float(np.median(seen.high / seen.low)),
        "interval_ratio_constant": _constant_ratio(seen, float(inside.mean())),
        "mae_ratio_jenkins_cold": _ratio(_scored_times(tally, *COLD), JENKINS),
        "mae_ratio_jenkins_first": _ratio(_scored_times(tally, *FIRST), JENKINS),
        "pinball_ratio_jenkins": _pinball_ratio(seen),
        "largest_error_share": float(error.max() / error.sum()) if error.any() else 0.0,
        **{f"mae_ratio_{name}": _ratio(seen, name) for name in seen.guesses},
        **{f"mdape_{name}": _mdape(guess, seen.truth) for name, guess in seen.guesses.items()},
    }


def summary_of_times(projects: Mapping[str, Scores]) -> Scores:
    """Return the scores of all projects together."""
    ratios = _all(projects, "mae_ratio_jenkins")
    long = [scores["coverage_90"] for scores in projects.values() if scores["builds"] >= ENOUGH] or [float("nan")]
    builds = sum(_all(projects, "builds"))
    return {
        "mae_ratio_jenkins": _median(ratios),
        "mae_ratio_jenkins_mean": float(np.mean(ratios)),
        "mae_ratio_jenkins_worst": float(np.max(ratios)),
        "mae_ratio_jenkins_cold": _median(_all(projects, "mae_ratio_jenkins_cold")),
        "mae_ratio_jenkins_first": _median(_all(projects, "mae_ratio_jenkins_first")),
        "pinball_ratio_jenkins": _median(_all(projects, "pinball_ratio_jenkins")),
        "largest_error_share": float(np.max(_all(projects, "largest_error_share"))),
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
    """Return each simple predictor's error relative to Jenkins', and its own median percentage error."""
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


def _scored_times(tally: Tally, first: int, end: int | None) -> _Seen:
    builds, guesses = tally.column("build_index"), tally.guesses()
    keep = (builds >= first) & (builds < (np.inf if end is None else end))
    keep &= np.isfinite(guesses.get(JENKINS, np.full(len(builds), np.nan)))
    predicted, low, high, truth = (tally.column(name)[keep] for name in ("predicted", "low", "high", "truth"))
    return _Seen(predicted, low, high, truth, {name: column[keep] for name, column in guesses.items()})


def _ratio(seen: _Seen, name: str) -> float:
    """Return the mean absolute error relative to that of a guess, or NaN where there is nothing to compare."""
    theirs = np.abs(seen.guesses[name] - seen.truth).mean() if len(seen.truth) else 0.0
    return float(np.abs(seen.predicted - seen.truth).mean() / theirs) if theirs else float("nan")


def _pinball_ratio(seen: _Seen) -> float:
    """Return the mean pinball loss of the 5 % and 95 % ends, relative to the mean absolute error of Jenkins' estimate.

    Koenker and Bassett, "Regression quantiles", 1978.
    """
    theirs = np.abs(seen.guesses[JENKINS] - seen.truth).mean()
    ends = ((seen.low, 0.05), (seen.high, 0.95))
    losses = [np.maximum(share * (seen.truth - end), (share - 1) * (seen.truth - end)).mean() for end, share in ends]
    return float(np.mean(losses) / theirs) if theirs else float("nan")


def _constant_ratio(seen: _Seen, coverage: float) -> float:
    """Upper over lower end of the narrowest fixed interval around what was said that covers this share, afterwards."""
    misses = np.sort(np.log(seen.truth / seen.predicted))
    span = max(int(np.ceil(coverage * len(misses))) - 1, 0)
    widths = misses[span:] - misses[: len(misses) - span]
    return float(np.exp(widths.min()))


def _all(projects: Mapping[str, Scores], name: str) -> list[float]:
    return [scores[name] for scores in projects.values()]


def _median(values: list[float]) -> float:
    return float(np.nanmedian(values))


Point = tuple[float, float]
AGES = (0, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000_000)  # builds of a project, ends of the groups
BINS = 10
FEWEST_POSITIVES = 20  # predictions in a bin, or a share of one project would look like a rule


def learning_curve(tallies: Mapping[str, Tally]) -> Sequence[float]:
    """Return the mean error over projects per group of ages, relative to a yardstick; NaN without one.

    For durations the yardstick is Jenkins' mean absolute error, for chances the Brier score of the base rate.
    """
    groups = pairwise(AGES)
    return [_known_mean([_error(tally, start, end) for tally in tallies.values()]) for start, end in groups]


def calibration_curve(tallies: Mapping[str, Tally]) -> Sequence[Point]:
    """Return the mean predicted chance and the observed share in each tenth of [0, 1]."""
    predicted = np.concatenate([tally.column("predicted") for tally in tallies.values()])
    truth = np.concatenate([tally.column("truth") for tally in tallies.values()])
    bins = np.minimum((predicted * BINS).astype(int), BINS - 1)
    filled = [tenth for tenth in range(BINS) if (bins == tenth).sum() >= FEWEST_POSITIVES]
    return [(float(predicted[bins == tenth].mean()), float(truth[bins == tenth].mean())) for tenth in filled]


def _error(tally: Tally, start: int, end: int) -> float:
    builds, predicted, truth = (tally.column(name) for name in ("build_index", "predicted", "truth"))
    guess = tally.guesses().get(JENKINS)
    keep = (builds >= start) & (builds < end)
    if guess is None:
        return _skill_error(predicted[keep], truth[keep])
    keep &= np.isfinite(guess)
    yardstick = np.abs(guess[keep] - truth[keep]).sum()
    return float(np.abs(predicted[keep] - truth[keep]).sum() / yardstick) if yardstick else float("nan")


def _skill_error(predicted: Column, truth: Column) -> float:
    if len(truth) < FEWEST_POSITIVES or not 0 < truth.sum() < len(truth):
        return float("nan")
    return float(((predicted - truth) ** 2).sum() / ((truth.mean() - truth) ** 2).sum())


RANKED = ("auc", "ap", "mcc", "auc_unseen", "auc_cold", "capture_5", "capture_10", "capture_20")
COLD_BUILDS = (2, 30)  # the third to the thirtieth build of a project
FEWEST = 3  # positives, and negatives, from which a project's ranking is scored
HELD = 1e-4  # chances are held inside [HELD, 1 - HELD] where their logarithm is taken


def chances_of(tally: Tally, threshold: float, first: int = FIRST_SCORED) -> Scores:
    """Return the scores of one project; `auc`, `ap` and `mcc` need three of each kind; {} without predictions.

    `auc_<guess>` and `ap_<guess>` for each simple predictor; `auc_unseen` over tests that have not flipped yet;
    `auc_cold` over builds 3 to 30.
    """
    predicted, truth, guesses = _seen(tally, first)
    if not len(truth):
        return {}
    scores = {"predictions": float(len(truth)), "positives": float(truth.sum()), **_cold_ranking(tally)}
    if not _rankable(truth):
        return scores
    scores |= {**_ranking(predicted, truth), "mcc": float(matthews_corrcoef(truth, predicted >= threshold))}
    for name, guess in guesses.items():
        scores |= {f"{key}_{name}": value for key, value in _ranking(np.nan_to_num(guess), truth).items()}
    return {**scores, **_unseen(predicted, truth, guesses)}


def summary_of_chances(
    projects: Mapping[str, Scores], tallies: Sequence[Tally], threshold: float, first: int = FIRST_SCORED
) -> Scores:
    """Return the scores of all projects together; pooled scores are pooled over their predictions.

    `regressions_suppressed`: the share of what is no flake that was called one.
    """
    predicted, truth = (
        np.concatenate(columns) for columns in zip(*(_seen(tally, first)[:2] for tally in tallies), strict=True)
    )
    negatives = truth == 0
    suppressed = float((predicted[negatives] >= threshold).mean()) if negatives.any() else float("nan")
    return {
        **{name: _mean(projects, name) for name in RANKED if _any(projects, name)},
        "pooled_ap": float(average_precision_score(truth, predicted)) if truth.any() else float("nan"),
        "brier_skill": _brier_skill(predicted, truth),
        "calibration_slope": _slope(predicted, truth),
        "regressions_suppressed": suppressed,
        **_by_chance(predicted, truth),
        **_by_runs_known(tallies, threshold, first),
        **_by_failures_known(tallies, threshold, first),
        "threshold": threshold,
        "projects_ranked": float(sum("auc" in scores for scores in projects.values())),
        "predictions": float(len(truth)),
        "positives": float(truth.sum()),
    }


RUNS_KNOWN = {"1-5": (1, 5), "6-20": (6, 20), "21-100": (21, 100), "more": (101, 1e9)}
FAILURES_KNOWN = {"first": 0, "second": 1}
CONFUSION = ("true_positives", "false_positives", "false_negatives", "true_negatives")


def _by_chance(predicted: Column, truth: Column) -> Scores:
    """Return the calibration by tenths of the predicted chance: its mean, the observed share, and the cases."""
    bins = np.minimum((predicted * BINS).astype(int), BINS - 1)
    scores = {}
    for tenth in map(int, np.unique(bins)):
        chosen = bins == tenth
        scores[f"said_chance_{tenth}"] = float(predicted[chosen].mean())
        scores[f"seen_chance_{tenth}"] = float(truth[chosen].mean())
        scores[f"cases_chance_{tenth}"] = float(chosen.sum())
    return scores


def _by_runs_known(tallies: Sequence[Tally], threshold: float, first: int) -> Scores:
    """Return what was predicted and what was seen, by how many runs of the test, or builds of the project, were known.

    The mean chance (`said`), the observed share (`seen`) and the number of `cases`; the same of the cases from the
    threshold on (`named`), which a report names as flaky.
    """
    predicted, truth, runs = _pool(tallies, KNOWN_RUNS, first)
    builds = np.concatenate([tally.column("build_index")[tally.column("build_index") >= first] for tally in tallies])
    runs = np.where(np.isnan(runs), builds, runs)
    scores = {}
    for name, (low, high) in RUNS_KNOWN.items():
        known = (runs >= low) & (runs <= high)
        for end, chosen in (("", known), ("_named", known & (predicted >= threshold))):
            if chosen.any():
                scores[f"said_runs_{name}{end}"] = float(predicted[chosen].mean())
                scores[f"seen_runs_{name}{end}"] = float(truth[chosen].mean())
                scores[f"cases_runs_{name}{end}"] = float(chosen.sum())
    return scores


def _by_failures_known(tallies: Sequence[Tally], threshold: float, first: int) -> Scores:
    """Return the pooled MCC of the first and of the second failure of a test, and the counts that it is made of."""
    predicted, truth, failures = _pool(tallies, KNOWN_FAILURES, first)
    scores = {}
    for name, known_failures in FAILURES_KNOWN.items():
        chosen = failures == known_failures
        named, flaky = predicted[chosen] >= threshold, truth[chosen] == 1
        if _rankable(truth[chosen]):
            scores[f"mcc_{name}_failure"] = float(matthews_corrcoef(flaky, named))
        if chosen.any():
            counted = (named & flaky, named & ~flaky, ~named & flaky, ~named & ~flaky)
            scores |= {
                f"{kind}_{name}_failure": float(cases.sum()) for kind, cases in zip(CONFUSION, counted, strict=True)
            }
    return scores


def _pool(tallies: Sequence[Tally], fact: str, first: int) -> tuple[Column, Column, Column]:
    """Return what was said, the truth and one fact of all predictions but those of the first builds."""
    facts = np.concatenate([tally.fact(fact)[tally.column("build_index") >= first] for tally in tallies])
    seen = [_seen(tally, first) for tally in tallies]
    return np.concatenate([scored[0] for scored in seen]), np.concatenate([scored[1] for scored in seen]), facts


def baselines_of_chances(
    projects: Mapping[str, Scores], tallies: Sequence[Tally], first: int = FIRST_SCORED
) -> Mapping[str, Scores]:
    """Return the scores of each simple predictor, whose chance is used uncalibrated."""
    names = sorted({name for tally in tallies for name in tally.guesses()})
    truth = np.concatenate([_seen(tally, first)[1] for tally in tallies])
    baselines = {}
    for name in names:
        guess = np.concatenate([np.nan_to_num(_seen(tally, first)[2].get(name, np.zeros(0))) for tally in tallies])
        keys = [key for key in RANKED if _any(projects, f"{key}_{name}")]
        baselines[name] = {key: _mean(projects, f"{key}_{name}") for key in keys}
        if len(guess) == len(truth) and guess.max(initial=0.0) <= 1.0:
            baselines[name] |= {"brier_skill": _brier_skill(guess, truth)}
    return baselines


def _seen(tally: Tally, first: int) -> tuple[Column, Column, Mapping[str, Column]]:
    keep = tally.column("build_index") >= first
    guesses = {name: column[keep] for name, column in tally.guesses().items()}
    return tally.column("predicted")[keep], tally.column("truth")[keep], guesses


def _cold_ranking(tally: Tally) -> Scores:
    build_index, predicted, truth = (tally.column(name) for name in ("build_index", "predicted", "truth"))
    keep = (build_index >= COLD_BUILDS[0]) & (build_index < COLD_BUILDS[1])
    return {"auc_cold": float(roc_auc_score(truth[keep], predicted[keep]))} if _rankable(truth[keep]) else {}


def _rankable(truth: Column) -> bool:
    return bool(min(truth.sum(), (1 - truth).sum()) >= FEWEST)


CAPTURED = (5, 10, 20)  # percent of the builds


def _ranking(predicted: Column, truth: Column) -> Scores:
    return {
        "auc": float(roc_auc_score(truth, predicted)),
        "ap": float(average_precision_score(truth, predicted)),
        **{f"capture_{percent}": _capture(predicted, truth, percent / 100) for percent in CAPTURED},
    }


def _capture(predicted: Column, truth: Column, share: float) -> float:
    """Return the share of all positives that are among this share of the predictions with the highest chances.

    Predictions with equal chances at the end count in part.
    """
    order = np.argsort(-predicted, kind="stable")
    limit = share * len(truth)
    last = predicted[order[min(int(limit), len(truth) - 1)]]
    above, equal = predicted > last, predicted == last
    part = (limit - above.sum()) / max(equal.sum(), 1)
    return float((truth[above].sum() + part * truth[equal].sum()) / truth.sum())


def _unseen(predicted: Column, truth: Column, guesses: Mapping[str, Column]) -> Scores:
    """Score the ranking of tests that have not flipped yet, for which a flip rate has no information."""
    unseen = guesses.get("flip-rate", np.ones(len(truth))) == 0
    if not _rankable(truth[unseen]):
        return {}
    others = {f"auc_unseen_{name}": guess for name, guess in guesses.items()}
    return {
        "auc_unseen": float(roc_auc_score(truth[unseen], predicted[unseen])),
        **{key: float(roc_auc_score(truth[unseen], np.nan_to_num(guess[unseen]))) for key, guess in others.items()},
    }


def _brier_skill(predicted: Column, truth: Column) -> float:
    """Return 1 - Brier score / that of the base rate (Brier 1950); above 0 is better than the base rate."""
    base = ((truth.mean() - truth) ** 2).mean()
    return float(1 - ((predicted - truth) ** 2).mean() / base) if base else float("nan")


def _slope(predicted: Column, truth: Column) -> float:
    """Return the slope of a logistic regression of the truth on the predicted log-odds; 1 for calibrated chances.

    Cox, "Two further applications of a model for binary regression", 1958.
    """
    if not 0 < truth.sum() < len(truth):
        return float("nan")
    held = np.clip(predicted, HELD, 1 - HELD)
    odds = np.log(held / (1 - held)).reshape(-1, 1)
    return float(LogisticRegression(C=np.inf).fit(odds, truth).coef_[0, 0])


def _any(projects: Mapping[str, Scores], name: str) -> bool:
    return any(name in scores for scores in projects.values())


def _mean(projects: Mapping[str, Scores], name: str) -> float:
    return float(np.mean([scores[name] for scores in projects.values() if name in scores]))


MEDIAN = "median-20"


def test_times_of(tally: Tally) -> Scores:
    """Return the scores of one project; {} where no time can be distinguished from the rounding of reports.

    `mdape` and `mdape_ratio`, over that of the median of 20: runs of tests whose past median is 10 ms or more. The
    same over all timed runs as `_all`, and over runs that themselves took 10 ms or more, which selects by what is to be
    predicted, as `_by_outcome`. A ratio is left out where the median of 20 hits most runs exactly.
    """
    predicted, truth, guess = tally.column("predicted"), tally.column("truth"), tally.guesses()[MEDIAN]
    keep = guess >= FINEST
    if not keep.any():
        return {}
    scores = {"runs": float(keep.sum()), "mdape": _mdape(predicted[keep], truth[keep])}
    scores[f"mdape_{MEDIAN}"] = _mdape(guess[keep], truth[keep])
    rules = {"": keep, "_all": truth > 0, "_by_outcome": truth >= FINEST}
    for name, chosen in rules.items():
        theirs = _mdape(guess[chosen], truth[chosen])
        if theirs:
            scores[f"mdape_ratio{name}"] = _mdape(predicted[chosen], truth[chosen]) / theirs
    return scores


test_times_of.__test__ = False  # type: ignore[attr-defined]  # pytest: no test


def summary_of_test_times(projects: Mapping[str, Scores]) -> Scores:
    """Return the medians over projects."""
    names = ("mdape", "mdape_ratio", "mdape_ratio_all", "mdape_ratio_by_outcome")
    columns = {name: [scores[name] for scores in projects.values() if name in scores] for name in names}
    return {name: float(np.median(values)) for name, values in columns.items() if values}


def baselines_of_test_times(projects: Mapping[str, Scores]) -> Mapping[str, Scores]:
    """Return the scores of the median of the last 20 times."""
    return {MEDIAN: {"mdape": float(np.median([scores[f"mdape_{MEDIAN}"] for scores in projects.values()]))}}


def _mdape(predicted: Column, truth: Column) -> float:
    return float(np.median(np.abs(predicted - truth) / truth)) if len(truth) else 0.0


ORDERS = ("random", "report", "fastest", "recent-failure", "path", "co-failure", "path+co+recent")
ORDER_FIGURES = (
    *("apfdc", "apfd", "napfd", "first_failure_share", "caught_10", "caught_20", "caught_25", "caught_50"),
    *("time_for_95", "first_failures", "apfdc_cold", "promises", "promise_kept", "promise_share"),
)
PROMISED, EXPLORED = 0.95, 0.05  # `fedstep select --confidence`, and the share of the other tests that run nevertheless
TIMES_OVER = {"caught_10": 0.1, "caught_20": 0.2, "caught_25": 0.25, "caught_50": 0.5}


def orders_of(tally: Tally) -> Scores:
    """Return the scores of one project's orders over its builds with real failures; {} without any.

    `apfdc`: cost-cognisant average percentage of faults detected (Elbaum, Malishevsky and Rothermel, "Incorporating
    varying test costs and fault severities into test case prioritization", 2001), a failing test counting as a fault
    and the time of a test as its cost; `apfd` without cost; `first_failure_share`: median share of the test time until
    the first failure; `caught_10`: share of these builds that show a failure within 10 % of the time; `time_for_95`:
    share of the time in which 95 % of them do; `first_failures`: median rank share of failing tests that had never
    failed; `apfdc_cold`: over builds 3 to 20; `promise_kept`: share of builds in which tests begin to fail, after the
    twentieth (`promises`: their number), in which `--confidence 0.95` would have shown one, and `promise_share` the
    share of the time that it runs, with new and changed tests, those that failed lately, and exploration. Each also
    with the name of a simple order behind it.
    """
    build_indices, guesses = tally.column("build_index"), tally.guesses()
    if not len(build_indices):
        return {}
    scores = {"fedstep": tally.column("predicted")} | {name: guesses[name] for name in ORDERS}
    order_scores: dict[str, float] = {"builds": float(len(set(build_indices)))}
    for name, values in scores.items():
        figures = _order_figures(build_indices, values, tally.column("truth"), guesses)
        order_scores |= {key if name == "fedstep" else f"{key}_{name}": value for key, value in figures.items()}
    return order_scores


def _order_figures(
    build_indices: Column, values: Column, truth: Column, guesses: Mapping[str, Column]
) -> Mapping[str, float]:
    builds, unfailed_ranks, selections = [], [], []
    for build_index in sorted(set(build_indices)):
        here = np.flatnonzero(build_indices == build_index)
        order = here[np.argsort(-values[here], kind="stable")]
        cost = guesses["seconds"][order]
        builds.append((build_index, *score_order(cost, truth[order] > 0)))
        selections.append(_Selectable(cost / cost.sum(), guesses["always"][order] > 0, guesses["began"][order] > 0))
        ranks = (np.arange(len(order)) + 0.5) / len(order)
        unfailed_ranks += list(ranks[(truth[order] > 0) & (guesses["unfailed"][order] > 0)])
    table = np.array(builds)
    first = table[:, 3]
    cold = table[table[:, 0] < COLD_UNTIL, 1]
    return {
        "apfdc": float(table[:, 1].mean()),
        "apfd": float(table[:, 2].mean()),
        "napfd": float(table[:, 2].mean()),
        "first_failure_share": float(np.median(first)),
        **{name: float((first <= share).mean()) for name, share in TIMES_OVER.items()},
        "time_for_95": float(np.sort(first)[min(len(first) - 1, int(0.95 * len(first)))]),
        "first_failures": float(np.median(unfailed_ranks)) if unfailed_ranks else nan,
        "apfdc_cold": float(cold.mean()) if len(cold) else nan,
        **_promise(selections),
    }


class _Selectable(NamedTuple):
    """The tests of one build in their order."""

    cost: Column  # as shares of the build's test time
    always: NDArray[np.bool_]  # in every selection
    began: NDArray[np.bool_]  # to fail in this build

    def needed_share(self) -> float:
        """Return the share of the time that shows a new failure, as `features.test_failure.first_failure_share`."""
        return 0.0 if (self.always & self.began).any() else float(self.cost.cumsum()[self.began][0])

    def selected_share(self, share: float) -> float:
        """Return the share of the time that a selection of this share runs."""
        chosen = (self.cost.cumsum() - self.cost < share) | self.always
        run = float(self.cost[chosen].sum())
        return run + EXPLORED * (1.0 - run)


def _promise(builds: Sequence[_Selectable]) -> Mapping[str, float]:
    """Return how often the share that the builds before promise was enough, and the mean share that then runs.

    Both are NaN where no promise was made.
    """
    judged = [build for build in builds if build.began.any()]
    needed = [build.needed_share() for build in judged]
    kept, shares = [], []
    for position, build in enumerate(judged):
        share = promised_share(needed[max(0, position - MAXIMUM_FIRST_FAILURES) : position], PROMISED)
        if isinstance(share, float):
            kept.append(needed[position] <= share)
            shares.append(build.selected_share(share))
    mean = (float(np.mean(kept)), float(np.mean(shares))) if kept else (nan, nan)
    return {"promises": float(len(kept)), "promise_kept": mean[0], "promise_share": mean[1]}


def score_order(cost: Column, bad: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Return APFDc, APFD, and the share of the time until the first failure of one order of a build's tests.

    `cost` has the time of each test in that order, `bad` whether it failed; at least one did.
    Without a limit on the time every failure is found, and NAPFD (Qu, Cohen and Woolf, 2007) equals APFD.
    """
    ends, total, failures = np.cumsum(cost), cost.sum(), bad.sum()
    apfdc = float((total - ends + cost / 2)[bad].sum() / (total * failures))
    apfd = float(1 - (np.flatnonzero(bad) + 1).sum() / (len(bad) * failures) + 1 / (2 * len(bad)))
    return apfdc, apfd, float(ends[bad][0] / total)


def summary_of_orders(projects: Mapping[str, Scores]) -> Scores:
    """Return the means over projects."""
    return _mean_figures(projects)


def baselines_of_orders(projects: Mapping[str, Scores]) -> Mapping[str, Scores]:
    """Return the means over projects of each simple order."""
    return {order: _mean_figures(projects, f"_{order}") for order in ORDERS}


def _mean_figures(projects: Mapping[str, Scores], order: str = "") -> Scores:
    return {name: _known_mean([scores[f"{name}{order}"] for scores in projects.values()]) for name in ORDER_FIGURES}


def _known_mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else nan


Tallies = Mapping[str, Tally]
THRESHOLDS = {"triage": FLAKY_ABOVE, "flaky": WORTH_NAMING, "build-failure": 0.5}  # what the reports act on
DRAWS = 1000  # of the bootstrap: Efron, "Bootstrap methods: another look at the jackknife", 1979


@dataclass(frozen=True, slots=True)
class Scoring:
    """The scores of one task, as functions of the tallies by project."""

    project: Callable[[Tally], Scores]
    summary: Callable[[Mapping[str, Scores], Tallies], Scores]
    baselines: Callable[[Mapping[str, Scores], Tallies], Mapping[str, Scores]]
    drawn: Callable[[Mapping[str, Scores]], Scores]  # the part of the summary that projects alone make

    def projects(self, tallies: Tallies) -> Mapping[str, Scores]:
        """Return the scores of each project that has any."""
        return {name: scores for name, tally in tallies.items() if (scores := self.project(tally))}

    def intervals(self, projects: Mapping[str, Scores], seed: int) -> Mapping[str, tuple[float, float]]:
        """Return the 95 % bootstrap interval of each score over projects: its range under other choices of projects."""
        draw, names = random.Random(seed), sorted(projects)
        resampled: dict[str, list[float]] = {}
        for _ in range(DRAWS):
            chosen = {str(index): projects[name] for index, name in enumerate(draw.choices(names, k=len(names)))}
            for name, value in self.drawn(chosen).items():
                resampled.setdefault(name, []).append(value)
        return {name: (_quantile(values, 0.025), _quantile(values, 0.975)) for name, values in resampled.items()}


def scoring_of(task: str, from_the_first: bool) -> Scoring:
    """Return the scoring of a task; with `from_the_first`, the first ten builds count too."""
    first = 0 if from_the_first else FIRST_SCORED
    if task == "build-duration":
        return _scoring_of_projects(lambda tally: times_of(tally, first), summary_of_times, baselines_of_times)
    if task == "test-duration":
        return _scoring_of_projects(test_times_of, summary_of_test_times, baselines_of_test_times)
    if task == "test-failure":
        return _scoring_of_projects(orders_of, summary_of_orders, baselines_of_orders)
    threshold = THRESHOLDS[task]
    return Scoring(
        lambda tally: chances_of(tally, threshold, first),
        lambda projects, tallies: summary_of_chances(projects, list(tallies.values()), threshold, first),
        lambda projects, tallies: baselines_of_chances(projects, list(tallies.values()), first),
        _means,
    )


def _scoring_of_projects(
    scores_of: Callable[[Tally], Scores],
    summary_of: Callable[[Mapping[str, Scores]], Scores],
    baselines_of: Callable[[Mapping[str, Scores]], Mapping[str, Scores]],
) -> Scoring:
    """Return a scoring whose summary is made of the projects' scores alone."""
    return Scoring(
        scores_of, lambda projects, _: summary_of(projects), lambda projects, _: baselines_of(projects), summary_of
    )


def _means(projects: Mapping[str, Scores]) -> Scores:
    names = ("auc", "ap", "mcc", "auc_unseen")
    columns = {name: [scores[name] for scores in projects.values() if name in scores] for name in names}
    return {name: float(np.mean(values)) for name, values in columns.items() if values}


def _quantile(values: list[float], share: float) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.quantile(known, share)) if known else float("nan")
