"""How good predicted chances are: do they rank, do they mean what they say, and what does the shipped threshold do."""

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, matthews_corrcoef, roc_auc_score

from fedstep.simulate.score_times import FIRST_SCORED
from fedstep.simulate.tally import Column, Tally

__all__ = ["FEWEST", "baselines_of_chances", "chances_of", "summary_of_chances"]

FEWEST = 3  # positives, and negatives, from which a project's ranking is scored
HELD = 1e-4  # chances are held inside [HELD, 1 - HELD] where their logarithm is taken
Scores = Mapping[str, float]


def chances_of(tally: Tally, threshold: float, first: int = FIRST_SCORED) -> Scores:
    """The scores of one project; `auc`, `ap` and `mcc` only with three of each kind; {} where nothing was scored.

    `auc_<guess>` and `ap_<guess>` for each simple predictor; `auc_unseen` over tests that have not flipped yet.
    """
    said, truth, guesses = _seen(tally, first)
    if not len(truth):
        return {}
    scores = {"predictions": float(len(truth)), "positives": float(truth.sum())}
    if not _rankable(truth):
        return scores
    scores |= {**_ranking(said, truth), "mcc": float(matthews_corrcoef(truth, said >= threshold))}
    for name, guess in guesses.items():
        scores |= {f"{key}_{name}": value for key, value in _ranking(np.nan_to_num(guess), truth).items()}
    return {**scores, **_unseen(said, truth, guesses)}


def summary_of_chances(
    projects: Mapping[str, Scores], tallies: Sequence[Tally], threshold: float, first: int = FIRST_SCORED
) -> Scores:
    """The scores of all projects together; what is pooled is pooled over their predictions.

    `regressions_suppressed`: the share of what is no flake that was called one.
    """
    said, truth = (np.concatenate(columns) for columns in zip(*(_seen(one, first)[:2] for one in tallies), strict=True))
    negatives = truth == 0
    suppressed = float((said[negatives] >= threshold).mean()) if negatives.any() else float("nan")
    return {
        **{name: _mean(projects, name) for name in ("auc", "ap", "mcc", "auc_unseen") if _any(projects, name)},
        "pooled_ap": float(average_precision_score(truth, said)) if truth.any() else float("nan"),
        "brier_skill": _brier_skill(said, truth),
        "calibration_slope": _slope(said, truth),
        "regressions_suppressed": suppressed,
        "threshold": threshold,
        "projects_ranked": float(sum("auc" in scores for scores in projects.values())),
        "predictions": float(len(truth)),
        "positives": float(truth.sum()),
    }


def baselines_of_chances(
    projects: Mapping[str, Scores], tallies: Sequence[Tally], first: int = FIRST_SCORED
) -> Mapping[str, Scores]:
    """The same for each simple predictor; its chance is taken as it is."""
    names = sorted({name for tally in tallies for name in tally.guesses()})
    truth = np.concatenate([_seen(tally, first)[1] for tally in tallies])
    found = {}
    for name in names:
        guess = np.concatenate([np.nan_to_num(_seen(tally, first)[2].get(name, np.zeros(0))) for tally in tallies])
        keys = [key for key in ("auc", "ap", "auc_unseen") if _any(projects, f"{key}_{name}")]
        found[name] = {key: _mean(projects, f"{key}_{name}") for key in keys}
        if len(guess) == len(truth) and guess.max(initial=0.0) <= 1.0:
            found[name] |= {"brier_skill": _brier_skill(guess, truth)}
    return found


def _seen(tally: Tally, first: int) -> tuple[Column, Column, Mapping[str, Column]]:
    keep = tally.column("number") >= first
    guesses = {name: column[keep] for name, column in tally.guesses().items()}
    return tally.column("said")[keep], tally.column("truth")[keep], guesses


def _rankable(truth: Column) -> bool:
    return bool(min(truth.sum(), (1 - truth).sum()) >= FEWEST)


def _ranking(said: Column, truth: Column) -> Scores:
    return {"auc": float(roc_auc_score(truth, said)), "ap": float(average_precision_score(truth, said))}


def _unseen(said: Column, truth: Column, guesses: Mapping[str, Column]) -> Scores:
    """The ranking of tests that have not flipped yet: of those a flip rate knows nothing."""
    unseen = guesses.get("flip-rate", np.ones(len(truth))) == 0
    if not _rankable(truth[unseen]):
        return {}
    others = {f"auc_unseen_{name}": guess for name, guess in guesses.items()}
    return {
        "auc_unseen": float(roc_auc_score(truth[unseen], said[unseen])),
        **{key: float(roc_auc_score(truth[unseen], np.nan_to_num(guess[unseen]))) for key, guess in others.items()},
    }


def _brier_skill(said: Column, truth: Column) -> float:
    """1 - Brier score / that of always saying the base rate (Brier 1950); above 0 is better than the base rate."""
    base = ((truth.mean() - truth) ** 2).mean()
    return float(1 - ((said - truth) ** 2).mean() / base) if base else float("nan")


def _slope(said: Column, truth: Column) -> float:
    """The slope of a logistic regression of the truth on the said log-odds: 1 where chances mean what they say.

    Cox, "Two further applications of a model for binary regression", 1958.
    """
    if not 0 < truth.sum() < len(truth):
        return float("nan")
    held = np.clip(said, HELD, 1 - HELD)
    odds = np.log(held / (1 - held)).reshape(-1, 1)
    return float(LogisticRegression(C=np.inf).fit(odds, truth).coef_[0, 0])


def _any(projects: Mapping[str, Scores], name: str) -> bool:
    return any(name in scores for scores in projects.values())


def _mean(projects: Mapping[str, Scores], name: str) -> float:
    return float(np.mean([scores[name] for scores in projects.values() if name in scores]))
