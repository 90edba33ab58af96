"""What holds for every test: no time limit on generated examples, for a loaded machine says nothing about the code.

And no skip without its reason in the summary.
"""

import os

import pytest
from hypothesis import HealthCheck, settings

# Examples per law: `make test-unit` draws few, `make test` more, `make test-full` most. The first two draw the same
# examples each time, so that no change is blamed for what it did not do; the last draws new ones.
for profile, max_examples in (("quick", 10), ("fedstep", 20), ("thorough", 200)):
    settings.register_profile(
        profile,
        deadline=None,
        derandomize=profile != "thorough",
        suppress_health_check=[HealthCheck.too_slow],
        max_examples=max_examples,
    )
settings.load_profile("fedstep")


@pytest.fixture(scope="session", autouse=True)
def quick_nested_sessions(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Start the sessions of pytest that tests start without plugins whose import takes longer than such a session.

    Their temporary folders are apart: each session removes those of earlier ones, which may be gigabytes.
    """
    without = "-p no:schemathesis -p no:hypothesispytest -p no:anyio"
    os.environ["PYTEST_ADDOPTS"] = f"{os.environ.get('PYTEST_ADDOPTS', '')} {without}"
    os.environ["PYTEST_DEBUG_TEMPROOT"] = str(tmp_path_factory.mktemp("nested"))


def pytest_configure(config: pytest.Config) -> None:
    """Names what was skipped, and why, whatever -r says."""
    config.option.reportchars += "s"
