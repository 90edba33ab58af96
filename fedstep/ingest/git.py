"""Read from git what changed: in the commit that is built (`read_change`), and before a push (`read_outgoing`)."""

import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple, TypeAlias

from fedstep.ingest.change_impact import file_kind
from fedstep.ingest.ci_vendors import clone_advice
from fedstep.ingest.git_process import (
    GitResult,
    GitRunner,
    Run,
    explain_failure,
    fetched_commit,
    is_partial,
    is_shallow,
    may_have_upstream,
    repository_root,
    run_git,
)
from fedstep.types import Change, CiRun, FileChange, Unavailable

MOST_TOUCHED = 10  # files whose last change is looked up


class Commit(NamedTuple):
    """A commit object; `parents` is the number that it names, also where a shallow clone does not have them."""

    oid: str
    tree: str
    author: str  # e-mail
    parents: int


class Status(NamedTuple):
    """The state of the work tree."""

    modified: bool  # tracked files differ from HEAD
    untracked: tuple[str, ...]
    upstream: bool  # the branch has one


def parse_numstat(out: bytes) -> tuple[FileChange, ...]:
    r"""Return the files of `git diff --numstat -z`; other lines are ignored.

    >>> parse_numstat(b"3\t1\ta.py\x00-\t-\t\x00old.png\x00new.png\x00")[1]
    FileChange(path='new.png', added=0, deleted=0, renamed_from='old.png')
    """
    fields = iter(out.split(b"\0"))
    changes = []
    for field in fields:
        added, _, rest = field.partition(b"\t")
        deleted, tab, path = rest.partition(b"\t")
        if not tab:
            continue
        before, after = (b"", path) if path else (next(fields, b""), next(fields, b""))
        changes.append(FileChange(_name(after), _lines(added), _lines(deleted), _name(before)))
    return tuple(changes)


def parse_raw(out: bytes) -> tuple[FileChange, ...]:
    r"""Return the files of `git diff --raw -z`, without counts of lines.

    >>> parse_raw(b":100644 100644 1a 2b M\x00a.py\x00:100644 100644 1a 1a R100\x00old\x00new\x00")[1]
    FileChange(path='new', added=0, deleted=0, renamed_from='old')
    """
    fields = iter(out.split(b"\0"))
    changes = []
    for field in fields:
        if not field.startswith(b":"):
            continue
        path = next(fields, b"")
        if field.rpartition(b" ")[2][:1] in (b"R", b"C"):
            changes.append(FileChange(_name(next(fields, b"")), renamed_from=_name(path)))
        else:
            changes.append(FileChange(_name(path)))
    return tuple(changes)


def parse_words(out: bytes) -> tuple[str, ...]:
    r"""Return the identifiers of the changed lines of `git diff -U0`, and of the functions around them, each once.

    Those of tests and documents do not count where other files changed.

    >>> parse_words(b"diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@ def pay(cart):\n-  total = 1\n")
    ('def', 'pay', 'cart', 'total')
    """
    words: dict[bool, dict[str, None]] = {True: {}, False: {}}
    beside, in_header = False, True
    for line in out.decode("utf-8", "replace").split("\n"):
        if line.startswith("diff --git "):
            beside, in_header = file_kind(line.rpartition(" b/")[2].strip('"')) in ("test", "docs"), True
        elif line.startswith("@@ "):
            in_header, line = False, line.split("@@", 2)[-1]
        elif in_header or line[:1] not in ("+", "-"):
            continue
        if not in_header:
            words[beside].update(dict.fromkeys(_IDENTIFIER.findall(line[:_LONGEST_LINE])))
    return tuple(words[False] or words[True])[:MOST_WORDS]


def parse_status(out: bytes) -> Status:
    """Parse the output of `git status --porcelain=v2 -z --branch --no-renames`."""
    entries = out.split(b"\0")
    untracked = tuple(_name(entry[2:]) for entry in entries if entry.startswith(b"? "))
    modified = any(entry[:2] in (b"1 ", b"2 ", b"u ") for entry in entries)
    return Status(modified, untracked, any(entry.startswith(b"# branch.ab ") for entry in entries))


