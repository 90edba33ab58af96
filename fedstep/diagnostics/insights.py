"""Compute what a project's page, digest and badges show, from the local history alone."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date
from itertools import groupby, pairwise
from math import ceil, isfinite
from statistics import mean, median
from typing import NamedTuple

from fedstep.errors import FedstepError, HistoryError
from fedstep.features.test_duration import expected_test_seconds
from fedstep.features.test_features import ACTIVE_BUILDS, typical_seconds
from fedstep.federation.model_cache import load_model
from fedstep.federation.outbox import read_audit
from fedstep.history.flakiness import group_by_cause
from fedstep.history.project_store import ProjectStore, build_name, exclusive
from fedstep.history.records import Example
from fedstep.history.summary import (
    Progress,
    Summary,
    apply_record,
    read_summary,
    save_summary,
    say_nothing,
    unprocessed_records,
)
from fedstep.history.test_table import TestStats, taken_ids
from fedstep.history.timeline import (
    MOST_CAUGHT_UP,
    Timeline,
    apply_to_timeline,
    catch_up_timeline,
    read_timeline,
    save_timeline,
)
from fedstep.ingest.change_impact import count_tests, is_stand_in
from fedstep.ingest.mutes import Mutes, find_mute, is_acknowledged, read_acknowledgements, read_mutes
from fedstep.model.labels import renumber_runs, resolve_labels
from fedstep.model.predictor import FLAKY_ABOVE, classify_failure, load_predictor
from fedstep.pipeline.context import RunContext, code_host, describe_model
from fedstep.pipeline.triage import suggest_quarantine
from fedstep.report.project_page import (
    FEWEST_IN_BIN,
    FailingTest,
    Failures,
    FlakyCost,
    FoundChange,
    Insights,
    JobTimes,
    SlowTest,
    ValueOfSharing,
    Verdicts,
)
from fedstep.report.wording import describe_company
from fedstep.schema.schema import schema
from fedstep.types import Dropped, Outcome, TimelineBuild, TimelineFailure, Unavailable

WEEK = 7 * 86_400.0
WINDOW = 4 * WEEK  # costs are averaged over the last four weeks with builds
MEDIAN_OF = 20
MOST_SLOW = 20
BINS = 6
STEADY_RUNS = "p" * 20  # outcomes of a test that is mended
FEWEST_FAILURES = 3  # in a row, before a test is said to fail every time
NEARLY = 0.75  # of the last 20 runs: from it on a test fails nearly every time, once 12 runs of it are known
FEWEST_RUNS = 12


class _Window(NamedTuple):
    """The newest builds, which costs are averaged over."""

    builds: tuple[TimelineBuild, ...]
    weeks: float


class LoadedHistory(NamedTuple):
    """What is known of tests and builds with every readable record of the log, and warnings about skipped ones."""

    summary: Summary
    timeline: Timeline
    warnings: tuple[str, ...] = ()


def load_history(store: ProjectStore, progress: Progress = say_nothing) -> LoadedHistory:
    """Return the summary and the timeline. Caches that are missing are made in one reading of the log, and kept.

    Nothing is written if the store cannot be, or another process learns just now. The learned state need not fit: it
    is lost together with the summary, or fits if it was learned from the same records.
    """
    cached = LoadedHistory(read_summary(store), read_timeline(store))
    summary, files = cached.summary, store.log.files()
    timeline = catch_up_timeline(store, cached.timeline, summary.seen, summary.tests, progress)
    loaded = _apply_unseen(store, LoadedHistory(summary, timeline), files, progress)
    if files and not cached.summary.seen:
        with suppress(HistoryError), exclusive(store):
            if not read_summary(store).seen:
                save_timeline(store, loaded.timeline)
                save_summary(store, loaded.summary)
    elif files and not cached.timeline.seen:
        with suppress(HistoryError), exclusive(store):
            save_timeline(store, timeline)
    return loaded


def _apply_unseen(
    store: ProjectStore, loaded: LoadedHistory, files: Sequence[str], progress: Progress
) -> LoadedHistory:
    """Return the history with the records that its summary lacks; the newest of them are in its timeline, too.

    What their failures turned out to be is judged as in learning.
    """
    summary, timeline, warnings = loaded.summary, loaded.timeline, [*loaded.warnings]
    unseen = [file for file in files if file not in summary.seen]
    newest = frozenset(unseen[-MOST_CAUGHT_UP:])
    pending: list[Example] = []
    for done, (file, record) in enumerate(unprocessed_records(store, summary)):
        progress(done, len(unseen))
        if isinstance(record, Dropped):
            warnings.append(f"{record.source} is skipped: {record.reason}")
            summary = replace(summary, seen=summary.seen | {file})
            continue
        summary = apply_record(summary, file, record)
        failures = record.rows.get("triage", ()) if record.schema == schema().digest else ()
        judged, pending = resolve_labels("triage", (*pending, *renumber_runs(failures, summary.tests)), summary.tests)
        if file in newest:
            flakes = {labelled.example.subject: labelled.label > 0.5 for labelled in judged}
            timeline = apply_to_timeline(timeline, record, summary.tests, flakes)
    timeline = replace(timeline, seen=timeline.seen | frozenset(map(build_name, unseen)))
    return LoadedHistory(summary, timeline, tuple(warnings))


def project_insights(
    context: RunContext, history: LoadedHistory, value: tuple[ValueOfSharing, ...] | Unavailable | None = None
) -> Insights:
    """Return everything that the project's page shows. Nothing is written.

    Args:
        context: The repository and its history.
        history: What `load_history` returned.
        value: What the shared model gained on this project's own builds, if it was replayed.
    """
    store, summary, timeline = context.store, history.summary, history.timeline
    window, cached = _window(timeline.builds), load_model(store)
    mutes = read_mutes(context.root, date.fromtimestamp(context.now).isoformat())
    warnings = [*history.warnings, *map(str, mutes.problems)]
    try:
        acks = read_acknowledgements(context.root)
    except FedstepError as error:
        warnings.append(str(error))
        acks = ()
    rates, suggested = _runs_a_week(timeline.builds), suggest_quarantine(summary.tests, mutes.mutes)
    noisy = frozenset(hint.test for hint in suggested if hint.action == "quarantine")
    changes = tuple(
        FoundChange(each, (each.after - each.before) / 60 * rates(each.kind, each.subject), is_acknowledged(each, acks))
        for each in reversed(timeline.changes)
    )
    sent = read_audit(store).sent
    insights = Insights(
        project=os.path.basename(context.root) + (f" {context.part}" if context.part else ""),
        made_at=context.now,
        weeks=window.weeks,
        builds=timeline.count,
        tests=count_tests(summary.tests),
        jobs=_jobs(timeline, changes, window.weeks),
        flaky=_flaky(context, summary, timeline, window, mutes.mutes, noisy),
        slowest=_slowest(summary, rates("test", "")),
        changes=changes,
        failures=_failures(timeline.builds),
        failing=_failing(summary, timeline),
        newest=max((build.finished_at for build in timeline.builds), default=0.0),
        verdicts=_verdicts(timeline.builds),
        selections=summary.selections,
        mute_complaints=mutes.mutes.complaints,
        muted_failures=_muted_failures(window, mutes.mutes, taken_ids(summary.tests)),
        releases=tuple((hint.test, hint.evidence) for hint in suggested if hint.action == "release"),
        model=describe_model(cached, context.now),
        updates_sent=len(sent),
        bytes_sent=sum(update.size for update in sent),
        warnings=tuple(warnings),
        host=code_host(context),
    )
    return insights if value is None else replace(insights, value=value)


def _window(builds: Sequence[TimelineBuild]) -> _Window:
    if not builds:
        return _Window((), 1.0)
    newest = max(build.finished_at for build in builds)
    inside = tuple(build for build in builds if build.finished_at > newest - WINDOW)
    oldest = min(build.started_at for build in inside)
    return _Window(inside, max(min(newest - oldest, WINDOW) / WEEK, 1.0 / 7))


class _Rates(NamedTuple):
    """How often tests and jobs run in a week."""

    jobs: Mapping[str, float]
    tests: float

    def __call__(self, kind: str, subject: str) -> float:
        return self.jobs.get(subject, 0.0) if kind == "job" else self.tests


def _runs_a_week(builds: Sequence[TimelineBuild]) -> _Rates:
    window = _window(builds)
    jobs = Counter(build.stream for build in window.builds)
    tests = sum(build.tests > 0 for build in window.builds)
    return _Rates({job: builds / window.weeks for job, builds in jobs.items()}, tests / window.weeks)


def _jobs(timeline: Timeline, changes: Sequence[FoundChange], weeks: float) -> tuple[JobTimes, ...]:
    by_stream: dict[str, list[TimelineBuild]] = {}
    for build in sorted(timeline.builds, key=lambda build: build.finished_at):
        if isfinite(build.seconds):
            by_stream.setdefault(build.stream, []).append(build)
    window = _window(timeline.builds)
    counts = Counter(build.stream for build in window.builds)
    jobs = (
        _job(stream, builds, [item for item in changes if item.change.subject == stream], counts[stream] / weeks)
        for stream, builds in by_stream.items()
    )
    return tuple(sorted(jobs, key=lambda job: -len(job.builds)))


def _job(stream: str, builds: Sequence[TimelineBuild], changes: Sequence[FoundChange], a_week: float) -> JobTimes:
    job = JobTimes(
        stream=stream,
        builds=tuple(builds),
        usual=median(build.seconds for build in builds[-MEDIAN_OF:]),
        builds_a_week=a_week,
        changes=tuple(finding for finding in changes if finding.change.kind == "job"),
    )
    compared = list(_iter_compared(builds))
    if not compared:
        return job
    return replace(
        job,
        predicted=len(compared),
        error=mean(abs(build.seconds - build.expected) for build, _ in compared),
        jenkins_error=mean(abs(build.seconds - build.jenkins) for build, _ in compared),
        median_error=mean(abs(build.seconds - middle) for build, middle in compared),
        inside=mean(build.low <= build.seconds <= build.high for build, _ in compared),
    )


def _iter_compared(builds: Sequence[TimelineBuild]) -> Iterator[tuple[TimelineBuild, float]]:
    """Yield the builds that fedstep, Jenkins and the median of 20 could predict, with that median."""
    past: list[float] = []
    for build in builds:
        if build.is_predicted and isfinite(build.jenkins) and past:
            yield build, median(past[-MEDIAN_OF:])
        past.append(build.seconds)


def _is_flake(failure: TimelineFailure) -> bool:
    """Return whether the failure was a flake, as far as is known: what it was taken for, until it is judged."""
    if failure.outcome == "k":
        return True
    if failure.was_flake is not None:
        return failure.was_flake
    return failure.flaky >= FLAKY_ABOVE


def _is_failed_by_flakes(build: TimelineBuild) -> bool:
    """Return whether nothing but flakes failed in a build that did not pass."""
    real = [failure for failure in build.failures if failure.outcome != "k"]
    complete = build.failed == len(build.failures)
    return build.outcome != "passed" and bool(real) and complete and not build.incident and all(map(_is_flake, real))


class _Cost(NamedTuple):
    seconds: float = 0.0
    red_builds: int = 0
    reruns: int = 0


def _flaky_costs(window: _Window, summary: Summary) -> Mapping[str, _Cost]:
    """Return what each test's flakes cost: a rerun of itself, or its share of a build that has to run again."""
    costs: dict[str, _Cost] = {}
    for build in window.builds:
        flakes = [] if build.incident else [failure for failure in build.failures if _is_flake(failure)]
        red = [failure.test for failure in flakes if failure.outcome != "k"] if _is_failed_by_flakes(build) else []
        for failure in flakes:
            cost = costs.get(failure.test, _Cost())
            if failure.test in red:
                again = build.seconds if isfinite(build.seconds) else 0.0
                cost = cost._replace(seconds=cost.seconds + again / len(red), red_builds=cost.red_builds + 1)
            elif failure.outcome == "k":
                stats = summary.tests.get(failure.test)
                again = (typical_seconds(stats) if stats else None) or 0.0
                cost = cost._replace(seconds=cost.seconds + again, reruns=cost.reruns + 1)
            costs[failure.test] = cost
    return costs


