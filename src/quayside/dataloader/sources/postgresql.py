"""PostgreSQL, read by DuckDB's scanner on one snapshot.

One connection of ours (`Session`) opens a read-only transaction, exports its snapshot and answers everything about the
table: columns, count, bounds, clock. The rows are read by attachments of DuckDB, which take over that snapshot as soon
as the caller's connection is in a transaction, so that any number of reads on any number of threads see the same state.
The SELECT is ours: a table that is large is cut into ranges of pages (ctid); a narrow predicate is left to PostgreSQL's
planner and its indexes, of which the scanner by itself makes no use.
"""

# ruff: noqa: S608 - identifiers are quoted by `identifier`, values by the driver

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from quayside.dataloader.sources import postgresql_errors, postgresql_session, scanner
from quayside.dataloader.sources.fields import PROTECTION, Field, whole
from quayside.dataloader.sources.postgresql_session import Session, Table, conninfo
from quayside.dataloader.sources.ranges import ranges_of
from quayside.dataloader.sources.source import Column, Predicate
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

_log = logging.getLogger(__name__)


@contextmanager
def open(
    con: duckdb.DuckDBPyConnection, request: LoadRequest, fields: Mapping[str, str]
) -> Iterator[PostgresTable]:
    """Open the request's table or query; see `quayside.dataloader.sources.source.Source.open`."""
    import duckdb

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
        secret = {
            "HOST": "host",
            "PORT": "port",
            "DATABASE": "service_name",
            "USER": "user",
            "PASSWORD": "password",
        }
        values = {key: fields[name] for key, name in secret.items() if name in fields}
        try:
            name = stack.enter_context(scanner.secret(con, "postgres", values))
            path = conninfo(session.options(reading=True))
            readers = [
                stack.enter_context(scanner.attached(con, path, "postgres", f", SECRET {name}"))
                for _ in range(max(1, wanted))
            ]
        except duckdb.Error as error:
            raise postgresql_errors.of_text(str(error), session.source, fields) from None
        yield PostgresTable(con, request, session, readers)


def cancel(request: LoadRequest, fields: Mapping[str, str], load: str) -> None:
    """End what a load runs on the server; see `quayside.dataloader.sources.registry.cancel`."""
    postgresql_session.cancel(request, _of_catalog(request, fields), load)


def _of_catalog(request: LoadRequest, fields: Mapping[str, str]) -> Mapping[str, str]:
    return {**fields, "service_name": request.source_catalog} if request.source_catalog else fields


class PostgresTable:
    """An open table; `quayside.dataloader.sources.source.SourceTable`."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        request: LoadRequest,
        session: Session,
        readers: Sequence[str],
    ) -> None:
        self._con = con
        self._request = request
        self._session = session
        self._table: Table = session.table
        self._readers = readers
        self._pinned: int | None = None

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
        condition = self._where(where)
        parts = [condition]
        if len(self._readers) > 1 and self._pin() and self._is_wide(condition):
            parts = [f"{condition or ' WHERE true'} AND {part}" for part in self._parts()]
        else:
            self._pin()
        return self._read(chosen, parts)

    def _read(self, columns: Sequence[Any], parts: Sequence[str]) -> str:
        """The rows of all parts, each read by a reader of its own."""
        selected = ", ".join(f"{c.expression} AS {identifier(c.column.name)}" for c in columns)
        select = f"SELECT {selected} FROM {self._table.relation}"
        reads = [
            f"SELECT * FROM postgres_query({literal(reader)}, {literal(select + part)})"
            for reader, part in zip(self._readers, parts, strict=False)
        ]
        assert len(reads) == len(parts)
        return f"({' UNION ALL '.join(reads)})"

    def portions(self, rows: int) -> Sequence[str]:
        estimate = self._table.rows or 0
        if not self._table.has_pages or estimate <= rows or not self._pin():
            return [self.relation()]
        number = -(-estimate // rows)
        step = -(-self._table.largest_pages // number)
        cuts = [*(i * step for i in range(number)), None]  # the last one takes what was added since
        return [
            self._read(self._table.columns, self._page_parts(first or 0, end))
            for first, end in pairwise(cuts)
        ]

    def explain(self, error: Exception) -> QuaysideError | None:
        session = self._session
        return postgresql_errors.of_reading(
            error, session.source, session.fields, self._table, session.answers
        )

    def passed(self) -> int | None:
        return self._session.passed()

    def _pin(self) -> bool:
        """Have the readers take over the session's snapshot; False when the caller is in no transaction."""
        transaction = scanner.transaction_of(self._con)
        if transaction is not None and transaction != self._pinned:
            for reader in self._readers:
                statement = f"SET TRANSACTION SNAPSHOT {literal(self._session.snapshot)}"
                self._con.execute(f"CALL postgres_execute({literal(reader)}, ?)", [statement]).fetchall()
            self._pinned = transaction
        return transaction is not None

    def _is_wide(self, condition: str) -> bool:
        """Whether PostgreSQL would read the whole table anyway."""
        return not condition or self._session.scans_all(f"SELECT 1 FROM {self._table.relation}{condition}")

    def _parts(self) -> list[str]:
        """Conditions that cut the table into as many parts as there are readers, or fewer."""
        number = len(self._readers)
        if self._table.has_pages:
            return [part.removeprefix(" WHERE ") for part in self._page_parts(0, None)]
        return self._value_parts(number)

    def _page_parts(self, first: int, end: int | None) -> list[str]:
        """Conditions that cut the pages from `first` to before `end` (None: to the last) into one part for each reader."""
        number = len(self._readers)
        last = max(first, self._table.largest_pages if end is None else end)
        step = -(-(last - first) // number)
        cuts = [*(min(first + i * step, last) for i in range(number)), end]
        return [
            f" WHERE ctid >= '({a},0)'::tid" + (f" AND ctid < '({b},0)'::tid" if b is not None else "")
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
