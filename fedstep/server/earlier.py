"""The models of other schemas in the store, for clients that were not updated with the aggregator. Only read."""

import logging
import re

from sqlalchemy.exc import SQLAlchemyError

from fedstep.federation.wire import NO_PROMISE, Promise
from fedstep.server.chronicle import Chronicle
from fedstep.server.database import reading
from fedstep.server.migrations import open_engine
from fedstep.server.problems import Problem
from fedstep.server.served import Served, served

__all__ = ["Earlier"]

DIGEST = re.compile("[0-9a-f]{16}")
log = logging.getLogger("fedstep.server")


class Earlier:
    """What was served last of each schema. In whatever thread, but not in that of the requests: it reads the store."""

    def __init__(self, url: str, promise: Promise = NO_PROMISE, shares: int = 0, noise: float = 0.0) -> None:
        """Raises UsageError when the database cannot be opened."""
        self._terms = promise, shares, noise
        self._engine = open_engine(url)
        self._reader = reading(self._engine)
        self._made: dict[str, Served] = {}

    def close(self) -> None:
        """Ends the connections."""
        self._engine.dispose()

    def served(self, schema: str) -> Served | None:
        """The newest model of a schema, as its own aggregator serves it; None where there never was one.

        Raises Problem while the store cannot be read.
        """
        if not DIGEST.fullmatch(schema):
            return None
        try:
            return self._newest(schema)
        except SQLAlchemyError as error:
            log.exception("the model of an earlier schema cannot be read")
            raise Problem(503, "store", "The store cannot be read now. Ask again later.", retry_after=10) from error

    def _newest(self, schema: str) -> Served | None:
        with self._reader.begin() as connection:
            chronicle, known = Chronicle(connection, schema), self._made.get(schema)
            if known and known.version == chronicle.number():
                return known
            if chronicle.newest() is None:
                return None
            current = chronicle.current()
        made = self._made[schema] = served(schema, current, *self._terms)
        return made
