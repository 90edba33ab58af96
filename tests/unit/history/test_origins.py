"""Which test of the history a test of a build is, where several have one class and name; from real reports."""

import io
from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedstep.errors import HistoryError
from fedstep.history.records import BuildRecord, decode_record, encode_record
from fedstep.history.summary import Summary, apply_record
from fedstep.history.test_table import match_origins, taken_ids, with_known_ids
from fedstep.ingest.junit import read_reports
from fedstep.ingest.mutes import Mute, Mutes, find_mute
from fedstep.types import BuildOutcome, Reports, fingerprint

WEB, API, DB = "cart#adds", "api::cart#adds", "db::cart#adds"


def report(*suites: str, failed: str = "") -> str:
    """Return a report with the test `cart#adds` in each of these suites."""
    cases = {suite: "<failure type='E'/>" if suite == failed else "" for suite in suites}
    inside = (
        f"<testsuite name='{suite}'><testcase classname='cart' name='adds' time='0.{place}'>{case}</testcase>"
        "</testsuite>"
        for place, (suite, case) in enumerate(cases.items(), 1)
    )
    return f"<testsuites>{''.join(inside)}</testsuites>"


def read(files: Mapping[str, str]) -> Reports:
    return read_reports([(path, lambda text=text: io.BytesIO(text.encode())) for path, text in files.items()])


def recorded(summary: Summary, *suites: str, failed: str = "", **files: str) -> BuildRecord:
    """Return the record of a build with these suites in one report, or with these files ("a__r" for "a/r.xml")."""
    named = {f"{path.replace('__', '/')}.xml": text for path, text in files.items()}
    reports = with_known_ids(read(named or {"report.xml": report(*suites, failed=failed)}), summary.tests)
    return BuildRecord(
        f"{summary.count:032x}", float(summary.count), summary.count + 60.0, 60.0, "unit||mark", BuildOutcome.PASSED,
        tests=reports.tests, origins=tuple(map(fingerprint, reports.origins)),
    )  # fmt: skip


def build(summary: Summary, *suites: str, failed: str = "", **files: str) -> Summary:
    """Return the summary after one more build, whose record was written and read in between."""
    record = decode_record(encode_record(recorded(summary, *suites, failed=failed, **files)))
    return apply_record(summary, record.name, record)


def builds(*each: tuple[str, ...]) -> dict[str, str]:
    """Return the recent outcomes of each test after these builds; a suite with "!" fails."""
    summary = Summary()
    for suites in each:
        failed = next((suite[:-1] for suite in suites if suite.endswith("!")), "")
        summary = build(summary, *(suite.rstrip("!") for suite in suites), failed=failed)
    return {test: stats.recent for test, stats in summary.tests.items()}


class TestSecondTestOfOneName:
    @pytest.mark.parametrize("both", [("web", "api"), ("api", "web")])
    def test_the_first_keeps_its_id_and_history(self, both: tuple[str, ...]) -> None:
        assert builds(("web!",), ("web",), both, both) == {WEB: "fppp", API: "pp"}

    def test_the_newcomer_keeps_its_id_when_it_runs_alone(self) -> None:
        assert builds(("web",), ("web", "api!"), ("api!",), ("web",)) == {WEB: "ppp", API: "ff"}

    def test_the_newcomer_keeps_its_id_when_the_first_is_gone(self) -> None:
        assert builds(("web!",), ("web", "api"), *[("api",)] * 4) == {WEB: "fp", API: "ppppp"}

    def test_the_first_is_known_again_when_it_returns(self) -> None:
        assert builds(("web!",), ("web", "api"), ("api",), ("web", "api"), ("web",)) == {WEB: "fppp", API: "ppp"}

    @pytest.mark.parametrize("order", list(permutations(("web", "api", "db"))))
    def test_the_order_in_a_report_does_not_matter(self, order: tuple[str, ...]) -> None:
        assert builds(("web!",), order, order) == {WEB: "fpp", API: "pp", DB: "pp"}

    def test_two_newcomers_at_once_both_have_their_suite(self) -> None:
        """Neither of them came first, so that the short id is of neither."""
        both = ("web", "api")
        assert builds(both, ("web!",), both, ("api!",)) == {"web::cart#adds": "pfp", API: "ppf"}

    def test_a_third_that_runs_alone_is_no_earlier_one(self) -> None:
        """Another job runs it: neither the first nor the second test gets its failure."""
        found = builds(("web",), ("web", "api"), ("db!",), ("web", "api"), ("db",), ("web", "api", "db"))
        assert found == {WEB: "pppp", API: "ppp", DB: "fpp"}

    def test_a_suite_that_is_renamed_alone_keeps_the_history(self) -> None:
        """As long as one test has the name, its suite is no part of what it is."""
        assert builds(("web!",), ("shop",), ("shop", "api")) == {"cart#adds": "fpp", API: "p"}

    @pytest.mark.parametrize(
        ("first", "both", "ids"),
        [
            ({"linux__r": report("s")}, {"linux__r": report("s"), "windows__r": report("s", failed="s")},
             {"cart#adds": "pp", "cart#[windows] adds": "f"}),
            ({"junit-1": report("s")}, {"junit-1": report("s"), "junit-2": report("s", failed="s")},
             {"cart#adds": "pp", "cart#[junit-2] adds": "f"}),
            ({"r": report("s").replace("<testcase", "<testcase file='a.py'")},
             {"r": report("s").replace("<testcase", "<testcase file='a.py'"),
              "q": report("s", failed="s").replace("<testcase", "<testcase file='b.py'")},
             {"cart#adds": "pp", "b.py::cart#adds": "f"}),
        ],
    )  # fmt: skip
    def test_folder_report_and_file_tell_the_first_too(
        self, first: dict[str, str], both: dict[str, str], ids: dict[str, str]
    ) -> None:
        summary = build(build(Summary(), **first), **both)
        assert {test: stats.recent for test, stats in summary.tests.items()} == ids

    def test_a_report_that_is_divided_says_nothing_of_the_first(self) -> None:
        """Whose past it is cannot be known: both begin anew, which is better than the past of another."""
        summary = build(Summary(), junit=report("s"))
        summary = build(summary, a__junit=report("s"), b__junit=report("s", failed="s"))
        assert {test: stats.recent for test, stats in summary.tests.items()} == {
            "cart#adds": "p", "cart#[a] adds": "p", "cart#[b] adds": "f"
        }  # fmt: skip

    @given(st.lists(st.sets(st.sampled_from(("web", "api", "db")), min_size=1), max_size=8))
    @settings(max_examples=60, deadline=None)
    def test_a_test_has_one_id_once_it_was_told_apart(self, sets: list[set[str]]) -> None:
        """After a first build of web alone and one of all, each build adds one run to each test that ran."""
        found = builds(("web",), ("web", "api", "db"), *(tuple(sorted(suites)) for suites in sets))
        ran = {name: sum(name in suites for suites in sets) + 1 for name in ("web", "api", "db")}
        assert {test: len(recent) for test, recent in found.items()} == {
            WEB: ran["web"] + 1, API: ran["api"], DB: ran["db"]
        }  # fmt: skip


