"""Every attack of docs/explanation/threat-model.md names a test that is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/explanation/threat-model.md").read_text(encoding="utf-8")
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
ATTACKS = [row for row in ROWS if row[-1] != "shown by" and not row[0].startswith("-")]
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
TESTS = set(re.findall(r"^ *(?:async )?def (test_\w+)", SOURCES, re.M))


class TestThreatModel:
    def test_every_attack_has_a_defence_and_names_a_test(self):
        assert len(ATTACKS) > 50
        wrong = [row[0] for row in ATTACKS if len(row) != 3 or not (row[2] == "the same" or "`test_" in row[2])]
        assert wrong == []

    def test_every_test_that_is_named_is_there(self):
        """Every test that is named exists; a name that ends in three dots is the beginning of one."""
        named = re.findall(r"`(test_\w+)(\.{3})?`", PAGE)
        wrong = [
            name for name, cut in named if not any(test == name or (cut and test.startswith(name)) for test in TESTS)
        ]
        assert wrong == []
        assert len(set(named)) > 50
