"""An explanation adds up, says what `predict` says, and its "what if" is what then really happens."""

import json
import re
from collections.abc import Sequence
from math import log
from pathlib import Path

import pytest

from fedstep.diagnostics.explain import MOST_RUNS, explain
from fedstep.federation.model_cache import load_model
from fedstep.history.flakiness import flake_log_odds
from fedstep.history.project_store import ProjectStore
from fedstep.history.records import BuildRecord
from fedstep.history.summary import Summary, cache_key, load_summary
from fedstep.model.linear import LocalWeights, PlattScaling
from fedstep.model.predictor import SEEN_BOUND, load_predictor
from fedstep.model.state import LocalModel, encode_local_model
from fedstep.report.explanation import TestExplanation, WhatIf, explanation_text
from fedstep.report.html import explanation_html
from fedstep.report.json import explanation_json
from fedstep.schema.schema import schema
from fedstep.types import NO_SECONDS, BuildOutcome, Outcome, TestRun

SHAKY, STEADY, SLOW = "shop.CartTest#waitsForSleepyTimer", "shop.CartTest#sums", "net.RetryTest#reconnects"
CORRECTION = LocalModel(
    {"flaky": LocalWeights({0: 0.2, 3: -0.1}, {f"test={SHAKY}": 0.7, "class=shop.CartTest": -0.2, "class=other": 9.0})},
    {"flaky": PlattScaling(0.8, 0.3)},
)


NAMES = schema().tasks["flaky"].names()
CALM = LocalModel({"flaky": LocalWeights({NAMES.index("bias"): -3.0, NAMES.index("name=timer"): 2.0}, {})})


def entry(number: int, letters: dict[str, str], **more: object) -> BuildRecord:
    runs = tuple(TestRun(test, Outcome(letter), 0.5 if test == SLOW else 0.02) for test, letter in letters.items())
    end = 1_790_000_000.0 + 3600 * number
    told = {"stream": "test||mark", "outcome": BuildOutcome.PASSED, "tests": runs, "branch": "main"}
    return BuildRecord(f"{number:032x}", end - 60, end, 60.0, **{**told, "commit": f"{number:040x}", **more})  # type: ignore[arg-type]


def lived(folder: Path, shaky: str, correction: LocalModel = CORRECTION) -> ProjectStore:
    """A history in which one test went like these letters and two always passed."""
    home = ProjectStore(str(folder / "history"))
    home.prepare()
    for number, letter in enumerate(shaky):
        home.log.append(entry(number, {SHAKY: letter, STEADY: "p", SLOW: "p"}))
    home.write("correction.json", encode_local_model(correction, cache_key(Summary())))
    return home


def explained(home: ProjectStore, test: str = SHAKY) -> TestExplanation:
    return explain(home, load_summary(home).summary, test, 0.0)


def predicted(home: ProjectStore) -> dict[str, float]:
    """What `predict` would say of each test."""
    forecaster = load_predictor(home, load_model(home).model.production)
    summary = load_summary(home).summary
    risks = (*forecaster.flakiest(summary, 9, at_least=0.0), *forecaster.suspects(summary, 9, at_least=0.0))
    return {risk.test: risk.probability for risk in risks}


def change(found: TestExplanation, start: str) -> WhatIf:
    return next(one for one in found.changes if one.says.startswith(start))


class TestProbabilities:
    @pytest.mark.parametrize("letters", ["pp", "ppfppkp", "pfpfpfpppp", "ffff", "s" + "p" * 30])
    def test_every_probability_is_the_one_of_predict(self, tmp_path: Path, letters: str) -> None:
        home = lived(tmp_path, letters)
        for test, probability in predicted(home).items():
            assert explained(home, test).probability == pytest.approx(probability, abs=1e-12)

    def test_the_contributions_add_up_to_the_margin(self, tmp_path: Path) -> None:
        found = explained(lived(tmp_path, "ppfppkp"))
        total = sum(one.total for one in (*found.contributions, *found.private))
        assert found.raw == pytest.approx(1 / (1 + 2.718281828459045**-total), abs=1e-9)
        seen = flake_log_odds(load_summary(lived(tmp_path / "again", "ppfppkp")).summary.tests[SHAKY])
        assert abs(log(found.probability / (1 - found.probability)) - seen) <= SEEN_BOUND + 0.002

    def test_shared_local_and_private_are_kept_apart(self, tmp_path: Path) -> None:
        found = explained(lived(tmp_path, "ppfppkp"))
        assert [(one.feature, one.local, one.shared) for one in found.private] == [
            ("this test", 0.7, 0.0),
            ("its class", -0.2, 0.0),
        ]
        names = schema().tasks["flaky"].names()
        moved = {names[index].partition("=")[0] for index in (0, 3)}
        assert {one.feature for one in found.contributions if one.local} <= moved
        assert any(one.local for one in found.contributions)


