"""How right the list of flaky tests is: recorded builds in which one drawn test flakes and another one always fails."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from fedstep.history.records import make_record
from fedstep.history.summary import Summary, apply_record, stream_name
from fedstep.model.predictor import Predictor
from fedstep.model.state import LocalModel
from fedstep.results import TestRisk
from fedstep.schema.schema import schema
from fedstep.types import Build, Change, FinishedBuild, Outcome, TestRun

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
    told = [one._replace(reports=builds[0].reports) for one in builds] if repeated else list(builds)
    unknown = frozenset(run.test for one in told for run in one.reports.tests if run.outcome in "fck")
    always = set.intersection(*({run.test for run in one.reports.tests if run.outcome == "p"} for one in told))
    steady = sorted(always - unknown)
    if len(steady) < 2:
        return None
    flake, red = draw.sample(steady, 2)
    failed = tuple(draw.random() < rate for _ in told)
    drawn = (
        _with_failures(one, {red, flake} if fails else {red}, repeated) for one, fails in zip(told, failed, strict=True)
    )
    return DrawnHistory(tuple(drawn), flake, failed, unknown)


def _with_failures(build: FinishedBuild, failing: set[str], repeated: bool) -> FinishedBuild:
    runs = tuple(_failed(run) if run.test in failing else run for run in build.reports.tests)
    change = build.situation.change
    if repeated and isinstance(change, Change):
        change = change._replace(commit="1" * 40, tree="", files=())
    situation = build.situation._replace(change=change)
    return build._replace(situation=situation, reports=build.reports._replace(tests=runs))


def _failed(run: TestRun) -> TestRun:
    return run._replace(outcome=Outcome.FAILED, failure_type="AssertionError")


def judge_list(history: DrawnHistory, rate: float, repeated: bool) -> ListOutcome:
    """Return what the list says build by build, by the evidence and the start weights alone."""
    lists = [{risk.test for risk in one} for one in _lists(history.builds)]
    failures = [number for number, fails in enumerate(history.failed) if fails]
    judged = lists[min(JUDGED_AT, len(lists)) - 1] - history.unknown
    listed = next((number for number, names in enumerate(lists) if history.flake in names), None)
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
    for number, one in enumerate(builds):
        build = Build(f"{number:032x}", one.situation, one.finished_at, one.duration, one.outcome, one.reports)
        record = make_record(build, stream_name(one.situation.ci, ""), "")
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
        some = [one for one in outcomes if one.repeated == repeated]
        right, wrong = sum(one.right for one in some), sum(one.wrong for one in some)
        thirds = [one.third for one in some if one.rate == RATES[-1] and one.third is not None]
        if right + wrong:
            scores[f"list_precision_at_{JUDGED_AT}{end}"] = right / (right + wrong)
        if thirds:
            scores[f"list_by_third_failure{end}"] = sum(thirds) / len(thirds)
        for rate in RATES:
            waits = [one.waited for one in some if one.rate == rate and one.waited is not None]
            if waits:
                scores[f"list_builds_until_{rate:g}{end}"] = float(median(waits))
    green = sum(one.green for one in outcomes)
    if green:
        scores["list_false_per_1000_first"] = 1000 * sum(one.false_first for one in outcomes) / green
    return scores
