"""Define the tables of the store. A change needs a step for existing stores, too: `migrations`."""

from sqlalchemy import Boolean, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table, Text

metadata = MetaData()

versions = Table(
    "versions",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("parent", Integer),  # NULL: the start of a schema
    Column("schema", String(16), nullable=False),
    Column("created", Float, nullable=False),  # seconds since 1970
    Column("updates", Integer, nullable=False),  # number of updates aggregated into it
    Column("production", Integer, nullable=False),  # the version with which production last changed
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
    Column("aggregated_in", Integer),  # the version; NULL: in the buffer
)
# The first index covers all queries on the buffer, so that counting reads no row; the second is for replays.
_waits = updates.c.aggregated_in.is_(None)
Index(
    "updates_pending",
    updates.c.schema,
    updates.c.project,
    updates.c.received,
    updates.c.id,
    updates.c.aggregated_in,  # SQLite 3.40 reads the row for a column that is only in the condition
    sqlite_where=_waits,
    postgresql_where=_waits,
)
Index("updates_by_version", updates.c.aggregated_in, sqlite_where=~_waits, postgresql_where=~_waits)
Index("updates_by_time", updates.c.received)

bodies = Table(
    "bodies",  # bytes of the updates: SQLite rewrites a row when it is marked as aggregated, and bodies are 16 kB
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
    "trials",  # open trials
    metadata,
    Column("schema", String(16), primary_key=True),
    Column("task", String(32), primary_key=True),
    Column("version", Integer, nullable=False),  # that is on trial
    Column("against", Integer, nullable=False),  # the version that the task of production comes from
    Column("began", Float, nullable=False),  # seconds since 1970
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("id", Integer, primary_key=True),  # in the order of arrival
    Column("schema", String(16), nullable=False),
    Column("task", String(32), nullable=False),
    Column("trial", Integer, nullable=False),  # the version on trial
    Column("update_id", String(32), nullable=False),  # the update that contained it
    Column("project", String(32), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("difference", Float, nullable=False),  # loss of trial less production, in units of the bound
)
Index("evaluations_by_trial", evaluations.c.trial, evaluations.c.task)

verdicts = Table(
    "verdicts",  # how trials ended, and rollbacks
    metadata,
    Column("id", Integer, primary_key=True),
    Column("schema", String(16), nullable=False),
    Column("version", Integer, nullable=False),  # the version made by the decision
    Column("task", String(32), nullable=False),
    Column("trial", Integer, nullable=False),  # the version on trial
    Column("against", Integer, nullable=False),
    Column("began", Float, nullable=False),
    Column("decided", Float, nullable=False),
    Column("outcome", String(16), nullable=False),  # promoted, rejected, undecided, rollback
    Column("replayed", Boolean, nullable=False),  # whether the task went back to its production
    Column("left_out", Integer, nullable=False),  # by an earlier rule
    Column("spent", Float, nullable=False),  # part of the margin used up after it
    Column("figures", Text, nullable=False),  # JSON
)

schemas = Table(
    "schemas",  # coordinate names by task: a later schema inherits the weights of the names that it keeps
    metadata,
    Column("schema", String(16), primary_key=True),
    Column("task", String(32), primary_key=True),
    Column("names", Text, nullable=False),  # JSON, in the order of the coordinates
)

tokens = Table(
    "tokens",
    metadata,
    # SHA-256 suffices: 256 random bits cannot be guessed, and every update is hashed
    Column("hash", String(64), primary_key=True),
    Column("name", String(81), nullable=False),  # OWNER or OWNER/PROJECT
    Column("created", Float, nullable=False),  # seconds since 1970
    Column("revoked", Float),  # NULL: still valid
)

privacy_spending = Table(
    "privacy_spending",  # never deleted, because a forgotten project could spend its privacy budget again
    metadata,
    Column("project", String(32), primary_key=True),  # a hash of project and owner; "": the sum of all releases
    Column("rho", Float, nullable=False),
    Column("last", Float, nullable=False),  # seconds since 1970
)

noisy_evaluations = Table(
    "noisy_evaluations",  # sums of evaluations on open trials, with noise
    metadata,
    Column("id", Integer, primary_key=True),  # in the order of the aggregations
    Column("schema", String(16), nullable=False),
    Column("task", String(32), nullable=False),
    Column("trial", Integer, nullable=False),  # the version on trial
    Column("evaluations", Float, nullable=False),
    Column("total", Float, nullable=False),  # in units of the gate's reach
    Column("noise_variance", Float, nullable=False),
)

heartbeats = Table(
    "heartbeats", metadata, Column("name", String(16), primary_key=True), Column("at", Float, nullable=False)
)

layouts = Table("layouts", metadata, Column("layout", Integer, primary_key=True, autoincrement=False))  # one row

lineages = Table("lineages", metadata, Column("id", String(16), primary_key=True))  # one row, drawn once
