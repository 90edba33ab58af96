"""Why a job failed: infrastructure, code or tests, and which rule decided."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from fedstep.errors import InputError
from fedstep.ingest.job_failure import (
    CODE,
    INFRASTRUCTURE,
    NONE,
    TESTS,
    UNKNOWN,
    JobFailure,
    classify_job,
    read_log_tail,
)
from fedstep.types import Outcome, Reports, TestRun

PASSED = Reports((TestRun("a#x", Outcome.PASSED),), 1)
FAILED = Reports((TestRun("a#x", Outcome.PASSED), TestRun("a#y", Outcome.FAILED, failure_type="AssertionError")), 1)


# The ends of real jobs: the lines are in the form that the programs wrote in the threads named behind them, with hosts,
# paths and identifiers of our own.
TAILS = {
    "github shutdown": (  # github.com/actions/runner/issues/2427
        """2023-02-09T20:11:40.1200000Z tests/test_cart.py .......
2023-02-09T20:11:49.9484027Z ##[error]The runner has received a shutdown signal. This can happen when
the runner service is stopped, or a manually started runner is canceled.
2023-02-09T20:11:49.9966268Z ##[error]The operation was canceled.
2023-02-09T20:11:50.1524223Z Cleaning up orphan processes
""",
        "runner lost",
    ),
    "github lost": (  # github.com/fedimint/fedimint/issues/6021
        "The hosted runner: GitHub Actions 9 lost communication with the server. Anything in your workflow that "
        "terminates the runner process, starves it for CPU/Memory, or blocks its network access can cause this error.",
        "runner lost",
    ),
    "github disk": (  # github.com/actions/runner-images/issues/10699
        """System.IO.IOException: No space left on device : '/home/runner/runners/2.300.0/_diag/Worker_1-utc.log'
   at System.IO.RandomAccess.WriteAtOffset(SafeFileHandle handle, ReadOnlySpan`1 buffer, Int64 fileOffset)
   at GitHub.Runner.Worker.Worker.RunAsync(String pipeIn, String pipeOut)
""",
        "disk full",
    ),
    "jenkins channel": (  # github.com/adoptium/temurin-build/issues/1450
        """FATAL: command execution failed
java.nio.channels.ClosedChannelException
\tat org.jenkinsci.remoting.protocol.NetworkLayer.onRecvClosed(NetworkLayer.java:154)
Caused: java.io.IOException: Backing channel 'JNLP4-connect connection from build-7.example.org' is disconnected.
\tat hudson.remoting.RemoteInvocationHandler.channelOrFail(RemoteInvocationHandler.java:216)
""",
        "runner lost",
    ),
    "jenkins offline": (  # github.com/dotnet/corefx/issues/8671
        """Slave went offline during the build
14:40:45 ERROR: Connection was broken: java.io.IOException: Connection aborted: NioChannelHub[name=mac-04]
14:40:45    at org.jenkinsci.remoting.nio.NioChannelHub$NioTransport.abort(NioChannelHub.java:208)
""",
        "runner lost",
    ),
    "gitlab pod": (  # github.com/kubernetes-sigs/kubespray/issues/8451
        """Waiting for pod gitlab/runner-1-project-2-concurrent-0 to be running, status is Pending
ERROR: Job failed (system failure): prepare environment: waiting for pod running: timed out waiting for pod to start.
""",
        "runner lost",
    ),
    "gitlab container": (  # github.com/espressomd/espresso/issues/2742
        "ERROR: Job failed (system failure): Error response from daemon: No such container: 1cfc (executor_docker.go)",
        "runner lost",
    ),
    "docker pulls": (  # github.com/ksnip/ksnip/issues/655
        """Unable to find image 'ubuntu:18.04' locally
docker: Error response from daemon: toomanyrequests: You have reached your pull rate limit.
""",
        "registry",
    ),
    "docker retries": (  # github.com/alexklibisz/terraform-provider-terrifi/issues/50
        "Pulling\ntoomanyrequests: retry-after: 985.86µs, allowed: 44000/minute\nProcess completed with exit code 1",
        "registry",
    ),
    "maven central": (  # github.com/apache/drill/pull/2411
        """[ERROR] Failed to execute goal on project shop: Could not resolve dependencies for project
Could not transfer artifact org.example:bank:pom:3.2.6 from/to central (https://repo.example.org): transfer failed
Connection timed out (Read failed) -> [Help 1]
""",
        "registry",
    ),
    "npm": (  # github.com/npm/cli/issues/8015
        """npm ERR! code ECONNRESET
npm ERR! errno ECONNRESET
npm ERR! network Invalid response body while trying to fetch https://registry.npmjs.org/@types%2fnode: aborted
npm ERR! network This is a problem related to network connectivity.
""",
        "registry",
    ),
    "git": (  # github.com/ocurrent/ocaml-ci/issues/1021
        """fatal: unable to access 'https://github.com/example/shop/': Could not resolve host: github.com
2025-08-22 11:47.17: Job failed: Failed: Build failed
""",
        "network",
    ),
    "git over ssh": (  # github.com/npm/npm/issues/19167
        "Failed to connect to github.com port 443: Network is unreachable\nfatal: The remote end hung up unexpectedly",
        "network",
    ),
    "azure": (  # github.com/dotnet/dnceng/issues/1886
        "##[error]We stopped hearing from agent Azure Pipelines 32. Verify the agent machine is running and has a "
        "healthy network connection. Anything that terminates an agent process can cause this error.",
        "runner lost",
    ),
    "jenkins contact": (  # github.com/adoptium/infrastructure/issues/1395
        """20:28:49  Cannot contact mac-04: java.lang.InterruptedException
20:35:47  wrapper script does not seem to be touching the log file in /Users/jenkins/workspace/shop@tmp/durable-22ec
""",
        "runner lost",
    ),
    "gitlab docker": (  # github.com/DataBiosphere/azul/issues/6082
        """ERROR: Preparation failed: Cannot connect to the Docker daemon at tcp://dind:2375. Is it running?
Will be retried in 3s ...
""",
        "container engine",
    ),
    "gradle": (  # github.com/Exceptionflug/protocolize/issues/156
        """Execution failed for task ':bungee:compileJava'.
> Could not resolve all files for configuration ':bungee:compileClasspath'.
            > Could not GET 'https://mvn.example.org/shop.pom'. Received status code 504 from server: Gateway Timeout
""",
        "registry",
    ),
    "apt": (  # github.com/hivemq/hivemq-community-edition/issues/177
        """E: Failed to fetch http://deb.debian.org/debian/pool/main/g/gnupg-l10n_2.2.12_all.deb  Hash Sum mismatch
E: Unable to fetch some archives, maybe run apt-get update or try with --fix-missing?
""",
        "registry",
    ),
    "go proxy": (  # github.com/golang/go/issues/35516
        "go: cloud.google.com/go@v0.38.0: Get https://proxy.golang.org/go/@v/v0.38.0.mod: dial tcp: i/o timeout",
        "network",
    ),
    "nuget": (  # github.com/MicrosoftDocs/mslearn-dotnet-kubernetes/issues/4
        "/src/shop.csproj : error NU1301: Unable to load the service index for source https://api.nuget.org/v3/index.json.",
        "registry",
    ),
    "yarn": (  # github.com/opstrace/opstrace/issues/873
        """info There appears to be trouble with your network connection. Retrying...
error An unexpected error occurred: "https://registry.yarnpkg.com/a/-/a-4.11.2.tgz: ESOCKETTIMEDOUT".
""",
        "network",
    ),
    "circleci": ('Received "killed" signal', "out of memory"),  # github.com/digitalfabrik/integreat-cms/issues/2203
    "circleci memory": (  # github.com/Homebrew/linuxbrew-core/pull/1759
        "Your build has exceeded the memory limit of 4G on 1 container.",
        "out of memory",
    ),
    "circleci output": (  # github.com/skupperproject/skupper/pull/252
        "Too long with no output (exceeded 10m0s): context deadline exceeded",
        "time limit",
    ),
}

LOGS = Path(__file__).parents[2] / "data" / "logs"
with (LOGS / "index.csv").open(encoding="utf-8", newline="") as file:
    RECORDED = tuple(csv.DictReader(file))


class TestRecorded:
    """Logs of real tools that really failed: see tests/data/logs/README.md."""

    def test_each_is_what_it_was(self) -> None:
        """By the log and the exit code alone; the table of what was and what it was called is printed."""
        table = Counter((one["cause"], judge(one, Reports()).cause) for one in RECORDED)
        kinds = (INFRASTRUCTURE, CODE, TESTS, UNKNOWN, NONE)
        print(f"{'was, called':16}", *(f"{called:>14}" for called in kinds))
        for was in kinds[:3]:
            print(f"{was:16}", *(f"{table[was, called]:>14}" for called in kinds))
        wrong = [one["name"] for one in RECORDED if judge(one, Reports()).cause != one["cause"]]
        assert wrong == [one["name"] for one in RECORDED if one["used"] == "not told"] == ["pip-503"]

    @pytest.mark.parametrize("cause", [INFRASTRUCTURE, CODE, TESTS])
    def test_five_of_each_cause_were_held_out(self, cause: str) -> None:
        """The rules were not written from them."""
        assert sum((one["cause"], one["used"]) == (cause, "held out") for one in RECORDED) >= 5

    @pytest.mark.parametrize("name", [one["name"] for one in RECORDED if one["cause"] == TESTS])
    def test_the_report_of_a_failed_test_agrees_with_its_log(self, name: str) -> None:
        """What a failed test writes is no reason to run the job again."""
        (recorded,) = (one for one in RECORDED if one["name"] == name)
        assert judge(recorded, FAILED).cause == TESTS


def judge(recorded: dict[str, str], reports: Reports) -> JobFailure:
    log = (LOGS / f"{recorded['name']}.log").read_text(encoding="utf-8")
    return classify_job(reports, log, int(recorded["exit"]))


class TestCauses:
    @pytest.mark.parametrize(("tail", "rule"), TAILS.values(), ids=TAILS)
    def test_the_end_of_a_real_job_tells_its_cause(self, tail: str, rule: str) -> None:
        job = classify_job(PASSED, f"Run make test\n{tail}", 1)
        assert (job.cause, job.rule.partition(":")[0]) == (INFRASTRUCTURE, rule)

    @pytest.mark.parametrize("clock", ["2023-02-09T20:11:49.9484027Z ", "12:22:32 ", "[15:50:52.950] "])
    def test_the_clock_of_a_line_hides_no_rule(self, clock: str) -> None:
        """GitHub, Jenkins and Cirrus write the time before each line."""
        log = f"{clock}  File 'a.py', line 3\n{clock}SyntaxError: invalid syntax\n"
        assert classify_job(PASSED, log, 1).rule.startswith("syntax")

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

    @pytest.mark.parametrize(
        ("log", "exit_code", "incomplete"),
        [
            ("", 137, True),
            ("", 2, True),
            ("no space left on device", None, True),
            ("connection reset by peer", 1, True),
            ("connection reset by peer", None, False),
            ("connection reset by peer", 0, False),
            ("", None, False),
        ],
    )
    def test_a_job_that_was_stopped_is_incomplete(self, log: str, exit_code: int | None, incomplete: bool) -> None:
        """Passed tests do not make it green; a warning in the log of a job that passed does not make it red."""
        job = classify_job(PASSED, log, exit_code)
        assert job.is_incomplete == incomplete
        assert (job.cause == NONE) == (exit_code == 0 or (not log and exit_code is None))

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

    def test_a_full_disk_in_every_failure_is_infrastructure(self) -> None:
        """One that a test asserts something about is the test's own."""
        full = TestRun(
            "a#x", Outcome.FAILED, failure_type="OSError", message="OSError: [Errno 28] No space left on device"
        )
        job = classify_job(Reports((full, full._replace(test="a#y")), 1))
        assert (job.cause, job.is_incomplete) == (INFRASTRUCTURE, True)
        assert "disk full" in job.rule
        assert classify_job(Reports((full, FAILED.tests[1]), 1)).cause == TESTS
        asserted = full._replace(failure_type="AssertionError", message="assert 'No space left on device' == 'full'")
        assert classify_job(Reports((asserted,), 1)).cause == TESTS

    def test_modules_that_cannot_be_imported_are_code(self) -> None:
        """pytest reports them as tests that failed."""
        run = TestRun("#tests.test_a", Outcome.FAILED, message="collection failure", failure_type="collection")
        assert classify_job(Reports((run,), 1)).cause == CODE
        named = run._replace(message="collection failure: ModuleNotFoundError: No module named 'shop'")
        assert classify_job(Reports((named,), 1)).rule == "collection: ModuleNotFoundError: No module named 'shop'"

    @pytest.mark.parametrize(
        ("exit_code", "cause", "rule"),
        [
            (139, CODE, "crash: exit code 139, segmentation fault"),
            (-11, CODE, "crash: exit code 139, segmentation fault"),
            (134, CODE, "crash: exit code 134, aborted"),
            (-1073741819, CODE, "crash: exit code 3221225477, access violation"),
            (137, INFRASTRUCTURE, "killed, out of memory or at a time limit: exit code 137"),
            (-9, INFRASTRUCTURE, "killed, out of memory or at a time limit: exit code 137"),
        ],
    )
    @pytest.mark.parametrize("reports", [Reports(), FAILED], ids=["no report", "a part of one"])
    def test_a_command_that_was_ended_is_incomplete(
        self, reports: Reports, exit_code: int, cause: str, rule: str
    ) -> None:
        """A crash was unknown, and a quarantined failure in what a killed command left behind passed a verdict."""
        assert classify_job(reports, "", exit_code) == (cause, rule, True)

    def test_that_no_test_ran_is_told(self) -> None:
        """pytest ends with 5 where all tests were deselected."""
        assert classify_job(Reports(files=1), "done", 5).rule == "exit code 5, no test ran and no rule fits"
        assert "--log FILE" in classify_job(Reports(files=1), "", 5).rule


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
