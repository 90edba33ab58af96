"""The features of a test, for its chance of flaking and for the triage of its failure, and their examples."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import exp, fsum, inf, isnan, log, log1p
from operator import add
from typing import NamedTuple

from fedstep.history.flakiness import (
    FAST,
    MIDDLE,
    SLOW,
    SLOWEST,
    WEIGHTS,
    FailureContext,
    failure_context,
    flake_log_odds,
    group_by_cause,
    informative_runs,
    is_incident,
    is_mixed,
    streak_evidence,
    type_fingerprint,
)
from fedstep.history.records import Example
from fedstep.history.summary import PlannedBuild, Summary, repeats_last
from fedstep.history.test_table import (
    NEVER,
    UNTIMED,
    TestStats,
    TestTable,
    decayed_rate,
    index_tests,
    read_coordinates,
    with_tests,
)
from fedstep.ingest.change_impact import group_of
from fedstep.ingest.job_failure import names_environment
from fedstep.schema.schema import EVIDENCE, EVIDENCE_SCALE, Columns, Raw, Value, schema
from fedstep.types import Build, Change, Outcome, TestRun

LEAST_RATE = 0.002  # flips per run that begin to count
DOUBT_OF_OTHERS = 0.5  # how much of a flake a failure of a class-mate counts that may have been one
FLAKES_SAY = 2.0  # how fast the flakes of class-mates convince
FEWEST_WITH_WORDS = 20  # tests of a project, from which on the words of one are compared with those of the others
ACTIVE_BUILDS = 20  # a test that did not run in the last so many builds is not predicted


def typical_seconds(stats: TestStats) -> float | None:
    """Return the decayed geometric mean of the test's time in seconds, None where no report gave one."""
    return None if stats.log_seconds == UNTIMED else exp(stats.log_seconds)


def flaky_values(tests: TestTable) -> list[Raw]:
    """Return, for each test of the table, the raw values of the flaky task by part name."""
    columns = flaky_columns(tests)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def row_indices(tests: TestTable) -> dict[str, int]:
    """Return the row of each test in the columns, by its id and by the id before a rename."""
    former = {stats.former: row for row, stats in enumerate(tests.values()) if stats.former}
    return former | {test: row for row, test in enumerate(tests)}


def row_of(columns: Columns, row: int) -> Raw:
    """Return the raw values of one row by part name."""
    return {name: column[row] for name, column in columns.items()}


def flaky_columns(tests: TestTable) -> Columns:
    """Return the raw values of the flaky task by part name, each for all tests in the order of the table.

    What a test's time and its neighbours suggest counts only until the test itself was seen to flip: then its own runs
    say more, and a probability that they alone move never rises with a pass.
    """
    stats = list(tests.values())
    flips = _rates([test.flipped_100 for test in stats], [test.runs for test in stats], SLOWEST)
    groups = [group_of(test) for test in tests]
    causes = {group[0].test for group in group_by_cause([test for test in stats if test.flips])}
    flips_of_causes = sum(rate for test, rate in zip(stats, flips, strict=True) if test.test in causes)
    project = rounded(_level(flips_of_causes / len(groups))) if groups else 0.0
    flakes = [test.flaked_100 + DOUBT_OF_OTHERS * test.doubted_100 for test in stats]
    sources = [None if test.source_words is None else read_coordinates(test.source_words) for test in stats]
    return {
        "bias": [1.0] * len(stats),
        "evidence": [round(flake_log_odds(test) / EVIDENCE_SCALE, 3) for test in stats],
        "flipped": [float(test.flips > 0) for test in stats],
        "time-rank": _unless_flipped(stats, time_ranks(tests)),
        "doubted": _unless_flipped(stats, [test.doubted_100 for test in stats]),
        "classmates-flakes": _unless_flipped(stats, list(map(_any_flake, _sums_of_others(groups, flakes)))),
        "project-flips": _unless_flipped(stats, [project] * len(stats)),
        "source-words": [None if words is None else len(words) for words in sources],
        "name": [read_coordinates(test.name_words) for test in stats],
        "source": sources,
    }


