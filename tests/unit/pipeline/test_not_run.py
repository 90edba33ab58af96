"""Which known tests a build does not have, and what made it slower than expected."""

import io

import pytest

from fedstep.history.summary import PastBuild, Summary
from fedstep.history.test_table import TestStats, with_time
from fedstep.ingest.junit import ERRORS_OUTSIDE, read_reports
from fedstep.pipeline.train import find_slower
from fedstep.pipeline.triage import find_not_run, settle_reports
from fedstep.report.wording import describe_not_run
from fedstep.results import Interval, NotRun, SlowerTest
from fedstep.types import (
    Build,
    BuildContext,
    BuildOutcome,
    CiRun,
    Dropped,
    Duration,
    Outcome,
    Reports,
    TestRun,
    Unavailable,
)

CI = CiRun(vendor="github", job="unit")
LOST = Dropped("r.xml:1", ERRORS_OUTSIDE, is_warning=True)
CASE = '<testcase classname="m/a" name="TestA" time="0.1"></testcase>'
GOTESTSUM = (
    '<testsuites tests="1" failures="0" errors="{}" time="0.2"><testsuite tests="1" failures="0" time="0.1" '
    f'name="m/a">{CASE}</testsuite></testsuites>'
)


def history(*tests: str, job: str = "unit", since: int = 4, **older: int) -> Summary:
    """Return a history of five builds in whose last one these tests passed; others ran last in an older one."""
    table = {test: TestStats(test, runs=5, recent="ppppp", last_build=since) for test in tests}
    table |= {test.replace("_", "#"): TestStats(test, runs=5, last_build=build) for test, build in older.items()}
    return Summary(count=5, builds=(PastBuild(f"{job}||tests", 0.0, 1.0, "passed"),), tests=table)


def reports(*tests: str, failed: str = "", skipped: str = "", dropped: tuple[Dropped, ...] = ()) -> Reports:
    runs = [TestRun(test, Outcome.PASSED) for test in tests]
    runs += [TestRun(failed, Outcome.FAILED)] if failed else []
    runs += [TestRun(skipped, Outcome.SKIPPED)] if skipped else []
    return Reports(tuple(runs), 1, dropped)


class TestNotRun:
    def test_without_a_report_the_tests_may_have_run(self) -> None:
        """A wrong --junit is no build in which tests did not run."""
        assert find_not_run(Reports(), history("tests.cart#pays"), CI, is_part=False).tests == ()

    @pytest.mark.parametrize(
        ("failed", "place"),
        [
            ("tests.cart#<init>", "tests.cart"),
            ("tests#<init>", "tests"),
            ("tests.cart.TestCart#setUpClass", "tests.cart.TestCart"),
        ],
    )
    def test_tests_of_what_could_not_be_loaded_are_counted(self, failed: str, place: str) -> None:
        """55 of 482 tests of a module that could not be imported were missing, and nothing said so."""
        known = history("tests.cart.TestCart#adds", "other#b")
        found = find_not_run(reports("other#b", failed=failed), known, CI, is_part=False)
        assert found == NotRun(("tests.cart.TestCart#adds",), (place,), 2, 1, is_complete=True)
        assert describe_not_run(found) == f"1 of 2 known tests: 1 of {place}, which could not be loaded"

    def test_tests_of_an_interrupted_run_are_counted_too(self) -> None:
        """By default pytest runs no test where one module cannot be imported."""
        found = find_not_run(reports(failed="a#<init>"), history("a#x", "b#y", "b#z"), CI, is_part=False)
        assert describe_not_run(found) == "3 of 3 known tests: 1 of a, which could not be loaded, and 2 more"

    def test_a_module_that_is_skipped_is_not_missed(self) -> None:
        found = find_not_run(reports("b#y", skipped="a#<init>"), history("a#x", "b#y"), CI, is_part=False)
        assert found.tests == ()

    def test_tests_of_the_build_before_are_missed_without_a_cause(self) -> None:
        """Jest-junit says nothing of a file that could not be loaded."""
        found = find_not_run(reports("b#y"), history("a#x", "b#y"), CI, is_part=False)
        assert describe_not_run(found) == "1 test that ran in the build before: a#x"

    @pytest.mark.parametrize(
        ("known", "is_part"),
        [
            (history("a#x", "b#y"), True),
            (history("a#x", "b#y", job="other"), False),
            (history("a#x", "b#y", c_z=2, d_z=1), False),
            (Summary(), False),
        ],
        ids=["a selection", "another job came before", "builds run parts", "no history"],
    )
    def test_a_part_of_the_tests_misses_none(self, known: Summary, is_part: bool) -> None:
        assert find_not_run(reports("b#y"), known, CI, is_part=is_part).tests == ()

    def test_what_stands_for_a_module_is_no_test_of_its_own(self) -> None:
        """Once the module can be imported again, nothing is missing."""
        assert not find_not_run(reports("a#x"), history("a#x", "a#<init>"), CI, is_part=False).tests


