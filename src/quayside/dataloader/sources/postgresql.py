"""PostgreSQL, read by DuckDB's scanner on one snapshot.

One connection of ours (`Session`) opens a read-only transaction, exports its snapshot and answers everything about the
table: columns, count, bounds, clock. The rows are read by an attachment of DuckDB, which takes over that snapshot as soon
as the connection it is read on is in a transaction, so that any number of reads on any number of cursors see the same
state. The SELECT is ours: a large table is cut into portions, ranges of pages (ctid) or of the partition column; a window
is left to PostgreSQL's planner and its indexes, of which the scanner by itself makes no use.
"""

# ruff: noqa: S608 - identifiers are quoted by `identifier`, values by the driver

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from quayside.dataloader.sources import postgresql_errors, postgresql_session, scanner
from quayside.dataloader.sources.fields import PROTECTION, Field, whole
from quayside.dataloader.sources.postgresql_session import Session, Table, conninfo
from quayside.dataloader.sources.ranges import ranges_of
from quayside.dataloader.sources.source import Column, Portions, Predicate
from quayside.foundation.errors import InputError, QuaysideError
from quayside.foundation.lake.sql import identifier, literal

if TYPE_CHECKING:
    import duckdb

    from quayside.dataloader.request import LoadRequest

FIELDS: Final = (
    Field("host", required=True),
    Field("port", default="5432"),
    Field("service_name", required=True, aliases=("database",)),
    Field("user", required=True),
    Field("password"),
    Field("sslmode", plain=True),
    Field("sslrootcert", plain=True),
    *PROTECTION,
)
#: Below this many pages (of 8 kB) a second connection costs more than it brings.
PARALLEL_PAGES: Final = 2048
#: A portion has no more, however long the rows.
PORTION_PAGES: Final = 65_536

_log = logging.getLogger(__name__)


@contextmanager
def open(
    con: duckdb.DuckDBPyConnection, request: LoadRequest, fields: Mapping[str, str]
) -> Iterator[PostgresTable]:
    """Open the request's table or query; see `quayside.dataloader.sources.source.Source.open`."""
    fields = _of_catalog(request, fields)
    scanner.load(con, "postgres_scanner")
    with ExitStack() as stack:
        session = stack.enter_context(Session.open(request, fields))
        connections = whole(request.db_config_key, fields, "max_connections", 2) - 1
        wanted = 1
        if session.table.pages >= PARALLEL_PAGES or (
            request.partition_column and not session.table.has_pages
        ):
            wanted = min(
                request.num_partitions or scanner.threads_of(con), scanner.threads_of(con), connections
            )
        yield PostgresTable(con, request, session, _reader(stack, con, session), wanted)


@contextmanager
def open_many(
    con: duckdb.DuckDBPyConnection, request: LoadRequest, fields: Mapping[str, str]
) -> Iterator[Callable[[LoadRequest], PostgresTable | None]]:
    """See `quayside.dataloader.sources.registry.open_many`: one session and one reader, so one snapshot, for all tables."""
    fields = _of_catalog(request, fields)
    scanner.load(con, "postgres_scanner")
    with ExitStack() as stack:
        session = stack.enter_context(Session.open(request, fields))
        reader = _reader(stack, con, session)

        def table(request: LoadRequest) -> PostgresTable | None:
            found = session.of(request)
            small = found.table.has_pages and found.table.pages < PARALLEL_PAGES
            return PostgresTable(con, request, found, reader) if small else None

        yield table


def _reader(stack: ExitStack, con: duckdb.DuckDBPyConnection, session: Session) -> Reader:
    import duckdb

    secret = {
        "HOST": "host",
        "PORT": "port",
        "DATABASE": "service_name",
        "USER": "user",
        "PASSWORD": "password",
    }
    values = {key: session.fields[name] for key, name in secret.items() if name in session.fields}
    try:
        name = stack.enter_context(scanner.secret(con, "postgres", values))
        path = conninfo(session.options(reading=True))
        return Reader(stack.enter_context(scanner.attached(con, path, "postgres", f", SECRET {name}")))
    except duckdb.Error as error:
        raise postgresql_errors.of_text(str(error), session.source, session.fields) from None


def cancel(
    con: duckdb.DuckDBPyConnection, request: LoadRequest, fields: Mapping[str, str], load: str
) -> None:
    """End what a load runs on the server; see `quayside.dataloader.sources.registry.cancel`."""
    del con  # psycopg is there, and asks faster
    postgresql_session.cancel(request, _of_catalog(request, fields), load)


def _of_catalog(request: LoadRequest, fields: Mapping[str, str]) -> Mapping[str, str]:
    return {**fields, "service_name": request.source_catalog} if request.source_catalog else fields


@dataclass
class Reader:
    """DuckDB's attachment, and the transaction of the caller's connection in which it has taken over the snapshot."""

    name: str
    pinned: int | None = None