class TestWhatIf:
    @pytest.mark.parametrize(
        ("start", "letters"),
        [
            ("after 1 more", "p"),
            ("after one failure and a pass", "fp"),
            ("after one failure", "f"),
            ("after a failure", "k"),
        ],
    )
    def test_what_if_is_what_happens(self, tmp_path: Path, start: str, letters: str) -> None:
        home = lived(tmp_path, "pppppppp")
        found = explained(home)
        if start == "after 1 more":
            start = change(found, "after ").says
            letters = "p" * int(re.findall(r"\d+", start)[0])
        expected = change(found, start).probability
        for number, letter in enumerate(letters):
            home.log.append(entry(100 + number, {SHAKY: letter}, commit="", change_known=True))
        assert predicted(home)[SHAKY] == pytest.approx(expected, abs=1e-9)

    def test_number_of_passes_is_the_first_that_changes_the_verdict(self, tmp_path: Path) -> None:
        """The number of passes is the first that changes the verdict."""
        home = lived(tmp_path, "ppppkpppp", CALM)
        found = explained(home)
        assert found.named
        passes = int(re.findall(r"\d+", found.changes[0].says)[0])
        assert (found.changes[0].named, passes > 1) == (False, True)
        for number in range(passes - 1):
            home.log.append(entry(100 + number, {SHAKY: "p"}, commit="", change_known=True))
        assert predicted(home)[SHAKY] >= found.threshold
        home.log.append(entry(100 + passes, {SHAKY: "p"}, commit="", change_known=True))
        assert predicted(home)[SHAKY] < found.threshold

    def test_a_word_less_changes_what_its_weights_say(self, tmp_path: Path) -> None:
        found = explained(lived(tmp_path, "ppppkpppp", CALM))
        words = [one for one in found.changes if one.says.startswith("without the word")]
        assert 0 < len(words) <= 3
        assert all(one.probability < found.probability for one in words)
        assert words[0].says == "without the word timer in its name"

    def test_absent_test_is_no_more_likely_and_has_no_changes(self, tmp_path: Path) -> None:
        """A test that did not run lately is no more likely, and has no changes."""
        home = lived(tmp_path, "pkpkpk")
        for number in range(50, 80):
            home.log.append(entry(number, {STEADY: "p"}))
        found = explained(home)
        assert (found.recently, found.named, found.changes) == (False, False, ())
        assert found.probability > found.threshold


def metals(home: ProjectStore) -> str:
    return "".join(run.metal for run in explained(home).runs)


def renamed(folder: Path, *last: dict[str, str]) -> tuple[ProjectStore, str]:
    """A history whose class moved to another package after five builds, and the new id of the shaky test."""
    home, now, steady = lived(folder, "ppfpk"), SHAKY.replace("shop.", "store."), STEADY.replace("shop.", "store.")
    for number, letters in enumerate(({now: "p", steady: "p", SLOW: "p"}, {now: "f", steady: "p", SLOW: "p"}, *last)):
        home.log.append(entry(10 + number, letters))
    return home, now


