"""Hours, days and calendar months, in UTC. A period is named by its first moment; its end is exclusive."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Final, TypeVar

from quayside.foundation.errors import UsageError
from quayside.robosystems.names import shown

#: Years that a period may be of; one typed wrongly is said to be that.
YEARS: Final = range(2000, 3000)
_Day = TypeVar("_Day", bound=date)


def utc_now() -> datetime:
    """The present moment."""
    return datetime.now(UTC)


def in_utc(moment: datetime) -> datetime:
    """The moment in UTC.

    Raises:
        UsageError: it has no time zone.
    """
    if moment.tzinfo is None:
        raise UsageError(f"{moment.isoformat()} has no time zone: add one, as in {moment.isoformat()}+00:00.")
    return moment.astimezone(UTC)


def month_of(moment: datetime | date) -> date:
    """First day of the month that a moment or day is in."""
    day = in_utc(moment).date() if isinstance(moment, datetime) else moment
    return day.replace(day=1)


def next_month(month: date) -> date:
    """First day of the month after."""
    return (month.replace(day=1) + timedelta(days=31)).replace(day=1)


def previous_month(month: date) -> date:
    """First day of the month before."""
    return (month.replace(day=1) - timedelta(days=1)).replace(day=1)


def days_in(month: date) -> int:
    """How many days a month has."""
    return monthrange(month.year, month.month)[1]


def start_of(day: date) -> datetime:
    """Midnight UTC at which a day, or a month named by its first day, begins."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def months_between(first: date, last: date) -> Iterator[date]:
    """Months from the one of `first` to the one of `last`, both included."""
    month = first.replace(day=1)
    while month <= last:
        yield month
        month = next_month(month)


def parse_day(text: str) -> date:
    """A day written YYYY-MM-DD.

    Raises:
        UsageError: it is written otherwise, there is no such day, or it lies outside `YEARS`.
    """
    try:
        if len(text) == 10:
            return _of_our_time(date.fromisoformat(text), text)
    except ValueError:
        pass
    raise UsageError(f"{shown(text)} is not a day: write YYYY-MM-DD, as in 2026-03-31.")


def parse_month(text: str) -> date:
    """A month written YYYY-MM, as its first day.

    Raises:
        UsageError: it is written otherwise, or lies outside `YEARS`.
    """
    try:
        if len(text) == 7:
            return _of_our_time(date.fromisoformat(f"{text}-01"), text)
    except ValueError:
        pass
    raise UsageError(f"{shown(text)} is not a month: write YYYY-MM, as in 2026-03.")


def parse_hour(text: str) -> datetime:
    """An hour written as a moment (2026-03-31T05:00, UTC where no zone is given), as its first moment.

    Raises:
        UsageError: it is no moment, or lies outside `YEARS`.
    """
    return parse_moment(text, "an hour").replace(minute=0, second=0, microsecond=0)


def parse_moment(text: str, what: str = "a moment") -> datetime:
    """A moment written YYYY-MM-DD or YYYY-MM-DDTHH:MM, in UTC where no zone is given.

    Raises:
        UsageError: it is written otherwise, or lies outside `YEARS`.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{shown(text)} is not {what}: write YYYY-MM-DD or YYYY-MM-DDTHH:MM, UTC, as in 2026-03-31T05:00."
        ) from None
    _of_our_time(moment, text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _of_our_time(moment: _Day, text: str) -> _Day:
    if moment.year not in YEARS:
        raise UsageError(f"{text} lies outside the years {YEARS[0]} to {YEARS[-1]}.")
    return moment
