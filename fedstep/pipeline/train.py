"""Record a finished build, learn from it, and exchange what was learned with an aggregator.

Whatever fails on the way, what succeeded is kept, and the report names the errors.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from fedstep.errors import AggregatorError, ContributionNotDue, HistoryError, MissingExtra
from fedstep.features.build_features import build_examples
from fedstep.features.test_duration import NO_TIME, expected_test_seconds
from fedstep.features.test_failure import began_to_fail, first_failure_share
from fedstep.federation.messages import Update, pack_update, unpack_update
from fedstep.federation.model_cache import CachedModel, load_model, load_word_weights
from fedstep.federation.outbox import Outbox
from fedstep.federation.sync import AggregatorLink, may_contribute, pull_model, push_pending, record_contribution
from fedstep.history.project_store import ProjectStore, StartMark, StoreLocked, exclusive
from fedstep.history.records import Forecast, make_record
from fedstep.history.summary import (
    PlannedBuild,
    Summary,
    apply_left_out,
    load_summary,
    plan_build,
    shares_run,
    stream_name,
)
from fedstep.history.test_table import TestTable, taken_ids, with_known_ids
from fedstep.history.word_index import NO_WORDS, read_word_index, split_words, update_word_index
from fedstep.model.predictor import load_predictor, make_forecast, real_failures
from fedstep.pipeline.context import change_problems, describe_model, input_notices
from fedstep.pipeline.predict import author_key, load_prediction, save_prediction
from fedstep.pipeline.triage import (
    count_reports,
    incident_reason,
    report_problems,
    report_warnings,
    settle_reports,
)
from fedstep.results import (
    ExampleCounts,
    Exchange,
    FailureVerdict,
    Interval,
    NotRun,
    Problems,
    SelectionReport,
    SentUpdate,
    SlowerTest,
    TestRisk,
    TrainReport,
)
from fedstep.schema.schema import schema
from fedstep.types import (
    MAX_SECONDS,
    NO_SECONDS,
    Build,
    BuildContext,
    BuildOutcome,
    Change,
    CiRun,
    Duration,
    FinishedBuild,
    LeftOut,
    Outcome,
    Reports,
    TestRun,
    TimeChange,
    Unavailable,
)

UNKNOWN_OUTCOME = "how this build went is not known, nothing is recorded. Give its reports, or --outcome"
ALREADY_KNOWN = "this build is in the history already; nothing is learned twice"
SELECTED = "selected"  # in the stream of builds that ran a part of the tests
OTHER_CELL = (
    "another build of this run of the job is in the history: if it is another cell of a matrix, set FEDSTEP_CI_CELL; "
    "until then no failure of their tests is called flaky because it passed elsewhere"
)
LEAST_OF_DELAY = 0.2  # of a build: what a test adds to it to be named
SHORTEST_DELAY = 0.1  # seconds: noise is smaller
MOST_SLOWER = 3
NO_PULL = "the model was not pulled"
UNTRUSTED = "this run comes from a fork or Dependabot: nothing is learned or sent. Nothing to do, it counts once merged"

SourceWords = Callable[[tuple[TestRun, ...]], Mapping[str, tuple[str, ...]]]
"""Returns by test id the words that occur in the test's own source."""


class BuildEvaluation(NamedTuple):
    """A finished build beside what was predicted for it before anything was learned from it."""

    build: Build
    planned: PlannedBuild
    author: str  # keyed hash, "" where not known
    summary: Summary  # as it was before the build
    expected: Interval | Unavailable
    failures: tuple[FailureVerdict, ...]
    forecast: Forecast  # the same in the form of the record
    warnings: tuple[str, ...]
    left_out: LeftOut | None = None  # by a selection; None where none was made
    not_run: NotRun = NotRun()


class LearnResult(NamedTuple):
    """How many examples were learned and are waiting, and what went wrong on the way."""

    examples: ExampleCounts = ExampleCounts()
    warnings: tuple[str, ...] = ()
    changes: tuple[TimeChange, ...] = ()  # of time, which the records learned now made certain


