"""Run one study: predict and score recorded projects for one task in one mode, beside simple predictors."""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import nan
from pathlib import Path
from typing import Protocol, TypeVar

from joblib import Parallel, cpu_count, delayed, parallel_config

from fedstep.errors import InputError, MissingExtra, UsageError
from fedstep.evaluation.corpus import CorpusProject, find_projects
from fedstep.evaluation.flaky_list import ListOutcome, list_outcomes, score_lists
from fedstep.evaluation.replay import Extracted, extract, interleaved, order_project, recorded_builds, time_tests
from fedstep.evaluation.scores import Scores, Scoring, Tally, scoring_of
from fedstep.evaluation.simulated_federation import (
    MODES,
    CasePrediction,
    ReadOnlyLearner,
    SimulatedProject,
    lessons,
    predicted,
    train_global,
)
from fedstep.types import Dropped


@contextmanager
def workers(backend: str, jobs: int) -> Iterator[None]:
    """Run the joblib calls of the context in `jobs` processes (0: one per core), or on Dask.

    Dask's workers are those of the scheduler that DASK_SCHEDULER_ADDRESS names, which need to see the same files;
    without one, `jobs` processes of this machine. Raises MissingExtra where Dask is not installed.
    """
    jobs = jobs or cpu_count()
    if backend != "dask":
        with parallel_config(backend="loky", n_jobs=jobs):
            yield
        return
    try:
        from dask import config
        from distributed import Client
    except ImportError as error:
        raise MissingExtra("Dask is not installed", "Run: pip install 'fedstep[dask]'") from error
    own = {} if config.get("scheduler-address", None) else {"n_workers": jobs, "threads_per_worker": 1}
    with Client(**own, dashboard_address=None) as client, parallel_config(backend="dask", client=client):  # type: ignore[no-untyped-call]
        yield


# Which layouts a task can be studied on.
TASKS = {
    "build-duration": ("builds", "folders"),
    "build-failure": ("builds", "folders"),
    "test-duration": ("results", "folders"),
    "flaky": ("folders", "results", "tests"),
    "triage": ("folders", "results"),
    "test-failure": ("folders", "results"),
}
LOCAL_TASKS = {"test-duration": time_tests, "test-failure": order_project}  # nothing of them is shared
LEFT_OUT = {"global-only": False, "starter": True}  # modes of each project with the others' weights; whether it learns
T = TypeVar("T")


class StudyProgress(Protocol):
    """A progress display over a known number of parts, which it passes on."""

    def __call__(self, parts: Iterable[T], label: str, count: int) -> Iterable[T]: ...


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """What to study. `held_out` projects contribute nothing; in a mode of LEFT_OUT they alone are scored."""

    task: str
    mode: str = "federated"
    held_out: tuple[str, ...] = ()
    seed: int = 1
    jobs: int = 1
    backend: str = "local"
    cold_start: bool = False  # score the first builds too


@dataclass(frozen=True, slots=True)
class Study:
    """The results: scores by project, in total and of simple predictors; intervals; what could not be read."""

    plan: StudyPlan
    projects: Mapping[str, Scores]
    summary: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]  # 95 %, by drawing projects
    baselines: Mapping[str, Scores]
    second: Mapping[str, float]  # the summary of another interleaving; {} where order plays no part
    dropped: int
    named: tuple[Dropped, ...]
    tallies: Mapping[str, Tally] = field(repr=False)


def run_study(places: Sequence[Path], plan: StudyPlan, progress: StudyProgress) -> Study:
    """Replay the projects below the places. Raises InputError where there is nothing to replay."""
    projects = find_projects(places, TASKS[plan.task])
    unknown = set(plan.held_out) - {project.name for project in projects}
    if unknown:
        raise UsageError(f"--hold-out {sorted(unknown)[0]}: no such project", "Name one as its folder is called")
    with tempfile.TemporaryDirectory(prefix="fedstep-simulate-") as folder:
        extracted = _extracted(projects, plan, Path(folder), progress)
        reruns = _extracted_reruns(projects, plan, Path(folder))
        scoring = scoring_of(plan.task, plan.cold_start or _static(projects))
        tallies = _tallied(_predictions(extracted, reruns, plan, None, progress))
        again = (
            _tallied(_predictions(extracted, reruns, plan, plan.seed, progress))
            if plan.mode in MODES and plan.task not in LOCAL_TASKS
            else {}
        )
    study = _study(plan, scoring, extracted, tallies, again)
    return replace(study, summary={**study.summary, **_score_lists(projects, plan)})


def _score_lists(projects: Sequence[CorpusProject], plan: StudyPlan) -> Mapping[str, float]:
    """Return how right the list of flaky tests is where a drawn test of the recorded builds flakes; {} for others."""
    recorded = [project for project in projects if project.kind == "folders"] if plan.task == "flaky" else []
    with workers(plan.backend, plan.jobs):
        outcomes = Parallel()(delayed(_list_outcomes)(project, plan.seed) for project in recorded) if recorded else ()
    return score_lists([one for some in outcomes for one in some])


def _list_outcomes(project: CorpusProject, seed: int) -> Sequence[ListOutcome]:
    return list_outcomes(recorded_builds(project), project.name, seed)


