"""The tables of the store. Who changes one adds a step to `migrations`, for the stores that are there."""

from sqlalchemy import Boolean, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table, Text

metadata = MetaData()

versions = Table(
    "versions",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("parent", Integer),  # NULL: the start of a schema
    Column("schema", String(16), nullable=False),
    Column("created", Float, nullable=False),  # seconds since 1970
    Column("updates", Integer, nullable=False),  # how many were folded into it
    Column("production", Integer, nullable=False),  # the version that production changed with last
    Column("sources", Text, nullable=False),  # JSON: the version that each task of production is from
    Column("vectors", LargeBinary, nullable=False),  # task, as safetensors
)

updates = Table(
    "updates",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("schema", String(16), nullable=False),
    Column("project", String(32), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("base", Integer, nullable=False),
    Column("received", Float, nullable=False),  # seconds since 1970
    Column("aggregated_in", Integer),  # the version it went into; NULL: in the buffer
)
# All that is asked about the buffer is in the first, so that no row is read to count; the second is for folds again.
_waits = updates.c.aggregated_in.is_(None)
Index(
    "updates_pending",
    updates.c.schema,
    updates.c.project,
    updates.c.received,
    updates.c.id,
    updates.c.aggregated_in,  # SQLite 3.40 reads the row itself for a column that is only in the condition
    sqlite_where=_waits,
    postgresql_where=_waits,
)
Index("updates_by_version", updates.c.aggregated_in, sqlite_where=~_waits, postgresql_where=~_waits)
Index("updates_by_time", updates.c.received)

bodies = Table(
    "bodies",  # of the updates, one each: SQLite writes a row anew when it is marked as folded, and bodies are 16 kB
    metadata,
    Column("id", String(32), primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

receipts = Table(
    "receipts",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("receipt", String(64), nullable=False),
    Column("version", Integer, nullable=False),
)

trials = Table(
    "trials",  # those that are open
    metadata,
    Column("schema", String(16), primary_key=True),
    Column("task", String(32), primary_key=True),
    Column("version", Integer, nullable=False),  # of the snapshot
    Column("against", Integer, nullable=False),  # the version that production's task is from
    Column("began", Float, nullable=False),  # seconds since 1970
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("id", Integer, primary_key=True),  # in the order of arrival
    Column("schema", String(16), nullable=False),
    Column("task", String(32), nullable=False),
    Column("trial", Integer, nullable=False),  # the version of the snapshot
    Column("update_id", String(32), nullable=False),  # of the update that carried it
    Column("project", String(32), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("difference", Float, nullable=False),  # of losses, trial less production, in units of the bound
)
Index("evaluations_by_trial", evaluations.c.trial, evaluations.c.task)

verdicts = Table(
    "verdicts",  # how trials ended, and rollbacks
    metadata,
    Column("id", Integer, primary_key=True),
    Column("schema", String(16), nullable=False),
    Column("version", Integer, nullable=False),  # the one made with it
    Column("task", String(32), nullable=False),
    Column("trial", Integer, nullable=False),  # the version of the snapshot
    Column("against", Integer, nullable=False),
    Column("began", Float, nullable=False),
    Column("decided", Float, nullable=False),
    Column("outcome", String(16), nullable=False),  # promoted, rejected, undecided, rollback
    Column("replayed", Boolean, nullable=False),
    Column("left_out", Integer, nullable=False),  # projects or owners
    Column("spent", Float, nullable=False),  # of the margin, after it
    Column("figures", Text, nullable=False),  # JSON
)

schemas = Table(
    "schemas",  # what the coordinates of each task are called: a later schema starts from those that it kept
    metadata,
    Column("schema", String(16), primary_key=True),
    Column("task", String(32), primary_key=True),
    Column("names", Text, nullable=False),  # JSON, in the order of the coordinates
)

tokens = Table(
    "tokens",
    metadata,
    # SHA-256 and nothing slower: 256 random bits cannot be searched, and every update pays for the hash
    Column("hash", String(64), primary_key=True),
    Column("name", String(81), nullable=False),  # OWNER or OWNER/PROJECT
    Column("created", Float, nullable=False),  # seconds since 1970
    Column("revoked", Float),  # NULL: it is accepted
)

privacy_spending = Table(
    "privacy_spending",  # of privacy; nothing is ever deleted here, or a project that is forgotten could spend again
    metadata,
    Column("project", String(32), primary_key=True),  # a hash of it and its owner; "": the sum of all releases
    Column("rho", Float, nullable=False),
    Column("last", Float, nullable=False),  # seconds since 1970
)

noisy_evaluations = Table(
    "noisy_evaluations",  # the votes on open trials, where votes are known with noise alone
    metadata,
    Column("id", Integer, primary_key=True),  # in the order of the folds
    Column("schema", String(16), nullable=False),
    Column("task", String(32), nullable=False),
    Column("trial", Integer, nullable=False),  # the version of the snapshot
    Column("evaluations", Float, nullable=False),
    Column("total", Float, nullable=False),  # in units of the gate's reach
    Column("noise_variance", Float, nullable=False),
)

heartbeats = Table(
    "heartbeats", metadata, Column("name", String(16), primary_key=True), Column("at", Float, nullable=False)
)

layouts = Table("layouts", metadata, Column("layout", Integer, primary_key=True, autoincrement=False))  # one row