def parse_objects(revisions: Sequence[str], out: bytes) -> dict[str, Commit]:
    """Return the commit of each revision, from the output of `git cat-file --batch`, which is in the same order."""
    commits, at = {}, 0
    for name in revisions:
        end = out.find(b"\n", at)
        if end < 0:
            break
        header, at = out[at:end].split(b" "), end + 1
        if len(header) != 3 or not header[2].isdigit():
            continue
        size = int(header[2])
        if header[1] == b"commit":
            commits[name] = _commit(header[0], out[at : at + size])
        at += size + 1
    return commits


def parse_names(out: bytes) -> tuple[str, ...]:
    """Return the paths of a list that `-z` separates."""
    return tuple(_name(name) for name in out.split(b"\0") if name)


def _commit(oid: bytes, body: bytes) -> Commit:
    head = body.partition(b"\n\n")[0].split(b"\n")
    tree = next((line[5:] for line in head if line.startswith(b"tree ")), b"")
    author = next((line for line in head if line.startswith(b"author ")), b"")
    email = author.rpartition(b"<")[2].partition(b">")[0]
    return Commit(_name(oid), _name(tree), _name(email), sum(line.startswith(b"parent ") for line in head))


def _name(raw: bytes) -> str:
    # A path is bytes to git. Escaped, not replaced, so that two undecodable paths stay different and can be encoded.
    return raw.decode("utf-8", "backslashreplace")


def _lines(count: bytes) -> int:
    return int(count) if count.isdigit() and len(count) < 12 else 0  # "-": a binary file


_IDENTIFIER = re.compile(r"[^\W\d]\w{2,59}")
_LONGEST_LINE = 1_000  # characters; a longer one is no source
MOST_WORDS = 1_000  # of a change
MOST_WORDED = 5_000  # changed lines; words of more say little about each test
IsReport: TypeAlias = Callable[[str], bool]  # of a path from the root of the work tree

FILE_LIMIT = 5_000
_COUNTED_FILES = 200  # untracked files whose lines are counted in their first _COUNTED_BYTES
_COUNTED_BYTES = 16 * 1024  # longer than most sources
_UNCOUNTED_KINDS = ("data", "other")  # of untracked files: reports, logs and archives rather than work
_DIFF = (
    *("diff", "--numstat", "-z", "-M", "-l400", "--no-ext-diff", "--no-textconv"),
    *("--no-relative", "--no-color", "--submodule=short", "--ignore-submodules=dirty"),
)
_PATCH = ("diff", "--patch", "--unified=0", "--src-prefix=a/", "--dst-prefix=b/", *_DIFF[_DIFF.index("-M") :])
# Without the contents of files, which a partial clone does not have; `-M100%` compares their names only.
_NAMES = ("diff", "--raw", "-z", "--no-abbrev", "-M100%", *_DIFF[_DIFF.index("--no-ext-diff") :])
_CI_BASE = "merge-base with the CI's base commit"
_PARTIAL = "partial clone, the changed lines are not counted"
_STATUS = ("status", "--porcelain=v2", "-z", "--branch", "--no-renames", "--ignore-submodules=dirty")
_EMPTY_TREES = (  # of sha1 and sha256 repositories; git knows them without storing them
    "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
)
_DEFAULT_BRANCHES = {
    "refs/remotes/origin/HEAD": "origin/HEAD",
    "refs/remotes/origin/main": "origin/main",
    "refs/remotes/origin/master": "origin/master",
    "refs/heads/main": "main",
    "refs/heads/master": "master",
}
_NOT_A_WORK_TREE = Unavailable("not a git work tree")
_NO_UPSTREAM = GitResult(128, b"", "fatal: no upstream configured")


class _Base(NamedTuple):
    commit: str
    label: str


