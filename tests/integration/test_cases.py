"""Each kind of input that was once misread has at least five inputs of its own among the tests."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

UNIT, CLI, PLUGIN = "tests/unit/ingest", "tests/integration/cli", "tests/integration/pytest_plugin"
# By kind of public bug report: the tests whose parameters are inputs of this kind, each with its right value.
CASES: Mapping[str, tuple[str, ...]] = {
    "one name in two suites, files, browsers or cells": (
        f"{UNIT}/test_test_identity.py::TestSuites", f"{UNIT}/test_test_identity.py::TestFiles",
        f"{CLI}/test_unknown_outcomes.py::TestMatrix",
    ),
    "a report that stops, or loses a failure": (f"{UNIT}/test_junit_hostile.py::TestLosses::test_a_part_that_is_lost",),
    "links that lead in circles": (f"{UNIT}/test_report_files.py::TestFolders::test_links_that_lead_in_circles_end",),
    "times that are none": (f"{UNIT}/test_junit_hostile.py::TestLosses::test_a_time_that_no_test_takes",
                            f"{UNIT}/test_junit_hostile.py::TestLosses::test_nanoseconds"),
    "subtests and reruns of pytest": (f"{UNIT}/test_test_identity.py::TestAttempts::test_subtests_and_siblings",),
    "a run of TRX that crashed": (f"{UNIT}/test_formats.py::TestCrashedRuns::test_a_trx_run",),
    "errors of collection that a record loses": (f"{PLUGIN}/test_plugin.py::TestCollectionErrors",),
    "no report is no pass": (f"{CLI}/test_unknown_outcomes.py::TestUnknown",),
    "a report of another day": (f"{UNIT}/test_report_files.py::TestAge",),
    "names with the characters of globs": (f"{UNIT}/test_report_files.py::TestFolders::test_a_name_that_exists",),
    "a shallow clone": (f"{CLI}/test_git_in_ci.py::TestChange::test_a_shallow_pull_request",
                        f"{CLI}/test_git_in_ci.py::TestChange::test_a_clone_of_one_commit"),
    "a partial clone": (f"{CLI}/test_git_in_ci.py::TestChange::test_a_partial_clone",),
    "a merge queue": (f"{UNIT}/test_ci.py::TestBranchesAndEvents::test_the_base_of_a_merge_queue",
                      f"{UNIT}/test_ci.py::TestBranchesAndEvents::test_a_merge_queue"),
    "formats that are no JUnit": (f"{UNIT}/test_formats.py::TestSamples::test_a_sample_gives",),
    "endings of the machine": (f"{CLI}/test_endings.py::",),
    "a cause that is named": (f"{CLI}/test_git_in_ci.py::TestRemedies",),
}  # fmt: skip
FEWEST = 5


@pytest.fixture(scope="module")
def collected() -> list[str]:
    """The ids of all tests in the files of the table."""
    files = sorted({place.partition("::")[0] for places in CASES.values() for place in places})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", "-n", "0", *files]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout.splitlines()


class TestInputs:
    @pytest.mark.parametrize("kind", CASES)
    def test_each_kind_has_inputs_of_its_own(self, kind: str, collected: list[str]) -> None:
        found = [line for line in collected if line.startswith(CASES[kind])]
        assert len(found) >= FEWEST, found
