"""The tables of leader and helper, beside those of the store: halves, rounds, and what the rounds told of trials.

They are in no export: a helper that got its seeds back could be asked for them in other sums.
"""

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    select,
)
from sqlalchemy.exc import SQLAlchemyError

from fedstep.errors import UsageError
from fedstep.server.gate_sums import Release
from fedstep.server.migrations import open_engine

__all__ = ["halves", "open_book", "releases", "rounds", "told_of"]

own = MetaData()

halves = Table(
    "halves",  # one row for each head of an update; the rows stay, so that a repeat counts once for ever
    own,
    Column("id", String(32), primary_key=True),
    Column("head", String(32), primary_key=True),
    Column("schema", String(16), nullable=False),
    Column("project", String(32), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("base", Integer, nullable=False),  # of the leader's alone; the helper does not need it
    Column("trial", Integer, nullable=False),  # the snapshot that it scored; -1: none
    Column("pair", String(32), nullable=False),
    Column("received", Float, nullable=False),  # seconds since 1970
    Column("missed", Integer, nullable=False),  # rounds in which the helper did not release it
    Column("round", Integer),  # that it was released in; 0: let go without; NULL: it waits
    Column("body", LargeBinary),  # masked numbers, or the seed; gone with the round
)
Index("halves_waiting", halves.c.round, halves.c.schema)

rounds = Table(
    "rounds",  # the newest alone
    own,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("proposal", LargeBinary, nullable=False),
    Column("answer", LargeBinary),  # of the helper
    Column("settled", Boolean, nullable=False),
)

releases = Table(
    "releases",  # the sum of the scores of one snapshot in one round
    own,
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("head", String(32), primary_key=True),
    Column("schema", String(16), nullable=False),
    Column("trial", Integer, nullable=False),
    Column("votes", Integer, nullable=False),
    Column("total", Float, nullable=False),  # in units of the gate's reach
)


def open_book(store: str) -> Engine:
    """The database at a SQLAlchemy URL, with these tables too. Raises UsageError when it cannot be opened."""
    engine = open_engine(store)
    try:
        own.create_all(engine)
    except SQLAlchemyError as error:
        engine.dispose()
        cause = type(error).__name__
        raise UsageError(f"the store has no room for shares ({cause})", "Can it be written?") from error
    return engine


def told_of(connection: Connection, schema: str, head: str, trial: int) -> tuple[Release, ...]:
    """What the rounds told of this snapshot on trial, the newest last."""
    which = (releases.c.head == head) & (releases.c.trial == trial) & (releases.c.schema == schema)
    rows = connection.execute(select(releases).where(which).order_by(releases.c.round))
    return tuple(Release(row.votes, row.total) for row in rows)
