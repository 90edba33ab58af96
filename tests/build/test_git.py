"""Git is read without running, writing or fetching anything; most of these tests use real repositories."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.build.git import FILE_LIMIT, list_files, read_change, read_outgoing, repository_root, start_outgoing
from fedstep.build.gitparse import parse_numstat, parse_objects, parse_status
from fedstep.build.gitrun import Ran, Run, run_git
from fedstep.build.record import Absent, Change, CiRun, FileChange

LOCAL = CiRun()


@pytest.fixture(autouse=True)
def no_user_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "no-such-config"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


def git(folder: Path, *arguments: str) -> str:
    command = ("git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "protocol.file.allow=always")
    return subprocess.run((*command, *arguments), cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def write(folder: Path, name: str, text: str | bytes = "one\ntwo\n") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def commit(folder: Path, name: str, text: str | bytes = "one\ntwo\n") -> str:
    write(folder, name, text)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", name)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    commit(folder, "a.txt")
    return folder


def changed(found: Change | Absent) -> Change:
    assert isinstance(found, Change), found
    return found


def counting(calls: list[tuple[str, ...]]) -> Run:
    def run(root: str, arguments: tuple[str, ...], stdin: bytes, seconds: float) -> Callable[[], Ran]:
        calls.append(arguments)
        return run_git(root, arguments, stdin, seconds)

    return run


# --- the commit that was built


def test_a_root_commit_is_compared_with_nothing(repo: Path) -> None:
    change = changed(read_change(str(repo), LOCAL))
    assert change.files == (FileChange("a.txt", 2, 0),)
    assert change.base == "nothing: a root commit"
    assert change.commit == git(repo, "rev-parse", "HEAD")
    assert change.tree == git(repo, "rev-parse", "HEAD^{tree}")
    assert change.author == "ada@example.org"
    assert change.notice == ""


def test_a_commit_is_compared_with_its_first_parent(repo: Path) -> None:
    commit(repo, "a.txt", "one\nthree\nfour\n")
    change = changed(read_change(str(repo), LOCAL))
    assert (change.files, change.base) == ((FileChange("a.txt", 2, 1),), "first parent")
    assert change.notice == ""


def test_a_push_of_several_commits_is_compared_with_the_tip_before_it(repo: Path) -> None:
    before = git(repo, "rev-parse", "HEAD")
    commit(repo, "b.txt")
    commit(repo, "c.txt")
    change = changed(read_change(str(repo), CiRun(commit_before=before)))
    assert [file.path for file in change.files] == ["b.txt", "c.txt"]
    assert change.base == "commit before the push"


def test_a_forced_push_over_an_unknown_tip_falls_back_to_the_parent_and_says_so(repo: Path) -> None:
    commit(repo, "b.txt")
    change = changed(read_change(str(repo), CiRun(commit_before="ab" * 20)))
    assert [file.path for file in change.files] == ["b.txt"]
    assert change.notice.startswith("commit before the push not found, compared with the first parent only")


def test_a_pull_request_is_compared_with_the_merge_base_of_its_target(repo: Path, tmp_path: Path) -> None:
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


def test_a_fetched_target_is_used_where_no_remote_branch_is_kept(repo: Path, tmp_path: Path) -> None:
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


def test_a_merge_commit_of_a_pull_request_needs_only_its_first_parent(repo: Path) -> None:
    git(repo, "checkout", "-qb", "topic")
    commit(repo, "b.txt")
    git(repo, "checkout", "-q", "main")
    commit(repo, "m.txt")
    git(repo, "checkout", "-q", "--detach")
    git(repo, "merge", "-q", "--no-ff", "-m", "merge", "topic")
    change = changed(read_change(str(repo), CiRun(base_branch="gone")))
    assert ([file.path for file in change.files], change.base, change.notice) == (["b.txt"], "first parent", "")


def test_criss_cross_merges_still_give_a_merge_base(repo: Path) -> None:
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
def test_a_shallow_clone_is_named_with_its_remedy(repo: Path, tmp_path: Path, vendor: str, remedy: str) -> None:
    commit(repo, "b.txt")
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{repo}", "shallow")
    change = changed(read_change(str(tmp_path / "shallow"), CiRun(vendor=vendor)))
    assert (change.files, change.base) == ((), "")
    assert change.notice.startswith("shallow clone, the change cannot be seen; ")
    assert remedy in change.notice
    assert change.commit == git(repo, "rev-parse", "HEAD")


def test_modified_tracked_files_are_no_evidence_about_the_commit(repo: Path) -> None:
    write(repo, "a.txt", "other\n")
    change = changed(read_change(str(repo), LOCAL))
    assert (change.commit, change.tree) == ("", "")
    assert "no evidence" in change.notice


def test_what_a_build_leaves_untracked_does_not_matter(repo: Path) -> None:
    write(repo, "target/report.xml")
    assert changed(read_change(str(repo), LOCAL)).commit != ""


def test_renames_and_binaries_are_told_apart(repo: Path) -> None:
    commit(repo, "long.txt", "".join(f"line {n}\n" for n in range(50)))
    git(repo, "mv", "long.txt", "moved.txt")
    write(repo, "pixel.png", b"\x89PNG\0\0\1")
    commit(repo, "z.txt", "")
    files = {file.path: file for file in changed(read_change(str(repo), LOCAL)).files}
    assert files["moved.txt"] == FileChange("moved.txt", 0, 0, "long.txt")
    assert files["pixel.png"] == FileChange("pixel.png", 0, 0)


def test_odd_paths_are_whole_and_can_be_encoded(repo: Path) -> None:
    names = ["tab\there", "line\nbreak", 'quo"te', "žluťoučký.py", " space ", "-dash", "a\tb\tc"]
    for name in names:
        write(repo, name)
    os.close(os.open(os.fsencode(repo) + b"/bad\xff\xfe", os.O_CREAT))
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", "odd")
    paths = {file.path for file in changed(read_change(str(repo), LOCAL)).files}
    assert paths == {*names, "bad\\xff\\xfe"}
    assert all(path.encode("utf-8") for path in paths)


def test_a_submodule_is_one_file(repo: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main", "library")
    commit(tmp_path / "library", "lib.txt")
    git(repo, "submodule", "--quiet", "add", str(tmp_path / "library"), "vendor/library")
    git(repo, "commit", "-qm", "submodule")
    files = changed(read_change(str(repo), LOCAL)).files
    assert {file.path for file in files} == {".gitmodules", "vendor/library"}
    write(repo, "vendor/library/lib.txt", "dirty inside\n")
    assert changed(read_change(str(repo), LOCAL)).commit != ""
    assert changed(read_change(str(repo / "vendor/library"), LOCAL)).base == "nothing: a root commit"


def test_a_detached_head_and_a_worktree_are_read_like_any_other(repo: Path, tmp_path: Path) -> None:
    head = commit(repo, "b.txt")
    git(repo, "worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
    for folder in (repo, tmp_path / "tree"):
        change = changed(read_change(str(folder), LOCAL))
        assert (change.commit, change.base) == (head, "first parent")
    write(tmp_path / "tree", "new.txt")
    outgoing = changed(read_outgoing(str(tmp_path / "tree")))
    assert (outgoing.files, outgoing.base) == ((FileChange("new.txt", 2, 0),), "merge-base with main")


def test_a_folder_below_the_root_gives_the_whole_change(repo: Path) -> None:
    commit(repo, "sub/b.txt")
    commit(repo, "c.txt")
    assert changed(read_change(str(repo / "sub"), LOCAL)).files == (FileChange("c.txt", 2, 0),)
    assert repository_root(str(repo / "sub")) == str(repo)


# --- what is about to be pushed


@pytest.fixture
def clone(repo: Path, tmp_path: Path) -> Path:
    git(tmp_path, "clone", "-q", str(repo), "clone")
    return tmp_path / "clone"


def test_outgoing_is_everything_since_the_upstream(clone: Path) -> None:
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


def test_a_clean_work_tree_is_the_commit_that_will_be_built(clone: Path) -> None:
    head = commit(clone, "b.txt")
    change = changed(read_outgoing(str(clone)))
    assert (change.commit, change.tree) == (head, git(clone, "rev-parse", "HEAD^{tree}"))
    assert change.files == (FileChange("b.txt", 2, 0),)


def test_a_new_branch_is_compared_with_the_default_branch(clone: Path) -> None:
    git(clone, "checkout", "-qb", "topic", "--no-track")
    commit(clone, "b.txt")
    change = changed(read_outgoing(str(clone)))
    assert ([file.path for file in change.files], change.base) == (["b.txt"], "merge-base with origin/HEAD")


def test_without_a_default_branch_the_work_tree_is_compared_with_head(repo: Path) -> None:
    git(repo, "branch", "-qm", "main", "trunk")
    write(repo, "a.txt", "one\n")
    change = changed(read_outgoing(str(repo)))
    assert (change.files, change.base) == ((FileChange("a.txt", 0, 1),), "HEAD")


def test_a_repository_without_commits_has_an_outgoing_change_and_no_built_one(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    write(tmp_path, "staged.txt")
    git(tmp_path, "add", "staged.txt")
    change = changed(read_outgoing(str(tmp_path)))
    assert (change.files, change.base) == ((FileChange("staged.txt", 2, 0),), "nothing: no commit yet")
    assert read_change(str(tmp_path), LOCAL) == Absent("the repository has no commit yet")


def test_many_untracked_files_are_capped_with_a_notice(repo: Path) -> None:
    for number in range(FILE_LIMIT + 7):
        (repo / f"u{number}").touch()
    change = changed(read_outgoing(str(repo)))
    assert len(change.files) == FILE_LIMIT
    assert change.notice == "7 untracked files left out"


def test_many_changed_files_are_capped_with_a_notice(repo: Path) -> None:
    blob = git(repo, "hash-object", "a.txt")
    entries = "".join(f"100644 {blob}\tu{number}\n" for number in range(FILE_LIMIT + 7))
    subprocess.run(("git", "-C", repo, "update-index", "--index-info"), input=entries, text=True, check=True)
    git(repo, "commit", "-qm", "many, none of them on disk")
    change = changed(read_change(str(repo), LOCAL))
    assert len(change.files) == FILE_LIMIT
    assert change.notice.endswith(f"; {FILE_LIMIT} of {FILE_LIMIT + 7} changed files were read")


def test_untracked_links_and_pipes_are_not_opened(repo: Path, tmp_path: Path) -> None:
    (repo / "link").symlink_to(write(tmp_path, "secret", "1\n2\n3\n"))
    os.mkfifo(repo / "pipe")
    files = changed(read_outgoing(str(repo))).files
    assert FileChange("link", 0, 0) in files


def test_a_hook_environment_does_not_lead_elsewhere(
    repo: Path, clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(clone, "b.txt")
    monkeypatch.setenv("GIT_DIR", str(repo / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "none"))
    assert [file.path for file in changed(read_outgoing(str(clone))).files] == ["b.txt"]


# --- few processes, nothing run, nothing written


def test_the_common_cases_take_three_processes(clone: Path) -> None:
    commit(clone, "b.txt")
    calls: list[tuple[str, ...]] = []
    collect = start_outgoing(str(clone), counting(calls))
    assert len(calls) == 3
    changed(collect())
    assert len(calls) == 3
    calls.clear()
    changed(read_change(str(clone), LOCAL, counting(calls)))
    assert len(calls) == 3


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_nothing_in_the_repository_runs_and_nothing_is_written(repo: Path, tmp_path: Path) -> None:
    bell = tmp_path / "bell"
    script = write(tmp_path, "evil.sh", f"#!/bin/sh\ntouch {bell}\ncat\n")
    script.chmod(0o755)
    commit(repo, "b.txt")
    for key in ("core.fsmonitor", "diff.external", "core.pager", "diff.x.command", "diff.x.textconv", "gpg.program"):
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


def test_a_partial_clone_fetches_nothing(repo: Path, tmp_path: Path) -> None:
    commit(repo, "b.txt")
    git(repo, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--no-checkout", "--filter=blob:none", f"file://{repo}", "partial")
    before = set(snapshot(tmp_path / "partial"))
    read_change(str(tmp_path / "partial"), LOCAL)
    assert set(snapshot(tmp_path / "partial")) == before


def test_a_hostile_branch_name_is_no_option_and_no_command(repo: Path) -> None:
    commit(repo, "b.txt")
    for name in ("--output=/tmp/x", "main\nHEAD", "a b", "$(touch x)", "\0", "x" * 10_000, "\udcff"):
        change = changed(read_change(str(repo), CiRun(base_branch=name, commit_before="--help")))
        assert change.base == "first parent"


# --- git that does not answer


def test_no_git_no_repository_and_a_bare_one_are_absent(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain").mkdir()
    git(tmp_path, "init", "-q", "--bare", "bare")
    for folder in (tmp_path / "plain", tmp_path / "bare", tmp_path / "missing"):
        assert read_change(str(folder), LOCAL) == Absent("not a git work tree")
        assert read_outgoing(str(folder)) == Absent("not a git work tree")
    monkeypatch.setenv("PATH", str(tmp_path / "plain"))
    for found in (read_change(str(repo), LOCAL), read_outgoing(str(repo)), list_files(str(repo))):
        assert found == Absent("git is not installed or not on the PATH")


def answering(ran: Ran) -> Run:
    return lambda *_: lambda: ran


@pytest.mark.parametrize(
    ("err", "remedy"),
    [
        ("fatal: detected dubious ownership in repository at '/x'", "git config --global --add safe.directory '"),
        ("fatal: unsafe repository ('/x' is owned by someone else)", "git config --global --add safe.directory '"),
        ("fatal: not a git repository: (null)", "not a git work tree"),
        ("fatal: bad config line 1 in file .git/config", "git failed: fatal: bad config line 1 in file .git/config"),
        ("", "git failed: exit code 128"),
    ],
)
def test_a_refusal_says_what_to_do(repo: Path, err: str, remedy: str) -> None:
    for found in (
        read_change(str(repo), LOCAL, answering(Ran(128, b"", err))),
        read_outgoing(str(repo), answering(Ran(128, b"", err))),
    ):
        assert isinstance(found, Absent)
        assert remedy in found.reason


def test_a_git_of_another_owner_is_refused_with_the_remedy(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    found = read_outgoing(str(repo))
    assert isinstance(found, Absent)
    assert found.reason.endswith(f"safe.directory '{repo}'")


def test_a_git_that_hangs_is_given_up(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "bin/git", "#!/bin/sh\nexec sleep 60\n").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert run_git(str(repo), ("status",), b"HEAD\n", 0.1)().err == "timeout"
    found = read_change(str(repo), LOCAL, lambda root, args, stdin, _: run_git(root, args, stdin, 0.1))
    assert found == Absent("git did not answer within 5 s")


# --- bytes


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parsers(out: bytes) -> None:
    for file in parse_numstat(out):
        assert file.added >= 0
        assert file.path.encode("utf-8") is not None
    parse_status(out)
    parse_objects(("HEAD", "HEAD^1"), out)


def test_missing_objects_do_not_shift_the_others() -> None:
    body = b"tree aa\nparent bb\nauthor A <a@b> 1 +0000\n\nmessage"
    out = b"x missing\nab12 commit %d\n%s\ny ambiguous\n" % (len(body), body)
    found = parse_objects(("x", "HEAD", "y", "unanswered"), out)
    assert list(found) == ["HEAD"]
    assert found["HEAD"] == ("ab12", "aa", "a@b", 1)


def test_tracked_files_are_listed_with_their_odd_names(repo: Path) -> None:
    commit(repo, "ž\n/b.py")
    assert list_files(str(repo)) == ("a.txt", "ž\n/b.py")
