"""The words of a CI's variables: times, outcomes, attempts, and that no variable is ever fatal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.ingest.ci import parse_outcome, parse_time, read_ci
from fedstep.ingest.ci_vendors import FEDSTEP_VARIABLES, VENDORS
from fedstep.types import BuildOutcome, Unavailable
from tests.helpers.ci import GITHUB, SHA


class TestAttempts:
    @pytest.mark.parametrize("text", ["", "x", "-3", "0", "9" * 5000, "²", "1.5", "0x1"])
    def test_an_attempt_that_is_no_number_is_the_first(self, text: str) -> None:
        assert read_ci(GITHUB | {"GITHUB_RUN_ATTEMPT": text}).attempt == 1


class TestTimes:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("2026-01-02T03:04:05Z", 1767323045.0),
            ("2026-01-02T05:04:05+02:00", 1767323045.0),
            ("2026-01-02 03:04:05 UTC", 1767323045.0),
            ("2026-01-02T03:04:05", 1767323045.0),
            ("2026-01-02T03:04:05.250Z", 1767323045.25),
            ("2026-01-02T03:04:05.123456789Z", 1767323045.123456),
            ("1767323045", 1767323045.0),
            (" 1767323045000 ", 1767323045.0),
            ("1767323045.5", 1767323045.5),
        ],
    )
    def test_times_are_read_in_three_forms(self, text: str, seconds: float) -> None:
        assert parse_time(text) == seconds

    @pytest.mark.parametrize(
        "text",
        ["", "yesterday", "0", "-1", "nan", "inf", "1e400", "12", "0001-01-01T00:00:00+23:59", "9" * 5000, "20:15"],
    )
    def test_what_is_no_time_is_absent_with_a_reason(self, text: str) -> None:
        found = parse_time(text)
        assert isinstance(found, Unavailable)
        assert found.reason.endswith("is no time between 2000 and 2100")
        assert len(found.reason) < 100

    @given(st.one_of(st.text(), st.floats().map(str), st.integers().map(str), st.datetimes().map(str)))
    def test_no_text_breaks_parse_time(self, text: str) -> None:
        found = parse_time(text)
        assert isinstance(found, Unavailable) or 946_684_800 <= found <= 4_102_444_800


class TestOutcomes:
    @pytest.mark.parametrize(
        ("word", "outcome"),
        [
            ("Success", BuildOutcome.PASSED),
            ("0", BuildOutcome.PASSED),
            ("UNSTABLE", BuildOutcome.UNSTABLE),
            ("failure", BuildOutcome.FAILED),
            ("137", BuildOutcome.FAILED),
            ("-1", BuildOutcome.FAILED),
            ("cancelled", Unavailable("the job was cancelled")),
            ("running", Unavailable("the job is still running")),
            ("maybe", Unavailable("'maybe' is no outcome; passed, unstable or failed is expected")),
        ],
    )
    def test_outcomes_have_common_words(self, word: str, outcome: BuildOutcome | Unavailable) -> None:
        assert parse_outcome(word) == outcome


NAMES = sorted(
    {
        name
        for row in (*VENDORS, FEDSTEP_VARIABLES)
        for field in row
        if isinstance(field, tuple)
        for name in field
        if isinstance(name, str)
    }
    | {"GITHUB_ACTOR", "GITHUB_REF_TYPE", "CI"}
)
HARD_TEXT = st.one_of(
    st.text(max_size=30), st.sampled_from(["true", "1", SHA, "\ud800", "x" * 100_000, "refs/tags/", "a/b/"])
)


class TestEnvironment:
    @given(st.dictionaries(st.sampled_from(NAMES), HARD_TEXT), HARD_TEXT, HARD_TEXT)
    def test_no_environment_is_fatal(self, env: dict[str, str], payload: str, platform: str) -> None:
        ci = read_ci(env, payload, platform)
        assert ci.vendor in {"local", *(vendor.name for vendor in VENDORS)}
        assert ci.event in ("push", "pull_request", "schedule", "manual", "tag", "other", "")
        assert ci.attempt >= 1
        for text in (ci.run, ci.job, ci.cell, ci.branch, ci.base_branch, ci.commit, ci.commit_before):
            assert len(text.encode("utf-8")) < 10_000
