"""Read XML of unknown origin as a stream of events: in any encoding, repaired, without entities, in bounded memory."""

import codecs
import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import BinaryIO
from xml.parsers import expat

from fedstep.ingest.test_identity import escape_character

BLOCK_BYTES = 65536
GZIP = b"\x1f\x8b"
MAX_UNPACKED_BYTES = 512 << 20
MAX_LINE_BYTES = 1 << 20
MAX_DEPTH = 250_000  # open elements; expat keeps about 150 bytes for each
MAX_TAG_BYTES = 4 * 2**20  # expat keeps an unfinished tag in memory, and reads it again with each block
ENCODING = re.compile(rb"""\s*<\?xml[^>]*?\bencoding\s*=\s*["']([A-Za-z][\w.-]*)""")
DECLARATION = re.compile(rb"\s*(?:<\?xml\s[^>]*\?>)?")
# The names of Python's text codecs. Others ("zip", "unicode_escape") would run a program that the file chooses.
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

FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # XML 1.0, section 2.2
FORBIDDEN_ASCII = bytes(point for point in range(32) if FORBIDDEN.match(chr(point)))
PREDEFINED = "amp|lt|gt|quot|apos"  # the entities of XML 1.0, section 4.6
# Each alternative begins with a literal character: Python then searches for these characters ten times as fast.
TOKEN = re.compile(rf"<!\[CDATA\[|<!--|<\?|\]\]>|-->|\?>|&(?!(?:{PREDEFINED});)(?:#?\w{{1,32}};)?")
CLOSING_TOKENS = {"<![CDATA[": "]]>", "<!--": "-->", "<?": "?>"}
UNFINISHED_TOKEN = re.compile(r"(?:<[!?\[CDAT-]*|&#?\w{0,32}|\]{1,2}|-{1,2}|\?)\Z")
MAX_TOKEN_CHARACTERS = 40


class RejectedDocument(Exception):
    """A document that is not read; the message is the reason."""


class DamagedDocument(Exception):
    """The document stops being XML: at which line, why, whether its end was reached, and whether its syntax is why."""

    def __init__(self, line: int, reason: str, truncated: bool = False, is_syntax: bool = False) -> None:
        super().__init__(reason)
        self.line, self.truncated, self.is_syntax = line, truncated, is_syntax


@dataclass(slots=True)
class Repairs:
    """What was changed to make a document readable: how often, and the line of the first."""

    counts: Counter[str] = field(default_factory=Counter)
    lines: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, line: int) -> None:
        """Count one repair at this line."""
        self.counts[reason] += 1
        self.lines.setdefault(reason, line)


class Tokenizer:
    """Split one document into events: the start and the end of each element, and its text while it is asked for.

    Expat calls the handlers directly; each call in between would cost 3 % of the time of a large report.
    """

    def __init__(self, encoding: str | None = "utf-8") -> None:
        self._parser = expat.ParserCreate(encoding)

    @property
    def line(self) -> int:
        """Return the number of the current line, from 1."""
        return self._parser.CurrentLineNumber

    def set_handlers(self, start: Callable[[str, dict[str, str]], None], end: Callable[[str], None] | None) -> None:
        """Send the following events to `start` (name, attributes) and `end` (name); may be called by a handler."""
        self._parser.StartElementHandler, self._parser.EndElementHandler = start, end

    def set_text_handler(self, handler: Callable[[str], None] | None) -> None:
        """Send text to `handler`, in pieces of any size; None skips text, which is much faster."""
        self._parser.CharacterDataHandler = handler

    def set_comment_handler(self, handler: Callable[[str], None]) -> None:
        """Send the text of each comment to `handler`."""
        self._parser.CommentHandler = handler

    def join_text(self) -> None:
        """Send the text between two tags in one piece where it fits expat's buffer."""
        self._parser.buffer_text = True

    def too_deep(self) -> DamagedDocument:
        """Return the exception for a document with more than MAX_DEPTH open elements."""
        return DamagedDocument(self.line, f"more than {MAX_DEPTH:,} nested elements")

    def read(
        self, chunks: Iterator[bytes], repairs: Repairs, has_root: Callable[[], bool] | None = None
    ) -> Iterator[None]:
        """Read `chunks`, and yield after each of them.

        `has_root` says whether a root element was seen; where it is given, the first chunk has to contain it.
        Raises DamagedDocument, and RejectedDocument for a document that declares its own DTD. The first chunk is
        parsed piecewise up to each "[", so that a DTD is rejected before its entities are read.
        """
        parser = self._parser
        parser.StartDoctypeDeclHandler = partial(_check_doctype, repairs)
        size = 0
        try:
            for index, chunk in enumerate(chunks):
                if index == 1 and has_root and not has_root():  # a DTD that starts later is not parsed piecewise
                    raise RejectedDocument("no root element in the first 64 kB")
                for piece in re.findall(rb"[^\[]*\[?", chunk) if index == 0 and b"<!DOCTYPE" in chunk else (chunk,):
                    parser.Parse(piece)
                size += len(chunk)
                if size - max(parser.CurrentByteIndex, 0) > MAX_TAG_BYTES:
                    raise DamagedDocument(self.line, "a single tag is longer than 4 MB")
                yield
        except expat.ExpatError as error:
            raise DamagedDocument(error.lineno, expat.ErrorString(error.code), is_syntax=True) from None
        try:
            parser.Parse(b"", True)
        except expat.ExpatError as error:
            raise DamagedDocument(error.lineno, "the file ends too early", truncated=True) from None
        yield


