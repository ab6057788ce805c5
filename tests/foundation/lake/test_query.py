from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from tests.foundation.lake.conftest import Table

from quayside.foundation.errors import InputError
from quayside.foundation.lake import Lake
from quayside.foundation.lake.query import run_query

pytestmark = pytest.mark.integration


def rows(lake: Lake, sql: str) -> list[tuple[object, ...]]:
    with run_query(lake, sql) as result:
        return list(result.rows)


@pytest.fixture
def filled(lake: Lake, con: duckdb.DuckDBPyConnection, rows_table: Table) -> Lake:
    con.execute("INSERT INTO s.rows SELECT 'b', range FROM range(2500)")
    return lake


READS: list[tuple[str, list[tuple[object, ...]]]] = [
    ("SELECT count(*) FROM s.rows", [(2500,)]),
    ("FROM s.rows WHERE n = 7", [("b", 7)]),
    ("WITH x AS (SELECT max(n) AS m FROM s.rows) SELECT m + 1 FROM x;", [(2500,)]),
    ("SELECT count(*) FROM s.rows AT (VERSION => 1)", [(0,)]),
    ("FROM range(2)", [(0,), (1,)]),
    ("SELECT table_name FROM duckdb_tables()", [("rows",)]),
    ("SELECT max(snapshot_id) FROM ducklake_snapshots('lake')", [(2,)]),
    ("SELECT n FROM s.rows WHERE n < 0", []),
]


def test_reads(filled: Lake) -> None:
    for sql, answer in READS:
        assert rows(filled, sql) == answer, sql


def test_rows_come_in_batches(filled: Lake) -> None:
    with run_query(filled, "FROM s.rows ORDER BY n") as result:
        assert result.columns == ["batch", "n"]
        assert [row[1] for row in result.rows] == list(range(2500))


#: Statement and what its refusal says.
REFUSED = [
    ("DELETE FROM s.rows", "Only one SELECT can be run here"),
    ("INSERT INTO s.rows VALUES ('x', 1)", "Only one SELECT"),
    ("DROP TABLE s.rows", "Only one SELECT"),
    ("ATTACH '{tmp}/new.db'", "Only one SELECT"),
    ("COPY s.rows TO '{tmp}/new.csv'", "Only one SELECT"),
    ("COPY (SELECT 1) TO '{tmp}/new.csv'", "Only one SELECT"),
    ("EXPORT DATABASE '{tmp}/new'", "Only one SELECT"),
    ("SET threads = 1", "Only one SELECT"),
    ("RESET lock_configuration", "Only one SELECT"),
    ("INSTALL httpfs", "Only one SELECT"),
    ("LOAD '{tmp}/evil.duckdb_extension'", "Only one SELECT"),
    ("USE memory", "Only one SELECT"),
    ("CALL lake.set_option('parquet_compression', 'snappy')", "Only one SELECT"),
    ("EXPLAIN ANALYZE DELETE FROM s.rows", "Only one SELECT"),
    ("PREPARE p AS DELETE FROM s.rows", "Only one SELECT"),
    ("BEGIN", "Only one SELECT"),
    ("", "Only one SELECT can be run at a time"),
    ("SELECT 1; DELETE FROM s.rows", "Only one SELECT"),
    ("SELECT 1; SELECT 2", "Only one SELECT can be run at a time"),
    ("FROM read_text('/etc/passwd')", "table function read_text"),
    ("SELECT (SELECT content FROM read_text('/etc/passwd'))", "table function read_text"),
    ("FROM glob('/etc/*')", "table function glob"),
    ("FROM '/etc/passwd'", "The query failed"),
    ("FROM '{tmp}/there.parquet'", "The query failed: Permission Error"),
    ("FROM '{lake}/../there.parquet'", "The query failed"),
    ("FROM postgres_query('__ducklake_metadata_lake', 'SELECT 1')", "table function postgres_query"),
    (
        "FROM postgres_execute('__ducklake_metadata_lake', 'COMMIT; CREATE TABLE public.hack (n int)')",
        "table function postgres_execute",
    ),
    ("WITH x AS (FROM POSTGRES_EXECUTE('a', 'b')) FROM x", "table function postgres_execute"),
    ("FROM ducklake_expire_snapshots('lake', older_than => now())", "table function ducklake_expire"),
    (
        "FROM ducklake_delete_orphaned_files('lake', cleanup_all => true)",
        "table function ducklake_delete",
    ),
    ("FROM query('SELECT 1')", "table function query"),
    ("SELECT getenv('HOME')", "The query failed: Catalog Error"),
    ("FROM secret", "The query failed"),
    ("SELEC 1", "cannot be parsed: syntax error"),
    ("FROM s.nowhere", "does not exist"),
    ("SELECT error('told')", "told"),
]


@pytest.mark.slow
def test_all_else_is_refused_with_one_sentence(filled: Lake, tmp_path: Path) -> None:
    duckdb.sql(f"COPY (SELECT 1 AS n) TO '{tmp_path}/there.parquet'")
    secret = 1  # a Python variable must not be readable as a table
    for sql, why in REFUSED:
        with pytest.raises(InputError) as raised:
            rows(filled, sql.format(tmp=tmp_path, lake=filled.settings.lake_data_path))
        sentence = str(raised.value)
        assert why in sentence, sql
        assert "\n" not in sentence
        assert sentence.endswith("."), sql
    assert not list(tmp_path.rglob("*new*"))
    assert rows(filled, "SELECT count(*) FROM s.rows") == [(2500,)]
    assert secret == 1


@pytest.mark.slow
def test_the_guard_holds_without_the_check(
    filled: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Read-only attachment and closed file access stand behind the check of the statement."""
    monkeypatch.setattr("quayside.foundation.lake.query.check_select", lambda con, sql: None)
    for sql in (
        "DELETE FROM s.rows",
        f"COPY s.rows TO '{tmp_path}/new.csv'",
        "FROM read_text('/etc/passwd')",
        "SET threads = 1",
        "SET enable_external_access = true",
        f"ATTACH '{tmp_path}/new.db'",
    ):
        with pytest.raises(InputError):
            rows(filled, sql)
    assert not list(tmp_path.glob("new*"))
