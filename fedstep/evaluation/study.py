"""Run one study: predict and score recorded projects for one task in one mode, beside simple predictors."""

import json
import random
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import nan
from pathlib import Path
from statistics import median
from typing import NamedTuple, Protocol, TypeVar

from joblib import Parallel, cpu_count, delayed, parallel_config

from fedstep.errors import InputError, MissingExtra, UsageError
from fedstep.evaluation.corpus import CorpusProject, find_projects
from fedstep.evaluation.replay import Extracted, extract, interleave, order_project, recorded_builds, time_tests
from fedstep.evaluation.scores import Scores, Scoring, Tally, scoring_of
from fedstep.evaluation.simulated_federation import (
    MODES,
    CasePrediction,
    ReadOnlyLearner,
    SimulatedProject,
    lessons,
    predict_left_out,
    train_global,
)
from fedstep.history.records import make_record
from fedstep.history.summary import Summary, apply_record, stream_name
from fedstep.model.predictor import Predictor
from fedstep.model.state import LocalModel
from fedstep.results import TestRisk
from fedstep.schema.schema import schema
from fedstep.types import Build, Change, Dropped, FinishedBuild, Outcome, TestRun


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
    "triage": ("folders", "results", "tests"),
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
        extracted = _extract_projects(projects, plan, Path(folder), progress)
        reruns = _extract_reruns(projects, plan, Path(folder))
        # Tests alone have no history: there is no first build to leave out.
        scoring = scoring_of(plan.task, plan.cold_start or all(project.kind == "tests" for project in projects))
        tallies = _tally(_predictions(extracted, reruns, plan, None, progress))
        again = (
            _tally(_predictions(extracted, reruns, plan, plan.seed, progress))
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
    return score_lists([outcome for some in outcomes for outcome in some])


def _list_outcomes(project: CorpusProject, seed: int) -> "Sequence[ListOutcome]":
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
        sum(recorded.dropped for recorded in extracted),
        tuple(dropped for recorded in extracted for dropped in recorded.named),
        tallies,
    )


def _extract_projects(
    projects: Sequence[CorpusProject], plan: StudyPlan, folder: Path, progress: StudyProgress
) -> list[Extracted]:
    """Extract a file of steps per project; a table of reruns beside folders of the same name is their truth."""
    reruns = {project.name: project for project in projects if project.kind == "tests"}
    played = [project for project in projects if project.kind != "tests" or not _is_truth(project, projects)]
    weights: Mapping[str, Sequence[float]] = {}
    if plan.task == "triage":
        played = [project for project in played if project.kind != "tests"]
        with workers(plan.backend, plan.jobs):
            weights = learn_words(projects, plan.seed, folder / "words.jsonl")
    paths = [folder / f"{index}.jsonl" for index in range(len(played))]
    if plan.task in LOCAL_TASKS:
        jobs = [delayed(LOCAL_TASKS[plan.task])(*pair) for pair in zip(played, paths, strict=True)]
    else:
        jobs = [
            delayed(extract)(project, plan.task, reruns.get(project.name), path, weights.get(project.name, ()))
            for project, path in zip(played, paths, strict=True)
        ]
    with workers(plan.backend, plan.jobs):
        done = Parallel(return_as="generator")(jobs)
        return list(progress(done, "reading", len(played)))


def learn_words(projects: Sequence[CorpusProject], seed: int, path: Path) -> Mapping[str, Sequence[float]]:
    """Return the weights by which triage judges words, by project: learned from the tables of reruns of the others.

    `path` is a file to work with. {} where no table is given: then words count nothing.
    """
    tables = [project for project in projects if project.kind == "tests"]
    rows = {table.name: lessons(extract(table, "flaky", None, path)) for table in tables}
    names = sorted({project.name for project in projects if project.kind != "tests" and set(rows) - {project.name}})
    others = [frozenset(rows) - {name} for name in names]
    distinct = sorted(set(others), key=sorted)
    jobs = (delayed(train_global)("flaky", {name: rows[name] for name in sorted(some)}, seed) for some in distinct)
    learned = dict(zip(distinct, Parallel()(jobs), strict=True))
    return {name: learned[some] for name, some in zip(names, others, strict=True)}


def _extract_reruns(projects: Sequence[CorpusProject], plan: StudyPlan, folder: Path) -> list[Extracted]:
    """Extract the tables of reruns that are the truth of other folders: the left-out model learns their words, too.

    The starter model is made this way. A project's own table is left out with it.
    """
    if plan.mode not in LEFT_OUT or plan.task != "flaky":
        return []
    tables = [project for project in projects if project.kind == "tests" and _is_truth(project, projects)]
    return [extract(project, plan.task, None, folder / f"reruns-{index}.jsonl") for index, project in enumerate(tables)]


