"""The terminal's text: what it says, how wide it is, and that no name can take the terminal over."""

import json
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstep.report.json import prediction_json
from fedstep.report.markdown import prediction_markdown
from fedstep.report.text import prediction_text, training_text, triage_text
from fedstep.report.units import columns, warning_text
from fedstep.results import (
    FailureVerdict,
    FeatureContribution,
    Interval,
    ModelUsed,
    Prediction,
    ReportCounts,
    TestRisk,
    TrainReport,
    TriageReport,
)
from fedstep.types import Dropped, Duration, Unavailable

Findings = tuple[Prediction, TriageReport, TrainReport]
NOT_ASKED = Unavailable("not asked")


def written(findings: Findings) -> list[str]:
    prediction, triage, training = findings
    return [prediction_text(prediction), triage_text(triage), training_text(training)]


def assert_harmless(text: str) -> None:
    for line in text.split("\n"):
        assert line == "" or line.isprintable()
        assert not line.lstrip().startswith("::")
        assert not re.search(r"##\w*\[", line)
        assert columns(line) <= 100 or not line.startswith(" ")  # a name in full, to be copied


class TestHostileNames:
    def test_a_hostile_name_writes_harmless_lines(self, named: Callable[[str], Findings], hostile: str) -> None:
        for text, ordinary in zip(written(named(hostile)), written(named("plain")), strict=True):
            assert_harmless(text)
            assert abs(text.count("\n") - ordinary.count("\n")) < 40

    @settings(max_examples=50, deadline=None)
    @given(st.text(st.characters(codec=None), max_size=200))
    def test_any_name_writes_harmless_lines(self, named: Callable[[str], Findings], name: str) -> None:
        for text in written(named(name)):
            assert_harmless(text)

    def test_a_warning_is_one_line(self, hostile: str) -> None:
        text = warning_text((hostile,))
        assert text.count("\n") == 1
        assert text[:-1].isprintable()
        assert not re.search(r"##\w*\[", text)


def failing(
    test: str, *reasons: FeatureContribution, verdict: str = "regression", signature: str = ""
) -> FailureVerdict:
    return FailureVerdict(test, 0.1, verdict=verdict, kind="new", runs=9, reasons=reasons, signature=signature)


def report_of(*failures: FailureVerdict) -> TriageReport:
    return TriageReport("local", failures, ModelUsed(), ReportCounts(files=1, tests=9))


class TestFailures:
    def test_the_same_reasons_are_told_once(self) -> None:
        """Fourteen failures of one change repeated two lines of reasons fourteen times."""
        reasons = (FeatureContribution("evidence-companions=-5.4", -7.9),)
        tests = (failing("a#b", *reasons, signature="1"), failing("a#c", *reasons, signature="2"))
        text = triage_text(report_of(*tests))
        assert text.count("other tests of its package began to fail with it") == 1
        assert text.count("for the same reasons as the failure above") == 1

    def test_a_test_of_another_verdict_says_so(self) -> None:
        """One cause was called unsure with four tests, where the count said that one of seven was unsure."""
        tests = (failing("a#b", verdict="unsure", signature="1"), failing("a#c", verdict="flaky", signature="1"))
        text = triage_text(report_of(*tests))
        assert "also flaky a#c\n" in text
        assert "look at the unsure one first" in text

    def test_signs_are_explained_where_there_are_some(self) -> None:
        text = triage_text(report_of(failing("a#b")))
        assert "speaks for a flake" not in text

    def test_a_long_name_stays_below_its_verdict(self) -> None:
        """A name of 85 columns began at the edge of the terminal, as if it was a heading."""
        name = f"a#{'b' * 83}"
        assert f"\n{'':15}{name}\n" in triage_text(report_of(failing(name)))


