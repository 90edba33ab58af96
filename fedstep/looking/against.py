"""Proof for one report: none of its strings occurs in an update, except words of the public list."""

import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from fedstep.build.record import Dropped
from fedstep.features.schema import schema
from fedstep.features.words import sub_words
from fedstep.federation.tensors import Tensors, pack, unpack
from fedstep.ingest.junit import ReportFile
from fedstep.ingest.xml import (
    DamagedDocument,
    RejectedDocument,
    Repairs,
    Tokenizer,
    convert_to_utf8,
    read_blocks,
    repair,
)
from fedstep.report.inspected import Leak, Proof

__all__ = ["Strings", "leaks_in", "prove", "strings_of"]

LETTERS = re.compile(r"[^\W\d_]{4,}")
IDENTIFIER = re.compile(r"[\w$]{4,}")
PATH = re.compile(r"[\w$][\w$./\\-]{2,}[\w$]")
FEWEST = 4  # letters; shorter words occur by chance
LONG = 8  # characters that are no letters
HASHES = ("id", "project", "schema")


class Strings(NamedTuple):
    """All distinct strings of some reports that are worth looking for, and how many were left out and why."""

    wanted: frozenset[str] = frozenset()
    listed: int = 0
    short: int = 0


def prove(body: bytes, files: Iterable[ReportFile | Dropped]) -> Proof:
    """Whether any string of these reports occurs in the update's bytes, unpacked, in upper or lower case."""
    texts: set[str] = set()
    unread: list[Dropped] = []
    read = 0
    for file in files:
        if isinstance(file, Dropped):
            unread.append(file)
        else:
            read += _read(file, texts, unread)
    strings = strings_of(texts)
    return Proof(read, len(strings.wanted), strings.listed, strings.short, leaks_in(body, strings), tuple(unread))


def strings_of(texts: Iterable[str]) -> Strings:
    """Each text, its lines, its identifiers and their parts of four letters or more, the public words left out."""
    found = {string for text in texts for string in _pieces(text)}
    every = {string.lower(): string for string in sorted(found, reverse=True)}  # one of those that differ in case
    public = _public_words()
    others = [string for small, string in every.items() if small not in public]
    wanted = frozenset(filter(_is_worth, others))
    return Strings(wanted, len(every) - len(others), len(others) - len(wanted))


def leaks_in(body: bytes, strings: Strings) -> tuple[Leak, ...]:
    """The strings that occur in these bytes more often than in an update that says nothing."""
    tensors = unpack(body)
    real, blank = _haystack(body, tensors), _haystack(*_blank(tensors))
    folded = {string: string.lower().encode("utf-8", "backslashreplace") for string in strings.wanted}
    found = sorted(string for string, needle in folded.items() if needle in real)
    return tuple(
        Leak(string, _place(string.lower(), tensors))
        for string in found
        if real.count(folded[string]) > blank.count(folded[string])
    )


def _read(file: ReportFile, texts: set[str], unread: list[Dropped]) -> bool:
    """Adds the file's texts; a file that is no XML to its end is taken as plain text as well, and noted."""
    source, opener = file
    try:
        with opener() as stream:
            try:
                texts.update(_xml_texts(stream))
            except (DamagedDocument, RejectedDocument) as error:
                stream.seek(0)
                texts.update(_plain_texts(stream))
                unread.append(Dropped(source, f"no XML to its end ({error}); read as plain text", kept=True))
    except OSError as error:
        unread.append(Dropped(source, f"cannot be read: {error.strerror or error}"))
        return False
    return True


def _xml_texts(stream: BinaryIO) -> set[str]:
    """Every attribute value, text and comment."""
    texts: set[str] = set()
    has_root = False
    tokenizer = Tokenizer()
    tokenizer.join_text()

    def start(_name: str, attributes: dict[str, str]) -> None:
        nonlocal has_root
        has_root = True
        texts.update(attributes.values())

    tokenizer.set_handlers(start, None)
    tokenizer.set_text_handler(texts.add)
    tokenizer.set_comment_handler(texts.add)
    repairs = Repairs()
    chunks = repair(convert_to_utf8(read_blocks(stream), repairs), repairs)
    for _ in tokenizer.read(chunks, repairs, lambda: has_root):
        pass
    return texts


def _plain_texts(stream: BinaryIO) -> Iterator[str]:
    return (re.sub(r"<\S*|[=\"'>]", " ", line.decode("utf-8", "replace")) for line in stream)


def _pieces(text: str) -> Iterator[str]:
    if stripped := text.strip():
        yield stripped
        yield from filter(None, map(str.strip, stripped.splitlines()))
        yield from PATH.findall(stripped)
        yield from IDENTIFIER.findall(stripped)
        yield from LETTERS.findall(stripped)
        yield from (word for word in sub_words((stripped,)) if len(word) >= FEWEST)


def _is_worth(string: str) -> bool:
    return len(string) >= LONG or sum(map(str.isalpha, string)) >= FEWEST


def _public_words() -> frozenset[str]:
    return frozenset((*schema().words("name").index, *schema().words("source").index))


def _blank(tensors: Tensors) -> tuple[bytes, Tensors]:
    """The message with the same constants of the format, and nothing of its sender."""
    words = {name: value if name in ("format", "schema") else "" for name, value in tensors.words.items()}
    vectors = {name: type(vector)("f", bytes(4 * len(vector))) for name, vector in tensors.vectors.items()}
    return pack(words, vectors), Tensors(words, vectors)


def _haystack(body: bytes, tensors: Tensors) -> bytes:
    """The bytes, and the metadata once more without the escapes of JSON; all letters small."""
    plain = "\n".join(f"{name}\n{value}" for name, value in tensors.words.items())
    return b"\n".join((body.lower(), plain.lower().encode("utf-8", "backslashreplace")))


def _place(needle: str, tensors: Tensors) -> str:
    for name, value in tensors.words.items():
        if needle in value.lower():
            chance = ", whose digits a-f make words by chance" if name in HASHES else ""
            return f"in the metadata {name}{chance}"
    return "in its name of a head or field" if any(needle in name for name in tensors.vectors) else "in the numbers"
