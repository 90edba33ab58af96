"""pytest plugin: declare the options, and load the rest of the plugin only for a session that uses one."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options; without one the plugin does nothing."""
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
    group.addoption(
        "--fedstep-order", action="store_true", help="run the tests first that show most failures per second"
    )
    group.addoption(
        "--fedstep-select",
        metavar="WISH",
        default="",
        help="run a part of the tests: confidence=0.95, share=0.2 or time=10m, as `fedstep select` does",
    )
    group.addoption("--fedstep-shard", metavar="I/N", default="", help="run the tests of machine I of N")
    group.addoption(
        "--fedstep-plan", metavar="TEXT", default="", help="the plan of `fedstep shard --total N`; @FILE: a file"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the parts of the plugin that an option asks for.

    Under xdist tests are chosen in the workers, and run again and recorded in the process that starts them.
    """
    if config.getoption("fedstep_order") or config.getoption("fedstep_select") or config.getoption("fedstep_shard"):
        from fedstep.pytest_plugin.session_plugin import ItemOrder, Wishes

        names = ("fedstep_order", "fedstep_select", "fedstep_shard", "fedstep_plan")
        config.pluginmanager.register(ItemOrder(config, Wishes(*map(config.getoption, names))), "fedstep-order")
    if config.getoption("fedstep_quarantine"):
        from fedstep.pytest_plugin.session_plugin import QuarantinePlugin

        config.pluginmanager.register(QuarantinePlugin(config), "fedstep-quarantine")
    rerun, record = config.getoption("fedstep_rerun"), config.getoption("fedstep_record")
    if (rerun or record) and not hasattr(config, "workerinput") and not config.getoption("collectonly", False):
        from fedstep.pytest_plugin.session_plugin import SessionPlugin

        config.pluginmanager.register(SessionPlugin(config, bool(rerun), record or ""), "fedstep-session")
