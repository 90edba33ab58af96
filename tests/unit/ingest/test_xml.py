"""Facts about the tokenizer and the repair of damaged XML."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.ingest.xml import DamagedDocument, RejectedDocument, Repairs, Tokenizer, repair

FRAGMENTS = [
    *("<![CDATA[", "]]>", "<!--", "-->", "<?", "?>", "<a>", "</a>", "&", "&amp;", "&#65;", "&#x1b;", "&nbsp;", "&#_1;"),
    *("\x1b", "\x00", "\ufffe", ";", "#", "]", "-", "?", "!", "[", "<", ">", "é", "\n", " ", "x"),
]
documents = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3)).map("".join)
PLAIN_TOKEN = re.compile(
    r"<!\[CDATA\[|<!--|<\?|\]\]>|-->|\?>|&(?:#?\w{1,32};)?|[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]"
)
PREDEFINED = ("&amp;", "&lt;", "&gt;", "&quot;", "&apos;")


def _repair(*chunks: bytes) -> bytes:
    return b"".join(repair(iter(chunks), Repairs()))


def _repair_plainly(text: str) -> str:
    """Repair `text` token by token, with one expression of alternatives: the oracle."""
    closing_token = ""

    def replace(token: re.Match[str]) -> str:
        nonlocal closing_token
        content = token[0]
        if content.startswith("&"):
            return content if closing_token or content in PREDEFINED else _repair_reference(content)
        if len(content) == 1:
            return f"#x{ord(content):02X}"
        if not closing_token and content == "]]>":
            return "]]&gt;"
        if not closing_token:
            closing_token = {"<![CDATA[": "]]>", "<!--": "-->", "<?": "?>"}.get(content, "")
        elif content == closing_token:
            closing_token = ""
        return content

    return PLAIN_TOKEN.sub(replace, text)


def _repair_reference(reference: str) -> str:
    digits = re.fullmatch("&#(?:x([0-9a-fA-F]+)|([0-9]+));", reference)
    point = (int(digits[1], 16) if digits[1] else int(digits[2])) if digits else 0x110000
    if point >= 0x110000:
        return "&amp;" + reference[1:]
    is_allowed = point in (9, 10, 13) or 32 <= point < 0xD800 or 0xE000 <= point < 0xFFFE or point > 0xFFFF
    return reference if is_allowed else f"#x{point:02X}"


def _read(tokenizer: Tokenizer, *chunks: bytes, has_root: Callable[[], bool] | None = None) -> None:
    for _ in tokenizer.read(iter(chunks), Repairs(), has_root):
        pass


class TestTokenizer:
    def test_events_come_in_the_order_of_the_document(self) -> None:
        events: list[object] = []
        tokenizer = Tokenizer()
        tokenizer.set_handlers(lambda name, attributes: events.append((name, attributes)), events.append)
        _read(tokenizer, b"<a><b c='", b"1'/>text</a>")
        assert events == [("a", {}), ("b", {"c": "1"}), "b", "a"]

    def test_text_is_sent_only_while_it_is_asked_for(self) -> None:
        texts: list[str] = []
        tokenizer = Tokenizer()
        tokenizer.join_text()
        tokenizer.set_handlers(
            lambda name, _: tokenizer.set_text_handler(texts.append if name == "b" else None),
            lambda _: tokenizer.set_text_handler(None),
        )
        _read(tokenizer, b"<a>no<b>yes &amp; yes</b>no</a>")
        assert texts == ["yes & yes"]

    def test_damage_names_the_line_and_whether_the_end_was_reached(self) -> None:
        with pytest.raises(DamagedDocument, match="mismatched tag") as damage:
            _read(Tokenizer(), b"<a>\n</b>")
        assert (damage.value.line, damage.value.truncated) == (2, False)
        with pytest.raises(DamagedDocument, match="ends too early") as damage:
            _read(Tokenizer(), b"<a>\n\n")
        assert (damage.value.line, damage.value.truncated) == (3, True)

    def test_document_type_of_its_own_is_rejected(self) -> None:
        with pytest.raises(RejectedDocument, match="its own DTD"):
            _read(Tokenizer(), b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>")

    def test_first_chunk_has_to_contain_the_root(self) -> None:
        with pytest.raises(RejectedDocument, match="no root element"):
            _read(Tokenizer(), b"<!-- -->", b"<a/>", has_root=lambda: False)


class TestRepair:
    @given(documents)
    def test_result_is_that_of_one_plain_expression(self, document: str) -> None:
        assert _repair(document.encode()).decode() == _repair_plainly(document)

    @given(documents, st.data())
    def test_chunks_change_nothing(self, document: str, data: st.DataObject) -> None:
        encoded = document.encode()
        cut = data.draw(st.integers(0, len(encoded)))
        assert _repair(encoded[:cut], encoded[cut:]) == _repair(encoded)

    def test_byte_that_is_not_utf_8_is_read_as_latin_1(self) -> None:
        assert _repair(b"caf\xe9") == "café".encode()

    def test_notes_count_and_name_the_first_line(self) -> None:
        repairs = Repairs()
        list(repair(iter([b"\n\x1b\n", b"&\n\x1b"]), repairs))
        reasons = ["a character that XML does not allow", "an & that starts no known entity"]
        assert list(repairs.counts.items()) == [(reasons[0], 2), (reasons[1], 1)]
        assert repairs.lines == {reasons[0]: 2, reasons[1]: 3}
