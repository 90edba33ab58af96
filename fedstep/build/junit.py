"""The test reports of one build: from `--junit` globs to one TestRun a test, with all that was dropped on the way."""

import glob
import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from fedstep.build.attempts import joined, last_attempt, settle, settle_pytest, settle_reruns
from fedstep.build.attributes import relative
from fedstep.build.markup import Damaged, Refused, Repairs, blocks, feed, recoded
from fedstep.build.mend import mended
from fedstep.build.record import Dropped, Outcome, Reports, TestRun
from fedstep.build.testcase import Cases

__all__ = ["ReportFile", "expand", "iter_cases", "read_reports"]

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

    return iter(_Report(restart, source, root))


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
            hashed = _Hashed(stream)
            report = _Report(hashed.restart, source, root)
            for run in _attempts_settled(report, dropped):
                tests[run.test] = joined(tests[run.test], run) if run.test in tests else run
            return hashed.digest() if report.cases.started else b""
    except OSError as error:
        dropped.append(Dropped(source, f"cannot be read: {error.strerror or error}"))
        return b""


def _attempts_settled(report: "_Report", dropped: list[Dropped]) -> Iterator[TestRun]:
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


def _dialect(report: "_Report") -> Callable[[str], Outcome]:
    cases = report.cases
    if not cases.pytest:
        return settle
    return settle_reruns if report.damage or cases.cases > cases.declared else settle_pytest


class _Hashed:
    """A file's blocks, hashed as they are read."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.hash, self.begun = stream, hashlib.sha256(), False

    def restart(self) -> Iterator[bytes]:
        if self.begun:
            self.stream.seek(0)
        self.begun = True
        self.hash = hashlib.sha256()
        for block in blocks(self.stream):
            self.hash.update(block)
            yield block

    def digest(self) -> bytes:
        for block in blocks(self.stream):
            self.hash.update(block)
        return self.hash.digest()


class _Report:
    """One report, to be iterated once; `cases` then knows what kind it was."""

    def __init__(self, restart: Callable[[], Iterator[bytes]], source: str, root: str) -> None:
        self.restart, self.source, self.root = restart, source, root
        self._begin()

    def _begin(self) -> None:
        self.cases, self.repairs = Cases(self.source, self.root), Repairs()
        self.damage: Damaged | None = None
        self.refusal = ""

    def __iter__(self) -> Iterator[TestRun | Dropped]:
        given = 0
        for batch in self._batches(recoded(self.restart(), self.repairs)):
            given += len(batch)
            yield from batch
        if self.damage and not self.damage.truncated:
            self._begin()
            chunks = mended(recoded(self.restart(), self.repairs), self.repairs)
            yield from islice(chain.from_iterable(self._batches(chunks)), given, None)
        yield from self._last_words()

    def _batches(self, chunks: Iterator[bytes]) -> Iterator[list[TestRun | Dropped]]:
        try:
            for _ in feed(self.cases.parser, chunks, self.repairs, lambda: self.cases.started):
                yield self.cases.take()
        except Damaged as damage:
            self.damage = damage
        except Refused as refusal:
            self.refusal = str(refusal)
        yield self.cases.take()

    def _last_words(self) -> Iterator[TestRun | Dropped]:
        if self.refusal:
            yield Dropped(self.source, self.refusal)
        elif self.damage:
            yield from self._damage(self.damage)
        yield from self.cases.untold()
        if self.cases.started:
            yield from self._repairs()

    def _damage(self, damage: Damaged) -> Iterator[TestRun | Dropped]:
        if self.cases.started:
            self.cases.cut_off()
            yield from self.cases.take()
            yield Dropped(f"{self.source}:{damage.line}", f"{damage}; the cases before are kept", True)
        else:
            yield Dropped(
                self.source, "empty, or it ends before its root element" if damage.truncated else f"not XML: {damage}"
            )

    def _repairs(self) -> Iterator[Dropped]:
        for reason, count in self.repairs.counts.items():
            yield Dropped(f"{self.source}:{self.repairs.lines[reason]}", f"{reason} ({count} in this file)", True)