class _Pull(NamedTuple):
    before: CachedModel
    after: CachedModel  # the same as `before` where nothing was pulled
    problems: Problems = ()


def train(
    store: ProjectStore,
    finished: FinishedBuild,
    source_words: SourceWords,
    aggregator: AggregatorLink | Unavailable,
    now: float,
    keep: int,
    withheld: str = "",
    left_out: LeftOut | None = None,
) -> TrainReport:
    """Pull the model, evaluate the build with it, record and learn the build, push an update if a batch is full.

    Args:
        store: The project's history, prepared for writing.
        finished: The build as it was read.
        source_words: Returns the words of tests' own source.
        aggregator: Where to pull and push, or why nothing is exchanged.
        now: Seconds since the epoch.
        keep: Number of builds that stay in the history.
        withheld: Why this build must not add an update, "" if it may.
        left_out: The tests that a selection left out of this build, None where none was made.

    Raises:
        HistoryError: The build cannot be recorded.
    """
    trusted = not finished.situation.ci.untrusted
    pull = _pull(store, aggregator if trusted else Unavailable(UNTRUSTED), now)
    evaluation = evaluate_build(store, finished, pull.after, left_out)
    if not trusted:
        flakiest = load_prediction(store, pull.after, load_predictor(store, pull.after.model.production)).flakiest
        return _report(flakiest, evaluation, pull, LearnResult(warnings=(UNTRUSTED,)), Unavailable(UNTRUSTED), (), now)
    is_known = evaluation.build.outcome != BuildOutcome.UNKNOWN
    is_new = is_known and record_build(store, evaluation, source_words)
    store.log.prune(keep)
    learned, learn_problems = _learn(store, pull, withheld)
    exchange, push_problems = _push(store, aggregator, pull, withheld)
    if not is_new:
        reason = ALREADY_KNOWN if is_known else UNKNOWN_OUTCOME
        learned = learned._replace(warnings=(reason, *learned.warnings))
    flakiest = save_prediction(store, pull.after).flakiest
    problems = (*pull.problems, *learn_problems, *push_problems)
    return _report(flakiest, evaluation, pull, learned, exchange, problems, now)


def evaluate_build(
    store: ProjectStore, finished: FinishedBuild, cached: CachedModel, noted: LeftOut | None = None
) -> BuildEvaluation:
    """Return the finished build beside what the model predicts for it. Nothing is written.

    `noted` is what its selection was to leave out.
    """
    loaded, predictor = load_summary(store), load_predictor(store, cached.model.production, load_word_weights())
    summary, context = loaded.summary, finished.situation
    reports = with_known_ids(finished.reports, summary.tests)
    is_passed = finished.outcome is BuildOutcome.PASSED
    reports, not_run = settle_reports(reports, summary, context.ci, is_part=noted is not None, is_passed=is_passed)
    outcome = reports.outcome() if finished.outcome is BuildOutcome.UNKNOWN else finished.outcome
    build = identify_build(store, finished._replace(reports=reports, outcome=outcome))
    source = finished.duration.source if isinstance(finished.duration, Duration) else ""
    left_out = _really_left_out(summary, build, noted) if noted else None
    is_part = left_out is not None and not left_out.shadow
    if is_part:
        source = f"{source} {SELECTED}".strip()  # the times of a part and of all tests are not comparable
    author = author_key(store, context)
    planned = plan_build(context, stream_name(context.ci, source, summary.builds), author)
    expected, failures = predictor.duration(summary, planned), predictor.failures(summary, build, planned.stream)
    risk = predictor.failure(summary, planned)
    is_known = not build.reports.tests or store.log.has(build.name)
    is_other_cell = not is_known and shares_run(summary.builds, planned)
    began = began_to_fail(summary, build, real_failures(failures))
    index = read_word_index(store) if began else NO_WORDS
    return BuildEvaluation(
        build=build,
        planned=planned,
        author=author,
        summary=summary,
        expected=expected,
        failures=failures,
        forecast=make_forecast(expected, risk, failures, cached.model.production_version if cached.url else 0)._replace(
            # A part of the tests says nothing about the failures of the others: a selection is not judged by it.
            first_failure=NO_SECONDS if is_part else first_failure_share(summary, build, began, index),
            began=began,
        ),
        warnings=(
            *loaded.warnings,
            *input_notices(context.change, cached),
            *((OTHER_CELL,) if is_other_cell else ()),
        ),
        left_out=left_out,
        not_run=not_run,
    )


