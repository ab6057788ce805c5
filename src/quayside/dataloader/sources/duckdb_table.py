"""A `SourceTable` of what DuckDB reads by itself: predicates, counts and bounds are DuckDB's own SQL."""

# ruff: noqa: S608 - identifiers and values are quoted

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from quayside.dataloader.sources.columns import check_columns
from quayside.dataloader.sources.source import Column, Predicate
from quayside.foundation.errors import InputError, QuaysideError
from quayside.foundation.lake.sql import identifier, literal

if TYPE_CHECKING:
    import duckdb

    from quayside.dataloader.sources.counting import CountingFilter


class DuckTable:
    """`relation_sql` stands behind FROM. The clock is this machine's, which is where such sources are."""

    one_stream = False

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        source: str,
        name: str,
        relation_sql: str,
        explain: Callable[[Exception], QuaysideError | None],
        *,
        snapshot: bool,
        declared: dict[str, str] | None = None,
        not_null: Sequence[str] = (),
        primary_key: Sequence[str] = (),
    ) -> None:
        import duckdb

        self._con = con
        self._name = name
        self._from = relation_sql
        self._explain = explain
        self._snapshot = snapshot
        self._primary_key = primary_key
        self._now = datetime.now(UTC)
        #: Of a large one: how far a read is.
        self.counting: CountingFilter | None = None
        try:
            described = con.execute(f"DESCRIBE SELECT * FROM {relation_sql}").fetchall()
        except duckdb.Error as error:
            raise explain(error) or error from None
        check_columns(source, [row[0] for row in described])
        self._columns = [
            Column(row[0], (declared or {}).get(row[0]) or row[1], row[1], row[0] not in not_null)
            for row in described
        ]

    @property
    def columns(self) -> Sequence[Column]:
        return self._columns

    @property
    def primary_key(self) -> Sequence[str]:
        return self._primary_key

    @property
    def snapshot(self) -> bool:
        return self._snapshot

    def clock(self) -> datetime:
        return self._now

    def local_clock(self) -> datetime:
        return self._now.astimezone().replace(tzinfo=None)

    def estimate(self) -> int | None:
        return None

    def count(self, where: Predicate = ()) -> int:
        return int(self._row(f"SELECT count(*) FROM {self._from}{self._where(where)}")[0])

    def bounds(self, column: str, where: Predicate = ()) -> tuple[Any, Any]:
        self._check(column)
        name = identifier(column)
        type_ = next(c.type for c in self._columns if c.name == column)
        finite = (
            f" FILTER (isfinite({name}))"
            if type_.startswith(("DATE", "TIMESTAMP", "DOUBLE", "FLOAT"))
            else ""
        )
        least, greatest = self._row(
            f"SELECT min({name}){finite}, max({name}){finite} FROM {self._from}{self._where(where)}"
        )
        return least, greatest

    def relation(self, where: Predicate = (), columns: Sequence[str] | None = None) -> str:
        for name in columns or ():
            self._check(name)
        selected = ", ".join(map(identifier, columns)) if columns is not None else "*"
        relation = f"(SELECT {selected} FROM {self._from}{self._where(where)})"
        return self.counting.around(relation) if self.counting else relation

    def passed(self) -> int | None:
        return self.counting.rows if self.counting else None

    def settle(self) -> None:
        """A read that has ended is left out when the next one begins, or now."""
        if self.counting:
            self.counting.rows = 0

    def explain(self, error: Exception) -> QuaysideError | None:
        return self._explain(error)

    def _row(self, statement: str) -> Sequence[Any]:
        import duckdb

        try:
            row = self._con.execute(statement).fetchone()
        except duckdb.Error as error:
            raise self._explain(error) or error from None
        assert row is not None
        return row

    def _where(self, where: Predicate) -> str:
        parts = []
        for comparison in where:
            self._check(comparison.column)
            name = identifier(comparison.column)
            if comparison.operator in ("is null", "is not null"):
                parts.append(f"{name} {comparison.operator.upper()}")
            else:
                parts.append(f"{name} {comparison.operator} {_literal(comparison.value)}")
        return f" WHERE {' AND '.join(parts)}" if parts else ""

    def _check(self, name: str) -> None:
        if all(column.name != name for column in self._columns):
            known = ", ".join(column.name for column in self._columns)
            raise InputError(f"{self._name} has no column {name!r}; it has {known}.")


def _literal(value: Any) -> str:
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float):
        return f"{literal(repr(value))}::DOUBLE"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        zone = "TIMESTAMPTZ" if value.tzinfo else "TIMESTAMP"
        return f"{zone} {literal(value.isoformat(sep=' '))}"
    if isinstance(value, date):
        return f"DATE {literal(value.isoformat())}"
    return literal(str(value))
