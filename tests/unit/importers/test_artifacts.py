"""Facts about zips of unknown origin: nothing leaves them, nothing in them is larger than it may be."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.importers.github import iter_zip_reports
from fedstep.ingest.junit import read_reports
from fedstep.types import Dropped

REPORT = b'<testsuite name="s"><testcase classname="a" name="b"/></testsuite>'


def zipped(*files: tuple[str, bytes]) -> io.BytesIO:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return out


def _bomb() -> io.BytesIO:
    return zipped(("bomb.xml", b"<a>" + bytes(30_000_000)))


def _russian_dolls() -> io.BytesIO:
    return zipped(("a.zip", zipped(("b.zip", zipped(("c.xml", REPORT)).getvalue())).getvalue()))


def _lying() -> io.BytesIO:
    """The directory says 20 bytes, the file unpacks to more."""
    content = zipped(("x.xml", REPORT * 50)).getvalue()
    size = (len(REPORT) * 50).to_bytes(4, "little")
    return io.BytesIO(content.replace(size, (20).to_bytes(4, "little")))


def _encrypted() -> io.BytesIO:
    content = bytearray(zipped(("x.xml", REPORT)).getvalue())
    place = content.rindex(b"PK\x01\x02")
    content[6] |= 1
    content[place + 8] |= 1
    return io.BytesIO(bytes(content))


def _corrupt() -> io.BytesIO:
    content = bytearray(zipped(("x.xml", REPORT * 99)).getvalue())
    content[45:60] = bytes(15)
    return io.BytesIO(bytes(content))


class TestZips:
    def test_reports_are_read_at_any_depth(self) -> None:
        """Reports are read at any depth, and twice if they need mending."""
        damaged = REPORT.replace(b'"b"', b'"\x01b"')
        inner = zipped(("deep/x.xml", REPORT)).getvalue()
        archive = zipped(("target/TEST-a.XML", REPORT.replace(b'"a"', b'"c"')), ("d.xml", damaged), ("in.zip", inner))
        reports = read_reports(iter_zip_reports(archive, "artifact"))
        assert reports.files == 3
        assert {run.test for run in reports.tests} >= {"a#b", "c#b"}

    def test_a_path_that_climbs_out_is_a_name_and_nothing_is_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        archive = zipped(("../../evil.xml", REPORT), ("/etc/evil.xml", REPORT + b" "), ("C:\\evil.xml", REPORT + b"\n"))
        assert read_reports(iter_zip_reports(archive, "artifact")).files == 3
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("make", "reason"),
        [
            (_bomb, "hundreds of times its size"),
            (_russian_dolls, "a zip inside a zip inside a zip"),
            (_lying, ""),
            (_encrypted, "is encrypted"),
            (_corrupt, ""),
            (lambda: io.BytesIO(b"PK\x03\x04 no zip"), "is no whole zip"),
        ],
        ids=["bomb", "dolls", "lying", "encrypted", "corrupt", "no zip"],
    )
    def test_a_hostile_zip_is_named_and_never_fatal(self, make: Callable[[], io.BytesIO], reason: str) -> None:
        reports = read_reports(iter_zip_reports(make(), "artifact"))
        assert not reports.tests
        assert any(reason in item.reason for item in reports.dropped), reports.dropped

    def test_a_member_without_a_name_hides_no_other(self) -> None:
        """Python ends a name at a NUL, and then it is empty."""
        content = zipped(("z.xml", REPORT), ("a.xml", REPORT)).getvalue().replace(b"z.xml", b"\0.xml")
        assert len(read_reports(iter_zip_reports(io.BytesIO(content), "artifact")).tests) == 1

    @given(st.binary(max_size=300), st.integers(0, 200))
    def test_any_bytes_in_any_place_of_a_zip_are_read_or_named(self, noise: bytes, place: int) -> None:
        content = bytearray(zipped(("a.xml", REPORT), ("b.xml", REPORT)).getvalue())
        content[place : place + len(noise)] = noise
        found = list(iter_zip_reports(io.BytesIO(bytes(content)), "artifact"))
        assert all(isinstance(one, Dropped | tuple) for one in found)
        assert len(read_reports(found).tests) <= 2
