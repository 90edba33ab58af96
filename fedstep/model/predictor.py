"""Calibrated predictions from shared and local weights, each with its reasons. Loads no numpy."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from heapq import nlargest
from itertools import repeat
from math import fsum, log, tanh
from operator import add, mul
from typing import NamedTuple

from fedstep.errors import HistoryError
from fedstep.features.build_features import (
    duration_features,
    failure_features,
    jenkins_estimate,
    private_build_features,
)
from fedstep.features.test_features import (
    ACTIVE_BUILDS,
    after_failing_rerun,
    after_passing_rerun,
    flaky_columns,
    private_test_features,
    row_of,
    triage_values,
)
from fedstep.history.flakiness import Flip, group_by_cause
from fedstep.history.project_store import CORRECTION, ProjectStore
from fedstep.history.records import Example, Forecast
from fedstep.history.summary import PlannedBuild, Summary, plan_build, repeats_last
from fedstep.history.test_table import TestStats, TestTable, index_tests, with_tests
from fedstep.ingest.change_impact import group_of
from fedstep.model.experts import START, combine
from fedstep.model.linear import LocalWeights, PlattScaling, QuantileTrackers, initial_scaling, margin, sigmoid
from fedstep.model.state import LocalModel, decode_local_model
from fedstep.results import FailingSince, FailureVerdict, FeatureContribution, Interval, Risk, TestRisk
from fedstep.schema.schema import EVIDENCE_SCALE, BagOfWords, Columns, Raw, SparseVector, Task, schema
from fedstep.types import NO_SECONDS, Build, BuildOutcome, Outcome, TestRun, Unavailable

FLAKY_ABOVE = 0.7  # a failure is called flaky from this probability on: suppressing a regression costs more
REGRESSION_BELOW = 0.3
WORTH_NAMING = 0.1  # a test that was seen to flip is named as likely to flake from this probability on ...
WORTH_A_LOOK = 0.05  # ... and a test that never did as worth a look
MOST_RECENT_BUILDS = 20  # counted for a reason

CERTAIN = 2.0**-53  # the smallest distance of a probability from 0 and 1 that its reasons can add up to


def load_predictor(
    store: ProjectStore, production: Mapping[str, Sequence[float]], words: Sequence[float] = ()
) -> "Predictor":
    """Return a predictor that combines the shared weights `production` with what this project has learned.

    `words` are the weights by which the words of a failed test are judged; only a verdict on failures needs them.
    """
    try:
        correction, _ = decode_local_model(store.read(CORRECTION))
    except HistoryError:  # not written yet, damaged, or of another version: `train` writes it again
        correction = LocalModel()
    return Predictor(production, correction, words)


class Predictor(NamedTuple):
    """The shared model (`production`) with the project's local correction."""

    production: Mapping[str, Sequence[float]]
    correction: LocalModel
    words: Sequence[float] = ()  # of the flaky task, as in `triage_values`

    def duration(self, summary: Summary, planned: PlannedBuild) -> Interval | Unavailable:
        """Predict the build's duration, with a 90 % interval and Jenkins' estimate; Unavailable without a build."""
        features = duration_features(summary.builds, planned)
        if isinstance(features, Unavailable):
            return features
        estimate, raw = features
        row = schema().tasks["build-duration"].encode(raw)
        experts = self.correction.experts.get(planned.stream, START)
        margin_ = combine(experts, row, self._margin("build-duration", row, ()))
        trackers = self.correction.trackers.get(planned.stream, QuantileTrackers())
        low, seconds, high = estimate.interval(margin_, trackers.ends())
        source = planned.stream.rpartition("|")[2].partition(" ")[0]
        return Interval(seconds, low, high, source, jenkins_estimate(summary.builds, planned))

    def failure(self, summary: Summary, planned: PlannedBuild) -> Risk | Unavailable:
        """Predict the risk that the build does not pass; Unavailable before the first build."""
        if not summary.builds:
            return Unavailable("no build of this project is recorded yet")
        raw, private = failure_features(summary.builds, planned), private_build_features(planned)
        chance = self.chance("build-failure", schema().tasks["build-failure"].encode(raw), private)
        explanation = self.explain("build-failure", raw, private, _recent_builds(summary, planned)).ending_at(chance)
        return Risk(chance, explanation.contributions, explanation.base)

    def flakiest(self, summary: Summary, most: int, at_least: float = WORTH_NAMING) -> tuple[TestRisk, ...]:
        """Return the `most` active tests likeliest to flake in their next 20 runs, of those that were seen to flip.

        Tests that likely have one cause are one entry, which names the others.
        """
        return self._likeliest(summary, most, at_least, flipped=True)

    def suspects(self, summary: Summary, most: int, at_least: float = WORTH_A_LOOK) -> tuple[TestRisk, ...]:
        """Return the `most` active tests that never flipped, but whose words, time or neighbours are a flake's."""
        return self._likeliest(summary, most, at_least, flipped=False)

    def _likeliest(self, summary: Summary, most: int, at_least: float, flipped: bool) -> tuple[TestRisk, ...]:
        recently = summary.count - ACTIVE_BUILDS
        rows = [
            row
            for row, stats in enumerate(summary.tests.values())
            if stats.last_build >= recently and (stats.flips > 0) == flipped
        ]
        if not rows:
            return ()
        columns, tests = flaky_columns(summary.tests), list(summary.tests.values())
        if not flipped:  # thousands, of which few can be the likeliest; those seen to flip are few
            scores = self._margins("flaky", columns, summary.tests)
            rows = nlargest(most, rows, key=scores.__getitem__)
        risks = sorted((self._test_risk(tests[row], row_of(columns, row)) for row in rows), key=_by_probability)
        if flipped:
            risks = _join_by_cause(risks, summary.tests)
        return tuple(risk for risk in risks[:most] if risk.probability >= at_least)

    def _margins(self, task: str, columns: Columns, tests: TestTable) -> Sequence[float]:
        """Return the margin of every test of the table."""
        local = self._local(task)
        shared = schema().tasks[task].margins(self._sum_weights(schema().tasks[task], local), columns)
        return list(map(add, shared, _private_margins(tests, local)))

    def failures(self, summary: Summary, build: Build, stream: str) -> tuple[FailureVerdict, ...]:
        """Return a verdict for each failure of a build that the summary does not contain yet, likeliest flaky first."""
        ran = [run.test for run in build.reports.tests]
        table = with_tests(summary.tests, (run.test for run in build.failures()), ran)
        repeats = repeats_last(summary.builds, plan_build(build.situation, stream, ""))
        known, rows = index_tests(table), triage_values(table, build, stream * repeats, self.words)
        return tuple(
            sorted((self._verdict(run, values, known[run.test], summary) for run, values in rows), key=_likeliest)
        )

    def _verdict(self, run: TestRun, values: Raw, stats: TestStats, summary: Summary) -> FailureVerdict:
        row, private = schema().tasks["triage"].encode(values), private_test_features(run.test)
        chance = self.chance("triage", row, private, stats.runs)
        explanation = self.explain("triage", values, private, _recent(stats)).ending_at(chance)
        return FailureVerdict(
            test=run.test,
            flaky_probability=chance,
            reasons=explanation.contributions,
            verdict=classify_failure(chance),
            failure_type=run.failure_type,
            file=run.file,
            line=run.line,
            passed_on_rerun=run.outcome == Outcome.FLAKED,
            base=explanation.base,
            message=run.message,
            signature=run.signature,
            kind=_kind(stats, run, classify_failure(chance)),
            since=_since(stats, summary),
            runs=stats.runs,
            is_new=not stats.runs and bool(summary.tests),
            if_rerun_passes=self._failure_chance(after_passing_rerun(values), private, stats),
            if_rerun_fails=self._failure_chance(after_failing_rerun(values, stats), private, stats),
        )

    def _failure_chance(self, values: Raw, private: Sequence[str], stats: TestStats) -> float:
        """Return the probability that a failure with these values is flaky."""
        return self.chance("triage", schema().tasks["triage"].encode(values), private, stats.runs)

    def _test_risk(self, stats: TestStats, values: Raw) -> TestRisk:
        row, private = schema().tasks["flaky"].encode(values), private_test_features(stats.test)
        chance = self.chance("flaky", row, private)
        explanation = _within_bounds(self.explain("flaky", values, private, _recent(stats)), values, chance)
        return TestRisk(
            test=stats.test,
            probability=chance,
            reasons=explanation.contributions,
            runs=stats.runs,
            failures=stats.failures,
            flips=stats.flips,
            last_outcomes=stats.recent,
            base=explanation.base,
        )

    def _local(self, task: str) -> LocalWeights:
        return self.correction.local.get(task, LocalWeights())

    def _sum_weights(self, task: Task, local: LocalWeights) -> list[float]:
        weights = list(self.production[task.name])
        for index, value in local.shared.items():
            weights[index] += value
        return weights

    def _margin(self, task: str, row: SparseVector, private: Sequence[str]) -> float:
        local = self._local(task)
        weights = self._sum_weights(schema().tasks[task], local)
        return margin(weights, *row) + sum(local.private.get(name, 0.0) for name in private)

    def chance(self, task: str, row: SparseVector, private: Sequence[str], runs: int = 0) -> float:
        """Return the probability of one row; for `triage`, `runs` of the test are known."""
        platt = self.correction.platt.get(task, initial_scaling(task))
        example = Example("", runs, row.indices, row.values, tuple(private))
        return chance_of(task, self.production[task], self._local(task), platt, example)

    def explain(self, task: str, raw: Raw, private: Sequence[str], facts: Mapping[str, object]) -> "Explanation":
        """Return base and contributions of a prediction, the largest first; their sum is its margin.

        `facts` are numbers that the phrases use, and that add nothing: {"recent-flips": 3}.
        """
        model, local = schema().tasks[task], self._local(task)
        weights, usual, base = self._sum_weights(model, local), model.usual(), 0.0
        contributions: list[FeatureContribution] = []
        for part, start, end in model.spans():
            expected = sum(map(mul, weights[start:end], usual[start:end]))
            pairs = [(offset, weights[start + offset] * value) for offset, value in part.encode(raw[part.name])]
            if part.name == "bias":
                base += sum(added for _, added in pairs)
                continue
            base += expected
            if isinstance(part, BagOfWords):
                words = tuple(part.index)
                contributions += (FeatureContribution(f"{part.name}={words[offset]}", added) for offset, added in pairs)
                contributions.append(FeatureContribution(part.name, -expected))
            else:
                contributions.append(
                    _contribution(part.name, raw[part.name], sum(added for _, added in pairs) - expected)
                )
        contributions += (FeatureContribution(name, local.private[name]) for name in private if name in local.private)
        contributions.sort(key=_by_size)
        contributions += (FeatureContribution(f"{name}={value}", 0.0) for name, value in facts.items())
        return Explanation(base, tuple(contributions))


