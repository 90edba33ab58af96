"""Reasons in words, and units, as people read them."""

import doctest
import importlib
import math
import pkgutil
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedstep.report
from fedstep.features.build_features import private_build_features
from fedstep.features.test_features import private_test_features as private_of_test
from fedstep.history.summary import PlannedBuild
from fedstep.model.predictor import WORTH_NAMING
from fedstep.report.markdown import interval_drawing
from fedstep.report.units import percent, size, span
from fedstep.report.wording import (
    FLAKY_FROM,
    FLAKY_RUNS,
    LAST_OF_BRANCH,
    compare_time,
    describe_group,
    format_interval,
    format_jenkins,
    rank_causes,
    rank_suspicions,
)
from fedstep.results import FailureGroup, FailureVerdict, FeatureContribution, Interval, TestRisk
from fedstep.schema.schema import TASK_NAMES, schema

MODULES = [module.name for module in pkgutil.iter_modules(fedstep.report.__path__, "fedstep.report.")]


class TestLikely:
    def test_likely_means_what_the_model_counts(self) -> None:
        """The report names the horizon and the chance from which a test is counted, and cannot import the model."""
        assert (schema().tasks["flaky"].horizon, WORTH_NAMING) == (FLAKY_RUNS, FLAKY_FROM)


class TestComparedTime:
    @pytest.mark.parametrize(
        ("seconds", "place"),
        [
            (3.8123, "inside"),
            (3.8001, "inside"),
            (3.7, "just below"),
            (3.6, "below"),
            (14.6, "just above"),
            (22.0, "above"),
        ],
    )
    def test_a_time_is_told_as_a_reader_sees_it(self, seconds: float, place: str) -> None:
        """'3.8 s, outside the expected 3.8 s - 14 s' was read as a mistake."""
        assert compare_time(Interval(9.0, 3.8123, 14.0), seconds) == place


class TestSlowTests:
    def test_a_few_milliseconds_more_are_not_slow(self) -> None:
        """'30 ms of tests, outside the expected 4.8 ms - 26 ms' was told of Go's tests, build after build."""
        assert compare_time(Interval(0.01, 0.0048, 0.026), 0.030) == "just above"


