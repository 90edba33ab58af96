"""The step summary, read back with a real Markdown parser: names stay code, and nothing else comes of them."""

from collections.abc import Callable, Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from fedstep.ingest.code_host import parse_remote
from fedstep.report.markdown import (
    code,
    comment_markdown,
    mark,
    prediction_markdown,
    prose,
    table,
    training_markdown,
    triage_markdown,
)
from fedstep.report.units import visible
from fedstep.results import (
    FailingSince,
    FailureVerdict,
    FeatureContribution,
    ModelUsed,
    Prediction,
    ReportCounts,
    TestRisk,
    TrainReport,
    TriageReport,
)
from fedstep.types import Dropped, Duration, TimeChange, Unavailable

Findings = tuple[Prediction, TriageReport, TrainReport]
PARSER = MarkdownIt("commonmark").enable("table").enable("strikethrough")
OURS = {"<br>", "<sub>", "</sub>", "<details><summary>What was sent</summary>\n", "</details>\n"}


def written(findings: Findings) -> list[str]:
    prediction, triage, training = findings
    return [prediction_markdown(prediction), triage_markdown(triage), training_markdown(training)]


def tokens(markdown: str) -> Iterator[Token]:
    for token in PARSER.parse(markdown):
        yield token
        yield from token.children or ()


def shape(markdown: str) -> list[str]:
    """The kinds of a document's blocks: the same for every name, or a name has become markup."""
    return [token.type for token in PARSER.parse(markdown)]


def assert_only_code(markdown: str) -> None:
    for token in tokens(markdown):
        assert token.type not in {"link_open", "image", "em_open", "s_open"}
        if token.type in {"html_inline", "html_block"}:
            assert token.content in OURS or token.content.startswith("<details><summary>4 report files")
        if token.type == "text":
            assert "evil" not in token.content
            assert "@" not in token.content


class TestHostileNames:
    def test_a_hostile_name_stays_code(self, named: Callable[[str], Findings], hostile: str) -> None:
        name = hostile or " "
        for markdown, ordinary in zip(written(named(name)), written(named("plain")), strict=True):
            assert shape(markdown) == shape(ordinary)
            assert_only_code(markdown)
            assert not any(line.lstrip().startswith("::") for line in markdown.splitlines())

    @settings(max_examples=50, deadline=None)
    @given(st.one_of(st.text(st.characters(codec=None), min_size=1), st.text("`|\\<>a \n&#@[]()*_:$", min_size=1)))
    def test_any_name_stays_code(self, named: Callable[[str], Findings], name: str) -> None:
        for markdown, ordinary in zip(written(named(name)), written(named("plain")), strict=True):
            assert shape(markdown) == shape(ordinary)

    @given(st.text("`|\\<>a &#@x", min_size=1))
    def test_a_name_reads_back_from_its_code_span(self, name: str) -> None:
        shown = visible(name) if name.strip() else "(blank)"
        (span,) = [token for token in tokens(f"before {code(name)} after") if token.type == "code_inline"]
        assert span.content == shown

    @given(st.text("`|\\a x", min_size=1))
    def test_a_name_reads_back_from_its_table_cell(self, name: str) -> None:
        spans = [token for token in tokens(table(("", ""), [("x", code(name))])) if token.type == "code_inline"]
        shown = visible(name) if name.strip() else "(blank)"
        assert [span.content for span in spans] == [shown.replace("\\|", "\\\\x7c")]


class TestProse:
    @given(st.text("`` a,.;:)(<b>@x[]*!", max_size=14))
    @settings(max_examples=300, deadline=None)
    def test_whatever_is_quoted_nothing_becomes_markup(self, text: str) -> None:
        """Code spans that touch would be one, or none."""
        for token in PARSER.parseInline(prose(text))[0].children or ():
            assert token.type in {"text", "code_inline", "softbreak"}
            assert token.type != "text" or not set(token.content) & set("<>@[]*`")

    def test_what_a_message_quotes_is_one_code_span(self) -> None:
        told = "Give the job `permissions: id-token: write`, or set FEDSTEP_TOKEN"
        assert prose(told) == f"{told[:-13]}`FEDSTEP_TOKEN`"


