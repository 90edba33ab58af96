"""Git is read without running, writing or fetching anything, in few processes, and whatever it answers."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.ingest import git_process
from fedstep.ingest.git import (
    list_files,
    parse_numstat,
    parse_objects,
    parse_status,
    read_change,
    read_outgoing,
    start_outgoing,
)
from fedstep.ingest.git_process import GitResult, Run, run_git
from fedstep.types import CiRun, Unavailable
from tests.helpers.git import LOCAL, changed, commit, git, write

pytestmark = pytest.mark.usefixtures("no_user_configuration")


def counting(calls: list[tuple[str, ...]]) -> Run:
    def run(root: str, arguments: tuple[str, ...], stdin: bytes, seconds: float) -> Callable[[], GitResult]:
        calls.append(arguments)
        return run_git(root, arguments, stdin, seconds)

    return run


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


class TestProcesses:
    # --- few processes, nothing run, nothing written
    def test_the_common_cases_take_three_processes(self, clone: Path) -> None:
        commit(clone, "b.txt")
        calls: list[tuple[str, ...]] = []
        collect = start_outgoing(str(clone), counting(calls))
        assert len(calls) == 3
        changed(collect())
        assert len(calls) == 3
        calls.clear()
        changed(read_change(str(clone), LOCAL, counting(calls)))
        assert len(calls) == 3

    def test_a_clean_default_branch_takes_two_processes(self, repo: Path) -> None:
        """It has no upstream to compare with, and is its own merge-base: git is asked for no difference."""
        calls: list[tuple[str, ...]] = []
        change = changed(read_outgoing(str(repo), counting(calls)))
        assert len(calls) == 2
        assert (change.files, change.base) == ((), "merge-base with main")
        git(repo, "mv", "a.txt", "b.txt")
        moved = changed(read_outgoing(str(repo)))
        assert ([file.path for file in moved.files], moved.base) == (["b.txt"], "merge-base with main")

    def test_nothing_in_the_repository_runs_and_nothing_is_written(self, repo: Path, tmp_path: Path) -> None:
        bell = tmp_path / "bell"
        script = write(tmp_path, "evil.sh", f"#!/bin/sh\ntouch {bell}\ncat\n")
        script.chmod(0o755)
        commit(repo, "b.txt")
        for key in (
            "core.fsmonitor",
            "diff.external",
            "core.pager",
            "diff.x.command",
            "diff.x.textconv",
            "gpg.program",
        ):
            git(repo, "config", key, str(script))
        for key in ("core.sshCommand", "core.editor", "credential.helper"):
            git(repo, "config", key, str(script))
        git(repo, "config", "log.showSignature", "true")
        for hook in ("post-index-change", "fsmonitor-watchman", "reference-transaction"):
            write(repo, f".git/hooks/{hook}", script.read_bytes()).chmod(0o755)
        write(repo, ".gitattributes", "*.txt diff=x\n")
        bell.unlink(missing_ok=True)
        write(repo, "a.txt", "other\n")
        os.utime(repo / "b.txt", (1, 1))  # a stale index entry that git would like to refresh
        before = snapshot(repo)
        changed(read_change(str(repo), CiRun(base_branch="main")))
        outgoing = changed(read_outgoing(str(repo)))
        assert [file.path for file in outgoing.files] == ["a.txt", ".gitattributes"], "a stale entry is no change"
        list_files(str(repo))
        assert not bell.exists()
        assert snapshot(repo) == before
        subprocess.run(["git", "status"], cwd=repo, capture_output=True, check=False)
        assert bell.exists(), "the trap itself works: plain git runs the script"

    def test_a_partial_clone_fetches_nothing(self, repo: Path, tmp_path: Path) -> None:
        commit(repo, "b.txt")
        git(repo, "config", "uploadpack.allowFilter", "true")
        git(tmp_path, "clone", "-q", "--no-checkout", "--filter=blob:none", f"file://{repo}", "partial")
        before = set(snapshot(tmp_path / "partial"))
        read_change(str(tmp_path / "partial"), LOCAL)
        assert set(snapshot(tmp_path / "partial")) == before

    @pytest.mark.slow
    @pytest.mark.skipif(sys.platform != "linux", reason="no other system limits the memory of a child")
    @pytest.mark.parametrize("file", ["info/attributes", "info/grafts", "objects/info/alternates"])
    def test_file_of_git_without_an_end_takes_no_more(
        self, repo: Path, file: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A link to /dev/zero: git took 3.6 GB in its five seconds. Here it has more: a machine may be slow."""
        monkeypatch.setattr(git_process, "SECONDS_EACH", 60.0)
        monkeypatch.setattr(git_process, "SECONDS_TOTAL", 120.0)
        commit(repo, "b.txt")
        path = repo / ".git" / file
        path.unlink(missing_ok=True)
        path.symlink_to("/dev/zero")
        os.utime(repo / "b.txt", (1, 1))  # else git reads no attributes where the file is older than the index
        change = read_change(str(repo), LOCAL)
        assert isinstance(change, Unavailable)
        assert "Out of memory" in change.reason

    @pytest.mark.parametrize("parent", ["compared with the first parent only", "the change cannot be seen"])
    def test_a_comparison_that_git_gives_up_is_named(self, clone: Path, parent: str) -> None:
        """The base was found, so that fetching it, as advised for a missing one, would change nothing."""
        git(clone, "checkout", "-q", "-b", "topic")
        commit(clone, "b.txt")
        commit(clone, "c.txt")
        base = git(clone, "rev-parse", "origin/main").strip()
        given_up = {base} if "first parent" in parent else {base, git(clone, "rev-parse", "HEAD^1").strip()}

        def run(root: str, arguments: tuple[str, ...], stdin: bytes, seconds: float) -> Callable[[], GitResult]:
            if arguments[0] == "diff" and given_up & {*arguments}:
                return lambda: GitResult(128, b"", "fatal: Out of memory, malloc failed")
            return run_git(root, arguments, stdin, seconds)

        change = changed(read_change(str(clone), CiRun(base_branch="main"), run))
        assert change.notice == f"git failed: fatal: Out of memory, malloc failed, {parent}"

    def test_a_comparison_before_a_push_that_git_gives_up_is_named(self, repo: Path) -> None:
        """The first comparison, with an upstream that there is not, failed for another reason."""
        write(repo, "a.txt", "other\n")

        def run(root: str, arguments: tuple[str, ...], stdin: bytes, seconds: float) -> Callable[[], GitResult]:
            if arguments[0] == "diff":
                return lambda: GitResult(128, b"", "fatal: Out of memory, malloc failed")
            return run_git(root, arguments, stdin, seconds)

        assert read_outgoing(str(repo), run) == Unavailable("git failed: fatal: Out of memory, malloc failed")

    def test_commit_of_any_length_is_not_kept_in_memory(self, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A gigabyte of a message is a megabyte in a pack."""
        commit(repo, "b.txt")
        monkeypatch.setattr(git_process, "_MOST_OUTPUT", 1 << 20)
        git(repo, "commit", "-q", "--allow-empty", "-F", str(write(repo.parent, "long", "a" * (2 << 20))))
        ran = run_git(str(repo), ("cat-file", "commit", "HEAD"))()
        assert (ran.code, ran.out, "larger than 1 MB" in ran.err) == (128, b"", True)


def answering(ran: GitResult) -> Run:
    return lambda *_: lambda: ran


class TestRefusals:
    def test_a_hostile_branch_name_is_no_option_and_no_command(self, repo: Path) -> None:
        commit(repo, "b.txt")
        for name in ("--output=/tmp/x", "main\nHEAD", "a b", "$(touch x)", "\0", "x" * 10_000, "\udcff"):
            change = changed(read_change(str(repo), CiRun(base_branch=name, commit_before="--help")))
            assert change.base == "first parent"

    # --- git that does not answer
    def test_no_git_no_repository_and_a_bare_one_are_absent(
        self, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "plain").mkdir()
        git(tmp_path, "init", "-q", "--bare", "bare")
        for folder in (tmp_path / "plain", tmp_path / "bare", tmp_path / "missing"):
            assert read_change(str(folder), LOCAL) == Unavailable("not a git work tree")
            assert read_outgoing(str(folder)) == Unavailable("not a git work tree")
        monkeypatch.setenv("PATH", str(tmp_path / "plain"))
        for found in (read_change(str(repo), LOCAL), read_outgoing(str(repo)), list_files(str(repo))):
            assert found == Unavailable("git is not installed or not on the PATH")

    @pytest.mark.parametrize(
        ("err", "remedy"),
        [
            ("fatal: detected dubious ownership in repository at '/x'", "git config --global --add safe.directory '"),
            ("fatal: unsafe repository ('/x' is owned by someone else)", "git config --global --add safe.directory '"),
            ("fatal: not a git repository: (null)", "not a git work tree"),
            (
                "fatal: bad config line 1 in file .git/config",
                "git failed: fatal: bad config line 1 in file .git/config",
            ),
            ("", "git failed: exit code 128"),
            (  # git before 2.15, and how to call it behind
                "Unknown option: --no-optional-locks\nusage: git [--version]\n           <command> [<args>]",
                "git is too old (Unknown option: --no-optional-locks): 2.29 or newer is needed, run: git --version",
            ),
        ],
    )
    def test_a_refusal_says_what_to_do(self, repo: Path, err: str, remedy: str) -> None:
        for found in (
            read_change(str(repo), LOCAL, answering(GitResult(128, b"", err))),
            read_outgoing(str(repo), answering(GitResult(128, b"", err))),
        ):
            assert isinstance(found, Unavailable)
            assert remedy in found.reason

    def test_a_git_of_another_owner_is_refused_with_the_remedy(
        self, repo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
        found = read_outgoing(str(repo))
        assert isinstance(found, Unavailable)
        assert found.reason.endswith(f"safe.directory '{repo}'")

    def test_a_git_that_hangs_is_given_up(self, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, "bin/git", "#!/bin/sh\nexec sleep 60\n").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        assert run_git(str(repo), ("status",), b"HEAD\n", 0.1)().err == "timeout"
        found = read_change(str(repo), LOCAL, lambda root, args, stdin, _: run_git(root, args, stdin, 0.1))
        assert found == Unavailable("git did not answer within 5 s")


class TestAnswers:
    # --- bytes
    @given(st.binary(max_size=200))
    def test_no_bytes_break_the_parsers(self, out: bytes) -> None:
        for file in parse_numstat(out):
            assert file.added >= 0
            assert file.path.encode("utf-8") is not None
        parse_status(out)
        parse_objects(("HEAD", "HEAD^1"), out)

    def test_missing_objects_do_not_shift_the_others(self) -> None:
        body = b"tree aa\nparent bb\nauthor A <a@b> 1 +0000\n\nmessage"
        out = b"x missing\nab12 commit %d\n%s\ny ambiguous\n" % (len(body), body)
        found = parse_objects(("x", "HEAD", "y", "unanswered"), out)
        assert list(found) == ["HEAD"]
        assert found["HEAD"] == ("ab12", "aa", "a@b", 1)