def find_slower(build: Build, tests: TestTable, expected: Interval | Unavailable) -> tuple[SlowerTest, ...]:
    """Return the tests that made a build slower than expected, the one that explains most first; none of another."""
    duration = build.duration
    if isinstance(duration, Unavailable) or isinstance(expected, Unavailable) or duration.seconds <= expected.high:
        return ()
    least = max(LEAST_OF_DELAY * (duration.seconds - expected.seconds), SHORTEST_DELAY)
    slower = []
    for run in build.reports.tests:
        stats = tests.get(run.test)
        if run.seconds >= least:  # NaN is not
            usual = expected_test_seconds(stats) if stats else NO_TIME
            delay = run.seconds - (0.0 if isinstance(usual, Unavailable) else usual)
            slower += [(delay, SlowerTest(run.test, run.seconds, usual))] if delay >= least else []
    return tuple(test for _, test in sorted(slower, key=lambda pair: -pair[0])[:MOST_SLOWER])


def _really_left_out(summary: Summary, build: Build, noted: LeftOut) -> LeftOut | None:
    """Return what the build left out, as its reports show it, with its predicted time; None if nothing was.

    A selection after which all tests ran was only looked at. It is no shadow, which somebody has to ask for.
    """
    known = tuple(test for test in noted.tests if test in summary.tests)
    ran = {run.test for run in build.reports.tests if run.outcome != Outcome.SKIPPED}
    chosen = known if noted.shadow else tuple(test for test in known if test not in ran)
    times = (expected_test_seconds(summary.tests[test]) for test in chosen)
    seconds = round(sum(time for time in times if isinstance(time, float)), 3)
    return LeftOut(chosen, seconds, noted.shadow) if chosen else None


def record_build(store: ProjectStore, evaluation: BuildEvaluation, source_words: SourceWords) -> bool:
    """Append the build and its training examples to the log; return False if it is there already."""
    build, summary = evaluation.build, evaluation.summary
    if store.log.has(build.name):
        return False
    vocabulary, index = schema().words("source").index, read_word_index(store)
    known = {test for test, stats in summary.tests.items() if stats.source_words is not None}
    change = build.situation.change
    indexed = index.unchanged_tests(change.files if isinstance(change, Change) else ())
    wanted = tuple(run for run in build.reports.tests if not (run.test in known and run.test in indexed))
    words = source_words(wanted)
    record = make_record(build, evaluation.planned.stream, evaluation.author)._replace(
        source_words={t: tuple(w for w in words[t] if w in vocabulary) for t in words if t not in known},
        schema=schema().digest,
        **build_examples(summary, build, evaluation.planned, sampling_rule(store), load_word_weights())._asdict(),
        forecast=evaluation.forecast,
        left_out=evaluation.left_out,
    )
    store.log.append(record)
    kept = {*summary.tests, *(run.test for run in build.reports.tests)}
    update_word_index(store, index, {test: split_words(words[test]) for test in words if test not in indexed}, kept)
    return True


def learn(store: ProjectStore, cached: CachedModel, withheld: str = "") -> LearnResult:
    """Learn every record that is not learned yet; put an update into the outbox if a batch is full.

    No update is made if `withheld` says why: the examples wait. Needs scikit-learn.

    Raises:
        MissingExtra: scikit-learn is not installed.
        HistoryError: The state cannot be written, or another process holds the lock (`StoreLocked`).
    """
    try:
        from fedstep.federation.update_builder import make_update
        from fedstep.model.training import learn_new_records, save_state
    except ImportError as error:
        remedy = "Run: pip install 'fedstep[train]'. The build is kept and will be learned then"
        raise MissingExtra(f"nothing was learned, {error.name or 'scikit-learn'} is not installed", remedy) from error
    with exclusive(store):
        progress = learn_new_records(store, cached.model.production)
        state = progress.state
        update: Update | Unavailable = Unavailable(withheld)
        if cached.url and not withheld and may_contribute(store, cached):
            update, backlog = make_update(state.backlog, cached.model, store.keyed_hash)
            state = replace(state, backlog=backlog)
        with _commit_to_outbox(store, cached, update):
            save_state(store, state)
    waiting = sum(len(examples) for examples in state.backlog.waiting.values())
    return LearnResult(ExampleCounts(progress.labels_known, waiting), progress.warnings, progress.changes)


