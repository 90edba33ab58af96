"""Bring the tables of an earlier fedstep into the present layout (decision 0029).

Every change of the tables needs a step for existing stores. Each step states tables and columns as they were at that
time, not as `tables` defines them today. All steps run in one transaction.
"""

from collections.abc import Callable, Mapping
from secrets import token_hex

from sqlalchemy import Connection, delete, insert, inspect, select

from fedstep.errors import UsageError
from fedstep.server.storage.tables import layouts, lineages, metadata, versions

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
    if connection.scalar(select(lineages.c.id)) is None:
        connection.execute(insert(lineages).values(id=token_hex(8)))
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


def _change_nothing(connection: Connection) -> None:
    """Change nothing: an earlier fedstep must not open the store any more."""
    del connection


STEPS: tuple[Callable[[Connection], None], ...] = (
    _drop_buffer_index,
    _separate_bodies,
    _rename_to_glossary,
    _change_nothing,  # versions may have means since, which it would take for tasks
    _change_nothing,  # a store has a lineage since, which `migrate` draws, and which it would not serve
)
LAYOUT = 1 + len(STEPS)