def _check_doctype(repairs: Repairs, _name: str, system: str | None, _public: str | None, internal: int) -> None:
    if system:
        repairs.add("an external DTD, never fetched", 1)
    if internal:
        raise RejectedDocument("it declares its own DTD; entities are never expanded nor fetched")


def read_blocks(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the stream in blocks of at most 64 kB, unpacked where it is gzipped; the first is full where it can be.

    Raises DamagedDocument where a gzipped file is damaged, ends too early, or has more than MAX_UNPACKED_BYTES.
    """
    blocks = _fill_first(iter(partial(stream.read, BLOCK_BYTES), b""))
    head = next(blocks)
    if head.startswith(GZIP):
        blocks = _fill_first(_unpack(chain((head,), blocks)))
        head = next(blocks)
    yield head
    yield from blocks


def _fill_first(blocks: Iterator[bytes]) -> Iterator[bytes]:
    head, damage = b"", None
    try:
        for block in blocks:
            head += block
            if len(head) >= BLOCK_BYTES:
                break
    except DamagedDocument as error:
        damage = error
    yield head
    if damage:
        raise damage
    yield from blocks


def _unpack(blocks: Iterable[bytes]) -> Iterator[bytes]:
    size = 0
    decompressor = zlib.decompressobj(wbits=31)
    try:
        for block in blocks:
            while block:
                if decompressor.eof:  # gzipped files one after the other are one
                    decompressor = zlib.decompressobj(wbits=31)
                content = decompressor.decompress(block, BLOCK_BYTES)
                size += len(content)
                if size > MAX_UNPACKED_BYTES:
                    raise DamagedDocument(1, f"it has more than {MAX_UNPACKED_BYTES >> 20} MB when unpacked")
                yield content
                block = decompressor.unconsumed_tail or decompressor.unused_data
    except zlib.error as error:
        raise DamagedDocument(1, f"its gzip format is damaged: {error}"[:100], truncated=True) from None
    if not decompressor.eof:
        raise DamagedDocument(1, "the gzipped file ends too early", truncated=True)


def iter_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines without their ends; of one above MAX_LINE_BYTES, its beginning."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.rstrip(b"\r") for line in lines)
        rest = rest[:MAX_LINE_BYTES]
    if rest:
        yield rest


JUNK = expat.ErrorString(expat.errors.codes[expat.errors.XML_ERROR_JUNK_AFTER_DOC_ELEMENT])
FURTHER_DECLARATION = re.compile(rb"<\?xml\b[^>]{0,200}>|<!DOCTYPE\b[^>\[]{0,1000}>")
LONGEST_DECLARATION = 1200
SEVERAL = "what follows the end of the report is read, too"


def join_documents(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield UTF-8 documents that follow each other as one, below a root of its own and without their declarations.

    `cargo test` writes one for each of its programs, and some pipelines write all reports into one file.
    """
    yield b'<testsuites name="several reports">'
    rest = b""
    for chunk in chunks:
        text = FURTHER_DECLARATION.sub(b"", rest + chunk)
        start = text.find(b"<", max(0, len(text) - LONGEST_DECLARATION))
        cut = len(text) if start < 0 else start
        rest = text[cut:]
        yield text[:cut]
    yield FURTHER_DECLARATION.sub(b"", rest) + b"</testsuites>"


def convert_to_utf8(chunks: Iterator[bytes], repairs: Repairs) -> Iterator[bytes]:
    """Yield the document in UTF-8 without byte order mark and XML declaration, with the same lines.

    Raises nothing: a document in an unknown encoding is read as UTF-8, and that is a repair.
    """
    head = next(chunks, b"")
    encoding = _find_encoding(head, repairs)
    if encoding == "utf-8":
        yield _remove_declaration(head.removeprefix(codecs.BOM_UTF8))
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    yield _remove_declaration(decoder.decode(head).encode("utf-8", "replace"))
    for chunk in chunks:
        yield decoder.decode(chunk).encode("utf-8", "replace")
    yield decoder.decode(b"", True).encode("utf-8", "replace")


def _find_encoding(head: bytes, repairs: Repairs) -> str:
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


def _remove_declaration(head: bytes) -> bytes:
    declaration = DECLARATION.match(head)
    end = declaration.end() if declaration else 0
    return b"\n" * head.count(b"\n", 0, end) + head[end:]


def repair(chunks: Iterator[bytes], repairs: Repairs) -> Iterator[bytes]:
    """Yield UTF-8 `chunks` in which XML allows every character and reference; tags are left as they are.

    Test runners write control characters, stray "&" and bytes of another encoding.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    repairer = _Repairer(repairs)
    for chunk in chunks:
        yield repairer.repair(decoder.decode(chunk)).encode()
    yield repairer.repair(decoder.decode(b"", True), is_last=True).encode()


class _Repairer:
    """Repair a document chunk by chunk.

    Kept between chunks: the token that closes the open CDATA section, comment or processing instruction, the beginning
    of a token that the next chunk may complete, and the line.
    """

    def __init__(self, repairs: Repairs) -> None:
        self._repairs, self._closing_token, self._unfinished, self._line = repairs, "", "", 1

    def repair(self, chunk: str, is_last: bool = False) -> str:
        text = self._unfinished + chunk
        unfinished = None if is_last else UNFINISHED_TOKEN.search(text, max(0, len(text) - MAX_TOKEN_CHARACTERS))
        self._unfinished = unfinished[0] if unfinished else ""
        text = text.removesuffix(self._unfinished)
        repaired = TOKEN.sub(self._repair_token, text) if _is_allowed(text) else self._repair_pieces(text)
        self._line += text.count("\n")
        return repaired

    def _repair_pieces(self, text: str) -> str:
        """Return `text` with tokens and characters repaired in the order in which they stand."""
        pieces: list[str] = []
        position = 0
        for token in TOKEN.finditer(text):
            pieces += self._repair_characters(text[position : token.start()], position, text), self._repair_token(token)
            position = token.end()
        pieces.append(self._repair_characters(text[position:], position, text))
        return "".join(pieces)

    def _repair_token(self, token: re.Match[str]) -> str:
        """Return the token as it has to stand, and notice where sections begin and end: a "&" in them is allowed."""
        if token[0].startswith("&"):
            return token[0] if self._closing_token else self._repair_reference(token)
        if not self._closing_token and token[0] == "]]>":  # of a section inside a section
            self._note("a ]]> outside of a section", token.string, token.start())
            return "]]&gt;"
        if not self._closing_token:
            self._closing_token = CLOSING_TOKENS.get(token[0], "")
        elif token[0] == self._closing_token:
            self._closing_token = ""
        return token[0]

    def _repair_reference(self, token: re.Match[str]) -> str:
        reference = token[0]
        escaped = "&amp;" + reference[1:]
        if not reference.startswith("&#"):
            self._note("an & that starts no known entity", token.string, token.start())
            return escaped
        character = _decode_reference(reference[2:-1])
        if character and not FORBIDDEN.match(character):
            return reference
        self._note("a reference to a character that XML does not allow", token.string, token.start())
        return escape_character(character) if character else escaped

    def _repair_characters(self, piece: str, start: int, text: str) -> str:
        """Return the piece that starts at `start` of `text` with every forbidden character repaired."""

        def replace(match: re.Match[str]) -> str:
            character, position = match[0], start + match.start()
            if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8, as surrogateescape marks it
                self._note("a byte that is not UTF-8, read as ISO-8859-1", text, position)
                return chr(ord(character) - 0xDC00)
            self._note("a character that XML does not allow", text, position)
            return escape_character(character)

        return FORBIDDEN.sub(replace, piece)

    def _note(self, reason: str, text: str, position: int) -> None:
        is_known = reason in self._repairs.counts  # lines are counted for the first only
        self._repairs.add(reason, 0 if is_known else self._line + text.count("\n", 0, position))


MAX_VALUE = 1 << 20  # characters of an attribute; its rest is cut off
MAX_ELEMENT_NAME = 100  # characters, with the "<"
SECTIONS = (("<![CDATA[", "]]>"), ("<!--", "-->"), ("<?", "?>"), ("<!", ">"))
_ELEMENT = re.compile(r"</?(?:[\w.-]{1,40}:)?([A-Za-z_][\w.-]{0,40})(?=[\s/>])")
_WHOLE = re.compile(rf"(?s)<!\[CDATA\[|<!--|<\?|<!\w|{_ELEMENT.pattern}|<[^<]*>")  # what needs no further text
LONG_VALUE = f"an attribute of more than {MAX_VALUE >> 20} MB, whose rest is cut off"
STRAY_TAG = "a < that starts no element of a report, read as text"
LOSSY = frozenset((LONG_VALUE, STRAY_TAG))  # repairs that may lose something


def repair_tags(chunks: Iterator[bytes], repairs: Repairs, elements: Collection[str]) -> Iterator[bytes]:
    """Yield UTF-8 `chunks` in which "<" only starts tags: in values, and where it starts no known element, it is text.

    `elements` are the known ones by local name; none: every name is one. An endless value is cut off.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    repairer = _TagRepairer(repairs, elements)
    for chunk in chunks:
        if repaired := repairer.repair(decoder.decode(chunk)):
            yield repaired.encode()
    yield repairer.repair(decoder.decode(b"", True), is_last=True).encode()


class _TagRepairer:
    """Repair the tags of a document chunk by chunk; `_closing` is what ends the open section, tag or value."""

    def __init__(self, repairs: Repairs, elements: Collection[str]) -> None:
        self._repairs, self._elements = repairs, elements
        self._closing, self._is_tag, self._value_size = "", False, 0
        self._rest, self._line = "", 1

    def repair(self, chunk: str, is_last: bool = False) -> str:
        text, self._rest = self._rest + chunk, ""
        pieces: list[str] = []
        position = 0
        while position < len(text):
            if self._closing:
                position = self._read_closing(text, position, pieces, is_last)
            elif self._is_tag:
                position = self._read_tag(text, position, pieces)
            else:
                position = self._read_text(text, position, pieces, is_last)
        return "".join(pieces)

    def _keep(self, text: str, start: int, end: int, pieces: list[str]) -> int:
        """Take `text[start:end]` as it is, and return `end`."""
        pieces.append(text[start:end])
        self._line += text.count("\n", start, end)
        return end

    def _read_closing(self, text: str, position: int, pieces: list[str], is_last: bool) -> int:
        """Read to the end of the section or value that is open."""
        end = text.find(self._closing, position)
        if self._closing in "\"'":
            self._read_value(text, position, len(text) if end < 0 else end, pieces)
        elif end < 0 and not is_last:  # the closing token may be cut
            end = max(position, len(text) - len(self._closing) + 1)
            self._rest = text[end:]
            self._keep(text, position, end, pieces)
            return len(text)
        else:
            self._keep(text, position, len(text) if end < 0 else end, pieces)
        if end < 0:
            return len(text)
        end = self._keep(text, end, end + len(self._closing), pieces)
        self._closing = ""
        return end

    def _read_value(self, text: str, start: int, end: int, pieces: list[str]) -> None:
        room = max(0, MAX_VALUE - self._value_size)
        value = text[start : min(end, start + room)]
        if self._value_size <= MAX_VALUE < self._value_size + end - start:
            self._repairs.add(LONG_VALUE, self._line)
        self._value_size += end - start
        if "<" in value:
            self._repairs.add("a < in an attribute", self._line)
        pieces.append(value.replace("<", "&lt;"))
        self._line += text.count("\n", start, end)

    def _read_tag(self, text: str, position: int, pieces: list[str]) -> int:
        """Read to the next value, or to the end of the tag."""
        match = re.compile("[\"'>]").search(text, position)
        if not match:
            return self._keep(text, position, len(text), pieces)
        if match[0] == ">":
            self._is_tag = False
        else:
            self._closing, self._value_size = match[0], 0
        return self._keep(text, position, match.end(), pieces)

    def _read_text(self, text: str, position: int, pieces: list[str], is_last: bool) -> int:
        """Read to the next "<", and decide what it starts."""
        start = text.find("<", position)
        if start < 0:
            return self._keep(text, position, len(text), pieces)
        self._keep(text, position, start, pieces)
        if not is_last and start + MAX_ELEMENT_NAME > len(text) and not _WHOLE.match(text, start):
            self._rest = text[start:]
            return len(text)
        for opening, closing in SECTIONS:
            if text.startswith(opening, start):
                self._closing = closing
                return self._keep(text, start, start + len(opening), pieces)
        element = _ELEMENT.match(text, start)
        if element and (not self._elements or element[1] in self._elements):
            self._is_tag = True
            return self._keep(text, start, element.end(), pieces)
        self._repairs.add(STRAY_TAG, self._line)
        pieces.append("&lt;")
        return start + 1


def _is_allowed(text: str) -> bool:
    """Tell whether XML allows every character; to delete bytes is ten times as fast as to search for them."""
    if text.isascii():
        return len(text.encode().translate(None, FORBIDDEN_ASCII)) == len(text)
    return not FORBIDDEN.search(text)


def _decode_reference(digits: str) -> str:
    """Return the character of a numeric reference, "" where it has none: "x1b" is the escape character."""
    if not re.fullmatch("x[0-9a-fA-F]+|[0-9]+", digits):
        return ""
    point = int(digits[1:], 16) if digits[0] == "x" else int(digits)
    return chr(point) if point < 0x110000 else ""
