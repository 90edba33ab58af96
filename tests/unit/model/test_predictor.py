"""Facts about predictions: absent with a reason, calibrated, explained, and made without numpy."""

import math
import subprocess
import sys

import pytest

from fedstep.federation.model_cache import load_starter_model
from fedstep.history.records import make_record
from fedstep.history.summary import Summary, apply_record, plan_build
from fedstep.model.linear import (
    LocalWeights,
    PlattScaling,
    QuantileTrackers,
    margin,
    sigmoid,
)
from fedstep.model.predictor import (
    FLAKY_ABOVE,
    REGRESSION_BELOW,
    UNSEEN_BOUND,
    Predictor,
    classify_failure,
    correct,
)
from fedstep.model.state import LocalModel
from fedstep.results import Interval
from fedstep.schema.schema import EVIDENCE_SCALE, schema
from fedstep.types import (
    Build,
    BuildContext,
    BuildOutcome,
    Change,
    CiRun,
    Duration,
    FileChange,
    Outcome,
    Reports,
    TestRun,
    Unavailable,
)

STREAM = "unit||mark"


def weights(task: str, **named: float) -> list[float]:
    """A task with these weights by coordinate, and zeros elsewhere."""
    names = schema().tasks[task].names()
    found = [0.0] * len(names)
    for name, weight in named.items():
        found[names.index(name)] = weight
    return found


FLIPPED = {f"flip-rate-20={rate}": rate for rate in (0.03, 0.1, 0.3, 1)}
MODEL = {
    "flaky": weights("flaky", evidence=EVIDENCE_SCALE),
    "triage": weights("triage", bias=-1.0, **{name: 8 * rate for name, rate in FLIPPED.items()}),
    "build-failure": weights("build-failure", similar=2.0, own=1.0),
    "build-duration": weights("build-duration", last=0.1),
}
TESTS = tuple(f"org.acme.core.Part{n % 4}Test#case{n}" for n in range(20))


def build(number: int, letters: str = "", seconds: float = 300.0) -> Build:
    change = Change(f"c{number}", "", "ann", (FileChange("docs/a.md", 1, 0),))
    situation = BuildContext(CiRun(job="unit", branch="main", event="push"), change, 1_760_000_000.0 + 7200 * number)
    runs = tuple(TestRun(test, Outcome(letter), 0.1) for test, letter in zip(TESTS, letters, strict=False))
    outcome = BuildOutcome.FAILED if set(letters) & set("fc") else BuildOutcome.PASSED
    end = situation.started_at + seconds
    return Build(f"{number:032x}", situation, end, Duration(seconds, "mark"), outcome, Reports(runs))


def known(*builds: Build) -> Summary:
    summary = Summary()
    for one in builds:
        summary = apply_record(summary, one.name, make_record(one, STREAM, "a1"))
    return summary


PLANNED = plan_build(build(100).situation, STREAM, "a1")


class TestDuration:
    def test_without_a_build_there_is_no_time_or_risk(self) -> None:
        """Before the first build, time and risk are absent with a reason."""
        forecaster = Predictor(MODEL, LocalModel())
        time, risk = forecaster.duration(Summary(), PLANNED), forecaster.failure(Summary(), PLANNED)
        assert isinstance(time, Unavailable)
        assert isinstance(risk, Unavailable)
        assert time.reason == "no finished build of this job with a known duration"
        assert risk.reason == "no build of this project is recorded yet"

    def test_one_build_gives_a_time_with_a_wide_interval(self) -> None:
        """The second build is expected to take as long as the first, within a factor of several."""
        found = Predictor(MODEL, LocalModel()).duration(known(build(0, seconds=300.0)), PLANNED)
        assert isinstance(found, Interval)
        assert found.seconds == pytest.approx(300.0)
        assert found.low < 100.0
        assert found.high > 900.0

    def test_builds_of_another_stream_are_not_counted(self) -> None:
        found = Predictor(MODEL, LocalModel()).duration(
            known(*map(build, range(9))), PLANNED._replace(stream="e2e||mark")
        )
        assert isinstance(found, Unavailable)
        assert found.reason == "no finished build of this job with a known duration"

    def test_a_steady_project_is_expected_to_stay_steady(self) -> None:
        summary = known(*(build(n, seconds=300.0 + n % 3) for n in range(20)))
        found = Predictor(MODEL, LocalModel()).duration(summary, PLANNED)
        assert not isinstance(found, Unavailable)
        assert found.low < found.seconds < found.high
        assert found.seconds == pytest.approx(301, rel=0.05)
        assert found.jenkins_seconds == pytest.approx(301, rel=0.01)
        assert found.source == "mark"

    def test_the_interval_is_the_streams_own(self) -> None:
        summary = known(*(build(n, seconds=250.0 + 50 * (n % 3)) for n in range(20)))
        wide = Predictor(MODEL, LocalModel(trackers={STREAM: QuantileTrackers(low=-8.0, high=8.0)})).duration(
            summary, PLANNED
        )
        narrow = Predictor(MODEL, LocalModel(trackers={STREAM: QuantileTrackers(low=-0.5, high=0.5)})).duration(
            summary, PLANNED
        )
        assert not isinstance(wide, Unavailable)
        assert not isinstance(narrow, Unavailable)
        assert wide.seconds == narrow.seconds
        assert wide.low < narrow.low < narrow.high < wide.high


