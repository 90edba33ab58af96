"""Calibrated predictions from shared and local weights, each with its reasons. Loads no numpy."""

from collections.abc import Iterable, Mapping, Sequence
from heapq import nlargest
from itertools import repeat
from operator import add, mul
from typing import NamedTuple

from fedstep.features.build_features import (
    duration_features,
    failure_features,
    jenkins_estimate,
    private_build_features,
)
from fedstep.features.test_features import ACTIVE_BUILDS, flaky_columns, private_test_features, row_of, triage_values
from fedstep.history.flakiness import Flip
from fedstep.history.records import Forecast
from fedstep.history.summary import PlannedBuild, Summary, last_commit
from fedstep.history.test_table import TestStats, TestTable, index_tests, with_tests
from fedstep.ingest.change_impact import group_of
from fedstep.model.experts import START, combine
from fedstep.model.linear import LocalWeights, QuantileTrackers, initial_scaling, margin, probability
from fedstep.model.state import LocalModel
from fedstep.results import FailingSince, FailureVerdict, FeatureContribution, Interval, Risk, TestRisk
from fedstep.schema.schema import BagOfWords, Raw, SparseVector, Task, schema
from fedstep.types import NO_SECONDS, Build, BuildOutcome, Outcome, TestRun, Unavailable

FLAKY_ABOVE = 0.7  # a failure is called flaky from this probability on: suppressing a regression costs more
REGRESSION_BELOW = 0.3
WORTH_NAMING = 0.05  # a test is named as likely to flake from this probability on
MOST_RECENT_BUILDS = 20  # counted for a reason


