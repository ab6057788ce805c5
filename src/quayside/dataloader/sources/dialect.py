"""Predicates and names in the dialect of a driver: identifiers quoted, values bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from quayside.dataloader.sources.ranges import Range
from quayside.dataloader.sources.source import Predicate


@dataclass(frozen=True)
class Dialect:
    """How one database wants names and parameters.

    Attributes:
        opening, closing: quotes of an identifier; a closing one inside the name is doubled.
        placeholder: parameter number n, counted from 1: ``?``, ``%s``, ``:1`` …
        value: a value as the driver takes it.
        parameter: what stands in a condition for (placeholder, column, value), where that is more than the placeholder.
        escape_percent: the driver uses ``%`` itself, so that one in a name or query has to be doubled.
    """

    opening: str = '"'
    closing: str = '"'
    placeholder: Callable[[int], str] = lambda _: "?"
    value: Callable[[Any], Any] = lambda value: value
    parameter: Callable[[str, str, Any], str] = lambda placeholder, _column, _value: placeholder
    escape_percent: bool = False

    def quote(self, name: str) -> str:
        """`name` as an identifier."""
        quoted = self.opening + name.replace(self.closing, self.closing * 2) + self.closing
        return self.text(quoted)

    def text(self, sql: str) -> str:
        """SQL of somebody else, to stand in a statement that has parameters."""
        return sql.replace("%", "%%") if self.escape_percent else sql

    def where(self, where: Predicate, part: tuple[str, Range] | None = None) -> tuple[str, Sequence[Any]]:
        """A WHERE clause with its leading blank, empty without conditions, and its parameters."""
        conditions: list[str] = []
        values: list[Any] = []

        def bind(name: str, value: Any) -> str:
            values.append(self.value(value))
            return self.parameter(self.placeholder(len(values)), name, value)

        for comparison in where:
            column = self.quote(comparison.column)
            if comparison.operator in ("is null", "is not null"):
                conditions.append(f"{column} {comparison.operator.upper()}")
            else:
                conditions.append(
                    f"{column} {comparison.operator} {bind(comparison.column, comparison.value)}"
                )
        if part is not None:
            column, each = self.quote(part[0]), part[1]
            ends = [f"{column} >= {bind(part[0], each.lower)}"] if each.lower is not None else []
            ends += [f"{column} < {bind(part[0], each.upper)}"] if each.upper is not None else []
            ends = [" AND ".join(ends)] if ends else ["1 = 1"]
            conditions.append(f"({ends[0]}{f' OR {column} IS NULL' if each.is_first else ''})")
        return (f" WHERE {' AND '.join(conditions)}" if conditions else ""), values
