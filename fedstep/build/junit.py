"""The test reports of one build: from `--junit` globs to one TestRun a test, with all that was dropped on the way."""

import glob
import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from fedstep.build.attempts import joined, last_attempt, settle, settle_pytest, settle_reruns
from fedstep.build.attributes import relative
from fedstep.build.document import Document, Hashed
from fedstep.build.markup import blocks
from fedstep.build.record import Dropped, Outcome, Reports, TestRun

__all__ = ["ReportFile", "attempts_settled", "expand", "iter_cases", "read_reports"]

ReportFile = tuple[str, Callable[[], BinaryIO]]


def expand(globs: Iterable[str], root: Path) -> tuple[ReportFile | Dropped, ...]:
    """The files that `globs` match from `root` on (`**`: any folders), sorted, each once; a miss is Dropped."""
    found: dict[str, ReportFile] = {}
    misses: list[Dropped] = []
    for pattern in globs:
        matches = glob.glob(pattern, root_dir=root, recursive=True)
        files = [root / name for name in matches if (root / name).is_file()]
        if not files:
            misses.append(Dropped(pattern, "this glob matches no file"))
        found |= {name: (name, _opener(path)) for path in files if (name := _name(path, root))}
    return (*misses, *(found[name] for name in sorted(found)))


def _opener(path: Path) -> Callable[[], BinaryIO]:
    return lambda: path.open("rb")


def _name(path: Path, root: Path) -> str:
    return relative(str(path), root.as_posix())


def iter_cases(stream: BinaryIO, source: str, root: str = "") -> Iterator[TestRun | Dropped]:
    """Every test case of one report, in its order; `stream` is seekable, memory is bounded, nothing is raised.

    A Dropped whose source is `source` itself stands for the whole report, one with ":line" for a place in it.
    Paths below `root` become relative to it. A report that needs repair is read a second time from its start.
    """

    def restart() -> Iterator[bytes]:
        stream.seek(0)
        return blocks(stream)

    return iter(Document(restart, source, root))


def read_reports(files: Iterable[ReportFile | Dropped], root: str = "") -> Reports:
    """One TestRun a test from all `files`; a file that cannot be opened or read is Dropped.

    Cases that share an identity are attempts of one test: both outcomes are a flake, only failures a confirmed
    failure, and the seconds are those of the last attempt. A case that stands in two files word by word is one.
    """
    tests: dict[str, TestRun] = {}
    dropped: list[Dropped] = []
    digests: dict[bytes, str] = {}
    for file in files:
        if isinstance(file, Dropped):
            dropped.append(file)
            continue
        digest = _read_file(file, root, tests, dropped)
        if digest in digests:
            dropped.append(Dropped(file[0], f"the same bytes as {digests[digest]}"))
        elif digest:
            digests[digest] = file[0]
    whole = hashlib.sha256(b"".join(sorted(digests))).hexdigest() if digests else ""
    return Reports(tuple(tests.values()), len(digests), tuple(dropped), whole)


def _read_file(file: ReportFile, root: str, tests: dict[str, TestRun], dropped: list[Dropped]) -> bytes:
    """Adds the file's tests to `tests`; the digest of its bytes, empty for a file that is no report."""
    source, opener = file
    try:
        with opener() as stream:
            hashed = Hashed(stream)
            report = Document(hashed.restart, source, root)
            for run in attempts_settled(report, dropped):
                tests[run.test] = joined(tests[run.test], run) if run.test in tests else run
            return hashed.digest() if report.cases.started else b""
    except OSError as error:
        dropped.append(Dropped(source, f"cannot be read: {error.strerror or error}"))
        return b""


def attempts_settled(report: Document, dropped: list[Dropped]) -> Iterator[TestRun]:
    """One run for each test of the report; what is wrong with it goes to `dropped`."""
    runs: dict[str, TestRun] = {}
    attempts: dict[str, list[Outcome]] = {}  # of the tests that have more than one
    for item in report:
        if isinstance(item, Dropped):
            dropped.append(item)
        elif (earlier := runs.get(item.test)) is None:
            runs[item.test] = item
        else:
            attempts.setdefault(item.test, [earlier.outcome]).append(item.outcome)
            runs[item.test] = last_attempt(earlier, item)
    settle_here = _dialect(report)
    for test, outcomes in attempts.items():
        runs[test] = runs[test]._replace(outcome=settle_here("".join(outcomes)))
    return iter(runs.values())


def _dialect(report: Document) -> Callable[[str], Outcome]:
    cases = report.cases
    if not cases.pytest:
        return settle
    return settle_reruns if report.damage or cases.cases > cases.declared else settle_pytest
