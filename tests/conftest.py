"""What holds for every test: no time limit on generated examples, for a loaded machine says nothing about the code.

And no skip without its reason in the summary.
"""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("fedstep", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fedstep")


def pytest_configure(config: pytest.Config) -> None:
    """Names what was skipped, and why, whatever -r says."""
    config.option.reportchars += "s"
