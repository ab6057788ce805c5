"""The cursor of a table: a column that only grows, and how far it has been loaded.

A cursor travels as text: ``2026-01-31 23:59:59.123456`` (with ``+00`` for columns with a zone, which are in UTC), a date, or
a number. It never passes the source's own clock, so that one row from the future does not hide those to come. Belongs
here: reading, writing, capping and going back. Does not belong here: which rows a strategy reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final, Literal

from quayside.foundation.errors import InputError
from quayside.foundation.lake.sql import identifier, literal

if TYPE_CHECKING:
    from quayside.dataloader.request import LoadRequest
    from quayside.dataloader.sources.source import SourceTable

CursorValue = datetime | date | int | Decimal
Kind = Literal["zoned", "naive", "date", "number"]

_NUMBERS = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "HUGEINT",
)

_TYPES: Final = {"zoned": "TIMESTAMP WITH TIME ZONE", "naive": "TIMESTAMP", "date": "DATE"}


@dataclass(frozen=True)
class Cursor:
    """A cursor column. `column` is its name at the source."""

    column: str
    kind: Kind

    @classmethod
    def of(cls, request: LoadRequest, source: SourceTable) -> Cursor | None:
        """The cursor of a request; None when it names no column.

        Raises:
            InputError: the source has no such column, or one of a type that cannot be a cursor, or not of the
                incremental_type that the row says.
        """
        if not request.incremental_column:
            return None
        wanted = request.incremental_column
        found = [c for c in source.columns if c.name == wanted] or [
            c for c in source.columns if c.name.lower() == wanted.lower()
        ]
        if not found:
            raise InputError(
                f"{request.source_table_name} has no column {identifier(wanted)}: correct incremental_column."
            )
        kind = _kind(found[0].type)
        of_type = "integer" if kind == "number" else "timestamp"
        if kind is None or (request.incremental_type is not None and request.incremental_type != of_type):
            raise InputError(
                f"Column {identifier(wanted)} of {request.source_table_name} is {found[0].type}, which is no "
                f"{request.incremental_type or 'timestamp, date or number'}: correct incremental_column or incremental_type."
            )
        return cls(found[0].name, kind)

    def parse(self, text: str) -> CursorValue:
        """The value that a text stands for.

        Raises:
            InputError: it is not a value of this column.
        """
        try:
            if self.kind == "number":
                number = Decimal(text)
                return int(number) if number == number.to_integral_value() else number
            if self.kind == "date":
                return datetime.fromisoformat(text).date()
            moment = datetime.fromisoformat(text)
        except (ValueError, InvalidOperation):
            raise InputError(
                f"{text!r} is no value of cursor {identifier(self.column)}: correct incremental_value."
            ) from None
        if self.kind == "zoned":
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        if moment.tzinfo is not None:
            raise InputError(
                f"{text!r} has a zone and cursor {identifier(self.column)} has none: correct incremental_value."
            )
        return moment

    def text(self, value: CursorValue) -> str:
        """The text of a value; `parse` reads it back."""
        return str(value)

    def clock(self, source: SourceTable) -> CursorValue | None:
        """The source's time as this column would say it; None for numbers."""
        if self.kind == "zoned":
            return source.clock().astimezone(UTC)
        if self.kind == "naive":
            return source.local_clock()
        return source.local_clock().date() if self.kind == "date" else None

    def back(self, value: CursorValue, hours: int) -> CursorValue:
        """`value` less a lookback; numbers have none. Dates go back by whole days."""
        try:
            if isinstance(value, datetime):
                return value - timedelta(hours=hours)
            if isinstance(value, date):
                return value - timedelta(days=-(-hours // 24))
        except OverflowError:
            return value
        return value

    def greatest(self, column: str) -> str:
        """SQL aggregate: the greatest finite value of a stored column as text, to the microsecond."""
        name = identifier(column)
        if self.kind == "number":
            return f"max({name})::VARCHAR"
        type_ = _TYPES[self.kind]
        return f"max({name}::{type_}) FILTER (WHERE isfinite({name}::{type_}))::VARCHAR"

    def literal(self, value: CursorValue) -> str:
        """SQL of a value. A bound value says the same, but a lake's files are chosen before it is known."""
        return (
            f"{Decimal(str(value)):f}"
            if self.kind == "number"
            else f"{_TYPES[self.kind]} {literal(str(value))}"
        )


def _kind(type_: str) -> Kind | None:
    if type_ == "TIMESTAMP WITH TIME ZONE":
        return "zoned"
    if type_.startswith("TIMESTAMP"):
        return "naive"
    if type_ == "DATE":
        return "date"
    return "number" if type_ in _NUMBERS or type_.startswith("DECIMAL(") else None
