"""What holds for every test: no time limit on generated examples, for a loaded machine says nothing about the code.

And no skip without its reason in the summary.
"""

import pytest
from hypothesis import HealthCheck, settings

# Examples per law: `make test-unit` draws few, `make test` more, `make test-full` most. The first two draw the same
# examples each time, so that no change is blamed for what it did not do; the last draws new ones.
for profile, max_examples in (("quick", 20), ("fedstep", 50), ("thorough", 200)):
    settings.register_profile(
        profile,
        deadline=None,
        derandomize=profile != "thorough",
        suppress_health_check=[HealthCheck.too_slow],
        max_examples=max_examples,
    )
settings.load_profile("fedstep")


def pytest_configure(config: pytest.Config) -> None:
    """Names what was skipped, and why, whatever -r says."""
    config.option.reportchars += "s"
