"""Every type of PostgreSQL and MariaDB that users have arrives as written down here, or is refused by name.

These cases are docs/dataloader/types.md. After an intended change: ``UPDATE_TYPES=1 pytest`` on this file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import duckdb
import pytest
from tests.dataloader.servers import SourceServer

from quayside.dataloader.errors import UnsupportedTypeError
from quayside.foundation.errors import InputError
from quayside.foundation.settings import project_root

pytestmark = pytest.mark.integration

PAGE = project_root() / "docs" / "dataloader" / "types.md"


@dataclass(frozen=True)
class Case:
    """A value of a declared type, and the type and text it has in the lake; `refused`: words of the refusal."""

    declared: str
    value: str
    type: str
    arrives: str | None = None
    refused: str | None = None
    note: str = ""


def refused(declared: str, value: str, type_: str, words: str, note: str = "") -> Case:
    return Case(declared, value, type_, refused=words, note=note)


POSTGRESQL = [
    Case("boolean", "true", "BOOLEAN", "true"),
    Case("smallint", "-32768", "SMALLINT", "-32768"),
    Case("integer", "-2147483648", "INTEGER", "-2147483648"),
    Case("bigint", "-9223372036854775808", "BIGINT", "-9223372036854775808"),
    Case("real", "'NaN'", "FLOAT", "nan"),
    Case("double precision", "'-Infinity'", "DOUBLE", "-inf"),
    Case("double precision", "0.1", "DOUBLE", "0.1"),
    Case("numeric(15,2)", "-1234567890123.45", "DECIMAL(15,2)", "-1234567890123.45"),
    Case("numeric(38,0)", "99999999999999999999999999999999999999", "DECIMAL(38,0)", "9" * 38),
    Case("numeric(3,5)", "0.00012", "DECIMAL(5,5)", ".00012"),
    refused("numeric(15,2)", "'NaN'", "DECIMAL(15,2)", "holds NaN"),
    Case("numeric", "1.2345678901234567890123456789012345678901", "VARCHAR",
         "1.2345678901234567890123456789012345678901", note="No decimal holds every value, a double loses digits."),
    Case("numeric", "'Infinity'", "VARCHAR", "Infinity"),
    Case("numeric(40,2)", "1.50", "VARCHAR", "1.50", note="More than 38 digits."),
    Case("numeric(3,-2)", "12345", "VARCHAR", "12300"),
    Case("money", "1234.5", "VARCHAR", "1234.50"),
    Case("text", "'zero bytes cannot be in it, 表 can'", "VARCHAR", "zero bytes cannot be in it, 表 can"),
    Case("varchar(5)", "'ab '", "VARCHAR", "ab "),
    Case("char(5)", "'ab'", "VARCHAR", "ab", note="Without the blanks it is filled with, which mean nothing."),
    Case('"char"', "'x'", "VARCHAR", "x"),
    Case("name", "'x'", "VARCHAR", "x"),
    Case("bytea", r"'\x00ff'", "BLOB", r"\x00\xFF"),
    Case("date", "'2024-02-29'", "DATE", "2024-02-29"),
    Case("date", "'infinity'", "DATE", "infinity"),
    Case("date", "'0044-03-15 BC'", "DATE", "0044-03-15 (BC)"),
    Case("time", "'24:00:00'", "TIME", "24:00:00"),
    Case("time with time zone", "'12:00:00.5+05:30'", "TIME WITH TIME ZONE", "12:00:00.5+05:30"),
    Case("timestamp", "'2024-02-29 12:00:00.123456'", "TIMESTAMP", "2024-02-29 12:00:00.123456"),
    Case("timestamp", "'-infinity'", "TIMESTAMP", "-infinity"),
    Case("timestamp", "'4713-01-01 00:00:00 BC'", "TIMESTAMP", "4713-01-01 (BC) 00:00:00"),
    refused("timestamp", "'294276-12-31'", "TIMESTAMP", "after the year 294246"),
    Case("timestamp with time zone", "'2024-06-01 12:00:00+02'", "TIMESTAMP WITH TIME ZONE", "2024-06-01 10:00:00+00"),
    Case("timestamp with time zone", "'infinity'", "TIMESTAMP WITH TIME ZONE", "infinity"),
    Case("interval", "'1 mon 2 days 3.5 s'", "INTERVAL", "1 month 2 days 00:00:03.5"),
    refused("interval", "'infinity'", "INTERVAL", "infinite interval", note="PostgreSQL 17 and newer."),
    Case("uuid", "'00000000-0000-0000-0000-00000000000a'", "UUID", "00000000-0000-0000-0000-00000000000a"),
    Case("json", """'{"b": 1, "a": 1.10}'""", "VARCHAR", '{"b": 1, "a": 1.10}', note="As written."),
    Case("jsonb", """'{"b": 1, "a": 1.10}'""", "VARCHAR", '{"a": 1.10, "b": 1}'),
    Case("integer[]", "'{1,NULL,3}'", "INTEGER[]", "[1, NULL, 3]"),
    Case("integer[]", "'{}'", "INTEGER[]", "[]"),
    Case("integer[]", "'[5:6]={1,2}'", "INTEGER[]", "[1, 2]", note="Where counting starts is not kept."),
    refused("integer[]", "'{{1,2},{3,4}}'", "INTEGER[]", "several dimensions"),
    Case("integer[][]", "'{{1,2},{3,4}}'", "VARCHAR", "[[1,2],[3,4]]"),
    Case("text[]", """'{"a,b",NULL,""}'""", "VARCHAR[]", "['a,b', NULL, '']"),
    Case("timestamp[]", "'{2024-01-01,infinity}'", "TIMESTAMP[]", "['2024-01-01 00:00:00', infinity]"),
    refused("timestamp[]", "'{294276-12-31}'", "TIMESTAMP[]", "after the year 294246"),
    Case("numeric(5,2)[]", "'{1.50,NaN}'", "VARCHAR", '[1.50,"NaN"]', note="JSON, as other arrays of such."),
    Case("bytea[]", r"""'{"\\x00ff"}'""", "VARCHAR", r'["\\x00ff"]'),
    Case("t_mood", "'so so'", "VARCHAR", "so so", note="An enum."),
    Case("t_mood[]", "'{sad}'", "VARCHAR", '["sad"]'),
    Case("t_percent", "12.5", "DECIMAL(5,2)", "12.50", note="A domain arrives as what it is based on."),
    Case("t_pair", "'(1,\"a b\")'", "VARCHAR", '{"i":1,"t":"a b"}', note="A composite type."),
    Case("int4range", "'[1,5)'", "VARCHAR", "[1,5)"),
    Case("tstzrange", "'[2024-01-01 00:00+00,)'", "VARCHAR", '["2024-01-01 00:00:00+00",)'),
    Case("int4multirange", "'{[1,2),[5,6)}'", "VARCHAR", "{[1,2),[5,6)}"),
    Case("inet", "'192.168.0.1/24'", "VARCHAR", "192.168.0.1/24"),
    Case("cidr", "'10.0.0.0/8'", "VARCHAR", "10.0.0.0/8"),
    Case("macaddr", "'08:00:2b:01:02:03'", "VARCHAR", "08:00:2b:01:02:03"),
    Case("bit(3)", "B'101'", "VARCHAR", "101"),
    Case("bit varying", "B'10'", "VARCHAR", "10"),
    Case("tsvector", "'a b'", "VARCHAR", "'a' 'b'"),
    Case("point", "'(1,2)'", "VARCHAR", "(1,2)"),
    Case("polygon", "'((0,0),(1,1))'", "VARCHAR", "((0,0),(1,1))"),
    Case("oid", "4294967295", "BIGINT", "4294967295"),
    Case("regclass", "'pg_class'", "VARCHAR", "pg_class"),
    Case("pg_lsn", "'16/B374D848'", "VARCHAR", "16/B374D848"),
    Case("real", "'Infinity'", "FLOAT", "inf"),
    Case("boolean[]", "'{t,NULL}'", "BOOLEAN[]", "[true, NULL]"),
    Case("date[]", "'{2024-02-29,infinity}'", "DATE[]", "[2024-02-29, infinity]"),
    Case("uuid[]", "'{00000000-0000-0000-0000-00000000000a}'", "UUID[]", "[00000000-0000-0000-0000-00000000000a]"),
    Case("jsonb[]", """'{"{\\"a\\": 1}"}'""", "VARCHAR", '[{"a": 1}]'),
    Case("t_pair[]", """'{"(1,x)"}'""", "VARCHAR", '[{"i":1,"t":"x"}]'),
    Case("daterange", "'[2024-01-01,2024-02-01)'", "VARCHAR", "[2024-01-01,2024-02-01)"),
    Case("numrange", "'empty'", "VARCHAR", "empty"),
    Case("int4range[]", """'{"[1,5)"}'""", "VARCHAR", '["[1,5)"]'),
    Case("macaddr8", "'08:00:2b:01:02:03:04:05'", "VARCHAR", "08:00:2b:01:02:03:04:05"),
    Case("tsquery", "'a & b'", "VARCHAR", "'a' & 'b'"),
    Case("jsonpath", "'$.a[*]'", "VARCHAR", '$."a"[*]'),
    Case("box", "'(1,1),(0,0)'", "VARCHAR", "(1,1),(0,0)"),
    Case("circle", "'<(0,0),1>'", "VARCHAR", "<(0,0),1>"),
    Case("path", "'[(0,0),(1,1)]'", "VARCHAR", "[(0,0),(1,1)]"),
    Case("xid8", "'18446744073709551615'", "VARCHAR", "18446744073709551615"),
]  # fmt: skip

MARIADB = [
    Case("tinyint(1)", "5", "TINYINT", "5", note="Not a boolean: it holds more than two values."),
    Case("tinyint unsigned", "255", "UTINYINT", "255"),
    Case("smallint", "-32768", "SMALLINT", "-32768"),
    Case("smallint unsigned", "65535", "USMALLINT", "65535"),
    Case("mediumint", "-8388608", "INTEGER", "-8388608"),
    Case("mediumint unsigned", "16777215", "UINTEGER", "16777215"),
    Case("int", "-2147483648", "INTEGER", "-2147483648"),
    Case("int unsigned", "4294967295", "UINTEGER", "4294967295"),
    Case("bigint", "-9223372036854775808", "BIGINT", "-9223372036854775808"),
    Case("bigint unsigned", "18446744073709551615", "UBIGINT", "18446744073709551615"),
    Case("decimal(15,2)", "-1234567890123.45", "DECIMAL(15,2)", "-1234567890123.45"),
    Case("decimal(15,2) unsigned", "9999999999999.99", "DECIMAL(15,2)", "9999999999999.99"),
    Case("decimal(18,0)", "-999999999999999999", "DECIMAL(18,0)", "-999999999999999999"),
    Case("decimal(38,38)", f"0.{'9' * 38}", "DECIMAL(38,38)", f".{'9' * 38}"),
    Case("decimal(65,30)", "12345678901234567890123456789012345.123456789012345678901234567890", "VARCHAR",
         "12345678901234567890123456789012345.123456789012345678901234567890", note="More than 38 digits."),
    Case("float", "1.1", "FLOAT", "1.1"),
    Case("double", "0.1", "DOUBLE", "0.1"),
    Case("bit(1)", "1", "UBIGINT", "1"),
    Case("bit(64)", "18446744073709551615", "UBIGINT", "18446744073709551615"),
    Case("char(5)", "'ab '", "VARCHAR", "ab"),
    Case("varchar(20)", r"'a\0b ü😀 '", "VARCHAR", "a\0b ü😀 ", note="Zero bytes included."),
    Case("varchar(20) character set latin1", "'é'", "VARCHAR", "é"),
    Case("varchar(20) collate utf8mb4_bin", "'é'", "VARCHAR", "é"),
    Case("longtext", "'x'", "VARCHAR", "x"),
    Case("binary(3)", "x'00ff'", "BLOB", r"\x00\xFF\x00"),
    Case("varbinary(20)", "x'00ff'", "BLOB", r"\x00\xFF"),
    Case("longblob", "x'00ff'", "BLOB", r"\x00\xFF"),
    Case("date", "'2024-02-29'", "DATE", "2024-02-29"),
    refused("date", "'0000-00-00'", "DATE", "a date that is none"),
    refused("date", "'2024-00-05'", "DATE", "a date that is none"),
    Case("datetime(6)", "'2024-02-29 12:00:00.123456'", "TIMESTAMP", "2024-02-29 12:00:00.123456"),
    refused("datetime", "'0000-00-00 00:00:00'", "TIMESTAMP", "a date that is none"),
    Case("timestamp(6) null", "'2024-06-01 12:00:00.123456'", "TIMESTAMP WITH TIME ZONE",
         "2024-06-01 19:00:00.123456+00", note="Written at UTC-7; the moment, not what the server's clock showed."),
    Case("time(6)", "'-838:59:58.5'", "VARCHAR", "-838:59:58.5", note="A length of time of up to 35 days."),
    Case("year", "2155", "INTEGER", "2155"),
    Case("enum('a','b')", "'b'", "VARCHAR", "b"),
    Case("set('x','y')", "'x,y'", "VARCHAR", "x,y"),
    Case("json", """'{"b": 1}'""", "VARCHAR", '{"b": 1}'),
    Case("uuid", "'00000000-0000-0000-0000-00000000000a'", "UUID", "00000000-0000-0000-0000-00000000000a"),
    Case("inet6", "'::1'", "VARCHAR", "::1"),
    Case("inet4", "'10.0.0.1'", "VARCHAR", "10.0.0.1"),
    Case("tinytext", "''", "VARCHAR", ""),
    Case("mediumblob", "x'00'", "BLOB", r"\x00"),
    Case("boolean", "true", "TINYINT", "1"),
    Case("datetime(3)", "'9999-12-31 23:59:59.999'", "TIMESTAMP", "9999-12-31 23:59:59.999"),
    Case("date", "'0001-01-01'", "DATE", "0001-01-01"),
    Case("year", "0", "INTEGER", "0"),
    Case("enum('a','b')", "''", "VARCHAR", "", note="What the server makes of a value that the enum does not have."),
    Case("point", "ST_GeomFromText('POINT(1 2)', 4326)", "BLOB",
         r"\xE6\x10\x00\x00\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\xF0?\x00\x00\x00\x00\x00\x00\x00@",
         note="Four bytes of SRID, then WKB."),
]  # fmt: skip


def arrival(table: Any, con: duckdb.DuckDBPyConnection, column: str) -> tuple[str, Any]:
    """DuckDB type and text of the one value of a column."""
    found = con.execute(
        f"SELECT typeof({column}), {column}::VARCHAR FROM {table.relation((), [column])}"
    ).fetchone()
    assert found is not None
    return found


def check(cases: list[Case], server: SourceServer, opened: Any, con: duckdb.DuckDBPyConnection) -> None:
    """A table with a column for each case, and one row of its values; a second row is all null."""
    columns = ", ".join(f"c{i} {case.declared}" for i, case in enumerate(cases))
    server.run(
        f"CREATE TABLE every_type ({columns})",
        f"INSERT INTO every_type VALUES ({', '.join(case.value for case in cases)})",
        f"CREATE TABLE every_null ({columns})",
        f"INSERT INTO every_null VALUES ({', '.join('NULL' for _ in cases)})",
    )
    con.execute("SET TimeZone = 'UTC'")
    with opened(server.request("every_type")) as table:
        assert [column.type for column in table.columns] == [case.type for case in cases]
        arriving = [f"c{i}" for i, case in enumerate(cases) if case.refused is None]
        shown = ", ".join(f"[typeof({name}), {name}::VARCHAR]" for name in arriving)
        values = con.execute(f"SELECT {shown} FROM {table.relation((), arriving)}").fetchone()
        assert values is not None
        expected = [[case.type, case.arrives] for case in cases if case.refused is None]
        assert list(values) == expected
        for number, case in enumerate(cases):
            if case.refused is not None:
                with pytest.raises(duckdb.Error) as raised:
                    arrival(table, con, f"c{number}")
                error = table.explain(raised.value)
                assert isinstance(error, UnsupportedTypeError), case
                assert case.refused in str(error)
                assert f"'c{number}'" in str(error)
                assert "in a query" in str(error)
    with opened(server.request("every_null")) as table:
        row = con.execute(f"FROM {table.relation()}").fetchone()
        assert row == tuple(None for _ in cases)
        described = con.execute(f"DESCRIBE SELECT * FROM {table.relation()}").fetchall()
        assert [row[1] for row in described] == [case.type for case in cases]


def test_every_type_of_postgresql(
    source_pg: SourceServer, opened: Any, shared_con: duckdb.DuckDBPyConnection
):
    source_pg.run(
        "CREATE TYPE t_mood AS ENUM ('sad', 'so so')",
        "CREATE DOMAIN t_percent AS numeric(5,2)",
        "CREATE TYPE t_pair AS (i int, t text)",
    )
    check(POSTGRESQL, source_pg, opened, shared_con)


def test_every_type_of_mariadb(mariadb: SourceServer, opened: Any, shared_con: duckdb.DuckDBPyConnection):
    check(MARIADB, mariadb, opened, shared_con)


def test_columns_of_a_mariadb_query_lose_nothing(
    mariadb: SourceServer, opened: Any, shared_con: duckdb.DuckDBPyConnection
):
    """Of an expression the scanner knows less: a sum of decimals would be a double, text in a binary collation bytes."""
    expressions = {
        "9223372036854775807": ("BIGINT", "9223372036854775807"),
        "18446744073709551615": ("UBIGINT", "18446744073709551615"),
        "CAST('12345678901234567890123456789012345678.12' AS DECIMAL(65,2))": (
            "VARCHAR",
            "12345678901234567890123456789012345678.12",
        ),
        "1e0 / 3": ("DOUBLE", "0.3333333333333333"),
        "1.50": ("DECIMAL(5,2)", "1.50"),
        "CAST('é' AS CHAR) COLLATE utf8mb4_bin": ("VARCHAR", "é"),
        "x'00ff'": ("BLOB", r"\x00\xFF"),
        "CAST('2024-01-02' AS DATE)": ("DATE", "2024-01-02"),
        "TIME'100:00:00'": ("VARCHAR", "100:00:00"),
    }
    query = "SELECT " + ", ".join(f"{sql} AS c{i}" for i, sql in enumerate(expressions))
    with opened(mariadb.request(query=query)) as table:
        for number, expected in enumerate(expressions.values()):
            assert arrival(table, shared_con, f"c{number}") == expected
    mariadb.run("CREATE TABLE flags (f tinyint(1), d date)", "INSERT INTO flags VALUES (5, '0000-00-00')")
    with opened(mariadb.request(query="SELECT f, NULLIF(d, 0) AS d FROM flags")) as table:
        assert arrival(table, shared_con, "f") == ("SMALLINT", "5")
        assert arrival(table, shared_con, "d")[1] is None


@pytest.mark.slow
def test_very_long_values_arrive_whole(
    source_pg: SourceServer, mariadb: SourceServer, opened: Any, shared_con: duckdb.DuckDBPyConnection
):
    length = 12_000_000
    source_pg.run(
        f"CREATE TABLE long_ones AS SELECT repeat('é', {length}) AS t, repeat('x', {length})::bytea AS b"
    )
    mariadb.run(
        "CREATE TABLE long_ones (t longtext, b longblob)",
        f"INSERT INTO long_ones VALUES (repeat('é', {length}), repeat('x', {length}))",
    )
    for server in (source_pg, mariadb):
        with opened(server.request("long_ones")) as table:
            found = shared_con.execute(
                f"SELECT length(t), octet_length(b) FROM {table.relation()}"
            ).fetchone()
            assert found == (length, length)


@pytest.mark.parametrize("columns", ['1 AS a, 2 AS "A"', "1 AS a, 2 AS a"])
def test_columns_the_lake_could_not_tell_apart_are_refused(
    source_pg: SourceServer, opened: Any, columns: str
):
    """case 27: colliding folded names."""
    with (
        pytest.raises(InputError, match="cannot tell apart"),
        opened(source_pg.request(query=f"SELECT {columns}")),
    ):
        pass


INTRODUCTION = """# Types

