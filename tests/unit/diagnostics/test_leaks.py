"""The proof finds what is there, and nothing else."""

import io
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.diagnostics.inspect import leaks_in, prove, strings_of
from fedstep.federation.messages import pack
from fedstep.ingest.junit import expand, read_reports
from fedstep.report.inspection import LeakProof
from fedstep.schema.schema import schema

REPORT = """<?xml version="1.0"?>
<!-- built by Secretbuilder -->
<testsuites><testsuite name="Unit Tests" file="src/test/AcmeCartTest.java" timestamp="2026-11-21T10:00:00">
<properties><property name="java.home" value="/opt/zulu17"/></properties>
<testcase classname="org.acme.shop.CartTest" name="sumsWithTimeout[Müller]" time="0.25">
<failure type="AssertionError" message="expected &lt;3&gt; but was &lt;4&gt;">at org.acme.shop.Basket.total
(Basket.java:12)
</failure></testcase></testsuite></testsuites>
"""


def update(**words: str) -> bytes:
    fields = {"format": "fedstep-update-2", "schema": "0" * 16, "base": "3", "id": "1" * 32, "project": "2" * 32}
    return pack(fields | {"examples.flaky": "64"} | words, {"flaky": array("f", [0.0, 0.5, -0.25])})


def proof(tmp_path: Path, body: bytes, text: bytes | str = REPORT) -> LeakProof:
    (tmp_path / "report.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return prove(body, expand(["*.xml"], tmp_path))


class TestFindLeaks:
    def test_an_update_holds_nothing_of_a_report(self, tmp_path: Path) -> None:
        found = proof(tmp_path, update())
        assert found.holds
        assert (found.files, found.leaks, found.unread) == (1, (), ())
        assert found.strings > 20

    @pytest.mark.parametrize(
        "leaked",
        [
            "org.acme.shop.CartTest",
            "CartTest",
            "acme",
            "ACME",
            "sumsWithTimeout",
            "Müller",
            "/opt/zulu17",
            "zulu",
            "src/test/AcmeCartTest.java",
            "Basket.java",
            "expected <3> but was <4>",
            "Secretbuilder",
            "2026-11-21T10:00:00",
        ],
    )
    @pytest.mark.parametrize("field", ["id", "branch"])
    def test_whatever_of_the_report_is_in_an_update_is_found(self, tmp_path: Path, leaked: str, field: str) -> None:
        found = proof(tmp_path, update(**{field: f"x-{leaked}-y"}))
        assert not found.holds
        assert leaked.lower() in {leak.text.lower() for leak in found.leaks}
        assert all(field in leak.place for leak in found.leaks)

    def test_the_signature_of_a_failure_is_looked_for(self, tmp_path: Path) -> None:
        """It is a hash, but of a message: an update with it would tell that two projects fail alike."""
        (tmp_path / "report.xml").write_text(REPORT)
        (failed,) = read_reports(expand(["report.xml"], tmp_path)).tests
        assert failed.signature
        found = proof(tmp_path, update(id=f"0{failed.signature}"))
        assert [leak.text for leak in found.leaks] == [failed.signature]

    def test_a_log_is_looked_for_like_a_report(self, tmp_path: Path) -> None:
        """The end of a log is read to class a failure, and nothing of it may leave."""
        (tmp_path / "job.log").write_text("FATAL: zeppelinhost went offline\n")
        files = expand(["job.log"], tmp_path)
        assert prove(update(), files).leaks == ()
        assert "zeppelinhost" in {leak.text for leak in prove(update(branch="zeppelinhost"), files).leaks}

    def test_a_string_among_the_numbers_is_found(self, tmp_path: Path) -> None:
        smuggled = array("f")
        smuggled.frombytes(b"..org.acme.shop.")
        body = pack({"format": "fedstep-update-2"}, {"flaky": smuggled})
        (*_, leak) = proof(tmp_path, body).leaks
        assert leak.place == "in the numbers"

    def test_words_of_the_public_list_and_numbers_are_not_looked_for(self) -> None:
        listed = next(iter(schema().words("name").index))
        strings = strings_of([f"{listed} {listed.upper()}", "0.25", "12", "zzq"])
        assert not {listed, listed.upper(), "0.25", "12", "zzq"} & strings.wanted
        assert strings.listed == 1
        assert strings.short == 3

    def test_a_report_named_like_the_format_is_no_leak(self, tmp_path: Path) -> None:
        """A report named like the format is no leak: `flaky`, `project` and `schema` are in every update."""
        named = (
            '<testsuite name="flaky"><testcase classname="project" name="examples.flaky fedstep-update-2"/></testsuite>'
        )
        assert proof(tmp_path, update(), named).holds
        assert not proof(tmp_path, update(branch="flaky project"), named).holds


class TestReports:
    def test_a_report_that_breaks_off_is_looked_through_as_text(self, tmp_path: Path) -> None:
        cut = REPORT[: REPORT.index("<failure")] + "<failure Brokenword"
        found = proof(tmp_path, update(id="brokenword"), cut)
        assert [leak.text for leak in found.leaks] == ["Brokenword"]
        assert [drop.kept for drop in found.unread] == [True]
        assert proof(tmp_path, update(), cut).holds

    @pytest.mark.parametrize(
        "text", [b"", b"\x00\xff" * 50, b"<a", b"<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>", b"<a/>"]
    )
    def test_any_bytes_are_a_report_of_some_kind(self, tmp_path: Path, text: bytes) -> None:
        assert proof(tmp_path, update(), text).leaks == ()

    def test_nothing_looked_for_proves_nothing(self, tmp_path: Path) -> None:
        assert not proof(tmp_path, update(), b"<a/>").holds
        assert not prove(update(), expand(["missing*.xml"], tmp_path)).holds

    def test_a_report_that_cannot_be_read_proves_nothing(self) -> None:
        def refuse() -> io.BytesIO:
            raise PermissionError(13, "Permission denied")

        found = prove(update(), [("secret.xml", refuse)])
        assert not found.holds
        assert [drop.source for drop in found.unread] == ["secret.xml"]

    @given(st.text(st.characters(codec="utf-8"), min_size=4, max_size=40).filter(lambda text: len(text.strip()) >= 8))
    def test_any_long_text_is_found_where_it_is(self, text: str) -> None:
        strings = strings_of([text])
        assert leaks_in(update(branch=text), strings) or text.lower() in schema().words("name").index
