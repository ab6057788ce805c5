"""PostgreSQL: one snapshot on all threads, the index for a window, views, queries that cannot write, errors."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pytest
from tests.dataloader.servers import PASSWORD, SourceServer

from quayside.dataloader.errors import SourceRefusedError, SourceUnavailableError
from quayside.dataloader.sources import postgresql
from quayside.dataloader.sources.source import Comparison, Divisible, Portions, SourceTable
from quayside.foundation.errors import InputError, QuaysideError

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def numbers(source_pg: SourceServer) -> SourceServer:
    """``numbers``: 20,000 rows on some 250 pages; a view, partitions, an heir and a materialized view beside it."""
    source_pg.run(
        "CREATE TABLE numbers (id int PRIMARY KEY, at timestamp NOT NULL, note text)",
        "INSERT INTO numbers SELECT g, timestamp '2024-01-01' + g * interval '1 minute', repeat('x', 50) "
        "FROM generate_series(1, 20000) g",
        "CREATE INDEX ON numbers (at)",
        "CREATE VIEW numbers_view AS SELECT id, note FROM numbers",
        "CREATE MATERIALIZED VIEW numbers_kept AS SELECT id FROM numbers",
        "CREATE TABLE parted (id int, k int) PARTITION BY LIST (k)",
        "CREATE TABLE parted_0 PARTITION OF parted FOR VALUES IN (0)",
        "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1)",
        "INSERT INTO parted SELECT g, g % 2 FROM generate_series(1, 20000) g",
        "CREATE TABLE elder AS TABLE numbers",
        "CREATE TABLE heir () INHERITS (elder)",
        "INSERT INTO heir SELECT -g, '2024-01-01', NULL FROM generate_series(1, 100) g",
        "VACUUM ANALYZE numbers, elder, heir",
    )
    return source_pg


@contextmanager
def transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    con.execute("BEGIN")
    try:
        yield
    finally:
        con.execute("ROLLBACK")


def ids(con: duckdb.DuckDBPyConnection, relation: str) -> list[int]:
    return [row[0] for row in con.execute(f"SELECT id FROM {relation} ORDER BY id").fetchall()]


def portions(table: SourceTable, rows: int = 1_000_000) -> Portions | None:
    assert isinstance(table, Divisible)
    return table.portions(rows)


def ids_of_portions(con: duckdb.DuckDBPyConnection, table: SourceTable) -> list[int]:
    """Each portion read on a cursor of its own, which has joined."""
    cut, found = portions(table), list[int]()
    assert cut is not None
    for portion in cut.selects:
        with closing(con.cursor()) as cursor, transaction(cursor):
            cut.join(cursor)
            found += ids(cursor, portion)
    return sorted(found)


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch, shared_con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Small tables are cut too, and there are four threads to read them."""
    monkeypatch.setattr(postgresql, "PARALLEL_PAGES", 2)
    [threads] = shared_con.execute("SELECT current_setting('threads')").fetchone() or [0]
    shared_con.execute("SET threads = 4")
    yield
    shared_con.execute(f"SET threads = {threads}")


def test_everything_belongs_to_the_moment_of_opening(
    numbers: SourceServer, opened: Any, shared_con: duckdb.DuckDBPyConnection, in_parts: None
):
    numbers.run(
        "CREATE TABLE moving AS SELECT g AS id, repeat('x', 500) AS t FROM generate_series(1, 1000) g"
    )
    with opened(numbers.request("moving")) as table:
        numbers.run(
            "INSERT INTO moving VALUES (1001, '')",
            "DELETE FROM moving WHERE id <= 10",
            "UPDATE moving SET t = ''",
        )
        assert table.snapshot
        assert (table.count(), table.bounds("id")) == (1000, (1, 1000))
        for _ in range(2):  # in another transaction too: a commit that is tried again reads the same
            with transaction(shared_con):
                assert ids(shared_con, table.relation()) == list(range(1, 1001))
                assert ids(shared_con, table.relation([Comparison("id", "<", 20)], ["id"])) == list(
                    range(1, 20)
                )
        assert ids_of_portions(shared_con, table) == list(range(1, 1001))
    with opened(numbers.request("moving")) as table:
        assert (table.count(), table.bounds("id")) == (991, (11, 1001))


@pytest.mark.parametrize(
    "table, parts, count",
    [("numbers", 3, 20_000), ("elder", 3, 20_100), ("parted", 3, 20_000), ("numbers_kept", 3, 20_000)],
)
def test_what_has_pages_is_cut_by_pages(
    numbers: SourceServer,
    opened: Any,
    shared_con: duckdb.DuckDBPyConnection,
    in_parts: None,
    table: str,
    parts: int,
    count: int,
):
    with opened(numbers.request(table)) as source:
        cut = portions(source)
        assert cut is not None
        assert (len(cut.selects), cut.readers) == (parts, 3)  # the fourth connection is the snapshot's
        assert all("ctid" in portion for portion in cut.selects)
        found = ids_of_portions(shared_con, source)
        assert len(set(found)) == len(found) == count


