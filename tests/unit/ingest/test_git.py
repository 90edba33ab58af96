"""What a built commit changed, as git tells it; the tests use real repositories."""

import os
import time
from pathlib import Path

import pytest

from fedstep.ingest.ci_vendors import VENDORS
from fedstep.ingest.git import (
    MOST_WORDED,
    last_changes,
    list_files,
    read_change,
    read_outgoing,
    start_change,
    start_outgoing,
)
from fedstep.ingest.git_process import is_partial, repository_root
from fedstep.types import Change, CiRun, FileChange
from tests.helpers.git import LOCAL, changed, commit, git, write

pytestmark = pytest.mark.usefixtures("no_user_configuration")


class TestWords:
    def test_identifiers_of_changed_lines_are_read(self, repo: Path) -> None:
        """Of source files, with the function around; those of tests and documents do not count beside them."""
        commit(repo, "shop/cart.py", "def total(cart):\n    one = 1\n    two = 2\n    return one + two\n")
        for path, text in {"README.md": "prose\n", "tests/test_cart.py": "def test_it(): pass\n"}.items():
            write(repo, path, text)
        write(repo, "shop/cart.py", "def total(cart):\n    one = 1\n    two = rate\n    return one + two\n")
        git(repo, "add", "-A")
        git(repo, "commit", "-qm", "all")
        change = changed(start_change(str(repo), LOCAL, with_words=True)())
        assert change.words == ("def", "total", "cart", "two", "rate")
        assert changed(read_change(str(repo), LOCAL)).words == ()

    def test_words_of_a_change_of_tests_alone_are_those_of_the_tests(self, repo: Path) -> None:
        """Nothing else is known of it. The prefix of paths may be configured away."""
        git(repo, "config", "diff.noprefix", "true")
        commit(repo, "tests/test_cart.py", "def test_it(): pass\n")
        assert "test_it" in changed(start_change(str(repo), LOCAL, with_words=True)()).words

    def test_a_change_before_a_push_has_words_too(self, repo: Path) -> None:
        """Those of the work tree against the last commit."""
        write(repo, "a.txt", "discount rate\n")
        change = changed(start_outgoing(str(repo), with_words=True)())
        assert change.words[-2:] == ("discount", "rate")

    def test_a_slow_caller_takes_no_time_from_git(self, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A long history is read while git runs: what git does afterwards has its whole time."""
        write(repo, "a.txt", "discount\n")
        wait, now = start_outgoing(str(repo)), time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 60.0)
        assert changed(wait()).files == (FileChange("a.txt", 1, 2),)

    def test_a_very_large_change_has_no_words(self, repo: Path) -> None:
        """They would say little about each test."""
        commit(repo, "big.py", "word = 1\n" * (MOST_WORDED + 1))
        assert changed(start_change(str(repo), LOCAL, with_words=True)()).words == ()


class TestComparedCommits:
    def test_a_root_commit_is_compared_with_nothing(self, repo: Path) -> None:
        change = changed(read_change(str(repo), LOCAL))
        assert change.files == (FileChange("a.txt", 2, 0),)
        assert change.base == "nothing: a root commit"
        assert change.commit == git(repo, "rev-parse", "HEAD")
        assert change.tree == git(repo, "rev-parse", "HEAD^{tree}")
        assert change.author == "ada@example.org"
        assert change.notice == ""

    def test_a_commit_is_compared_with_its_first_parent(self, repo: Path) -> None:
        commit(repo, "a.txt", "one\nthree\nfour\n")
        change = changed(read_change(str(repo), LOCAL))
        assert (change.files, change.base) == ((FileChange("a.txt", 2, 1),), "first parent")
        assert change.notice == ""

    def test_push_is_compared_with_the_tip_before_it(self, repo: Path) -> None:
        """A push of several commits is compared with the tip before it."""
        before = git(repo, "rev-parse", "HEAD")
        commit(repo, "b.txt")
        commit(repo, "c.txt")
        change = changed(read_change(str(repo), CiRun(commit_before=before)))
        assert [file.path for file in change.files] == ["b.txt", "c.txt"]
        assert change.base == "commit before the push"

    def test_forced_push_over_an_unknown_tip_uses_the_parent(self, repo: Path) -> None:
        """A forced push over an unknown tip falls back to the parent and says so."""
        commit(repo, "b.txt")
        change = changed(read_change(str(repo), CiRun(commit_before="ab" * 20)))
        assert [file.path for file in change.files] == ["b.txt"]
        assert change.notice.startswith("commit before the push not found, compared with the first parent only")

    def test_pull_request_is_compared_with_the_merge_base(self, repo: Path, tmp_path: Path) -> None:
        """A pull request is compared with the merge base of its target."""
        clone = tmp_path / "clone"
        git(tmp_path, "clone", "-q", str(repo), "clone")
        commit(repo, "later-on-main.txt")
        git(clone, "checkout", "-qb", "topic")
        commit(clone, "b.txt")
        commit(clone, "c.txt")
        git(clone, "fetch", "-q")
        change = changed(read_change(str(clone), CiRun(base_branch="main")))
        assert [file.path for file in change.files] == ["b.txt", "c.txt"]
        assert change.base == "merge-base with origin/main"

    def test_a_fetched_target_is_used_where_no_remote_branch_is_kept(self, repo: Path, tmp_path: Path) -> None:
        git(repo, "checkout", "-qb", "topic")
        commit(repo, "b.txt")
        commit(repo, "c.txt")
        git(tmp_path, "init", "-q", "-b", "work", "clone")
        clone = tmp_path / "clone"
        git(clone, "fetch", "-q", str(repo), "topic")
        git(clone, "checkout", "-q", "--detach", "FETCH_HEAD")
        git(clone, "fetch", "-q", str(repo), "main")
        change = changed(read_change(str(clone), CiRun(base_branch="main")))
        assert [file.path for file in change.files] == ["b.txt", "c.txt"]
        assert change.base == "merge-base with the fetched main"

    def test_merge_commit_of_a_pull_request_needs_one_parent(self, repo: Path) -> None:
        """A merge commit of a pull request needs only its first parent."""
        git(repo, "checkout", "-qb", "topic")
        commit(repo, "b.txt")
        git(repo, "checkout", "-q", "main")
        commit(repo, "m.txt")
        git(repo, "checkout", "-q", "--detach")
        git(repo, "merge", "-q", "--no-ff", "-m", "merge", "topic")
        change = changed(read_change(str(repo), CiRun(base_branch="gone")))
        assert ([file.path for file in change.files], change.base, change.notice) == (["b.txt"], "first parent", "")

    def test_criss_cross_merges_still_give_a_merge_base(self, repo: Path) -> None:
        git(repo, "checkout", "-qb", "topic")
        commit(repo, "b.txt")
        git(repo, "checkout", "-q", "main")
        commit(repo, "m.txt")
        main_tip, topic_tip = git(repo, "rev-parse", "main"), git(repo, "rev-parse", "topic")
        git(repo, "merge", "-q", "--no-ff", "-m", "1", topic_tip)
        git(repo, "checkout", "-q", "topic")
        git(repo, "merge", "-q", "--no-ff", "-m", "2", main_tip)
        commit(repo, "c.txt")
        change = changed(read_change(str(repo), CiRun(base_branch="main")))
        assert change.base == "merge-base with main"
        assert "c.txt" in [file.path for file in change.files]

    @pytest.mark.parametrize(
        ("vendor", "remedy"),
        [
            ("github", "fetch-depth: 0"),
            ("gitlab", "GIT_DEPTH: 0"),
            ("jenkins", "Advanced clone behaviours"),
            ("local", "full"),
        ],
    )
    def test_a_shallow_clone_is_named_with_its_remedy(
        self, repo: Path, tmp_path: Path, vendor: str, remedy: str
    ) -> None:
        commit(repo, "b.txt")
        git(tmp_path, "clone", "-q", "--depth", "1", f"file://{repo}", "shallow")
        change = changed(read_change(str(tmp_path / "shallow"), CiRun(vendor=vendor)))
        assert (change.files, change.base) == ((), "")
        assert change.notice.startswith("shallow clone, the change cannot be seen; ")
        assert remedy in change.notice
        assert change.commit == git(repo, "rev-parse", "HEAD")


class TestWorkTree:
    def test_modified_tracked_files_are_no_evidence_about_the_commit(self, repo: Path) -> None:
        write(repo, "a.txt", "other\n")
        change = changed(read_change(str(repo), LOCAL))
        assert (change.commit, change.tree) == ("", "")
        assert "no evidence" in change.notice

    def test_what_a_build_leaves_untracked_does_not_matter(self, repo: Path) -> None:
        write(repo, "target/report.xml")
        assert changed(read_change(str(repo), LOCAL)).commit != ""


class TestChangedFiles:
    def test_renames_and_binaries_are_told_apart(self, repo: Path) -> None:
        commit(repo, "long.txt", "".join(f"line {n}\n" for n in range(50)))
        git(repo, "mv", "long.txt", "moved.txt")
        write(repo, "pixel.png", b"\x89PNG\0\0\1")
        commit(repo, "z.txt", "")
        files = {file.path: file for file in changed(read_change(str(repo), LOCAL)).files}
        assert files["moved.txt"] == FileChange("moved.txt", 0, 0, "long.txt")
        assert files["pixel.png"] == FileChange("pixel.png", 0, 0)

    def test_odd_paths_are_whole_and_can_be_encoded(self, repo: Path) -> None:
        names = ["tab\there", "line\nbreak", 'quo"te', "žluťoučký.py", " space ", "-dash", "a\tb\tc"]
        for name in names:
            write(repo, name)
        os.close(os.open(os.fsencode(repo) + b"/bad\xff\xfe", os.O_CREAT))
        git(repo, "add", "-A")
        git(repo, "commit", "-qm", "odd")
        paths = {file.path for file in changed(read_change(str(repo), LOCAL)).files}
        assert paths == {*names, "bad\\xff\\xfe"}
        assert all(path.encode("utf-8") for path in paths)

    def test_a_submodule_is_one_file(self, repo: Path, tmp_path: Path) -> None:
        git(tmp_path, "init", "-q", "-b", "main", "library")
        commit(tmp_path / "library", "lib.txt")
        git(repo, "submodule", "--quiet", "add", str(tmp_path / "library"), "vendor/library")
        git(repo, "commit", "-qm", "submodule")
        files = changed(read_change(str(repo), LOCAL)).files
        assert {file.path for file in files} == {".gitmodules", "vendor/library"}
        write(repo, "vendor/library/lib.txt", "dirty inside\n")
        assert changed(read_change(str(repo), LOCAL)).commit != ""
        assert changed(read_change(str(repo / "vendor/library"), LOCAL)).base == "nothing: a root commit"


class TestRepositories:
    def test_a_detached_head_and_a_worktree_are_read_like_any_other(self, repo: Path, tmp_path: Path) -> None:
        head = commit(repo, "b.txt")
        git(repo, "worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
        for folder in (repo, tmp_path / "tree"):
            change = changed(read_change(str(folder), LOCAL))
            assert (change.commit, change.base) == (head, "first parent")
        write(tmp_path / "tree", "new.txt")
        outgoing = changed(read_outgoing(str(tmp_path / "tree")))
        assert (outgoing.files, outgoing.base) == ((FileChange("new.txt", 2, 0),), "merge-base with main")

    def test_a_folder_below_the_root_gives_the_whole_change(self, repo: Path) -> None:
        commit(repo, "sub/b.txt")
        commit(repo, "c.txt")
        assert changed(read_change(str(repo / "sub"), LOCAL)).files == (FileChange("c.txt", 2, 0),)
        assert repository_root(str(repo / "sub")) == str(repo)

    def test_tracked_files_are_listed_with_their_odd_names(self, repo: Path) -> None:
        commit(repo, "ž\n/b.py")
        assert list_files(str(repo)) == ("a.txt", "ž\n/b.py")


def _serve_partial(repo: Path) -> None:
    git(repo, "config", "uploadpack.allowFilter", "true")
    git(repo, "config", "uploadpack.allowAnySHA1InWant", "true")


class TestPartialClones:
    @pytest.mark.parametrize(
        ("ci", "base"),
        [
            (CiRun("github", event="push"), "first parent"),
            (CiRun("github", event="push", commit_before="HEAD~2"), "commit before the push"),
            (CiRun("github", event="pull_request", base_branch="main", commit_before="HEAD~2"), "merge-base with"),
        ],
    )
    def test_names_are_told_without_counts(self, repo: Path, tmp_path: Path, ci: CiRun, base: str) -> None:
        """A clone without the contents of files knows which files changed, and no git process fetches the contents."""
        commit(repo, "b.txt")
        commit(repo, "a.txt", "other\n")
        git(repo, "mv", "b.txt", "c.txt")
        git(repo, "commit", "-qm", "moved")
        git(repo, "checkout", "-q", "--detach")
        _serve_partial(repo)
        clone = tmp_path / "clone"
        git(tmp_path, "clone", "-q", "--filter=blob:none", "--no-checkout", f"file://{repo}", "clone")
        git(clone, "read-tree", "HEAD")
        ci = ci._replace(commit_before=git(repo, "rev-parse", ci.commit_before) if ci.commit_before else "")
        change = changed(read_change(str(clone), ci))
        assert change.base.startswith(base)
        assert {file.path for file in change.files} == ({"c.txt"} if base == "first parent" else {"a.txt", "c.txt"})
        assert sum(file.added + file.deleted for file in change.files) == 0
        assert "partial clone, the changed lines are not counted" in change.notice

    def test_a_clone_without_folders_says_so(self, repo: Path, tmp_path: Path) -> None:
        """A treeless clone cannot compare two commits."""
        commit(repo, "b.txt")
        _serve_partial(repo)
        git(tmp_path, "clone", "-q", "--filter=tree:0", f"file://{repo}", "clone")
        change = read_change(str(tmp_path / "clone"), CiRun("github", event="push"))
        assert not isinstance(change, Change) or "partial clone" in change.notice

    def test_a_whole_clone_is_not_partial(self, repo: Path) -> None:
        """The configuration of a partial clone names its promisor."""
        assert not is_partial(str(repo))
        git(repo, "config", "remote.origin.promisor", "true")
        assert is_partial(str(repo))


class TestStaleRefs:
    def _topic(self, repo: Path) -> Path:
        git(repo, "checkout", "-qb", "topic")
        commit(repo, "b.txt")
        return repo

    def test_the_newest_base_of_a_pull_request_is_used(self, repo: Path) -> None:
        """A remote branch that was not fetched since is older than the base that the CI names."""
        old = git(repo, "rev-parse", "HEAD")
        commit(repo, "main-2.txt")
        newer = git(repo, "rev-parse", "HEAD")
        git(self._topic(repo), "update-ref", "refs/remotes/origin/main", old)
        change = changed(read_change(str(repo), CiRun(event="pull_request", base_branch="main", commit_before=newer)))
        assert [file.path for file in change.files] == ["b.txt"]
        assert (change.base, change.notice) == ("merge-base with main", "")

    def test_a_remote_branch_left_by_a_forced_push_is_harmless(self, repo: Path) -> None:
        """The commits that the forced push removed are no part of the change."""
        old = git(repo, "rev-parse", "HEAD")
        git(repo, "checkout", "-qb", "abandoned")
        commit(repo, "abandoned.txt")
        git(repo, "update-ref", "refs/remotes/origin/main", "HEAD")
        git(repo, "checkout", "-q", "main")
        commit(repo, "main-2.txt")
        newer = git(repo, "rev-parse", "HEAD")
        ci = CiRun(event="pull_request", base_branch="main", commit_before=newer)
        assert [file.path for file in changed(read_change(str(self._topic(repo)), ci)).files] == ["b.txt"]
        assert old != newer

    def test_a_topic_that_was_merged_since_keeps_its_change(self, repo: Path) -> None:
        """A job that runs again after the merge finds its commit in the target."""
        old = git(repo, "rev-parse", "HEAD")
        git(self._topic(repo), "update-ref", "refs/remotes/origin/main", "HEAD")
        change = changed(read_change(str(repo), CiRun(event="pull_request", base_branch="main", commit_before=old)))
        assert [file.path for file in change.files] == ["b.txt"]

    def test_a_newer_remote_branch_outranks_an_old_base_of_the_ci(self, repo: Path) -> None:
        """A payload names the base of the time of its event; a topic that was rebased has a newer one."""
        old = git(repo, "rev-parse", "HEAD")
        commit(repo, "main-2.txt")
        git(repo, "update-ref", "refs/remotes/origin/main", "HEAD")
        ci = CiRun(event="pull_request", base_branch="main", commit_before=old)
        assert [file.path for file in changed(read_change(str(self._topic(repo)), ci)).files] == ["b.txt"]


class TestEvents:
    def test_a_merge_queue_is_compared_with_its_base(self, repo: Path) -> None:
        """Several pull requests are built at once."""
        before = git(repo, "rev-parse", "HEAD")
        commit(repo, "b.txt")
        commit(repo, "c.txt")
        change = changed(read_change(str(repo), CiRun("github", event="other", commit_before=before)))
        assert [file.path for file in change.files] == ["b.txt", "c.txt"]
        assert (change.base, change.notice) == ("the CI's base commit", "")

    @pytest.mark.parametrize("event", ["tag", "schedule", "manual"])
    def test_an_event_without_a_base_uses_the_parent(self, repo: Path, event: str) -> None:
        """Nothing else is known, and nothing is missing."""
        commit(repo, "b.txt")
        change = changed(read_change(str(repo), CiRun("github", event=event)))
        assert ([file.path for file in change.files], change.base, change.notice) == (["b.txt"], "first parent", "")

    @pytest.mark.parametrize(
        ("vendor", "event", "advice"),
        [("github", "pull_request", "fetch-depth: 2"), ("github", "push", "fetch-depth: 0")]
        + [(vendor.name, "push", vendor.deeper) for vendor in VENDORS],
    )
    def test_a_shallow_merge_says_what_is_enough(
        self, repo: Path, tmp_path: Path, vendor: str, event: str, advice: str
    ) -> None:
        """The merge commit of a pull request needs its first parent only."""
        git(repo, "checkout", "-qb", "topic")
        commit(repo, "b.txt")
        git(repo, "checkout", "-q", "main")
        git(repo, "merge", "-q", "--no-ff", "-m", "merge", "topic")
        git(tmp_path, "clone", "-q", "--depth=1", f"file://{repo}", "clone")
        ci = CiRun(vendor, event=event, base_branch="gone" if event == "pull_request" else "")
        notice = changed(read_change(str(tmp_path / "clone"), ci)).notice
        assert notice == f"shallow clone, the change cannot be seen; {advice}" or advice in notice
        if event == "pull_request":
            git(tmp_path, "clone", "-q", "--depth=2", f"file://{repo}", "deeper")
            deeper = changed(read_change(str(tmp_path / "deeper"), ci))
            assert ([file.path for file in deeper.files], deeper.notice) == (["b.txt"], "")


class TestLastChanges:
    def test_files_that_git_knows_have_author_and_commit(self, repo: Path) -> None:
        commit(repo, "b.txt")
        touched = last_changes(str(repo), ("b.txt", "b.txt", "", "nowhere.txt", "../outside.txt"))
        assert list(touched) == ["b.txt"]
        assert touched["b.txt"].endswith(f"ago ({git(repo, 'rev-parse', '--short', 'HEAD')})")
