"""Facts about the log on a real disk: appends, damage, concurrent writers, pruning."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedstep.errors import HistoryError
from fedstep.history.project_store import ProjectStore, RecordLog, write_atomically, write_if_absent
from fedstep.history.records import BuildRecord
from fedstep.history.summary import load_summary
from fedstep.types import BuildOutcome, Dropped


def entry(number: int, ended: float | None = None) -> BuildRecord:
    at = 1_700_000_000.0 + 60 * number
    return BuildRecord(f"{number:032x}", at, ended or at + 30, 30.0, "unit||mark", BuildOutcome.PASSED)


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.unit.history.test_log import RecordLog, entry
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    RecordLog(Path(sys.argv[1])).append(entry(number))
"""


def writer(folder: Path, first: int, end: int) -> subprocess.Popen[bytes]:
    program = WRITER.format(root=str(Path(__file__).parents[3]))
    return subprocess.Popen([sys.executable, "-c", program, str(folder), str(first), str(end)])


class TestRecords:
    def test_records_are_listed_in_the_order_of_their_ends(self, tmp_path: Path) -> None:
        """Records are listed in the order in which their builds ended."""
        log = RecordLog(str(tmp_path))
        late, early = log.append(entry(1, ended=1_800_000_000.0)), log.append(entry(2))
        assert log.files() == [early, late]

    def test_a_build_that_is_there_is_left_as_it_is(self, tmp_path: Path) -> None:
        log = RecordLog(str(tmp_path))
        name = log.append(entry(1))
        log.append(entry(1)._replace(branch="other"))
        assert log.files() == [name]
        kept = log.read(name)
        assert isinstance(kept, BuildRecord)
        assert kept.branch == ""
        assert log.has(entry(1).name)
        assert not log.has(entry(2).name)

    def test_names_that_are_no_records_are_ignored(self, tmp_path: Path) -> None:
        for name in (".x.tmp", "notes.txt", f"{1:014d}-{'g' * 32}.rec", f"{1:014d}-{'a' * 32}.rec.bak"):
            (tmp_path / name).write_bytes(b"")
        assert RecordLog(str(tmp_path)).files() == []
        assert RecordLog(str(tmp_path / "absent")).files() == []

    def test_truncated_record_is_skipped_with_a_warning(self, home: ProjectStore) -> None:
        """A record cut in the middle is skipped with a warning, and the rest counts."""
        names = [home.log.append(entry(number)) for number in range(4)]
        cut, flipped = (Path(home.folder) / "builds" / name for name in names[1:3])
        cut.write_bytes(cut.read_bytes()[:40])
        content = bytearray(flipped.read_bytes())
        content[len(content) // 2] ^= 0xFF
        flipped.write_bytes(content)
        known = load_summary(home)
        assert known.summary.count == 2
        assert [warning.partition(" ")[0] for warning in known.warnings] == names[1:3]
        assert all("is skipped" in warning for warning in known.warnings)


@pytest.mark.slow
class TestWriters:
    def test_two_writers_at_once_lose_nothing(self, tmp_path: Path) -> None:
        writers = [writer(tmp_path, 0, 60), writer(tmp_path, 40, 100)]
        assert [one.wait(60) for one in writers] == [0, 0]
        log = RecordLog(str(tmp_path))
        read = [item for _, item in log.entries(log.files())]
        assert {item.name for item in read if isinstance(item, BuildRecord)} == {
            entry(number).name for number in range(100)
        }
        assert len(read) == 100

    def test_a_writer_that_is_killed_leaves_no_half_record(self, tmp_path: Path) -> None:
        log = RecordLog(str(tmp_path))
        process = writer(tmp_path, 0, 1_000_000)
        deadline = time.monotonic() + 60
        while len(log.files()) < 20 and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        names = log.files()
        assert len(names) >= 20
        assert not [item for _, item in log.entries(names) if isinstance(item, Dropped)]

    def test_a_reader_sees_the_old_content_or_the_new_one(self, tmp_path: Path) -> None:
        path, size = tmp_path / "summary.json", 1 << 20
        program = """
import sys
from pathlib import Path
from fedstep.history.project_store import write_atomically
for number in range(60):
    write_atomically(Path(sys.argv[1]), bytes([65 + number % 26]) * int(sys.argv[2]))
"""
        write_atomically(str(path), b"A" * size)
        process = subprocess.Popen([sys.executable, "-c", program, str(path), str(size)])
        seen = set()
        while process.poll() is None:
            content = path.read_bytes()
            assert len(content) == size
            assert content == content[:1] * size
            seen.add(content[:1])
        assert process.returncode == 0
        assert len(seen) > 1
        assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]

    def test_of_several_first_writers_one_wins(self, tmp_path: Path) -> None:
        write_if_absent(str(tmp_path / "key"), b"one")
        write_if_absent(str(tmp_path / "key"), b"two")
        assert (tmp_path / "key").read_bytes() == b"one"
        assert [file.name for file in tmp_path.iterdir()] == ["key"]

    def test_the_first_wins_also_where_the_file_system_has_no_links(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_source: str, _target: str) -> None:
            raise PermissionError(1, "Operation not permitted")  # what Linux says on vfat

        monkeypatch.setattr(os, "link", refuse)
        write_if_absent(str(tmp_path / "key"), b"one")
        write_if_absent(str(tmp_path / "key"), b"two")
        assert (tmp_path / "key").read_bytes() == b"one"
        assert [path.name for path in tmp_path.iterdir()] == ["key"]

    def test_a_folder_that_cannot_be_written_is_named_with_a_remedy(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(HistoryError, match=r"file/builds.*Free space"):
            RecordLog(str(tmp_path / "file" / "builds")).append(entry(1))


class TestPruning:
    def test_pruning_keeps_the_newest(self, tmp_path: Path) -> None:
        log = RecordLog(str(tmp_path))
        names = [log.append(entry(number)) for number in range(5)]
        assert log.prune(10) == 0
        assert log.prune(2) == 3
        assert log.files() == names[3:]
        assert log.prune(0) == 0

    def test_a_record_that_went_away_is_dropped_with_a_reason(self, tmp_path: Path) -> None:
        found = RecordLog(str(tmp_path)).read("gone")
        assert isinstance(found, Dropped)
        assert found.source == "gone"
