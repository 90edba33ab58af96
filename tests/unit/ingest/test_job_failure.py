"""Why a job failed: infrastructure, code or tests, and which rule decided."""

from pathlib import Path

import pytest

from fedstep.errors import InputError
from fedstep.ingest.job_failure import CODE, INFRASTRUCTURE, NONE, TESTS, UNKNOWN, classify_job, read_log_tail
from fedstep.types import Outcome, Reports, TestRun

PASSED = Reports((TestRun("a#x", Outcome.PASSED),), 1)
FAILED = Reports((TestRun("a#x", Outcome.PASSED), TestRun("a#y", Outcome.FAILED, failure_type="AssertionError")), 1)


class TestCauses:
    @pytest.mark.parametrize(
        ("line", "cause", "rule"),
        [
            ("##[error]The runner has received a shutdown signal.", INFRASTRUCTURE, "runner lost"),
            ("hudson.remoting.ChannelClosedException: Channel closed", INFRASTRUCTURE, "runner lost"),
            ("OSError: [Errno 28] No space left on device", INFRASTRUCTURE, "disk full"),
            ("curl: (6) Could not resolve host: pypi.org", INFRASTRUCTURE, "network"),
            ("toomanyrequests: You have reached your pull rate limit", INFRASTRUCTURE, "registry"),
            ("Could not transfer artifact a:b:jar:1 from central", INFRASTRUCTURE, "registry"),
            ("ERROR: Job failed: execution took longer than 1h0m0s seconds", INFRASTRUCTURE, "time limit"),
            ("[ERROR] COMPILATION ERROR :", CODE, "compilation"),
            ("src/main.rs: error[E0425]: cannot find value `x`", CODE, "compilation"),
            ("ERROR collecting tests/test_a.py", CODE, "collection"),
            ("ModuleNotFoundError: No module named 'shop'", CODE, "import"),
        ],
    )
    def test_a_log_without_failed_tests_tells(self, line: str, cause: str, rule: str) -> None:
        """Lines that CI vendors and build tools really write."""
        job = classify_job(PASSED, f"step 1\n{line}\nstep 3\n", 1)
        assert (job.cause, job.rule.partition(":")[0]) == (cause, rule)
        assert job.run_again == (cause == INFRASTRUCTURE)

    def test_failed_tests_decide_before_a_network_error(self) -> None:
        """A test of a retry writes such a line itself."""
        assert classify_job(FAILED, "could not resolve host: nowhere.invalid", 1).cause == TESTS

    def test_a_lost_runner_decides_before_failed_tests(self) -> None:
        """At the end of the log it ended the job."""
        assert classify_job(FAILED, "lost communication with the server", 1).cause == INFRASTRUCTURE
        early = "lost communication with the server" + "\nline" * 100
        assert classify_job(FAILED, early, 1).cause == TESTS

    def test_the_exit_code_decides_where_the_log_is_silent(self) -> None:
        """137 is a process that was killed."""
        assert classify_job(PASSED, "", 137).cause == INFRASTRUCTURE
        assert classify_job(PASSED, "", 3).cause == UNKNOWN
        assert classify_job(PASSED).cause == NONE

    def test_modules_that_cannot_be_imported_are_code(self) -> None:
        """pytest reports them as tests that failed."""
        run = TestRun("#tests.test_a", Outcome.FAILED, message="collection failure", failure_type="collection")
        assert classify_job(Reports((run,), 1)).cause == CODE


class TestLog:
    def test_only_its_end_is_read(self, tmp_path: Path) -> None:
        """A log may have gigabytes."""
        (tmp_path / "log").write_text("x" * 400_000 + "end")
        assert read_log_tail(str(tmp_path / "log")).endswith("end")
        assert len(read_log_tail(str(tmp_path / "log"))) < 300_000

    def test_a_missing_log_is_an_error_with_a_remedy(self, tmp_path: Path) -> None:
        """The caller names it in a warning and goes on."""
        with pytest.raises(InputError, match="--log"):
            read_log_tail(str(tmp_path / "none"))