class _Diff(NamedTuple):
    base: str  # "" where nothing could be compared
    files: tuple[FileChange, ...]
    notice: str = ""
    revisions: tuple[str, ...] = ()  # the arguments of `git diff` that give the same comparison
    failure: str = ""  # why git gave up a comparison with a base that was found


_NO_DIFF = _Diff("", ())


def read_change(root: str, ci: CiRun, run: Run = run_git) -> Change | Unavailable:
    """Return the change of the checked-out commit, which a running or finished build tests.

    It is compared with the merge-base with a pull request's target, else with the tip before the push, else with the
    first parent, else (a root commit) with nothing. `commit` and `tree` are "" where tracked files were modified.
    """
    return start_change(root, ci, run)()


def start_change(
    root: str, ci: CiRun, run: Run = run_git, with_words: bool = False
) -> Callable[[], Change | Unavailable]:
    """Start git and return a function that waits for it and returns what `read_change` returns.

    `with_words` reads the identifiers of the changed lines, too.
    """
    top = repository_root(root)
    if not top:
        return lambda: _NOT_A_WORK_TREE
    git = GitRunner(top, run)
    base_labels = _bases_from_ci(top, ci)
    revisions = ("HEAD", "HEAD^1", *base_labels)
    status = git.start(*_STATUS, "--untracked-files=no")
    objects = git.start("cat-file", "--batch", stdin=_batch(revisions))

    def wait() -> Change | Unavailable:
        later = GitRunner(top, run)  # what the caller did meanwhile is not counted against git
        made = _make_built_change(later, ci, base_labels, status(), parse_objects(revisions, objects().out))
        return made if isinstance(made, Unavailable) else _finish(later, *made, with_words)

    return wait


def read_outgoing(root: str, run: Run = run_git, is_report: IsReport = lambda _: False) -> Change | Unavailable:
    """Return the change of the work tree against its upstream, else the default branch, else HEAD, before a push.

    Untracked files are included, except those for which `is_report` is true: tests wrote them. `commit` and `tree`
    are "" unless the work tree is clean.
    """
    return start_outgoing(root, run, is_report)()


def start_outgoing(
    root: str, run: Run = run_git, is_report: IsReport = lambda _: False, with_words: bool = False
) -> Callable[[], Change | Unavailable]:
    """Start git and return a function that waits for it and returns what `read_outgoing` returns.

    `with_words` reads the identifiers of the changed lines of tracked files, too.
    """
    top = repository_root(root)
    if not top:
        return lambda: _NOT_A_WORK_TREE
    git = GitRunner(top, run)
    revisions = ("HEAD", *_DEFAULT_BRANCHES)
    # The comparison that is most often right, and then the only one. It starts first because it takes longest.
    guess = git.start(*_DIFF, "--merge-base", "@{upstream}", "--") if may_have_upstream(top) else lambda: _NO_UPSTREAM
    status = git.start(*_STATUS, "--untracked-files=all")
    objects = git.start("cat-file", "--batch", stdin=_batch(revisions))

    def wait() -> Change | Unavailable:
        later = GitRunner(top, run)  # what the caller did meanwhile is not counted against git
        made = _make_outgoing_change(later, status(), parse_objects(revisions, objects().out), guess(), is_report)
        return made if isinstance(made, Unavailable) else _finish(later, *made, with_words)

    return wait


def list_files(root: str) -> tuple[str, ...] | Unavailable:
    """Return the tracked files relative to `root`, "/" between folders, for a `SourceIndex`."""
    ran = GitRunner(root, run_git).start("ls-files", "-z", "--cached")()
    return parse_names(ran.out) if ran.code == 0 else explain_failure(ran, root)


def last_changes(root: str, paths: Iterable[str]) -> Mapping[str, str]:
    """Return who changed each file last, "Ada, 3 days ago (1a2b3c4)", for at most ten files that git knows."""
    chosen = list(dict.fromkeys(path for path in paths if path))[:MOST_TOUCHED]
    form = "--format=%an, %ar (%h)"
    git = GitRunner(root, run_git)
    started = [(path, git.start("log", "-1", form, "--", path)) for path in chosen]
    results = ((path, wait()) for path, wait in started)
    return {path: _name(done.out.strip()) for path, done in results if done.code == 0 and done.out.strip()}


