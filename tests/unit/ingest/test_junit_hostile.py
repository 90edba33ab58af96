"""Reports that are meant to hurt: memory, depth, entities, and damage at awkward places."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from fedstep.ingest.junit import iter_cases, read_reports
from fedstep.types import BuildOutcome, Dropped, TestRun

BLOCK = 65536


def _read(document: bytes) -> tuple[list[str], list[Dropped]]:
    items = list(iter_cases(io.BytesIO(document), "r.xml"))
    return [i.test for i in items if isinstance(i, TestRun)], [i for i in items if isinstance(i, Dropped)]


class TestMemory:
    @pytest.mark.slow
    def test_a_hundred_thousand_nested_suites_are_read(self):
        tests, dropped = _read(b"<testsuite name='s'>" * 100_000 + b"<testcase name='n'/>" + b"</testsuite>" * 100_000)
        assert tests == ["s/s/s/s/s/s/s/s#n"]
        assert dropped == []

    @pytest.mark.slow
    def test_deeper_nesting_stops_and_keeps_what_stands(self):
        tests, dropped = _read(b"<testsuite><testcase name='n'/>" + b"<x>" * 300_000)
        assert tests == ["#n"]
        assert "250,000 nested" in dropped[0].reason

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "giant", [b"<!--" + b"-a" * 2_300_000 + b"-->", b"<testcase " + b"a='1' " * 750_000 + b"/>"]
    )
    def test_a_giant_tag_stops_and_keeps_what_stands(self, giant):
        tests, dropped = _read(b"<testsuite><testcase name='n'/>" + giant + b"</testsuite>")
        assert tests == ["#n"]
        assert [item.reason for item in dropped] == ["a single tag is longer than 4 MB; the cases before are kept"]

    def test_a_giant_attribute_is_cut_and_its_case_kept(self):
        giant = b"<testcase name='g'><failure message='" + b"n" * 4_500_000 + b"'/></testcase>"
        tests, dropped = _read(b"<testsuite>" + giant + b"<testcase name='n'/></testsuite>")
        assert tests == ["#g", "#n"]
        assert [(item.reason[:35], item.kept) for item in dropped] == [("an attribute of more than 1 MB, who", False)]

    def test_giant_text_and_cdata_are_no_giant_tags(self):
        noise = (
            b"<system-out>"
            + b"x" * 6_000_000
            + b"</system-out><system-err><![CDATA["
            + b"<]]" * 2_000_000
            + b"]]></system-err>"
        )
        assert _read(b"<testsuite><testcase name='n'>" + noise + b"</testcase></testsuite>") == (["#n"], [])


@pytest.mark.slow
class TestRepetition:
    """Each takes minutes where one part after the other is compared with all that follows."""

    def test_hooks_repeated_in_a_name_are_one_test(self):
        name = "x &quot;before all&quot; hook for &quot;" * 30_000
        failed = f"<testsuite name='Mocha Tests'><testcase name='{name}x'><failure/></testcase></testsuite>"
        tests, dropped = _read(failed.encode())
        assert (len(tests), dropped) == (1, [])

    def test_attachments_without_an_end_tell_of_no_attempt(self):
        output = "[[ATTACHMENT|" * 600
        case = f"<testcase name='n' classname='a.spec.ts'><system-out>{output}</system-out></testcase>"
        totals = "id='' name='' tests='300' failures='0' skipped='0' errors='0' time='1'"
        suite = f"<testsuite name='a.spec.ts' hostname='chromium'>{case * 300}</testsuite>"
        items = list(iter_cases(io.BytesIO(f"<testsuites {totals}>{suite}</testsuites>".encode()), "r.xml"))
        assert {item.outcome for item in items if isinstance(item, TestRun)} == {"p"}

    def test_spaces_behind_a_test_point_of_tap_are_one(self):
        reports = read_reports([("r.tap", lambda: io.BytesIO(b"1..1\nok 1 adds #" + b" " * 200_000 + b"x\n"))])
        assert [test.test for test in reports.tests] == ["#adds # x"]

    def test_failures_in_suites_of_their_own_are_tests(self):
        cases = "".join(
            f"<testcase classname='a.test.ts' name='s{number} > t'><failure/></testcase>" for number in range(30_000)
        )
        tests, _ = _read(
            f"<testsuites name='vitest tests'><testsuite name='a.test.ts'>{cases}</testsuite></testsuites>".encode()
        )
        assert (len(tests), tests[0]) == (30_000, "a.test.ts#s0 > t")


class TestDtd:
    @pytest.mark.parametrize("before", [b"", b"<!-- [ -->", b"<?xml version='1.0'?><!-- <!DOCTYPE a [ -->", b"<?p [?>"])
    def test_a_dtd_of_its_own_is_refused_before_any_entity_is_read(self, before):
        bomb = (
            b"<!DOCTYPE testsuite SYSTEM '[' [<!ENTITY a '"
            + b"x" * 100
            + b"'>]><testsuite><testcase name='&a;'/></testsuite>"
        )
        tests, dropped = _read(before + bomb)
        assert tests == []
        assert not dropped[0].kept
        assert "its own DTD" in dropped[0].reason

    def test_prolog_that_could_hide_a_dtd_is_refused(self):
        """A prolog that could hide a DTD behind 64 kilobytes is refused."""
        tests, dropped = _read(b"<!--" + b" " * BLOCK + b"--><!DOCTYPE a [<!ENTITY b 'c'>]><testcase name='&b;'/>")
        assert (tests, [item.reason for item in dropped]) == ([], ["no root element in the first 64 kB"])

    def test_a_comment_full_of_brackets_is_read(self):
        document = b"<!-- <!DOCTYPE " + b"[" * 20_000 + b" --><testcase name='n'/>"
        assert _read(document) == (["#n"], [])


def _many(count: int, odd: bytes = b"", at: int = -1) -> bytes:
    case = b'<testcase classname="c" name="%d%s" time="0.1"/>\n'
    body = b"".join(case % (i, odd if i == at else b"") for i in range(count))
    return b"<testsuite>" + body + b"</testsuite>"


class TestRepair:
    @pytest.mark.parametrize("at", [0, 1399, 1400, 2000, 3999])
    def test_repair_yields_every_case_once_wherever_the_damage_is(self, at):
        tests, dropped = _read(_many(4000, b"\x1b", at))
        assert len(tests) == len(set(tests)) == 4000
        assert tests[at] == f"c#{at}#x1B"
        assert dropped[0].source == f"r.xml:{at + 1}"

    @pytest.mark.slow
    def test_nothing_is_yielded_twice_after_unrepairable_damage(self):
        """What was yielded before unrepairable damage is not yielded twice."""
        for padding in range(0, 64, 7):
            document = b"<testsuite>" + b" " * padding + _many(4000)[11:] + b"</nonsense>"
            tests, _ = _read(document[: -len(b"</testsuite></nonsense>")] + b"</nonsense>")
            assert len(tests) == len(set(tests)) == 4000

    @pytest.mark.parametrize(
        ("odd", "read"),
        [
            (b"&#x1b;", "#x1B"),
            (b"&nbsp;", "&nbsp;"),
            (b"&amp;", "&"),
            (b"&#233;", "é"),
            (b"\xc3\xa9&", "é&"),
            (b"\xe9", "é"),
        ],
    )
    def test_a_name_is_repaired_alike_across_a_block_border(self, odd, read):
        for shift in range(len(odd) + 2):
            head = b"<testsuite><x>\x02</x>"
            filler = b" " * (BLOCK - len(head) - len(b"<testcase name='") - shift)
            tests, _ = _read(head + filler + b"<testcase name='" + odd + b"'/></testsuite>")
            assert tests == [f"#{read}"], shift

    @pytest.mark.parametrize("section", [b"<![CDATA[ & ]]>", b"<!-- & -->", b"<?p & ?>"])
    def test_a_section_is_recognised_across_a_block_border(self, section):
        for shift in range(len(section) + 2):
            head = b"<testsuite><x>\x02</x>"
            filler = b" " * (BLOCK - len(head) - shift)
            _, dropped = _read(head + filler + section + b"</testsuite>")
            assert [item.reason for item in dropped] == ["a character that XML does not allow (1 in this file)"], shift

    def test_ampersand_in_a_section_is_no_repair(self):
        """Sections that may hold an ampersand are not counted as repaired."""
        _, dropped = _read(b"<testsuite><x>\x02</x><x><![CDATA[a & b]]><!-- c & d --></x></testsuite>")
        assert [item.reason for item in dropped] == ["a character that XML does not allow (1 in this file)"]

    def test_short_reads_change_nothing(self):
        class Dribble(io.BytesIO):
            def read(self, size=-1):
                return super().read(min(size, 777))

        assert list(iter_cases(Dribble(_many(4000)), "r.xml")) == list(iter_cases(io.BytesIO(_many(4000)), "r.xml"))


CHILD = """
import resource, sys
from fedstep.ingest.junit import iter_cases
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 24 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
with open(sys.argv[1], "rb") as stream:
    print(sum(1 for _ in iter_cases(stream, "r.xml")))
