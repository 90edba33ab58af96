"""The comment on a pull request: short enough, names stay code, the mark comes first."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fedstep.report.markdown import comment_markdown, is_worth_a_comment, mark
from fedstep.results import FailureVerdict, ModelUsed, Prediction, ReportCounts, TrainReport, TriageReport

Findings = tuple[Prediction, TriageReport, TrainReport]
PARSER = MarkdownIt("commonmark").enable("table")
MARK = mark("0123abcd")


def written(finding: TriageReport | TrainReport, job: str = "test") -> str:
    return comment_markdown(finding, MARK, job, "https://ci.example/acme/shop/actions/runs/5")


def shape(markdown: str) -> list[str]:
    return [token.type for token in PARSER.parse(markdown)]


class TestComment:
    def test_it_says_failures_time_and_where_the_rest_is(self, ordinary: Findings) -> None:
        text = written(ordinary[2]._replace(incident=False))
        assert text.startswith(MARK + "\n")
        assert "fedstep: 1 likely regression, 1 likely flaky in `test`" in text
        assert text.index("CartTest#totals") < text.rindex("RetryTest"), "the urgent one first"
        assert "It took 4 min 22 s; expected 4 min 10 s, 90 % between 3 min 32 s and 5 min 05 s." in text
        assert "[summary of the run](https://ci.example/acme/shop/actions/runs/5)" in text

    def test_a_hostile_name_stays_code_and_makes_no_second_mark(
        self, named: Callable[[str], Findings], hostile: str
    ) -> None:
        name = hostile or " "
        (_, triage, training), (_, plain_triage, plain_training) = named(name), named("plain")
        assert shape(written(triage, name)) == shape(written(plain_triage, "plain"))
        assert shape(written(training, name)) == shape(written(plain_training, "plain"))

    @given(st.text("`|\\<>!-a \n@#", min_size=1))
    def test_any_name_stays_code(self, named: Callable[[str], Findings], name: str) -> None:
        assert shape(written(named(name)[1], name)) == shape(written(named("plain")[1], "plain"))

    @pytest.mark.parametrize("name", ["<é漢`|" * 10_000, "|" * 10_000, "short"])
    def test_it_is_never_longer_than_github_takes(self, named: Callable[[str], Findings], name: str) -> None:
        triage = named(name)[1]
        failure = FailureVerdict(name, 0.5, triage.failures[0].reasons * 5, "unsure", name, name, 1)
        text = written(triage._replace(failures=(failure,) * 30_000), name)
        assert len(text) <= 65_536
        assert "more" in text

    def test_only_failures_and_incidents_are_worth_telling_anybody(self) -> None:
        quiet = TriageReport("ok", (), ModelUsed(), ReportCounts())
        assert not is_worth_a_comment(quiet)
        assert is_worth_a_comment(quiet._replace(failures=(FailureVerdict("a", 0.5),)))
        incident = quiet._replace(incident=True, incident_reason="61 of 80 tests failed at once")
        assert is_worth_a_comment(incident)
        assert (
            "**Incident**, look for one cause, single tests are not judged: 61 of 80 tests failed at once"
            in written(incident)
        )
        assert "no test was read" in written(quiet)
