from __future__ import annotations

import threading
from typing import Any

import duckdb
import psycopg
import pytest
from tests.foundation.lake.conftest import Table
from tests.foundation.lake.test_export import ALL_TYPES

from quayside.foundation.errors import ConflictError, InputError, NotFoundError, SchemaError, UsageError
from quayside.foundation.lake import Lake
from quayside.foundation.lake import publish as publish_module
from quayside.foundation.lake.publish import publish_table
from quayside.foundation.postgres import connect

pytestmark = pytest.mark.integration


@pytest.fixture
def postgres(lake: Lake) -> Any:
    with connect(lake.settings, autocommit=True) as connection:
        yield connection


@pytest.fixture
def filled(lake: Lake, con: duckdb.DuckDBPyConnection, rows_table: Table) -> Lake:
    con.execute("INSERT INTO s.rows SELECT 'a', range FROM range(10)")
    con.execute("DELETE FROM s.rows WHERE n >= 6")
    return lake


def tables(postgres: psycopg.Connection[Any]) -> list[str]:
    found = postgres.execute(
        "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname IN ('s', 'bronze') ORDER BY 1"
    )
    return [row[0] for row in found.fetchall()]


def test_table_is_made_then_replaced(filled: Lake, postgres: psycopg.Connection[Any]) -> None:
    done = publish_table(filled, "s.rows")
    assert (done.rows, done.target) == (6, "s.rows")
    assert postgres.execute("SELECT count(*), sum(n) FROM s.rows").fetchone() == (6, 15)
    assert publish_table(filled, "s.rows", snapshot_id=2).rows == 10
    assert postgres.execute("SELECT count(*) FROM s.rows").fetchone() == (10,)
    assert publish_table(filled, "s.rows", target="bronze.other").target == "bronze.other"
    assert tables(postgres) == ["bronze.other", "s.rows"]
    comment = postgres.execute("SELECT obj_description('s.rows'::regclass)").fetchone()
    assert comment == ("Published by Quayside from lake table s.rows at snapshot 2",)


def test_types(lake: Lake, con: duckdb.DuckDBPyConnection, postgres: psycopg.Connection[Any]) -> None:
    con.execute(f"CREATE SCHEMA s; CREATE TABLE s.types AS {ALL_TYPES}")
    publish_table(lake, "s.types")
    row = postgres.execute(
        "SELECT v, b, ti, ub, h, d::text, f::text, day::text, ts AT TIME ZONE 'UTC', i::text, bl, j->>'k', l, "
        "s->>'q', m->>'k', nothing, \"od\"\"d name\", pg_typeof(ti)::text, pg_typeof(l)::text FROM s.types"
    ).fetchone()
    assert row is not None
    assert row[:8] == ("a", True, 1, 2, 3, "1.50", "NaN", "2026-01-01")
    assert row[8].isoformat() == "2026-01-01T08:00:00.123456"
    assert row[9:] == ("1 mon", b"\x00\xff", "1", ["x", None], "z", "1", None, '"', "smallint", "text[]")


@pytest.mark.slow
def test_views_and_grants_survive(
    filled: Lake, con: duckdb.DuckDBPyConnection, postgres: psycopg.Connection[Any]
) -> None:
    publish_table(filled, "s.rows")
    postgres.execute("CREATE VIEW public.staged AS SELECT sum(n) AS total FROM s.rows")
    con.execute("INSERT INTO s.rows VALUES ('b', 100)")
    publish_table(filled, "s.rows")
    assert postgres.execute("SELECT total FROM public.staged").fetchone() == (115,)

    con.execute("ALTER TABLE s.rows ADD COLUMN extra VARCHAR")
    with pytest.raises(SchemaError, match=r"Columns of s\.rows changed .*view staged"):
        publish_table(filled, "s.rows")
    assert postgres.execute("SELECT total FROM public.staged").fetchone() == (115,)
    assert tables(postgres) == ["s.rows"]
    postgres.execute("DROP VIEW public.staged")

    postgres.execute("GRANT SELECT ON s.rows TO PUBLIC")
    publish_table(
        filled, "s.rows"
    )  # the columns changed: the table is exchanged, rights have to be granted again
    postgres.execute("GRANT SELECT ON s.rows TO PUBLIC")
    publish_table(filled, "s.rows")
    granted = postgres.execute(
        "SELECT relacl::text LIKE '%%=r/%%' FROM pg_class WHERE oid = 's.rows'::regclass"
    )
    assert granted.fetchone() == (True,)
    assert postgres.execute("SELECT count(*), count(extra) FROM s.rows").fetchone() == (7, 0)