class TestReasons:
    @pytest.mark.parametrize("module", MODULES)
    def test_the_examples_hold(self, module: str) -> None:
        assert doctest.testmod(importlib.import_module(module)).failed == 0

    def test_the_features_of_one_concept_are_one_cause(self) -> None:
        """Two rates of failures are one thing to a person; the larger one tells it."""
        (cause,) = rank_causes(
            [FeatureContribution("failure-rate-50=0.05", 0.3), FeatureContribution("failure-rate-5=0.2", 0.2)]
        )
        assert cause.phrase == "failed in 5 % of its last 50 runs"
        assert cause.contribution == 0.5

    def test_flips_are_counted(self) -> None:
        """The number that matters is a number of runs, not a decayed rate."""
        (cause,) = rank_causes(
            [
                FeatureContribution("flip-rate-20=0.173", 0.9),
                FeatureContribution("recent-runs=20", 0.0),
                FeatureContribution("recent-flips=4", 0.0),
            ]
        )
        assert cause.phrase == "flipped 4 times in its last 20 runs"

    @pytest.mark.parametrize(
        ("subject", "feature", "contribution"),
        [
            ("test", "gold-rate-100=0", 0.7),
            ("test", "runs-since-flip=absent", 0.7),
            ("test", "classmates-flip-rate=0", 0.7),
            ("build", "failing=0", 0.7),
            ("build", "last-outcome=passed", 0.7),
            ("build", "last-outcome=failed", -0.7),
            ("build", "passing=0", -0.7),
        ],
    )
    def test_what_is_absent_never_raises(self, subject: str, feature: str, contribution: float) -> None:
        """'48 % likely to fail: the last build passed' was read as nonsense, and is."""
        assert rank_causes([FeatureContribution(feature, contribution)], subject) == ()

    def test_no_flips_are_counted_as_none_never_as_a_plus(self) -> None:
        """A count of nothing speaks against a flake, or is not shown."""
        facts = (FeatureContribution("recent-runs=16", 0.0), FeatureContribution("recent-flips=0", 0.0))
        assert rank_causes([FeatureContribution("flip-rate-20=0", 0.7), *facts]) == ()
        (cause,) = rank_causes([FeatureContribution("flip-rate-20=0", -0.7), *facts])
        assert (cause.sign, cause.phrase) == ("-", "never flipped in its last 16 runs")

    @pytest.mark.parametrize(
        ("facts", "told"),
        [
            ({"recent-failures": 2.0}, ["failed in 2 of its last 12 runs"]),
            ({"classmates-flip-rate": 0.03}, ["other tests of its class flipped before"]),
            ({"recent-failures": 2.0, "failures-in-a-row": 1.0}, []),
            ({}, []),
        ],
    )
    def test_a_past_without_a_flip_is_told_by_its_failures(self, facts: dict[str, float], told: list[str]) -> None:
        """A test that failed and passed again, or whose class flips, is likelier flaky: not to be told without why."""
        known = {"evidence-past": (2.0, 1.9), "recent-runs": (12.0, 0.0), "recent-flips": (0.0, 0.0)}
        known |= {name: (value, 0.0) for name, value in facts.items()}
        reasons = [FeatureContribution(f"{name}={value:g}", added) for name, (value, added) in known.items()]
        assert [cause.phrase for cause in rank_causes(reasons)] == told

    @pytest.mark.parametrize("failures", [0, 3])
    def test_reruns_that_failed_are_told(self, failures: int) -> None:
        """Evidence of repetition without failures in a row is of this build's reruns, whatever the past was."""
        known = {"evidence-repeats": (-1.8, -1.8), "recent-runs": (12, 0.0), "recent-failures": (failures, 0.0)}
        reasons = [FeatureContribution(f"{name}={value:g}", added) for name, (value, added) in known.items()]
        assert [cause.phrase for cause in rank_causes(reasons)] == ["failed again in every rerun"]

    def test_a_first_run_has_no_history(self) -> None:
        """Rates of a test that never ran say nothing about it."""
        causes = rank_causes([FeatureContribution("runs=0", -0.9), FeatureContribution("runs-known=0", 0.0)])
        assert [(cause.sign, cause.phrase) for cause in causes] == [("", "no history yet")]

    def test_words_are_one_cause_and_quoted_where_they_matter(self) -> None:
        """At most two words, of those that speak the way all words together do."""
        words = {"source=sleep": 0.3, "source=thread": 0.2, "source=socket": 0.1, "name=parse": -0.1, "source": -0.05}
        (cause,) = rank_causes([FeatureContribution(name, added) for name, added in words.items()])
        assert (cause.phrase, cause.word, cause.sign) == ("its source uses", "sleep, thread", "+")
        assert rank_causes([FeatureContribution("source=sleep", 0.02), FeatureContribution("source", 0.3)]) == ()

    def test_a_word_in_which_nobody_sees_a_cause_is_not_told(self) -> None:
        """'its name has with' was the reason of most tests that were worth a look."""
        assert rank_causes([FeatureContribution("name=with", 0.8), FeatureContribution("source=for", 0.6)]) == ()
        risk = TestRisk("a#b", 0.08, (FeatureContribution("name=with", 0.8), FeatureContribution("runs=9", -0.3)))
        assert rank_suspicions(risk) == ()

    @pytest.mark.parametrize(
        ("contribution", "facts", "phrase"),
        [
            (1.0, {"recent-builds": 1, "recent-broken": 1}, "the only build known failed"),
            (-1.0, {"recent-builds": 2, "recent-broken": 0}, "both builds known passed"),
            (1.0, {"recent-builds": 7, "recent-broken": 7}, "all of the last 7 builds failed"),
            (1.0, {"recent-builds": 20, "recent-broken": 3, "failing": 3}, "the last 3 builds failed"),
            (1.0, {"recent-builds": 20, "recent-broken": 3, "similar": 0.6}, "most builds like this one failed"),
            (-1.0, {"recent-builds": 20, "recent-broken": 4}, "only 4 of the last 20 builds failed"),
            (-1.0, {"recent-builds": 20, "recent-broken": 1}, "only 1 of the last 20 builds failed"),
            (-1.0, {"recent-builds": 0, "recent-broken": 0}, "no build of this job is known yet"),
        ],
    )
    def test_builds_are_counted_as_a_person_would(self, contribution: float, facts: dict[str, float], phrase) -> None:
        """'+ 3 of the last 17 builds failed' is no reason for 83 %; that the last two failed is one."""
        told = [FeatureContribution(f"{name}={value}", 0.0) for name, value in facts.items()]
        (cause,) = rank_causes([FeatureContribution("own=0.1", contribution), *told], "build")
        assert cause.phrase == phrase

    def test_words_of_a_failed_test_are_compared_with_others(self) -> None:
        (like,) = rank_causes([FeatureContribution("evidence-words=1.2", 1.2)])
        (unlike,) = rank_causes([FeatureContribution("evidence-words=-1.2", -1.2)])
        assert like.phrase == "its words are like those of flaky tests elsewhere"
        assert unlike.phrase == "its words are like those of steady tests elsewhere"

    @pytest.mark.parametrize(
        ("feature", "contribution", "facts"),
        [
            ("evidence-repeats=-0.3", 2.1, {"failures-in-a-row": 3, "recent-failures": 3, "recent-runs": 20}),
            ("same-commit=unseen", -1.4, {}),
            ("runs=9", 0.5, {}),
            ("branch-runs=2", 0.5, {}),
            ("evidence-words=-0.4", 0.4, {}),
            ("branch-outcome=none", 0.5, {"recent-branch": "unknown"}),
        ],
        ids=[
            "a row of failures speaks for a break",
            "a first run on a commit",
            "runs",
            "builds of the branch",
            "words of steady tests",
            "no branch",
        ],
    )
    def test_what_says_nothing_is_not_told(self, feature: str, contribution: float, facts: dict[str, float]) -> None:
        told = [FeatureContribution(f"{name}={value}", 0.0) for name, value in facts.items()]
        subject = "build" if feature.startswith("branch") else "test"
        assert rank_causes([FeatureContribution(feature, contribution), *told], subject) == ()

    @pytest.mark.parametrize(
        ("reasons", "told"),
        [
            ({"failures-in-build=1": -0.5}, []),
            ({"failure-kind=other": 0.4}, []),
            ({"failure-rate-50=0.1": -0.5, "recent-runs=7": 0.0, "recent-failures=1": 0.0}, []),
            ({"seconds-ratio=2.2": -0.5, "seconds=0.004": 0.0}, []),
            ({"seconds-ratio=2.2": -0.5, "seconds=4.0": 0.0}, ["took 9 × its usual time"]),
            (
                {"failure-rate-50=0": -0.5, "flip-rate-20=0": -0.4, "recent-runs=9": 0.0},
                ["never failed in its last 9 runs"],
            ),
        ],
    )
    def test_what_an_outside_reader_stumbled_on(self, reasons: dict[str, float], told: list[str]) -> None:
        """A lone failure, one between passes and milliseconds speak for no break; never failed is never flipped."""
        causes = rank_causes([FeatureContribution(name, added) for name, added in reasons.items()])
        assert [cause.phrase for cause in causes] == told

    def test_half_of_the_builds_never_lowers_a_risk(self) -> None:
        facts = {"recent-builds=2": 0.0, "recent-broken=1": 0.0, "similar=-0.1": -0.6}
        (cause,) = rank_causes([FeatureContribution(*one) for one in facts.items()], "build")
        assert cause.phrase == "most builds like this one passed"
        unlike = {"recent-builds=2": 0.0, "recent-broken=1": 0.0, "similar=0.1": -0.6}
        (cause,) = rank_causes([FeatureContribution(*one) for one in unlike.items()], "build")
        assert (cause.sign, cause.phrase) == ("", "1 of the last 2 builds failed")
        quarter = {"recent-builds=7": 0.0, "recent-broken=2": 0.0, "own=0.1": -0.6}
        (cause,) = rank_causes([FeatureContribution(*one) for one in quarter.items()], "build")
        assert (cause.sign, cause.phrase) == ("", "2 of the last 7 builds failed")

    def test_one_fact_of_one_build_is_told_once(self) -> None:
        """'- the only build known passed; - the last build of this branch passed' is one build."""
        facts = {"own=0.4": -1.0, "branch-outcome=passed": -0.8, "recent-builds=1": 0.0, "recent-broken=0": 0.0}
        causes = rank_causes([FeatureContribution(*one) for one in facts.items()], "build")
        assert [cause.phrase for cause in causes] == ["the only build known passed"]
        mixed = facts | {"own=0.4": 1.0, "recent-builds=8": 0.0, "recent-broken=3": 0.0}
        del mixed["recent-builds=1"], mixed["recent-broken=0"]
        causes = rank_causes([FeatureContribution(*one) for one in mixed.items()], "build")
        assert [cause.phrase for cause in causes] == ["3 of the last 8 builds failed", f"{LAST_OF_BRANCH} passed"]

    @pytest.mark.parametrize(
        ("feature", "contribution", "told"),
        [
            ("project-flip-rate=0.0009", 0.12, []),
            ("project-flip-rate=0.0009", -0.12, ["tests of this project flip in 0.09 % of runs"]),
            ("classmates-flip-rate=0.05", 0.4, ["tests of its class flip in 5 % of runs"]),
            ("classmates-flip-rate=0.05", -0.4, []),
        ],
    )
    def test_a_rate_speaks_as_it_reads(self, feature: str, contribution: float, told: list[str]) -> None:
        """0.09 % of runs was a reason for a flake and 0.2 % one for a regression: none at all is usual."""
        assert [cause.phrase for cause in rank_causes([FeatureContribution(feature, contribution)])] == told

    def test_what_adds_less_than_a_tenth_is_left_out(self) -> None:
        """'- 9 lines changed' beside '83 % likely to fail' only takes a reader's time."""
        reasons = [FeatureContribution("passing=12", -2.0), FeatureContribution("lines=9", -0.1)]
        assert [cause.phrase for cause in rank_causes(reasons, "build")] == ["12 builds passed in a row"]

    def test_a_part_that_carries_little_does_not_tell_the_whole(self) -> None:
        """An unknown usual time weighed 0.9, and was told as 'takes 1 ms'."""
        reasons = [FeatureContribution("seconds-ratio=absent", -0.9), FeatureContribution("seconds=0.001", -0.1)]
        assert rank_causes(reasons) == ()

    def test_the_change_is_told_by_what_it_touches(self) -> None:
        """'What this change touches' left a reader to guess."""
        reasons = [FeatureContribution("evidence-change=-2.3", -1.2), FeatureContribution("change=near", -0.1)]
        assert [cause.phrase for cause in rank_causes(reasons)] == ["this change touches files near it"]

    def test_a_change_of_nothing_claims_no_pass(self) -> None:
        """A test without history never passed, and one that fails in a row did not pass just before."""
        (cause,) = rank_causes([FeatureContribution("change=nothing", 0.9)])
        assert cause.phrase == "this change touches no file"

    def test_few_runs_are_counted_not_called_quiet(self) -> None:
        """A test with one run could not have flipped."""
        facts = (FeatureContribution("recent-runs=1", 0.0), FeatureContribution("recent-flips=0", 0.0))
        (cause,) = rank_causes([FeatureContribution("flip-rate-20=0", -0.7), *facts])
        assert cause.phrase == "only 1 earlier run known"

    def test_the_bias_and_the_negligible_are_no_causes(self) -> None:
        assert rank_causes([FeatureContribution("bias", 3.0), FeatureContribution("seconds=1", 0.001)]) == ()

    def test_a_sum_decides_what_counts_most(self) -> None:
        reasons = [
            FeatureContribution("source=sleep", 0.5),
            FeatureContribution("seconds=1", 0.3),
            FeatureContribution("time-rank=0.5", 0.3),
        ]
        assert [cause.word for cause in rank_causes(reasons)] == ["", "sleep"]

    def test_an_unknown_feature_is_its_own_word(self) -> None:
        (cause,) = rank_causes([FeatureContribution("moon=full", 0.5)])
        assert (cause.phrase, cause.word) == ("", "moon=full")
        (cause,) = rank_causes([FeatureContribution("novelty", 0.5)])
        assert cause.word == "novelty"


