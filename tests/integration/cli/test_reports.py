"""`fedstep reports` as a user meets it: the table, what Jenkins would count, repairs, refusals, exit codes."""

import json
import shutil
from pathlib import Path

import pytest

from tests.helpers.cli import Checkout

SAMPLES = Path(__file__).parents[2] / "data" / "junit"
EXPECTED = json.loads((SAMPLES / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture
def samples(fresh: Checkout) -> Checkout:
    """A repository with every sample report in `reports/`."""
    (fresh.root / "reports").mkdir()
    for name in EXPECTED:
        shutil.copy(SAMPLES / name, fresh.root / "reports" / name)
    return fresh


def rows(text: str) -> dict[str, list[str]]:
    """The cells of the table by file."""
    lines = text.partition("\n\n")[0].splitlines()
    return {line.split()[0]: line.split()[1:] for line in lines}


class TestTable:
    def test_a_table_shows_what_was_read_of_each_file_and_the_total(self, samples):
        ran = samples.run("reports", "reports/rspec.xml", "reports/phpunit-9.xml")
        assert (ran.code, ran.err) == (0, "")
        found = rows(ran.out)
        assert found["reports/rspec.xml"][:6] == ["RSpec", "5", "2", "1", "2", "0"]
        assert found["reports/phpunit-9.xml"][:6] == ["PHPUnit", "7", "2", "3", "2", "0"]
        assert found["2"][:6] == ["files", "12", "4", "4", "4", "0"]

    def test_repairs_and_refusals_have_place_and_reason(self, samples):
        """What was repaired or refused is listed with its place and reason."""
        ran = samples.run("reports", "reports/control-characters.xml", "reports/failsafe-summary.xml")
        assert ran.code == 0
        repaired, refused = ran.out.partition("Repaired:")[2].split("Refused:")
        assert "reports/control-characters.xml:3: a character that XML does not allow (3 in this file)" in repaired
        assert "TEST-*.xml" in " ".join(refused.split())
        assert len(ran.warnings) == 1

    def test_with_strict_a_refusal_leaves_with_3_and_a_repair_with_0(self, samples):
        assert samples.run("reports", "--strict", "reports/failsafe-summary.xml").code == 3
        assert samples.run("reports", "--strict", "missing/*.xml").code == 3
        assert samples.run("reports", "--strict", "reports/control-characters.xml").code == 0

    def test_other_counts_of_jenkins_are_shown_with_a_reason(self, samples):
        """Where Jenkins counts otherwise, both counts and the reason are shown."""
        ran = samples.run("reports", "reports/gradle-retry.xml", "reports/ant.xml", "reports/truncated.xml")
        said = " ".join(ran.out.partition("Jenkins counts otherwise:")[2].partition("Repaired:")[0].split())
        assert (
            "gradle-retry.xml: 6 tests, 3 failed, 1 skipped; it counts each of 6 cases, also several of one test"
            in said
        )
        assert "reports/truncated.xml: 1 test, 1 failed, 0 skipped; it cannot parse the file" in said
        assert "ant.xml" not in said


class TestFormats:
    def test_json_has_the_counts_of_every_sample(self, samples):
        ran = samples.run("reports", "--format", "json", "reports/*")
        told = {file["file"].removeprefix("reports/"): file for file in json.loads(ran.out)["files"]}
        assert set(told) == set(EXPECTED)
        for name, row in EXPECTED.items():
            letters = row["outcomes"]
            assert told[name]["dialect"] == row["dialect"]
            assert [told[name][key] for key in ("tests", "passed", "flaky", "skipped")] == [
                len(letters), *map(letters.count, "pks")
            ]  # fmt: skip
            assert told[name]["failed"] == letters.count("f") + letters.count("c")

    def test_the_total_counts_a_test_of_two_files_once(self, samples):
        ran = samples.run("reports", "--format", "json", "reports/robot-output.xml", "reports/robot-xunit.xml")
        answer = json.loads(ran.out)
        assert [file["tests"] for file in answer["files"]] == [6, 6]
        assert (answer["total"]["tests"], answer["total"]["failed"]) == (6, 2)

    def test_the_same_bytes_twice_are_refused_once(self, samples):
        shutil.copy(SAMPLES / "ant.xml", samples.root / "reports" / "copy.xml")
        ran = samples.run("reports", "reports/ant.xml", "reports/copy.xml")
        assert "reports/copy.xml: the same bytes as reports/ant.xml" in ran.out

    def test_markdown_names_every_file_and_section(self, samples):
        ran = samples.run("reports", "--format", "markdown", "reports/ant.xml", "reports/failsafe-summary.xml")
        assert "| `reports/ant.xml` | Ant | 4 |" in ran.out
        assert "### Refused" in ran.out


class TestGlobs:
    def test_globs_of_junit_are_read_where_no_file_is_given(self, samples):
        """Without files, the globs of `--junit` are read, and without those it is a usage error."""
        (samples.root / ".fedstep.toml").write_text('junit = ["reports/ant.xml"]\n')
        assert "reports/ant.xml" in samples.run("reports").out
        (samples.root / ".fedstep.toml").unlink()
        ran = samples.run("reports")
        assert (ran.code, ran.out) == (2, "")
        assert "--junit" in ran.err


class TestTerminal:
    def test_a_hostile_name_is_shown_and_not_obeyed(self, fresh):
        name = "\x1b[31m##[error].xml"
        (fresh.root / name).write_text("<html>")
        ran = fresh.run("reports", "*.xml")
        assert "\x1b" not in ran.out + ran.err
        assert "##[" not in ran.out + ran.err

    def test_no_line_is_wider_than_a_terminal(self, samples):
        ran = samples.run("reports", "reports/*")
        assert max(map(len, ran.out.splitlines())) <= 100