class Predictor(NamedTuple):
    """The shared model (`production`) with the project's local correction."""

    production: Mapping[str, Sequence[float]]
    correction: LocalModel

    def duration(self, summary: Summary, planned: PlannedBuild) -> Interval | Unavailable:
        """Predict the build's duration, with a 90 % interval and Jenkins' estimate; Unavailable without a build."""
        found = duration_features(summary.builds, planned)
        if isinstance(found, Unavailable):
            return found
        estimate, raw = found
        row = schema().tasks["build-duration"].encode(raw)
        experts = self.correction.experts.get(planned.stream, START)
        margin_ = combine(experts, row, self._margin("build-duration", row, ()))
        trackers = self.correction.trackers.get(planned.stream, QuantileTrackers())
        low, seconds, high = (estimate.corrected(margin_ + spreads) for spreads in (trackers.low, 0.0, trackers.high))
        source = planned.stream.rpartition("|")[2]
        return Interval(seconds, low, high, source, jenkins_estimate(summary.builds, planned))

    def failure(self, summary: Summary, planned: PlannedBuild) -> Risk | Unavailable:
        """Predict the risk that the build does not pass; Unavailable before the first build."""
        if not summary.builds:
            return Unavailable("no build seen")
        raw, private = failure_features(summary.builds, planned), private_build_features(planned)
        row = schema().tasks["build-failure"].encode(raw)
        chance = self._probability("build-failure", self._margin("build-failure", row, private))
        told = self.explain("build-failure", raw, private, _recent_builds(summary, planned))
        return Risk(chance, told.contributions, told.base)

    def flakiest(self, summary: Summary, most: int, at_least: float = WORTH_NAMING) -> tuple[TestRisk, ...]:
        """Return the `most` active tests likeliest to flake in their next 20 runs, with at least that probability."""
        tests = list(summary.tests.values())
        task, local = schema().tasks["flaky"], self._local("flaky")
        columns = flaky_columns(summary.tests)
        shared = task.margins(self._summed(task, local), columns)
        recently = summary.count - ACTIVE_BUILDS
        scores = list(map(add, shared, _private_margins(summary.tests, local)))
        active = [row for row, stats in enumerate(tests) if stats.last_build >= recently]
        risks = (
            self._test_risk(tests[row], row_of(columns, row), scores[row])
            for row in nlargest(most, active, key=scores.__getitem__)
        )
        return tuple(risk for risk in risks if risk.probability >= at_least)

    def failures(self, summary: Summary, build: Build, stream: str) -> tuple[FailureVerdict, ...]:
        """Return a verdict for each failure of a build that the summary does not contain yet, likeliest flaky first."""
        ran = [run.test for run in build.reports.tests]
        table = with_tests(summary.tests, (run.test for run in build.failures()), ran)
        known, rows = index_tests(table), triage_values(table, build, last_commit(summary.builds, stream))
        return tuple(
            sorted((self._verdict(run, values, known[run.test], summary) for run, values in rows), key=_likeliest)
        )

    def _verdict(self, run: TestRun, values: Raw, stats: TestStats, summary: Summary) -> FailureVerdict:
        row, private = schema().tasks["triage"].encode(values), private_test_features(run.test)
        chance = self._probability("triage", self._margin("triage", row, private))
        told = self.explain("triage", values, private, _recent(stats))
        return FailureVerdict(
            test=run.test,
            flaky_probability=chance,
            reasons=told.contributions,
            verdict=classify_failure(chance),
            failure_type=run.failure_type,
            file=run.file,
            line=run.line,
            passed_on_rerun=run.outcome == Outcome.FLAKED,
            base=told.base,
            message=run.message,
            signature=run.signature,
            kind=_kind(stats, run, classify_failure(chance)),
            since=_since(stats, summary),
            runs=stats.runs,
        )

    def _test_risk(self, stats: TestStats, values: Raw, score: float) -> TestRisk:
        told = self.explain("flaky", values, private_test_features(stats.test), _recent(stats))
        return TestRisk(
            test=stats.test,
            probability=self._probability("flaky", score),
            reasons=told.contributions,
            runs=stats.runs,
            failures=stats.failures,
            flips=stats.flips,
            last_outcomes=stats.recent,
            base=told.base,
        )

    def _local(self, task: str) -> LocalWeights:
        return self.correction.local.get(task, LocalWeights())

    def _summed(self, task: Task, local: LocalWeights) -> list[float]:
        weights = list(self.production[task.name])
        for index, value in local.shared.items():
            weights[index] += value
        return weights

    def _margin(self, task: str, row: SparseVector, private: Sequence[str]) -> float:
        local = self._local(task)
        weights = self._summed(schema().tasks[task], local)
        return margin(weights, *row) + sum(local.private.get(name, 0.0) for name in private)

    def _probability(self, task: str, score: float) -> float:
        return probability(self.correction.platt.get(task, initial_scaling(task)), score)

    def explain(self, task: str, raw: Raw, private: Sequence[str], facts: Mapping[str, object]) -> "Explanation":
        """Return base and contributions of a prediction, the largest first; their sum is its margin.

        `facts` are numbers that the phrases use, and that add nothing: {"recent-flips": 3}.
        """
        parts, local = schema().tasks[task].parts, self._local(task)
        weights, usual = self._summed(schema().tasks[task], local), schema().tasks[task].usual()
        base, start = 0.0, 0
        found: list[FeatureContribution] = []
        for part in parts:
            size = len(part.names())
            expected = sum(map(mul, weights[start : start + size], usual[start : start + size]))
            pairs = [(offset, weights[start + offset] * value) for offset, value in part.encode(raw[part.name])]
            start += size
            if part.name == "bias":
                base += sum(added for _, added in pairs)
                continue
            base += expected
            if isinstance(part, BagOfWords):
                words = tuple(part.index)
                found += (FeatureContribution(f"{part.name}={words[offset]}", added) for offset, added in pairs)
                found.append(FeatureContribution(part.name, -expected))
            else:
                found.append(_contribution(part.name, raw[part.name], sum(added for _, added in pairs) - expected))
        found += (FeatureContribution(name, local.private[name]) for name in private if name in local.private)
        found.sort(key=lambda one: -abs(one.contribution))
        found += (FeatureContribution(f"{name}={value}", 0.0) for name, value in facts.items())
        return Explanation(base, tuple(found))


