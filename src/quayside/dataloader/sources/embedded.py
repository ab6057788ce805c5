"""Databases that are a file: DuckDB and SQLite, attached read-only.

A query is DuckDB's SQL. It runs in a DuckDB of its own, which sees that file and nothing else, and comes over as Arrow.
"""

# ruff: noqa: S608 - identifiers and values are quoted

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from quayside.dataloader.errors import SourceRefusedError, SourceUnavailableError, UnsupportedTypeError
from quayside.dataloader.sources import scanner
from quayside.dataloader.sources.arrow import ArrowTable
from quayside.dataloader.sources.counting import LARGE_BYTES, CountingFilter
from quayside.dataloader.sources.duckdb_table import DuckTable
from quayside.dataloader.sources.fields import Field
from quayside.dataloader.sources.ranges import Range
from quayside.dataloader.sources.source import Predicate, SourceTable
from quayside.foundation.errors import InputError, QuaysideError
from quayside.foundation.lake.sql import identifier, literal, reason

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from quayside.dataloader.request import LoadRequest

FIELDS: Final = (Field("path", required=True, plain=True),)


@contextmanager
def open(
    con: duckdb.DuckDBPyConnection, request: LoadRequest, fields: Mapping[str, str]
) -> Iterator[SourceTable]:
    """Open the request's table or query; see `quayside.dataloader.sources.source.Source.open`."""
    import duckdb

    source, path = request.db_config_key, Path(fields["path"]).expanduser()
    if not path.is_file():
        raise SourceRefusedError(f"Source {source}: there is no file {path}.")

    def explain(error: Exception) -> QuaysideError:
        return _meaning(error, source, request.db_type, path)

    with ExitStack() as stack:
        try:
            yield stack.enter_context((_query if request.query else _table)(con, request, path, explain))
        except duckdb.IOException as error:
            raise explain(error) from None


@contextmanager
def _table(con: Any, request: LoadRequest, path: Path, explain: Any) -> Iterator[SourceTable]:
    scanner.load(con, *_EXTENSIONS[request.db_type])
    large = path.stat().st_size >= LARGE_BYTES
    with (
        scanner.attached(con, str(path), request.db_type) as catalog,
        CountingFilter.made(con, large=large) as counting,
    ):
        table = _FINDERS[request.db_type](con, catalog, request, path, explain)
        table.counting = counting
        yield table


def _sqlite(con: Any, catalog: str, request: LoadRequest, path: Path, explain: Any) -> DuckTable:
    def ask(statement: str) -> list[tuple[Any, ...]]:
        return con.execute(f"SELECT * FROM sqlite_query({literal(catalog)}, {literal(statement)})").fetchall()

    source, name = request.db_config_key, request.source_table_name
    if not ask(f"SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name = {literal(name)}"):
        raise SourceRefusedError(f"Source {source} has no table {name!r} in {path}.")
    columns = ask(f'SELECT name, type, "notnull" AS required, pk FROM pragma_table_info({literal(name)})')
    places = {row[0]: int(row[3]) for row in columns}
    return DuckTable(
        con,
        source,
        name,
        f"{identifier(catalog)}.{identifier(name)}",
        explain,
        snapshot=False,
        declared={row[0]: row[1] for row in columns},
        not_null=[row[0] for row in columns if int(row[2])],
        primary_key=[name for name in sorted(places, key=lambda name: places[name]) if places[name]],
    )


def _duckdb(con: Any, catalog: str, request: LoadRequest, path: Path, explain: Any) -> DuckTable:
    source, schema, name = (
        request.db_config_key,
        request.source_schema_name or "main",
        request.source_table_name,
    )
    place = [catalog, schema, name]
    columns = con.execute(
        "SELECT column_name, is_nullable FROM duckdb_columns() "
        "WHERE database_name = ? AND schema_name = ? AND table_name = ?",
        place,
    ).fetchall()
    if not columns:
        raise SourceRefusedError(f"Source {source} has no table '{schema}.{name}' in {path}.")
    keys = con.execute(
        "SELECT constraint_column_names FROM duckdb_constraints() WHERE database_name = ? AND schema_name = ? "
        "AND table_name = ? AND constraint_type = 'PRIMARY KEY'",
        place,
    ).fetchone()
    return DuckTable(
        con,
        source,
        f"{schema}.{name}",
        ".".join(map(identifier, place)),
        explain,
        snapshot=True,
        not_null=[row[0] for row in columns if not row[1]],
        primary_key=keys[0] if keys else [],
    )