class TestText:
    def test_the_first_three_lines_say_the_essentials(self, ordinary: Findings) -> None:
        lines = prediction_text(ordinary[0]).splitlines()
        assert "4 min 10 s, 90 % between 3 min 32 s and 5 min 05 s (Jenkins estimate: 4 min 41 s)" in lines[0]
        assert "18 % likely to fail: + 20 % of the recent builds failed" in lines[1]
        assert "2 of 1,204 known tests" in lines[2]
        assert 'its source uses "sleep"' in "".join(lines)

    def test_regressions_come_before_flakes(self, ordinary: Findings) -> None:
        text = triage_text(ordinary[1])
        assert text.index("CartTest#totals") < text.index("RetryTest#reconnectsAfterTimeout")
        assert "1 likely regression, 1 likely flaky" in text

    def test_training_tells_whether_the_time_was_expected(self, ordinary: Findings) -> None:
        assert "4 min 22 s, inside the expected 3 min 32 s – 5 min 05 s" in training_text(ordinary[2])

    def test_an_incident_judges_no_single_test(self, ordinary: Findings) -> None:
        """Neither a verdict nor a probability nor a reason stands beside a failure of it."""
        text = triage_text(ordinary[1]._replace(incident=True, incident_reason="61 of 80 tests failed at once"))
        assert "Failures      2 failed at once: an incident" in text
        assert "Verdict       61 of 80 tests failed at once: look for one cause" in text
        assert "  incident          com.acme.cart.CartTest#totals" in text
        assert "regression" not in text.replace("- for a regression", "")
        assert "this change touches" not in text

    def test_a_time_of_tests_alone_is_not_the_builds(self, ordinary: Findings) -> None:
        """Where no start of the job is known, minutes of a build would be told as seconds."""
        prediction, _, training = ordinary
        assert isinstance(prediction.duration, Interval)
        tests = prediction.duration._replace(source="tests")
        assert prediction_text(prediction._replace(duration=tests)).startswith(
            "Build time    4 min 10 s of tests, 90 %"
        )
        assert "Build         unstable; 4 min 22 s of tests, inside" in training_text(
            training._replace(duration=Duration(262.0, "tests"), expected=tests)
        )

    def test_the_first_build_of_a_new_user_reads_well(self, nothing_known: Findings) -> None:
        prediction, triage, training = written(nothing_known)
        assert "Build time    not known: no build of this project is known yet" in prediction
        assert "starter model, shipped with fedstep" in prediction
        assert "local: no aggregator is configured" in prediction
        assert "no test was read" in triage
        assert "time not known" in training

    @pytest.mark.parametrize(
        ("reading", "says"),
        [
            (ReportCounts(), "none, there is nothing to judge"),
            (ReportCounts(dropped=(Dropped("x/*.xml", "this glob matches no file"),)), "none, there is nothing"),
            (ReportCounts(1), "none, there is nothing to judge"),
            (ReportCounts(1, 2, skipped=2), "none, there is nothing to judge"),
            (ReportCounts(1, 7, (Dropped("r.xml:9", "the file ends too early"),)), "none, the reports are not whole"),
            (ReportCounts(1, 7, (Dropped("r.xml:9", "an unescaped &", kept=True),)), "nothing here looks like"),
            (ReportCounts(1, 7), "nothing here looks like a regression"),
        ],
    )
    def test_a_verdict_needs_whole_reports(self, reading: ReportCounts, says: str) -> None:
        """Where nothing was read, or a part is lost, nobody knows whether there is a regression."""
        text = triage_text(TriageReport("local", (), ModelUsed(), reading))
        assert f"Verdict       {says}" in text
        assert ("nothing here looks like a regression" in text) == ("no test failed" in text)

    def test_long_lists_end_with_how_many_more(self) -> None:
        risks = tuple(TestRisk(f"test{number}", 0.5) for number in range(25))
        prediction = Prediction("ok", NOT_ASKED, NOT_ASKED, risks, ModelUsed())
        assert "and 15 more" in prediction_text(prediction)
        failures = tuple(FailureVerdict(f"test{number}", 0.5) for number in range(35))
        assert "and 5 more" in triage_text(TriageReport("ok", failures, ModelUsed(), ReportCounts()))

    def test_tests_with_one_cause_are_one_entry(self) -> None:
        """The list names how many failed together; JSON names each of them, Markdown says the same."""
        also = tuple(f"shop.CartTest#t{number}" for number in range(1, 24))
        risk = TestRisk("shop.CartTest#t0", 0.5, runs=9, failures=2, flips=2, last_outcomes="pfppfpppp", also=also)
        prediction = Prediction("ok", NOT_ASKED, NOT_ASKED, (risk,), ModelUsed())
        told = "24 tests of shop.CartTest failed together in the same 2 builds: likely one cause"
        assert told in prediction_text(prediction)
        assert told in prediction_markdown(prediction).replace("\\", "")
        (entry,) = json.loads(prediction_json(prediction))["flaky"]
        assert (entry["also"], entry["together"]) == (list(also), told)

    def test_a_warning_does_not_load_the_texts_of_reports(self) -> None:
        """`order` and `select` print warnings and no report: its modules were 3 % of their time."""
        script = f"import sys; sys.path[:0] = {sys.path!r}; import fedstep.cli.output as o; o.echo_warnings('a'); "
        script += "print(*sys.modules)"
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert ended.stderr == "fedstep: a\n"
        assert not {"fedstep.report.text", "fedstep.report.wording"} & set(ended.stdout.split())

    def test_text_loads_nothing_heavy(self) -> None:
        script = f"import sys; sys.path[:0] = {sys.path!r}; import fedstep.report.text; print(*sys.modules)"
        loaded = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True)
        assert not {"html", "json", "statistics", "logging", "numpy", "decimal", "textwrap"} & set(
            loaded.stdout.split()
        )
