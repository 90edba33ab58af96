"""Which files are read as reports: each once, in no folder that is not meant, of this job, and while there is time."""

import io
import os
from pathlib import Path

import pytest

from fedstep.ingest.junit import ReadingLimits, expand, read_reports
from fedstep.types import BuildOutcome, Dropped

REPORT = '<testsuite name="s"><testcase classname="c" name="{}"/></testsuite>'


def make(root: Path, *names: str, text: str = "") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text or REPORT.format(name))


def found(root: Path, *globs: str) -> list[str]:
    return [file.reason if isinstance(file, Dropped) else file[0] for file in expand(globs, root)]


class TestFolders:
    def test_links_to_folders_are_not_followed(self, tmp_path: Path) -> None:
        """Packages that link to each other, and a folder that links to itself, are walked once."""
        make(tmp_path, "a/TEST-a.xml", "b/TEST-b.xml")
        for name, target in (("a/b", "../b"), ("b/a", "../a"), ("a/self", "."), ("a/up", "../.."), ("b/root", "/")):
            (tmp_path / name).symlink_to(target)
        assert found(tmp_path, "**/TEST-*.xml") == ["a/TEST-a.xml", "b/TEST-b.xml"]
        assert found(tmp_path, "a/b/TEST-*.xml") == ["a/b/TEST-b.xml"], "a link that is named is followed"

    @pytest.mark.parametrize(
        "links",
        [
            {"a/a": "."}, {"a/b/up": "../.."}, {"a/one": "../b", "b/two": "../a"},
            {"a/x": "y", "a/y": "x"}, {"a/root": "/"}, {"packages/p/node_modules/q": "../../../a"},
            {f"a/l{number}": f"l{number + 1}" for number in range(30)} | {"a/l30": "."},
            {"a/gone": "nowhere"}, {"a/proc": "/proc/self"},
        ],
        ids=str,
    )  # fmt: skip
    def test_links_that_lead_in_circles_end(self, tmp_path: Path, links: dict[str, str]) -> None:
        """Case 3: a link to itself, upwards, between folders, chains of links, and to what has no end."""
        make(tmp_path, "a/TEST-a.xml", "b/TEST-b.xml", "packages/p/TEST-p.xml")
        for name, target in links.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).symlink_to(target)
        reports = ["a/TEST-a.xml", "b/TEST-b.xml", "packages/p/TEST-p.xml"]
        assert found(tmp_path, "**/TEST-*.xml") == reports
        assert found(tmp_path, "**/TEST-*.xml", "./**/TEST-?.xml", "a", "a/TEST-a.xml") == reports

    def test_a_link_to_a_report_is_the_report(self, tmp_path: Path) -> None:
        make(tmp_path, "out/z.xml")
        (tmp_path / "out" / "a.xml").symlink_to("z.xml")
        assert found(tmp_path, "**/*.xml") == ["out/z.xml"]

    @pytest.mark.parametrize("pattern", ["**/*.xml", "out/*.xml", "out", "out/pipe.xml", "out/link.xml"])
    def test_a_pipe_is_never_opened(self, tmp_path: Path, pattern: str) -> None:
        """Reading it would wait for ever; a link whose target is gone is told."""
        make(tmp_path, "out/r.xml")
        os.mkfifo(tmp_path / "out" / "pipe.xml")
        (tmp_path / "out" / "link.xml").symlink_to("gone")
        (tmp_path / "out" / "device.xml").symlink_to("/dev/zero")
        reports = read_reports(expand([pattern], tmp_path))
        is_named = {"out/pipe.xml": "this is a pipe or a device, no file"}
        assert [item.reason for item in reports.dropped] == (
            [is_named[pattern]] if pattern in is_named else ["cannot be read: No such file or directory"]
        )
        assert reports.files == (pattern in ("**/*.xml", "out/*.xml", "out"))

    @pytest.mark.parametrize(
        ("pattern", "reason"),
        [("no.xml", "this file does not exist"), ("no/*.xml", "this glob matches no file"),
         ("**/no.xml", "this glob matches no file"), ("empty", "this folder has no report")],
    )  # fmt: skip
    def test_what_matches_nothing_is_named_as_it_is(self, tmp_path: Path, pattern: str, reason: str) -> None:
        (tmp_path / "empty").mkdir()
        assert found(tmp_path, pattern) == [reason]

    @pytest.mark.parametrize(
        "folder", ["node_modules", ".git", ".venv", "venv", "a/node_modules/b", "env/lib/python3/site-packages"]
    )
    def test_folders_of_others_are_left_out_unless_named(self, tmp_path: Path, folder: str) -> None:
        make(tmp_path, f"{folder}/r.xml", "mine/r.xml")
        if "env" in folder:
            make(tmp_path, f"{folder.partition('/')[0]}/pyvenv.cfg")
        assert found(tmp_path, "**/*.xml") == ["mine/r.xml"]
        assert found(tmp_path, f"{folder}/*.xml") == [f"{folder}/r.xml"]

    @pytest.mark.parametrize(
        ("pattern", "names"),
        [
            ("**/*.xml", ["a/b/r.xml", "a/r.xml", "r.xml"]), ("a/**/*.xml", ["a/b/r.xml", "a/r.xml"]),
            ("**/b/*.xml", ["a/b/r.xml"]), ("*/**/b/**/r.xml", ["a/b/r.xml"]), ("a/**", ["a/b/r.xml", "a/r.xml"]),
            ("./**/b/r.xml", ["a/b/r.xml"]), ("**/.h/*.xml", [".h/r.xml"]),
        ],
    )  # fmt: skip
    def test_two_stars_are_any_folders(self, tmp_path: Path, pattern: str, names: list[str]) -> None:
        make(tmp_path, "r.xml", "a/r.xml", "a/b/r.xml", ".h/r.xml")
        assert found(tmp_path, pattern) == names
        assert found(tmp_path, str(tmp_path / pattern)) == names

    def test_a_folder_is_the_reports_in_it(self, tmp_path: Path) -> None:
        make(tmp_path, "out/a.xml", "out/deep/b.xml", "other/c.xml", "empty/notes.txt")
        make(tmp_path, "out/pom.xml", text="<project/>")
        make(tmp_path, "out/t.trx", text="<TestRun/>")
        assert found(tmp_path, "out") == ["out/a.xml", "out/deep/b.xml", "out/t.trx"]
        assert found(tmp_path, "empty") == ["this folder has no report"]

    @pytest.mark.parametrize(
        "name", ["report[chrome].xml", "[a].xml", "what?.xml", "a*b.xml", "[jdk-17]/r[1].xml", "**.xml"]
    )
    def test_a_name_that_exists_is_no_glob(self, tmp_path: Path, name: str) -> None:
        make(tmp_path, name, "other.xml")
        assert found(tmp_path, name) == [name]

    def test_a_search_ends_when_the_time_is_over(self, tmp_path: Path) -> None:
        make(tmp_path, *(f"{number}/r.xml" for number in range(20)))
        answers = iter([False] * 5 + [True] * 100)
        files = expand(["**/*.xml"], tmp_path, lambda: next(answers))
        assert sum(isinstance(file, Dropped) for file in files) == 1
        assert len(files) < 10


