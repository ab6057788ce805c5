"""What was used: the outbox ``usage.events``, to which any system appends and from which RoboSystems meters.

An event is written in the transaction of what it counts, so neither can exist without the other. Its id makes it
idempotent: appending it again, from a retry or a second run, changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation.statements import execute

if TYPE_CHECKING:
    import psycopg
    import sqlalchemy


@dataclass(frozen=True)
class UsageEvent:
    """``quantity`` of ``kind`` used by ``subject`` (who it is counted for), reported by ``source`` at ``occurred_at``.

    ``event_id`` is unique over all sources and derived from what was done ("kycc:score:<batch>:v1"), never random.
    ``kind`` names a unit ("kycc.party_scored"). ``occurred_at`` has a zone.
    """

    event_id: str
    source: str
    kind: str
    quantity: Decimal | int
    subject: str
    occurred_at: datetime

    def __post_init__(self) -> None:
        if self.occurred_at.tzinfo is None:
            raise ValueError(f"Usage event {self.event_id!r}: occurred_at has no time zone.")


_INSERT: Final = """
INSERT INTO usage.events (event_id, source, kind, quantity, subject, occurred_at)
VALUES (%(event_id)s, %(source)s, %(kind)s, %(quantity)s, %(subject)s, %(occurred_at)s)
ON CONFLICT (event_id) DO NOTHING
"""


def append(connection: psycopg.Connection[Any] | sqlalchemy.Connection, events: Iterable[UsageEvent]) -> int:
    """Append events on this connection and return how many were new."""
    rows = [
        {
            "event_id": event.event_id,
            "source": event.source,
            "kind": event.kind,
            "quantity": event.quantity,
            "subject": event.subject,
            "occurred_at": event.occurred_at.astimezone(UTC),
        }
        for event in events
    ]
    return execute(connection, _INSERT, rows) if rows else 0
