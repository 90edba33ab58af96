"""The check of the words in the documentation."""

from pathlib import Path

import pytest

from tests.prose import find_words, main

PAGE = Path("page.md")


class TestFindWords:
    def test_reports_line_word_and_advice(self) -> None:
        (finding,) = find_words(PAGE, "# Title\n\nUpdates are refused at the door.\n")
        assert str(finding) == "page.md:3: 'door': name the check: authentication, rate limit, validation"

    def test_reads_neither_code_nor_link_targets(self) -> None:
        text = "`purse` [text](house.md) https://crowd.example\n\n```sh\nfold -w 80\n```\n"
        assert list(find_words(PAGE, text)) == []

    def test_skips_what_is_switched_off(self) -> None:
        text = "<!-- prose: off -->\nA purse.\n<!-- prose: on -->\nA door.\n"
        assert [finding.line for finding in find_words(PAGE, text)] == [4]

    def test_the_head_of_git_is_allowed(self) -> None:
        assert list(find_words(PAGE, "A detached TASK.")) == []

    def test_matches_whole_words_only(self) -> None:
        assert list(find_words(PAGE, "A warehouse, an outdoor manifold, a header.")) == []


class TestMain:
    @pytest.mark.parametrize(("arguments", "code"), [([], 0), (["--strict"], 1)])
    def test_fails_only_when_asked_to(self, tmp_path: Path, arguments: list[str], code: int) -> None:
        (tmp_path / "page.md").write_text("Whoever sends.\n")
        assert main([*arguments, str(tmp_path)]) == code

    def test_a_missing_file_is_left_out(self, tmp_path: Path) -> None:
        assert main(["--strict", str(tmp_path / "absent.md")]) == 0
