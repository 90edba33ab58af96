"""Muted failures are judged and set apart; entries without an owner or past their date are named every time."""

import json
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.cli.pipeline import print_rerun_list
from fedstep.errors import InputError
from fedstep.ingest.mutes import MUTES_FILE, Mute, Mutes, find_mute, parse_mutes
from fedstep.results import FailureVerdict, ModelUsed, ReportCounts, TriageReport
from tests.helpers.cli import Checkout, forty_tests, parse_github_output

TODAY = date.today()
LATER, PAST = (TODAY + timedelta(days=30)).isoformat(), (TODAY - timedelta(days=30)).isoformat()
FAILING = [("test_3", "failed", 0.1), ("test_7", "failed", 0.1), *forty_tests(7)[8:]]


def entry(
    test: str = "shop.test_cart#test_7", owner: str = "@acme/bank", reason: str = "#431", until: str = LATER
) -> str:
    keys = {"test": test, "owner": owner, "reason": reason, "until": until}
    return "[[mute]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items() if value)


def muting(place: Checkout, *entries: str) -> Checkout:
    (place.root / MUTES_FILE).write_text("\n".join(entries))
    return place


def judged(place: Checkout, command: str = "triage") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(place.run(command, "--junit", place.report(FAILING), "--format", "json").out)
    return found


def names(failures: list[dict]) -> list[str]:
    return sorted(failure["test"].partition("#")[2] for failure in failures)


class TestMutedFailures:
    def test_a_muted_failure_is_judged_and_stands_apart(self, experienced: Checkout) -> None:
        found = judged(muting(experienced, entry()))
        assert names(found["failures"]) == ["test_3"]
        assert names(found["muted"]) == ["test_7"]
        assert 0 < found["muted"][0]["flaky_probability"] < 1
        assert (found["muted"][0]["owner"], found["muted"][0]["reason"]) == ("@acme/bank", "#431")
        assert found["warnings"] == []

    def test_train_sets_the_same_failures_apart(self, experienced: Checkout, without_sklearn) -> None:
        found = judged(without_sklearn(muting(experienced, entry())), "train")
        assert names(found["failures"]) == ["test_3"]
        assert names(found["muted"]) == ["test_7"]

    def test_muted_failure_is_not_counted_or_annotated(
        self, experienced: Checkout, github: Callable[[Checkout], Checkout]
    ) -> None:
        """A muted failure is neither counted nor annotated for the CI."""
        place = github(muting(experienced, entry("shop.test_cart#test_*")))
        ran = place.run("triage", "--junit", place.report(FAILING))
        with open(place.env["GITHUB_OUTPUT"]) as file:
            outputs = parse_github_output(file.read())
        with open(place.env["GITHUB_STEP_SUMMARY"]) as file:
            summary = file.read()
        assert (outputs["failures-real"], outputs["failures-flaky"]) == ("0", "0")
        assert "::warning" not in ran.err
        assert "Muted, not counted: 2" in summary
        assert "2 failed: 2 muted" in ran.out
        assert f"until {LATER} by @acme/bank: #431" in ran.out


class TestEntries:
    def test_an_entry_counts_on_its_last_day_and_no_longer(self) -> None:
        last = parse_mutes(entry(until="2026-03-01").encode(), "2026-03-01")
        after = parse_mutes(entry(until="2026-03-01").encode(), "2026-03-02")
        assert (len(last.entries), last.complaints) == (1, ())
        assert after.entries == ()
        assert "ended on 2026-03-01" in after.complaints[0]

    def test_expired_entry_is_ignored_and_named_every_time(self, experienced: Checkout) -> None:
        """An entry past its date is not honoured and is named every time."""
        place = muting(experienced, entry(until=PAST))
        for _ in range(2):
            ran = place.run("triage", "--junit", place.report(FAILING), "--strict")
            assert ran.code == 0
            assert [f"ended on {PAST}" in warning and "@acme/bank" in warning for warning in ran.warnings] == [True]
        assert names(judged(place)["failures"]) == ["test_3", "test_7"]

    @pytest.mark.parametrize("missing", ["test", "owner", "reason", "until"])
    def test_an_entry_that_lacks_something_is_not_honoured_and_named(self, missing: str) -> None:
        found = parse_mutes(entry(**{missing: ""}).encode(), TODAY.isoformat())
        assert found.entries == ()
        assert f"it has no {missing}" in found.complaints[0]

    def test_a_misspelt_key_is_named(self) -> None:
        found = parse_mutes(f"{entry()}untill = 3\n".encode(), TODAY.isoformat())
        assert "unknown key untill" in found.complaints[0]

    def test_a_date_may_be_toml_s_own(self) -> None:
        found = parse_mutes(b'[[mute]]\ntest="a#b"\nowner="o"\nreason="r"\nuntil=2999-01-31\n', TODAY.isoformat())
        assert found.entries == (Mute("a#b", "o", "r", "2999-01-31"),)

    def test_one_wrong_entry_leaves_the_others_alone(self, experienced: Checkout) -> None:
        found = judged(muting(experienced, entry(owner=""), entry("*#test_3")))
        assert names(found["muted"]) == ["test_3"]
        assert len(found["warnings"]) == 1

    @pytest.mark.parametrize(
        "content",
        [
            b"[[mute]\n",
            b"\xff\xfe",
            b"mute = 3\n",
            b"[mute]\ntest = 'a'\n",
            b"mute = [1]\n",
            b"other = 1\n",
            b"#" * (1 << 21),
        ],
    )
    def test_a_file_that_is_no_mute_list_is_refused(self, content: bytes) -> None:
        with pytest.raises(InputError, match=MUTES_FILE):
            parse_mutes(content, TODAY.isoformat())

    def test_a_broken_mute_list_mutes_nothing_and_breaks_nothing(self, experienced: Checkout) -> None:
        ran = muting(experienced, "[[mute]").run("triage", "--junit", experienced.report(FAILING), "--format", "json")
        found = json.loads(ran.out)
        assert ran.code == 0
        assert len(ran.warnings) == 1
        assert found["status"] == "degraded"
        assert names(found["failures"]) == ["test_3", "test_7"]
        assert experienced.run("triage", "--junit", experienced.report(FAILING), "--strict").code == 3


