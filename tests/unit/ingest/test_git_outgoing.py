"""What is about to be pushed, as git tells it; the tests use real repositories."""

import os
import subprocess
from pathlib import Path

import pytest

from fedstep.ingest.git import FILE_LIMIT, compile_globs, read_change, read_outgoing
from fedstep.types import FileChange, Unavailable
from tests.helpers.git import LOCAL, changed, commit, git, write

pytestmark = pytest.mark.usefixtures("no_user_configuration")


class TestComparedCommits:
    def test_outgoing_is_everything_since_the_upstream(self, clone: Path) -> None:
        commit(clone, "committed.txt")
        write(clone, "staged.txt")
        git(clone, "add", "staged.txt")
        write(clone, "a.txt", "one\n")
        write(clone, "folder/untracked.txt", "1\n2\n3")
        write(clone, "blob.bin", b"\0\n\n")
        change = changed(read_outgoing(str(clone)))
        assert change.base == "merge-base with upstream"
        assert {(f.path, f.added, f.deleted) for f in change.files} == {
            ("committed.txt", 2, 0),
            ("staged.txt", 2, 0),
            ("a.txt", 0, 1),
            ("folder/untracked.txt", 3, 0),
            ("blob.bin", 0, 0),
        }
        assert (change.commit, change.tree, change.author) == ("", "", "ada@example.org")

    def test_a_clean_work_tree_is_the_commit_that_will_be_built(self, clone: Path) -> None:
        head = commit(clone, "b.txt")
        change = changed(read_outgoing(str(clone)))
        assert (change.commit, change.tree) == (head, git(clone, "rev-parse", "HEAD^{tree}"))
        assert change.files == (FileChange("b.txt", 2, 0),)

    def test_a_new_branch_is_compared_with_the_default_branch(self, clone: Path) -> None:
        git(clone, "checkout", "-qb", "topic", "--no-track")
        commit(clone, "b.txt")
        change = changed(read_outgoing(str(clone)))
        assert ([file.path for file in change.files], change.base) == (["b.txt"], "merge-base with origin/HEAD")

    def test_without_default_branch_work_tree_is_compared_with_head(self, repo: Path) -> None:
        """Without a default branch, the work tree is compared with HEAD."""
        git(repo, "branch", "-qm", "main", "trunk")
        write(repo, "a.txt", "one\n")
        change = changed(read_outgoing(str(repo)))
        assert (change.files, change.base) == ((FileChange("a.txt", 0, 1),), "HEAD")

    def test_repository_without_commits_has_an_outgoing_change(self, tmp_path: Path) -> None:
        """A repository without commits has an outgoing change and no built one."""
        git(tmp_path, "init", "-q")
        write(tmp_path, "staged.txt")
        git(tmp_path, "add", "staged.txt")
        change = changed(read_outgoing(str(tmp_path)))
        assert (change.files, change.base) == ((FileChange("staged.txt", 2, 0),), "nothing: no commit yet")
        assert read_change(str(tmp_path), LOCAL) == Unavailable("the repository has no commit yet; run: git commit")


class TestLimits:
    def test_many_untracked_files_are_capped_with_a_notice(self, repo: Path) -> None:
        for number in range(FILE_LIMIT + 7):
            (repo / f"u{number}").touch()
        change = changed(read_outgoing(str(repo)))
        assert len(change.files) == FILE_LIMIT
        assert change.notice == "7 untracked files left out"

    @pytest.mark.parametrize("lines", [0, 1, 7, 3_000, 200_000])
    def test_lines_of_a_long_untracked_file_are_estimated(self, repo: Path, lines: int) -> None:
        """Only its start is read, and every line here is as long as the others: the estimate is exact."""
        write(repo, "generated.py", "8 bytes\n" * lines)
        assert changed(read_outgoing(str(repo))).files == (FileChange("generated.py", lines, 0),)

    @pytest.mark.parametrize("name", ["TEST-cart.xml", "dump.json", "build.log"])
    def test_lines_of_untracked_data_are_not_counted(self, repo: Path, name: str) -> None:
        """A report that a run left behind is no work: its 3,000 lines raised the risk of the build."""
        write(repo, name, "<testcase/>\n" * 3_000)
        assert changed(read_outgoing(str(repo))).files == (FileChange(name),)

    def test_many_changed_files_are_capped_with_a_notice(self, repo: Path) -> None:
        blob = git(repo, "hash-object", "a.txt")
        entries = "".join(f"100644 {blob}\tu{number}\n" for number in range(FILE_LIMIT + 7))
        subprocess.run(("git", "-C", repo, "update-index", "--index-info"), input=entries, text=True, check=True)
        git(repo, "commit", "-qm", "many, none of them on disk")
        change = changed(read_change(str(repo), LOCAL))
        assert len(change.files) == FILE_LIMIT
        assert change.notice.endswith(f"; {FILE_LIMIT} of {FILE_LIMIT + 7} changed files were read")


class TestWorkTree:
    def test_an_untracked_report_is_no_change_and_a_tracked_one_is(self, clone: Path) -> None:
        head = commit(clone, "b.txt")
        write(clone, "report.xml")
        write(clone, "build/unit/TEST-cart.xml")
        reports = compile_globs(["report.xml", "build/**/TEST-*.xml"], str(clone), str(clone))
        assert len(changed(read_outgoing(str(clone))).files) == 3
        change = changed(read_outgoing(str(clone), is_report=reports))
        assert (change.files, change.commit) == ((FileChange("b.txt", 2, 0),), head)
        git(clone, "add", "report.xml")
        paths = [file.path for file in changed(read_outgoing(str(clone), is_report=reports)).files]
        assert paths == ["b.txt", "report.xml"]

    def test_untracked_links_and_pipes_are_not_opened(self, repo: Path, tmp_path: Path) -> None:
        (repo / "link").symlink_to(write(tmp_path, "secret", "1\n2\n3\n"))
        os.mkfifo(repo / "pipe")
        files = changed(read_outgoing(str(repo))).files
        assert FileChange("link", 0, 0) in files

    def test_a_hook_environment_does_not_lead_elsewhere(
        self, repo: Path, clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commit(clone, "b.txt")
        monkeypatch.setenv("GIT_DIR", str(repo / ".git"))
        monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "none"))
        assert [file.path for file in changed(read_outgoing(str(clone))).files] == ["b.txt"]
