"""What holds for the unit tests: `make test-unit` leaves out what needs a database server."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start PostgreSQL as slow."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        names = getattr(item, "fixturenames", ())
        if parameters.get("url") == "postgresql" or ("database" in names and "url" not in parameters):
            item.add_marker(pytest.mark.slow)
