"""The test reports of one build: from `--junit` globs to one TestRun per test, with all that was dropped on the way."""

import glob
import hashlib
import os
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from math import inf
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fedstep.ingest.cases import CaseCollector, Signature, advise_by_bytes, identify_tool, relative_path
from fedstep.ingest.ci import parse_time
from fedstep.ingest.git import compile_globs
from fedstep.ingest.jenkins_compat import JenkinsCount, JenkinsCounter
from fedstep.ingest.json_reports import read_json
from fedstep.ingest.junit_parser import HANDLERS, JUnitHandler, ReportParser
from fedstep.ingest.line_reports import find_line_dialect
from fedstep.ingest.test_identity import (
    REPEATING_TOOLS,
    ReportTests,
    Rule,
    combine_pytest,
    combine_pytest_counted,
    combine_pytest_reruns,
    combine_reports,
    settle_suites,
    unite,
)
from fedstep.ingest.xml import (
    BLOCK_BYTES,
    JUNK,
    LOSSY,
    SEVERAL,
    DamagedDocument,
    RejectedDocument,
    Repairs,
    convert_to_utf8,
    join_documents,
    read_blocks,
    repair,
    repair_tags,
)
from fedstep.types import Dropped, Reports, TestRun, Unavailable

ReportFile = tuple[str, Callable[[], BinaryIO]]  # its name in messages, and how to open it


