"""Parquet and CSV files, DuckDB and SQLite files: what a table means, what a query may do, what is refused."""

from __future__ import annotations

import sqlite3
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.dataloader.servers import load_request

from quayside.dataloader.errors import SourceRefusedError, SourceUnavailableError, UnsupportedTypeError
from quayside.dataloader.sources.source import Comparison
from quayside.foundation.errors import InputError

pytestmark = pytest.mark.integration


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``trade/2024/{a,b}.parquet`` with another column in the second, ``one.csv``, ``a.db`` of DuckDB and SQLite."""
    (tmp_path / "trade" / "2024").mkdir(parents=True)
    con = duckdb.connect()
    for name, select in (
        ("a", "1 AS id, 'x' AS note"),
        ("b", "2 AS id, 'y' AS note, DATE '2024-01-02' AS d"),
    ):
        con.execute(f"COPY (SELECT {select}) TO '{tmp_path}/trade/2024/{name}.parquet' (FORMAT parquet)")
    (tmp_path / "one.csv").write_text('id,note\n007,"a,""b"""\n,\n')
    with duckdb.connect(str(tmp_path / "a.duckdb")) as own:
        own.execute("CREATE SCHEMA s")
        own.execute('CREATE TABLE s.t (id int PRIMARY KEY, "at" timestamp NOT NULL, f double)')
        own.execute(
            "INSERT INTO s.t VALUES (1, '2024-01-01', 'nan'), (2, '2024-01-02', 1.5), (3, 'infinity', NULL)"
        )
    own = sqlite3.connect(tmp_path / "a.sqlite")
    own.execute(
        "CREATE TABLE t (id integer PRIMARY KEY, note text NOT NULL, d date, b blob, n numeric(10,2))"
    )
    own.execute("INSERT INTO t VALUES (1, 'x', '2024-01-02', x'00ff', 1.5), (2, 'y', NULL, NULL, NULL)")
    own.execute("CREATE TABLE untrue (i integer)")
    own.execute("INSERT INTO untrue VALUES ('word')")
    own.commit()
    own.close()
    return tmp_path


@pytest.mark.parametrize(
    "table, schema, expected",
    [
        ("a.parquet", "trade/2024", [(1, "x")]),
        ("trade", None, [(1, "x", None), (2, "y", date(2024, 1, 2))]),
        ("2024/*.parquet", "trade", [(1, "x", None), (2, "y", date(2024, 1, 2))]),
        ("**/b.parquet", None, [(2, "y", date(2024, 1, 2))]),
    ],
)
def test_a_file_a_folder_and_a_glob(
    folder: Path, opened: Any, rows: Any, table: str, schema: str | None, expected: Any
):
    with opened(load_request("parquet", {"path": str(folder)}, table, source_schema_name=schema)) as source:
        assert rows(source) == expected
        assert source.count() == len(expected)
        (folder / "trade" / "2024" / "later.parquet").write_bytes(b"not looked at: it came later")
        assert rows(source) == expected


def test_a_csv_is_text_unless_told(folder: Path, opened: Any, rows: Any):
    with opened(load_request("csv", {"path": str(folder)}, "one.csv")) as source:
        assert rows(source) == [("007", 'a,"b"'), (None, None)]
        assert [column.type for column in source.columns] == ["VARCHAR", "VARCHAR"]
    (folder / "two.csv").write_text("5;2024-01-02\n6;-\n")
    values = {"path": str(folder), "header": False, "delimiter": ";", "types": "detect", "null_text": "-"}
    with opened(load_request("csv", values, "two.csv")) as source:
        assert rows(source) == [(5, date(2024, 1, 2)), (6, None)]


@pytest.mark.parametrize(
    "db_type, content, words",
    [
        ("csv", b"id,note\n1,2\n1,2,3\n", "cannot be read"),
        ("csv", b"id,note\n1,\xff\xfe\n", "cannot be read"),
        ("parquet", b"PAR1 nonsense", "cannot be read"),
    ],
)
def test_a_broken_file_is_refused(
    folder: Path, opened: Any, shared_con: duckdb.DuckDBPyConnection, db_type: str, content: bytes, words: str
):
    (folder / f"bad.{db_type}").write_bytes(content)
    request = load_request(db_type, {"path": str(folder)}, f"bad.{db_type}")
    with pytest.raises(InputError, match=words), opened(request) as source:  # noqa: PT012
        try:
            shared_con.execute(f"FROM {source.relation()}").fetchall()
        except duckdb.Error as error:
            meaning = source.explain(error)
            assert meaning is not None
            raise meaning from None


