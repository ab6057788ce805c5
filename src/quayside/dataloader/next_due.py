"""When a table is due next: five fields of cron in a time zone.

A due time is a moment, found on the zone's own clock. Where that clock is put forward, a time that does not exist comes as
much later as the clock was put forward. Where it is put back, a schedule with ``*`` as its hour goes on in the repeated
hour, and one with fixed hours comes once, at the first of the two. Times that were missed collapse into one: what counts
is the first due time after the last load began, and if that is past, the table is due now.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from quayside.foundation.errors import InputError

#: No zone ever moved its clock by more, except over the date line, where a day was left out.
_SHIFT: Final = timedelta(hours=4)
_NAMES: Final = {
    "month": "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec",
    "weekday": "sun|mon|tue|wed|thu|fri|sat",
}
_FIELDS: Final = (
    ("minute", r"[0-5]?\d"),
    ("hour", r"([01]?\d|2[0-3])"),
    ("day", r"(0?[1-9]|[12]\d|3[01])"),
    ("month", rf"(0?[1-9]|1[0-2]|{_NAMES['month']})"),
    ("weekday", rf"([0-7]|{_NAMES['weekday']})"),
)


def next_due(cron: str, zone: str, after: datetime) -> datetime:
    """The first due time after a moment, in UTC.

    Args:
        cron: minute, hour, day of month, month, day of week. Where both days are restricted, either will do.
        zone: an IANA name such as ``Europe/Zurich``.
        after: an aware datetime.

    Raises:
        InputError: the expression or the zone is malformed, or no such day ever comes.
    """
    if problem := cron_problem(cron) or zone_problem(zone):
        raise InputError(f"{problem}.")
    from croniter import CroniterBadDateError, croniter

    place = ZoneInfo(zone)
    local = after.astimezone(place).replace(tzinfo=None)
    every_hour = cron.split()[1].startswith("*")
    # The clock may have been put back since, or a time before it may not have existed: then look from further back.
    calm = _offset(after - _SHIFT, place) == _offset(after + _SHIFT, place)
    best: datetime | None = None
    try:
        # A local time just before, since a due time at this very second is not after it but the next one may be.
        times = croniter(cron.lower(), local if calm else local - _SHIFT, max_years_between_matches=12)
        while True:
            candidate = times.get_next(datetime)
            found = [moment for moment in _moments(candidate, place, every_hour) if moment > after]
            best = min([*found, *([best] if best else [])], default=None)
            if best is not None and (
                candidate > best.astimezone(place).replace(tzinfo=None) + _SHIFT
                or (_is_calm(best, place) and calm)
            ):
                return best
    except CroniterBadDateError:
        raise InputError(f"The schedule {cron!r} never comes: there is no such day.") from None


def schedule_of(cron: str | None, zone: str, after: datetime) -> tuple[datetime | None, str | None]:
    """The next due time, or None and why there is none; both None without a schedule."""
    if cron is None:
        return None, None
    try:
        return next_due(cron, zone, after), None
    except InputError as error:
        return None, str(error)


def cron_problem(cron: str) -> str | None:
    """What is wrong with an expression, None when it can be used."""
    parts = cron.split()
    if len(parts) != len(_FIELDS):
        return f"load_cron {cron!r} has not the five fields minute, hour, day, month, day of week but {len(parts)}"
    for part, (name, value) in zip(parts, _FIELDS, strict=True):
        for item in part.split(","):
            if not re.fullmatch(rf"(\*|{value}(-{value})?)(/[1-9]\d?)?", item, re.IGNORECASE):
                return f"load_cron {cron!r} has {item!r} as its {name}, which is none"
    from croniter import CroniterError, croniter

    try:
        croniter(cron.lower())
    except (CroniterError, ValueError):
        return f"load_cron {cron!r} is not an expression of cron"
    return None


def zone_problem(zone: str) -> str | None:
    """What is wrong with a time zone, None when it can be used."""
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        return f"load_timezone {zone!r} is not a time zone such as UTC or Europe/Zurich"
    return None


def _moments(local: datetime, place: ZoneInfo, every_hour: bool) -> list[datetime]:
    first = local.replace(tzinfo=place, fold=0).astimezone(UTC)
    second = local.replace(tzinfo=place, fold=1).astimezone(UTC)
    # In a gap the second is the earlier one; the first lies as far behind the gap as the time lay in it.
    return [first, second] if every_hour and second > first else [first]


def _offset(moment: datetime, place: ZoneInfo) -> timedelta | None:
    return moment.astimezone(place).utcoffset()


def _is_calm(moment: datetime, place: ZoneInfo) -> bool:
    return _offset(moment - _SHIFT, place) == _offset(moment + _SHIFT, place)
