"""Every type of DuckDB in a Delta table: as what it is stored, what it reads back as, and bounds that are exact or absent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from deltalake import DeltaTable
from tests.conftest import make_settings
from tests.dataloader.destinations.test_delta import OPEN, request_of, state

from quayside.dataloader.destinations.delta import DeltaDestination
from quayside.dataloader.destinations.delta_types import segment
from quayside.dataloader.destinations.destination import Rows
from quayside.dataloader.errors import UnsupportedTypeError
from quayside.foundation.lake.sql import identifier

pytestmark = pytest.mark.unit

#: A value of each type (SQL) → type it is stored as; the value as text must be the same before and after.
CASES = [
    ("true", "BOOLEAN"),
    ("(-128)::TINYINT", "TINYINT"),
    ("(-32768)::SMALLINT", "SMALLINT"),
    ("(-2147483648)::INTEGER", "INTEGER"),
    ("9223372036854775807::BIGINT", "BIGINT"),
    ("255::UTINYINT", "SMALLINT"),
    ("65535::USMALLINT", "INTEGER"),
    ("4294967295::UINTEGER", "BIGINT"),
    ("18446744073709551615::UBIGINT", "DECIMAL(20,0)"),
    ("99999999999999999999999999999999999999::HUGEINT", "DECIMAL(38,0)"),
    ("5::UHUGEINT", "DECIMAL(38,0)"),
    ("0.1::FLOAT", "FLOAT"),
    ("'nan'::DOUBLE", "DOUBLE"),
    ("'-infinity'::DOUBLE", "DOUBLE"),
    ("0.1::DOUBLE", "DOUBLE"),
    ("12345.67::DECIMAL(15,2)", "DECIMAL(15,2)"),
    ("-0.1234567890123456789012345678901234567::DECIMAL(38,37)", "DECIMAL(38,37)"),
    ("'ä' || chr(0) || chr(10) || '''\"'", "VARCHAR"),
    ("''", "VARCHAR"),
    ("repeat('x', 70000)", "VARCHAR"),
    ("'\\x00\\xFF'::BLOB", "BLOB"),
    ("DATE '2026-02-28'", "DATE"),
    ("DATE '0044-03-15 (BC)'", "DATE"),
    ("TIMESTAMP '2026-02-28 23:59:59.999999'", "TIMESTAMP"),
    ("TIMESTAMP '1583-01-01 00:00:00'", "TIMESTAMP"),
    ("TIMESTAMP '9999-12-31 23:59:59'", "TIMESTAMP"),
    ("TIMESTAMPTZ '2026-02-28 23:59:59.999999+02'", "TIMESTAMP WITH TIME ZONE"),
    ("TIMESTAMP_S '2026-01-01 00:00:01'", "TIMESTAMP"),
    ("TIMESTAMP_NS '2026-01-01 00:00:00.123456'", "TIMESTAMP"),
    ("TIME '12:34:56.789'", "VARCHAR"),
    ("TIMETZ '12:34:56+02'", "VARCHAR"),
    ("INTERVAL '1 month 2 days 03:00:00'", "VARCHAR"),
    ("'6d3d2541-0e5c-4a4d-8b58-5f5e5a5b5c5d'::UUID", "VARCHAR"),
    ("'{\"a\": [1, null]}'::JSON", "VARCHAR"),
    ("'0101'::BIT", "VARCHAR"),
    ("'b'::ENUM('a', 'b')", "VARCHAR"),
    ("[1, NULL, 3]", "INTEGER[]"),
    ("[[1], []]", "INTEGER[][]"),
    ("[1, 2, 3]::INTEGER[3]", "INTEGER[]"),
    ("['6d3d2541-0e5c-4a4d-8b58-5f5e5a5b5c5d'::UUID]", "VARCHAR[]"),
    ("{'a b': 1, 'c': [TIMESTAMP '2026-01-01 00:00:00']}", 'STRUCT("a b" INTEGER, "c" TIMESTAMP[])'),
    ("MAP {'k': 1.5::DECIMAL(4,2)}", "MAP(VARCHAR, DECIMAL(4,2))"),
    ("union_value(n := 2)", "VARCHAR"),
]  # fmt: skip


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def test_every_type_arrives_and_reads_back(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    table = DeltaDestination(make_settings(QUAYSIDE_HOME=str(tmp_path)), con, request_of())
    names = {f"c{number}": sql for number, (sql, _) in enumerate(CASES)}
    given = ", ".join(f"{sql} AS {name}" for name, sql in names.items())
    arriving = {
        row[0]: row[1] for row in con.execute(f"DESCRIBE SELECT {given}").fetchall() if row[0] in names
    }
    columns = {name: table.stored_type(type_) for name, type_ in arriving.items()}
    cast = ", ".join(f"{name}::{type_} AS {name}" for name, type_ in columns.items())
    nothing = ", ".join(f"NULL::{type_}" for type_ in columns.values())
    select = f"SELECT {cast} FROM (SELECT {given}) UNION ALL SELECT {nothing}"
    table.overwrite(Rows(columns, list(columns), lambda: select), state(), OPEN)

    assert table.columns() == columns
    stored = dict(zip(names, (type_ for _, type_ in CASES), strict=True))
    normal = {name: con.sqltype(type_) for name, type_ in stored.items()}
    assert {name: con.sqltype(type_) for name, type_ in columns.items()} == normal
    texts = ", ".join(f"{name}::VARCHAR" for name in names)
    expected = con.execute(f"SELECT {texts} FROM (SELECT {cast} FROM (SELECT {given}))").fetchone()
    assert con.execute(f"SELECT {texts} FROM {table.relation()} WHERE c0").fetchone() == expected
    empty = con.execute(f"SELECT {texts} FROM {table.relation()} WHERE c0 IS NULL").fetchone()
    assert empty == (None,) * len(names)
    seen = DeltaTable(table.url).to_pyarrow_table(columns=[n for n in names if n != "c22"])  # not BC in Arrow
    assert seen.num_rows == 2
    assert seen.column("c14").to_pylist() == [0.1, None]
    again = Rows(columns, list(columns), lambda: f"SELECT {cast} FROM (SELECT {given})")
    assert table.merge(again, ["c4"], state(), OPEN).updated == 0


def test_a_type_that_delta_cannot_hold_is_refused(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    table = DeltaDestination(make_settings(QUAYSIDE_HOME=str(tmp_path)), con, request_of())
    assert table.stored_type('"NULL"') == "VARCHAR"
    with pytest.raises(UnsupportedTypeError, match="GEOMETRY: cast the column"):
        table.stored_type("GEOMETRY")


BOUNDS = [
    ("BIGINT", "range - 3", (-3, 6)),
    ("DOUBLE", "range / 10.0", (0.0, 0.9)),
    ("DOUBLE", "if(range = 3, 'nan'::DOUBLE, range)", None),
    ("DOUBLE", "if(range = 3, 'infinity'::DOUBLE, range)", None),
    ("FLOAT", "range / 10.0", None),
    ("DECIMAL(15,2)", "range / 4.0", (0.0, 2.25)),
    ("DECIMAL(38,20)", "range / 3.0", None),
    ("VARCHAR", "'é' || chr(34) || range", ('é"0', 'é"9')),
    ("VARCHAR", "repeat('x', 60 + range::INTEGER)", None),
    ("DATE", "DATE '2026-01-01' + range::INTEGER", ("2026-01-01", "2026-01-10")),
    ("DATE", "if(range = 3, 'infinity'::DATE, DATE '2026-01-01')", None),
    ("DATE", "if(range = 3, DATE '0044-03-15 (BC)', DATE '2026-01-01')", None),
    ("TIMESTAMP", "TIMESTAMP '2026-01-01 00:00:00.000001' + INTERVAL 1 DAY * range",
     ("2026-01-01T00:00:00.000001", "2026-01-10T00:00:00.000001")),
    ("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ '2026-01-01 00:00:00+01' + INTERVAL 1 DAY * range",
     ("2025-12-31T23:00:00Z", "2026-01-09T23:00:00Z")),
    ("BOOLEAN", "range > 3", None),
    ("BLOB", "'x'::BLOB", None),
]  # fmt: skip


def test_bounds_are_exact_or_absent(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    """A bound that is off makes readers skip files that hold what they look for."""
    table = DeltaDestination(make_settings(QUAYSIDE_HOME=str(tmp_path)), con, request_of())
    columns = {f"c{number}": type_ for number, (type_, _, _) in enumerate(BOUNDS)}
    listed = ", ".join(f"({sql})::{type_} AS c{n}" for n, (type_, sql, _) in enumerate(BOUNDS))
    table.append(Rows(columns, list(columns), lambda: f"SELECT {listed} FROM range(10)"), state(), OPEN)
    log = (Path(table.url) / "_delta_log" / f"{0:020}.json").read_text(encoding="utf-8")
    add = next(action["add"] for action in map(json.loads, log.splitlines()) if "add" in action)
    stats = json.loads(add["stats"])
    found = {name: (stats["minValues"].get(name), stats["maxValues"].get(name)) for name in columns}
    assert found == {f"c{n}": expected or (None, None) for n, (_, _, expected) in enumerate(BOUNDS)}
    assert stats["numRecords"] == 10
    assert stats["nullCount"] == dict.fromkeys(columns, 0)


def test_names_of_folders_never_meet_and_never_lead_out() -> None:
    names = ["a", "A", "a/b", "a~2Fb", "a b", "", ".", "..", "...", ".a", "a.", "_a", "ä", "a\u0308", "x" * 181, "x" * 300, "%2F", "a\\b", "a:b", "a*b", "a\x00"]  # fmt: skip
    folders = [segment(name) for name in names]
    assert len(set(folders)) == len(names)
    assert all(folder and "/" not in folder and "\\" not in folder for folder in folders)
    assert all(not folder.startswith(".") and len(folder.encode()) <= 255 for folder in folders)
    assert segment("Orders_2026") == "Orders_2026"


def test_columns_are_quoted_in_nested_types(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    table = DeltaDestination(make_settings(QUAYSIDE_HOME=str(tmp_path)), con, request_of())
    name = 'a"b, "c" VARCHAR)'
    type_ = f"STRUCT({identifier(name)} INTEGER)"
    rows = Rows({name: type_}, [name], lambda: f"SELECT NULL::{type_} AS {identifier(name)}")
    table.overwrite(rows, state(), OPEN)
    assert table.columns() == {name: type_}
