"""Facts about the features of failures."""

from collections.abc import Mapping, Sequence

import pytest

from fedstep.features.test_features import failure_kind, triage_values, word_evidence
from fedstep.history.flakiness import WEIGHTS
from fedstep.history.records import make_record
from fedstep.history.summary import Summary, apply_record
from fedstep.history.test_table import TestTable, with_tests, write_coordinates
from fedstep.model.linear import margin
from fedstep.schema.schema import EVIDENCE, FAILURE_KINDS, schema
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

TASK = schema().tasks["triage"]
CHANGE = Change("c2", "", "ann", (FileChange("src/org/foo/Bar.java", 1, 0), FileChange("docs/a.md", 1, 0)))


def build(number: int, runs: tuple[TestRun, ...], change: Change | Unavailable = CHANGE) -> Build:
    situation = BuildContext(CiRun(), change, 1_700_000_000.0 + 600 * number)
    duration = Duration(60.0, "mark")
    return Build(f"{number:032x}", situation, situation.started_at + 60, duration, BuildOutcome.FAILED, Reports(runs))


def facts(summary: Summary, one: Build, repeated: bool = False) -> dict[str, dict[str, object]]:
    table = with_tests(summary.tests, (run.test for run in one.failures()))
    return {run.test: dict(values) for run, values in triage_values(table, one, "||mark" * repeated)}


def past(letters: str, test: str = "org.foo.BarTest#works") -> Summary:
    summary = Summary()
    for number, letter in enumerate(letters):
        one = build(number, (TestRun(test, Outcome(letter), 0.5),), Change(f"p{number}", "", "ann", ()))
        summary = apply_record(summary, str(number), make_record(one, "||mark", ""))
    return summary


ELSEWHERE = Change("c3", "", "ann", (FileChange("docs/a.md", 1, 0),))


def evidence(summary: Summary, one: Build, name: str, repeated: bool = False) -> float:
    value = facts(summary, one, repeated)["org.foo.BarTest#works"][f"evidence-{name}"]
    assert isinstance(value, float)
    return value


def failed(outcome: Outcome = Outcome.FAILED, change: Change = ELSEWHERE, *others: TestRun) -> Build:
    return build(30, (TestRun("org.foo.BarTest#works", outcome), *others), change)


