"""What the options of a pytest session do: rerun flaky failures, record, quarantine, and choose and order the tests.

`fedstep triage`, `order`, `select` and `shard` judge and choose in processes of their own, which use `fedstep.Project`.
The tests have left their marks on this one: patched functions, a clock that stands still, sockets and files that are
refused, `-W error`, another folder and environment. Here, nothing could end a judgement after `TRIAGE_SECONDS` either.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from typing import Any, NamedTuple

import pytest

from fedstep.errors import FedstepError
from fedstep.ingest.change_impact import split_node
from fedstep.ingest.git_process import repository_root
from fedstep.ingest.mutes import NEW_IS_NOT_MUTED, QUARANTINED, find_mute, read_mutes
from fedstep.pytest_plugin.attempts import SessionAttempts, TestAttempts, record_of, write_record
from fedstep.report.units import count, percent, visible

TRIAGE_SECONDS = 20.0  # for a triage; one of 5,000 tests takes less than a second
# Nothing of this triage is sent to the CI, and no setting of the project changes its output.
_OUTPUTS = (
    *("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "FEDSTEP_DOTENV", "FEDSTEP_SUMMARY", "FEDSTEP_RERUN_LIST"),
    *("FEDSTEP_CODE_QUALITY", "FEDSTEP_FINDINGS", "FEDSTEP_COMMENT"),
)


class FlakyVerdicts(NamedTuple):
    """The probability that a failure is flaky, by node id, for those judged flaky; or why nothing was judged."""

    flaky: Mapping[str, float]
    problem: str = ""


def judged_flaky(tests: Iterable[TestAttempts], folder: str, report_folder: str, prefix: str = "") -> FlakyVerdicts:
    """Return the failures that `fedstep triage` judges flaky with the model and history in this `folder`.

    `report_folder` is pytest's root as seen from the repository's. Failures that are muted, of a new test or of an
    incident are not among them.
    """
    seen = {test.node_id: "#".join(split_node(test.node_id, prefix)) for test in tests if test.failed}
    try:
        with tempfile.TemporaryDirectory(prefix="fedstep-") as scratch:
            report = os.path.join(scratch, "session.xml")
            with open(report, "w", encoding="utf-8") as file:
                file.write(record_of(tests, report_folder, prefix))
            answer = _triage(report, folder)
        if answer["incident"]:
            return FlakyVerdicts({}, f"an incident, nothing is run again: {answer['incident_reason']}")
        flaky = {item["test"]: item["flaky_probability"] for item in answer["failures"] if may_run_again(item)}
        return FlakyVerdicts({node_id: flaky[test] for node_id, test in seen.items() if test in flaky})
    except (OSError, subprocess.SubprocessError, ValueError, LookupError, TypeError) as error:
        return FlakyVerdicts({}, f"nothing was judged: {type(error).__name__}: {error}")


def may_run_again(failure: Mapping[str, Any]) -> bool:
    """Return whether a rerun may forgive the failure: not that of a test that the change adds."""
    return failure["verdict"] == "flaky" and not failure["is_new"]


def _triage(report: str, folder: str) -> dict[str, Any]:
    """Return the output of `fedstep triage`. `-P` keeps a module of the project from shadowing one of ours."""
    asked = ("--junit", report, "--format", "json", "--rerun-list", "")  # whatever .fedstep.toml would add
    command = (sys.executable, "-P", "-m", "fedstep", "triage", *asked)
    environment = {key: value for key, value in os.environ.items() if key not in _OUTPUTS}
    ran = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=TRIAGE_SECONDS
    )
    if not ran.stdout.strip():
        lines = ran.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ValueError(lines[-1][:200] if lines else f"exit code {ran.returncode}")
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


MOST_RERUNS = 50  # tests; with more failures the session has another problem than flakes


class SessionPlugin:
    """The hooks of one session, in the process that reports: without xdist the only one."""

    def __init__(self, config: pytest.Config, rerun: bool, record: str) -> None:
        self.config, self.rerun = config, rerun
        self.record = os.path.join(config.invocation_params.dir, record) if record else ""
        self.attempts = SessionAttempts()
        self.notes: list[str] = []
        self._again: str = ""  # the node id of the test that is being run again
        root = str(config.rootpath)
        self._place = os.path.relpath(root, repository_root(root) or root)
        self._prefix = str(config.getoption("junitprefix", None) or "")

    def pytest_sessionstart(self) -> None:
        """Remove the record of an earlier session: one that is killed leaves none, and must not seem to be that one."""
        if self.record:
            with suppress(OSError):
                os.remove(self.record)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record every phase of every attempt."""
        self.attempts.add(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Record the files that could not be collected, or that skip themselves."""
        self.attempts.add_collection(report)

    def pytest_internalerror(self, excrepr: object) -> None:
        """Record the error that ends the session."""
        self.attempts.add_internal_error(str(excrepr))

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Report a test with a second attempt once: as flaky, or as failed by its first attempt."""
        if report.nodeid != self._again or not self._again:
            return None
        if report.failed:
            return "rerun", "R", "FAILED AGAIN"
        return ("flaky", "R", "FLAKY") if report.when == "call" and report.passed else None

    # Not `wrapper=True`: pytest 7 would not load.
    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, Any, None]:
        """After all tests: judge the failures together, as `fedstep triage` does, and run the flaky ones again."""
        outcome = yield
        # An interrupted session, or one that stopped at its first failure, ends as it does.
        if outcome.excinfo is None and self.rerun and not session.shouldstop and not session.shouldfail:
            self._run_again(session)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Write the record, also of an interrupted session."""
        if not self.record:
            return
        try:
            write_record(self.record, self._written())
            self.notes.append(f"{count(len(self.attempts.tests), 'test')} recorded in {self.record}")
        except OSError as error:
            self.notes.append(f"the record was not written: {error}")

    def _written(self) -> str:
        return record_of(self.attempts, self._place, self._prefix, self.attempts.uncollected)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Report the tests that were rerun and the errors of this plugin."""
        if self.notes:
            terminalreporter.section("fedstep")
            for note in self.notes:
                terminalreporter.write_line(visible(note, 500))

    def _run_again(self, session: pytest.Session) -> None:
        if not self.attempts.failures():
            return
        verdicts = judged_flaky(tuple(self.attempts), str(self.config.rootpath), self._place, self._prefix)
        if verdicts.problem:
            self.notes.append(verdicts.problem)
        chosen = dict(list(verdicts.flaky.items())[:MOST_RERUNS])
        failed = len(self.attempts.failures())
        sentence = f"{len(verdicts.flaky)} of {count(failed, 'failure')} judged flaky"
        self.notes.append(f"{sentence}, run again:" if chosen else sentence)
        for item in _items(session, chosen):
            self._one_again(session, item)
            ending = "failed again" if self.attempts.tests[item.nodeid].failed else "passed then"
            self.notes.append(f"  {item.nodeid}: {percent(chosen[item.nodeid])} flaky, {ending}")

    def _one_again(self, session: pytest.Session, item: pytest.Item) -> None:
        """Run one more attempt; where it passes, the first one no longer fails the session."""
        first = self.attempts.tests[item.nodeid].attempts[-1]
        self._again = item.nodeid
        try:
            item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
        finally:
            self._again = ""
        if not self.attempts.tests[item.nodeid].failed:
            session.testsfailed -= first.failed_reports
            self._forget_failures(item.nodeid)

    def _forget_failures(self, node_id: str) -> None:
        """Take the failures of a test out of what the terminal counts and prints."""
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        for category in ("failed", "error"):
            reports = getattr(terminal, "stats", {}).get(category, [])
            reports[:] = [report for report in reports if getattr(report, "nodeid", "") != node_id]


