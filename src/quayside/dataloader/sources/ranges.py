"""Cutting a read into ranges of a partition column.

Ranges only say who reads what and never what is read: the first has no lower end and takes the nulls, the last has no
upper end. So bounds that are missing, reversed, skewed or plainly wrong cost balance and never a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

MOST_RANGES: Final = 64


@dataclass(frozen=True)
class Range:
    """``lower <= column < upper``; an end that is None is open, and rows whose value is null belong to the first."""

    lower: Any = None
    upper: Any = None

    @property
    def is_first(self) -> bool:
        return self.lower is None


def cut(lower: Any, upper: Any, number: int) -> list[Range]:
    """At most `number` ranges of equal width; one when there is nothing to divide, or the values are no numbers or times.

    Whole numbers stay whole, and dates stay dates.
    """
    if isinstance(lower, datetime) != isinstance(upper, datetime):
        lower, upper = _moment(lower), _moment(upper)
    if not _divisible(lower) or not _divisible(upper):
        return [Range()]
    if upper < lower:
        lower, upper = upper, lower
    width = upper - lower
    number = max(1, min(number, MOST_RANGES))
    ends: list[Any] = []
    for i in range(1, number):
        end = lower + width * i // number if isinstance(lower, int) else lower + width * i / number
        if end > lower and (not ends or end > ends[-1]):
            ends.append(end)
    return [Range(a, b) for a, b in zip([None, *ends], [*ends, None], strict=True)]


def bound(text: str | None, like: Any) -> Any:
    """A bound of the configuration as a value of the kind of `like`, a value of the column; None when it is none."""
    if text is None or not text.strip():
        return None
    try:
        if isinstance(like, datetime):
            value = datetime.fromisoformat(text.strip())
            return (
                value.replace(tzinfo=value.tzinfo or like.tzinfo)
                if like.tzinfo
                else value.replace(tzinfo=None)
            )
        if isinstance(like, date):
            return datetime.fromisoformat(text.strip()).date()
        number = Decimal(text.strip())
        return None if not number.is_finite() else int(number) if isinstance(like, int) else number
    except (ValueError, InvalidOperation):
        return None


def ranges_of(least: Any, greatest: Any, configured: Sequence[str | None], number: int) -> list[Range]:
    """Ranges between the configured bounds, each replaced by what the source has when it is missing or unusable."""
    if not _divisible(least) or not _divisible(greatest):
        return [Range()]
    low, high = (bound(text, least) for text in configured)
    return cut(least if low is None else low, greatest if high is None else high, number)


def _moment(value: Any) -> Any:
    plain_date = isinstance(value, date) and not isinstance(value, datetime)
    return datetime(value.year, value.month, value.day) if plain_date else value  # noqa: DTZ001  as the other end is


def _divisible(value: Any) -> bool:
    if isinstance(value, float):
        return value == value and abs(value) != float("inf")
    if isinstance(value, Decimal):
        return value.is_finite()
    return isinstance(value, int | date) and not isinstance(value, bool)