def _make_built_change(
    git: GitRunner, ci: CiRun, base_labels: dict[str, str], status: GitResult, commits: dict[str, Commit]
) -> tuple[Change, _Diff] | Unavailable:
    if status.code != 0:
        return explain_failure(status, git.root)
    if "HEAD" not in commits:
        return Unavailable("the repository has no commit yet; run: git commit")
    head = commits["HEAD"]
    bases = [_Base(commits[name].oid, label) for name, label in base_labels.items() if name in commits]
    diff = _compare(git, _newest_first(git, bases, head.oid, ci.base_branch), head.oid)
    if not diff.base:
        parent = _against_parent(git, head, commits.get("HEAD^1"))
        diff = parent._replace(failure=diff.failure or parent.failure)
    modified = parse_status(status.out).modified
    notices = [_reach_notice(git.root, ci, base_labels, diff, head), diff.notice]
    notices += ["tracked files were modified: no evidence about the commit"] if modified else []
    return _make_change(head, not modified, diff, notices), diff


def _make_outgoing_change(
    git: GitRunner, status: GitResult, commits: dict[str, Commit], guess: GitResult, is_report: IsReport
) -> tuple[Change, _Diff] | Unavailable:
    if status.code != 0:
        return explain_failure(status, git.root)
    work_tree = parse_status(status.out)
    untracked = tuple(path for path in work_tree.untracked if not is_report(path))
    if guess.code == 0:
        diff = _Diff("merge-base with upstream", parse_numstat(guess.out), "", ("--merge-base", "@{upstream}"))
    else:
        diff = _against_default(git, commits, work_tree)
    if not diff.base:
        return Unavailable(diff.failure) if diff.failure else explain_failure(guess, git.root)
    room = max(0, FILE_LIMIT - len(diff.files))
    added = tuple(_count_untracked(git.root, untracked[:room]))
    left_out = len(untracked) - len(added)
    notices = [diff.notice, f"{left_out} untracked files left out" if left_out else ""]
    if diff.base == "HEAD" and is_shallow(git.root):
        notices.append("shallow clone, compared with HEAD only; run git fetch --unshallow")
    clean = not work_tree.modified and not untracked
    return _make_change(commits.get("HEAD"), clean, diff._replace(files=diff.files + added), notices), diff


def _make_change(head: Commit | None, clean: bool, diff: _Diff, notices: list[str]) -> Change:
    excess = len(diff.files) - FILE_LIMIT
    if excess > 0:
        notices = [*notices, f"{FILE_LIMIT} of {len(diff.files)} changed files were read"]
    return Change(
        commit=head.oid if head and clean else "",
        tree=head.tree if head and clean else "",
        author=head.author if head else "",
        files=diff.files[:FILE_LIMIT],
        base=diff.base,
        notice="; ".join(filter(None, notices)),
    )


def _finish(git: GitRunner, change: Change, diff: _Diff, with_words: bool) -> Change:
    """Return the change, with the words of its lines where they are wanted, and the change is not too large for it."""
    lines = sum(file.added + file.deleted for file in diff.files)
    if not with_words or not diff.revisions or lines > MOST_WORDED:
        return change
    ran = git.start(*_PATCH, *diff.revisions, "--")()
    return change._replace(words=parse_words(ran.out)) if ran.code == 0 else change


def _against_parent(git: GitRunner, head: Commit, parent: Commit | None) -> _Diff:
    if parent is not None:
        return _compare(git, [_Base(parent.oid, "first parent")], head.oid)
    if head.parents:
        return _NO_DIFF
    tree = _EMPTY_TREES[len(head.oid) > 40]
    ran = git.start(*_DIFF, tree, head.oid, "--")()
    base = "nothing: a root commit"
    return _Diff(base, parse_numstat(ran.out), "", (tree, head.oid)) if ran.code == 0 else _failed(ran, git.root)