def _is_truth(project: CorpusProject, projects: Sequence[CorpusProject]) -> bool:
    return any(other.name == project.name and other.kind == "folders" for other in projects)


def _predictions(
    extracted: Sequence[Extracted],
    reruns: Sequence[Extracted],
    plan: StudyPlan,
    seed: int | None,
    progress: StudyProgress,
) -> Iterator[CasePrediction]:
    if plan.task in LOCAL_TASKS:
        return _predict_times(extracted) if plan.task == "test-duration" else _predict_orders(extracted)
    if plan.mode in LEFT_OUT:
        return _leave_out_in_turn(extracted, reruns, plan, progress)
    return _live_through_builds(extracted, plan, seed, progress)


def _live_through_builds(
    extracted: Sequence[Extracted], plan: StudyPlan, seed: int | None, progress: StudyProgress
) -> Iterator[CasePrediction]:
    shared = MODES[plan.mode](plan.task)
    reading = ReadOnlyLearner(shared)
    participants = {
        each.project: SimulatedProject(each.project, plan.task, reading if each.project in plan.held_out else shared)
        for each in extracted
    }
    steps = progress(interleave(extracted, seed), plan.mode, sum(recorded.steps for recorded in extracted))
    for name, step in steps:
        yield from participants[name].live(step)


def _predict_times(extracted: Sequence[Extracted]) -> Iterator[CasePrediction]:
    """Predict the times of tests from their own past alone, in every mode."""
    for recorded in extracted:
        with recorded.path.open(encoding="utf-8") as file:
            for build, seconds, expected, median_20 in map(json.loads, file):
                yield CasePrediction(recorded.project, build, expected, nan, nan, seconds, {"median-20": median_20})


def _predict_orders(extracted: Sequence[Extracted]) -> Iterator[CasePrediction]:
    """Order tests by the project's own past alone, in every mode."""
    for recorded in extracted:
        with recorded.path.open(encoding="utf-8") as file:
            for build, score, failed, others in map(json.loads, file):
                yield CasePrediction(recorded.project, build, score, nan, nan, float(failed), others)


def _leave_out_in_turn(
    extracted: Sequence[Extracted], reruns: Sequence[Extracted], plan: StudyPlan, progress: StudyProgress
) -> Iterator[CasePrediction]:
    """Predict each project in turn, or each one held out, with the model of all others."""
    rows = {(each.project, kind): lessons(each) for kind, some in enumerate((extracted, reruns)) for each in some}
    turns = [recorded for recorded in extracted if not plan.held_out or recorded.project in plan.held_out]
    excluded = set(plan.held_out)
    jobs = (
        delayed(train_global)(
            plan.task,
            {f"{name} {kind}": some for (name, kind), some in rows.items() if name not in excluded | {each.project}},
            plan.seed,
        )
        for each in turns
    )
    with workers(plan.backend, plan.jobs):
        models = Parallel(return_as="generator")(jobs)
        for recorded, weights in zip(turns, progress(models, "leaving out", len(turns)), strict=True):
            yield from predict_left_out(plan.task, recorded, weights, LEFT_OUT[plan.mode])


def _tally(predictions: Iterable[CasePrediction]) -> Mapping[str, Tally]:
    tallies: dict[str, Tally] = {}
    for prediction in predictions:
        tallies.setdefault(prediction.project, Tally()).add(prediction)
    return dict(sorted(tallies.items()))


# The list of flaky tests: is a drawn flake on it, and what else?
RATES = (0.01, 0.05, 0.3)  # of a drawn flake's runs that fail
MOST_BUILDS = 30
DRAWS = 3  # histories of one project, rate and kind
JUDGED_AT = 10  # builds after which the precision of the list is measured
LISTED = 10  # tests of a list


class DrawnHistory(NamedTuple):
    """Recorded builds with a flake and an always failing test, both drawn among the tests that never failed."""

    builds: tuple[FinishedBuild, ...]
    flake: str
    failed: tuple[bool, ...]  # whether the flake failed, by build
    unknown: frozenset[str]  # tests that failed in the recording: nobody knows whether they are flaky


class ListOutcome(NamedTuple):
    """What one drawn history showed."""

    rate: float
    repeated: bool  # all builds ran one commit
    right: int  # tests of the list after JUDGED_AT builds that are the flake ...
    wrong: int  # ... and that never failed by themselves, or always fail
    third: bool | None  # listed with its third failure; None without one
    waited: int | None  # builds from the first failure until it is listed; None where it never was or never failed
    false_first: int  # names on the list after the first build, of tests that passed
    green: int  # tests that passed in it


