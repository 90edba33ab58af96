"""What each report file holds, one by one: for `fedstep reports`, which shows it."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fedstep.build.attempts import joined
from fedstep.build.dialect import dialect
from fedstep.build.document import Document, Hashed
from fedstep.build.jenkins_count import JenkinsCount, JenkinsCounter
from fedstep.build.junit import ReportFile, attempts_settled
from fedstep.build.record import Absent, Dropped, TestRun

__all__ = ["FileReading", "survey", "together"]

NO_JUNIT = ("TRX", "Robot Framework output", "xcresult")


class FileReading(NamedTuple):
    """One file as it was read: its tests, each once, and what was repaired or refused in it."""

    source: str
    dialect: str = ""  # the tool that wrote it; "" for a file that is no report
    cases: int = 0  # attempts that stand in it
    tests: tuple[TestRun, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    jenkins: JenkinsCount | Absent = Absent("Jenkins' JUnit step does not read this format")


def survey(files: Iterable[ReportFile | Dropped], root: str = "") -> Iterator[FileReading]:
    """The reading of each file in turn; a glob without a file is one without tests."""
    jenkins = JenkinsCounter()
    digests: dict[bytes, str] = {}
    for file in files:
        if isinstance(file, Dropped):
            yield FileReading(file.source, dropped=(file,), jenkins=Absent("not a file"))
        else:
            yield _reading(file, root, jenkins, digests)


def together(readings: Iterable[FileReading]) -> tuple[TestRun, ...]:
    """The tests of the build that these files make, as `read_reports` has them: each once."""
    tests: dict[str, TestRun] = {}
    for reading in readings:
        for run in reading.tests:
            tests[run.test] = joined(tests[run.test], run) if run.test in tests else run
    return tuple(tests.values())


def _reading(file: ReportFile, root: str, jenkins: JenkinsCounter, digests: dict[bytes, str]) -> FileReading:
    source, opener = file
    try:
        with opener() as stream:
            hashed = Hashed(stream)
            document = Document(hashed.restart, source, root)
            dropped: list[Dropped] = []
            tests = tuple(attempts_settled(document, dropped))
            tool = dialect(document.cases.signature)
            known = digests.setdefault(hashed.digest(), source) if tool else source
            if known != source:
                dropped.append(Dropped(source, f"the same bytes as {known}"))
            reading = FileReading(source, tool, document.cases.cases, tests, tuple(dropped))
            return reading if tool in NO_JUNIT else reading._replace(jenkins=jenkins.count(source, hashed.restart))
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        return FileReading(source, dropped=(Dropped(source, reason),), jenkins=Absent(reason))