def history_columns(tests: TestTable) -> Columns:
    """Return the raw values of the parts that the flaky and the triage task share, each for all tests of the table."""
    stats = tests.values()
    runs = [test.runs for test in stats]
    failed_50 = _rates([test.failed_50 for test in stats], runs, SLOW)
    flipped_100 = _rates([test.flipped_100 for test in stats], runs, SLOWEST)
    groups = [group_of(test) for test in tests]
    project = rounded(sum(flipped_100) / len(groups)) if groups else 0.0
    return {
        "runs": runs,
        "failure-rate-5": _rounded(_rates([test.failed_5 for test in stats], runs, FAST)),
        "failure-rate-50": _rounded(failed_50),
        "flip-rate-20": _rounded(_rates([test.flipped_20 for test in stats], runs, MIDDLE)),
        "flip-rate-100": _rounded(flipped_100),
        "gold-rate-100": _rounded(_rates([test.gold_100 for test in stats], runs, SLOWEST)),
        "runs-since-failure": _since([test.last_failure for test in stats], runs),
        "runs-since-flip": _since([test.last_flip for test in stats], runs),
        "classmates-flip-rate": _classmates(groups, flipped_100),
        "classmates-failure-rate": _classmates(groups, failed_50),
        "project-flip-rate": [project] * len(groups),
    }


def _unless_flipped(stats: Sequence[TestStats], values: Sequence[Value]) -> list[Value]:
    return [None if test.flips else value for test, value in zip(stats, values, strict=True)]


def _level(rate: float) -> float:
    """Return a flip rate on a logarithmic scale: 0 for none to 1, in steps of a hundredth.

    >>> _level(0.0), _level(0.01), _level(1.0)
    (0.0, 0.29, 1.0)
    """
    return round(log1p(rate / LEAST_RATE) / log1p(1.0 / LEAST_RATE), 2)


def _any_flake(flakes: float) -> float:
    """Return how certain it is that one of these flakes was one: 0 for none to 1, in steps of a hundredth.

    One says most of it, in a class of fifty tests as in one of five: flaky tests come in classes.

    >>> _any_flake(0.0), _any_flake(0.5), _any_flake(10.0)
    (0.0, 0.63, 1.0)
    """
    return round(1.0 - exp(-FLAKES_SAY * flakes), 2) if flakes else 0.0


def time_ranks(tests: TestTable) -> list[float | None]:
    """Return where each test's time lies among the project's: -1 for the shortest to 1, in hundredths; None without.

    Equal times, to a hundredth of the logarithm, share their middle rank.
    """
    hundredths = [round(test.log_seconds, 2) for test in tests.values()]
    counts = Counter(value for value in hundredths if value > UNTIMED)
    ranks: dict[float, float | None] = {UNTIMED: None}
    below, total = 0, counts.total()
    for value in sorted(counts):
        ranks[value] = round((2 * below + counts[value]) / total - 1.0, 2)
        below += counts[value]
    return list(map(ranks.__getitem__, hundredths))


def _rounded(values: Sequence[float]) -> list[float]:
    return [rounded(value) if value else 0.0 for value in values]


def rounded(value: float) -> float:
    """Return the value to three significant digits.

    >>> rounded(0.0123456)
    0.0123
    """
    return float(f"{value:.3g}") if value else 0.0


def _rates(sums: Sequence[float], runs: Sequence[int], pace: float) -> list[float]:
    return [decayed_rate(total, count, pace) if total else 0.0 for total, count in zip(sums, runs, strict=True)]


def _since(last: Sequence[int], runs: Sequence[int]) -> list[Value]:
    return [None if run == NEVER else count - run for run, count in zip(last, runs, strict=True)]


def _classmates(groups: Sequence[str], rates: Sequence[float]) -> list[Value]:
    """Return the mean rate of the other tests of each test's group; None for a test that is alone in it."""
    sizes = Counter(groups)
    others = _rates_of_others(groups, rates)
    return [None if sizes[name] == 1 else rate for name, rate in zip(groups, others, strict=True)]


def _rates_of_others(groups: Sequence[str], rates: Sequence[float]) -> list[float]:
    """Return the mean rate of the other tests of each test's group; 0 for a test that is alone in it."""
    sizes: Mapping[str, int] = Counter(groups)
    sums = _sums_of_others(groups, rates)
    return [rounded(rest / (sizes[name] - 1)) if rest else 0.0 for name, rest in zip(groups, sums, strict=True)]


def _sums_of_others(groups: Sequence[str], values: Sequence[float]) -> list[float]:
    """Return the sum of the other tests of each test's group; 0 for a test that is alone in it."""
    totals: dict[str, float] = {}
    for name, value in zip(groups, values, strict=True):
        if value:
            totals[name] = totals.get(name, 0.0) + value
    rest = (totals.get(name, 0.0) - value for name, value in zip(groups, values, strict=True))
    return [value if value > 1e-9 else 0.0 for value in rest]


