"""pytest plugin: declare the options, and load the rest of the plugin only for a session that uses one."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("fedstep", "flaky tests (fedstep)")
    group.addoption(
        "--fedstep-quarantine",
        action="store_true",
        help="failures of tests in .fedstep-mutes.toml are expected ones: shown, and no failure of the session",
    )
    group.addoption(
        "--fedstep-rerun",
        action="store_true",
        help="run the failures that are judged flaky again, once, at the end; one that then passes is no failure",
    )
    group.addoption(
        "--fedstep-record",
        metavar="FILE",
        help="write the outcomes of all attempts as JUnit XML, which `fedstep train --junit FILE` reads",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register what the options ask for; the session plugin under xdist only in the process that starts the workers."""
    if config.getoption("fedstep_quarantine"):
        from fedstep.pytest_plugin.quarantined import QuarantinePlugin

        config.pluginmanager.register(QuarantinePlugin(config), "fedstep-quarantine")
    rerun, record = config.getoption("fedstep_rerun"), config.getoption("fedstep_record")
    if (rerun or record) and not hasattr(config, "workerinput") and not config.getoption("collectonly", False):
        from fedstep.pytest_plugin.session_plugin import SessionPlugin

        config.pluginmanager.register(SessionPlugin(config, bool(rerun), record or ""), "fedstep-session")