class TestSummary:
    def test_a_summary_of_a_huge_build_stays_under_the_limit(self, named: Callable[[str], Findings]) -> None:
        name = "<é漢`|" * 10_000
        prediction, triage, training = named(name)
        failures = tuple(
            FailureVerdict(name, 0.5, triage.failures[0].reasons, "unsure", name, name, 1) for _ in range(20_000)
        )
        risks = tuple(TestRisk(name, 0.5, prediction.flaky[0].reasons) for _ in range(20_000))
        reading = ReportCounts(1, 1, (Dropped(name, name),) * 20_000)
        warnings = (name,) * 20_000
        huge = training._replace(failures=failures, flakiest=risks, reading=reading, warnings=warnings)
        markdown = training_markdown(huge)
        assert len(markdown.encode()) < 900_000
        assert "and 19,900 more" in markdown
        assert len(prediction_markdown(prediction._replace(flaky=risks, warnings=warnings)).encode()) < 900_000
        assert (
            len(triage_markdown(triage._replace(failures=failures, reading=reading, warnings=warnings)).encode())
            < 900_000
        )

    def test_training_compares_expected_and_actual_time(self, ordinary: Findings) -> None:
        markdown = training_markdown(ordinary[2])
        assert "| 4 min 22 s | 4 min 10 s | 3 min 32 s – 5 min 05 s | inside | 4 min 41 s |" in markdown
        assert "[=====o=x======]" in markdown
        assert "1 update sent (3.1 kB); candidate 41 → 42, production 40 → 41" in markdown
        assert "flaky 32+, build-duration 8+" in markdown

    def test_every_point_of_the_drawing_is_explained(self, ordinary: Findings) -> None:
        """One star stands for both where the build took what was expected."""
        exact = ordinary[2]._replace(duration=Duration(250.0, "jenkins"))
        assert "[ ] 90 % interval   * expected and actual" in training_markdown(exact)
        assert "[ ] 90 % interval   o expected   x actual" in training_markdown(ordinary[2])

    def test_the_same_reasons_are_told_once(self, ordinary: Findings) -> None:
        reasons = (FeatureContribution("evidence-companions=-5.4", -7.9),)
        failures = (
            FailureVerdict("a#b", 0.1, reasons, "regression", signature="1"),
            FailureVerdict("a#c", 0.1, reasons, "regression", signature="2"),
        )
        markdown = triage_markdown(ordinary[1]._replace(failures=failures))
        assert markdown.count("other tests of its package began to fail with it") == 1
        assert markdown.count("for the same reasons as the failure above") == 1

    def test_a_test_without_history_is_so_once(self, ordinary: Findings) -> None:
        """'a test without history' stood above '− no history yet', as if that had lowered something."""
        new = FailureVerdict("a#b", 0.1, (FeatureContribution("runs-known=0", 0.0),), "regression")
        markdown = triage_markdown(ordinary[1]._replace(failures=(new,)))
        assert "a test without history" in markdown
        assert "no history yet" not in markdown

    def test_the_first_build_of_a_new_user_reads_well(self, nothing_known: Findings) -> None:
        prediction, triage, training = written(nothing_known)
        assert "not known: no build of this project is known yet" in prediction
        assert "no test was read" in triage
        assert "Nothing was exchanged: no aggregator is configured" in training

    def test_an_incident_is_called_one(self) -> None:
        triage = TriageReport(
            "ok", (), ModelUsed(), ReportCounts(), incident=True, incident_reason="61 of 80 tests failed at once"
        )
        assert (
            "**Incident**, look for one cause, single tests are not judged: 61 of 80 tests failed at once"
            in triage_markdown(triage)
        )

    def test_absence_gives_its_reason(self) -> None:
        prediction = Prediction(
            "local", Unavailable("3 builds seen, 5 needed"), Unavailable("no branch"), (), ModelUsed()
        )
        assert "not known: 3 builds seen, 5 needed" in prediction_markdown(prediction)


class TestLinks:
    OLD, NEW = "1" * 40, "2" * 40
    HOST = parse_remote("https://x:s3cr3t@github.com/acme/shop.git")

    def hrefs(self, markdown: str) -> list[object]:
        return [token.attrs["href"] for token in tokens(markdown) if token.type == "link_open"]

    def test_a_change_of_time_leads_to_what_changed(self, named: Callable[[str], Findings]) -> None:
        training = named("a.B#c")[2]
        change = TimeChange("test", "a.B#c", 0.5, 1.5, self.OLD, self.NEW, 1.0, 2.0, "b")
        markdown = training_markdown(training._replace(failures=(), changes=(change,)), self.HOST)
        assert self.hrefs(markdown) == [f"https://github.com/acme/shop/compare/{self.OLD}...{self.NEW}"]
        assert "s3cr3t" not in markdown
        assert self.hrefs(training_markdown(training._replace(failures=(), changes=(change,)))) == []

    def test_a_failing_test_leads_to_what_broke_it(self, named: Callable[[str], Findings]) -> None:
        triage = named("a.B#c")[1]
        since = FailingSince(3, self.NEW, self.OLD)
        failing = FailureVerdict("a.B#c", 0.1, kind="failing", since=since)
        told = triage._replace(failures=(failing,))
        wanted = [f"https://github.com/acme/shop/compare/{self.OLD}...{self.NEW}"]
        assert self.hrefs(triage_markdown(told, self.HOST)) == wanted
        assert self.hrefs(comment_markdown(told, mark("00"), "unit", "", self.HOST)) == wanted

    def test_a_hostile_commit_is_no_link(self, named: Callable[[str], Findings]) -> None:
        evil = "](https://evil.example.org)"
        change = TimeChange("test", "a.B#c", 0.5, 1.5, evil, evil, 1.0, 2.0, "b")
        markdown = training_markdown(named("a.B#c")[2]._replace(failures=(), changes=(change,)), self.HOST)
        assert "evil.example.org)" not in str(self.hrefs(markdown))