@pytest.mark.parametrize("bounds", [(None, None), ("20000", "1"), ("5", "6"), ("x", ""), ("1e9", "2e9")])
def test_a_view_is_cut_by_its_partition_column(
    numbers: SourceServer,
    opened: Any,
    shared_con: duckdb.DuckDBPyConnection,
    in_parts: None,
    bounds: tuple[str | None, str | None],
):
    """case 29"""
    request = numbers.request(
        "numbers_view", partition_column="id", num_partitions=3, lower_bound=bounds[0], upper_bound=bounds[1]
    )
    with opened(request) as table:
        cut = portions(table)
        assert cut is None if bounds == ("5", "6") else cut is not None and len(cut.selects) == 3
        if cut is not None:
            assert ids_of_portions(shared_con, table) == list(range(1, 20_001))
    with opened(replace(request, partition_column="note")) as table:
        assert portions(table) is None


def test_nulls_of_the_partition_column_are_read_once(
    numbers: SourceServer, opened: Any, shared_con: duckdb.DuckDBPyConnection, in_parts: None
):
    query = "SELECT CASE WHEN id % 3 = 0 THEN NULL ELSE id END AS part, id FROM numbers WHERE id > 0"
    request = numbers.request(query=query, partition_column="part", num_partitions=3)
    with opened(request) as table:
        assert ids_of_portions(shared_con, table) == list(range(1, 20_001))


def test_portions_are_as_large_as_asked_for(
    numbers: SourceServer, opened: Any, monkeypatch: pytest.MonkeyPatch
):
    with opened(numbers.request("numbers")) as table:
        assert portions(table) is None
        cut = portions(table, 4_000)
        assert cut is not None
        assert (len(cut.selects), cut.readers) == (5, 1)
        monkeypatch.setattr(postgresql, "PORTION_PAGES", 100)  # for long rows
        cut = portions(table)
        assert cut is not None
        assert len(cut.selects) == 3


def test_a_window_is_left_to_the_index(
    numbers: SourceServer, opened: Any, shared_con: duckdb.DuckDBPyConnection, in_parts: None
):
    with opened(numbers.request("numbers")) as table, transaction(shared_con):
        late = [Comparison("at", ">", datetime(2024, 1, 14, 21, 0))]
        assert "ctid" not in table.relation(late)
        assert len(ids(shared_con, table.relation(late))) == table.count(late) == 20
        assert len(ids(shared_con, table.relation([Comparison("at", ">", datetime(2024, 1, 1))]))) == 20_000


def test_it_says_what_it_is(numbers: SourceServer, opened: Any):
    with opened(numbers.request("numbers")) as table:
        assert table.primary_key == ["id"]
        assert [(c.name, c.source_type, c.type, c.nullable) for c in table.columns] == [
            ("id", "integer", "INTEGER", False),
            ("at", "timestamp without time zone", "TIMESTAMP", False),
            ("note", "text", "VARCHAR", True),
        ]
        assert abs(table.clock() - datetime.now(UTC)) < timedelta(minutes=5)
        # The database is in Denver, whatever zone the connection that reads is in.
        offset = table.clock().replace(tzinfo=None) - table.local_clock()
        assert offset in (timedelta(hours=6), timedelta(hours=7))
        with pytest.raises(InputError, match="has no column 'nope'; it has id, at, note"):
            table.relation(columns=["nope"])


def test_bounds_are_finite(source_pg: SourceServer, opened: Any):
    source_pg.run(
        "CREATE TABLE ends (d date, f float8, n numeric)",
        "INSERT INTO ends VALUES ('infinity', 'NaN', 'Infinity'), ('-infinity', '-Infinity', 'NaN'), "
        "('2024-01-01', 1.5, 2.5), (NULL, NULL, NULL)",
    )
    with opened(source_pg.request("ends")) as table:
        assert [str(table.bounds(name)[1]) for name in ("d", "f", "n")] == ["2024-01-01", "1.5", "2.5"]
        assert table.bounds("f", [Comparison("d", "is null")]) == (None, None)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1; DROP TABLE numbers",
        "DELETE FROM numbers RETURNING *",
        "SELECT 1) AS a; DROP TABLE numbers; SELECT * FROM (SELECT 1",
        "SELECT 1) AS a) TO STDOUT; DROP TABLE numbers; COPY (SELECT * FROM (SELECT 1",
        "WITH gone AS (DELETE FROM numbers RETURNING *) SELECT * FROM gone",
        "SELECT nextval('counter')",
        "SELECT set_config('transaction_read_only', 'off', false), nextval('counter')",
        "COMMIT",
    ],
)
def test_a_query_cannot_write(
    numbers: SourceServer, opened: Any, shared_con: duckdb.DuckDBPyConnection, query: str
):
    numbers.run("CREATE SEQUENCE IF NOT EXISTS counter")
    with pytest.raises((InputError, SourceRefusedError)), opened(numbers.request(query=query)) as table:  # noqa: PT012
        try:
            shared_con.execute(f"FROM {table.relation()}").fetchall()
        except duckdb.Error as error:
            meaning = table.explain(error)
            assert meaning is not None
            raise meaning from None
    with opened(numbers.request(query="SELECT is_called FROM counter")) as table:
        assert shared_con.execute(f"FROM {table.relation()}").fetchall() == [(False,)]
    with opened(numbers.request("numbers")) as table:
        assert table.count() == 20_000