def _flaky(
    context: RunContext, summary: Summary, timeline: Timeline, window: _Window, mutes: Mutes, noisy: frozenset[str]
) -> tuple[FlakyCost, ...]:
    costs, begun, taken = _flaky_costs(window, summary), _find_begins(timeline.builds), taken_ids(summary.tests)
    predictor = load_predictor(context.store, load_model(context.store).model.production)
    risks = {
        test: risk.probability for risk in predictor.flakiest(summary, 200, 0.0) for test in (risk.test, *risk.also)
    }
    named = [test for test in summary.tests if test in costs and test in begun]
    flaky_costs = []
    for test in named:
        stats, cost, first = summary.tests[test], costs[test], begun[test]
        muted = find_mute(test, mutes, taken)
        flaky_costs.append(
            FlakyCost(
                test=test,
                minutes_a_week=cost.seconds / 60 / window.weeks,
                red_builds=cost.red_builds,
                reruns=cost.reruns,
                outcomes=stats.recent,
                revealed=stats.revealed,
                chance=risks.get(test, 0.0),
                since=first.first,
                last=first.last,
                commits=first.commits,
                muted_until=muted[0].until if muted else "",
                suggested=test in noisy,
                mended_at=_find_mended_at(stats, first.last, timeline.builds),
            )
        )
    joined = _join_by_cause(flaky_costs, summary)
    return tuple(sorted(joined, key=lambda cost: (-cost.minutes_a_week, -cost.red_builds - cost.reruns, cost.test)))


