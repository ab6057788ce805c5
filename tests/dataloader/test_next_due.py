"""Due times: cron in a zone, over both changes of the clock."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from quayside.dataloader.next_due import next_due, schedule_of
from quayside.foundation.errors import InputError

pytestmark = pytest.mark.unit

ZURICH = "Europe/Zurich"


def times(cron: str, zone: str, after: str, count: int) -> list[str]:
    """The next due times in UTC as ``DD HH:MM``."""
    moment = datetime.fromisoformat(after)
    found = []
    for _ in range(count):
        moment = next_due(cron, zone, moment)
        found.append(f"{moment:%d %H:%M}")
    return found


@pytest.mark.parametrize(
    "cron, zone, after, expected",
    [
        # the clock of Zurich goes from two to three on 29 March 2026, at 01:00 UTC
        ("30 * * * *", ZURICH, "2026-03-28T23:00+00:00", ["28 23:30", "29 00:30", "29 01:30", "29 02:30"]),
        ("30 2 * * *", ZURICH, "2026-03-27T23:00+00:00", ["28 01:30", "29 01:30", "30 00:30"]),
        ("*/20 2 * * *", ZURICH, "2026-03-28T23:00+00:00", ["29 01:00", "29 01:20", "29 01:40", "30 00:00"]),
        ("0 6 * * *", ZURICH, "2026-03-28T00:00+00:00", ["28 05:00", "29 04:00", "30 04:00"]),
        # and on 25 October 2026 back again, at 01:00 UTC
        ("30 * * * *", ZURICH, "2026-10-24T23:00+00:00", ["24 23:30", "25 00:30", "25 01:30", "25 02:30"]),
        ("30 2 * * *", ZURICH, "2026-10-23T22:00+00:00", ["24 00:30", "25 00:30", "26 01:30"]),
        ("30 2 * * *", ZURICH, "2026-10-25T00:45+00:00", ["26 01:30"]),
        ("30 */2 * * *", ZURICH, "2026-10-24T23:00+00:00", ["25 00:30", "25 01:30", "25 03:30"]),
        # zones that move by half an hour, never, and over the date line
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-02T00:00+00:00", ["02 15:45", "03 15:45", "04 15:15"]),
        ("0 0 * * *", "Asia/Kolkata", "2026-05-05T00:00+00:00", ["05 18:30", "06 18:30"]),
        ("0 12 * * *", "Pacific/Apia", "2011-12-28T00:00+00:00", ["28 22:00", "29 22:00", "30 22:00"]),
        # either day will do where both are restricted; names, Sunday as 7, steps
        ("0 0 13 * FRI", "UTC", "2026-02-01T00:00+00:00", ["06 00:00", "13 00:00", "20 00:00"]),
        ("0 0 * * 7", "UTC", "2026-06-01T00:00+00:00", ["07 00:00", "14 00:00"]),
        ("0 0 29 2 *", "UTC", "2026-06-01T00:00+00:00", ["29 00:00", "29 00:00"]),
        ("0-10/5 9 1 jan,jul *", "UTC", "2026-01-01T09:00+00:00", ["01 09:05", "01 09:10", "01 09:00"]),
    ],
)  # fmt: skip
def test_due_times(cron: str, zone: str, after: str, expected: list[str]) -> None:
    # case 37
    assert times(cron, zone, after, len(expected)) == expected


def test_it_is_after_the_moment_and_never_before_and_at_a_time_of_the_schedule() -> None:
    dice = random.Random(37)
    for _ in range(150):
        zone = dice.choice([ZURICH, "America/Denver", "Australia/Lord_Howe", "UTC", "Asia/Kathmandu"])
        minute, hour = dice.choice(["0", "15", "*/20"]), dice.choice(["*", "*/6", "2", "1-3"])
        after = datetime(2026, dice.choice([3, 10, 11]), 1, tzinfo=UTC) + timedelta(
            minutes=dice.randrange(44_000)
        )
        due = next_due(f"{minute} {hour} * * *", zone, after)
        local = due.astimezone(ZoneInfo(zone))
        assert due > after
        assert local.minute % (20 if minute == "*/20" else 15 if minute == "15" else 60) in (0, 30)
        assert next_due(f"{minute} {hour} * * *", zone, due - timedelta(seconds=1)) == due
        assert due - after <= timedelta(days=1, hours=2)


@pytest.mark.parametrize(
    "cron, zone, sentence",
    [
        ("* * * *", "UTC", "day of week but 4"),
        ("* * * * * *", "UTC", "day of week but 6"),
        ("61 * * * *", "UTC", "'61' as its minute"),
        ("0 24 * * *", "UTC", "'24' as its hour"),
        ("0 0 0 * *", "UTC", "'0' as its day"),
        ("0 0 * foo *", "UTC", "'foo' as its month"),
        ("0 0 * * 8", "UTC", "'8' as its weekday"),
        ("@hourly", "UTC", "day of week but 1"),
        ("0 0 30 2 *", "UTC", "never comes"),
        ("1,,2 * * * *", "UTC", "'' as its minute"),
        ("0 0 * * *", "Mars/Olympus", "'Mars/Olympus' is not a time zone"),
        ("0 0 * * *", "../etc/passwd", "is not a time zone"),
    ],
)
def test_what_is_wrong_is_one_sentence(cron: str, zone: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        next_due(cron, zone, datetime(2026, 1, 1, tzinfo=UTC))
    due, problem = schedule_of(cron, zone, datetime(2026, 1, 1, tzinfo=UTC))
    assert due is None
    assert problem is not None
    assert sentence in problem


def test_no_schedule_is_no_problem() -> None:
    assert schedule_of(None, "UTC", datetime(2026, 1, 1, tzinfo=UTC)) == (None, None)
