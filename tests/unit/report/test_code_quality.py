"""GitLab's code quality report: what GitLab needs is there, and nothing that it would choke on."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstep.report.ci_outputs import MOST_ENTRIES, code_quality
from fedstep.results import FailureVerdict, Prediction, TrainReport, TriageReport

Findings = tuple[Prediction, TriageReport, TrainReport]


def entries(*failures: FailureVerdict) -> list[dict[str, Any]]:
    """What GitLab parses, each entry with the fields that GitLab documents and no others."""
    found: list[dict[str, Any]] = json.loads(code_quality(failures))
    for entry in found:
        assert set(entry) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert entry["severity"] in ("info", "minor", "major", "critical", "blocker")
        assert entry["description"].isprintable()
        assert set(entry["location"]) == {"path", "lines"}
        assert entry["location"]["path"].isprintable()
        assert entry["location"]["lines"]["begin"] >= 1
    assert len({entry["fingerprint"] for entry in found}) == len(found)
    return found


class TestHostileNames:
    def test_a_hostile_name_is_text_and_never_a_place(self, named: Callable[[str], Findings], hostile: str) -> None:
        found = entries(*named(hostile)[1].failures)
        assert found[0]["location"]["path"] == "src/test/java/com/acme/cart/CartTest.java"
        assert all(".." not in entry["location"]["path"] for entry in found)

    @settings(max_examples=50, deadline=None)
    @given(st.text(st.characters(codec=None), max_size=200))
    def test_any_name_makes_a_report_that_gitlab_reads(self, named: Callable[[str], Findings], name: str) -> None:
        assert 1 <= len(entries(*named(name)[1].failures)) <= 2


class TestEntries:
    def test_a_regression_is_major_and_stands_before_a_flake(self) -> None:
        flake = FailureVerdict("a#b", 0.9, verdict="flaky", file="tests/a.py", line=0)
        regression = FailureVerdict("a#c", 0.1, verdict="regression", file="./tests/a.py", line=9)
        first, second = entries(flake, regression)
        assert (first["check_name"], first["severity"]) == ("fedstep/regression", "major")
        assert first["location"] == {"path": "tests/a.py", "lines": {"begin": 9}}
        assert first["description"] == "Likely a regression (10 % flaky): a#c"
        assert (second["check_name"], second["severity"]) == ("fedstep/flaky", "info")
        assert second["location"]["lines"] == {"begin": 1}, "GitLab wants a line where none is known, too"

    def test_failure_keeps_its_fingerprint_in_the_next_build(self) -> None:
        """A failure is the same one in the next build although its line and probability have changed."""
        before = FailureVerdict("a#b", 0.9, verdict="flaky", file="tests/a.py", line=3)
        moved = before._replace(flaky_probability=0.8, line=30)
        other = before._replace(test="a#other")
        prints = [entries(failure)[0]["fingerprint"] for failure in (before, moved, other)]
        assert prints[0] == prints[1] != prints[2]

    @pytest.mark.parametrize("file", ["", "/builds/acme/shop/tests/a.py", "../a.py", "a\nb.py"])
    def test_a_failure_without_a_place_in_the_repository_is_left_out(self, file: str) -> None:
        assert entries(FailureVerdict("a#b", 0.5, file=file, line=3)) == []

    def test_no_failure_is_an_empty_list(self) -> None:
        assert code_quality(()) == "[]\n"

    def test_report_has_no_more_entries_than_gitlab_uses(self) -> None:
        """A report has no more entries than a merge request can use."""
        many = [FailureVerdict(f"a#{number}", 0.5, file="tests/a.py") for number in range(2 * MOST_ENTRIES)]
        assert len(entries(*many)) == MOST_ENTRIES
