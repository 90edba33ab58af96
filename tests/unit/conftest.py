"""What holds for the unit tests: `make test-unit` leaves out what needs a database server, and what runs git."""

import pytest

GIT_FIXTURES = frozenset({"ada", "bob", "remote", "repo", "no_user_configuration"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start PostgreSQL or run git as slow."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        names = getattr(item, "fixturenames", ())
        is_database = parameters.get("url") == "postgresql" or ("database" in names and "url" not in parameters)
        if is_database or not GIT_FIXTURES.isdisjoint(names):
            item.add_marker(pytest.mark.slow)