def refused(opened: Any, request: Any, error: type[QuaysideError], words: str) -> str:
    with pytest.raises(error, match=words) as raised, opened(request):
        pass
    assert PASSWORD not in str(raised.value)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_is_not_there_is_named(numbers: SourceServer, opened: Any):
    refused(opened, numbers.request("Numbers"), SourceRefusedError, r"no table or view 'public\.Numbers'")
    refused(
        opened,
        numbers.request(query="SELECT nope FROM numbers"),
        SourceRefusedError,
        'column "nope" does not exist',
    )
    refused(
        opened,
        numbers.request("t", source_catalog="no'where"),
        SourceRefusedError,
        "no'where.* does not exist",
    )
    bad = replace(
        numbers.request("numbers"), db_config_value=numbers.values | {"user": {"value": "nobody_here"}}
    )
    refused(opened, bad, SourceRefusedError, "nobody_here")


def test_columns_without_permission_are_named(numbers: SourceServer, opened: Any):
    numbers.run(
        "DROP ROLE IF EXISTS half_blind",
        "CREATE ROLE half_blind LOGIN",
        "GRANT SELECT (id, at) ON numbers TO half_blind",
    )
    values = numbers.values | {"user": {"value": "half_blind"}}
    request = replace(numbers.request("numbers"), db_config_value=values)
    refused(opened, request, SourceRefusedError, "not read 'note' of 'public.numbers': grant SELECT")
    with opened(replace(request, query="SELECT id FROM numbers")) as table:
        assert table.count() == 20_000
    numbers.run("DROP OWNED BY half_blind", "DROP ROLE half_blind")


@contextmanager
def silent_server() -> Iterator[int]:
    """It takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    for connection in kept:
        connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("db_type", ["postgresql", "mariadb"])
def test_a_server_that_is_silent_is_given_up(numbers: SourceServer, opened: Any, db_type: str):
    """case 31: a hung socket."""
    with silent_server() as port:
        values = numbers.values | {"host": {"value": "127.0.0.1"}, "port": port, "connect_timeout_seconds": 2}
        request = replace(numbers.request("numbers"), db_type=db_type, db_config_value=values)
        refused(opened, request, SourceUnavailableError, "does not answer")


@pytest.mark.parametrize("db_type", ["postgresql", "mariadb"])
@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_a_server_that_is_not_there_is_named(numbers: SourceServer, opened: Any, db_type: str, host: str):
    """case 31: an unreachable host."""
    values = numbers.values | {"host": {"value": host}, "port": 1}
    request = replace(numbers.request("numbers"), db_type=db_type, db_config_value=values)
    message = refused(opened, request, SourceUnavailableError, "does not answer")
    assert host in message


def test_a_read_that_takes_too_long_or_loses_its_connection_may_be_tried_again(
    numbers: SourceServer, opened: Any, shared_con: duckdb.DuckDBPyConnection
):
    values = numbers.values | {"statement_timeout_seconds": 1}
    slow = replace(numbers.request(query="SELECT pg_sleep(60)::text AS s"), db_config_value=values)
    ended = numbers.request(query="SELECT pg_terminate_backend(pg_backend_pid()) AS s")
    for request, words in ((slow, "statement timeout"), (ended, "terminating connection")):
        with opened(request) as table:
            with pytest.raises(duckdb.Error) as raised:
                shared_con.execute(f"FROM {table.relation()}").fetchall()
            meaning = table.explain(raised.value)
            assert isinstance(meaning, SourceUnavailableError)
            assert words in str(meaning)
    with opened(numbers.request("numbers")) as table:
        assert table.explain(duckdb.Error("Constraint Error: of something else")) is None


def test_administrators_see_who_reads_and_nothing_stays_behind(
    numbers: SourceServer, opened: Any, shared_con: duckdb.DuckDBPyConnection
):
    values = numbers.values | {"application_name": "loads of o'brien"}
    seen = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'loads of o''brien [%]'"
    before = shared_con.execute("SELECT count(*) FROM duckdb_databases()").fetchone()
    with opened(replace(numbers.request(query=seen), db_config_value=values)) as table:
        [[number]] = shared_con.execute(f"FROM {table.relation()}").fetchall()
        assert number == 2
    assert shared_con.execute("SELECT count(*) FROM duckdb_databases()").fetchone() == before
    left = shared_con.execute(
        "SELECT name FROM duckdb_secrets() WHERE name LIKE 'quayside_source%'"
    ).fetchall()
    assert left == []