def identify_build(store: ProjectStore, finished: FinishedBuild) -> Build:
    """Return the build under its name: a keyed hash of the CI's job run and of the reports.

    Where the CI names no run, the commit stands for it. Without a run and reports only its end tells a build from the
    next.
    """
    ci, change = finished.situation.ci, finished.situation.change
    commit = change.commit if isinstance(change, Change) and ci.vendor != "local" else ""
    run = ci.run or commit
    content = finished.reports.digest or ("" if ci.run else f"ended {finished.finished_at:.3f}")
    name = store.keyed_hash("build", ci.vendor, run, str(ci.attempt), ci.job, ci.cell, content)
    return Build(name, finished.situation, finished.finished_at, finished.duration, finished.outcome, finished.reports)


def sampling_rule(store: ProjectStore) -> Callable[[str, int], bool]:
    """Return a function that tells whether a test gives a flaky example at its n-th run.

    Each test gives one per label horizon; a keyed hash of its name staggers them.
    """
    from fedstep.model.labels import is_due

    horizon = schema().tasks["flaky"].horizon
    keyed = store.hasher()
    return lambda test, runs: is_due(int(keyed("turn", test)[:8], 16), runs, horizon)


def measure_duration(ci: CiRun, mark: StartMark | None, reports: Reports, end: float) -> Duration | Unavailable:
    """Return the job's time from its start to `end`; without a known start the sum of its tests' times.

    `mark` is what `fedstep predict` recorded in this job; the CI's own start takes precedence. What fedstep took itself
    is not counted.
    """
    started = ci.started_at if isinstance(ci.started_at, float) else mark.started_at if mark else None
    if started is not None:
        source = ci.vendor if isinstance(ci.started_at, float) else "mark"
        seconds = end - started
        own = mark.own_seconds if mark else 0.0
        if 0 < seconds < MAX_SECONDS:
            return Duration(seconds - own if 0 < own < seconds else seconds, source)
        return Unavailable(f"the job is said to have started {seconds:.0f} s ago; one of the clocks is wrong")
    total = sum(run.seconds for run in reports.tests if run.seconds > 0)
    return Duration(total, "tests") if total > 0 else Unavailable("no job start is known, and its tests tell no time")


def context_at(ci: CiRun, change: Change | Unavailable, duration: Duration | Unavailable, now: float) -> BuildContext:
    """Return the context of a job that ends at `now`.

    Test times are not wall time: a job that is timed by them counts as started at `now`.
    """
    wall_time = duration.seconds if isinstance(duration, Duration) and duration.source != "tests" else 0.0
    return BuildContext(ci, change, now - wall_time)


def build_outcome(ci: CiRun, reports: Reports) -> BuildOutcome:
    """Return the outcome that the CI reports, else that of the tests; a success so far does not outweigh failures."""
    tests = reports.outcome()
    is_overruled = ci.outcome_so_far and ci.outcome is BuildOutcome.PASSED and tests is not BuildOutcome.UNKNOWN
    return ci.outcome if isinstance(ci.outcome, BuildOutcome) and not is_overruled else tests


@contextmanager
def _commit_to_outbox(store: ProjectStore, cached: CachedModel, update: Update | Unavailable) -> Iterator[None]:
    """Put the update into the outbox once the block has stored that its examples no longer wait."""
    if isinstance(update, Unavailable):
        yield
        return
    with Outbox(Path(store.outbox)).stage(pack_update(update)):
        record_contribution(store, cached)
        yield