def _against_default(git: GitRunner, commits: dict[str, Commit], work_tree: Status) -> _Diff:
    if "HEAD" not in commits:
        return _first_commit(git)
    bases = [_Base("@{upstream}", "merge-base with upstream")] if work_tree.upstream else []
    bases += [
        _Base(commits[ref].oid, f"merge-base with {name}") for ref, name in _DEFAULT_BRANCHES.items() if ref in commits
    ]
    if bases and bases[0].commit == commits["HEAD"].oid and not work_tree.modified:
        return _Diff(bases[0].label, ())
    return _compare(git, [*bases, _Base("HEAD", "HEAD")])


def _first_commit(git: GitRunner) -> _Diff:
    for tree in _EMPTY_TREES:
        ran = git.start(*_DIFF, tree, "--")()
        if ran.code == 0:
            return _Diff("nothing: no commit yet", parse_numstat(ran.out), "", (tree,))
    return _NO_DIFF


def _failed(ran: GitResult, root: str) -> _Diff:
    return _NO_DIFF._replace(failure=explain_failure(ran, root).reason)


def _compare(git: GitRunner, bases: Iterable[_Base], *target: str) -> _Diff:
    """Return the diff from the first base that shares history with `target`, or without one with the work tree."""
    failed = _NO_DIFF
    for base in bases:
        ran = git.start(*_DIFF, "--merge-base", base.commit, *target, "--")()
        if ran.code == 0:
            return _Diff(base.label, parse_numstat(ran.out), "", ("--merge-base", base.commit, *target))
        diff = _compare_with_ancestor(git, base, target)  # several merge-bases, a git before 2.30, a partial clone
        if diff.base:
            return diff
        failed = diff if diff.failure else failed
    return failed


def _newest_first(git: GitRunner, bases: list[_Base], head: str, target: str) -> list[_Base]:
    """Return the bases behind the newest commit that `head` shares with any of them.

    In a workspace that is kept, the refs of the target are as old as their last fetch, and a forced push may have left
    one behind that is no part of the target any more.
    """
    label = f"merge-base with {target}"
    remote = [base for base in bases if base.label != label]  # a local branch of this name may be the merge itself
    if not target or len({base.commit for base in remote}) < 2:
        return bases
    ran = git.start("merge-base", head, *(base.commit for base in remote))()
    ancestor = ran.out.decode("ascii", "replace").strip()
    if ran.code != 0:
        return bases
    if ancestor == head:  # merged since: the CI's own base is older
        return [*(base for base in remote if base.label == _CI_BASE), *bases]
    return [_Base(ancestor, label), *bases]


def _compare_with_ancestor(git: GitRunner, base: _Base, target: tuple[str, ...]) -> _Diff:
    ancestor = git.start("merge-base", base.commit, *(target or ("HEAD",)))()
    if ancestor.code != 0:
        return _NO_DIFF
    commit = ancestor.out.decode("ascii", "replace").strip()
    ran = git.start(*_DIFF, commit, *target, "--")()
    if ran.code == 0:
        return _Diff(base.label, parse_numstat(ran.out), "", (commit, *target))
    if is_partial(git.root):
        ran = git.start(*_NAMES, commit, *target, "--")()
    return _Diff(base.label, parse_raw(ran.out), _PARTIAL) if ran.code == 0 else _failed(ran, git.root)


def _bases_from_ci(root: str, ci: CiRun) -> dict[str, str]:
    """Return the revisions to compare with that the CI's variables name, with their labels, best first."""
    target = ci.base_branch if ci.base_branch.isprintable() and " " not in ci.base_branch else ""
    if not target:
        label = "commit before the push" if ci.event in ("", "push") else "the CI's base commit"
        return {ci.commit_before: label} if ci.commit_before.isalnum() else {}
    bases = {
        f"refs/remotes/origin/{target}": f"merge-base with origin/{target}",
        fetched_commit(root, target): f"merge-base with the fetched {target}",
        ci.commit_before: _CI_BASE,
        f"refs/heads/{target}": f"merge-base with {target}",
    }
    return {revision: label for revision, label in bases.items() if revision}


