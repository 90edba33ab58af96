"""Tell why a job failed: its infrastructure, its code, or its tests. A log is read here and nothing of it is kept."""

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from fedstep.errors import InputError
from fedstep.files import open_regular
from fedstep.ingest.failure_text import COLLECTION
from fedstep.types import Outcome, Reports, TestRun

INFRASTRUCTURE, CODE, TESTS, UNKNOWN, NONE = "infrastructure", "code", "tests", "unknown", "none"
TAIL_BYTES = 256 << 10  # of a log: what ended a job is at its end
LAST_LINES = 60  # in which a lost runner is believed although tests failed, too

# What each kind of failure writes. The names are those of the rules that a report names.
_STOPPED: tuple[tuple[str, str], ...] = (
    (
        "runner lost",
        r"runner has received a shutdown signal|lost communication with the server|We stopped hearing from agent"
        r"|runner system failure|job failed \(system failure\)"
        r"|(?:agent|node|slave) (?:\S+ )?(?:went offline|was marked offline|disconnected)"
        r"|Channel ?Closed ?Exception|ClosedChannelException|backing channel '[^']*' is disconnected"
        r"|connection was broken: java\.io|^Cannot contact \S+: (?:java|hudson)"
        r"|wrapper script does not seem to be touching the log file"
        r"|Removing runner|spot (?:instance )?(?:interruption|termination)|node was preempted",
    ),
    (
        "disk full",
        r"no space left on device|(?<!errno\.)\bENOSPC\b|disk quota exceeded|not enough space on the disk"
        r"|ld terminated with signal 7 \[Bus error\]",
    ),
    (
        "out of memory",
        r"\bOOMKilled\b|out of memory: killed process|exit code 137\b|signal: killed|signal: 9, SIGKILL"
        r"|^Received [\"']killed[\"'] signal|exceeded (?:the )?memory limit"
        r"|^(?:\[ERROR\] )?Process Exit Code: 137$|terminated by another process: signal=SIGKILL"
        r"|Killed signal terminated program"
        r"|^Killed$|: line \d+:\s+\d+ Killed\b|\] Killed$",
    ),
    (
        "time limit",
        r"exceeded the maximum execution time|execution took longer than|Cancelling nested steps due to timeout"
        r"|job (?:timed out|exceeded)|has exceeded the maximum|build timed out|^Too long with no output",
    ),
)
_NO_SPACE = _STOPPED[1:2]
# What a test asserts, and the source lines that a report of its failure has, are not what stopped the job.
_ABOUT_A_TEST = re.compile(
    r"\bassert|\bexpect(?:ed)?\b|^>\s|^E\s|^(?:FAILED|ERROR) \S+::|^\s+[-+?]\s|^\s*(?:def|raise|throw)\b", re.IGNORECASE
)
_UNLOADED: tuple[tuple[str, str], ...] = (("import", r"ImportError: Failed to import test module"),)
# The summaries of test runners: a job without a readable report may have one in its log.
_FAILED: tuple[tuple[str, str], ...] = (
    (
        "failed tests",
        r"^=*\s?[1-9]\d* failed\b.* in [\d.]+s|^FAILED \((?:failures|errors)=[1-9]|^--- FAIL: |^panic: test timed out"
        r"|^test result: FAILED\.|^# fail(?:ed)? [1-9]\d*$|^not ok \d+|^Result: FAIL$"
        r"|^\d+ examples?, [1-9]\d* failures?"
        r"|^\d+ runs, \d+ assertions, (?:[1-9]\d* failures|0 failures, [1-9]\d* errors)"
        r"|Tests run: \d+, (?:Failures: [1-9]|Failures: 0, Errors: [1-9])|\d+ tests? completed, [1-9]\d* failed"
        r"|^\s*Tests:? +[1-9]\d* failed|^\s+[1-9]\d* failing$|% tests passed, [1-9]\d* tests? failed"
        r"|^Tests: \d+, Assertions: \d+,.*(?:Failures|Errors): [1-9]|\bFailed: +[1-9]\d*, Passed:"
        r"|^\*\*\*Test Failed\*\*\* \d+ failures?|^_+ ERROR at (?:setup|teardown) of "
        r"|^\s*Test Files +[1-9]\d* failed[\s\S]*^\s*Tests +\d+ (?:passed|skipped)",
    ),
)
_REFUSED: tuple[tuple[str, str], ...] = (
    (
        "registry",
        r"toomanyrequests|pull rate limit|failed to pull image|error pulling image|manifest unknown"
        r"|could not transfer artifact|received unexpected HTTP status|npm (?:ERR!|error) network"
        r"|(?:429 too many requests|50[234] (?:bad gateway|service unavailable|gateway time-?out)).*"
        r"|Received status code 5\d\d from server|failed to get successful HTTP response from .*, got 5\d\d"
        r"|The requested URL returned error: 5\d\d"
        r"|\berror NU1301\b|Hash Sum mismatch|unable to fetch some archives"
        r"|Retrying \(Retry\(total=0[\s\S]*no matching distribution found|read timed out.*(?:pypi|index)",
    ),
    (
        "network",
        r"could not resolve host|temporary failure (?:in name resolution|resolving)|getaddrinfo (?:ENOTFOUND|EAI_AGAIN)"
        r"|\bE(?:TIMEDOUT|SOCKETTIMEDOUT|CONNRESET|CONNREFUSED|HOSTUNREACH|NETUNREACH)\b"
        r"|connection (?:reset by peer|timed out|refused)|TLS handshake timeout|network is unreachable|no route to host"
        r"|Name or service not known|^Could not reach host"
        r"|unable to access '[^']*'|remote end hung up unexpectedly|dial tcp\b.*(?:i/o timeout|no such host)"
        r"|request canceled while waiting for connection|^error: .*SSL connect error|failed to connect to \S+ port \d+",
    ),
    (
        "credentials",
        r"could not read (?:Username|Password) for|Authentication failed for '|npm (?:ERR!|error) code E401"
        r"|status code:? 401|unauthorized: authentication required|Permission denied \(publickey",
    ),
    ("container engine", r"Cannot connect to the Docker daemon"),
    (
        "out of memory",
        r"JavaScript heap out of memory|java\.lang\.OutOfMemoryError|insufficient memory for the Java Runtime"
        r"|^MemoryError$"
        r"|cc1(?:plus)?: out of memory|virtual memory exhausted|Cannot allocate memory",
    ),
)
_BROKEN: tuple[tuple[str, str], ...] = (
    (
        "compilation",
        r"COMPILATION ERROR|error: cannot find symbol|\.java:\d+: error:|error\[E\d{4}\]|could not compile `"
        r"|\.(?:c|cc|cpp|cxx|h|hpp|m):\d+:(?:\d+:)? (?:fatal )?error: .*|\berror TS\d{4,5}\b|undefined reference to"
        r"|Compilation failed|compileJava FAILED|build failed: .*compil"
        r"|^(?:vet: )?\S+\.go:\d+:\d+: (?!missing go.sum).*"
        r"|\[build failed\]|ld: cannot find -l\S+|multiple definition of"
        r"|import cycle not allowed"
        r"|\berror CS\d{4}\b|^e: .*\.kt:|MultipleCompilationErrorsException",
    ),
    (
        "syntax",
        r"^\s*SyntaxError:|^E\s+SyntaxError:|IndentationError:|ParseError:|contains invalid JS syntax"
        r"|Parse error: |: syntax error\b",
    ),
    (
        "import",
        r"ImportError while (?:importing|loading)|ModuleNotFoundError:|Cannot find module|NoClassDefFoundError"
        r"|cannot load such file|Could not find or load main class|Cannot find package '|Can't locate \S+\.pm in @INC",
    ),
    ("collection", r"ERROR collecting|errors? during collection|Test suite failed to run"),
    (
        "dependency",
        r"no matching distribution found|npm (?:ERR!|error) (?:code (?:E404|ETARGET|EBADENGINE|ERESOLVE|EUSAGE)|404)"
        r"|Could not find artifact|no matching package|missing go\.sum entry|^go: .*: 404 Not Found"
        r"|(?:returned error:|\bERROR) 404|Unable to locate package"
        r"|ResolutionImpossible|DO NOT MATCH THE HASHES|failed to select a version for|cannot update the lock file"
        r"|No solution found when resolving dependencies|Could not find gem|in offline mode and the artifact",
    ),
    (
        "build file",
        r"^CMake Error.*|No rule to make target|\*\*\* missing separator|npm (?:ERR!|error) Missing script:"
        r"|command not found|Could not compile build file|^Task '[^']*' not found in|Unknown lifecycle phase"
        r"|there is no POM in this directory|Non-parseable POM|^ --> Cargo\.toml|Could not locate Gemfile"
        r"|Validation Error:|error: unrecognized arguments:|^No test(?: file)?s found, exiting"
        r"|=+ no tests ran in|^error: pathspec '[^']*' did not match|: Permission denied$|Merge conflict in"
        r"|Remote branch \S+ not found in upstream|^make: \S+: No such file or directory"
        r"|^\S+: (?:\d+: )?\S+: not found$",
    ),
    (
        "check",
        r"^Found \d+ errors?\b.*|^✖ \d+ problems?|^Coverage failure: |does not meet \S+ threshold"
        r"|FAIL Required test coverage",
    ),
    (
        "script",
        r"^Traceback \(most recent call last\):$|^INTERNALERROR>|^(?:PHP )?Fatal error: .*|: parameter not set$"
        r"|: unbound variable$",
    ),
)
# The time that GitHub, Jenkins and Cirrus write before a line.
_CLOCK = re.compile(r"^(?:\d{4}-\d\d-\d\dT[\d:.]+Z|\[?\d\d:\d\d:\d\d(?:\.\d+)?\]?) ", re.MULTILINE)
_EXIT_CODES = {
    124: "time limit",
    137: "killed, out of memory or at a time limit",
    143: "terminated, by a lost runner or a time limit",
}
_CRASHES = {
    132: "illegal instruction",
    134: "aborted",
    135: "bus error",
    136: "arithmetic error",
    139: "segmentation fault",
    0xC0000005: "access violation",  # of Windows
    0xC00000FD: "stack overflow",
}
_BROKEN_TYPES = re.compile(
    r"(?:^|[.:])(?:ImportError|ModuleNotFoundError|SyntaxError|IndentationError|NoClassDefFoundError)$"
)


