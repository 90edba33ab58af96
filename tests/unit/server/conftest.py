"""The aggregator in this process, for all tests of this folder."""

from tests.helpers.aggregator import (  # noqa: F401
    database,
    issuer,
    open_aggregator,
    ours,
    postgresql,
    settings,
    small,
    store,
    update,
    url,
)