def _join_by_cause(flaky_costs: Sequence[FlakyCost], summary: Summary) -> Iterator[FlakyCost]:
    """Yield what each cause costs: the tests that always failed together are one entry, unless they are muted."""
    costs = {cost.test: cost for cost in flaky_costs}
    yield from (cost for cost in flaky_costs if cost.muted_until)
    for group in group_by_cause([summary.tests[cost.test] for cost in flaky_costs if not cost.muted_until]):
        some = [costs[stats.test] for stats in group]
        yield replace(
            max(some, key=lambda cost: cost.minutes_a_week),
            test=some[0].test,
            minutes_a_week=sum(cost.minutes_a_week for cost in some),
            reruns=sum(cost.reruns for cost in some),
            suggested=any(cost.suggested for cost in some),
            also=tuple(cost.test for cost in some[1:]),
            together=describe_company([cost.test for cost in some], group[0].failures),
        )


def _muted_failures(window: _Window, mutes: Mutes, taken: frozenset[str]) -> Mapping[str, int]:
    """Return how often each test failed in the window that the mute list has now: a verdict does not count these."""
    failed = Counter(failure.test for build in window.builds for failure in build.failures)
    return {test: times for test, times in failed.items() if find_mute(test, mutes, taken)}


def _find_mended_at(stats: TestStats, flaked_at: float, builds: Sequence[TimelineBuild]) -> float:
    """Return when a test had passed often enough since it flaked last, 0 while it has not.

    A timeline does not say which tests ran: one that did not run in each build is taken to run in regular intervals.
    """
    if stats.recent != STEADY_RUNS:
        return 0.0
    later = [build.finished_at for build in builds if build.tests and build.finished_at > flaked_at]
    passes = max(stats.runs - 1 - stats.last_failure, len(STEADY_RUNS))
    proving_run = ceil(len(STEADY_RUNS) * len(later) / passes) - 1
    return later[proving_run] if later else flaked_at