class TestErrorsOutside:
    """gotestsum counts lines of the Go command: of packages that do not compile, and warnings of a compiler."""

    def test_errors_beside_tests_leave_the_outcome_open(self) -> None:
        """The build was called passed, and 'nothing here looks like a regression', where a package did not compile."""
        read = read_reports([("r.xml", lambda: io.BytesIO(GOTESTSUM.format(1).encode()))])
        assert ([item.reason for item in read.dropped], read.outcome()) == ([ERRORS_OUTSIDE], BuildOutcome.UNKNOWN)
        whole = read_reports([("r.xml", lambda: io.BytesIO(GOTESTSUM.format(0).encode()))])
        assert (whole.dropped, whole.outcome()) == ((), BuildOutcome.PASSED)

    @pytest.mark.parametrize("before", ["m/b#B", "m/b#<init>"])
    def test_a_package_without_its_tests_did_not_compile(self, before: str) -> None:
        """Nor did it in the second build in a row, which was called passed: its tests had not run in the first one."""
        known = history("m/a#A", before)
        known.tests[before].streak = int(before == "m/b#<init>")
        lost = reports("m/a#A", dropped=(LOST,))
        settled, _ = settle_reports(lost, known, CI, is_part=False, is_passed=False)
        assert [run.test for run in settled.tests] == ["m/a#A", "m/b#<init>"]
        assert settled.outcome() == BuildOutcome.FAILED

    def test_its_tests_are_those_that_did_not_run(self) -> None:
        lost = reports("m/a#A", dropped=(LOST,))
        _, not_run = settle_reports(lost, history("m/a#A", "m/b#B"), CI, is_part=False, is_passed=False)
        assert (not_run.tests, not_run.places) == (("m/b#B",), ("m/b",))

    def test_with_all_packages_it_is_a_warning_of_the_compiler(self) -> None:
        """A C compiler that warns does not fail the tests."""
        lost = reports("m/a#A", dropped=(LOST,))
        settled, _ = settle_reports(lost, history("m/a#A"), CI, is_part=False, is_passed=False)
        assert settled.outcome() == BuildOutcome.PASSED

    @pytest.mark.parametrize(("is_passed", "outcome"), [(False, BuildOutcome.UNKNOWN), (True, BuildOutcome.PASSED)])
    def test_without_history_the_outcome_stays_open(self, is_passed: bool, outcome: BuildOutcome) -> None:
        """What is known of the command settles it."""
        lost = reports("m/a#A", dropped=(LOST,))
        settled, _ = settle_reports(lost, Summary(), CI, is_part=False, is_passed=is_passed)
        assert settled.outcome() == outcome


def finished(seconds: float, *runs: TestRun) -> Build:
    place = BuildContext(CI, Unavailable(""), 0.0)
    return Build("", place, seconds, Duration(seconds, "tests"), BuildOutcome.PASSED, Reports(runs, 1))


KNOWN = {test: TestStats(test, times=with_time(with_time("", 1.0), 1.0)) for test in ("a#x", "a#y")}
EXPECTED = Interval(2.0, 1.5, 2.5)


class TestSlower:
    def test_the_test_that_took_the_time_is_named(self) -> None:
        """A build over its expected time said so, and let the reader look for the test."""
        build = finished(12.0, TestRun("a#x", Outcome.PASSED, 11.0), TestRun("a#y", Outcome.PASSED, 1.0))
        (slow,) = find_slower(build, KNOWN, EXPECTED)
        assert (slow.test, slow.seconds) == ("a#x", 11.0)
        assert slow.usual_seconds == pytest.approx(1.0, rel=0.01)

    def test_a_test_without_history_is_named_too(self) -> None:
        build = finished(9.0, TestRun("new#z", Outcome.PASSED, 7.0))
        assert [slow.test for slow in find_slower(build, KNOWN, EXPECTED)] == ["new#z"]
        assert isinstance(find_slower(build, KNOWN, EXPECTED)[0], SlowerTest)

    @pytest.mark.parametrize("seconds", [0.5, 2.0])
    def test_nothing_is_named_in_a_build_within_its_time(self, seconds: float) -> None:
        assert find_slower(finished(seconds, TestRun("a#x", Outcome.PASSED, 11.0)), KNOWN, EXPECTED) == ()
