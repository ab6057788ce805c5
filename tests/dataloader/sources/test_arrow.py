"""The Arrow path with real drivers that know the DB-API alone: PyMySQL on MariaDB, and sqlite3."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pymysql
import pytest
from tests.dataloader.servers import SourceServer, load_request

from quayside.dataloader.errors import SourceUnavailableError, UnsupportedTypeError
from quayside.dataloader.sources.arrow import ArrowTable
from quayside.dataloader.sources.dbapi import DbApiSource
from quayside.dataloader.sources.dialect import Dialect
from quayside.dataloader.sources.source import Comparison
from quayside.foundation.errors import InputError, QuaysideError
from quayside.foundation.processes import wait_until

pytestmark = pytest.mark.integration

MYSQL = Dialect("`", "`", placeholder=lambda _: "%s", escape_percent=True)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Streaming(DbApiSource):
    def cursor(self, connection: Any) -> Any:
        return connection.cursor(pymysql.cursors.SSCursor)


def explain(error: Exception) -> QuaysideError | None:
    return SourceUnavailableError(f"driver: {error}") if isinstance(error, pymysql.Error) else None


@contextmanager
def of_mariadb(
    con: duckdb.DuckDBPyConnection, server: SourceServer, relation: str, schema: pa.Schema, **request: Any
) -> Iterator[ArrowTable]:
    with closing(server.connect()) as connection:
        source = Streaming(
            name=relation,
            relation=relation,
            schema=schema,
            source_types=[str(field.type) for field in schema],
            primary_key=["id"],
            dialect=MYSQL,
            connection=connection,
            connect=server.connect,
            clocks=(NOW, NOW.replace(tzinfo=None)),
            explain=explain,
        )
        table = ArrowTable(con, load_request("x", {}, **request), source, 4)
        try:
            yield table
        finally:
            table.close()


SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("50% `off`", pa.decimal128(15, 2)),
        pa.field("at", pa.timestamp("us")),
        pa.field("note", pa.string()),
    ]
)


@pytest.fixture(scope="module")
def offers(mariadb: SourceServer) -> SourceServer:
    mariadb.run(
        "CREATE TABLE offers (id bigint PRIMARY KEY, `50%% ``off``` decimal(15,2), at datetime(6), note longtext)".replace(
            "%%", "%"
        ),
        "INSERT INTO offers SELECT seq, IF(seq % 3, seq / 4, NULL), '2024-01-01' + INTERVAL seq SECOND, "
        "IF(seq = 77, 'it''s %s', 'x') FROM seq_1_to_3000",
    )
    return mariadb


def test_batches_stream_into_duckdb(offers: SourceServer, shared_con: duckdb.DuckDBPyConnection, rows: Any):
    with of_mariadb(shared_con, offers, "`offers`", SCHEMA) as table:
        assert [(c.name, c.type, c.nullable) for c in table.columns] == [
            ("id", "BIGINT", False),
            ("50% `off`", "DECIMAL(15,2)", True),
            ("at", "TIMESTAMP", True),
            ("note", "VARCHAR", True),
        ]
        found = rows(table)
        assert len(found) == 3000
        assert found[76] == (77, Decimal("19.25"), datetime(2024, 1, 1, 0, 1, 17), "it's %s")
        assert (table.count(), table.bounds("at")[0]) == (3000, datetime(2024, 1, 1, 0, 0, 1))
        assert (table.clock(), table.local_clock(), table.primary_key) == (
            NOW,
            NOW.replace(tzinfo=None),
            ["id"],
        )


def test_predicates_are_bound(offers: SourceServer, shared_con: duckdb.DuckDBPyConnection, rows: Any):
    """case 47"""
    with of_mariadb(shared_con, offers, "(SELECT * FROM offers WHERE note LIKE '%') AS q", SCHEMA) as table:
        for where, count in (
            ([Comparison("note", "=", "it's %s")], 1),
            ([Comparison("at", ">", datetime(2024, 1, 1, 0, 49, 59)), Comparison("id", ">=", 3)], 1),
            ([Comparison("50% `off`", "is null"), Comparison("id", "<=", 30)], 10),
            ([Comparison("50% `off`", "=", Decimal("19.25"))], 1),
        ):
            assert table.count(where) == len(rows(table, where, ["id"])) == count
        with pytest.raises(InputError, match="has no column 'nope'"):
            table.relation([Comparison("nope", "=", 1)])


@pytest.mark.parametrize("column", ["id", "50% `off`", "at", "note"])
def test_parts_read_every_row_once(
    offers: SourceServer, shared_con: duckdb.DuckDBPyConnection, rows: Any, column: str
):
    """case 29"""
    with of_mariadb(shared_con, offers, "offers", SCHEMA, partition_column=column, num_partitions=3) as table:
        assert table.relation().count("UNION ALL") == (0 if column == "note" else 2)
        assert [row[0] for row in rows(table, (), ["id"])] == list(range(1, 3001))


def test_an_error_of_the_driver_keeps_its_meaning(
    offers: SourceServer, shared_con: duckdb.DuckDBPyConnection, rows: Any
):
    with of_mariadb(shared_con, offers, "nowhere", SCHEMA) as table:
        with pytest.raises(duckdb.Error) as raised:
            rows(table)
        assert "nowhere' doesn't exist" in str(table.explain(raised.value))
        with pytest.raises(SourceUnavailableError, match="doesn't exist"):
            table.count()
    wrong = SCHEMA.set(3, pa.field("note", pa.int32()))
    with of_mariadb(shared_con, offers, "offers", wrong) as table:
        with pytest.raises(duckdb.Error) as raised:
            rows(table)
        meaning = table.explain(raised.value)
        assert isinstance(meaning, UnsupportedTypeError)
        assert "Column 'note' (int32)" in str(meaning)


class Stoppable(Streaming):
    server: SourceServer

    def cancel(self, connection: Any) -> None:
        self.server.run(f"KILL QUERY {connection.thread_id()}")


def test_what_is_read_is_told_to_end_by_its_connection(
    offers: SourceServer, shared_con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(globals(), "Streaming", Stoppable)
    monkeypatch.setattr(Stoppable, "server", offers, raising=False)
    sleeping = "SELECT 1 FROM information_schema.PROCESSLIST WHERE STATE = 'User sleep'"
    schema = pa.schema([("id", pa.int64())])
    with (
        of_mariadb(shared_con, offers, "(SELECT SLEEP(600) AS id) AS q", schema) as table,
        ThreadPoolExecutor(1) as pool,
        closing(offers.connect()) as admin,
        closing(admin.cursor()) as cursor,
    ):
        read = pool.submit(lambda: shared_con.execute(f"FROM {table.relation()}").fetchall())
        assert wait_until(lambda: cursor.execute(sleeping) or read.done(), 60)
        table.interrupt()
        error = read.exception(60)
        assert isinstance(error, duckdb.Error)
        assert isinstance(table.explain(error), SourceUnavailableError)


def test_another_driver_in_ten_lines(tmp_path: Path, shared_con: duckdb.DuckDBPyConnection, rows: Any):
    path = tmp_path / "x.sqlite"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, check_same_thread=False)  # DuckDB pulls from a thread of its own

    with closing(connect()) as connection:
        connection.executescript(
            'CREATE TABLE "a""b" (id, t); INSERT INTO "a""b" VALUES (1, \'x\'), (2, NULL)'
        )
        source = DbApiSource(
            name="t",
            relation='"a""b"',
            schema=pa.schema([("id", pa.int64()), ("t", pa.string())]),
            source_types=["integer", "text"],
            primary_key=[],
            dialect=Dialect(),
            connection=connection,
            connect=connect,
            clocks=(NOW, NOW.replace(tzinfo=None)),
            explain=lambda _: None,
        )
        table = ArrowTable(shared_con, load_request("x", {}), source, 1)
        assert rows(table) == [(1, "x"), (2, None)]
        assert rows(table, [Comparison("id", ">", 1)], ["t"]) == [(None,)]
        table.close()
