"""Reasons in words, and units, as people read them."""

import doctest
import importlib
import math
import pkgutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedstep.report
from fedstep.features.schema import schema
from fedstep.model.linear import Reason
from fedstep.report.drawing import interval_drawing
from fedstep.report.findings import Interval
from fedstep.report.reasons import causes
from fedstep.report.units import percent, size, span

MODULES = [module.name for module in pkgutil.iter_modules(fedstep.report.__path__, "fedstep.report.")]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_hold(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_neighbouring_knots_are_one_cause() -> None:
    (cause,) = causes([Reason("failure-rate-50=0.03", 0.3), Reason("failure-rate-50=0.1", 0.2)])
    assert cause.phrase == "failed in 3–10 % of its last 50 runs"
    assert cause.contribution == 0.5


def test_words_stay_apart() -> None:
    first, second = causes([Reason("source=sleep", 0.3), Reason("source=thread", -0.4)])
    assert (first.phrase, first.word, first.sign) == ("its source uses", "thread", "-")
    assert (second.word, second.sign) == ("sleep", "+")


def test_the_bias_and_the_negligible_are_no_causes() -> None:
    assert causes([Reason("bias", 3.0), Reason("seconds=1", 0.001)]) == ()


def test_a_sum_decides_what_counts_most() -> None:
    reasons = [Reason("source=sleep", 0.5), Reason("seconds=1", 0.3), Reason("seconds=3", 0.3)]
    assert [cause.word for cause in causes(reasons)] == ["", "sleep"]


def test_an_unknown_feature_is_its_own_word() -> None:
    (cause,) = causes([Reason("test=5f1c", 0.5)])
    assert (cause.phrase, cause.word) == ("", "test=5f1c")
    (cause,) = causes([Reason("novelty", 0.5)])
    assert cause.word == "novelty"


@pytest.mark.parametrize(
    ("feature", "subject", "phrase"),
    [
        ("runs-since-failure=3", "test", "last failed 3 runs ago"),
        ("runs-since-flip=absent", "test", "it never changed its outcome"),
        ("change=itself", "test", "this change touches the test itself"),
        ("failure-kind=timeout", "test", "it ran out of time"),
        ("classmates-flip-rate=0.002", "test", "tests of its class change outcome in 0.2 % of runs"),
        ("seconds-ratio=1", "test", "took 2.7 × its usual time"),
        ("failure-rate-20=0.2", "build", "20 % of the recent builds failed"),
        ("branch-rate=0.2", "build", "20 % of the recent builds of this branch failed"),
        ("branch-last=failed", "build", "the last build of this branch failed"),
        ("branch-last=0.35", "build", "the last build of this branch took 1.4 × the usual time"),
        ("author-rate=absent", "build", "no earlier build of this author is known"),
    ],
)
def test_a_feature_reads_as_a_phrase(feature: str, subject: str, phrase: str) -> None:
    (cause,) = causes([Reason(feature, 1.0)], subject)
    assert (cause.phrase, cause.word) == (phrase, "")


def test_every_feature_of_the_heads_about_tests_has_a_phrase() -> None:
    names = {name for head in ("flaky", "triage") for name in schema().heads[head].names()} - {"bias"}
    unsaid = {name for name in names for cause in causes([Reason(name, 1.0)]) if not cause.phrase}
    assert not unsaid


@given(st.text(), st.floats(allow_nan=False), st.sampled_from(("test", "build")))
def test_no_feature_name_breaks_the_phrases(feature: str, contribution: float, subject: str) -> None:
    for cause in causes([Reason(feature, contribution)], subject):
        assert cause.phrase or cause.word or not feature


@given(st.floats())
def test_every_number_can_be_written(number: float) -> None:
    for text in (span(number), percent(number)):
        assert text == "unknown" or text[0].isdigit() or text[0] in "<>-"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.6, "1 min 00 s"), (3599.7, "1 h 00 min"), (7200, "2 h 00 min"), (math.nan, "unknown")],
)
def test_spans_round_to_whole_units(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_sizes_round_to_whole_units() -> None:
    assert (size(999), size(1_000), size(16_384), size(999_600)) == ("999 B", "1 kB", "16 kB", "1 MB")


@given(st.floats(), st.floats(), st.floats(), st.floats())
def test_any_interval_can_be_drawn(seconds: float, low: float, high: float, actual: float) -> None:
    drawing, axis = interval_drawing(Interval(seconds, low, high), actual).split("\n")
    assert len(drawing) == 61
    assert axis.startswith("0 s")