class Explanation(NamedTuple):
    """The margin of a usual prediction, and what each feature of this one adds to it."""

    base: float
    contributions: tuple[FeatureContribution, ...]

    def ending_at(self, chance: float) -> "Explanation":
        """Return the same contributions with the base from which they lead to the log-odds of this probability.

        The base takes in the calibration, and what a bound takes away.
        """
        return self._replace(base=_log_odds(chance) - fsum(term.contribution for term in self.contributions))


def _log_odds(chance: float) -> float:
    """Return the log-odds of a probability, at most 37 nats from 0, where a float differs from 0 and 1."""
    chance = min(max(chance, CERTAIN), 1.0 - CERTAIN)
    return log(chance / (1.0 - chance))


def _within_bounds(explanation: Explanation, values: Raw, chance: float) -> Explanation:
    """Return the explanation of a flaky test as it counts: its evidence in full, and what corrects it within bounds.

    Of a test that was seen to flip nothing but its words corrects it.
    """
    evidence = float(values["evidence"]) * EVIDENCE_SCALE  # type: ignore[arg-type]
    usual = schema().tasks["flaky"].usual()[_first("flaky", "evidence")] * EVIDENCE_SCALE
    others = [
        term for term in explanation.contributions if term.feature.partition("=")[0] not in ("evidence", "flipped")
    ]
    if values["flipped"]:
        others = [
            term for term in others if not term.contribution or term.feature.partition("=")[0] in ("name", "source")
        ]
    total = fsum(term.contribution for term in others)
    share = min(1.0, abs((_log_odds(chance) - evidence) / total)) if total else 0.0
    scaled = (term._replace(contribution=term.contribution * share) for term in others)
    contributions = (_contribution("flake-rate", round(sigmoid(evidence), 3), evidence - usual), *scaled)
    return Explanation(0.0, tuple(sorted(contributions, key=_by_size))).ending_at(chance)