@contextmanager
def _query(con: Any, request: LoadRequest, path: Path, explain: Any) -> Iterator[SourceTable]:
    import duckdb

    [folder] = con.execute("SELECT current_setting('extension_directory')").fetchone()
    with closing(duckdb.connect(config={"extension_directory": folder})) as own:
        scanner.load(own, *_EXTENSIONS[request.db_type])
        with scanner.attached(own, str(path), request.db_type) as catalog:
            own.execute("SET TimeZone = 'UTC'")
            own.execute(f"USE {identifier(catalog)}")
            own.execute("SET enable_external_access = false")
            own.execute("SET python_enable_replacements = false")
            own.execute("SET lock_configuration = true")
            table = ArrowTable(con, request, _Query(own, catalog, request, explain), 1)
            try:
                yield table
            finally:
                table.close()


class _Query:
    """A query in a DuckDB of its own; `quayside.dataloader.sources.arrow.ArrowSource`."""

    name = "the query"
    snapshot = False
    primary_key: Sequence[str] = ()

    def __init__(self, own: Any, catalog: str, request: LoadRequest, explain: Any) -> None:
        import duckdb

        assert request.query is not None
        inner = f"(\n{request.query.strip().rstrip(';')}\n)"
        try:
            if len(duckdb.extract_statements(f"SELECT * FROM {inner}")) != 1:
                raise InputError(f"The query of source {request.db_config_key} is more than one statement.")
            self.schema = own.execute(f"SELECT * FROM {inner} LIMIT 0").to_arrow_table().schema
        except duckdb.Error as error:
            raise explain(error) from None
        self._own = own
        self._reading: list[Any] = []
        self._catalog = catalog
        self._table = DuckTable(own, request.db_config_key, self.name, inner, explain, snapshot=False)
        self.source_types = [column.source_type for column in self._table.columns]
        self.clock, self.local_clock = self._table.clock, self._table.local_clock
        self.count, self.bounds, self.explain = self._table.count, self._table.bounds, self._table.explain

    def batches(
        self, columns: Sequence[str], where: Predicate, part: tuple[str, Range] | None
    ) -> Iterable[pa.RecordBatch]:
        assert part is None
        cursor = self._own.cursor()
        cursor.execute(f"USE {identifier(self._catalog)}")
        self._reading.append(cursor)
        return cursor.execute(f"FROM {self._table.relation(where, columns)}").to_arrow_reader(50_000)

    def interrupt(self) -> None:
        for cursor in [self._own, *self._reading]:
            cursor.interrupt()


_EXTENSIONS: Final[dict[str, tuple[str, ...]]] = {"duckdb": (), "sqlite": ("sqlite_scanner",)}
_FINDERS: Final = {"duckdb": _duckdb, "sqlite": _sqlite}


def _meaning(error: Exception, source: str, kind: str, path: Path) -> QuaysideError:
    said = reason(error)
    words = said.lower()
    if "lock" in words:
        return SourceUnavailableError(f"Source {source}: {path} is in use by another process: {said}.")
    if "mismatch" in words or "invalid type in column" in words:
        return UnsupportedTypeError(
            f"Source {source}: a value is not of the type its column declares ({said}): cast the column in a query."
        )
    if "does not exist" in words or "no such" in words:
        return SourceRefusedError(f"Source {source} refuses: {said}.")
    return InputError(f"Source {source}, {kind} file {path}, cannot be read: {said}.")
