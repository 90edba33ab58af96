"""Facts about a ref that somebody hostile has written: what does not belong there is ignored, said, and goes."""

import os
from pathlib import Path

import pytest

from fedstep.errors import UsageError
from fedstep.history.git_ref import LARGEST_RECORD, REF
from fedstep.history.merge import merge_folder, merge_ref
from tests.helpers.history import Clone, blob, clone, git, listed, new_remote, recorded, rewrite

GOOD, BETTER, BEST = (f"{1_790_900_000_000:014d}-{number:032x}.rec" for number in (7, 8, 9))  # of 2026-10
NOVEMBER = f"{1_795_000_000_000:014d}-{9:032x}.rec"


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    return new_remote(tmp_path)


@pytest.fixture
def ada(remote: Path, tmp_path: Path) -> Clone:
    made = clone(remote, tmp_path / "ada")
    made.record(1)
    made.publish()
    return made


@pytest.fixture
def bob(ada: Clone, remote: Path, tmp_path: Path) -> Clone:
    """A clone that has not seen what Ada published."""
    assert ada.home.log.files()
    return clone(remote, tmp_path / "bob")


def files(folder: str) -> set[str]:
    """All files below, and links."""
    return {os.path.relpath(os.path.join(path, name), folder) for path, _, names in os.walk(folder) for name in names}


def month_with(remote: Path, *lines: str) -> str:
    """A line of a tree for the month 2026-10, which holds these lines."""
    tree = git(remote, "mktree", "--missing", stdin="".join(f"{line}\n" for line in lines).encode()).strip()
    return f"040000 tree {tree}\t2026-10"