# The first kind whose word occurs in the lower-cased exception type; the kinds are the schema's FAILURE_KINDS.
_KINDS = (
    ("timeout", ("timeout", "timedout", "deadline")),
    ("connection", ("connect", "socket", "http", "network", "unknownhost", "ssl", "broken pipe", "bindexception")),
    ("concurrency", ("interrupt", "concurrent", "deadlock", "execution", "cancel", "lock")),
    ("memory", ("memory", "stackoverflow", "recursion")),
    ("assertion", ("assert", "comparison", "expect", "mismatch", "opentest4j")),
    ("null", ("nullpointer", "attributeerror", "typeerror", "nil", "undefined")),
    ("io", ("ioexception", "oserror", "file", "permission", "disk", "eof")),
    ("state", ("illegalstate", "illegalargument", "valueerror", "keyerror", "indexerror", "runtimeerror")),
)


def failure_kind(failure_type: str) -> str | None:
    """Return one of the schema's kinds for an exception type or message word; None where there is none.

    >>> failure_kind("java.util.concurrent.TimeoutException")
    'timeout'
    """
    if not failure_type:
        return None
    text = failure_type.lower()
    return next((kind for kind, words in _KINDS if any(word in text for word in words)), "other")


class _Failures(NamedTuple):
    """What all failures of one build have in common."""

    failed: int
    by_group: Counter[str]
    files: int | None
    repeated: str  # the stream, if the build before in it ran the same code
    context: FailureContext


def word_evidence(tests: TestTable, weights: Sequence[float]) -> list[float]:
    """Return for each test, in nats, how much its words are like those of flaky tests, beside its project's others.

    It is the log-odds that the flaky task sees in the words of its name and source, as standard scores among the
    project's tests: neither what all its tests have in common nor the size of the weights counts. A source that is not
    known says nothing; in a project of few tests nothing does.
    """
    task, stats = schema().tasks["flaky"], list(tests.values())
    sources = [None if test.source_words is None else read_coordinates(test.source_words) for test in stats]
    names = task.added("name", weights, [read_coordinates(test.name_words) for test in stats])
    uses = task.added("source", weights, sources)
    counts = task.added("source-words", weights, [None if words is None else len(words) for words in sources])
    known = [None if words is None else use + count for words, use, count in zip(sources, uses, counts, strict=True)]
    evidence = list(map(add, _beside_mean(names), _beside_mean(known)))
    spread = (fsum(value * value for value in evidence) / max(len(evidence), 1)) ** 0.5
    if len(evidence) < FEWEST_WITH_WORDS or not 0.0 < spread < inf:
        return [0.0] * len(evidence)
    return [max(-WEIGHTS.most_of_words, min(WEIGHTS.most_of_words, WEIGHTS.words * nats / spread)) for nats in evidence]


def _beside_mean(values: Sequence[float | None]) -> list[float]:
    """Return the values less their mean; 0 for one that is not known."""
    known = [value for value in values if value is not None]
    mean = fsum(known) / len(known) if known else 0.0
    return [0.0 if value is None else value - mean for value in values]


def triage_values(
    tests: TestTable, build: Build, repeated: str, word_weights: Sequence[float] = ()
) -> list[tuple[TestRun, Raw]]:
    """Return each failure of the build with the triage task's raw values by part name.

    Args:
        tests: The table as it stood before the build, with every failed test in it (`with_tests`).
        build: The build.
        repeated: The stream, if the build before in it ran the same code in another run; else "".
        word_weights: The weights of the flaky task by which words are judged (`word_evidence`); () judges none.
    """
    runs = [run for run in build.reports.tests if run.outcome in "fck"]
    if not runs:
        return []
    failures = _common_facts(tests, build, runs, repeated)
    ranks, history, rows, by_id = time_ranks(tests), history_columns(tests), row_indices(tests), index_tests(tests)
    words = word_evidence(tests, word_weights) if word_weights else [0.0] * len(tests)
    return [
        (run, _values(by_id[run.test], run, failures, ranks[row], words[row], row_of(history, row)))
        for run in runs
        for row in (rows[run.test],)
    ]


def _common_facts(tests: TestTable, build: Build, runs: Sequence[TestRun], repeated: str) -> _Failures:
    change = build.situation.change if isinstance(build.situation.change, Change) else None
    return _Failures(
        len(runs),
        Counter(group_of(run.test) for run in runs),
        len(change.files) if change else None,
        repeated,
        failure_context(tests, runs, change.files if change else None),
    )