def _pull(store: ProjectStore, aggregator: AggregatorLink | Unavailable, now: float) -> _Pull:
    before = load_model(store)
    if isinstance(aggregator, Unavailable):
        return _Pull(before, before)
    try:
        return _Pull(before, pull_model(store, aggregator, now))
    except AggregatorError as error:
        return _Pull(before, before, (error,))


def _learn(store: ProjectStore, pull: _Pull, withheld: str) -> tuple[LearnResult, Problems]:
    """Learn; after a failed pull make no update: it would be outdated before it could be sent."""
    try:
        return learn(store, pull.after, withheld or (NO_PULL if pull.problems else "")), ()
    except MissingExtra as error:
        return LearnResult(), (error,)
    except StoreLocked as error:
        return LearnResult(warnings=(str(error),)), ()


def _push(
    store: ProjectStore, aggregator: AggregatorLink | Unavailable, pull: _Pull, withheld: str
) -> tuple[Exchange | Unavailable, Problems]:
    """Push pending updates; after a failed pull leave them for the next build."""
    if isinstance(aggregator, Unavailable):
        return aggregator, ()
    sent: tuple[SentUpdate, ...] = ()
    problems: Problems
    if pull.problems:
        pending = Outbox(Path(store.outbox)).waiting()
        unsent, problems = len(pending.updates), tuple(map(HistoryError, pending.warnings))
    else:
        delivery = push_pending(store, aggregator)
        refused = (error for error in delivery.refused if not isinstance(error, ContributionNotDue))
        sent = tuple(SentUpdate(len(body), tuple(unpack_update(body).examples.items())) for body in delivery.bodies)
        unsent, problems = delivery.waiting, (*delivery.failures, *refused, *map(HistoryError, delivery.warnings))
    before, after = pull.before.model, pull.after.model
    exchange = Exchange(
        url=aggregator.url,
        sent=sent,
        unsent=unsent,
        candidate_before=before.candidate_version,
        candidate_after=after.candidate_version,
        production_before=before.production_version,
        production_after=after.production_version,
        withheld=withheld,
    )
    return exchange, problems


def _tell_selection(evaluation: BuildEvaluation) -> SelectionReport | None:
    """Return what this build left out and what all selections did, this one among them; None before the first."""
    record = make_record(evaluation.build, evaluation.planned.stream, "")._replace(
        forecast=evaluation.forecast, left_out=evaluation.left_out
    )
    tally = apply_left_out(evaluation.summary.selections, record, evaluation.summary.tests)
    return SelectionReport(evaluation.left_out, tally) if tally.builds or tally.shadow_builds else None


def _report(
    flakiest: tuple[TestRisk, ...],
    evaluation: BuildEvaluation,
    pull: _Pull,
    learned: LearnResult,
    exchange: Exchange | Unavailable,
    problems: Problems,
    now: float,
) -> TrainReport:
    build = evaluation.build
    problems = (*report_problems(build.reports), *change_problems(build.situation.change), *problems)
    return TrainReport(
        status="degraded" if problems else "ok" if isinstance(exchange, Exchange) else "local",
        build=build.name,
        outcome=build.outcome,
        duration=build.duration,
        expected=evaluation.expected,
        failures=evaluation.failures,
        flakiest=flakiest,
        model=describe_model(pull.after, now),
        reading=count_reports(build.reports),
        examples=learned.examples,
        taken_ids=taken_ids(evaluation.summary.tests),
        changes=learned.changes,
        selection=_tell_selection(evaluation),
        not_run=evaluation.not_run,
        slower=find_slower(build, evaluation.summary.tests, evaluation.expected),
        exchange=exchange,
        incident=bool(incident_reason(build.reports)),
        incident_reason=incident_reason(build.reports),
        # Each once: a record that cannot be read is met in the evaluation, and again when the records are learned.
        warnings=tuple(
            dict.fromkeys(
                (*map(str, problems), *report_warnings(build.reports), *learned.warnings, *evaluation.warnings)
            )
        ),
        problems=problems,
    )