class TestForeignContent:
    def test_what_is_no_record_becomes_no_file(self, remote, bob):
        evil = blob(remote, b"../../../outside")
        month = month_with(
            remote,
            f"120000 blob {evil}\t{GOOD}",
            f"160000 commit {git(remote, 'rev-parse', 'main').strip()}\t{BETTER}",
            f"100755 blob {evil}\t{BEST}",
            f"100644 blob {evil}\t{'x' * 4000}.rec",
            f"100644 blob {evil}\t..",
            f"100644 blob {evil}\tname with \x1b[31mcolour",
        )
        rewrite(remote, month, f"120000 blob {evil}\tcache", f"100644 blob {evil}\tHEAD")
        taken = bob.receive()
        assert taken.added == 1
        assert files(bob.home.folder) == {f"builds/{bob.home.log.files()[0]}", "key", "travel.json"}
        assert len(taken.warnings) == 1
        assert "8 entries" in taken.warnings[0]
        assert taken.warnings[0].isprintable()
        assert len(taken.warnings[0]) < 200

    def test_foreign_files_are_removed_by_the_next_publish(self, remote, bob):
        """What does not belong there goes when the history is next published."""
        rewrite(
            remote,
            f"100644 blob {blob(remote, b'x')}\tHEAD",
            month_with(remote, f"100644 blob {blob(remote, b'y')}\tz"),
        )
        bob.record(2)
        bob.publish()
        assert [path for path in listed(remote) if not path.endswith(".rec")] == ["key"]
        assert len(recorded(remote)) == 2

    def test_a_record_in_the_folder_of_another_month_is_ignored(self, remote, bob):
        rewrite(remote, month_with(remote, f"100644 blob {blob(remote, b'x')}\t{NOVEMBER}"))
        assert bob.receive().added == 1
        assert NOVEMBER not in bob.home.log.files()

    def test_folders_in_folders_are_not_followed(self, remote, bob):
        """A tree of ten trees, twelve deep, is a small commit with a million million files."""
        deep = git(remote, "mktree", stdin=f"100644 blob {blob(remote, b'x')}\tf\n".encode()).strip()
        for _ in range(12):
            deep = git(
                remote, "mktree", stdin="".join(f"040000 tree {deep}\t{n}\n" for n in range(10)).encode()
            ).strip()
        rewrite(remote, f"040000 tree {deep}\t2026-10", f"040000 tree {deep}\tparts", f"040000 tree {deep}\tcache")
        taken = bob.receive()
        assert taken.added == 1
        assert "20 entries" in taken.warnings[0]

    @pytest.mark.slow
    def test_oversized_record_is_refused_and_others_are_read(self, remote, bob):
        """A record that is too large is refused, and the others are read."""
        large = blob(remote, bytes(LARGEST_RECORD + 1))
        rewrite(remote, month_with(remote, f"100644 blob {large}\t{GOOD}"))
        taken = bob.receive()
        assert taken.added == 1
        assert f"{GOOD} of {REF} is refused: it has {LARGEST_RECORD + 1} bytes" in taken.warnings[0]
        bob.record(2)
        bob.publish()
        assert GOOD not in recorded(remote)

    def test_a_key_or_floor_that_is_none_changes_nothing(self, remote, bob):
        bob.home.prepare()
        own = bob.home.key()
        there = git(remote, "ls-tree", REF).splitlines()
        lines = [line for line in there if not line.endswith("key")]
        lines += [f"100644 blob {blob(remote, b'short')}\tkey", f"100644 blob {blob(remote, b'~' * 51)}\tfloor"]
        tree = git(remote, "mktree", stdin="".join(f"{line}\n" for line in lines).encode()).strip()
        git(remote, "update-ref", REF, git(remote, "commit-tree", tree, "-m", "x").strip())
        assert bob.receive().added == 1
        assert bob.home.key() == own
        assert bob.home.read("floor") == b""

    def test_a_damaged_record_arrives_and_is_skipped_with_a_reason(self, remote, bob):
        rewrite(remote, month_with(remote, f"100644 blob {blob(remote, b'no record')}\t{GOOD}"))
        bob.receive()
        assert "damaged" in bob.home.log.read(GOOD).reason

    def test_a_ref_with_a_long_past_is_replaced_by_one_commit(self, remote, bob):
        tree = git(remote, "rev-parse", f"{REF}^{{tree}}").strip()
        child = git(remote, "commit-tree", tree, "-p", "main", "-m", "child").strip()
        git(remote, "update-ref", REF, child)
        bob.record(2)
        bob.publish()
        assert git(remote, "rev-list", "--count", REF).strip() == "1"
        assert len(recorded(remote)) == 2


class TestMerge:
    def test_links_and_pipes_in_a_folder_are_not_merged(self, bob, tmp_path):
        folder = tmp_path / "elsewhere" / "builds"
        folder.mkdir(parents=True)
        os.mkfifo(folder / GOOD)
        secret = tmp_path / "secret"
        secret.write_text("secret")
        os.symlink(secret, folder / f"{2:014d}-{2:032x}.rec")
        (folder / f"{3:014d}-{3:032x}.rec").write_bytes(b"x")
        merged = merge_folder(bob.home, str(folder.parent))
        assert (merged.added, len(merged.refused)) == (1, 2)
        assert bob.home.log.files() == [f"{3:014d}-{3:032x}.rec"]

    def test_merged_builds_count_once(self, ada, bob):
        """Folders, clones and refs are merged, and each build counts once."""
        ada.record(2)
        assert merge_folder(bob.home, str(ada.root)).added == 2
        assert merge_folder(bob.home, ada.home.folder).known == 2
        git(bob.root, "fetch", "-q", "origin", f"{REF}:refs/other")
        assert merge_ref(bob.home, str(bob.root), "refs/other", "").known == 1

    @pytest.mark.parametrize("ref", ["nowhere", "HEAD", "--output=x", "x\nHEAD", ""])
    def test_what_is_no_history_is_refused_by_name(self, bob, ref):
        with pytest.raises(UsageError):
            merge_ref(bob.home, str(bob.root), ref, "")