class TestEvidence:
    def test_a_failure_is_seen_with_its_circumstances(self) -> None:
        runs = (
            TestRun("org.foo.BarTest#works", Outcome.FAILED, 5.0, "java.net.ConnectException"),
            TestRun("org.foo.BarTest#other", Outcome.CONFIRMED),
            TestRun("org.foo.BazTest#fine", Outcome.PASSED),
            TestRun("org.foo.QuxTest#fails", Outcome.FLAKED),
        )
        found = facts(past("ppf"), build(9, runs))
        assert set(found) == {runs[0].test, runs[1].test, runs[3].test}
        here = found["org.foo.BarTest#works"]
        assert (here["failures-in-a-row"], here["failures-in-build"], here["classmates-failing"]) == (1, 3, 1)
        assert (here["change"], here["files-changed"], here["failure-kind"]) == ("itself", 2, "connection")
        assert (here["seconds"], here["seconds-ratio"]) == (5.0, pytest.approx(2.3))
        assert here["same-commit"] == "unseen"
        new = found["org.foo.QuxTest#fails"]
        assert (new["runs"], new["change"], new["failure-kind"], new["seconds"]) == (0, "near", None, None)

    def test_without_git_the_change_is_absent_and_says_nothing(self) -> None:
        found = facts(past("p"), build(9, (TestRun("a#b", Outcome.FAILED),), Unavailable("no git")))
        assert (found["a#b"]["change"], found["a#b"]["files-changed"], found["a#b"]["evidence-change"]) == (
            None,
            None,
            0.0,
        )

    def test_a_past_of_flips_is_evidence_for_a_flake(self) -> None:
        assert evidence(past("pppppppppp"), failed(), "past") < evidence(past("ppppfppfpp"), failed(), "past")

    def test_repeated_failures_are_evidence_for_a_regression(self) -> None:
        """Failures in a row and reruns that fail are evidence for a regression."""
        assert evidence(past("pppp"), failed(), "repeats") == 0.0
        assert evidence(past("pppp"), failed(Outcome.CONFIRMED), "repeats") < -1.0
        assert evidence(past("pppff"), failed(), "repeats") < evidence(past("pppf"), failed(), "repeats") < 0.0

    def test_continued_failure_keeps_its_first_change(self) -> None:
        """A failure that goes on keeps the change and, half as much, the companions with which it began."""
        summary = past("pppp")
        other = TestRun("org.foo.QuxTest#works", Outcome.FAILED)
        began = failed(Outcome.FAILED, CHANGE, other)
        summary = apply_record(summary, "x", make_record(began, "||mark", ""))
        later = failed()
        assert evidence(summary, later, "change") == evidence(past("pppp"), began, "change") < 0.0
        assert evidence(past("pppp"), began, "companions") == 2 * evidence(summary, later, "companions") < 0.0
        assert evidence(past("pppp"), later, "change") > 0.0

    def test_pass_on_the_same_commit_is_evidence_for_a_flake(self) -> None:
        """A pass on the same commit or in a rerun is evidence for a flake."""
        assert evidence(past("p"), failed(), "commit", True) == WEIGHTS.passed_on_commit
        assert evidence(past("p"), failed(Outcome.FLAKED), "commit") == WEIGHTS.passed_on_commit
        assert evidence(past("pf"), failed(), "commit", True) == 0.0

    def test_untrained_model_counts_evidence_and_nothing_else(self) -> None:
        """Before any learning the evidence counts in full, and nothing else does."""
        start = dict(zip(TASK.names(), TASK.start(), strict=True))
        assert {name for name, weight in start.items() if weight} == {f"evidence-{name}" for name in EVIDENCE}
        assert set(start.values()) == {0.0, 1.0}
        rows = triage_values(past("pppp").tests, failed(), "")
        (values,) = (row for _, row in rows)
        total = sum(evidence(past("pppp"), failed(), name) for name in EVIDENCE)
        assert margin(TASK.start(), *TASK.encode(values)) == pytest.approx(total)

    @pytest.mark.parametrize(
        ("letters", "expected"), [("p", "passed"), ("k", "passed"), ("pf", "failed"), ("pc", "failed")]
    )
    def test_a_rerun_of_the_commit_before_is_told_how_it_went(self, letters: str, expected: str) -> None:
        one = build(9, (TestRun("org.foo.BarTest#works", Outcome.FAILED),))
        assert facts(past(letters), one, repeated=True)["org.foo.BarTest#works"]["same-commit"] == expected
        assert facts(past(letters), one, repeated=False)["org.foo.BarTest#works"]["same-commit"] == "unseen"

    def test_a_first_failure_is_a_flake_more_often(self) -> None:
        """Of a test that ran before: one that fails when it first runs may never have passed."""
        assert evidence(past("pppp"), failed(), "past") - evidence(past("ppppf"), failed(), "past") > 0.3
        assert evidence(Summary(), failed(), "past") < evidence(past("p"), failed(), "past")

    def test_a_flaky_class_makes_no_first_failure_a_flake(self) -> None:
        """A class that flakes in most builds makes a first failure in it no flake by itself; a flip of its own does."""
        mate, summary = TestRun("org.foo.BarTest#other", Outcome.FLAKED), Summary()
        for number in range(12):
            one = build(number, (mate, TestRun("org.foo.BarTest#works", Outcome.PASSED)))
            summary = apply_record(summary, str(number), make_record(one, "||mark", ""))
        assert evidence(summary, failed(), "past") == WEIGHTS.new_past_unseen
        flaked = build(12, (mate, TestRun("org.foo.BarTest#works", Outcome.FLAKED)))
        summary = apply_record(summary, "12", make_record(flaked, "||mark", ""))
        assert evidence(summary, failed(), "past") > 2 * WEIGHTS.new_past_unseen

    def test_tests_that_broke_together_twice_are_company(self) -> None:
        """Neither fails for the first time, and neither was ever seen to flip: one cause, as of two first failures."""
        other = TestRun("org.foo.QuxTest#works", Outcome.FAILED)
        both = failed(Outcome.FAILED, ELSEWHERE, other)
        passed = build(31, (TestRun("org.foo.BarTest#works", Outcome.PASSED), other._replace(outcome=Outcome.PASSED)))
        summary = past("pp")
        for one in (passed, both, both, both, passed):
            summary = apply_record(summary, str(summary.count), make_record(one, "||mark", ""))
        known = summary.tests["org.foo.BarTest#works"]
        assert (known.flips, known.failures, known.streak) == (0, 3, 0)
        assert evidence(summary, failed(), "companions") == 0.0
        assert evidence(summary, both, "companions") == evidence(past("pp"), both, "companions") < 0.0


FLAKY = schema().tasks["flaky"]


