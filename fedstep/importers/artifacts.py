"""JUnit reports inside a zip of unknown origin: nothing is unpacked to disk, and every size is bounded."""

import io
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, BinaryIO, TypeVar, cast

from fedstep.build.record import Dropped
from fedstep.ingest.junit import ReportFile

T = TypeVar("T")

__all__ = ["LARGEST_ZIP", "zip_reports"]

LARGEST_ZIP = 512 << 20  # bytes of an artifact
LARGEST_REPORT = 1 << 30  # bytes of one report, unpacked; it is parsed as a stream
LARGEST_NESTED = 64 << 20  # bytes of a zip inside a zip
LARGEST_ALL = 4 << 30  # bytes of everything in an artifact, unpacked
MOST_FILES = 100_000
STEEPEST = 200  # times: a report shrinks 10 to 30 times, a bomb 1,000
DEEPEST = 2  # a zip in a zip
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, UnicodeError)


def zip_reports(stream: BinaryIO, name: str, depth: int = DEEPEST) -> Iterator[ReportFile | Dropped]:
    """The XML files of a zip, by name; each opens from the zip, which has to stay open. What is unfit is Dropped."""
    try:
        archive = zipfile.ZipFile(stream)
        members = archive.infolist()
    except (*_BROKEN, OSError) as error:
        yield Dropped(name, f"is no whole zip ({type(error).__name__})")
        return
    total = 0
    for member in members[:MOST_FILES]:
        title = f"{name}/{member.filename}"
        kind = member.filename.lower().rpartition(".")[2]
        if member.is_dir() or kind not in ("xml", "zip"):
            continue
        total += member.file_size
        if reason := _unfit(member, kind, total, depth):
            yield Dropped(title, reason)
        elif kind == "xml":
            yield title, partial(_opened, archive, member)
        else:
            yield from _nested(archive, member, title, depth)
    if len(members) > MOST_FILES:
        yield Dropped(name, f"has {len(members):,} files, {MOST_FILES:,} were looked at")


def _opened(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> BinaryIO:
    return cast(BinaryIO, _Member(lambda: archive.open(member)))


def _unfit(member: zipfile.ZipInfo, kind: str, total: int, depth: int) -> str:
    if member.flag_bits & 1:
        return "is encrypted"
    if kind == "zip" and depth <= 1:
        return "is a zip inside a zip inside a zip"
    if member.file_size > (LARGEST_REPORT if kind == "xml" else LARGEST_NESTED) or total > LARGEST_ALL:
        return f"is too large unpacked ({member.file_size >> 20} MB)"
    if member.file_size > 1 << 20 and member.file_size > STEEPEST * max(1, member.compress_size):
        return "unpacks to hundreds of times its size"
    return ""


def _nested(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, title: str, depth: int
) -> Iterator[ReportFile | Dropped]:
    inner = tempfile.SpooledTemporaryFile(8 << 20)  # noqa: SIM115  it has to stay open; it goes with its last reader
    try:
        with archive.open(member) as packed:
            while block := packed.read(1 << 16):
                inner.write(block)
    except (*_BROKEN, OSError) as error:
        yield Dropped(title, f"cannot be unpacked ({type(error).__name__})")
        return
    inner.seek(0)
    yield from zip_reports(cast(BinaryIO, inner), title, depth - 1)


class _Member(io.RawIOBase):
    """A file of a zip that can be read from its start again; whatever is wrong with the zip is an OSError."""

    def __init__(self, opener: Callable[[], IO[bytes]]) -> None:
        self.opener = opener
        self.stream = self._guarded(opener)

    def read(self, size: int = -1) -> bytes:
        """The next bytes, unpacked."""
        return self._guarded(lambda: self.stream.read(size))

    def seek(self, offset: int, whence: int = 0) -> int:
        """Return to the start."""
        if offset or whence:
            raise OSError("only the start can be returned to")
        self.stream.close()
        self.stream = self._guarded(self.opener)
        return 0

    def close(self) -> None:
        """Close the file, not the zip."""
        self.stream.close()
        super().close()

    @staticmethod
    def _guarded(work: Callable[[], T]) -> T:
        try:
            return work()
        except _BROKEN as error:
            raise OSError(0, f"the zip is damaged ({type(error).__name__})") from error