def subject(task: str) -> str:
    return "build" if task.startswith("build") else "test"


class TestPhrases:
    @pytest.mark.parametrize(
        ("feature", "subject", "phrase"),
        [
            ("runs-since-failure=3", "test", "last failed 3 runs ago"),
            ("runs-since-flip=2", "test", "last flipped 2 runs ago"),
            ("change=itself", "test", "this change touches the test or what it tests"),
            ("failure-kind=timeout", "test", "it ran out of time"),
            ("classmates-flip-rate=0.02", "test", "tests of its class flip in 2 % of runs"),
            ("seconds-ratio=1", "test", "took 2.7 × its usual time"),
            ("seconds-ratio=5.7", "test", "took 299 × its usual time"),
            ("failure-rate-20=0.2", "build", "20 % of the recent builds failed"),
            ("branch-rate=0.2", "build", "20 % of the recent builds of this branch failed"),
            ("branch-last=failed", "build", "the last build of this branch failed"),
            ("branch-last=0.35", "build", "the last build of this branch took 1.4 × the usual time"),
            ("runs-since-failure=1", "test", "last failed 1 run ago"),
            ("gold-rate-100=0.02", "test", "passed and failed on one commit in 2 % of its last 100 runs"),
            ("files-changed=1", "test", "1 file changed"),
            ("failing=1", "build", "the last build failed"),
            ("branch-passing=1", "build", "the last build of this branch passed"),
            ("branch-passing=0", "build", "no build of this branch passed just before"),
            ("branch-runs=0", "build", "the first known build of this branch"),
            ("files=1", "build", "1 file changed"),
            ("similar", "build", "how builds like this one went"),
            ("last", "build", "how long the last build took"),
            ("last-5", "build", "how long the last five builds took"),
            ("time-rank=0.96", "test", "takes longer than 98 % of the project's tests"),
            ("time-rank=1", "test", "takes longer than 99 % of the project's tests"),
            ("time-rank=-0.5", "test", "is quicker than 75 % of the project's tests"),
            ("hour=8", "build", "starts at 8:00 UTC"),
            ("test=shop.Cart#pays", "test", "turned out flaky here more often than predicted"),
            ("branch=main", "build", "this branch failed more often than predicted"),
        ],
    )
    def test_a_feature_reads_as_a_phrase(self, feature: str, subject: str, phrase: str) -> None:
        (cause,) = rank_causes([FeatureContribution(feature, 1.0)], subject)
        assert (cause.phrase, cause.word) == (phrase, "")

    @pytest.mark.parametrize("task", TASK_NAMES)
    def test_every_feature_of_every_task_has_a_phrase(self, task: str) -> None:
        names = {name if "=" in name else f"{name}=0.3" for name in schema().tasks[task].names()} - {"bias=0.3"}
        unsaid = {
            name
            for name in names
            for cause in rank_causes([FeatureContribution(name, 1.0)], subject(task))
            if not cause.phrase
        }
        assert not unsaid

    def test_every_private_feature_has_a_phrase_without_names(self) -> None:
        """Every private feature has a phrase without what it names."""
        planned = PlannedBuild("job", 0.0, branch="main", author="somebody")
        for name in (*private_of_test("shop.Cart#pays"), *private_build_features(planned)):
            (cause,) = rank_causes([FeatureContribution(name, 1.0)], "test")
            assert cause.phrase
            assert cause.word == ""

    @pytest.mark.parametrize("task", TASK_NAMES)
    def test_one_is_followed_by_no_plural_and_none_by_no_number(self, task: str) -> None:
        names = [name for name in schema().tasks[task].names() if name.endswith(("=0", "=1"))]
        phrases = [
            cause.phrase for name in names for cause in rank_causes([FeatureContribution(name, 1.0)], subject(task))
        ]
        plural = r"(^|\s)1 (earlier )?(runs|builds|files|lines|tests|times|known words)\b|\b0 %"
        assert [phrase for phrase in phrases if re.search(plural, phrase)] == []

    @given(st.text(), st.floats(allow_nan=False), st.sampled_from(("test", "build")))
    def test_no_feature_name_breaks_the_phrases(self, feature: str, contribution: float, subject: str) -> None:
        for cause in rank_causes([FeatureContribution(feature, contribution)], subject):
            assert cause.phrase or cause.word or not feature