How each type of a source arrives in the lake, with a value to show it. A test loads every line of these tables from a real
PostgreSQL and a real MariaDB and writes this page; what cannot arrive as it is stops the load with a sentence that names
the column and the cast to use in a `query`. Nothing becomes null or another value on the way.

Elsewhere: SQLite's values are of the types that their column declares, or the load stops; without a declared type they
are bytes, and `numeric` is the double that SQLite stores. Parquet and DuckDB files keep DuckDB's types. CSV is text (`types: detect`
lets DuckDB guess).

In a query on MySQL or MariaDB, where the server tells less, `tinyint(1)` and `bit(1)` arrive as SMALLINT, wider `bit` as bytes,
a decimal with up to two digits more than declared, and `timestamp` as TIMESTAMP in UTC.

PostgreSQL's `xml`, and types of extensions, arrive as text; the server of the test has neither.

A cursor column has to be a whole number, a date or a timestamp where it arrives: cast a `numeric` without scale in a query.
"""


def page() -> str:
    def cell(text: str) -> str:
        shown = text.replace("|", "\\|").replace("\0", "\\0")
        return f"`{shown}`" if shown and "`" not in shown else shown

    def line(case: Case) -> str:
        value = case.value if len(case.value) < 45 else f"{case.value[:40]}…"
        arrives = case.arrives if case.arrives is None or len(case.arrives) < 45 else f"{case.arrives[:40]}…"
        shown = cell(arrives) if arrives is not None else f"refused: {case.refused}"
        return f"| {cell(case.declared)} | {cell(value)} | {cell(case.type)} | {shown} | {case.note} |"

    head = "| declared | value | arrives as | value in the lake | |\n|---|---|---|---|---|\n"
    parts = [INTRODUCTION]
    for name, cases in (("PostgreSQL", POSTGRESQL), ("MariaDB and MySQL", MARIADB)):
        parts.append(f"## {name}\n\n{head}" + "\n".join(map(line, cases)) + "\n")
    return "\n".join(parts)


def test_the_page_is_the_one_these_cases_make():
    if os.environ.get("UPDATE_TYPES") == "1":
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(), "utf-8")
    assert PAGE.read_text("utf-8") == page()