class TestPatterns:
    @given(st.text(max_size=60), st.text(max_size=60))
    def test_any_pattern_matches_safely_and_a_name_itself(self, test: str, other: str) -> None:
        """Any pattern is matched without an error, and a name matches itself."""
        mutes = Mutes((Mute(test, "o", "r", LATER),))
        assert find_mute(test, mutes) == mutes.entries
        assert find_mute(other, mutes) in ((), mutes.entries)

    def test_only_stars_and_question_marks_match_others(self) -> None:
        """Brackets are letters, and only stars and question marks match others."""
        mutes = Mutes((Mute("a#b[1-*]", "o", "r", LATER),))
        assert find_mute("a#b[1-x]", mutes)
        assert not find_mute("a#b1", mutes)


class TestPrivacy:
    def test_hostile_entries_are_escaped(self, experienced: Checkout) -> None:
        """Hostile entries cannot take a terminal or a summary over."""
        evil = "\x1b]0;x\x07::set-output name=a::b <script>"
        found = experienced.run(
            "triage", "--junit", muting(experienced, entry(owner=evil), entry(evil, until=PAST)).report(FAILING)
        )
        assert "\x1b" not in found.out + found.err
        assert not any(line.strip().startswith("::") for line in (found.out + found.err).splitlines())

    def test_nothing_of_the_mute_list_is_kept_or_sent(self, connected: Checkout, hub: str) -> None:
        place = muting(connected, entry("shop.test_cart#test_7", "SecretOwner", "SecretReason"))
        ran = place.run("train", "--junit", place.report(FAILING), "--aggregator", hub)
        assert "SecretOwner" in ran.out
        kept = [path.read_bytes() for path in place.history.rglob("*") if path.is_file()]
        assert kept
        assert not any(b"Secret" in content for content in kept)


@pytest.fixture
def flaky_history(experienced: Checkout) -> Checkout:
    """The change is far from the tests, so that failures of tests with a flaky past are judged flaky."""
    experienced.commit("docs/notes.md", "x\n")
    return experienced


class TestRerunList:
    def test_list_has_unmuted_failures_that_triage_judges_flaky(self, flaky_history: Checkout) -> None:
        """The rerun list has what triage judges flaky and is not muted."""
        place = flaky_history
        place.commit("shop/test_cart.py", "")
        place.commit("docs/notes.md", "y\n")
        flaky = [item["test"].partition("#")[2] for item in judged(place)["failures"] if item["verdict"] == "flaky"]
        assert flaky
        ran = place.run("triage", "--junit", place.report(FAILING), "--rerun-list", "pytest")
        assert ran.code == 0
        assert sorted(ran.out.split()) == sorted(f"shop/test_cart.py::{name}" for name in flaky)
        muted = muting(place, entry("*")).run("triage", "--junit", "report.xml", "--rerun-list", "pytest")
        assert muted.out == ""
        assert "nothing to run again" in muted.err

    def test_a_new_test_is_left_out(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A retry of a test that the change adds forgives nothing."""
        known = FailureVerdict("shop.test_cart#test_7", 0.9, verdict="flaky", file="shop/test_cart.py")
        new = known._replace(test="shop.test_cart#test_new", is_new=True)
        report = TriageReport("ok", (known, new), ModelUsed(), ReportCounts(1, 40))
        assert print_rerun_list(report, "gradle", "", strict=False) == 0
        told = capsys.readouterr()
        assert told.out == "--tests shop.test_cart.test_7\n"
        assert "shop.test_cart#test_new has no history: it is not run again" in told.err

    def test_settled_failures_and_incidents_are_not_run_again(self, experienced: Checkout) -> None:
        """What a rerun has settled, and incidents, are not run again."""
        settled = '<testsuite><testcase classname="a" name="TestB"><flakyFailure message="x"/></testcase></testsuite>'
        (experienced.root / "settled.xml").write_text(settled)
        assert json.loads(experienced.run("triage", "--junit", "settled.xml", "--format", "json").out)["failures"]
        ran = experienced.run("triage", "--junit", "settled.xml", "--rerun-list", "go")
        assert (ran.code, ran.out) == (0, "")
        everything = [(name, "failed", 1.0) for name, _, _ in forty_tests(1)]
        ran = experienced.run("triage", "--junit", experienced.report(everything), "--rerun-list", "maven")
        assert (ran.code, ran.out) == (0, "")
        assert "an incident, 40 of 40 tests failed at once" in ran.err

    def test_the_rerun_list_writes_nothing_for_the_ci(
        self, experienced: Checkout, github: Callable[[Checkout], Checkout]
    ) -> None:
        place = github(experienced)
        assert place.run("triage", "--junit", place.report(FAILING), "--rerun-list", "jest").code == 0
        for variable in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
            with open(place.env[variable]) as file:
                assert file.read() == ""
