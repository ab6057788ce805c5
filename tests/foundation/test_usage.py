"""The usage outbox: in the transaction of what is counted, and each event once."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from quayside.foundation.postgres import connect, engine
from quayside.foundation.settings import Settings
from quayside.foundation.usage import UsageEvent, append

pytestmark = pytest.mark.integration

EVENT = UsageEvent(
    "kycc:score:b1:v1", "kycc", "kycc.party_scored", 100, "desk-1", datetime(2026, 1, 2, tzinfo=UTC)
)


def rows(settings: Settings) -> list[tuple[object, ...]]:
    with connect(settings) as connection:
        return connection.execute(
            "SELECT event_id, quantity, occurred_at FROM usage.events ORDER BY 1"
        ).fetchall()


def test_an_event_counts_once_however_often_it_is_appended(settings: Settings):
    other = replace(EVENT, event_id="kycc:score:b2:v1", quantity=Decimal("0.5"))
    with connect(settings) as connection:
        assert append(connection, [EVENT]) == 1
        assert append(connection, [EVENT, other, other]) == 1
    with engine(settings).begin() as connection:
        assert append(connection, [replace(EVENT, quantity=7)]) == 0
    assert [row[:2] for row in rows(settings)] == [
        ("kycc:score:b1:v1", 100),
        ("kycc:score:b2:v1", Decimal("0.5")),
    ]


def test_without_the_change_there_is_no_event(settings: Settings):
    with suppress(ZeroDivisionError), connect(settings) as connection:
        append(connection, [EVENT])
        _ = 1 / 0
    assert rows(settings) == []


def test_nothing_to_append_is_fine(settings: Settings):
    with connect(settings) as connection:
        assert append(connection, iter([])) == 0


def test_a_time_is_kept_as_the_moment_it_was(settings: Settings):
    india = datetime(2026, 1, 2, 5, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    with connect(settings) as connection:
        append(connection, [replace(EVENT, occurred_at=india)])
    assert rows(settings)[0][2] == datetime(2026, 1, 2, tzinfo=UTC)


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="has no time zone"):
        replace(EVENT, occurred_at=datetime(2026, 1, 2))
