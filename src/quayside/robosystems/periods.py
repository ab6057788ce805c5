"""Hours, days and calendar months, in UTC. A period is named by its first moment; its end is exclusive."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from quayside.foundation.errors import UsageError


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
        UsageError: it is written otherwise, or there is no such day.
    """
    try:
        if len(text) == 10:
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise UsageError(f"{text!r} is not a day: write YYYY-MM-DD, as in 2026-03-31.")


def parse_month(text: str) -> date:
    """A month written YYYY-MM, as its first day.

    Raises:
        UsageError: it is written otherwise.
    """
    try:
        if len(text) == 7:
            return date.fromisoformat(f"{text}-01")
    except ValueError:
        pass
    raise UsageError(f"{text!r} is not a month: write YYYY-MM, as in 2026-03.")


def parse_hour(text: str) -> datetime:
    """An hour written as a moment (2026-03-31T05:00, UTC where no zone is given), as its first moment.

    Raises:
        UsageError: it is no moment.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is not an hour: write it as in 2026-03-31T05:00.") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.replace(minute=0, second=0, microsecond=0)
