"""docs/explanation/data-protection.md claims nothing that a test of this suite or a citation does not support."""

import re
from pathlib import Path

import pytest

from fedstep.diagnostics.inspect import BY_TASK, MEANINGS
from fedstep.federation.model_cache import load_starter_model
from fedstep.history.project_store import ProjectStore
from fedstep.history.records import BuildRecord
from fedstep.pipeline.train import evaluate_build, record_build
from fedstep.types import Change
from tests.benchmarks.project import drawn_builds
from tests.helpers.narrow import expect

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explanation/data-protection.md").read_text(encoding="utf-8")
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^ *def (test_\w+)", path.read_text(encoding="utf-8"), re.M)
}
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| field")]
LAWS = re.split(r"^## ", PAGE, flags=re.M)[2:]
CITATION = re.compile(r"\b(Art\. \d+|Recital \d+|Chapter V|45 CFR 16\d\.\d+|1798\.1\d\d)|`test_\w+`|\]\([\w./-]+\.md\)")


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


class TestPage:
    def test_every_test_that_the_page_names_exists(self) -> None:
        named = set(re.findall(r"`(test_\w+)`", PAGE))
        assert len(named) > 20
        assert named - TESTS == set()

    @pytest.mark.parametrize("row", ROWS, ids=lambda row: cells(row)[0][:40])
    def test_every_row_has_all_its_cells_and_names_a_test(self, row: str) -> None:
        assert len(cells(row)) == 6
        assert all(cells(row))
        assert re.search(r"`test_\w+`", cells(row)[5])

    def test_every_field_of_an_update_has_its_row(self) -> None:
        fields = " ".join(cells(row)[0] for row in ROWS)
        assert [name for name in (*MEANINGS, *BY_TASK) if f"`{name}`" not in fields] == []

    def test_every_paragraph_on_a_law_cites_it_or_names_a_test(self) -> None:
        paragraphs = [paragraph for law in LAWS for paragraph in law.split("\n\n")[1:] if paragraph.strip()]
        assert len(paragraphs) > 8
        assert [paragraph[:60] for paragraph in paragraphs if not CITATION.search(paragraph)] == []

    def test_the_page_is_no_longer_than_two_pages(self) -> None:
        assert len(PAGE.split()) < 1400


class TestHistory:
    def test_the_history_has_no_mail_address(self, tmp_path: Path) -> None:
        from fedstep.federation.model_cache import CachedModel

        home = ProjectStore(str(tmp_path / "history"))
        home.prepare()
        (evidence,) = drawn_builds(20, 1)
        assert record_build(home, evaluate_build(home, evidence, CachedModel(load_starter_model())), lambda _: {})
        (name,) = home.log.files()
        record = expect(BuildRecord, home.log.read(name))
        assert expect(Change, evidence.situation.change).author == "a@example.org"
        assert re.fullmatch("[0-9a-f]{16}", record.author)
        assert "example.org" not in str(record)