def _items(session: pytest.Session, chosen: Mapping[str, float]) -> list[pytest.Item]:
    """Return the collected tests of these node ids; collect them here under xdist, where only workers have them."""
    items = {item.nodeid: item for item in session.items} if hasattr(session, "items") else {}
    if not all(node_id in items for node_id in chosen):
        items = {item.nodeid: item for item in _find_collected(session, chosen)}
    return [items[node_id] for node_id in chosen if node_id in items]


def _find_collected(session: pytest.Session, node_ids: Iterable[str]) -> Sequence[pytest.Item]:
    root, known = str(session.config.rootpath), session.testscollected
    try:
        return session.perform_collect([os.path.join(root, node_id) for node_id in node_ids])
    except pytest.UsageError:  # a test that only its worker knows
        return ()
    finally:
        session.testscollected = known


class QuarantinePlugin:
    """The hooks of one process: under xdist each worker judges its own tests, and the controller counts."""

    def __init__(self, config: pytest.Config) -> None:
        root = str(config.rootpath)
        listed = read_mutes(repository_root(root) or root, date.fromtimestamp(time.time()).isoformat())
        self._mutes = listed.mutes
        self._notes = [*map(str, listed.problems), *listed.mutes.complaints]
        self._prefix = str(config.getoption("junitprefix", None) or "")
        self._known: frozenset[str] = frozenset()
        try:
            if listed.mutes.entries:
                from fedstep.pipeline.triage import known_tests
                from fedstep.project import Project

                self._known = known_tests(Project.discover(root).context(), fetch=not hasattr(config, "workerinput"))
        except FedstepError as error:
            self._notes.append(str(error))

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, None]:
        """Report the failure of a quarantined test as an expected one, with owner, reason and last day.

        That of a test that the history does not know stays a failure, as in `fedstep verdict`.
        """
        outcome = yield
        report = outcome.get_result()
        if not report.failed:
            return
        test = "#".join(split_node(item.nodeid, self._prefix))
        for mute in find_mute(test, self._mutes):
            if self._known and test not in self._known:
                report.fedstep_is_new = True
                return
            report.outcome = "skipped"
            report.wasxfail = f"{QUARANTINED}{mute.owner} until {mute.until}: {mute.reason}"
            report.fedstep_quarantined = True

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name what was forgiven: a session with forgiven failures is not silently green."""
        reports = terminalreporter.stats.get("xfailed", [])
        forgiven = [report for report in reports if getattr(report, "fedstep_quarantined", False)]
        failed = [report for key in ("failed", "error") for report in terminalreporter.stats.get(key, [])]
        new = dict.fromkeys(report.nodeid for report in failed if getattr(report, "fedstep_is_new", False))
        notes = [*self._notes, *(f"{node_id} {NEW_IS_NOT_MUTED}" for node_id in new)]
        if forgiven and not self._known:
            notes.append("no test of this project is known yet: a new one is forgiven, too")
        if forgiven or notes:
            terminalreporter.section("fedstep quarantine")
        for note in notes:
            terminalreporter.write_line(visible(note, 500))
        if forgiven:
            terminalreporter.write_line(f"{count(len(forgiven), 'failure')} of quarantined tests, not counted:")
        for report in forgiven:
            terminalreporter.write_line(visible(f"  {report.nodeid}: {report.wasxfail}", 500))


CHOICE_SECONDS = 60.0  # for a choice; one of 5,000 tests takes less than a second
WISHES = ("confidence", "share", "time")


class Wishes(NamedTuple):
    """The options of a session."""

    order: bool
    select: str  # "confidence=0.95", "share=0.2" or "time=10m"; "" for all
    shard: str  # "2/4"; "" for all
    plan: str


class ItemOrder:
    """The hook of one process of the session; under xdist each worker does the same with the same tests."""

    def __init__(self, config: pytest.Config, wishes: Wishes) -> None:
        self.folder, self.wishes = str(config.rootpath), wishes
        self.notes: list[str] = []
        self.emptied = False

    @pytest.hookimpl(trylast=True)  # after pytest-randomly
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Divide, then select, then order the tests."""
        if not items:
            return
        kept = list(items)
        if self.wishes.shard:
            kept = _pick(kept, self._shard(kept))
        if self.wishes.select and kept:
            kept = _pick(kept, self._chosen(("select", *_select_options(self.wishes.select)), kept))
        if self.wishes.order and kept:
            places = {name: position for position, name in enumerate(self._chosen(("order",), kept))}
            kept.sort(key=lambda item: places.get(item.nodeid, len(places)))
        self.emptied = not kept
        remaining = set(map(id, kept))
        config.hook.pytest_deselected(items=[item for item in items if id(item) not in remaining])
        items[:] = kept

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Let a machine pass to which no test was given: pytest itself calls that a failure."""
        if self.emptied and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK
            self.notes.append("no test is to run here")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Report what `fedstep` said about the selection."""
        if self.notes:
            terminalreporter.section("fedstep")
            for note in dict.fromkeys(self.notes):
                terminalreporter.write_line(visible(note, 500))

    def _shard(self, items: Sequence[pytest.Item]) -> Sequence[str]:
        """Return the names of this machine's tests. Raise UsageError on failure: another machine relies on it."""
        index, _, total = self.wishes.shard.partition("/")
        plan = ("--plan", self.wishes.plan) if self.wishes.plan else ()
        ran = self._run(("shard", "--index", index, "--total", total, *plan), items)
        if ran.returncode:
            raise pytest.UsageError(f"--fedstep-shard {self.wishes.shard}: {ran.stderr.strip()}")
        self.notes += ran.stderr.splitlines()
        return ran.stdout.splitlines()

    def _chosen(self, command: Sequence[str], items: Sequence[pytest.Item]) -> Sequence[str]:
        """Return what the command prints, or all tests where it fails."""
        everything = [item.nodeid for item in items]
        try:
            ran = self._run((*command, "--for", "list", "--format", "text"), items)
        except (OSError, subprocess.SubprocessError) as error:
            self.notes.append(f"all tests run: {type(error).__name__}: {error}")
            return everything
        self.notes += ran.stderr.splitlines()
        if ran.returncode or not ran.stdout.strip():
            self.notes.append(f"all tests run: fedstep {command[0]} ended with {ran.returncode}")
            return everything
        return ran.stdout.splitlines()

    def _run(self, command: Sequence[str], items: Iterable[pytest.Item]) -> "subprocess.CompletedProcess[str]":
        with tempfile.TemporaryDirectory(prefix="fedstep-") as scratch:
            names = os.path.join(scratch, "names.txt")
            with open(names, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.writelines(f"{item.nodeid}\n" for item in items)
            return subprocess.run(
                (sys.executable, "-P", "-m", "fedstep", *command, "--names", names),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                encoding="utf-8",
                errors="surrogateescape",
                timeout=CHOICE_SECONDS,
            )


def _pick(items: Sequence[pytest.Item], names: Iterable[str]) -> list[pytest.Item]:
    """Return the items of these names, in the order of the items; one whose name no line can hold is kept."""
    chosen = set(names)
    return [item for item in items if item.nodeid.strip() in chosen or not _is_line(item.nodeid)]


def _is_line(name: str) -> bool:
    return len(name.splitlines()) == 1


def _select_options(wish: str) -> tuple[str, str]:
    """Return the option of `confidence=0.95`. Raise UsageError for other words."""
    name, _, value = wish.partition("=")
    if name not in WISHES or not value:
        raise pytest.UsageError(f"--fedstep-select {wish}: give confidence=0.95, share=0.2 or time=10m")
    return (f"--{name}", value)
