"""Facts about the figures of a study."""

import pytest
from sklearn.metrics import matthews_corrcoef

from fedstep.evaluation.replay_tests import KNOWN_FAILURES
from fedstep.evaluation.scores import ORDERS, Tally, chances_of, orders_of, summary_of_chances, times_of
from fedstep.evaluation.simulated_federation import CasePrediction
from tests.benchmarks.results_lines import best, mean_scores, pooled_mcc


def tally(*predictions: tuple[float, float, float, float, float]) -> Tally:
    """Predictions as (said, low, high, truth, Jenkins' estimate), the builds of a project from the first on."""
    made = Tally()
    for number, (said, low, high, truth, jenkins) in enumerate(predictions):
        made.add(CasePrediction("shop", number, said, low, high, truth, {"jenkins": jenkins}))
    return made


class TestTimes:
    def test_the_ends_of_the_interval_are_scored_by_pinball_loss(self) -> None:
        """An end that is exceeded costs 0.95 of the distance, one that is not costs 0.05."""
        scores = times_of(tally((100.0, 80.0, 120.0, 220.0, 120.0)), 0)
        lost = (0.05 * (220.0 - 80.0) + 0.95 * (220.0 - 120.0)) / 2
        assert scores["pinball_ratio_jenkins"] == pytest.approx(lost / 100.0)

    def test_a_build_that_decides_the_error_is_told(self) -> None:
        """The part of the largest error in all of them shows a project in which one build decides."""
        usual = (100.0, 80.0, 120.0, 110.0, 100.0)
        scores = times_of(tally(usual, usual, (100.0, 80.0, 120.0, 1080.0, 100.0)), 0)
        assert scores["largest_error_share"] == pytest.approx(0.98)


class TestCapture:
    def test_capture_counts_the_positives_among_the_riskiest(self) -> None:
        """Of twenty builds, the riskiest two of ten percent hold one of four failures."""
        failing = {0, 5, 10, 15}
        builds = ((1.0 - n / 20, 0.0, 1.0, float(n in failing), 0.0) for n in range(20))
        scores = chances_of(tally(*builds), 0.5, 0)
        assert (scores["capture_5"], scores["capture_10"], scores["capture_20"]) == pytest.approx((0.25, 0.25, 0.25))

    def test_equal_chances_capture_what_chance_would(self) -> None:
        """Where all builds are equally risky, a tenth of them holds a tenth of the failures."""
        builds = ((0.3, 0.0, 1.0, float(n < 8), 0.0) for n in range(20))
        assert chances_of(tally(*builds), 0.5, 0)["capture_10"] == pytest.approx(0.1)


class TestCalibration:
    def test_tenths_say_what_was_predicted_and_what_was_seen(self) -> None:
        """A chance of exactly 1 belongs to the last tenth; a tenth without cases is not there."""
        made = tally(
            *((said, 0.0, 1.0, truth, 0.0) for said, truth in ((0.12, 0.0), (0.18, 1.0), (0.95, 1.0), (1.0, 1.0)))
        )
        found = summary_of_chances({}, [made], 0.5, 0)
        told = {key: value for key, value in found.items() if "_chance_" in key}
        assert told == pytest.approx(
            {
                "said_chance_1": 0.15,
                "seen_chance_1": 0.5,
                "cases_chance_1": 2.0,
                "said_chance_9": 0.975,
                "seen_chance_9": 1.0,
                "cases_chance_9": 2.0,
            }
        )


class TestFirstFailures:
    def test_studies_together_have_the_mcc_of_all_their_cases(self) -> None:
        """First and second failures are counted apart in each study; later ones in none."""
        said = [0.9, 0.1, 0.8, 0.2, 0.9, 0.6, 0.3, 0.95, 0.1, 0.75, 0.9, 0.2]
        truth = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0]
        studies = []
        for part in (slice(0, 6), slice(6, 12)):
            made = Tally()
            for ordinal, (chance, flaky) in enumerate(zip(said[part], truth[part], strict=True)):
                for failures in (0.0, 1.0 + ordinal % 2):  # each once as a first failure, half of them as a second
                    made.add(CasePrediction("shop", 20, chance, 0.0, 1.0, flaky, {KNOWN_FAILURES: failures}))
            studies.append({"summary": summary_of_chances({}, [made], 0.7, 0)})
        named = [chance >= 0.7 for chance in said]
        assert pooled_mcc("first")(studies) == pytest.approx(matthews_corrcoef(truth, named))
        both = matthews_corrcoef(truth + truth[0:12:2], named + named[0:12:2])
        assert pooled_mcc("first", "second")(studies) == pytest.approx(both)


class TestMeanOfStudies:
    def test_the_simple_predictor_is_averaged_over_the_same_studies(self) -> None:
        """The best simple predictor of the first study alone would be another one."""
        studies = [
            {"summary": {"ap": ours}, "baselines": {"rate": {"ap": rate}, "last": {"ap": last}}}
            for ours, rate, last in ((0.4, 0.3, 0.2), (0.6, 0.1, 0.3))
        ]
        averaged = mean_scores(studies)
        assert averaged["summary"] == {"ap": pytest.approx(0.5)}
        assert best("ap")(averaged) == "last 0.250"


class TestColdStart:
    def test_builds_three_to_thirty_are_ranked_apart(self) -> None:
        """The first two builds and those from the 31st on, all ranked wrongly here, do not count."""
        outcomes = [float(number % 2) for number in range(40)]
        builds = ((failed if 2 <= n < 30 else 1.0 - failed, 0.0, 1.0, failed, 0.0) for n, failed in enumerate(outcomes))
        assert chances_of(tally(*builds), 0.5)["auc_cold"] == 1.0


class TestPromise:
    def test_it_is_judged_by_what_a_selection_would_run(self) -> None:
        """After twenty builds that fail in the first of ten tests, two of the next three do, and one in the last test.

        The sixth always runs: with it, the first, and a twentieth of the others 0.2 + 0.04 of the time.
        """
        made = Tally()
        for number in range(23):
            for place in range(10):
                failed = float(place == (9 if number == 22 else 0))
                others = {"seconds": 1.0, "unfailed": 0.0, "began": failed, "always": float(place == 5)}
                others |= dict.fromkeys(ORDERS, 0.0)
                made.add(CasePrediction("shop", number, -float(place), 0.0, 0.0, failed, others))
        scores = orders_of(made)
        found = (scores["promises"], scores["promise_kept"], scores["promise_share"])
        assert found == pytest.approx((3.0, 2 / 3, 0.24))

    def test_a_new_failure_of_what_always_runs_needs_no_time(self) -> None:
        """A build that only goes on failing is no build to judge by."""
        made = Tally()
        for number in range(24):
            for place in range(4):
                failed = float(place == 3)
                others = {"seconds": 1.0, "unfailed": 0.0, "began": failed * (number != 22), "always": failed}
                others |= dict.fromkeys(ORDERS, 0.0)
                made.add(CasePrediction("shop", number, -float(place), 0.0, 0.0, failed, others))
        scores = orders_of(made)
        assert (scores["promises"], scores["promise_kept"]) == (3.0, 1.0)
        assert scores["promise_share"] == pytest.approx(0.25 + 0.05 * 0.75)