def _reach_notice(root: str, ci: CiRun, base_labels: dict[str, str], diff: _Diff, head: Commit) -> str:
    whole = diff.base in (*base_labels.values(), f"merge-base with {ci.base_branch}") or diff.base.startswith("nothing")
    exact = diff.base == "first parent" and (not base_labels or (ci.base_branch != "" and head.parents > 1))
    if whole or exact:
        return ""
    effect = "compared with the first parent only" if diff.base else "the change cannot be seen"
    if is_shallow(root):
        is_merge = ci.event == "pull_request" and head.parents > 1
        return f"shallow clone, {effect}; {clone_advice(ci.vendor, is_merge=is_merge)}"
    if is_partial(root) and not diff.base:
        return f"partial clone, {effect}; clone without a filter, or with --filter=blob:none"
    if diff.failure:
        return f"{diff.failure}, {effect}"
    return f"{next(iter(base_labels.values()), 'the base')} not found, {effect}; fetch it before this step"


def _count_untracked(root: str, paths: tuple[str, ...]) -> Iterable[FileChange]:
    for order, path in enumerate(paths):
        is_counted = order < _COUNTED_FILES and file_kind(path) not in _UNCOUNTED_KINDS
        yield FileChange(path, _line_count(f"{root}/{path}") if is_counted else 0)


def _line_count(path: str) -> int:
    """Return the number of lines of a text file, estimated from its start where it is long, 0 for any other file.

    Links, pipes and devices are not opened.
    """
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            return 0
        with open(path, "rb") as file:
            text = file.read(_COUNTED_BYTES)
    except (OSError, ValueError):
        return 0
    if b"\0" in text:
        return 0
    if status.st_size > len(text) > 0:
        return round(text.count(b"\n") * status.st_size / len(text))
    return text.count(b"\n") + (not text.endswith(b"\n") and text != b"")


def _batch(names: Iterable[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode("utf-8", "replace")


def compile_globs(globs: Iterable[str], here: str, root: str) -> Callable[[str], bool]:
    """Return a function that tells whether a path relative to `root` matches a glob relative to the folder `here`.

    Globs mean what they mean to `junit.expand`: `**` is any folders, and a leading dot has to be written.

    >>> compile_globs(("build/**/TEST-*.xml",), "/shop/api", "/shop")("api/build/unit/TEST-cart.xml")
    True
    """
    wanted = [_split_glob(os.path.join(here, pattern), root) for pattern in globs]
    return lambda path: any(
        _may_match_glob(pattern, path) and _matches_glob(pattern, path.split("/")) for pattern in wanted
    )


def _split_glob(pattern: str, root: str) -> Sequence[str]:
    try:
        return os.path.relpath(pattern, root).split(os.sep)
    except ValueError:  # on another drive of Windows, where no file of the root is
        return ()


def _may_match_glob(pattern: Sequence[str], path: str) -> bool:
    """Tell whether the last part matches, which is quick to check and rarely true."""
    return bool(pattern) and (pattern[-1] == "**" or fnmatchcase(path.rpartition("/")[2], pattern[-1]))


def _matches_glob(pattern: Sequence[str], path: Sequence[str]) -> bool:
    if not pattern or not path:
        return not pattern and not path
    first, *rest = pattern
    dot_allowed = first.startswith(".") or not path[0].startswith(".")
    if first == "**":
        return _matches_glob(rest, path) or (
            dot_allowed and (_matches_glob(pattern, path[1:]) or (not rest and len(path) == 1))
        )
    return dot_allowed and fnmatchcase(path[0], first) and _matches_glob(rest, path[1:])
