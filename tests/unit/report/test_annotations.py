"""GitHub's workflow commands, read back by the rules of its runner."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstep.report.ci_outputs import failure_annotations, warning_annotations
from fedstep.report.units import visible
from fedstep.results import NO_BUILD_YET, FailureVerdict, Prediction, TrainReport, TriageReport

Findings = tuple[Prediction, TriageReport, TrainReport]


def parsed(line: str) -> tuple[str, dict[str, str], str]:
    """Level, properties and message as the runner reads them."""
    assert line.startswith("::")
    command, _, message = line[2:].partition("::")
    level, _, rest = command.partition(" ")
    pairs = (pair.partition("=") for pair in rest.split(","))
    return level, {key: unescaped(value) for key, _, value in pairs}, unescaped(message)


def unescaped(text: str) -> str:
    for escape, character in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(escape, character)
    return text


def annotations(findings: Findings) -> str:
    return failure_annotations(findings[1].failures)


def assert_two_harmless_commands(text: str) -> None:
    lines = text.split("\n")
    assert lines.pop() == ""
    assert len(lines) == 2
    for line in lines:
        level, properties, message = parsed(line)
        assert level == "warning"
        assert set(properties) <= {"file", "line", "title"}
        assert line.isprintable()
        assert not re.search(r"##\w*\[", line)
        assert message.isprintable()


class TestHostileNames:
    def test_a_hostile_name_makes_no_command(self, named: Callable[[str], Findings], hostile: str) -> None:
        text = annotations(named(hostile))
        assert_two_harmless_commands(text)
        assert visible(hostile) in parsed(text.splitlines()[1])[2]

    @settings(max_examples=50, deadline=None)
    @given(st.text(st.characters(codec=None), max_size=200))
    def test_any_name_makes_no_command(self, named: Callable[[str], Findings], name: str) -> None:
        assert_two_harmless_commands(annotations(named(name)))


class TestAnnotations:
    def test_an_annotation_names_place_chance_and_reasons(self, ordinary: Findings) -> None:
        level, properties, message = parsed(failure_annotations(ordinary[1].failures).splitlines()[0])
        assert level == "warning"
        assert properties["file"] == "src/test/java/com/acme/cart/CartTest.java"
        assert properties["line"] == "88"
        assert properties["title"] == "Likely a regression (4 % flaky)"
        assert message.startswith("com.acme.cart.CartTest#totals (- this change touches the test or what it tests;")

    def test_a_path_with_colons_and_commas_reads_back(self) -> None:
        line = failure_annotations((FailureVerdict("a", 0.5, file="a,b:c%41.py", line=3),))
        assert parsed(line.rstrip("\n"))[1]["file"] == "a,b:c%41.py"

    def test_a_path_that_had_to_be_changed_is_left_out(self) -> None:
        line = failure_annotations((FailureVerdict("a", 0.5, file="a\nb.py", line=3),))
        assert set(parsed(line.rstrip("\n"))[1]) == {"title"}

    @pytest.mark.parametrize(
        "path", ["/etc/passwd", "../x.py", "a/../../x.py", "C:\\x.py", "\\\\host\\x.py", "..\\x.py"]
    )
    def test_a_path_out_of_the_workspace_is_left_out(self, path: str) -> None:
        line = failure_annotations((FailureVerdict("a", 0.5, file=path, line=3),))
        assert set(parsed(line.rstrip("\n"))[1]) == {"title"}

    def test_ten_annotations_are_the_most(self) -> None:
        failures = [FailureVerdict(f"test{number}", 0.5) for number in range(30)]
        assert len(failure_annotations(failures[:10]).splitlines()) == 10
        lines = failure_annotations(failures).splitlines()
        assert len(lines) == 10
        assert "and 21 more" in lines[-1]


class TestFirstRun:
    def test_a_missing_history_is_a_notice(self) -> None:
        """A first run, or one after the cache was evicted, is no fault."""
        lines = warning_annotations((f"{NO_BUILD_YET}, the starter model alone answers", "the disk is full"))
        assert [line.split()[0] for line in lines.splitlines()] == ["::notice", "::warning"]
