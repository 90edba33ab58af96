"""The test reports of one build: from `--junit` globs to one TestRun per test, with all that was dropped on the way."""

import glob
import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fedstep.ingest.cases import CaseCollector, relative_path
from fedstep.ingest.dialects import Signature, advise_by_bytes, identify_tool
from fedstep.ingest.jenkins_compat import JenkinsCount, JenkinsCounter
from fedstep.ingest.json_reports import read_json
from fedstep.ingest.junit_parser import JUnitHandler, ReportParser
from fedstep.ingest.line_reports import find_line_dialect
from fedstep.ingest.test_identity import (
    REPEATING_TOOLS,
    ReportTests,
    Rule,
    combine_pytest,
    combine_pytest_reruns,
    combine_reports,
    settle_suites,
    unite,
)
from fedstep.ingest.xml import (
    BLOCK_BYTES,
    LOSSY,
    DamagedDocument,
    RejectedDocument,
    Repairs,
    convert_to_utf8,
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


def expand(globs: Iterable[str], root: Path) -> tuple[ReportFile | Dropped, ...]:
    """Return the files that `globs` match below `root` (`**`: any folders), sorted, each once.

    A glob that matches no file is Dropped.
    """
    files: dict[str, ReportFile] = {}
    misses: list[Dropped] = []
    for pattern in globs:
        matches = glob.glob(pattern, root_dir=root, recursive=True)
        paths = [root / name for name in matches if (root / name).is_file()]
        if not paths:
            misses.append(Dropped(pattern, "this glob matches no file"))
        names = ((relative_path(str(path), root.as_posix()), path) for path in paths)
        files |= {name: (name, _opener(path)) for name, path in names if name}
    return (*misses, *(files[name] for name in sorted(files)))


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


def read_reports(files: Iterable[ReportFile | Dropped], root: str = "") -> Reports:
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
        digest = _read_file(file, root, tests, dropped)
        if digest in sources:
            dropped.append(_same_bytes(file[0], sources[digest]))
        elif digest:
            sources[digest] = file[0]
    digest_of_all = hashlib.sha256(b"".join(sorted(sources))).hexdigest() if sources else ""
    return Reports(combine_reports(tests), len(sources), tuple(dropped), digest_of_all)


def _read_file(file: ReportFile, root: str, tests: list[ReportTests], dropped: list[Dropped]) -> bytes:
    """Add the file's tests to `tests`; return the digest of its bytes, empty for a file that is no report."""
    source, opener = file
    try:
        with opener() as stream:
            hashed = HashedFile(stream)
            document = Document(hashed.restart, source, root)
            tests.append(ReportTests(source, read_tests(document, dropped), document.timestamps))
            return hashed.digest() if document.is_report else b""
    except OSError as error:
        dropped.append(Dropped(source, f"cannot be read: {error.strerror or error}"))
        return b""


def _same_bytes(source: str, other_source: str) -> Dropped:
    return Dropped(source, f"the same bytes as {other_source}")


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
    return combine_reports([ReportTests(reading.source, reading.tests, reading.timestamps) for reading in readings])


class HashedFile:
    """A file's blocks, hashed as they are read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._hash, self._has_begun = stream, hashlib.sha256(), False

    def restart(self) -> Iterator[bytes]:
        """Yield the blocks from the start."""
        if self._has_begun:
            self._stream.seek(0)
        self._has_begun = True
        self._hash = hashlib.sha256()
        for block in read_blocks(self._stream):
            self._hash.update(block)
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
        try:
            yield from self._read(self._restart())
        except DamagedDocument as damage:  # of the gzip format
            self.damage = damage
        yield from self._final_notes()

    def _read(self, chunks: Iterator[bytes]) -> Iterator[TestRun | Dropped]:
        head = next(chunks, b"")
        chunks = chain((head,), chunks)
        text = next(convert_to_utf8(iter((head,)), Repairs()))  # PowerShell writes UTF-16
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
    ) -> Iterator[TestRun | Dropped]:
        try:
            self._tool = read(chunks, self.parser.collector)
        except RejectedDocument as rejection:
            self.rejection = str(rejection)
        yield from self.parser.collector.take()

    def _read_xml(self, chunks: Iterator[bytes]) -> Iterator[TestRun | Dropped]:
        """Yield the items of the document; read a damaged one again with repairs, and go on where it stopped.

        If that does not help, only what starts an element of a report is a tag.
        """
        count = 0
        for items in self._parse(convert_to_utf8(chunks, self.repairs)):
            count += len(items)
            yield from items
        for is_last in (False, True):
            if not self.damage or self.damage.truncated or (is_last and not self.damage.is_syntax):
                return
            elements = self.parser.elements if is_last else ()
            self._begin()
            repaired = repair(convert_to_utf8(self._restart(), self.repairs), self.repairs)
            repaired = repair_tags(repaired, self.repairs, elements)
            for item in islice(chain.from_iterable(self._parse(repaired)), count, None):
                count += 1
                yield item

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
                place = f"{self._source}:{self.repairs.lines[reason]}"
                yield Dropped(place, f"{reason} ({count} in this file)", reason not in LOSSY)
            yield from self._note_totals()

    def _note_totals(self) -> Iterator[Dropped]:
        """Warn where a report announces other numbers than it has; announced failures of which none is there are lost.

        A part that was lost is noted already.
        """
        handler = self.parser.handler
        if isinstance(handler, JUnitHandler):
            difference = handler.totals.difference(self.count, identify_tool(self.signature))
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
            yield Dropped(self._source, f"not XML: {damage}")


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
        return tuple(cases)
    starts, rule = document.suite_starts, _rule_of(document, counts)
    repeated: dict[str, list[tuple[int, TestRun]]] = {}
    for position, run in enumerate(cases):
        if counts[run.test] > 1:
            repeated.setdefault(run.test, []).append((bisect_right(starts, position), run))
    once = (run for run in cases if counts[run.test] == 1)
    return (*once, *chain.from_iterable(settle_suites(found, rule) for found in repeated.values()))


def _rule_of(document: Document, counts: Mapping[str, int]) -> Rule:
    """Return how the outcomes of the cases with one id inside one suite combine in this report."""
    handler = document.parser.handler
    if not isinstance(handler, JUnitHandler) or not handler.is_pytest:
        return REPEATING_TOOLS.get(identify_tool(document.signature), unite)
    # xdist's `--dist each` repeats every test; reruns repeat those that failed, and are not in the suite's `tests`.
    is_rerun = 1 in counts.values() or document.damage or document.count > handler.declared
    return combine_pytest_reruns if is_rerun else combine_pytest
