"""XML of unknown origin as a stream of tags: any encoding, bounded memory, no entities."""

import codecs
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO
from xml.parsers import expat

__all__ = ["CHUNK", "DEEPEST", "Damaged", "Refused", "Repairs", "blocks", "feed", "recoded", "too_deep"]

CHUNK = 65536
DEEPEST = 250_000  # open elements; expat keeps about 150 bytes for each
LONGEST_TAG = 4 * 2**20  # expat keeps an unfinished tag in memory, and reads it again with each chunk
ENCODING = re.compile(rb"""\s*<\?xml[^>]*?\bencoding\s*=\s*["']([A-Za-z][\w.-]*)""")
DECLARATION = re.compile(rb"\s*(?:<\?xml\s[^>]*\?>)?")
# The names of Python's text codecs: others ("zip", "unicode_escape") would run a stranger's choice of program.
TEXT_CODEC = re.compile(r"iso(8859|2022)[-_]\w+|cp\d+|koi8-\w|mac-\w+|gb\w+|big5\w*|euc_\w+|shift_jis\w*")
BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
)


class Refused(Exception):
    """This document is not read at all; the text says why."""


class Damaged(Exception):
    """The document stops being XML: where, why, and whether its end was reached."""

    def __init__(self, line: int, reason: str, truncated: bool = False) -> None:
        super().__init__(reason)
        self.line, self.truncated = line, truncated


def too_deep(parser: expat.XMLParserType) -> Damaged:
    """The damage of a document with more than DEEPEST open elements."""
    return Damaged(parser.CurrentLineNumber, f"more than {DEEPEST:,} nested elements")


@dataclass(slots=True)
class Repairs:
    """What was changed to make a document readable: how often, and the line of the first."""

    counts: Counter[str] = field(default_factory=Counter)
    lines: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, line: int) -> None:
        self.counts[reason] += 1
        self.lines.setdefault(reason, line)


def blocks(stream: BinaryIO) -> Iterator[bytes]:
    """The stream in pieces of at most 64 kB, the first one full where the stream is that long."""
    head = b""
    while len(head) < CHUNK and (block := stream.read(CHUNK - len(head))):
        head += block
    yield head
    while block := stream.read(CHUNK):
        yield block


def feed(
    parser: expat.XMLParserType, chunks: Iterator[bytes], repairs: Repairs, begun: Callable[[], bool]
) -> Iterator[None]:
    """Drive `parser` over UTF-8 `chunks`, with a stop after each; raises Damaged, and Refused for a DTD of its own.

    The first chunk goes in piecewise up to each "[": a DTD is seen, and refused, before its entities are.
    """
    parser.StartDoctypeDeclHandler = partial(_doctype, repairs)
    fed = 0
    try:
        for number, chunk in enumerate(chunks):
            if number == 1 and not begun():  # a DTD that starts later would not be fed piecewise
                raise Refused("no root element in the first 64 kB")
            for piece in re.findall(rb"[^\[]*\[?", chunk) if number == 0 and b"<!DOCTYPE" in chunk else (chunk,):
                parser.Parse(piece)
            fed += len(chunk)
            if fed - max(parser.CurrentByteIndex, 0) > LONGEST_TAG:
                raise Damaged(parser.CurrentLineNumber, "a single tag is longer than 4 MB")
            yield
    except expat.ExpatError as error:
        raise Damaged(error.lineno, expat.ErrorString(error.code)) from None
    try:
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise Damaged(error.lineno, "the file ends too early", truncated=True) from None
    yield


def _doctype(repairs: Repairs, _name: str, system: str | None, _public: str | None, internal: int) -> None:
    if system:
        repairs.add("an external DTD, never fetched", 1)
    if internal:
        raise Refused("it declares its own DTD; entities are never expanded nor fetched")


def recoded(chunks: Iterator[bytes], repairs: Repairs) -> Iterator[bytes]:
    """The document in UTF-8 without byte order mark and XML declaration, lines kept.

    Raises nothing: an unknown encoding is read as UTF-8, and that is a repair.
    """
    head = next(chunks, b"")
    encoding = _encoding(head, repairs)
    if encoding == "utf-8":
        yield _without_declaration(head.removeprefix(codecs.BOM_UTF8))
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    yield _without_declaration(decoder.decode(head).encode("utf-8", "replace"))
    for chunk in chunks:
        yield decoder.decode(chunk).encode("utf-8", "replace")
    yield decoder.decode(b"", True).encode("utf-8", "replace")


def _encoding(head: bytes, repairs: Repairs) -> str:
    for mark, encoding in BOMS:
        if head.startswith(mark):
            return encoding
    declared = ENCODING.match(head)
    name = declared[1].decode("ascii") if declared else "utf-8"
    try:
        codec = codecs.lookup(name).name
    except LookupError:
        codec = ""
    if codec in ("utf-8", "utf-8-sig", "ascii"):
        return "utf-8"
    # A document whose declaration can be read byte by byte is in none of the wide encodings.
    if TEXT_CODEC.fullmatch(codec):
        return codec
    repairs.add(f"the declared encoding {name[:40]} cannot be right, read as UTF-8", 1)
    return "utf-8"


def _without_declaration(head: bytes) -> bytes:
    found = DECLARATION.match(head)
    end = found.end() if found else 0
    return b"\n" * head.count(b"\n", 0, end) + head[end:]
