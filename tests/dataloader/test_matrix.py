"""Source × strategy × destination, every cell a real load, its changes, and a second load.

A source has one table, which all strategies load into a table of their own at every destination; then the table
changes, and all load it again. ``UPDATE_MATRIX=1`` writes docs/dataloader/matrix.md, which this test otherwise holds to
what it ran.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.dataloader.servers import SourceServer

from quayside.dataloader.destinations.destination import open_destination
from quayside.dataloader.load import load_table
from quayside.dataloader.request import STRATEGIES, LoadRequest
from quayside.dataloader.result import LoadResult
from quayside.dataloader.sources.registry import MODULES
from quayside.foundation.lake.sql import literal

if TYPE_CHECKING:
    import duckdb

    from quayside.foundation.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PAGE = Path(__file__).parents[2] / "docs" / "dataloader" / "matrix.md"
DESTINATIONS = {"DuckLake": "bronze", "Delta": "delta"}

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
OLD = datetime(2020, 1, 1)


def _ago(days: int) -> datetime:
    return TODAY - timedelta(days=days)


#: id, v, made (never changes), changed
BEFORE = [
    (1, "a", OLD, OLD),
    (2, "b", _ago(9), _ago(9)),
    (3, "c", _ago(8), _ago(8)),
    (4, "d", _ago(7), _ago(7)),
]
#: 1 and 3 are deleted, 1 of them outside the window of `rolling`; 2 is updated, 5 inserted.
AFTER = [(2, "B", _ago(9), _ago(2)), (4, "d", _ago(7), _ago(7)), (5, "e", _ago(2), _ago(2))]

#: Strategy → what its row configures, and (id, v) that the table holds after the second load.
EXPECTED: dict[str, tuple[dict[str, Any], list[tuple[Any, ...]]]] = {
    "full": ({}, [(2, "B"), (4, "d"), (5, "e")]),
    "incremental": ({"incremental_column": "changed"}, [(1, "a"), (2, "B"), (3, "c"), (4, "d"), (5, "e")]),
    "append_only": ({"incremental_column": "made"}, [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")]),
    "rolling": (
        {"rolling_column": "made", "rolling_days": 30},
        [(1, "a"), (2, "B"), (4, "d"), (5, "e")],
    ),
    "check_and_load": ({"incremental_column": "changed"}, [(2, "B"), (4, "d"), (5, "e")]),
    "chunked_backfill": (
        {"incremental_column": "changed"},
        [(1, "a"), (2, "B"), (3, "c"), (4, "d"), (5, "e")],
    ),
    "scd2": (
        {},
        [(1, "a", False), (2, "B", True), (2, "b", False), (3, "c", False), (4, "d", True), (5, "e", True)],
    ),
}  # fmt: skip

#: Writes these rows as the source's table `orders`, instead of what was there.
Write = Callable[[list[tuple[Any, ...]]], None]
#: The part of a request that names the source, and how its table is written.
Opened = tuple[dict[str, Any], Write]

_FIXTURES = {"postgresql": "source_pg", "mariadb": "mariadb"}
_SCHEMAS = {"postgresql": "public", "mariadb": None}
DDL = (
    "CREATE TABLE orders (id INTEGER PRIMARY KEY, v VARCHAR(20), made TIMESTAMP NULL, changed TIMESTAMP NULL)"
)


@contextmanager
def _server(request: pytest.FixtureRequest, con: Any, folder: Path) -> Iterator[Opened]:
    del con, folder
    server: SourceServer = request.getfixturevalue(_FIXTURES[request.node.callspec.params["source"]])
    with closing(server.connect()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("DROP TABLE IF EXISTS orders")  # other tests of this server may have left one
        cursor.execute(DDL)

        def write(rows: list[tuple[Any, ...]]) -> None:
            cursor.execute("DELETE FROM orders")
            cursor.executemany("INSERT INTO orders VALUES (%s, %s, %s, %s)", rows)

        yield {"db_config_value": server.values, "source_schema_name": _SCHEMAS[server.db_type]}, write
        cursor.execute("DROP TABLE orders")


@contextmanager
def sqlite(request: pytest.FixtureRequest, con: Any, folder: Path) -> Iterator[Opened]:
    del request, con
    path = folder / "source.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(DDL)

        def write(rows: list[tuple[Any, ...]]) -> None:
            database.execute("DELETE FROM orders")
            texts = [tuple(str(value) for value in row) for row in rows]
            database.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", texts)

        yield {"db_config_value": {"path": str(path)}}, write


@contextmanager
def duckdb_file(request: pytest.FixtureRequest, con: Any, folder: Path) -> Iterator[Opened]:
    import duckdb

    del request, con
    path = folder / "source.duckdb"

    def write(rows: list[tuple[Any, ...]]) -> None:
        with duckdb.connect(path) as database:
            database.execute(DDL.replace("CREATE TABLE", "CREATE OR REPLACE TABLE"))
            database.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", rows)

    yield {"db_config_value": {"path": str(path)}}, write


def _files(suffix: str, options: str, **fields: str) -> Any:
    @contextmanager
    def files(
        request: pytest.FixtureRequest, con: duckdb.DuckDBPyConnection, folder: Path
    ) -> Iterator[Opened]:
        del request

        def write(rows: list[tuple[Any, ...]]) -> None:
            listed = ", ".join(
                f"({row[0]}, {literal(row[1])}, TIMESTAMP '{row[2]}', TIMESTAMP '{row[3]}')" for row in rows
            )
            place = literal(str(folder / f"orders.{suffix}"))
            con.execute(f"COPY (FROM (VALUES {listed}) r(id, v, made, changed)) TO {place} ({options})")

        yield (
            {"db_config_value": {"path": str(folder), **fields}, "source_table_name": f"orders.{suffix}"},
            write,
        )

    return files


SOURCES = {
    "postgresql": _server,
    "mariadb": _server,
    "sqlite": sqlite,
    "duckdb": duckdb_file,
    "parquet": _files("parquet", "FORMAT parquet"),
    "csv": _files("csv", "FORMAT csv, HEADER", types="detect"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_strategy_loads_it_to_every_destination(
    source: str,
    request: pytest.FixtureRequest,
    shared_settings: Settings,
    shared_con: duckdb.DuckDBPyConnection,
    tmp_path: Path,
) -> None:
    with SOURCES[source](request, shared_con, tmp_path) as (named, write):
        requests = [
            _request(source, strategy, destination, named)
            for strategy in STRATEGIES
            for destination in DESTINATIONS.values()
        ]
        write(BEFORE)
        requests = [_after(r, load_table(shared_settings, r, con=shared_con)) for r in requests]
        write(AFTER)
        for second in requests:
            load_table(shared_settings, second, con=shared_con)
        found = {_cell(r): _content(shared_settings, shared_con, r) for r in requests}
    assert found == {_cell(r): EXPECTED[_strategy(r)][1] for r in requests}


def test_the_page_says_what_is_run() -> None:
    page = _page()
    if os.environ.get("UPDATE_MATRIX") == "1":
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page, "run this test with UPDATE_MATRIX=1"


def _request(source: str, strategy: str, destination: str, named: dict[str, Any]) -> LoadRequest:
    fields = {
        "config_id": 9_000_000
        + 100 * [*SOURCES].index(source)
        + 10 * STRATEGIES.index(strategy)
        + len(destination),  # type: ignore[arg-type]
        "control_key": "00" * 32,
        "metadata_id": 1,
        "attempt": 1,
        "db_config_key": f"matrix_{source}",
        "db_type": source,
        "db_kv_scope": "env",
        "source_catalog": None,
        "source_schema_name": None,
        "source_table_name": "orders",
        "query": None,
        "destination_catalog": destination,
        "destination_schema_name": "matrix",
        "destination_table_name": f"{source}_{strategy}",
        "load_strategy": strategy,
        "primary_key_cols": ("id",),
    }
    configured, _ = EXPECTED[strategy]
    cursor = {"incremental_type": "timestamp"} if "incremental_column" in configured else {}
    return LoadRequest(**{**fields, **configured, **cursor, **named})


def _after(request: LoadRequest, result: LoadResult) -> LoadRequest:
    """The request of the second attempt, as the control row would make it."""
    assert result.rows_inserted == result.rows_total == len(BEFORE), _cell(request)
    return replace(
        request,
        attempt=2,
        incremental_value=result.cursor_after,
        load_strategy="incremental" if result.handed_over else request.load_strategy,
    )


def _strategy(request: LoadRequest) -> str:
    return request.destination_table_name.removeprefix(f"{request.db_type}_")


def _cell(request: LoadRequest) -> tuple[str, str, str]:
    return request.db_type, _strategy(request), request.destination_catalog


def _content(
    settings: Settings, con: duckdb.DuckDBPyConnection, request: LoadRequest
) -> list[tuple[Any, ...]]:
    columns = "id, v, is_current" if _strategy(request) == "scd2" else "id, v"
    relation = open_destination(settings, con, request).relation()
    return con.execute(f"SELECT {columns} FROM {relation} ORDER BY id, v").fetchall()


def _page() -> str:
    lines = [
        "# Source × strategy × destination",
        "",
        "Generated by `tests/dataloader/test_matrix.py`, and held to what it runs. A cell that says **run** is two real loads in",
        "`make test`, with updates, inserts and deletes at the source between them, and the table compared afterwards. The others",
        "are the same code behind another reader; [Sources](sources.md) says what each was tried against.",
        "",
    ]
    for destination in DESTINATIONS:
        lines += [f"## {destination}", "", f"| source | {' | '.join(STRATEGIES)} |", "|---" * 8 + "|"]
        for source in sorted(MODULES):
            cell = "**run**" if source in SOURCES else "not run"
            lines.append(f"| {source} | {' | '.join([cell] * len(STRATEGIES))} |")
        lines.append("")
    return "\n".join(lines)
