"""One report file as a stream of test cases: repaired, hashed, XML or JSON, in bounded memory."""

import hashlib
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import BinaryIO

from fedstep.build.markup import CHUNK, Damaged, Refused, Repairs, blocks, feed, recoded
from fedstep.build.mend import mended
from fedstep.build.record import Dropped, TestRun
from fedstep.build.testcase import Cases
from fedstep.build.xcresult import LARGEST, read_xcresult

__all__ = ["Document", "Hashed"]


class Hashed:
    """A file's blocks, hashed as they are read."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.hash, self.begun = stream, hashlib.sha256(), False

    def restart(self) -> Iterator[bytes]:
        """The blocks from the start."""
        if self.begun:
            self.stream.seek(0)
        self.begun = True
        self.hash = hashlib.sha256()
        for block in blocks(self.stream):
            self.hash.update(block)
            yield block

    def digest(self) -> bytes:
        """The digest of all bytes, also of those that nobody has read."""
        for block in blocks(self.stream):
            self.hash.update(block)
        return self.hash.digest()


class Document:
    """One report, to be iterated once; `cases` then knows what kind it was."""

    def __init__(self, restart: Callable[[], Iterator[bytes]], source: str, root: str) -> None:
        self.restart, self.source, self.root = restart, source, root
        self._begin()

    def _begin(self) -> None:
        self.cases, self.repairs = Cases(self.source, self.root), Repairs()
        self.damage: Damaged | None = None
        self.refusal = ""

    def __iter__(self) -> Iterator[TestRun | Dropped]:
        chunks = self.restart()
        head = next(chunks, b"")
        if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{":
            yield from self._json(chain((head,), chunks))
        else:
            yield from self._xml(chain((head,), chunks))
        yield from self._last_words()

    def _json(self, chunks: Iterator[bytes]) -> Iterator[TestRun | Dropped]:
        content = b"".join(islice(chunks, LARGEST // CHUNK))
        if next(chunks, b""):
            self.refusal = f"JSON of more than {LARGEST >> 20} MB"
            return
        try:
            read_xcresult(content, self.cases)
        except Refused as refusal:
            self.refusal = str(refusal)
        yield from self.cases.take()

    def _xml(self, chunks: Iterator[bytes]) -> Iterator[TestRun | Dropped]:
        given = 0
        for batch in self._batches(recoded(chunks, self.repairs)):
            given += len(batch)
            yield from batch
        if self.damage and not self.damage.truncated:
            self._begin()
            mending = mended(recoded(self.restart(), self.repairs), self.repairs)
            yield from islice(chain.from_iterable(self._batches(mending)), given, None)

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