class TestRisk:
    def test_failing_project_is_riskier_than_a_passing_one(self) -> None:
        """A project that always fails is riskier than one that never does."""
        forecaster = Predictor(MODEL, LocalModel())
        good = forecaster.failure(known(*(build(n, "p" * 20) for n in range(15))), PLANNED)
        bad = forecaster.failure(known(*(build(n, "f" + "p" * 19) for n in range(15))), PLANNED)
        assert not isinstance(good, Unavailable)
        assert not isinstance(bad, Unavailable)
        assert good.probability < 0.4 < bad.probability
        assert bad.reasons

    def test_flaking_test_ranks_above_quiet_ones(self) -> None:
        """The test that flakes is named, and those that do not are at most suspected."""
        summary = known(*(build(n, "p" * 7 + ("k" if n % 4 == 0 else "p") + "p" * 12) for n in range(30)))
        predictor = Predictor(MODEL, LocalModel())
        assert [risk.test for risk in predictor.flakiest(summary, 4, at_least=0.0)] == [TESTS[7]]
        suspects = predictor.suspects(summary, 4, at_least=0.0)
        ranked = (*predictor.flakiest(summary, 4), *suspects)
        assert len(suspects) == 4
        assert [risk.probability for risk in ranked] == sorted((risk.probability for risk in ranked), reverse=True)
        sizes = [abs(reason.contribution) for reason in ranked[0].reasons]
        assert sizes == sorted(sizes, reverse=True)
        assert "bias" not in {reason.feature for reason in ranked[0].reasons}

    def test_a_test_that_no_longer_runs_is_not_predicted(self) -> None:
        summary = known(build(0, "k"), *(build(n, "s" + "p" * 19) for n in range(1, 22)))
        assert TESTS[0] not in {
            risk.test for risk in Predictor(MODEL, LocalModel()).flakiest(summary, 20, at_least=0.0)
        }

    def test_local_weights_and_calibration_move_the_prediction(self) -> None:
        summary = known(*(build(n, "p" * 20) for n in range(5)))
        plain = Predictor(MODEL, LocalModel({}, {"flaky": PlattScaling()})).suspects(summary, 20, at_least=0.0)
        local = LocalWeights({}, {f"test={TESTS[3]}": 4.0, f"class={TESTS[3].partition('#')[0]}": 1.0})
        moved = Predictor(MODEL, LocalModel({"flaky": local}, {"flaky": PlattScaling(1.0, -1.0)})).suspects(
            summary, 20, at_least=0.0
        )
        assert moved[0].test == TESTS[3]

        def odds(chance: float) -> float:
            return math.log(chance / (1 - chance))

        before = next(risk.probability for risk in plain if risk.test == TESTS[3])
        assert odds(moved[0].probability) == pytest.approx(correct(odds(before), 5.0 - 1.0, UNSEEN_BOUND))
        assert {reason.feature for reason in moved[0].reasons} >= set(local.private)


