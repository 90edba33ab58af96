"""Facts about the closed vocabulary: only words of several unrelated projects are in it."""

import csv
import subprocess
import sys
from pathlib import Path
from string import ascii_lowercase

from hypothesis import given
from hypothesis import strategies as st

from fedstep.schema.schema import schema
from tests.studies.vocabulary import MAXIMUM_LETTERS, MINIMUM_PROJECTS, closed_vocabulary


def row(word: str, names: object, sources: object) -> dict[str, str]:
    return {"word": word, "projects_in_test_names": str(names), "projects_in_test_sources": str(sources)}


class TestVocabulary:
    def test_a_word_needs_four_projects_for_each_list(self) -> None:
        rows = [row("wait", 4, 3), row("sleep", 9, 4), row("acme", 3, 3), row("io", 0, 4), row("blank", "", 4)]
        assert list(closed_vocabulary(rows)) == ["blank s", "io s", "sleep ns", "wait n"]

    @given(st.lists(st.tuples(st.text(max_size=25), st.integers(0, 9), st.integers(0, 9)), max_size=9))
    def test_every_line_is_a_short_lower_case_word_of_projects(self, words: list[tuple[str, int, int]]) -> None:
        """Every line is a short lower-case word of enough projects."""
        for line in closed_vocabulary(row(*word) for word in words):
            word, where = line.split(" ")
            assert set(word) <= set(ascii_lowercase)
            assert 0 < len(word) <= MAXIMUM_LETTERS
            assert any(
                (names if letter == "n" else sources) >= MINIMUM_PROJECTS
                for letter in where
                for given_word, names, sources in words
                if given_word == word
            )

    def test_the_script_writes_what_the_schema_reads(self, tmp_path: Path) -> None:
        with (tmp_path / "words.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, row("", 0, 0))
            writer.writeheader()
            writer.writerows([row("timeout", 30, 30), row("zebracorp", 1, 1)])
        command = [sys.executable, "-m", "tests.studies.vocabulary", str(tmp_path / "words.csv")]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        assert lines[0].startswith("#")
        assert lines[1:] == ["timeout ns"]
        assert "timeout" in schema().words("name").index
        assert "timeout" in schema().words("source").index