def suite(names: Mapping[str, str], sources: Mapping[str, Sequence[str]]) -> TestTable:
    """Tests with these names; a test in `sources` has these words in its source."""
    table = with_tests({}, names.values(), names.values())
    for label, words in sources.items():
        table[names[label]].source_words = write_coordinates(schema().words("source").listed(words))
    return table


def weights_of(**words: float) -> list[float]:
    """Weights of the flaky task for words in the names and sources of tests, else 0."""
    found = dict.fromkeys(FLAKY.names(), 0.0)
    for word, weight in words.items():
        assert f"source={word}" in found
        found[f"source={word}"] = weight
    return list(found.values())


NAMES = {f"t{n}": f"org.foo.BarTest#works{n}" for n in range(30)}
SOURCES: Mapping[str, Sequence[str]] = {name: ["assert"] for name in NAMES} | {"t0": ["sleep"], "t1": ["sleep"]}


class TestWords:
    def test_words_of_flaky_tests_are_evidence_for_a_flake(self) -> None:
        table = suite(NAMES, SOURCES)
        found = dict(zip(table, word_evidence(table, weights_of(sleep=0.5)), strict=True))
        assert found[NAMES["t0"]] == found[NAMES["t1"]] > 1.0
        assert -1.0 < found[NAMES["t2"]] < 0.0
        assert sum(found.values()) == pytest.approx(0.0, abs=3.0)

    def test_neither_huge_weights_nor_common_words_count_more(self) -> None:
        """A hostile model moves a verdict by no more than any other does."""
        table = suite(NAMES, SOURCES)
        usual = word_evidence(table, weights_of(sleep=0.5))
        assert word_evidence(table, weights_of(sleep=5e6)) == pytest.approx(usual)
        assert word_evidence(table, weights_of(sleep=1e300)) == [0.0] * 30
        assert word_evidence(suite(NAMES, {name: ["sleep"] for name in NAMES}), weights_of(sleep=9.0)) == [0.0] * 30
        alone = word_evidence(suite(NAMES, {**SOURCES, "t1": ["assert"]}), weights_of(sleep=0.5))
        assert max(alone) == WEIGHTS.most_of_words

    def test_an_unknown_source_and_a_small_project_say_nothing(self) -> None:
        table = suite(NAMES, {name: words for name, words in SOURCES.items() if name != "t2"})
        found = dict(zip(table, word_evidence(table, weights_of(sleep=0.5)), strict=True))
        assert found[NAMES["t2"]] == 0.0 < found[NAMES["t0"]]
        few = {name: test for name, test in NAMES.items() if int(name[1:]) < 19}
        assert set(word_evidence(suite(few, {name: SOURCES[name] for name in few}), weights_of(sleep=0.5))) == {0.0}

    def test_words_count_until_the_test_flipped(self) -> None:
        table = suite(NAMES, SOURCES)
        one = build(30, (TestRun(NAMES["t0"], Outcome.FAILED),))
        ((_, new),) = triage_values(table, one, "", weights_of(sleep=0.5))
        ((_, untold),) = triage_values(table, one, "")
        table[NAMES["t0"]].flips = 1
        ((_, flipped),) = triage_values(table, one, "", weights_of(sleep=0.5))
        told = [values["evidence-words"] for values in (new, untold, flipped)]
        assert told[1:] == [0.0, 0.0] != told[:1]
        assert told[0] == round(
            dict(zip(table, word_evidence(table, weights_of(sleep=0.5)), strict=True))[NAMES["t0"]], 2
        )


class TestRows:
    def test_a_build_without_failures_has_no_rows(self) -> None:
        assert facts(past("p"), build(9, (TestRun("org.foo.BarTest#works", Outcome.PASSED),))) == {}

    def test_the_build_itself_is_not_among_its_features(self) -> None:
        summary = past("ppp")
        text = repr(summary)
        facts(summary, build(9, (TestRun("org.foo.BarTest#works", Outcome.FAILED),)))
        assert repr(summary) == text


class TestFailureKinds:
    @pytest.mark.parametrize(
        ("failure_type", "kind"),
        [
            ("", None),
            ("java.util.concurrent.TimeoutException", "timeout"),
            ("requests.exceptions.ConnectionError", "connection"),
            ("AssertionError", "assertion"),
            ("org.junit.ComparisonFailure", "assertion"),
            ("TypeError", "null"),
            ("FileNotFoundError", "io"),
            ("java.lang.OutOfMemoryError", "memory"),
            ("ZeroDivisionError", "other"),
        ],
    )
    def test_an_exception_type_becomes_one_of_the_public_kinds(self, failure_type: str, kind: str | None) -> None:
        assert failure_kind(failure_type) == kind
        assert kind is None or kind in FAILURE_KINDS
