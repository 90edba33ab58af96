"""What holds for any report: nothing raises, nothing is invented, and what was written is what is read."""

import io
import math
from xml.sax.saxutils import quoteattr

from hypothesis import given
from hypothesis import strategies as st

from fedstep.ingest.junit import iter_cases, read_reports
from fedstep.ingest.test_identity import combine_outcomes
from fedstep.types import MAX_SECONDS, Dropped, Outcome, Reports, TestRun
from tests.helpers.narrow import expect

CHILDREN = {
    Outcome.PASSED: "<system-out><![CDATA[a & <b>]]></system-out>",
    Outcome.FAILED: "<failure type='E'>text &amp; more</failure>",
    Outcome.CONFIRMED: "<error/><rerunError/>",
    Outcome.FLAKED: "<flakyFailure><stackTrace/></flakyFailure>",
    Outcome.SKIPPED: "<skipped message='later'/>",
}
FRAGMENTS = [
    b"<testsuites>", b"<testsuite name='s'>", b"<testcase name='n' time='1,5'>", b"<testcase classname='c' name='m'/>",
    b"<failure message='E: x'>", b"</failure>", b"</testcase>", b"</testsuite>", b"</testsuites>", b"<!DOCTYPE a [",
    b"<!ENTITY b 'c'>", b"]>", b"<![CDATA[", b"]]>", b"<!--", b"-->", b"&#x1b;", b"&#99999999;", b"&b;", b"&", b"\x00",
    b"\xff\xfe", b"\xef\xbb\xbf", b"\xe9", b"<?xml version='1.0' encoding='utf-16'?>", b"<?xml encoding='cp1252'?>",
    b"<a:testcase b:name='x'/>", b"&#xD800;", b"&#_1;", b"<?", b"?>", b"'", b'"', b">", b"]", b"\n",
]  # fmt: skip
documents = st.binary(max_size=200) | st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=5)).map(b"".join)
names = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="\\"), min_size=1, max_size=20)
classes = names.filter(lambda name: name != "test")  # in such a document it is Node's name for every class
cases = st.tuples(classes, names, st.sampled_from(list(Outcome)), st.floats(0, MAX_SECONDS))


def _document(rows: list[tuple[str, str, Outcome, float]]) -> bytes:
    body = "".join(
        f"<testcase classname={quoteattr(group)} name={quoteattr(name)} time='{time!r}'>{CHILDREN[outcome]}</testcase>"
        for group, name, outcome, time in rows
    )
    head = "<?xml version='1.0' encoding='utf-8'?>"
    return f"{head}\n<testsuites><testsuite name='s'>{body}</testsuite></testsuites>".encode()


class TestReports:
    @given(documents)
    def test_any_bytes_give_runs_and_notes_and_never_raise(self, document):
        items = list(iter_cases(io.BytesIO(document), "r.xml"))
        assert all(isinstance(item, TestRun | Dropped) for item in items)
        assert all(i.seconds >= 0 or math.isnan(i.seconds) for i in items if isinstance(i, TestRun))
        assert isinstance(read_reports([("r.xml", lambda: io.BytesIO(document))]), Reports)

    @given(st.lists(st.sampled_from(FRAGMENTS)).map(b"".join))
    def test_whatever_follows_a_complete_case_the_case_is_kept(self, rest):
        items = list(iter_cases(io.BytesIO(b"<testsuite><testcase name='first'/>" + rest), "r.xml"))
        assert [i.test for i in items if isinstance(i, TestRun)].count("#first") == 1

    @given(st.lists(cases, max_size=20))
    def test_written_cases_are_read_back(self, rows):
        items = list(iter_cases(io.BytesIO(_document(rows)), "r.xml"))
        expected = [(f"{group.removeprefix('./')}#{name}", outcome, time) for group, name, outcome, time in rows]
        runs = [expect(TestRun, item) for item in items]
        assert [(run.test, run.outcome, run.seconds) for run in runs] == expected

    @given(st.lists(cases, max_size=8), st.data())
    def test_a_report_cut_at_any_byte_keeps_a_prefix_of_its_cases(self, rows, data):
        document = _document(rows)
        cut = document[: data.draw(st.integers(0, len(document)))]
        whole = list(iter_cases(io.BytesIO(document), "r.xml"))
        kept = [item for item in iter_cases(io.BytesIO(cut), "r.xml") if isinstance(item, TestRun)]
        complete = cut.count(b"</testcase>")
        assert kept[:complete] == whole[:complete]
        assert [run.outcome for run in kept[complete:]] in ([], [Outcome.FAILED], [Outcome.CONFIRMED])


class TestAttempts:
    @given(st.lists(st.sampled_from(list(Outcome)), min_size=1, max_size=6), st.randoms())
    def test_attempts_settle_the_same_in_any_order_and_grouping(self, outcomes, random):
        text = "".join(outcomes)
        cut = random.randrange(1, len(text) + 1)
        parts = [part for part in (text[:cut], text[cut:]) if part]
        assert combine_outcomes("".join(combine_outcomes(part) for part in parts)) == combine_outcomes(text)
        random.shuffle(outcomes)
        assert combine_outcomes("".join(outcomes)) == combine_outcomes(text)
