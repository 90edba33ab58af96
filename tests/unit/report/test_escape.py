"""Every name of the code under test is one harmless line before it reaches a sink."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.report.units import columns, shorten, visible

PIECES = (
    "::",
    "##",
    "#",
    "[",
    "`",
    "``",
    "|",
    "\\",
    "\x1b[",
    "\n",
    "\r",
    " ",
    "<b>",
    "%0A",
    "\u202e",
    "a",
    "EOF",
    "…",
    "\ud800",
)
anything = st.one_of(
    st.text(st.characters(codec=None), max_size=300), st.lists(st.sampled_from(PIECES), max_size=30).map("".join)
)


class TestEscape:
    @given(anything)
    def test_shown_text_is_one_printable_line_no_log_reader_obeys(self, name: str) -> None:
        """What is shown is one printable line that no log reader obeys."""
        shown = visible(name)
        assert shown.isprintable()
        assert len(shown.splitlines()) <= 1
        assert not any(word.startswith("::") for word in shown.split())
        assert not re.search(r"##\w*\[", shown)
        assert columns(shown) <= 160

    @given(anything, st.integers(4, 200))
    def test_no_name_is_wider_than_its_place(self, name: str, most: int) -> None:
        assert columns(visible(name, most)) <= most
        assert columns(shorten(name, most)) <= most

    @given(st.text(st.characters(categories=["Lu", "Ll", "Nd"]), max_size=70))
    def test_letters_and_digits_of_every_script_stay_as_they_are(self, name: str) -> None:
        assert visible(name) == name

    def test_an_ordinary_test_name_stays_as_it_is(self) -> None:
        for name in ("tests/test_a.py::test_b[1-x]", "com.acme.A#b", "Ünï › handles naïve input", "TestX/sub_test#01"):
            assert visible(name) == name

    @pytest.mark.parametrize("text", ["# H1", "## H2", "expected '### a', got '## a [1]'"])
    def test_a_heading_of_markdown_is_no_command(self, text: str) -> None:
        """A failure of a Markdown parser was shown with #\\x23 for each of its headings."""
        assert visible(text) == text

    @pytest.mark.parametrize("text", ["##[error]x", "a##vso[task.x]", "###[group]", "##teamcity[x]"])
    def test_a_command_of_a_log_is_none_any_more(self, text: str) -> None:
        assert not re.search(r"##\w*\[", visible(text))

    def test_a_long_name_keeps_its_head_and_its_tail(self) -> None:
        shown = visible("com.acme." + "x" * 1000 + "#method")
        assert shown.startswith("com.acme.")
        assert shown.endswith("#method")
        assert "…" in shown

    def test_invisible_characters_become_visible(self) -> None:
        assert visible("a\u202eb\u200bc\u3164\ufe0f\ud800") == "a\\u202eb\\u200bc\\u3164\\ufe0f\\ud800"

    def test_every_hostile_name_is_shown_as_one_line(self, hostile: str) -> None:
        assert visible(hostile).isprintable()

    def test_findings_of_any_name_can_be_made(self, named: Callable[[str], object], hostile: str) -> None:
        assert named(hostile)
