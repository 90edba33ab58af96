"""Turn the failures of quarantined tests into expected failures, which stay visible and do not fail the session."""

import time
from collections.abc import Generator
from datetime import date
from typing import Any

import pytest

from fedstep.errors import FedstepError
from fedstep.ingest.git_process import repository_root
from fedstep.ingest.mutes import NEW_IS_NOT_MUTED, QUARANTINED, find_mute, read_mutes
from fedstep.pipeline.verdict import known_tests
from fedstep.project import Project
from fedstep.pytest_plugin.attempts import identity
from fedstep.report.units import count, visible


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
        test = "#".join(identity(item.nodeid, self._prefix))
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