class _Flaking(NamedTuple):
    """When a test was first and last seen to flake, and the commits between which it began."""

    first: float
    last: float
    commits: tuple[str, str]


def _find_begins(builds: Sequence[TimelineBuild]) -> Mapping[str, _Flaking]:
    """Return when each test was seen to flake, and the commits of the build before the first and of that build."""
    begun: dict[str, _Flaking] = {}
    before: dict[str, str] = {}
    for build in builds:
        for failure in build.failures:
            if build.incident or not _is_flake(failure):
                continue
            commits = (before.get(build.stream, ""), build.commit)
            known = begun.get(failure.test, _Flaking(build.finished_at, 0.0, commits))
            begun[failure.test] = known._replace(last=build.finished_at)
        before[build.stream] = build.commit
    return begun


def _slowest(summary: Summary, runs_a_week: float) -> tuple[SlowTest, ...]:
    """Return the slowest tests of those that ran lately; the exact expectation takes 0.1 ms, so only of the first."""
    recently = summary.count - 50
    timed = [
        (seconds, stats)
        for stats in summary.tests.values()
        if stats.last_build >= recently and not is_stand_in(stats.test) and (seconds := typical_seconds(stats))
    ]
    timed.sort(key=lambda pair: -pair[0])
    exact = [(expected_test_seconds(stats), stats) for _, stats in timed[: 2 * MOST_SLOW]]
    known = [(seconds, stats) for seconds, stats in exact if not isinstance(seconds, Unavailable)]
    share = [(seconds, stats, runs_a_week * min(1.0, stats.runs / max(summary.count, 1))) for seconds, stats in known]
    slow_tests = (SlowTest(stats.test, seconds, seconds / 60 * weekly) for seconds, stats, weekly in share)
    return tuple(sorted(slow_tests, key=lambda slow_test: -slow_test.seconds))[:MOST_SLOW]


