"""Define the tables of the store, and bring those of an earlier fedstep into the present layout (decision 0029).

Every change of the tables needs a step for existing stores. Each step states tables and columns as they were at that
time, not as they are defined here today. All steps run in one transaction.
"""

from collections.abc import Callable, Mapping

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    delete,
    insert,
    inspect,
    select,
)

from fedstep.errors import UsageError

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


# The names up to layout 3, by the names since; columns by the present name of their table.
RENAMED_TABLES: Mapping[str, str] = {
    "votes": "evaluations",
    "noised": "noisy_evaluations",
    "spending": "privacy_spending",
    "pulses": "heartbeats",
    "halves": "shares",
}
RENAMED_COLUMNS: Mapping[str, Mapping[str, str]] = {
    "updates": {"folded": "aggregated_in"},
    "trials": {"head": "task"},
    "evaluations": {"number": "id", "head": "task"},
    "verdicts": {"number": "id", "head": "task", "refolded": "replayed"},
    "schemas": {"head": "task"},
    "noisy_evaluations": {"number": "id", "head": "task", "votes": "evaluations"},
    "shares": {"head": "task"},
    "releases": {"head": "task", "votes": "evaluations"},
}
UPDATES_3 = """CREATE TABLE updates (
    id VARCHAR(32) NOT NULL, schema VARCHAR(16) NOT NULL, project VARCHAR(32) NOT NULL, owner VARCHAR(64) NOT NULL,
    base INTEGER NOT NULL, received FLOAT NOT NULL, folded INTEGER, PRIMARY KEY (id)
)"""
UPDATES_3_COLUMNS = "id, schema, project, owner, base, received, folded"
INDEXES_4: Mapping[str, tuple[str, ...]] = {
    "updates": (
        "CREATE INDEX updates_pending ON updates (schema, project, received, id, aggregated_in)"
        " WHERE aggregated_in IS NULL",
        "CREATE INDEX updates_by_version ON updates (aggregated_in) WHERE aggregated_in IS NOT NULL",
        "CREATE INDEX updates_by_time ON updates (received)",
    ),
    "evaluations": ("CREATE INDEX evaluations_by_trial ON evaluations (trial, task)",),
    "shares": ("CREATE INDEX shares_pending ON shares (round, schema)",),
}
INDEXES_3 = ("updates_waiting", "updates_folded", "updates_by_time", "votes_by_trial", "halves_waiting")


def migrate(connection: Connection) -> None:
    """Create the tables, or change those of an earlier layout. Raise UsageError for those of a later fedstep.

    Other processes must be locked out.
    """
    layout = read_layout(connection)
    if layout > LAYOUT:
        raise UsageError(
            f"the store is of a later fedstep (layout {layout}, this one knows {LAYOUT})", "Install that version here."
        )
    for step in STEPS[layout - 1 :] if layout else ():
        step(connection)
    metadata.create_all(connection)
    connection.execute(delete(layouts))
    connection.execute(insert(layouts).values(layout=LAYOUT))


def read_layout(connection: Connection) -> int:
    """Return the layout of the tables: 0 where there are none, 1 where they are older than the first number."""
    if inspect(connection).has_table(layouts.name):
        return connection.scalar(select(layouts.c.layout)) or 0
    return int(inspect(connection).has_table(versions.name))


def _drop_buffer_index(connection: Connection) -> None:
    """Drop the index of layout 1; step 3 creates those that replaced it."""
    connection.exec_driver_sql("DROP INDEX IF EXISTS updates_in_buffer")


def _separate_bodies(connection: Connection) -> None:
    """Move the bytes of updates into a table of their own.

    Without DROP COLUMN: SQLite before 3.35 has none, and PostgreSQL would keep the bytes beside the new ones.
    """
    bytes_type = "BYTEA" if connection.dialect.name == "postgresql" else "BLOB"
    connection.exec_driver_sql(
        f"CREATE TABLE bodies (id VARCHAR(32) NOT NULL, body {bytes_type} NOT NULL, PRIMARY KEY (id))"
    )
    connection.exec_driver_sql("INSERT INTO bodies (id, body) SELECT id, body FROM updates")
    connection.exec_driver_sql(f"CREATE TABLE updates_kept AS SELECT {UPDATES_3_COLUMNS} FROM updates")
    connection.exec_driver_sql("DROP TABLE updates")
    connection.exec_driver_sql(UPDATES_3)
    connection.exec_driver_sql(
        f"INSERT INTO updates ({UPDATES_3_COLUMNS}) SELECT {UPDATES_3_COLUMNS} FROM updates_kept"
    )
    connection.exec_driver_sql("DROP TABLE updates_kept")


def _rename_to_glossary(connection: Connection) -> None:
    """Name tables, columns and indexes by the words of the glossary. No row is written, however large the store is."""
    for index in INDEXES_3:
        connection.exec_driver_sql(f"DROP INDEX IF EXISTS {index}")
    existing = set(inspect(connection).get_table_names())
    for earlier, name in RENAMED_TABLES.items():
        if earlier in existing:
            connection.exec_driver_sql(f"ALTER TABLE {earlier} RENAME TO {name}")
    existing = set(inspect(connection).get_table_names())
    for table, columns in RENAMED_COLUMNS.items():
        for earlier, name in columns.items() if table in existing else ():
            connection.exec_driver_sql(f"ALTER TABLE {table} RENAME COLUMN {earlier} TO {name}")
    for table, statements in INDEXES_4.items():
        for statement in statements if table in existing else ():
            connection.exec_driver_sql(statement)


def _allow_means(connection: Connection) -> None:
    """Change nothing: versions may have means since, which an earlier fedstep would take for tasks."""
    del connection


STEPS: tuple[Callable[[Connection], None], ...] = (
    _drop_buffer_index,
    _separate_bodies,
    _rename_to_glossary,
    _allow_means,
)
LAYOUT = 1 + len(STEPS)