def _values(stats: TestStats, run: TestRun, failures: _Failures, rank: float | None, words: float, history: Raw) -> Raw:
    commit = _on_this_commit(stats, run, failures)
    # A failure that was confirmed in every rerun counts as one more in a row.
    repeats = stats.streak + (run.outcome == Outcome.CONFIRMED)
    evidence = failures.context.evidence(stats, run.test, repeats, type_fingerprint(run.failure_type))
    if not stats.streak:
        evidence = evidence._replace(companions=failures.context.new_companions(stats, run.test))
    if not stats.flips:
        first = WEIGHTS.first_failure if stats.runs and not stats.failures else 0.0
        evidence = evidence._replace(
            past=min(evidence.past + first, WEIGHTS.new_past_unseen),
            time=0.0 if rank is None else WEIGHTS.slow * rank,
            environment=WEIGHTS.environment if names_environment(run) else 0.0,
            words=words,
        )
    if commit in ("passed", "both"):
        evidence = evidence._replace(commit=WEIGHTS.passed_on_commit)
    return {
        "bias": 1.0,
        **history,
        "flipped": float(stats.flips > 0),
        **{f"evidence-{name}": round(getattr(evidence, name), 2) for name in EVIDENCE},
        **_facts(stats, run, failures, commit),
    }


def after_passing_rerun(values: Raw) -> Raw:
    """Return the values of a failure once the test passes when it is run again on the same code."""
    return {**values, "same-commit": "both", "evidence-commit": WEIGHTS.passed_on_commit}


def after_failing_rerun(values: Raw, stats: TestStats) -> Raw:
    """Return the values of a failure that fails again on the same code: it counts as one more in a row."""
    return {**values, "evidence-repeats": round(streak_evidence(stats, stats.streak + 1), 2)}


def _facts(stats: TestStats, run: TestRun, failures: _Failures, commit: str) -> Mapping[str, Value]:
    typical = typical_seconds(stats)
    seconds = None if isnan(run.seconds) else max(run.seconds, 0.001)
    return {
        "failures-in-a-row": stats.streak,
        "failures-in-build": failures.failed,
        "classmates-failing": failures.by_group[group_of(run.test)] - 1,
        "change": failures.context.relation(run.test),
        "files-changed": failures.files,
        "same-commit": commit,
        "failure-kind": failure_kind(run.failure_type),
        "seconds-ratio": round(log(seconds / max(typical, 0.001)), 1) if typical and seconds else None,
        "seconds": rounded(seconds) if seconds else None,
    }


def _on_this_commit(stats: TestStats, run: TestRun, failures: _Failures) -> str:
    """Return how the test went on this commit before, in this stream: an option of the part `same-commit`.

    What it did last may have been in another cell of the matrix, which says nothing about this one.
    """
    if run.outcome == Outcome.FLAKED:
        return "both"
    if not failures.repeated or not stats.recent or is_mixed(stats):
        return "unseen"
    if stats.streak:
        return "failed" if stats.failed_in == failures.repeated else "unseen"
    return "passed"


def private_test_features(test: str) -> tuple[str, ...]:
    """Return the private features of a test: its id and its class."""
    return (f"test={test}", f"class={group_of(test)}")


def flaky_examples(summary: Summary, build: Build, due: Callable[[str, int], bool]) -> tuple[Example, ...]:
    """Return an example for each test that ran and is due."""
    ran = [run.test for run in informative_runs(build.reports.tests)]
    tests = with_tests(summary.tests, ran, ran)
    by_id = index_tests(tests)
    chosen = [by_id[test] for test in ran if due(test, by_id[test].runs)]
    if not chosen:
        return ()
    columns, rows, task = flaky_columns(tests), row_indices(tests), schema().tasks["flaky"]
    return tuple(
        Example(
            stats.test,
            stats.runs,
            *task.encode(row_of(columns, rows[stats.test])),
            private_test_features(stats.test),
        )
        for stats in chosen
    )


def triage_examples(
    summary: Summary, build: Build, planned: PlannedBuild, word_weights: Sequence[float] = ()
) -> tuple[Example, ...]:
    """Return an example for each failure; none in an incident."""
    if is_incident(build.reports.tests):
        return ()
    ran = [run.test for run in build.reports.tests]
    tests = with_tests(summary.tests, (run.test for run in build.failures()), ran)
    by_id, task = index_tests(tests), schema().tasks["triage"]
    return tuple(
        Example(run.test, by_id[run.test].runs, *task.encode(values), private_test_features(run.test))
        for run, values in triage_values(
            tests, build, planned.stream * repeats_last(summary.builds, planned), word_weights
        )
    )