def _study(
    plan: StudyPlan,
    scoring: Scoring,
    extracted: Sequence[Extracted],
    tallies: Mapping[str, Tally],
    again: Mapping[str, Tally],
) -> Study:
    scores = scoring.projects(tallies)
    if not scores:
        raise InputError("no prediction could be scored", "A project needs more than ten builds, or give --cold-start")
    return Study(
        plan,
        scores,
        scoring.summary(scores, tallies),
        scoring.intervals(scores, plan.seed),
        scoring.baselines(scores, tallies),
        scoring.summary(scoring.projects(again), again) if again else {},
        sum(one.dropped for one in extracted),
        tuple(dropped for one in extracted for dropped in one.named),
        tallies,
    )


def _extracted(
    projects: Sequence[CorpusProject], plan: StudyPlan, folder: Path, progress: StudyProgress
) -> list[Extracted]:
    """Extract a file of steps per project; a table of reruns beside folders of the same name is their truth."""
    reruns = {project.name: project for project in projects if project.kind == "tests"}
    played = [project for project in projects if project.kind != "tests" or not _is_truth(project, projects)]
    paths = [folder / f"{number}.jsonl" for number in range(len(played))]
    if plan.task in LOCAL_TASKS:
        jobs = [delayed(LOCAL_TASKS[plan.task])(*one) for one in zip(played, paths, strict=True)]
    else:
        jobs = [
            delayed(extract)(project, plan.task, reruns.get(project.name), path)
            for project, path in zip(played, paths, strict=True)
        ]
    with workers(plan.backend, plan.jobs):
        done = Parallel(return_as="generator")(jobs)
        return list(progress(done, "reading", len(played)))


def _extracted_reruns(projects: Sequence[CorpusProject], plan: StudyPlan, folder: Path) -> list[Extracted]:
    """Extract the tables of reruns that are the truth of other folders: the left-out model learns their words, too.

    The starter model is made this way. A project's own table is left out with it.
    """
    if plan.mode not in LEFT_OUT or plan.task != "flaky":
        return []
    tables = [project for project in projects if project.kind == "tests" and _is_truth(project, projects)]
    return [
        extract(project, plan.task, None, folder / f"reruns-{number}.jsonl") for number, project in enumerate(tables)
    ]


def _is_truth(project: CorpusProject, projects: Sequence[CorpusProject]) -> bool:
    return any(other.name == project.name and other.kind == "folders" for other in projects)


def _static(projects: Sequence[CorpusProject]) -> bool:
    """Return whether the tests have no history, so that there is no first build to leave out."""
    return all(project.kind == "tests" for project in projects)


def _predictions(
    extracted: Sequence[Extracted],
    reruns: Sequence[Extracted],
    plan: StudyPlan,
    seed: int | None,
    progress: StudyProgress,
) -> Iterator[CasePrediction]:
    if plan.task in LOCAL_TASKS:
        return _timed(extracted) if plan.task == "test-duration" else _ordered(extracted)
    if plan.mode in LEFT_OUT:
        return _left_out_in_turn(extracted, reruns, plan, progress)
    return _lived_through(extracted, plan, seed, progress)


def _lived_through(
    extracted: Sequence[Extracted], plan: StudyPlan, seed: int | None, progress: StudyProgress
) -> Iterator[CasePrediction]:
    shared = MODES[plan.mode](plan.task)
    reading = ReadOnlyLearner(shared)
    participants = {
        one.project: SimulatedProject(one.project, plan.task, reading if one.project in plan.held_out else shared)
        for one in extracted
    }
    steps = progress(interleaved(extracted, seed), plan.mode, sum(one.steps for one in extracted))
    for name, step in steps:
        yield from participants[name].live(step)


def _timed(extracted: Sequence[Extracted]) -> Iterator[CasePrediction]:
    """Predict the times of tests from their own past alone, in every mode."""
    for one in extracted:
        with one.path.open(encoding="utf-8") as file:
            for build, seconds, expected, median_20 in map(json.loads, file):
                yield CasePrediction(one.project, build, expected, nan, nan, seconds, {"median-20": median_20})


def _ordered(extracted: Sequence[Extracted]) -> Iterator[CasePrediction]:
    """Order tests by the project's own past alone, in every mode."""
    for one in extracted:
        with one.path.open(encoding="utf-8") as file:
            for build, score, failed, others in map(json.loads, file):
                yield CasePrediction(one.project, build, score, nan, nan, float(failed), others)


def _left_out_in_turn(
    extracted: Sequence[Extracted], reruns: Sequence[Extracted], plan: StudyPlan, progress: StudyProgress
) -> Iterator[CasePrediction]:
    """Predict each project in turn, or each one held out, with the model of all others."""
    rows = {(one.project, kind): lessons(one) for kind, some in enumerate((extracted, reruns)) for one in some}
    turns = [one for one in extracted if not plan.held_out or one.project in plan.held_out]
    excluded = set(plan.held_out)
    jobs = (
        delayed(train_global)(
            plan.task,
            {f"{name} {kind}": some for (name, kind), some in rows.items() if name not in excluded | {one.project}},
            plan.seed,
        )
        for one in turns
    )
    with workers(plan.backend, plan.jobs):
        models = Parallel(return_as="generator")(jobs)
        for one, weights in zip(turns, progress(models, "leaving out", len(turns)), strict=True):
            yield from predicted(plan.task, one, weights, LEFT_OUT[plan.mode])


def _tallied(predictions: Iterable[CasePrediction]) -> Mapping[str, Tally]:
    tallies: dict[str, Tally] = {}
    for one in predictions:
        tallies.setdefault(one.project, Tally()).add(one)
    return dict(sorted(tallies.items()))