class JobFailure(NamedTuple):
    """Why a job failed, and the rule that decided."""

    cause: str = NONE  # one of the constants above
    rule: str = ""  # "network: could not resolve host"
    is_incomplete: bool = False  # it was stopped, or failed without a failed test: passed tests do not say that all did


def classify_job(reports: Reports, log: str = "", exit_code: int | None = None) -> JobFailure:
    """Return why the job failed.

    A lost runner, a full disk and the like end a job whatever its tests say. A network or registry error decides only
    where no test failed, by the reports and by the summaries of test runners in the log: tests write such lines, too.
    """
    failed = [run for run in reports.tests if run.outcome in "fc"]
    if exit_code is not None and exit_code < 0:  # Python tells a signal by its number below 0, Windows 32 bits so
        exit_code = 128 - exit_code if exit_code > -128 else exit_code % 2**32
    log = _CLOCK.sub("", log)
    end = "\n".join(log.splitlines()[-LAST_LINES:])
    if rule := _first_rule(_STOPPED, _without_tests(end if failed else log)):
        return JobFailure(INFRASTRUCTURE, rule, is_incomplete=True)
    if failed and exit_code in (*_EXIT_CODES, *_CRASHES):  # the test command was ended: others may not have run
        return _classify_exit(exit_code)
    if failed and all(map(_had_no_space, failed)):
        return JobFailure(INFRASTRUCTURE, f"{_first_rule(_NO_SPACE, failed[0].message)}, in every failure", True)
    if failed and all(map(_is_broken, failed)):
        reason = failed[0].message.partition("\n")[0].removeprefix(f"{COLLECTION}: ") or failed[0].failure_type
        return JobFailure(CODE, f"collection: {reason or 'a suite that could not start'}")
    if failed:
        return JobFailure(TESTS, f"{len(failed)} of {len(reports.tests)} tests failed")
    ran = any(run.outcome != Outcome.SKIPPED for run in reports.tests)
    return JobFailure() if exit_code == 0 else _classify_without_failures(log, exit_code, ran)


