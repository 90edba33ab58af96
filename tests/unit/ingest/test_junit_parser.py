"""Facts about the choice of a handler, and about what a handler keeps of a document."""

import pytest

from fedstep.ingest.junit_parser import JUnitHandler, ReportParser
from fedstep.ingest.xml import RejectedDocument, Repairs
from fedstep.ingest.xml_reports import CppunitHandler, RobotHandler, TrxHandler
from fedstep.types import TestRun


def _parse(document: bytes, root: str = "") -> tuple[ReportParser, list[str]]:
    parser = ReportParser("r.xml", root)
    for _ in parser.tokenizer.read(iter([document]), Repairs(), parser.has_root):
        pass
    return parser, [item.test for item in parser.collector.take() if isinstance(item, TestRun)]


class TestReportParser:
    @pytest.mark.parametrize(
        ("document", "handler"),
        [
            (b"<testsuites/>", JUnitHandler),
            (b"<testsuite/>", JUnitHandler),
            (b"<testcase name='n'/>", JUnitHandler),
            (b"<t:testsuite xmlns:t='urn:t'/>", JUnitHandler),
            (b"<TestRun id='1'/>", TrxHandler),
            (b"<TestRun/>", CppunitHandler),
            (b"<robot/>", RobotHandler),
        ],
    )
    def test_root_element_chooses_the_handler(self, document: bytes, handler: type) -> None:
        assert type(_parse(document)[0].handler) is handler

    def test_other_roots_are_rejected_with_advice(self) -> None:
        with pytest.raises(RejectedDocument, match="its root element is <testng-results>; it is TestNG"):
            _parse(b"<testng-results/>")

    def test_signature_keeps_the_first_suite_and_case(self) -> None:
        document = (
            b"<testsuites name='a'><testsuite/><testsuite name='b'><testcase/><testcase name='c'/></testsuite>"
            b"<testsuite name='d'/></testsuites>"
        )
        signature = _parse(document)[0].signature
        assert (signature.root, signature.top, signature.suite, signature.case) == (
            "testsuites",
            {"name": "a"},
            {"name": "b"},
            {},
        )


class TestJUnitHandler:
    def test_count_includes_cases_that_cannot_be_used(self) -> None:
        parser, tests = _parse(b"<testsuite tests='2'><testcase/><testcase name='n'/></testsuite>")
        assert (parser.collector.count, tests) == (2, ["#n"])

    def test_paths_of_this_machine_leave_the_name(self) -> None:
        document = rb"<testsuite><testcase classname='c' name='at /home/a/repo/src\x.py'/></testsuite>"
        assert _parse(document, "/home/a/repo")[1] == ["c#at src/x.py"]

    def test_long_names_differ_in_their_hash(self) -> None:
        first, second = (f"<testcase name='{'n' * 2000}{end}'/>" for end in "ab")
        tests = _parse(f"<testsuite>{first}{second}</testsuite>".encode())[1]
        assert len(set(tests)) == 2
        assert {len(test) for test in tests} == {1000}