class Explanation(NamedTuple):
    """The margin of a usual prediction, and what each feature of this one adds to it."""

    base: float
    contributions: tuple[FeatureContribution, ...]


def _contribution(name: str, value: object, added: float) -> FeatureContribution:
    """Return the contribution of a part, with its value in a few digits."""
    told = "absent" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return FeatureContribution(f"{name}={told}", added)


def _recent(stats: TestStats) -> Mapping[str, object]:
    """Return how many of the last runs failed and flipped, which a phrase counts."""
    runs = len(stats.recent)
    failed = sum(letter in "fck" for letter in stats.recent)
    flipped = sum(letter != Flip.NONE for letter in stats.revealed)
    return {"runs-known": stats.runs, "recent-runs": runs, "recent-failures": failed, "recent-flips": flipped}


def _recent_builds(summary: Summary, planned: PlannedBuild) -> Mapping[str, object]:
    """Return how many of the last builds of the job failed."""
    last = [build for build in summary.builds if build.stream == planned.stream][-MOST_RECENT_BUILDS:]
    return {"recent-builds": len(last), "recent-broken": sum(build.outcome != BuildOutcome.PASSED for build in last)}


def _kind(stats: TestStats, run: TestRun, verdict: str) -> str:
    """Return one of FAILURE_KINDS: a flake is known if its past has flips, whatever the model thinks of its name."""
    if stats.flips and verdict == "flaky":
        known = stats.signatures.split()
        return "new-way" if run.signature and known and run.signature not in known else "flake"
    return "failing" if stats.streak else "new"


def _since(stats: TestStats, summary: Summary) -> FailingSince | Unavailable:
    """Return with which build the test began to fail; Unavailable where it passed in the build before."""
    if not stats.streak:
        return Unavailable("it did not fail in the build before")
    index = stats.failing_since - (summary.count - len(summary.builds))
    if not 0 <= index < len(summary.builds):
        return FailingSince(stats.streak)
    began = summary.builds[index]
    before = next((one for one in reversed(summary.builds[:index]) if one.stream == began.stream), None)
    return FailingSince(stats.streak, began.commit, before.commit if before else "")


def _likeliest(verdict: FailureVerdict) -> float:
    return -verdict.flaky_probability


def make_forecast(
    expected: Interval | Unavailable, risk: Risk | Unavailable, failures: Sequence[FailureVerdict], version: int
) -> Forecast:
    """Return what is recorded of the predictions for one build, made with this version of the shared model."""
    forecast = Forecast(flaky={failure.test: failure.flaky_probability for failure in failures}, version=version)
    if isinstance(risk, Risk):
        forecast = forecast._replace(risk=risk.probability)
    if isinstance(expected, Unavailable):
        return forecast
    jenkins = expected.jenkins_seconds
    return forecast._replace(
        seconds=expected.seconds,
        low=expected.low,
        high=expected.high,
        jenkins=NO_SECONDS if isinstance(jenkins, Unavailable) else jenkins,
    )


def classify_failure(chance: float) -> str:
    """Return the verdict for the probability that a failure is flaky: flaky, regression or unsure."""
    if chance >= FLAKY_ABOVE:
        return "flaky"
    return "regression" if chance <= REGRESSION_BELOW else "unsure"


def _private_margins(tests: TestTable, local: LocalWeights) -> Iterable[float]:
    """Return what the private weights of each test and of its class add to its margin."""
    if not local.private:
        return repeat(0.0, len(tests))
    weight_of = local.private.get
    own = (weight_of(f"test={test}", 0.0) for test in tests)
    groups = [group_of(test) for test in tests]
    of_class = {group: weight_of(f"class={group}", 0.0) for group in set(groups)}
    return map(add, own, map(of_class.__getitem__, groups))
