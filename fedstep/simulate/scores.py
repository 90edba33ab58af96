"""Which scores a task has, over one project, over all, over the simple predictors, with intervals."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fedstep.forecast import FLAKY_ABOVE, WORTH_NAMING
from fedstep.simulate.score_chances import baselines_of_chances, chances_of, summary_of_chances
from fedstep.simulate.score_test_times import baselines_of_test_times, summary_of_test_times, test_times_of
from fedstep.simulate.score_times import FIRST_SCORED, baselines_of_times, summary_of_times, times_of
from fedstep.simulate.tally import Tally

__all__ = ["Scores", "Scoring", "scoring_of"]

Scores = Mapping[str, float]
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
        """The scores of each project that has any."""
        return {name: scores for name, tally in tallies.items() if (scores := self.project(tally))}

    def intervals(self, projects: Mapping[str, Scores], seed: int) -> Mapping[str, tuple[float, float]]:
        """The 95 % bootstrap interval of each score over projects: what another choice of projects might have given."""
        draw, names = random.Random(seed), sorted(projects)
        found: dict[str, list[float]] = {}
        for _ in range(DRAWS):
            chosen = {str(number): projects[name] for number, name in enumerate(draw.choices(names, k=len(names)))}
            for name, value in self.drawn(chosen).items():
                found.setdefault(name, []).append(value)
        return {name: (_quantile(values, 0.025), _quantile(values, 0.975)) for name, values in found.items()}


def scoring_of(task: str, from_the_first: bool) -> Scoring:
    """The scoring of a task; `from_the_first`: the first ten builds count too."""
    first = 0 if from_the_first else FIRST_SCORED
    if task == "build-duration":
        return Scoring(
            lambda tally: times_of(tally, first),
            lambda projects, _: summary_of_times(projects),
            lambda projects, _: baselines_of_times(projects),
            summary_of_times,
        )
    if task == "test-duration":
        return Scoring(
            test_times_of,
            lambda projects, _: summary_of_test_times(projects),
            lambda projects, _: baselines_of_test_times(projects),
            summary_of_test_times,
        )
    threshold = THRESHOLDS[task]
    return Scoring(
        lambda tally: chances_of(tally, threshold, first),
        lambda projects, tallies: summary_of_chances(projects, list(tallies.values()), threshold, first),
        lambda projects, tallies: baselines_of_chances(projects, list(tallies.values()), first),
        _means,
    )


def _means(projects: Mapping[str, Scores]) -> Scores:
    names = ("auc", "ap", "mcc", "auc_unseen")
    columns = {name: [scores[name] for scores in projects.values() if name in scores] for name in names}
    return {name: float(np.mean(values)) for name, values in columns.items() if values}


def _quantile(values: list[float], share: float) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.quantile(known, share)) if known else float("nan")
