"""Facts about the folder of a history: its key, its marks, its files."""

import subprocess
import sys
from pathlib import Path

import pytest

from fedstep.errors import HistoryError
from fedstep.history.project_store import OLDEST_MARK, ProjectStore, StartMark


class TestKey:
    def test_prepared_home_is_hidden_from_git_and_keeps_its_key(self, home: ProjectStore) -> None:
        """A prepared home is hidden from git and has a key that stays."""
        key = home.key()
        home.prepare()
        assert len(key) == 32
        assert home.key() == key
        assert home.read(".gitignore") == b"*\n"

    def test_two_homes_have_different_keys_and_hashes(self, home: ProjectStore, tmp_path: Path) -> None:
        """Two homes have different keys, and hash the same words apart."""
        other = ProjectStore(str(tmp_path / "other"))
        other.prepare()
        assert home.keyed_hash("build", "1") != other.keyed_hash("build", "1")
        assert home.keyed_hash("build", "1") == home.hasher()("build", "1")
        assert home.keyed_hash("ab", "c") != home.keyed_hash("a", "bc")
        assert len(home.keyed_hash("\udcff")) == 32

    @pytest.mark.slow
    def test_processes_that_prepare_at_once_agree_on_one_key(self, tmp_path: Path) -> None:
        program = """
import sys
from pathlib import Path
from fedstep.history.project_store import ProjectStore
homes = [ProjectStore(f"{sys.argv[1]}/{number}") for number in range(40)]
for home in homes:  # all start each home at once: they wait for one another
    Path(f"{home.folder}.{sys.argv[2]}").touch()
    while not all(Path(f"{home.folder}.{other}").exists() for other in "abc"):
        pass
    home.prepare()
    print(home.key().hex())
"""
        commands = [[sys.executable, "-c", program, str(tmp_path), name] for name in "abc"]
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for command in commands]
        told = {process.communicate(timeout=60)[0] for process in processes}
        keys = "".join(f"{ProjectStore(str(tmp_path / str(number))).key().hex()}\n" for number in range(40))
        assert told == {keys.encode()}

    @pytest.mark.parametrize("content", [b"", b"xyz", b"abcd", b"\xff" * 64, b"00" * 33])
    def test_a_damaged_key_is_named_with_a_remedy(self, home: ProjectStore, content: bytes) -> None:
        home.write("key", content)
        with pytest.raises(HistoryError, match=r"key is damaged\. Delete it"):
            home.key()


class TestFiles:
    def test_missing_file_is_empty_and_unreadable_one_an_error(self, home: ProjectStore) -> None:
        """A file that is not there is empty, and one that cannot be read is an error."""
        assert home.read("nothing") == b""
        (Path(home.folder) / "folder").mkdir()
        with pytest.raises(HistoryError, match="cannot read"):
            home.read("folder")


class TestMarks:
    def test_the_first_mark_of_a_run_stands_and_each_run_has_its_own(self, home: ProjectStore) -> None:
        home.mark_start("a" * 32, StartMark(1000.0, 2.5), 1002.5)
        home.mark_start("b" * 32, StartMark(1001.5), 1001.5)
        home.mark_start("a" * 32, StartMark(1002.0), 1002.0)
        assert home.read_mark("a" * 32) == StartMark(1000.0, 2.5)
        assert home.read_mark("b" * 32) == StartMark(1001.5)
        assert home.read_mark("c" * 32) is None

    def test_a_mark_older_than_a_week_goes_and_a_damaged_one_is_none(self, home: ProjectStore) -> None:
        home.mark_start("a", StartMark(1000.0), 1000.0)
        home.write("marks/b", b"soon")
        assert home.read_mark("b") is None
        home.mark_start("c", StartMark(1000.0 + OLDEST_MARK), 1000.0 + OLDEST_MARK)
        assert sorted(mark.name for mark in (Path(home.folder) / "marks").iterdir()) == ["c"]

    def test_a_mark_that_another_job_is_writing_stays(self, home: ProjectStore) -> None:
        """Its temporary file is empty at first; it was deleted as damaged, and the mark lost."""
        home.write("marks/.a.0f1e2d3c.tmp", b"")
        home.mark_start("b", StartMark(1000.0), 1000.0)
        assert sorted(mark.name for mark in (Path(home.folder) / "marks").iterdir()) == [".a.0f1e2d3c.tmp", "b"]

    def test_jobs_that_start_at_once_lose_no_mark(self, tmp_path: Path) -> None:
        program = """
import sys
from pathlib import Path
from fedstep.history.project_store import ProjectStore, StartMark
for number in range(20):
    ProjectStore(Path(sys.argv[1])).mark_start(f"{sys.argv[2]}{number}", StartMark(1000.0), 1000.0)
"""
        processes = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name]) for name in "ab"]
        assert [process.wait(60) for process in processes] == [0, 0]
        marks = [ProjectStore(str(tmp_path)).read_mark(f"{name}{number}") for name in "ab" for number in range(20)]
        assert marks == [StartMark(1000.0)] * 40

    def test_a_mark_of_an_earlier_version_is_read(self, home: ProjectStore) -> None:
        home.write("marks/a", b"1000.0\n")
        assert home.read_mark("a") == StartMark(1000.0)


class TestFolder:
    def test_a_folder_that_cannot_be_made_is_a_history_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(HistoryError, match="cannot write"):
            ProjectStore(str(tmp_path / "file" / "home")).prepare()