class TestRuns:
    def test_an_explanation_writes_nothing(self, tmp_path: Path) -> None:
        home = lived(tmp_path, "ppfppkp")
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        explained(home)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

    def test_flips_are_where_the_table_of_tests_has_them(self, tmp_path: Path) -> None:
        home = lived(tmp_path, "ppfppkpcpffppp")
        table = load_summary(home).summary.tests
        assert metals(home) == table[SHAKY].revealed
        assert metals(home)[5] == "g"
        assert "".join(run.outcome for run in explained(home).runs) == "ppfppkpcpffppp"

    def test_a_flip_stays_beside_its_run_where_others_were_skipped(self, tmp_path: Path) -> None:
        assert metals(lived(tmp_path, "pskpsp")) == "--g---"

    def test_oldest_of_too_many_runs_have_no_result_detail(self, tmp_path: Path) -> None:
        """Of more runs than the table keeps, the oldest have no mark of a flip."""
        assert metals(lived(tmp_path, "k" * 25)) == "-" * 5 + "g" * 20

    def test_skips_and_incidents_are_runs_and_no_evidence(self, tmp_path: Path) -> None:
        home = lived(tmp_path, "ppsp")
        crowd = {f"shop.CrowdTest#test{number}": "f" for number in range(12)}
        home.log.append(entry(20, {SHAKY: "f", **crowd}))
        runs = explained(home).runs
        assert [run.incident for run in runs] == [False, False, False, False, True]
        assert metals(home) == "-----"
        assert explained(home).failures == 0

    def test_more_runs_than_are_shown_are_the_newest(self, tmp_path: Path) -> None:
        home = lived(tmp_path, "f" + "p" * MOST_RUNS)
        runs = explained(home).runs
        assert len(runs) == MOST_RUNS
        assert {run.outcome for run in runs} == {"p"}
        assert [run.finished_at for run in runs] == sorted(run.finished_at for run in runs)

    def test_runs_before_a_rename_are_explained_with_those_after(self, tmp_path: Path) -> None:
        """The runs before a rename are explained with those after it."""
        home, now = renamed(tmp_path)
        found = explained(home, now)
        assert found.former == SHAKY
        assert "".join(run.outcome for run in found.runs) == "ppfpkpf"
        assert (
            "".join(run.metal for run in found.runs) == next(iter(load_summary(home).summary.tests.values())).revealed
        )
        assert found.runs_known == len(found.runs)
        assert f"\nFormerly      {SHAKY}\n" in explanation_text(found)
        assert "<p>Formerly <code>" in explanation_html(found)
        assert json.loads(explanation_json(found))["former"] == SHAKY
        assert explained(home, SLOW).former == ""
        assert "Formerly" not in explanation_text(explained(home, SLOW)) + explanation_html(explained(home, SLOW))

    def test_former_id_leads_to_the_test_that_has_it_now(self, tmp_path: Path) -> None:
        """The former id of a test that is another one now leads to that one."""
        both = {SHAKY: "p", SHAKY.replace("shop.", "store."): "p", SLOW: "p"}
        home, now = renamed(tmp_path, both)
        assert "".join(run.outcome for run in explained(home, SHAKY).runs) == "ppfpkp"
        assert (explained(home, now).former, len(explained(home, now).runs)) == ("", 3)

    def test_a_damaged_record_is_left_out(self, tmp_path: Path) -> None:
        home = lived(tmp_path, "pppp")
        first = Path(home.log.folder) / home.log.files()[0]
        first.write_bytes(b"damaged")
        assert len(explained(home).runs) == 3

    def test_the_time_told_is_one_that_it_takes(self, tmp_path: Path) -> None:
        """Five runs of 1 ms and four of 2 s were told as 'usually takes 29 ms', which no run had taken."""
        home = ProjectStore(str(tmp_path / "history"))
        home.prepare()
        for number, seconds in enumerate((*[0.001] * 5, *[2.0] * 4)):
            home.log.append(entry(number, {}, tests=(TestRun(SLOW, Outcome.PASSED, seconds),)))
        assert explained(home, SLOW).typical_seconds == pytest.approx(2.0, rel=0.01)

    def test_a_test_that_nobody_timed_has_no_typical_time(self, tmp_path: Path) -> None:
        home = ProjectStore(str(tmp_path / "history"))
        home.prepare()
        untimed: Sequence[TestRun] = (TestRun(SHAKY, Outcome.PASSED, NO_SECONDS),)
        home.log.append(entry(1, {}, tests=tuple(untimed)))
        assert not isinstance(explained(home).typical_seconds, float)