def _classify_without_failures(log: str, exit_code: int | None, ran: bool) -> JobFailure:
    """Return why a job failed whose reports have no failed test; without an exit code it may have passed."""
    ended = exit_code is not None
    for cause, rules in ((CODE, _UNLOADED), (TESTS, _FAILED), (INFRASTRUCTURE, _REFUSED), (CODE, _BROKEN)):
        if rule := _first_rule(rules, log):
            return JobFailure(cause, rule, ended)
    if not exit_code:
        return JobFailure()
    if exit_code in _EXIT_CODES or exit_code in _CRASHES:
        return _classify_exit(exit_code)
    remedy = "" if log else "; the end of the job's log, given with --log FILE, may tell"
    reason = f"exit code {exit_code}, no test {'failed' if ran else 'ran'} and no rule fits{remedy}"
    return JobFailure(UNKNOWN, reason, ended)


def _classify_exit(exit_code: int) -> JobFailure:
    """Return what ended a command with one of the known exit codes."""
    if exit_code in _CRASHES:
        return JobFailure(CODE, f"crash: exit code {exit_code}, {_CRASHES[exit_code]}", True)
    return JobFailure(INFRASTRUCTURE, f"{_EXIT_CODES[exit_code]}: exit code {exit_code}", True)


def read_log_tail(path: str) -> str:
    """Return the end of a log. Raises InputError where it cannot be read."""
    try:
        with open_regular(path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}", "Give the job's log with --log") from error


def _without_tests(log: str) -> str:
    return "\n".join(line for line in log.splitlines() if not _ABOUT_A_TEST.search(line))


def _first_rule(rules: Sequence[tuple[str, str]], text: str) -> str:
    for name, pattern in rules:
        if text and (match := re.search(pattern, text, re.IGNORECASE | re.MULTILINE)):
            return f"{name}: {' '.join(match[0].split())[:80]}"
    return ""


def names_environment(run: TestRun) -> bool:
    """Return whether the message of a failure names the network, a service or a full disk; what it asserts is its own.

    >>> names_environment(TestRun("a#b", Outcome.FAILED, message="connect ECONNREFUSED 127.0.0.1:8080"))
    True
    """
    return _blames(run, (*_NO_SPACE, *_REFUSED[:2]))


def _had_no_space(run: TestRun) -> bool:
    """Return whether the test failed by a full disk."""
    return _blames(run, _NO_SPACE)


def _blames(run: TestRun, rules: Sequence[tuple[str, str]]) -> bool:
    return bool(_first_rule(rules, _without_tests(run.message))) and "assert" not in run.failure_type.lower()


def _is_broken(run: TestRun) -> bool:
    """Return whether the test could not even start, as a module that cannot be imported."""
    could_not_start = run.message.startswith(COLLECTION) or run.test.endswith("#<init>")
    return could_not_start or bool(_BROKEN_TYPES.search(run.failure_type))
