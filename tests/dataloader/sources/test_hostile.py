"""Names of schemas, tables and columns, and values, that are out to break the statement they stand in.

cases 27, 34 and 47: names needing quotes, and quotes in values and queries.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.dataloader.hostile import HOSTILE, LONG
from tests.dataloader.servers import SourceServer, load_request

from quayside.dataloader.sources.source import Comparison

pytestmark = pytest.mark.integration

VALUE = 'it\'s "quoted" `so` \\ %s $1 ; -- \n 表'


def ansi(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def tick(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def check(table: Any, rows: Callable[..., Any], names: list[str]) -> None:
    """Every column arrives under its name; a value full of quotes is found by each of them."""
    assert [column.name for column in table.columns] == names
    expected = [tuple(VALUE for _ in names), tuple("other" for _ in names)]
    assert rows(table) == sorted(expected)
    for name in names:
        where = [Comparison(name, "=", VALUE)]
        assert table.count(where) == 1
        assert rows(table, where, [name]) == [(VALUE,)]
    assert table.bounds(names[0]) == (min(VALUE, "other"), max(VALUE, "other"))


def fill(quote: Callable[[str], str], place: str, names: list[str], type_: str) -> list[str]:
    columns = ", ".join(f"{quote(name)} {type_}" for name in names)
    value = VALUE.replace("'", "''")
    if quote is tick:
        value = value.replace("\\", "\\\\")
    rows = (", ".join(f"'{text}'" for _ in names) for text in (value, "other"))
    return [f"CREATE TABLE {place} ({columns})", *(f"INSERT INTO {place} VALUES ({row})" for row in rows)]


@pytest.mark.slow
def test_postgresql_takes_every_name(source_pg: SourceServer, opened: Any, rows: Any):
    names = [*HOSTILE, LONG]
    source_pg.run(*[f"CREATE SCHEMA {ansi(name)}" for name in names])
    source_pg.run(
        *[f"CREATE TABLE {ansi(n)}.{ansi(n)} AS SELECT {i} AS {ansi(n)}" for i, n in enumerate(names)]
    )
    for number, name in enumerate(names):
        with opened(source_pg.request(name, source_schema_name=name)) as table:
            assert rows(table) == [(number,)]
            assert [column.name for column in table.columns] == [name]
    source_pg.run(*fill(ansi, "all_names", names, "text"))
    with opened(source_pg.request("all_names")) as table:
        check(table, rows, names)


def test_a_name_that_postgresql_would_cut_is_not_found(source_pg: SourceServer, opened: Any):
    source_pg.run(f"CREATE TABLE {LONG} (i int)")
    with pytest.raises(Exception, match="no table or view"), opened(source_pg.request(LONG + "n")):
        pass


@pytest.mark.slow
def test_mariadb_takes_every_name(mariadb: SourceServer, opened: Any, rows: Any):
    # It has no names outside the basic plane, and none that end in a blank.
    names = [*(name.replace(" 😀", "") for name in HOSTILE), LONG]
    schemas = [name for name in names if not set(name) & set("/\\")][:4]
    mariadb.run(*[f"CREATE DATABASE {tick(name)}" for name in schemas])
    mariadb.run(
        *[f"CREATE TABLE {tick(s)}.{tick(s)} AS SELECT {i} AS {tick(s)}" for i, s in enumerate(schemas)]
    )
    for number, name in enumerate(schemas):
        with opened(mariadb.request(name, source_schema_name=name)) as table:
            assert rows(table) == [(number,)]
    for number, name in enumerate(names):
        mariadb.run(f"CREATE TABLE {tick(name)} AS SELECT {number} AS {tick(name)}")
        with opened(mariadb.request(name)) as table:
            assert rows(table) == [(number,)]
            assert [column.name for column in table.columns] == [name]
    mariadb.run(*fill(tick, "all_names", names, "text"))
    with opened(mariadb.request("all_names")) as table:
        check(table, rows, names)


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_embedded_databases_take_every_name(kind: str, tmp_path: Path, opened: Any, rows: Any):
    names = [*HOSTILE, "x" * 200]
    path = tmp_path / 'it\'s "a" file.db'
    connection: Any = sqlite3.connect(path) if kind == "sqlite" else duckdb.connect(str(path))
    for statement in [
        *(f"CREATE TABLE {ansi(n)} ({ansi(n)} integer)" for n in names),
        *(f"INSERT INTO {ansi(n)} VALUES ({i})" for i, n in enumerate(names)),
        *fill(ansi, "all_names", names, "text"),
    ]:
        connection.execute(statement)
    if kind == "sqlite":
        connection.commit()
    connection.close()
    for number, name in enumerate(names):
        with opened(load_request(kind, {"path": str(path)}, name)) as table:
            assert rows(table) == [(number,)]
    with opened(load_request(kind, {"path": str(path)}, "all_names")) as table:
        check(table, rows, names)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_files_take_every_name(kind: str, tmp_path: Path, opened: Any, rows: Any):
    names = [name for name in HOSTILE if "/" not in name]
    con = duckdb.connect()
    selected = [
        ", ".join("'{}' AS {}".format(text.replace("'", "''"), ansi(name)) for name in HOSTILE)
        for text in (VALUE, "other")
    ]
    for name in names:
        (tmp_path / name).mkdir()
        file = str(tmp_path / name / f"{name}.{kind}").replace("'", "''")
        con.execute(f"COPY (SELECT {selected[0]} UNION ALL SELECT {selected[1]}) TO '{file}' (FORMAT {kind})")
        with opened(
            load_request(kind, {"path": str(tmp_path)}, f"{name}.{kind}", source_schema_name=name)
        ) as table:
            assert table.count() == 2
    with opened(load_request(kind, {"path": str(tmp_path)}, names[0])) as table:
        check(table, rows, HOSTILE)


def test_a_query_with_quotes_runs_as_written(
    source_pg: SourceServer, mariadb: SourceServer, opened: Any, rows: Any
):
    value = VALUE.replace("'", "''")
    with opened(source_pg.request(query=f"SELECT '{value}' AS \"a'b\" -- 'open")) as table:
        assert rows(table) == [(VALUE,)]
        assert table.count([Comparison("a'b", "=", VALUE)]) == 1
    value = value.replace("\\", "\\\\")
    with opened(mariadb.request(query=f"SELECT '{value}' AS `a'b` -- 'open")) as table:
        assert rows(table) == [(VALUE,)]
        assert table.count([Comparison("a'b", "=", VALUE)]) == 1
