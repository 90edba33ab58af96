"""Repair of what test runners get wrong in XML: control characters, stray references, bytes of another encoding."""

import codecs
import re
from collections.abc import Iterator

from fedstep.build.markup import Repairs

__all__ = ["mended", "visible"]

FORBIDDEN = "\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff"  # XML 1.0, section 2.2
# One set of characters comes first: Python searches for that ten times as fast as for alternatives.
SUSPECT = re.compile(
    rf"[<&\]?\-{FORBIDDEN}](?:(?<=<)(?:!\[CDATA\[|!--|\?)|(?<=\])\]>|(?<=-)->|(?<=\?)>"
    rf"|(?<=&)(?!(?:amp|lt|gt|quot|apos);)(?:#?\w{{1,32}};)?|(?<=[{FORBIDDEN}]))"
)
UNFINISHED = re.compile(r"(?:<[!?\[CDAT-]*|&#?\w{0,32}|\]{1,2}|-{1,2}|\?)\Z")
CLOSES = {"<![CDATA[": "]]>", "<!--": "-->", "<?": "?>"}


def mended(chunks: Iterator[bytes], repairs: Repairs) -> Iterator[bytes]:
    """UTF-8 `chunks` in which every character and reference is one that XML allows; tags are left as they are."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    mender = _Mender(repairs)
    for chunk in chunks:
        yield mender.mend(decoder.decode(chunk)).encode()
    yield mender.mend(decoder.decode(b"", True), last=True).encode()


class _Mender:
    """Remembers between chunks the open CDATA section, comment or instruction, and the text that may go on."""

    def __init__(self, repairs: Repairs) -> None:
        self.repairs, self.closing, self.rest, self.line = repairs, "", "", 1

    def mend(self, text: str, last: bool = False) -> str:
        text = self.rest + text
        unfinished = None if last else UNFINISHED.search(text, max(0, len(text) - 40))
        self.rest = unfinished[0] if unfinished else ""
        text = text[: len(text) - len(self.rest)]
        mended = SUSPECT.sub(self._replace, text)
        self.line += text.count("\n")
        return mended

    def _replace(self, found: re.Match[str]) -> str:
        token = found[0]
        if token[0] == "&":
            return token if self.closing else self._reference(token, found)
        if len(token) == 1:
            return self._character(token, found)
        if not self.closing:
            self.closing = CLOSES.get(token, "")
        elif token == self.closing:
            self.closing = ""
        return token

    def _reference(self, token: str, found: re.Match[str]) -> str:
        if token.startswith("&#"):
            point = _code_point(token[2:-1])
            if point >= 0 and not re.match(f"[{FORBIDDEN}]", chr(point)):
                return token
            self._note("a reference to a character that XML does not allow", found)
            return visible(chr(point)) if point >= 0 else "&amp;" + token[1:]
        self._note("an & that starts no known entity", found)
        return "&amp;" + token[1:]

    def _character(self, character: str, found: re.Match[str]) -> str:
        if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8, as surrogateescape marks it
            self._note("a byte that is not UTF-8, read as ISO-8859-1", found)
            return chr(ord(character) - 0xDC00)
        self._note("a character that XML does not allow", found)
        return visible(character)

    def _note(self, reason: str, found: re.Match[str]) -> None:
        known = reason in self.repairs.counts
        self.repairs.add(reason, 0 if known else self.line + found.string.count("\n", 0, found.start()))


def visible(character: str) -> str:
    """The character's number in pytest's notation, so that names that differ in it stay distinct.

    >>> visible("\\x1b")
    '#x1B'
    """
    return f"#x{ord(character):02X}"


def _code_point(digits: str) -> int:
    if not re.fullmatch("x[0-9a-fA-F]+|[0-9]+", digits):
        return -1
    point = int(digits[1:], 16) if digits[0] == "x" else int(digits)
    return point if point < 0x110000 else -1