class PostgresTable:
    """An open table; `quayside.dataloader.sources.source.SourceTable`."""

    one_stream = True

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        request: LoadRequest,
        session: Session,
        reader: Reader,
        streams: int = 1,
    ) -> None:
        """`streams`: how many portions may be read at once."""
        self._con = con
        self._request = request
        self._session = session
        self._table: Table = session.table
        self._reader = reader
        self._streams = streams

    @property
    def columns(self) -> Sequence[Column]:
        return [column.column for column in self._table.columns]

    @property
    def primary_key(self) -> Sequence[str]:
        return self._table.primary_key

    @property
    def snapshot(self) -> bool:
        return True

    def clock(self) -> datetime:
        return self._session.now

    def local_clock(self) -> datetime:
        return self._session.local_now

    def estimate(self) -> int | None:
        return self._table.rows

    def count(self, where: Predicate = ()) -> int:
        [[number]] = self._session.fetch(f"SELECT count(*) FROM {self._table.relation}{self._where(where)}")
        return int(number)

    def bounds(self, column: str, where: Predicate = ()) -> tuple[Any, Any]:
        """Least and greatest finite value: NaN and the infinities are no place to continue from."""
        found = self._column(column)
        name = identifier(column)
        finite = found.finite.format(column=name)
        [[least, greatest]] = self._session.fetch(
            f"SELECT min({name}){finite}, max({name}){finite} FROM {self._table.relation}{self._where(where)}"
        )
        return least, greatest

    def relation(self, where: Predicate = (), columns: Sequence[str] | None = None) -> str:
        chosen = [self._column(name) for name in columns] if columns is not None else self._table.columns
        self._pin()
        return self._read(chosen, self._where(where))

    def _read(self, columns: Sequence[Any], where: str) -> str:
        selected = ", ".join(f"{c.expression} AS {identifier(c.column.name)}" for c in columns)
        select = f"SELECT {selected} FROM {self._table.relation}{where}"
        return f"(SELECT * FROM postgres_query({literal(self._reader.name)}, {literal(select)}))"

    def portions(self, rows: int) -> Portions | None:
        table = self._table
        if table.has_pages:
            number = max(
                -(-(table.rows or 0) // rows), -(-table.largest_pages // PORTION_PAGES), self._streams
            )
            conditions = self._page_parts(number)
        else:
            conditions = self._value_parts(self._streams) if self._streams > 1 else []
        if len(conditions) < 2:
            return None
        selects = [self._read(table.columns, f" WHERE {condition}") for condition in conditions]
        return Portions(selects, self._streams, self._join)

    def explain(self, error: Exception) -> QuaysideError | None:
        session = self._session
        return postgresql_errors.of_reading(
            error, session.source, session.fields, self._table, session.answers
        )

    def passed(self) -> int | None:
        return self._session.passed()

    def settle(self) -> None:
        """What has ended is not among what runs."""

    def _join(self, con: duckdb.DuckDBPyConnection) -> None:
        if con is self._con:
            self._pin()
        else:
            self._take_snapshot(con)

    def _pin(self) -> None:
        """Have the reader take over the session's snapshot, where the caller is in a transaction."""
        transaction = scanner.transaction_of(self._con)
        if transaction is not None and transaction != self._reader.pinned:
            self._take_snapshot(self._con)
            self._reader.pinned = transaction

    def _take_snapshot(self, con: duckdb.DuckDBPyConnection) -> None:
        statement = f"SET TRANSACTION SNAPSHOT {literal(self._session.snapshot)}"
        con.execute(f"CALL postgres_execute({literal(self._reader.name)}, ?)", [statement]).fetchall()

    def _page_parts(self, number: int) -> list[str]:
        """Conditions that cut the pages into `number` parts, or fewer."""
        step = max(1, -(-self._table.largest_pages // number))
        # The last one takes what was added since.
        cuts = [*range(0, max(1, self._table.largest_pages), step), None]
        return [
            f"ctid >= '({a},0)'::tid" + (f" AND ctid < '({b},0)'::tid" if b is not None else "")
            for a, b in pairwise(cuts)
        ]

    def _value_parts(self, number: int) -> list[str]:
        name = self._request.partition_column
        assert name is not None
        least, greatest = self.bounds(name)
        ranges = ranges_of(least, greatest, (self._request.lower_bound, self._request.upper_bound), number)
        if len(ranges) == 1:
            _log.info(
                "Column %s cannot be cut into ranges: %s is read on one connection.", name, self._table.name
            )
            return ["true"]
        column, quote = identifier(name), self._session.quote
        parts = []
        for each in ranges:
            ends = [f"{column} >= {quote(each.lower)}"] if each.lower is not None else []
            ends += [f"{column} < {quote(each.upper)}"] if each.upper is not None else []
            part = " AND ".join(ends)
            parts.append(f"({part} OR {column} IS NULL)" if each.is_first else f"({part})")
        return parts

    def _column(self, name: str) -> Any:
        for column in self._table.columns:
            if column.column.name == name:
                return column
        known = ", ".join(column.column.name for column in self._table.columns)
        raise InputError(
            f"{self._table.name} of {self._session.source} has no column {name!r}; it has {known}."
        )

    def _where(self, where: Predicate) -> str:
        if not where:
            return ""
        parts = []
        for comparison in where:
            column = identifier(self._column(comparison.column).column.name)
            if comparison.operator in ("is null", "is not null"):
                parts.append(f"{column} {comparison.operator.upper()}")
            else:
                parts.append(f"{column} {comparison.operator} {self._session.quote(comparison.value)}")
        return f" WHERE {' AND '.join(parts)}"
