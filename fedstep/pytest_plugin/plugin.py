"""pytest plugin: declare the options, and load the rest of the plugin only for a session that uses one."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare `--fedstep-rerun` and `--fedstep-record`."""
    group = parser.getgroup("fedstep", "flaky tests (fedstep)")
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
    """Register the session plugin if an option asks for it; under xdist only in the process that starts the workers."""
    rerun, record = config.getoption("fedstep_rerun"), config.getoption("fedstep_record")
    if (rerun or record) and not hasattr(config, "workerinput") and not config.getoption("collectonly", False):
        from fedstep.pytest_plugin.session_plugin import SessionPlugin

        config.pluginmanager.register(SessionPlugin(config, bool(rerun), record or ""), "fedstep-session")