def _by_size(contribution: FeatureContribution) -> float:
    return -abs(contribution.contribution)


def _contribution(name: str, value: object, added: float) -> FeatureContribution:
    """Return the contribution of a part, with its value in a few digits."""
    text = "absent" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return FeatureContribution(f"{name}={text}", added)


def _recent(stats: TestStats) -> Mapping[str, object]:
    """Return how many of the last runs failed and flipped, which a phrase counts."""
    runs = len(stats.recent)
    failed = sum(letter in "fck" for letter in stats.recent)
    flipped = sum(letter != Flip.NONE for letter in stats.revealed)
    return {"runs-known": stats.runs, "recent-runs": runs, "recent-failures": failed, "recent-flips": flipped}


def _recent_builds(summary: Summary, planned: PlannedBuild) -> Mapping[str, object]:
    """Return how many of the last builds of the job failed, and whether branches are known, as in CI."""
    last = [build for build in summary.builds if build.stream == planned.stream][-MOST_RECENT_BUILDS:]
    broken = sum(build.outcome != BuildOutcome.PASSED for build in last)
    branch = "known" if planned.branch and any(build.branch for build in last) else "unknown"
    return {"recent-builds": len(last), "recent-broken": broken, "recent-branch": branch}


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
    before = next((build for build in reversed(summary.builds[:index]) if build.stream == began.stream), None)
    return FailingSince(stats.streak, began.commit, before.commit if before else "")