class TestVerdicts:
    def test_a_verdict_comes_from_the_triage_task(self) -> None:
        summary = known(*(build(n, "p" * 20) for n in range(5)))
        now = build(9, "pfp")
        (verdict,) = Predictor(MODEL, LocalModel()).failures(summary, now, STREAM)
        assert verdict.test == TESTS[1]
        assert verdict.verdict == classify_failure(verdict.flaky_probability)
        bias = [0.0] * schema().tasks["triage"].size()
        bias[0] = -2.0
        (told,) = Predictor({**MODEL, "triage": bias}, LocalModel()).failures(summary, now, STREAM)
        assert told.flaky_probability == pytest.approx(sigmoid(margin(bias, (0,), (1.0,))))
        assert told.verdict == "regression"

    def test_failures_are_told_with_the_likeliest_flake_first(self) -> None:
        summary = known(*(build(n, ("k" if n % 3 == 0 else "p") + "p" * 19) for n in range(12)))
        verdicts = Predictor(MODEL, LocalModel()).failures(summary, build(30, "ff" + "p" * 18), STREAM)
        assert [one.test for one in verdicts] == [TESTS[0], TESTS[1]]

    @pytest.mark.parametrize(
        ("chance", "word"),
        [
            (1.0, "flaky"),
            (FLAKY_ABOVE, "flaky"),
            (FLAKY_ABOVE - 1e-9, "unsure"),
            (REGRESSION_BELOW + 1e-9, "unsure"),
            (REGRESSION_BELOW, "regression"),
            (0.0, "regression"),
        ],
    )
    def test_a_verdict_has_two_thresholds(self, chance: float, word: str) -> None:
        assert classify_failure(chance) == word


class TestImports:
    def test_predicting_loads_no_numpy(self) -> None:
        program = """
import sys
from fedstep.federation.model_cache import load_starter_model
from fedstep.model.predictor import Predictor
from fedstep.history.summary import Summary, decode_summary, encode_summary
from fedstep.model.state import LocalModel
summary = decode_summary(encode_summary(Summary()))
print(Predictor(load_starter_model().production, LocalModel()).flakiest(summary, 3, at_least=0.0))
print(sorted({"numpy", "scipy", "sklearn", "joblib", "requests", "hypothesis"} & set(sys.modules)))
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.split("\n")[:2] == ["()", "[]"]


class TestExplanations:
    def test_base_and_contributions_are_the_margin(self) -> None:
        """For every task, with the weights of the starter model, local weights and words: to 1e-9."""
        starter = load_starter_model().production
        local = {
            "flaky": LocalWeights({3: 0.25, 7: -0.5}, {f"test={TESTS[3]}": 0.4, "class=org.acme.core.Part3Test": -0.2}),
            "triage": LocalWeights({5: 0.1}, {f"test={TESTS[3]}": 0.3}),
        }
        predictor = Predictor(starter, LocalModel(local=local))
        summary = known(*(build(n, ("f" if n % 3 else "k") + "p" * 19) for n in range(12)))
        planned = plan_build(build(13).situation, STREAM, "")
        verdicts = predictor.failures(summary, build(13, "ffff" + "p" * 16), STREAM)
        flakiest = (*predictor.flakiest(summary, 20, 0.0), *predictor.suspects(summary, 20, 0.0))
        risk = predictor.failure(summary, planned)
        assert not isinstance(risk, Unavailable)
        assert (len(flakiest), len(verdicts)) == (20, 4)
        for base, reasons, chance, task in (
            *((one.base, one.reasons, one.probability, "flaky") for one in flakiest),
            *((one.base, one.reasons, one.flaky_probability, "triage") for one in verdicts),
            (risk.base, risk.reasons, risk.probability, "build-failure"),
        ):
            score = base + math.fsum(reason.contribution for reason in reasons)
            assert sigmoid(score) == pytest.approx(chance, abs=1e-9), task

    def test_the_usual_explains_nothing(self) -> None:
        """A row that is the mean of all projects has the base as its margin, and the means are shipped by name."""
        for task in schema().tasks.values():
            usual = task.usual()
            assert len(usual) == task.size()
            assert any(usual), task.name
