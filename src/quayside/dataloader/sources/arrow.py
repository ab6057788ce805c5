"""Sources that DuckDB has no scanner for: the vendor's driver gives Arrow record batches, DuckDB pulls them.

An `ArrowSource` is what a vendor's module has to write; `ArrowTable` makes a `SourceTable` of it. DuckDB takes one batch
at a time, from whichever of its threads is free but never from two at once, so that memory holds a few batches whatever
the table's size. Where the driver knows the DB-API only, ``dbapi.py`` is an ArrowSource already.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from quayside.dataloader.sources import scanner
from quayside.dataloader.sources.columns import check_columns
from quayside.dataloader.sources.counting import Passing
from quayside.dataloader.sources.ranges import Range, ranges_of
from quayside.dataloader.sources.source import Column, Interruptible, Predicate
from quayside.foundation.errors import InputError, QuaysideError
from quayside.foundation.lake.sql import identifier

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from quayside.dataloader.request import LoadRequest

#: Aim of a batch; a row of documents can be megabytes, so rows are no measure.
BATCH_BYTES: Final = 16 * 1024 * 1024

_log = logging.getLogger(__name__)


class ArrowSource(Protocol):
    """One table or query of a vendor's database, connected and described, read-only.

    `schema` has the columns' names in the source's order; a type of Arrow that DuckDB reads exactly. A source whose column
    cannot be read exactly raises `UnsupportedTypeError` when it is made, naming column and type.
    """

    @property
    def name(self) -> str: ...

    @property
    def schema(self) -> pa.Schema: ...

    @property
    def source_types(self) -> Sequence[str]: ...

    @property
    def primary_key(self) -> Sequence[str]: ...

    @property
    def snapshot(self) -> bool: ...

    def clock(self) -> datetime: ...

    def local_clock(self) -> datetime: ...

    def count(self, where: Predicate) -> int: ...

    def bounds(self, column: str, where: Predicate) -> tuple[Any, Any]: ...

    def batches(
        self, columns: Sequence[str], where: Predicate, part: tuple[str, Range] | None
    ) -> Iterable[pa.RecordBatch]:
        """Batches of these columns, in this order and with the schema's types; each call reads by itself.

        `part` is a range of the partition column; parts are read at the same time, each on a connection of its own.
        """
        ...

    def explain(self, error: Exception) -> QuaysideError | None:
        """What an error of the driver means."""
        ...


class ArrowTable:
    """A `SourceTable` of an `ArrowSource`."""

    one_stream = False

    def __init__(
        self, con: duckdb.DuckDBPyConnection, request: LoadRequest, source: ArrowSource, connections: int
    ) -> None:
        self._con = con
        self._request = request
        self._source = source
        self._connections = connections
        self._registered: list[str] = []
        self._errors: list[Exception] = []
        self._passing = Passing()
        check_columns(request.db_config_key, source.schema.names)
        self._columns = [
            Column(field.name, shown, type_, field.nullable)
            for field, shown, type_ in zip(
                source.schema, source.source_types, _duckdb_types(con, source.schema), strict=True
            )
        ]

    @property
    def columns(self) -> Sequence[Column]:
        return self._columns

    @property
    def primary_key(self) -> Sequence[str]:
        return self._source.primary_key

    @property
    def snapshot(self) -> bool:
        return self._source.snapshot

    def clock(self) -> datetime:
        return self._source.clock()

    def local_clock(self) -> datetime:
        return self._source.local_clock()

    def estimate(self) -> int | None:
        return None

    def count(self, where: Predicate = ()) -> int:
        self._check([comparison.column for comparison in where])
        return self._source.count(where)

    def bounds(self, column: str, where: Predicate = ()) -> tuple[Any, Any]:
        self._check([column, *(comparison.column for comparison in where)])
        return self._source.bounds(column, where)

    def relation(self, where: Predicate = (), columns: Sequence[str] | None = None) -> str:
        import pyarrow as pa

        chosen = list(columns) if columns is not None else list(self._source.schema.names)
        self._check([*chosen, *(comparison.column for comparison in where)])
        schema = pa.schema([self._source.schema.field(name) for name in chosen])
        names = []
        for part in self._parts(where):
            reader = pa.RecordBatchReader.from_batches(schema, self._watched(chosen, where, part))
            name = scanner.new_name()
            self._con.register(name, reader)
            self._registered.append(name)
            names.append(name)
        return f"({' UNION ALL '.join(f'SELECT * FROM {identifier(name)}' for name in names)})"  # noqa: S608  quoted

    def explain(self, error: Exception) -> QuaysideError | None:
        # What reaches DuckDB, and us through it, is the text of the driver's error; the error itself was kept.
        cause = self._errors[-1] if self._errors else error
        return cause if isinstance(cause, QuaysideError) else self._source.explain(cause)

    def passed(self) -> int | None:
        return self._passing.rows

    def settle(self) -> None:
        """What has ended is not among what runs."""

    def interrupt(self) -> None:
        if isinstance(self._source, Interruptible):
            self._source.interrupt()

    def close(self) -> None:
        """Forget the readers; those that were not read to their end are closed."""
        import duckdb

        for name in self._registered:
            with suppress(duckdb.Error):  # a transaction of the owner's that failed; it is closed soon
                self._con.unregister(name)
        self._registered.clear()

    def _watched(
        self, columns: Sequence[str], where: Predicate, part: tuple[str, Range] | None
    ) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._passing.through(self._source.batches(columns, where, part))
        except Exception as error:
            self._errors.append(error)
            raise

    def _parts(self, where: Predicate) -> list[tuple[str, Range] | None]:
        column, number = self._request.partition_column, self._request.num_partitions or 1
        number = min(number, self._connections)
        if column is None or number < 2:
            return [None]
        least, greatest = self.bounds(column, where)
        ranges = ranges_of(least, greatest, (self._request.lower_bound, self._request.upper_bound), number)
        if len(ranges) == 1:
            _log.info(
                "Column %s cannot be cut into ranges: %s is read on one connection.",
                column,
                self._source.name,
            )
            return [None]
        return [(column, each) for each in ranges]

    def _check(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self._source.schema.names:
                known = ", ".join(self._source.schema.names)
                raise InputError(f"{self._source.name} has no column {name!r}; it has {known}.")


def _duckdb_types(con: duckdb.DuckDBPyConnection, schema: pa.Schema) -> list[str]:
    name = scanner.new_name()
    con.register(name, schema.empty_table())
    try:
        return [row[1] for row in con.execute(f"DESCRIBE {identifier(name)}").fetchall()]
    finally:
        con.unregister(name)