def test_what_is_not_ours_is_left_alone(filled: Lake, postgres: psycopg.Connection[Any]) -> None:
    postgres.execute("CREATE SCHEMA bronze")
    postgres.execute("CREATE TABLE bronze.precious AS SELECT 1 AS n")
    postgres.execute("CREATE VIEW bronze.looks AS SELECT 1 AS n")
    for name in ("precious", "looks"):
        with pytest.raises(UsageError, match="was not published from the lake"):
            publish_table(filled, "s.rows", target=f"bronze.{name}")
    for target in (
        "lake.ducklake_table",
        "pg_catalog.pg_class",
        "dagster.runs",
        "bronze." + "x" * 64,
        "bronze.",
    ):
        with pytest.raises(UsageError, match="--to"):
            publish_table(filled, "s.rows", target=target)
    with pytest.raises(NotFoundError):
        publish_table(filled, "s.nowhere")
    assert postgres.execute("SELECT n FROM bronze.precious").fetchone() == (1,)


def test_a_value_postgres_cannot_hold_changes_nothing(
    filled: Lake, con: duckdb.DuckDBPyConnection, postgres: psycopg.Connection[Any]
) -> None:
    con.execute("CREATE TABLE s.texts AS SELECT 'fine' AS t")
    publish_table(filled, "s.texts")
    con.execute("INSERT INTO s.texts SELECT 'nul' || chr(0)")
    with pytest.raises(InputError, match=r"s\.texts cannot be published: .*NULL-byte"):
        publish_table(filled, "s.texts")
    assert postgres.execute("SELECT t FROM s.texts").fetchall() == [("fine",)]
    assert tables(postgres) == ["s.texts"]


def test_what_a_killed_publication_left_is_replaced(filled: Lake, postgres: psycopg.Connection[Any]) -> None:
    postgres.execute("CREATE SCHEMA s")
    name = publish_module.staging_name("s.rows")
    postgres.execute(f'CREATE TABLE s."{name}" (n int)'.encode())
    publish_table(filled, "s.rows")
    assert tables(postgres) == ["s.rows"]


def test_a_table_in_use_is_waited_for_a_while(
    filled: Lake, postgres: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_table(filled, "s.rows")
    monkeypatch.setattr(publish_module, "_LOCK_SECONDS", 1)
    with postgres.transaction():
        postgres.execute("SELECT count(*) FROM s.rows")
        with pytest.raises(ConflictError, match="in use for 1 s"):
            publish_table(filled, "s.rows")
    publish_table(filled, "s.rows")


@pytest.mark.slow
@pytest.mark.parametrize("with_view", [False, True])
def test_a_reader_sees_all_rows_or_all_others(
    lake: Lake,
    con: duckdb.DuckDBPyConnection,
    rows_table: Table,
    postgres: psycopg.Connection[Any],
    with_view: bool,
) -> None:
    con.execute("INSERT INTO s.rows SELECT 'b0', range FROM range(3000)")
    publish_table(lake, "s.rows")
    if with_view:
        postgres.execute("CREATE VIEW public.staged AS SELECT * FROM s.rows")
    seen: set[tuple[Any, ...]] = set()
    stop = threading.Event()

    def read() -> None:
        with connect(lake.settings, autocommit=True) as reader:
            while not stop.is_set():
                seen.add(tuple(reader.execute("SELECT batch, count(*) FROM s.rows GROUP BY 1").fetchall()))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for n in range(1, 4):
            con.execute("UPDATE s.rows SET batch = ?", [f"b{n}"])
            publish_table(lake, "s.rows")
    finally:
        stop.set()
        thread.join()
    assert len(seen) > 1
    assert seen <= {((f"b{n}", 3000),) for n in range(4)}