def _likeliest(verdict: FailureVerdict) -> float:
    return -verdict.flaky_probability


def real_failures(failures: Iterable[FailureVerdict]) -> list[str]:
    """Return the tests whose failures are not judged flaky."""
    return [failure.test for failure in failures if failure.verdict != "flaky" and not failure.passed_on_rerun]


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


def full_margin(weights: Sequence[float], local: LocalWeights, row: Example) -> float:
    """Return the margin of shared plus local weights."""
    correction = sum(local.shared.get(index, 0.0) * value for index, value in zip(row.indices, row.values, strict=True))
    return margin(weights, row.indices, row.values) + correction + sum(local.private.get(p, 0.0) for p in row.private)


UNSEEN_BOUND = 1.15  # nats by which suspicion moves the log-odds of a test that never flipped: below WORTH_NAMING ...
SEEN_BOUND = 0.5  # ... and its words those of a test that did: less than a flip does
UNPROVEN_FROM, UNPROVEN_TO = 1.0, 1.75  # a failure is no more than 85 % flaky where nothing was proven


def chance_of(task: str, weights: Sequence[float], local: LocalWeights, platt: PlattScaling, row: Example) -> float:
    """Return the calibrated probability of one example of a task about chances.

    Learning corrects the log-odds of what was seen of a test (`flaky`) within bounds, so that it never outweighs a
    flip; of a test that was seen to flip, by shared weights of its words alone, which no run changes. A failure
    (`triage`) of a test that did not pass on this commit is no proof: it is called flaky with 85 % at most if the test
    never flipped, and else with no more than its runs can support, (runs + 1) / (runs + 2), the rule of succession.
    """
    score = platt.slope * full_margin(weights, local, row) + platt.offset
    if task == "flaky":
        return sigmoid(_bound_by_evidence(weights, row, score))
    return sigmoid(_bounded_without_proof(row, score) if task == "triage" else score)


def is_flipped(task: str, row: Example) -> bool:
    """Return whether the test of an example of `flaky` or `triage` was ever seen to flip."""
    return _first(task, "flipped") in row.indices


def _bound_by_evidence(weights: Sequence[float], row: Example, score: float) -> float:
    values = dict(zip(row.indices, row.values, strict=True))
    evidence = values.get(_first("flaky", "evidence"), 0.0) * EVIDENCE_SCALE
    if not is_flipped("flaky", row):
        return correct(evidence, score - evidence, UNSEEN_BOUND)
    words = _first("flaky", "name")
    correction = sum(weights[index] * value for index, value in values.items() if index >= words)
    return correct(evidence, correction, SEEN_BOUND)


def correct(evidence: float, correction: float, bound: float) -> float:
    """Return log-odds moved by a correction, smoothly, by less than `bound`.

    >>> correct(-3.0, 100.0, 2.0), round(correct(-3.0, 0.01, 2.0), 4)
    (-1.0, -2.99)
    """
    return evidence + bound * tanh(correction / bound)


def _bounded_without_proof(row: Example, score: float) -> float:
    passed, both = (_first("triage", "same-commit") + offset for offset in (0, 2))
    if score <= UNPROVEN_FROM or passed in row.indices or both in row.indices:
        return score
    if is_flipped("triage", row):
        return max(UNPROVEN_FROM, min(score, log(row.run + 1)))
    return correct(UNPROVEN_FROM, score - UNPROVEN_FROM, UNPROVEN_TO - UNPROVEN_FROM)


@cache
def _first(task: str, part: str) -> int:
    return schema().tasks[task].first(part)


def classify_failure(chance: float) -> str:
    """Return the verdict for the probability that a failure is flaky: flaky, regression or unsure."""
    if chance >= FLAKY_ABOVE:
        return "flaky"
    return "regression" if chance <= REGRESSION_BELOW else "unsure"


def _join_by_cause(risks: Sequence[TestRisk], tests: TestTable) -> list[TestRisk]:
    """Return the risks with one entry for tests that likely have one cause: the likeliest to flake of them."""
    by_test = {risk.test: risk for risk in risks}
    groups = group_by_cause([tests[risk.test] for risk in risks])
    return [by_test[first.test]._replace(also=tuple(other.test for other in others)) for first, *others in groups]


def _by_probability(risk: TestRisk) -> tuple[float, str]:
    return (-risk.probability, risk.test)


def _private_margins(tests: TestTable, local: LocalWeights) -> Iterable[float]:
    """Return what the private weights of each test and of its class add to its margin."""
    if not local.private:
        return repeat(0.0, len(tests))
    weight_of = local.private.get
    own = (weight_of(f"test={test}", 0.0) for test in tests)
    groups = [group_of(test) for test in tests]
    of_class = {group: weight_of(f"class={group}", 0.0) for group in set(groups)}
    return map(add, own, map(of_class.__getitem__, groups))
