"""Options for pytest: run again what is judged flaky, and write the outcomes of all attempts. Without one: nothing."""

import pytest

__all__ = ["pytest_addoption", "pytest_configure"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two options."""
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
    """Take part in the session, if an option asks for it; under xdist in the process that starts the workers."""
    rerun, record = config.getoption("fedstep_rerun"), config.getoption("fedstep_record")
    if (rerun or record) and not hasattr(config, "workerinput") and not config.getoption("collectonly", False):
        from fedstep.session.participant import Participant

        config.pluginmanager.register(Participant(config, bool(rerun), record or ""), "fedstep-session")
