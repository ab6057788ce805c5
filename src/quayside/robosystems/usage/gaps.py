"""Gaps: hours in which a subscribed graph was not measured. They are listed, and never read as 0 bytes."""
# ruff: noqa: S608 - statements are made of constants of this package; values are bound

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation.errors import UsageError
from quayside.robosystems.periods import start_of
from quayside.robosystems.plans import state_at

if TYPE_CHECKING:
    import psycopg

_GAPS: Final = f"""
WITH hours AS (SELECT hour FROM generate_series(%(from)s::timestamptz, %(until)s::timestamptz - interval '1 hour', '1 hour')
               AS hour),
missing AS (
    SELECT a.graph_id, h.hour, u.problem
    FROM robosystems.subscriptions AS s
    JOIN robosystems.accounts AS a ON a.graph_id = s.graph_id
    JOIN hours AS h ON s.activated_at < h.hour + interval '1 hour'
    LEFT JOIN robosystems.usage_snapshots AS u ON u.hour = h.hour AND u.account_id = a.id
    WHERE s.resource_type = 'graph' AND u.total_bytes IS NULL
      AND {state_at("h.hour + interval '1 hour' - interval '1 microsecond'")} IN ('active', 'past_due', 'paused', 'canceled')
), runs AS (
    SELECT *, hour - row_number() OVER (PARTITION BY graph_id, problem ORDER BY hour) * interval '1 hour' AS island
    FROM missing
)
SELECT graph_id, min(hour), max(hour) + interval '1 hour', count(*), coalesce(problem, 'no snapshot was taken')
FROM runs GROUP BY graph_id, problem, island ORDER BY graph_id, min(hour)
"""


@dataclass(frozen=True)
class Gap:
    """Hours ``since`` (included) to ``until`` (excluded) of one graph without a measurement, and why."""

    graph_id: str
    since: datetime
    until: datetime
    hours: int
    reason: str


def gaps(
    con: psycopg.Connection[Any], first: date, last: date, *, until: datetime | None = None
) -> list[Gap]:
    """Every gap of the days `first` to `last`, both included, up to the moment `until`.

    Raises:
        UsageError: the range is turned round.
    """
    if last < first:
        raise UsageError(f"The range of days ends ({last}) before it begins ({first}).")
    end = start_of(last + timedelta(days=1))
    if until is not None:
        end = min(end, until.replace(minute=0, second=0, microsecond=0))
    found = con.execute(_GAPS.encode(), {"from": start_of(first), "until": end}).fetchall()
    return [Gap(*row) for row in found]