def _failures(builds: Sequence[TimelineBuild]) -> Failures:
    if not builds:
        return Failures()
    passed = [build.outcome == "passed" for build in builds]
    runs = [(is_passed, len(list(group))) for is_passed, group in groupby(passed)]
    return Failures(
        builds=len(builds),
        failed=len(builds) - sum(passed),
        by_flakes=sum(map(_is_failed_by_flakes, builds)),
        streak=runs[-1][1],
        streak_passed=runs[-1][0],
        longest_red=max((length for is_passed, length in runs if not is_passed), default=0),
        bins=_bins([(build.risk, build.outcome != "passed") for build in builds if isfinite(build.risk)]),
    )


def _failing(summary: Summary, timeline: Timeline) -> tuple[FailingTest, ...]:
    """Return the tests that failed in each of their newest runs, then those in nearly all, of those that ran lately."""
    ends = {build.number: build.finished_at for build in timeline.builds}
    failing = []
    for stats in summary.tests.values():
        if stats.last_build < summary.count - ACTIVE_BUILDS:
            continue
        failed, runs = stats.failed_lately, len(stats.recent)
        if runs >= FEWEST_RUNS and failed >= NEARLY * runs and _fails_between_passes(stats.recent):
            failing.append(FailingTest(stats.test, failed, runs))
        elif stats.streak >= FEWEST_FAILURES:
            failing.append(FailingTest(stats.test, stats.streak, stats.streak, ends.get(stats.failing_since, 0.0)))
    return tuple(sorted(failing, key=lambda test: (test.failures < test.runs, -test.failures, test.test)))


def _fails_between_passes(recent: str) -> bool:
    """Return whether the test failed lately and after a pass: the passes since may not be its repair, either.

    >>> _fails_between_passes("ffpffp"), _fails_between_passes("fffffp"), _fails_between_passes("fpfppp")
    (True, False, False)
    """
    until = recent.rstrip(Outcome.PASSED)
    return Outcome.PASSED in until and len(recent) - len(until) < FEWEST_FAILURES


def _bins(pairs: Iterable[tuple[float, bool]]) -> tuple[tuple[float, float, int], ...]:
    """Return groups of as many builds each, by risk: mean risk, share that failed, and number of builds."""
    ascending = sorted(pairs)
    groups = min(BINS, len(ascending) // FEWEST_IN_BIN)
    if not groups:
        return ()
    ends = [round(bin_index * len(ascending) / groups) for bin_index in range(groups + 1)]
    parts = (ascending[start:end] for start, end in pairwise(ends))
    return tuple((mean(risk for risk, _ in part), mean(failed for _, failed in part), len(part)) for part in parts)


def _verdicts(builds: Sequence[TimelineBuild]) -> Verdicts:
    counts: Counter[str] = Counter()
    names = {"flaky": "flaky", "regression": "real", "unsure": "unsure"}
    for build in builds:
        for failure in build.failures:
            truth = True if failure.outcome == "k" else failure.was_flake
            if truth is not None and isfinite(failure.flaky) and not build.incident:
                counts[f"{names[classify_failure(failure.flaky)]}_{'flaky' if truth else 'real'}"] += 1
    return Verdicts(**counts)