def draw_history(
    builds: Sequence[FinishedBuild], rate: float, repeated: bool, draw: random.Random
) -> DrawnHistory | None:
    """Return the builds with a drawn flake and a red test; None where fewer than two tests never failed.

    With `repeated` the reports of the first build, all of one commit without a change.
    """
    if not builds:
        return None
    history = [build._replace(reports=builds[0].reports) for build in builds] if repeated else list(builds)
    unknown = frozenset(run.test for build in history for run in build.reports.tests if run.outcome in "fck")
    always = set.intersection(*({run.test for run in build.reports.tests if run.outcome == "p"} for build in history))
    steady = sorted(always - unknown)
    if len(steady) < 2:
        return None
    flake, red = draw.sample(steady, 2)
    failed = tuple(draw.random() < rate for _ in history)
    drawn = (
        _with_failures(build, {red, flake} if fails else {red}, repeated)
        for build, fails in zip(history, failed, strict=True)
    )
    return DrawnHistory(tuple(drawn), flake, failed, unknown)


def _with_failures(build: FinishedBuild, failing: set[str], repeated: bool) -> FinishedBuild:
    runs = tuple(_as_failed(run) if run.test in failing else run for run in build.reports.tests)
    change = build.situation.change
    if repeated and isinstance(change, Change):
        change = change._replace(commit="1" * 40, tree="", files=())
    situation = build.situation._replace(change=change)
    return build._replace(situation=situation, reports=build.reports._replace(tests=runs))


def _as_failed(run: TestRun) -> TestRun:
    return run._replace(outcome=Outcome.FAILED, failure_type="AssertionError")


def judge_list(history: DrawnHistory, rate: float, repeated: bool) -> ListOutcome:
    """Return what the list says build by build, by the evidence and the start weights alone."""
    lists = [{risk.test for risk in risks} for risks in _lists(history.builds)]
    failures = [index for index, fails in enumerate(history.failed) if fails]
    judged = lists[min(JUDGED_AT, len(lists)) - 1] - history.unknown
    listed = next((index for index, names in enumerate(lists) if history.flake in names), None)
    green = {run.test for run in history.builds[0].reports.tests if run.outcome == "p"}
    return ListOutcome(
        rate,
        repeated,
        right=int(history.flake in judged),
        wrong=len(judged - {history.flake}),
        third=history.flake in lists[failures[2]] if len(failures) > 2 else None,
        waited=listed - failures[0] + 1 if failures and listed is not None else None,
        false_first=len(lists[0] & green),
        green=len(green),
    )


def _lists(builds: Iterable[FinishedBuild]) -> Iterator[Sequence[TestRisk]]:
    predictor = Predictor({name: task.start() for name, task in schema().tasks.items()}, LocalModel())
    summary = Summary()
    for index, finished in enumerate(builds):
        build = Build(f"{index:032x}", *finished)
        record = make_record(build, stream_name(finished.situation.ci, ""), "")
        summary = apply_record(summary, build.name, record)
        yield predictor.flakiest(summary, LISTED)


def list_outcomes(builds: Sequence[FinishedBuild], name: str, seed: int) -> tuple[ListOutcome, ...]:
    """Return the outcomes of one project: each rate, on many commits and on one."""
    outcomes = []
    for repeated in (False, True):
        for rate in RATES:
            draw = random.Random(f"{seed} {name} {rate} {repeated}")
            drawn = (draw_history(builds[:MOST_BUILDS], rate, repeated, draw) for _ in range(DRAWS))
            outcomes += [judge_list(history, rate, repeated) for history in drawn if history is not None]
    return tuple(outcomes)


def score_lists(outcomes: Sequence[ListOutcome]) -> Mapping[str, float]:
    """Return the scores of all histories together, on many commits and on one commit (`_repeated`)."""
    scores: dict[str, float] = {}
    for repeated, end in ((False, ""), (True, "_repeated")):
        some = [outcome for outcome in outcomes if outcome.repeated == repeated]
        right, wrong = sum(outcome.right for outcome in some), sum(outcome.wrong for outcome in some)
        thirds = [outcome.third for outcome in some if outcome.rate == RATES[-1] and outcome.third is not None]
        if right + wrong:
            scores[f"list_precision_at_{JUDGED_AT}{end}"] = right / (right + wrong)
        if thirds:
            scores[f"list_by_third_failure{end}"] = sum(thirds) / len(thirds)
        for rate in RATES:
            waits = [outcome.waited for outcome in some if outcome.rate == rate and outcome.waited is not None]
            if waits:
                scores[f"list_builds_until_{rate:g}{end}"] = float(median(waits))
    green = sum(outcome.green for outcome in outcomes)
    if green:
        scores["list_false_per_1000_first"] = 1000 * sum(outcome.false_first for outcome in outcomes) / green
    return scores
