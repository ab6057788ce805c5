"""Which subscriptions are due for work, and who works on each: attempts, their leases and the pauses between them.

Everything is decided from the rows. An attempt is counted when it is handed out, so a run that never started, or was
killed, ends with its lease and is followed by the next attempt, which has a run key of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from quayside.robosystems.periods import in_utc, utc_now

if TYPE_CHECKING:
    import psycopg

MAX_ATTEMPTS: Final = 5
#: How long an attempt may take before it counts as dead. Making a graph takes about a second.
LEASE: Final = timedelta(minutes=10)
_FIRST_PAUSE: Final = timedelta(minutes=1)
_LONGEST_PAUSE: Final = timedelta(hours=1)

# Rows that another process is claiming or working on are left to it.
_CLAIM: Final = """
UPDATE robosystems.subscriptions AS s SET attempt = s.attempt + 1, next_attempt_at = %(now)s + %(lease)s
FROM (
    SELECT subscription_id FROM robosystems.subscriptions
    WHERE state = %(state)s AND (next_attempt_at IS NULL OR next_attempt_at <= %(now)s)
      AND (state <> 'canceled' OR ends_at <= %(now)s)
    ORDER BY state_at, subscription_id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
) AS due
WHERE s.subscription_id = due.subscription_id
RETURNING s.subscription_id, s.attempt, s.version, s.state_at
"""


@dataclass(frozen=True)
class Claim:
    """One attempt that was handed out. The version tells the lives of a subscription apart."""

    subscription_id: str
    attempt: int
    version: int

    @property
    def run_key(self) -> str:
        """Never given out twice."""
        return f"{self.subscription_id}:{self.version}:{self.attempt}"


def claim(
    con: psycopg.Connection[Any],
    state: Literal["provisioning", "canceled"],
    *,
    limit: int = 50,
    now: datetime | None = None,
) -> list[Claim]:
    """Hand out attempts on at most `limit` subscriptions, those that have waited longest first.

    Of ``canceled`` ones those are due whose end has come.
    """
    moment = utc_now() if now is None else in_utc(now)
    rows = con.execute(_CLAIM, {"state": state, "now": moment, "lease": LEASE, "limit": limit}).fetchall()
    return [Claim(*row[:3]) for row in sorted(rows, key=lambda row: (row[3], row[0]))]


def pause_after(attempt: int) -> timedelta:
    """How long to wait after a failed attempt: 1, 2, 4, 8 … minutes, an hour at the most."""
    return min(_FIRST_PAUSE * 2 ** min(attempt - 1, 10), _LONGEST_PAUSE)