class TestIntervals:
    def test_one_wider_than_a_factor_of_four_is_said_in_words(self) -> None:
        assert "too variable to tell" in format_interval(Interval(30.0, 10.0, 41.0))
        assert "too variable to tell" not in format_interval(Interval(30.0, 10.0, 40.0))

    @pytest.mark.parametrize(
        ("source", "asked", "shown"), [("jenkins", False, "35 s"), ("github", False, ""), ("github", True, "35 s")]
    )
    def test_jenkins_estimate_is_shown_for_jenkins_or_asked(self, source: str, asked: bool, shown: str) -> None:
        expected = Interval(30.0, 20.0, 40.0, source, 35.0, shows_jenkins=asked)
        assert format_jenkins(expected) == shown


class TestUnits:
    @given(st.floats())
    def test_every_number_can_be_written(self, number: float) -> None:
        for text in (span(number), percent(number)):
            assert text == "unknown" or text[0].isdigit() or text[0] in "<>-"

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (0, "0 s"),
            (0.042, "42 ms"),
            (0.0996, "0.1 s"),
            (1e-9, "0.1 ms"),
            (90_000, "25 h 00 min"),
            (59.6, "1 min 00 s"),
            (3599.7, "1 h 00 min"),
            (7200, "2 h 00 min"),
            (math.nan, "unknown"),
        ],
    )
    def test_spans_round_to_whole_units(self, seconds: float, text: str) -> None:
        assert span(seconds) == text

    def test_sizes_round_to_whole_units(self) -> None:
        assert (size(999), size(1_000), size(16_384), size(999_600)) == ("999 B", "1 kB", "16 kB", "1 MB")

    @given(st.floats(), st.floats(), st.floats(), st.floats())
    def test_any_interval_can_be_drawn(self, seconds: float, low: float, high: float, actual: float) -> None:
        drawing, axis = interval_drawing(Interval(seconds, low, high), actual).split("\n")
        assert len(drawing) == 61
        assert axis.startswith("0 s")


class TestGroups:
    def test_a_judgement_tells_on_how_many_runs_it_rests(self) -> None:
        """98 % of three runs is another thing than 98 % of two hundred."""
        flake = FailureVerdict("a#b", 0.9, kind="flake", runs=23)
        assert describe_group(FailureGroup("flake", (flake,))) == "a known flake, 23 earlier runs known"
        new = FailureVerdict("a#b", 0.2)
        assert describe_group(FailureGroup("new", (new,))) == "a test without history"
