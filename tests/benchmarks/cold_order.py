"""What a project could learn alone about the order of its tests, beside the weights that all projects have.

python -m tests.benchmarks.cold_order FOLDER..., each with unpacked archives of tests/data/regressions. The weights of
`features.test_failure` are constants, chosen on other projects: they are the same from the first build on. "Alone" are
weights of the same features that a project learns from its own earlier failing builds, by logistic regression on pairs
of a failing and a passing test, from the order by time; the ridge is given for each column.
"""

import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from fedstep.evaluation.corpus import CorpusProject, find_projects
from fedstep.evaluation.ordering import COLD_UNTIL, FIRST_ORDERED, replay_histories
from fedstep.evaluation.replay import recorded_builds, recorded_kinds, recorded_words
from fedstep.evaluation.scores import score_order
from fedstep.features import test_failure as features
from fedstep.history.summary import Summary
from fedstep.history.test_table import index_tests, with_tests
from fedstep.history.word_index import WordIndex, index_words
from fedstep.types import Build, Change, Outcome

RIDGES = (0.1, 0.3, 1.0, 3.0)
PAIRS = 40  # passing tests that each failing one is compared with
BY_TIME = np.array([0.0] * 7 + [-features.TIME])
SHARED = np.array(
    [
        *(features.PATH, features.STEM, features.CLASSMATES, features.SOURCE),
        *(features.NAME, features.FILES, features.FOLDERS, -features.TIME),
    ]
)
Column = NDArray[np.float64]
Failures = tuple[Column, NDArray[np.bool_]]  # the features of the tests of a build, and which of them failed


def main() -> None:
    """Print the mean APFDc over projects, in builds 3 to 20 and in all."""
    cold: list[list[float]] = []
    whole: list[list[float]] = []
    for project in find_projects(list(map(Path, sys.argv[1:])), ("folders",)):
        rows = list(score(project))
        early = [scores for number, scores in rows if number < COLD_UNTIL]
        for found, kept in ((early, cold), ([scores for _, scores in rows], whole)):
            kept += [[statistics.mean(column) for column in zip(*found, strict=True)]] if found else []
    print("shared weights, and alone with a ridge of", *RIDGES)
    for name, kept in (("builds 3 to 20", cold), ("all builds", whole)):
        means = [statistics.mean(column) for column in zip(*kept, strict=True)]
        print(f"{name}, {len(kept)} projects: {' '.join(f'{mean:.3f}' for mean in means)}")


def score(project: CorpusProject) -> Iterator[tuple[int, list[float]]]:
    """The APFDc of the shared weights and of those learned alone, for each failing build but the first three."""
    builds, kinds, sources = (
        recorded_builds(project),
        recorded_kinds(project.beside("truth.csv")),
        recorded_words(project),
    )
    words: dict[str, tuple[str, ...]] = {}
    past: list[Failures] = []
    for number, summary, build, bad in replay_histories(builds, kinds):
        words |= sources(build.situation.ci.run) if sources else {}
        if not bad:
            continue
        own = {run.test: words.get(run.test.partition("[")[0], ()) for run in build.reports.tests}
        values, seconds, failed = measure(summary, build, bad, index_words(own))
        if number >= FIRST_ORDERED:
            weights = [SHARED, *(learn(past, ridge) for ridge in RIDGES)]
            yield number, [apfdc(values @ one, seconds, failed) for one in weights]
        past.append((values, failed))


def measure(
    summary: Summary, build: Build, bad: frozenset[str], index: WordIndex
) -> tuple[Column, Column, NDArray[np.bool_]]:
    """The parts of `failure_scores` and the logarithm of the time, the time, and the failures, by test that ran."""
    runs = [run for run in build.reports.tests if run.outcome != Outcome.SKIPPED]
    by_id, change = index_tests(with_tests(summary.tests, (run.test for run in runs))), build.situation.change
    tests = {by_id[run.test].test: by_id[run.test] for run in runs}
    files = change.files if isinstance(change, Change) else ()
    parts = features.score_parts(summary.cofailures, tests, files)
    by_test = (features.source_overlap(index, change), parts.name, parts.with_files, parts.with_folders)
    seconds = dict(features.order_tests(summary, tests, files))
    rows = []
    for run in runs:
        test = by_id[run.test].test
        group = parts.groups[test]
        rows.append([parts.path[group], float(group in parts.named_after), parts.classmates.get(group, 0.0)])
        rows[-1] += [shares.get(test, 0.0) for shares in by_test]
        rows[-1].append(np.log(seconds[test] + features.BESIDE))
    times = np.array([seconds[by_id[run.test].test] for run in runs])
    return np.array(rows), times, np.array([run.test in bad for run in runs])


def learn(past: Sequence[Failures], ridge: float) -> Column:
    """The weights that earlier failing builds teach; those of the order by time before the first."""
    draw, pairs, shares = np.random.default_rng(0), [], []
    for values, failed in past:
        passing = np.flatnonzero(~failed)
        others = [draw.choice(passing, min(PAIRS, len(passing)), replace=False) for _ in np.flatnonzero(failed)[:10]]
        rows = [values[place] - values[some] for place, some in zip(np.flatnonzero(failed), others, strict=False)]
        if len(passing):
            pairs.append(np.vstack(rows))
            shares.append(np.full(len(pairs[-1]), 1.0 / len(pairs[-1])))
    if not pairs:
        return BY_TIME
    differences, weights = np.vstack(pairs), np.concatenate(shares)

    def loss(found: Column) -> Any:
        margins = differences @ found
        value = (weights * np.logaddexp(0.0, -margins)).sum() + ridge * ((found - BY_TIME) ** 2).sum()
        return value, 2.0 * ridge * (found - BY_TIME) - differences.T @ (weights / (1.0 + np.exp(margins)))

    learned: Column = minimize(loss, BY_TIME, jac=True, method="L-BFGS-B", options={"maxiter": 100}).x
    return learned


def apfdc(scores: Column, seconds: Column, failed: NDArray[np.bool_]) -> float:
    """The cost-cognisant average percentage of faults detected, largest score first."""
    order = np.argsort(-scores, kind="stable")
    return score_order(seconds[order], failed[order])[0]


if __name__ == "__main__":
    main()