class TestMergedHistories:
    def test_a_clone_without_the_history_named_it_otherwise(self) -> None:
        """Its record has the longer id; applied after the others, it continues the same test."""
        summary = build(build(Summary(), "web", failed="web"), "web", "api")
        stranger = recorded(Summary(), "web", "api")
        assert {run.test for run in stranger.tests} == {"web::cart#adds", API}
        merged = apply_record(summary, "stranger", stranger)
        assert {test: stats.recent for test, stats in merged.tests.items()} == {WEB: "fpp", API: "pp"}

    def test_records_of_two_clones_give_one_table_in_their_order(self) -> None:
        """The table is made of the records alone, so that merging them twice or elsewhere gives the same."""
        first = recorded(Summary(), "web")
        once = apply_record(Summary(), "1", first)
        second, other = recorded(once, "web", "api"), recorded(once, "api", "web", failed="api")
        tables = [apply_record(apply_record(once, "2", second), "3", other).tests for _ in range(2)]
        assert tables[0] == tables[1]
        assert {test: stats.recent for test, stats in tables[0].items()} == {WEB: "ppp", API: "pf"}

    def test_a_clone_that_saw_the_newcomer_alone_is_matched(self) -> None:
        summary = build(build(Summary(), "web"), "web", "api")
        stranger = recorded(Summary(), "api", failed="api")
        assert [run.test for run in stranger.tests] == ["cart#adds"]
        merged = apply_record(summary, "stranger", stranger)
        assert {test: stats.recent for test, stats in merged.tests.items()} == {WEB: "pp", API: "pf"}


class TestHistoriesOfBefore:
    def test_a_record_without_origins_is_read(self) -> None:
        record = recorded(Summary(), "web")._replace(origins=())
        assert decode_record(encode_record(record)).origins == ()

    def test_its_test_goes_on_and_gets_an_origin(self) -> None:
        """The first build with one test of the name tells whose the short id is."""
        record = recorded(Summary(), "web", failed="web")._replace(origins=())
        summary = apply_record(Summary(), "old", record)
        assert taken_ids(summary.tests) == frozenset()
        summary = build(build(summary, "web"), "web", "api")
        assert {test: stats.recent for test, stats in summary.tests.items()} == {WEB: "fpp", API: "p"}

    def test_one_that_two_tests_may_have_shared_stays_behind(self) -> None:
        record = recorded(Summary(), "web", failed="web")._replace(origins=())
        summary = build(apply_record(Summary(), "old", record), "web", "api")
        assert {test: stats.recent for test, stats in summary.tests.items()} == {
            "cart#adds": "f", "web::cart#adds": "p", API: "p"
        }  # fmt: skip

    def test_origins_of_another_number_are_damage(self) -> None:
        record = recorded(Summary(), "web", "api")
        with pytest.raises(HistoryError, match="damaged"):
            decode_record(encode_record(record._replace(origins=record.origins[:1])))


class TestMutes:
    MUTES = Mutes((Mute("cart#adds", "ada", "#7", "2030-12-31"),))

    def test_a_mute_of_the_first_is_none_of_the_newcomer(self) -> None:
        tests = build(build(Summary(), "web"), "web", "api").tests
        assert find_mute(WEB, self.MUTES, taken_ids(tests))
        assert find_mute(API, self.MUTES, taken_ids(tests)) == ()

    def test_a_mute_of_before_holds_for_those_that_shared_the_id(self) -> None:
        tests = build(Summary(), "web", "api").tests
        assert find_mute(API, self.MUTES, taken_ids(tests))


class TestUsualProject:
    def test_a_usual_project_pays_nothing(self) -> None:
        """Where no two tests share class and name, the reports are those that were read."""
        reports = read({"report.xml": report("web")})
        tests = build(Summary(), "web").tests
        assert with_known_ids(reports, tests) is reports
        assert match_origins(tests, {}).ids == {}
        assert replace(tests["cart#adds"], origin="").origin == ""