class FileReading(NamedTuple):
    """One file as it was read: its tests, each once, and what was repaired or refused in it."""

    source: str
    dialect: str = ""  # the tool that wrote it; "" for a file that is no report
    cases: int = 0  # attempts that stand in it
    tests: tuple[TestRun, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    jenkins: JenkinsCount | Unavailable = Unavailable("Jenkins' JUnit step does not read this format")
    timestamps: frozenset[str] = frozenset()  # of its suites


class ReadingLimits(NamedTuple):
    """What ends the reading of reports, and which of them say something about this build."""

    not_before: float = 0.0  # seconds since the epoch: a report that is older is not of this job
    is_over: Callable[[], bool] = bool  # tells whether the time is over


NO_LIMITS = ReadingLimits()
SILENT = ("", "Failed")  # messages of a failure without one; the second is gotestsum's
# gotestsum counts every line that the Go command complains with.
ERRORS_OUTSIDE = (
    "it announces errors outside of its tests: a package that does not compile, or a warning of the compiler. "
    "Give --outcome or --exit-code, or the output of `go test -json`, which tells them apart"
)
CLOCK_TOLERANCE = 2.0  # seconds between the clock and the times of files
TIMESTAMP_TOLERANCE = 86_400.0  # seconds; timestamps of suites are often in a local time without its zone
IGNORED_FOLDERS = frozenset(("node_modules", ".git", ".hg", ".svn"))
FOLDER_SUFFIXES = (".xml", ".trx", ".xml.gz", ".tap")  # of the reports in a folder that is given
REPORT_ROOT = re.compile(rf"<(?:[\w.-]+:)?(?:{'|'.join(map(re.escape, HANDLERS))})[\s/>]".encode())
UNREADABLE = "this folder cannot be read, reports in it are not seen"
TIME_IS_OVER = "not read to its end, the time is over. Name fewer files, or give more time with --budget"


def expand(globs: Iterable[str], root: Path, is_over: Callable[[], bool] = bool) -> tuple[ReportFile | Dropped, ...]:
    """Return the files that `globs` match below `root`, each once under its real path, sorted.

    `**` means any folders: no links to folders, and no node_modules, repositories and virtual environments that the
    glob does not name. A name that exists is taken as it is, and a folder stands for the reports in it. A glob that
    matches nothing is Dropped, and a folder that cannot be read is named.
    """
    root = root.absolute()
    paths: dict[str, str] = {}
    misses: list[Dropped] = []
    for pattern in globs:
        unreadable: list[str] = []
        matches = _find_files(pattern, root, is_over, unreadable)
        inside = (folder for folder in unreadable if folder != os.path.join(root, pattern))  # itself is a miss
        for source in (relative_path(folder, root.as_posix()) for folder in inside):
            misses.append(Dropped(source, UNREADABLE, kept=True, is_warning=True))
        if is_over():
            misses.append(Dropped(pattern, f"the search for it was not finished, {TIME_IS_OVER.partition(', ')[2]}"))
        elif not matches:
            misses.append(Dropped(pattern, _explain_miss(root / pattern)))
        for path in sorted(matches, key=lambda path: (os.path.islink(path), path)):
            paths.setdefault(os.path.realpath(path), path)
    names = {relative_path(path, root.as_posix()): Path(path) for path in paths.values()}
    return (*misses, *((name, _opener(names[name])) for name in sorted(names) if name))


def _find_files(pattern: str, root: Path, is_over: Callable[[], bool], unreadable: list[str]) -> list[str]:
    """Return the paths of the files that one glob matches; folders that cannot be read go to `unreadable`."""
    exact = os.path.join(root, pattern)
    if os.path.isfile(exact):
        return [exact]
    if os.path.isdir(exact):
        return [path for path in _walk(exact, (), is_over, unreadable) if _is_report_name(path)]
    parts = pattern.split("/")
    if "**" not in parts:
        paths = (os.path.join(root, name) for name in glob.glob(pattern, root_dir=root))
        return [path for path in paths if _may_be_read(path)]
    base = "/".join(parts[: parts.index("**")]) or ("/" if os.path.isabs(pattern) else ".")
    is_meant = compile_globs([pattern], str(root), root.anchor)
    folders = (os.path.normpath(os.path.join(root, name)) for name in glob.glob(base, root_dir=root))
    paths = (path for folder in folders for path in _walk(folder, parts, is_over, unreadable))
    return [path for path in paths if is_meant(os.path.relpath(path, root.anchor))]


def _walk(folder: str, parts: Sequence[str], is_over: Callable[[], bool], unreadable: list[str]) -> Iterator[str]:
    """Yield the files in and below a folder, in folders that `parts` of a glob do not leave out."""
    has_dots = any(part.startswith(".") and part not in (".", "..") for part in parts)
    pending = [folder]
    while pending and not is_over():
        here = pending.pop()
        try:
            with os.scandir(here) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            unreadable.append(here)
            continue
        if any(entry.name == "pyvenv.cfg" for entry in entries) and len(parts) and "pyvenv.cfg" not in parts:
            continue
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                if _may_be_read(entry.path) if entry.is_symlink() else entry.is_file():
                    yield entry.path
            elif entry.name in parts or not (
                entry.name in IGNORED_FOLDERS or (entry.name.startswith(".") and not has_dots)
            ):
                pending.append(entry.path)


def _is_report_name(path: str) -> bool:
    """Tell whether a file in a folder that is given is a report, by its name and its first bytes."""
    if not path.lower().endswith(FOLDER_SUFFIXES):
        return False
    if not path.lower().endswith(".xml"):
        return True
    try:
        with open(path, "rb") as file:
            return bool(REPORT_ROOT.search(file.read(4096)))
    except OSError:
        return True


def _may_be_read(path: str) -> bool:
    """Tell whether a path is a file, or a link to one that is gone: that is told. Reading a pipe would never end."""
    return os.path.isfile(path) or not os.path.exists(path)


def _explain_miss(path: Path) -> str:
    try:
        path.stat()
    except PermissionError:
        return "a folder on the way to it cannot be read: Permission denied"
    except (OSError, ValueError):  # ValueError: a NUL in the name
        pass
    if os.path.isdir(path):
        return "this folder has no report" if os.access(path, os.R_OK | os.X_OK) else UNREADABLE
    if os.path.exists(path):
        return "this is a pipe or a device, no file"
    return "this glob matches no file" if glob.has_magic(str(path)) else "this file does not exist"


def _opener(path: Path) -> Callable[[], BinaryIO]:
    return lambda: path.open("rb")


def iter_cases(stream: BinaryIO, source: str, root: str = "") -> Iterator[TestRun | Dropped]:
    """Yield every test case of one report, in its order; `stream` is seekable, memory is bounded, nothing is raised.

    A Dropped whose source is `source` itself stands for the whole report, one with ":line" for a place in it.
    Paths below `root` become relative to it. A report that needs repair is read a second time from its start.
    """

    def restart() -> Iterator[bytes]:
        stream.seek(0)
        return read_blocks(stream)

    return iter(Document(restart, source, root))


def read_reports(files: Iterable[ReportFile | Dropped], root: str = "", limits: ReadingLimits = NO_LIMITS) -> Reports:
    """Return one TestRun per test of all `files`; a file that cannot be opened or read is Dropped.

    `test_identity` says which cases are one test, and which of those are attempts at it.
    """
    tests: list[ReportTests] = []
    dropped: list[Dropped] = []
    sources: dict[bytes, str] = {}  # by digest, the first file with these bytes
    for file in files:
        if isinstance(file, Dropped):
            dropped.append(file)
            continue
        digest = _read_file(file, root, tests, dropped, limits)
        if digest in sources:
            dropped.append(_same_bytes(file[0], sources[digest]))
        elif digest:
            sources[digest] = file[0]
    digest_of_all = hashlib.sha256(b"".join(sorted(sources))).hexdigest() if sources else ""
    combined = combine_reports(tests)
    return Reports(combined.tests, len(sources), tuple(dropped), digest_of_all, combined.origins)


def _read_file(
    file: ReportFile, root: str, tests: list[ReportTests], dropped: list[Dropped], limits: ReadingLimits
) -> bytes:
    """Add the file's tests to `tests`; return the digest of its bytes, empty for a file that is no report."""
    source, opener = file
    if limits.is_over():
        dropped.append(Dropped(source, TIME_IS_OVER))
        return b""
    try:
        with opener() as stream:
            age = limits.not_before - _written_at(stream)
            if age > CLOCK_TOLERANCE:
                dropped.append(_stale(source, age))
                return b""
            hashed = HashedFile(stream, limits.is_over)
            document = Document(hashed.restart, source, root)
            read = ReportTests(source, read_tests(document, dropped), document.timestamps)
            if hashed.is_cut:
                dropped.append(Dropped(source, TIME_IS_OVER))
            age = limits.not_before - _newest(document.timestamps)
            if age > TIMESTAMP_TOLERANCE:
                dropped.append(_stale(source, age))
                return b""
            tests.append(read)
            return hashed.digest() if document.is_report else b""
    except OSError as error:
        dropped.append(Dropped(source, f"cannot be read: {error.strerror or error}"))
        return b""


def _written_at(stream: BinaryIO) -> float:
    """Return when the file was last written, in seconds since the epoch; infinity for a stream that is no file."""
    try:
        return os.fstat(stream.fileno()).st_mtime
    except (OSError, AttributeError):  # io.UnsupportedOperation is an OSError
        return inf


def _newest(timestamps: Iterable[str]) -> float:
    """Return the newest of the suites' timestamps in seconds since the epoch; infinity without any that is one."""
    times = (parse_time(text) for text in timestamps)
    return max((time for time in times if isinstance(time, float)), default=inf)


def _stale(source: str, age: float) -> Dropped:
    age_text = (
        f"{age / 86_400:.0f} days" if age > 2 * 86_400 else f"{age / 60:.0f} minutes" if age > 120 else f"{age:.0f} s"
    )
    return Dropped(
        source, f"it is {age_text} older than this job: no evidence about its commit, unless with --allow-stale"
    )


def _same_bytes(source: str, other_source: str) -> Dropped:
    return Dropped(source, f"the same bytes as {other_source}, counted once", kept=True)


def summarize(files: Iterable[ReportFile | Dropped], root: str = "") -> Iterator[FileReading]:
    """Yield the content of each file; a glob that matches no file gives one without tests."""
    jenkins = JenkinsCounter()
    sources: dict[bytes, str] = {}
    for file in files:
        if isinstance(file, Dropped):
            yield FileReading(file.source, dropped=(file,), jenkins=Unavailable("not a file"))
        else:
            yield _summarize_file(file, root, jenkins, sources)


def _summarize_file(file: ReportFile, root: str, jenkins: JenkinsCounter, sources: dict[bytes, str]) -> FileReading:
    source, opener = file
    try:
        with opener() as stream:
            hashed = HashedFile(stream)
            document = Document(hashed.restart, source, root)
            dropped: list[Dropped] = []
            tests = read_tests(document, dropped)
            tool = identify_tool(document.signature)
            first_source = sources.setdefault(hashed.digest(), source) if tool else source
            if first_source != source:
                dropped.append(_same_bytes(source, first_source))
            reading = FileReading(source, tool, document.count, tests, tuple(dropped), timestamps=document.timestamps)
            if document.is_junit or not tool:
                reading = reading._replace(jenkins=jenkins.count(source, hashed.restart))
            return reading
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        return FileReading(source, dropped=(Dropped(source, reason),), jenkins=Unavailable(reason))


def combine_files(readings: Iterable[FileReading]) -> tuple[TestRun, ...]:
    """Return the tests of the build that these files make, as `read_reports` has them: each once."""
    reports = [ReportTests(reading.source, reading.tests, reading.timestamps) for reading in readings]
    return combine_reports(reports).tests


class HashedFile:
    """A file's blocks, hashed as they are read; `is_cut` where the time was over before the end."""

    def __init__(self, stream: BinaryIO, is_over: Callable[[], bool] = bool) -> None:
        self._stream, self._hash, self._has_begun = stream, hashlib.sha256(), False
        self._is_over, self.is_cut = is_over, False

    def restart(self) -> Iterator[bytes]:
        """Yield the blocks from the start."""
        if self._has_begun:
            self._stream.seek(0)
        self._has_begun = True
        self._hash = hashlib.sha256()
        for block in read_blocks(self._stream):
            self._hash.update(block)
            if self._is_over():
                self.is_cut = True
                return
            yield block

    def digest(self) -> bytes:
        """Return the digest of all bytes, also of those that were not read yet."""
        while block := self._stream.read(BLOCK_BYTES):
            self._hash.update(block)
        return self._hash.digest()


class Document:
    """One report, XML, JSON or TAP, to be iterated once in bounded memory; afterwards it knows what kind it was."""

    def __init__(self, restart: Callable[[], Iterator[bytes]], source: str, root: str) -> None:
        self._restart, self._source, self._root = restart, source, root
        self._tool = ""  # of a report that is no XML
        self._beginning = ""  # of a file that does not begin as XML does
        self._begin()

    def _begin(self) -> None:
        self.parser, self.repairs = ReportParser(self._source, self._root), Repairs()
        self.damage: DamagedDocument | None = None
        self.rejection = ""

    @property
    def is_report(self) -> bool:
        """Tell whether the file is a report at all."""
        return self._tool != "" or self.parser.has_root()

    @property
    def is_junit(self) -> bool:
        """Tell whether JUnit's handler read it."""
        return isinstance(self.parser.handler, JUnitHandler)

    @property
    def signature(self) -> Signature:
        """Return the signature that identifies the tool that wrote it."""
        return Signature(tool=self._tool) if self._tool else self.parser.signature

    @property
    def count(self) -> int:
        """Return the number of cases that were read."""
        return self.parser.collector.count

    @property
    def suite_starts(self) -> list[int]:
        """Return for each suite element the number of cases before it, where the report is one of JUnit."""
        handler = self.parser.handler
        return handler.suite_starts if isinstance(handler, JUnitHandler) else []

    @property
    def timestamps(self) -> frozenset[str]:
        """Return the timestamps of the suites, as they stand in the report."""
        handler = self.parser.handler
        return frozenset(handler.timestamps if isinstance(handler, JUnitHandler) else ())

    def __iter__(self) -> Iterator[TestRun | Dropped]:
        return chain.from_iterable(self._batches())  # item by item, each generator in between would cost 1 %

    def _batches(self) -> Iterator[list[TestRun | Dropped]]:
        try:
            yield from self._read(self._restart())
        except DamagedDocument as damage:  # of the gzip format
            self.damage = damage
        yield list(self._final_notes())

    def _read(self, chunks: Iterator[bytes]) -> Iterator[list[TestRun | Dropped]]:
        head = next(chunks, b"")
        chunks = chain((head,), chunks)
        text = next(convert_to_utf8(iter((head,)), Repairs()))  # PowerShell writes UTF-16
        if text.lstrip()[:1] != b"<":  # often what a runner prints before its report
            first_line = text.lstrip()[:200].partition(b"\n")[0].decode("utf-8", "replace")
            self._beginning = "".join(filter(str.isprintable, first_line))[:40]
        if text.lstrip()[:1] == b"<":
            yield from self._read_xml(chunks)
        elif dialect := find_line_dialect(text):
            self._tool = dialect.tool
            yield from self._read_whole(convert_to_utf8(chunks, self.repairs), dialect.read)
        elif text.lstrip()[:1] in (b"{", b"["):
            yield from self._read_whole(convert_to_utf8(chunks, self.repairs), read_json)
        elif advice := advise_by_bytes(head):
            self.rejection = f"not a test report: {advice}"
        else:
            yield from self._read_xml(chunks)

    def _read_whole(
        self, chunks: Iterator[bytes], read: Callable[[Iterator[bytes], CaseCollector], str]
    ) -> Iterator[list[TestRun | Dropped]]:
        try:
            self._tool = read(chunks, self.parser.collector)
        except RejectedDocument as rejection:
            self.rejection = str(rejection)
        yield self.parser.collector.take()

    def _read_xml(self, chunks: Iterator[bytes]) -> Iterator[list[TestRun | Dropped]]:
        """Yield the items in batches; read a damaged document again with repairs, and go on where it stopped.

        Several documents in one file are read as one. If repairs do not help, only what starts an element of a report
        is a tag.
        """
        count = 0
        for items in self._parse(convert_to_utf8(chunks, self.repairs)):
            count += len(items)
            yield items
        join = join_documents if self.damage and str(self.damage) == JUNK and self.is_junit else iter
        if self.damage and join is not iter:
            line = self.damage.line
            self._begin()
            self.repairs.add(SEVERAL, line)
            joined = self._parse(join(convert_to_utf8(self._restart(), self.repairs)))
            for items in _skip(joined, count):
                count += len(items)
                yield items
        for is_last in (False, True):
            if not self.damage or self.damage.truncated or (is_last and not self.damage.is_syntax):
                return
            elements = self.parser.elements if is_last else ()
            self._begin()
            repaired = repair(join(convert_to_utf8(self._restart(), self.repairs)), self.repairs)
            repaired = repair_tags(repaired, self.repairs, elements)
            for items in _skip(self._parse(repaired), count):
                count += len(items)
                yield items

    def _parse(self, chunks: Iterator[bytes]) -> Iterator[list[TestRun | Dropped]]:
        collector = self.parser.collector
        try:
            for _ in self.parser.tokenizer.read(chunks, self.repairs, self.parser.has_root):
                yield collector.take()
        except DamagedDocument as damage:
            self.damage = damage
        except RejectedDocument as rejection:
            self.rejection = str(rejection)
        yield collector.take()

    def _final_notes(self) -> Iterator[TestRun | Dropped]:
        if self.rejection:
            yield Dropped(self._source, self.rejection)
        elif self.damage:
            yield from self._note_damage(self.damage)
        yield from self.parser.collector.repeated_notes()
        if self.is_report:
            for reason, count in self.repairs.counts.items():
                location = f"{self._source}:{self.repairs.lines[reason]}"
                yield Dropped(location, f"{reason} ({count} in this file)", reason not in LOSSY)
            yield from self._note_totals()

    def _note_totals(self) -> Iterator[TestRun | Dropped]:
        """Warn where a report announces other numbers than it has; announced failures of which none is there are lost.

        A part that was lost is noted already. Errors without any test are one failed test.
        """
        handler, tool = self.parser.handler, identify_tool(self.signature)
        if not isinstance(handler, JUnitHandler):
            return
        handler.add_unstarted()
        yield from self.parser.collector.take()
        if tool == "gotestsum" and handler.totals.top_errors:
            yield Dropped(f"{self._source}:1", ERRORS_OUTSIDE, is_warning=True)
        else:
            difference = handler.totals.difference(self.count, tool)
            if difference.reason:
                yield Dropped(f"{self._source}:1", difference.reason, not difference.lost_failures, is_warning=True)

    def _note_damage(self, damage: DamagedDocument) -> Iterator[TestRun | Dropped]:
        if self.parser.handler:
            self.parser.handler.finish()
            yield from self.parser.collector.take()
            yield Dropped(f"{self._source}:{damage.line}", f"{damage}; the cases before are kept")
        elif damage.truncated:
            yield Dropped(self._source, "empty, or it ends before its root element")
        else:
            beginning = f", it begins with {self._beginning!r}" if self._beginning else ""
            yield Dropped(self._source, f"not XML: {damage}{beginning}")


def share_causes(tests: Sequence[TestRun]) -> tuple[TestRun, ...]:
    """Return the tests, of which those that failed without a word have the cause of a subtest, as in Go."""
    silent = {run.test for run in tests if run.outcome in "fc" and run.message in SILENT}
    if not silent:
        return tuple(tests)
    causes: dict[str, str] = {}
    for run in tests:
        if run.outcome in "fc" and run.test not in silent:
            parts = run.test.split("/")
            for end in range(len(parts) - 1, 0, -1):
                causes.setdefault("/".join(parts[:end]), run.signature)
    return tuple(
        run._replace(signature=causes[run.test]) if run.test in silent and causes.get(run.test) else run
        for run in tests
    )


def read_tests(document: Document, dropped: list[Dropped]) -> tuple[TestRun, ...]:
    """Return one run for each test of each suite of the report; what is wrong with it goes to `dropped`."""
    cases: list[TestRun] = []
    for item in document:
        if isinstance(item, Dropped):
            dropped.append(item)
        else:
            cases.append(item)
    counts = Counter(run.test for run in cases)
    if len(counts) == len(cases):
        return share_causes(cases)
    starts, rule = document.suite_starts, _rule_of(document, cases, counts)
    repeated: dict[str, list[tuple[int, TestRun]]] = {}
    for position, run in enumerate(cases):
        if counts[run.test] > 1:
            repeated.setdefault(run.test, []).append((bisect_right(starts, position), run))
    once = (run for run in cases if counts[run.test] == 1)
    return share_causes((*once, *chain.from_iterable(settle_suites(suites, rule) for suites in repeated.values())))


def _rule_of(document: Document, cases: Sequence[TestRun], counts: Mapping[str, int]) -> Rule:
    """Return how the outcomes of the cases with one id inside one suite combine in this report."""
    handler = document.parser.handler
    if not isinstance(handler, JUnitHandler) or not handler.is_pytest:
        return REPEATING_TOOLS.get(identify_tool(document.signature), unite)
    # Reruns are not in the suite's `tests`. Subtests are, also those without a case, and all of xdist's `--dist each`;
    # where subtests and reruns are mixed, a repeated case is no evidence.
    surplus = document.count - handler.declared
    twice = sum(case.test == after.test and case.outcome == after.outcome == "f" for case, after in pairwise(cases))
    repeats = len(cases) - len(counts) - twice  # a test that fails in its call and its teardown has two cases
    is_rerun = document.damage or 0 < repeats <= surplus or (surplus < 0 and 1 in counts.values())
    if is_rerun:
        return combine_pytest_reruns
    return combine_pytest_counted if 1 in counts.values() else combine_pytest


def _skip(batches: Iterable[list[TestRun | Dropped]], count: int) -> Iterator[list[TestRun | Dropped]]:
    """Yield the batches without their first `count` items.

    >>> list(_skip([[1, 2], [3, 4]], 3))
    [[], [4]]
    """
    for items in batches:
        yield items[count:]
        count = max(0, count - len(items))
