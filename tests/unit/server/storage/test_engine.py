"""Many rows a statement: all of them are there, and the driver sees few texts with no more values than it takes."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, Connection, Integer, LargeBinary, MetaData, String, Table, create_engine, event, select

from fedstep.server.storage.engine import insert_rows

THINGS = Table("things", MetaData(), Column("id", Integer), Column("name", String), Column("body", LargeBinary))
ROW = st.tuples(st.text(), st.binary(max_size=50))


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.connect() as opened:
        THINGS.create(opened)
        yield opened
    engine.dispose()


class TestBulkInsert:
    @given(found=st.lists(ROW, max_size=40))
    def test_all_rows_are_written_as_they_are_whatever_is_in_them(
        self, connection: Connection, found: list[tuple[str, bytes]]
    ):
        connection.execute(THINGS.delete())
        insert_rows(
            connection, THINGS, [{"body": body, "id": at, "name": name} for at, (name, body) in enumerate(found)]
        )
        assert [tuple(row[1:]) for row in connection.execute(select(THINGS).order_by(THINGS.c.id))] == found

    @pytest.mark.parametrize(("rows", "texts"), [(0, 0), (1, 1), (7, 3), (8, 1), (31, 5), (256, 1), (700, 7)])
    def test_statement_has_a_power_of_two_rows_and_999_values(self, connection: Connection, rows: int, texts: int):
        """A statement has a power of two of rows and at most 999 values."""
        seen: list[int] = []
        event.listen(
            connection, "before_cursor_execute", lambda _c, _cursor, text, *_rest: seen.append(text.count("?"))
        )
        insert_rows(connection, THINGS, [{"id": at, "name": "a", "body": b""} for at in range(rows)])
        assert len(seen) == texts
        assert max(seen, default=0) <= 999
