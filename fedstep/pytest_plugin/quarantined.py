"""Turn the failures of quarantined tests into expected failures, which stay visible and do not fail the session."""

import time
from collections.abc import Generator
from datetime import date
from typing import Any

import pytest

from fedstep.ingest.git_process import repository_root
from fedstep.ingest.mutes import QUARANTINED, find_mute, read_mutes
from fedstep.pytest_plugin.attempts import identity
from fedstep.report.units import count, visible


class QuarantinePlugin:
    """The hooks of one process: under xdist each worker judges its own tests, and the controller counts."""

    def __init__(self, config: pytest.Config) -> None:
        root = str(config.rootpath)
        listed = read_mutes(repository_root(root) or root, date.fromtimestamp(time.time()).isoformat())
        self._mutes = listed.mutes
        self._notes = (*map(str, listed.problems), *listed.mutes.complaints)
        self._prefix = str(config.getoption("junitprefix", None) or "")

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, None]:
        """Report the failure of a quarantined test as an expected one, with owner, reason and last day."""
        outcome = yield
        report = outcome.get_result()
        if not report.failed:
            return
        for mute in find_mute("#".join(identity(item.nodeid, self._prefix)), self._mutes):
            report.outcome = "skipped"
            report.wasxfail = f"{QUARANTINED}{mute.owner} until {mute.until}: {mute.reason}"
            report.fedstep_quarantined = True

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name what was forgiven: a session with forgiven failures is not silently green."""
        reports = terminalreporter.stats.get("xfailed", [])
        forgiven = [report for report in reports if getattr(report, "fedstep_quarantined", False)]
        if forgiven or self._notes:
            terminalreporter.section("fedstep quarantine")
        for note in self._notes:
            terminalreporter.write_line(visible(note, 500))
        if forgiven:
            terminalreporter.write_line(f"{count(len(forgiven), 'failure')} of quarantined tests, not counted:")
        for report in forgiven:
            terminalreporter.write_line(visible(f"  {report.nodeid}: {report.wasxfail}", 500))
