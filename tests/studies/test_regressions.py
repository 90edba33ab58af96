"""Facts about recording regressions: a fix taken back fails the tests that watch it, and only those are recorded."""

import csv
import json
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from tests.studies.regressions import (
    Fix,
    Plan,
    RecordingBuilder,
    find_file,
    pack,
    parse_fixes,
    pick_bases,
    record,
    strip_report,
)

FOLD = """def fold(text):
    text = {}
    # Between them lines that stay, so that each
    # fix can be taken back alone.
    #
    #
    text = {}
    return text
"""
CASE = "\ndef test_{0}():\n    assert fold('{1}') == '{2}'\n"
# Commit by commit the two lines of the function, and the tests: the second commit changes one, the third adds one.
OLD_TESTS = [("plain", "a", "a"), ("spaces", "a", "a")]
FIXED_TESTS = [("plain", "a", "a"), ("spaces", " a ", "a")]
VERSIONS = [
    (("text", "text"), OLD_TESTS),
    (("text.strip()", "text"), FIXED_TESTS),
    *((("text.strip()", "text.lower()"), [*FIXED_TESTS, ("case", "A", "a")]) for _ in range(5)),
]


def make_repository(folder: Path) -> Path:
    """Write a project whose commits all change its source and its tests."""
    (folder / "tests").mkdir(parents=True)
    (folder / "shop").mkdir()
    git(folder, "init", "-q", "-b", "main")
    for number, (lines, tests) in enumerate(VERSIONS):
        (folder / "shop/__init__.py").write_text("")
        (folder / "shop/fold.py").write_text(FOLD.format(*lines))
        (folder / f"shop/extra_{number}.py").write_text(f"number = {number}\n")
        text = "from shop.fold import fold\n" + "".join(CASE.format(*test) for test in tests)
        (folder / "tests/test_fold.py").write_text(text)
        (folder / "tests/test_extra.py").write_text(f"def test_number():\n    assert {number} >= 0\n")
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "-m", "Change", when=1_600_000_000 + 1000 * number)
    return folder


def git(folder: Path, *arguments: str, when: int = 0) -> None:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "commit.gpgsign=false"]
    dates = {"GIT_COMMITTER_DATE": f"{when} +0000", "GIT_AUTHOR_DATE": f"{when} +0000", "PATH": "/usr/bin:/bin"}
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, env=dates)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> RecordingBuilder:
    folder = tmp_path_factory.mktemp("regressions")
    checkout = make_repository(folder / "checkout")
    (folder / "scratch").mkdir()
    plan = Plan("shop", checkout, ("shop",), ("tests",), sys.executable, builds=3, regressions=3)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        return record(plan, folder / "shop", folder / "scratch")


def read_build(recorded: RecordingBuilder, number: str) -> Any:
    return json.loads((recorded.folder / number / "build.json").read_text())


class TestRecord:
    def test_fixes_taken_back_are_regressions(self, recorded: RecordingBuilder) -> None:
        """Both fixes fail the tests that came with them; changes that no test sees give no build."""
        with (recorded.folder / "truth.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        failed = {(row["test"].partition("#")[2], row["before_fix"]) for row in rows}
        assert failed == {("test_spaces", "changed"), ("test_case", "new")}
        assert {row["kind"] for row in rows} == {"regression"}
        assert (recorded.builds, recorded.failing_builds) == (6, 3)

    def test_a_build_says_what_was_taken_back(self, recorded: RecordingBuilder) -> None:
        name = recorded.regressions[0][0]
        build = read_build(recorded, name.rpartition("-")[2])
        assert (build["branch"], build["outcome"], build["build"]) == ("topic", "unstable", name)
        assert {change["path"] for change in build["changes"]} >= {"shop/fold.py"}
        assert not any(change["path"].startswith("tests/") for change in build["changes"])
        assert "fold" in build["words"]

    def test_a_commit_as_it_is_passes_on_the_main_branch(self, recorded: RecordingBuilder) -> None:
        build = read_build(recorded, "0001")
        assert (build["branch"], build["outcome"], build["started_at"]) == ("main", "passed", "2020-09-13T13:33:20Z")

    def test_sources_are_those_of_new_tests(self, recorded: RecordingBuilder) -> None:
        """The first build has the words of every test, later ones those of tests that changed."""
        first = json.loads((recorded.folder / "0001/sources.json").read_text())["tests"]
        assert set(first) == {
            "tests.test_extra#test_number",
            "tests.test_fold#test_plain",
            "tests.test_fold#test_spaces",
            "tests.test_fold#test_case",
        }
        assert "fold" in first["tests.test_fold#test_case"].split()
        assert not (recorded.folder / "0002/sources.json").exists()

    def test_an_archive_is_the_same_for_the_same_builds(self, recorded: RecordingBuilder, tmp_path: Path) -> None:
        for name in ("one", "two"):
            pack(recorded.folder, tmp_path / name)
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
        with tarfile.open(tmp_path / "one") as packed:
            assert "shop/truth.csv" in packed.getnames()


class TestPlan:
    def test_a_fix_changes_sources_and_tests(self) -> None:
        log = "@c3 30\n\nshop/a.py\ntests/test_a.py\n\n@c2 20\n\nshop/a.py\n\n@c1 10\n\ntests/test_a.py\nshop/b.py\n"
        assert parse_fixes(log, ("shop",)) == [Fix("c1", 10, ("shop/b.py",)), Fix("c3", 30, ("shop/a.py",))]

    def test_a_change_of_many_files_is_no_fix(self) -> None:
        many = "".join(f"shop/{number}.py\n" for number in range(9))
        assert parse_fixes(f"@c1 10\n\ntests/test_a.py\n{many}", ("shop",)) == []

    def test_bases_are_spread_after_the_first_fixes(self) -> None:
        fixes = [Fix(str(number), number, ()) for number in range(13)]
        assert pick_bases(fixes, 5) == [3, 5, 7, 9, 11]
        assert pick_bases(fixes, 99) == list(range(3, 13))
        assert pick_bases(fixes[:3], 5) == []

    @pytest.mark.parametrize(
        ("test", "found"),
        [
            ("tests.test_a.TestB#test_c[1.2]", ("tests/test_a.py", "TestB.test_c")),
            ("tests.test_a#test_c", ("tests/test_a.py", "test_c")),
            ("other.test_a#test_c", ("", "")),
        ],
    )
    def test_the_file_of_a_test_is_found(self, test: str, found: tuple[str, str]) -> None:
        assert find_file(test, ["tests/test_a.py"]) == found


class TestReport:
    def test_outputs_and_machines_are_removed(self) -> None:
        text = (
            "<testsuites><testsuite hostname='me' timestamp='2026'><testcase name='a'><failure message='/home/x/a.py"
            " of /venv/lib is bad&#10;second'>trace</failure><system-out>key</system-out></testcase></testsuite>"
            "</testsuites>"
        )
        report = strip_report(ET.ElementTree(ET.fromstring(text)), "/home/x", "/venv")
        assert ET.tostring(report.getroot()).decode() == (
            '<testsuites><testsuite hostname="host"><testcase name="a"><failure message="./a.py of ./lib is bad" />'
            "</testcase></testsuite></testsuites>"
        )