@pytest.mark.parametrize(
    "db_type, changes, error, words",
    [
        ("parquet", {"source_table_name": "nope"}, SourceRefusedError, "has no parquet file at 'nope'"),
        ("parquet", {"source_table_name": "../x"}, InputError, "leaves the path"),
        ("parquet", {"source_table_name": "/etc"}, InputError, "leaves the path"),
        ("csv", {"query": "SELECT 1"}, InputError, "take no query"),
        (
            "csv",
            {"source_table_name": "one.csv", "more": {"types": "guess"}},
            InputError,
            "text or detect, not 'guess'",
        ),
        ("duckdb", {"source_table_name": "t"}, SourceRefusedError, "no file"),
    ],
)
def test_what_is_not_there_is_named(
    folder: Path, opened: Any, db_type: str, changes: Any, error: Any, words: str
):
    values = {"path": str(folder)} | changes.pop("more", {})
    request = load_request(db_type, values, changes.pop("source_table_name", "x"), **changes)
    with pytest.raises(error, match=words), opened(request):
        pass


def test_a_duckdb_file(folder: Path, opened: Any, rows: Any):
    with opened(
        load_request("duckdb", {"path": str(folder / "a.duckdb")}, "t", source_schema_name="s")
    ) as source:
        assert source.primary_key == ["id"]
        assert [(c.name, c.type, c.nullable) for c in source.columns][:2] == [
            ("id", "INTEGER", False),
            ("at", "TIMESTAMP", False),
        ]
        assert source.bounds("at") == (datetime(2024, 1, 1), datetime(2024, 1, 2))
        assert source.bounds("f") == (1.5, 1.5)
        assert rows(source, [Comparison("at", ">", datetime(2024, 1, 1, 12))], ["id"]) == [(2,), (3,)]


@pytest.mark.parametrize(
    "kind, query, expected",
    [
        ("duckdb", "SELECT id + 1 AS next FROM s.t -- all", [(2,), (3,), (4,)]),
        ("sqlite", "SELECT id, upper(note) AS note FROM t", [(1, "X"), (2, "Y")]),
    ],
)
def test_a_query_of_a_file(folder: Path, opened: Any, rows: Any, kind: str, query: str, expected: Any):
    with opened(load_request(kind, {"path": str(folder / f"a.{kind}")}, query=query)) as source:
        name = source.columns[0].name
        assert rows(source) == expected
        assert rows(source, [Comparison(name, "<=", expected[0][0])], [name]) == [expected[0][:1]]
        assert (source.count(), source.bounds(name)) == (len(expected), (expected[0][0], expected[-1][0]))


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_csv('one.csv')",
        "SELECT 1 AS a) AS x; DROP TABLE s.t; SELECT * FROM (SELECT 1",
        "DROP TABLE s.t",
        "SELECT * FROM shared_con",
        "SELECT * FROM lake.main.t",
        "FROM nowhere",
    ],
)
def test_a_query_of_a_file_reads_that_file_alone(folder: Path, opened: Any, query: str):
    request = load_request("duckdb", {"path": str(folder / "a.duckdb")}, query=query)
    with pytest.raises((InputError, SourceRefusedError)), opened(request):
        pass


def test_sqlite(folder: Path, opened: Any, rows: Any, shared_con: duckdb.DuckDBPyConnection):
    values = {"path": str(folder / "a.sqlite")}
    with opened(load_request("sqlite", values, "t")) as source:
        assert source.primary_key == ["id"]
        assert [(c.source_type, c.type, c.nullable) for c in source.columns][1] == ("TEXT", "VARCHAR", False)
        assert rows(source) == [(1, "x", date(2024, 1, 2), b"\x00\xff", 1.5), (2, "y", None, None, None)]
    with opened(load_request("sqlite", values, "untrue")) as source:
        with pytest.raises(duckdb.Error) as raised:
            shared_con.execute(f"FROM {source.relation()}").fetchall()
        meaning = source.explain(raised.value)
    assert isinstance(meaning, UnsupportedTypeError)
    assert '"i"' in str(meaning)


def test_a_file_another_process_writes_is_not_the_requests_fault():
    from quayside.dataloader.sources.embedded import _meaning

    error = duckdb.IOException("IO Error: Could not set lock on file: Conflicting lock is held")
    assert isinstance(_meaning(error, "s", "duckdb", Path("x")), SourceUnavailableError)