"""


class TestSize:
    @pytest.mark.slow
    @pytest.mark.skipif(sys.platform != "linux", reason="limits the address space through /proc")
    @pytest.mark.parametrize(
        ("kind", "end"),
        [
            pytest.param("dense", b"", id="dense-whole"),
            pytest.param("dense", b"\x1b", id="dense-repaired", marks=pytest.mark.full),
            pytest.param("loud", b"", id="loud-whole", marks=pytest.mark.full),
            pytest.param("loud", b"\x1b", id="loud-repaired", marks=pytest.mark.full),
            pytest.param("one-line", b"", id="one-line-whole"),
            pytest.param("one-line", b"\x1b", id="one-line-repaired"),
        ],
    )
    def test_twenty_megabytes_are_read_in_24_more(self, tmp_path: Path, kind: str, end: bytes):
        case = b'<testcase classname="tests.integration.TestCart" name="test_adds_items" time="0.004" />'
        loud = b'<testcase name="n"><failure type="E">' + b"a &lt; b\n" * 250_000 + b"</failure></testcase>"
        one_line = b"<system-out>" + b"x" * 20_000_000 + b"</system-out>"
        body, count = {"dense": (case * 230_000, 230_000), "loud": (loud * 8, 8), "one-line": (one_line, 0)}[kind]
        report = tmp_path / "r.xml"
        report.write_bytes(b"<testsuite>" + body + b"<x>" + end + b"</x></testsuite>")
        done = subprocess.run([sys.executable, "-c", CHILD, str(report)], capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        assert int(done.stdout) == count + bool(end)


class TestLosses:
    """What was lost is told and counts against `passed`; what could be seen is kept. After public bug reports."""

    @pytest.mark.parametrize(
        ("body", "outcomes", "is_whole"),
        [
            (b"<testcase name='a' time='<1'/><testcase name='b'/>", "pp", True),
            (b"<testcase name='a'><failure message='List<String> is not <T>'/></testcase>"
             b"<testcase name='b'/>", "fp", True),
            (b"<testcase name='f<int>(1)'/><testcase name='b'><error/></testcase>", "pf", True),
            (b"<testcase name='a'><failure>expected <b>x</b></failure></testcase><testcase name='b'/>", "fp", True),
            (b"<testcase name='a'><failure>if a <3 and <unknown>:0</failure></testcase>"
             b"<testcase name='b'/>", "fp", False),
            (b"<testcase name='a'><system-out><html><br></html></system-out></testcase>"
             b"<testcase name='b'/>", "pp", False),
            (b"<testcase name='a'/><testcase name='b'><failure message='x'>text", "pf", False),
            (b"<testcase name='a'/><testcase name='b'", "p", False),
            (b"<testcase name='a'/><testcase name='b'><testcase name='c'/></testcase>", "pp", False),
            (b"<testcase name='a'/><testcase/>", "p", False),
            (b"<testcase name='a' status='failed'/><testcase name='b' status='passed'/>", "fp", True),
            (b"<testcase name='a' result='failure'/><testcase name='b' result='completed'/>", "fp", True),
            (b"<testcase name='a' status='ERROR'/><testcase name='b' status='CANCELED'/>", "fs", True),
            (b"<testcase name='a' status='failed'><skipped/></testcase><testcase name='b' status='run'/>", "sp", True),
            (b"<testcase name='a' status='aborted'/><testcase name='b' status='Crashed'/>", "ff", True),
            (b"<testcase name='a' status='inconclusive'/><testcase name='b' status='pending'/>", "ss", True),
            (b"<failure message='setup'/><testcase name='b'/>", "fp", True),
            (b"<error>no database</error>", "f", True),
            (b"<testcase name='a'><system-out><![CDATA[<![CDATA[x]]> y ]]></system-out></testcase>"
             b"<testcase name='b'><failure/></testcase>", "pf", True),
            (b"<testcase name='a'><failure>a[b[0]]>1</failure></testcase><testcase name='b'/>", "fp", True),
        ],
    )  # fmt: skip
    def test_a_part_that_is_lost_is_told(self, body: bytes, outcomes: str, is_whole: bool) -> None:
        text = b"<testsuite name='s'>" + body + (b"</testsuite>" if body.endswith(b">") else b"")
        reports = read_reports([("r.xml", lambda: io.BytesIO(text))])
        assert "".join(run.outcome for run in reports.tests) == outcomes
        assert all(item.kept for item in reports.dropped) == is_whole
        expected = BuildOutcome.FAILED if "f" in outcomes else BuildOutcome.PASSED if is_whole else BuildOutcome.UNKNOWN
        assert reports.outcome() == expected

    def test_a_failure_of_the_whole_report_is_a_failed_test(self) -> None:
        """An `<error>` or `<failure>` outside of all suites."""
        suite = b"<testsuite name='s'><testcase name='a'/></testsuite>"
        text = b"<testsuites name='run'><error message='x'/>" + suite + b"</testsuites>"
        reports = read_reports([("r.xml", lambda: io.BytesIO(text))])
        assert {run.test: run.outcome.value for run in reports.tests} == {"run#<init>": "f", "s#a": "p"}

    @pytest.mark.parametrize("text", ["\n> shop@1.0.0 test\n> jest\n\n<testsuites/>", "Tests: 3\n{}", "# mocha\n[]"])
    def test_what_stands_before_a_report_is_told(self, text: str) -> None:
        """A report that a runner prints has its own words around it."""
        (item,) = read_reports([("r.xml", lambda: io.BytesIO(text.encode()))]).dropped
        assert not item.kept
        assert f"it begins with {text.strip().partition(chr(10))[0]!r}" in item.reason

    @pytest.mark.parametrize(
        ("attributes", "cases", "told", "outcome"),
        [
            ("tests='2'", 2, 0, BuildOutcome.PASSED), ("tests='3'", 2, 1, BuildOutcome.PASSED),
            ("tests='1'", 2, 1, BuildOutcome.PASSED), ("tests='2' failures='1'", 2, 1, BuildOutcome.UNKNOWN),
            ("tests='2' errors='1'", 2, 1, BuildOutcome.UNKNOWN), ("tests='x'", 0, 0, BuildOutcome.UNKNOWN),
        ],
    )  # fmt: skip
    def test_totals_that_differ_are_told(self, attributes: str, cases: int, told: int, outcome: BuildOutcome) -> None:
        body = "".join(f"<testcase name='n{number}'/>" for number in range(cases))
        text = f"<testsuite name='s' {attributes}>{body}</testsuite>".encode()
        reports = read_reports([("r.xml", lambda: io.BytesIO(text))])
        assert sum(item.is_warning for item in reports.dropped) == told
        assert reports.outcome() == outcome

    @pytest.mark.parametrize("time", ["617095600", "604801", "999638317", "1e12", "-5", "-0.001", "nan", "inf"])
    def test_a_time_that_no_test_takes_is_no_duration(self, time: str) -> None:
        text = f"<testcase name='n' time='{time}'/>".encode()
        reports = read_reports([("r.xml", lambda: io.BytesIO(text))])
        assert str(reports.tests[0].seconds) == "nan"
        assert [item.kept for item in reports.dropped] == [True]

    @pytest.mark.parametrize(
        ("time", "seconds"),
        [("500000000", "0.5"), ("604800000000000", "604800.0"), ("604801000000000", "nan"), ("-5", "nan"),
         ("nan", "nan"), ("inf", "nan"), ("0", "0.0")],
    )  # fmt: skip
    def test_nanoseconds_of_a_known_tool_are_seconds(self, time: str, seconds: str) -> None:
        """Case 4: container-structure-test. The limit of seven days holds for the time that is meant."""
        case = f'<testcase name="File Existence Test: /app" time="{time}"/>'
        text = (
            f'<testsuites failures="0" tests="1" time="1"><testsuite name="s">{case}</testsuite></testsuites>'.encode()
        )
        reports = read_reports([("r.xml", lambda: io.BytesIO(text))])
        assert str(reports.tests[0].seconds) == seconds
        assert len(reports.dropped) == (seconds == "nan")

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ('{"Action":"pass","Package":"p","Test":"T","Elapsed":%s}', "s"),
            ('{"numTotalTests":1,"openHandles":[],"testResults":[{"name":"a","assertionResults":[{"title":"t","fullName":'
             '"t","status":"passed","duration":%s}]}]}', "ms"),
            ('{"results":{"tests":[{"name":"t","status":"passed","duration":%s}]}}', "ms"),
            ('{"stats":{},"tests":[{"title":"t","fullTitle":"t","duration":%s,"err":{}}]}', "ms"),
            ('{"examples":[{"status":"passed","full_description":"t","file_path":"a.rb","run_time":%s}]}', "s"),
        ],
    )  # fmt: skip
    def test_json_has_the_same_limits_in_its_own_unit(self, text: str, seconds: str) -> None:
        """Milliseconds become seconds; longer than seven days, negative, infinite or no number is no duration."""
        factor = 1000 if seconds == "ms" else 1
        for value, expected in ((604_800 * factor, 604_800.0), (1.5 * factor, 1.5), (0, 0.0)):
            assert self._seconds(text % value) == expected
        for bad in (str(604_801 * factor), "-1", "1e999", "-1e999", "NaN", "Infinity", '"soon"', "null", "true"):
            assert str(self._seconds(text % bad)) == "nan", bad

    def _seconds(self, text: str) -> float:
        return read_reports([("r.json", lambda: io.BytesIO(text.encode()))]).tests[0].seconds