class TestTime:
    def test_reading_ends_when_the_time_is_over(self, tmp_path: Path) -> None:
        """What was read counts, and what was not is lost: a build with lost reports did not pass."""
        make(tmp_path, "a.xml", "b.xml", "c.xml")
        answers = iter([False, False, True, *[True] * 50])
        reports = read_reports(expand(["*.xml"], tmp_path), limits=ReadingLimits(is_over=lambda: next(answers)))
        assert [item.source for item in reports.dropped if not item.kept][-2:] == ["b.xml", "c.xml"]
        assert reports.outcome() == BuildOutcome.UNKNOWN

    def test_a_large_report_is_cut_when_the_time_is_over(self) -> None:
        text = "<testsuite>" + "".join(f"<testcase name='n{number}'/>" for number in range(20_000)) + "</testsuite>"
        answers = iter([False] * 4 + [True] * 50)
        limits = ReadingLimits(is_over=lambda: next(answers))
        reports = read_reports([("r.xml", lambda: io.BytesIO(text.encode()))], limits=limits)
        assert 1000 < len(reports.tests) < 20_000
        assert reports.outcome() == BuildOutcome.UNKNOWN


class TestAge:
    NOW = 1_790_000_000.0

    def dropped(self, tmp_path: Path, written: float, text: str = "") -> list[str]:
        make(tmp_path, "r.xml", text=text)
        os.utime(tmp_path / "r.xml", (written, written))
        reports = read_reports(expand(["r.xml"], tmp_path), limits=ReadingLimits(self.NOW))
        assert len(reports.tests) == reports.files == 1 - len(reports.dropped)
        return [item.reason.partition(" than")[0] for item in reports.dropped]

    @pytest.mark.parametrize(
        ("age", "reason"),
        [
            (-60, []), (0, []), (1.5, []), (3, ["it is 3 s older"]), (600, ["it is 10 minutes older"]),
            (3 * 86_400, ["it is 3 days older"]),
        ],
    )  # fmt: skip
    def test_a_report_older_than_the_job_is_no_evidence(self, tmp_path: Path, age: float, reason: list[str]) -> None:
        assert self.dropped(tmp_path, self.NOW - age) == reason

    @pytest.mark.parametrize(
        ("timestamp", "is_stale"),
        [
            ("2026-01-01T00:00:00", True), ("2020-02-02T10:00:00Z", True), ("2026-09-21T13:13:20", False),
            ("2026-09-22T10:00:00+00:00", False), ("some day", False),
        ],
    )  # fmt: skip
    def test_a_fresh_copy_of_an_old_report_is_old(self, tmp_path: Path, timestamp: str, is_stale: bool) -> None:
        """A checkout writes old reports anew: their timestamps tell, with a day for a time zone that is not told."""
        text = REPORT.format("n").replace('name="s"', f'name="s" timestamp="{timestamp}"')
        assert bool(self.dropped(tmp_path, self.NOW + 5, text)) == is_stale
