"""What the monitors ask of the control database, and how they close what a dead worker left.

Every question reads the rows that are Queued or In Progress, or the open history, through partial indexes: its cost does
not grow with the history. Inactive rows are seen like any other.
"""

# ruff: noqa: S608 - statements are made of constants of this package; values are bound
from __future__ import annotations

from typing import Any, Final

from quayside.dataloader.control import attempts
from quayside.dataloader.control.claim import CLOSE_LEFTOVERS
from quayside.dataloader.control.rows import ATTEMPT_COLUMNS, REQUEST_COLUMNS, Attempt, Row

#: An attempt that never came to a run is queued again so often before it fails.
LIMIT_OF_FAILURES: Final = 3

_RUNNING: Final = f"""
SELECT {ATTEMPT_COLUMNS}
FROM control.table_control c
LEFT JOIN control.historical_metadata h ON h.config_id = c.config_id AND h.attempt = c.attempt
WHERE c.last_status IN ('Queued', 'In Progress')
"""
_ORDER: Final = " ORDER BY since, c.config_id"
_QUEUED: Final = f"""
SELECT {REQUEST_COLUMNS}, h.id AS metadata_id
FROM control.table_control c
JOIN control.table_control_dbconfig d USING (db_config_key)
JOIN control.historical_metadata h ON h.config_id = c.config_id AND h.attempt = c.attempt
WHERE c.last_status = 'Queued' AND c.last_status_date_time <= now() - %(age)s * interval '1 second'
ORDER BY c.last_status_date_time, c.config_id
LIMIT %(limit)s
"""
#: What the sensors would have seen to, had they been on: both numbers are twice their intervals and more.
_UNATTENDED: Final = """
SELECT (SELECT count(*) FROM control.table_readiness
        WHERE state = 'ready' AND greatest(due_since, last_status_date_time) < now() - interval '10 minutes') AS ready,
    (SELECT extract(epoch FROM now() - load_queued_time) / 60 FROM control.historical_metadata ORDER BY id DESC LIMIT 1)
        AS claimed_minutes,
    (SELECT count(*) FROM control.table_control
        WHERE last_status = 'In Progress' AND lease_expires_at < now() - interval '10 minutes') AS silent,
    (SELECT count(*) FROM control.table_control
        WHERE last_status = 'Queued' AND last_status_date_time < now() - interval '80 minutes') AS queued
"""


def unattended(con: Any) -> list[str]:
    """Sentences about what nobody sees to: sensors that are off cannot say so themselves. Empty when all is well."""
    row = con.execute(_UNATTENDED).fetchone()
    said = []
    if row["ready"] and (row["claimed_minutes"] is None or row["claimed_minutes"] > 10):
        since = "ever" if row["claimed_minutes"] is None else f"for {row['claimed_minutes']:,.0f} minutes"
        said.append(
            f"{row['ready']} tables are ready and none was claimed {since}: switch on master_sensor (`quayside up "
            "--automate`, or in the UI), and see that the daemon runs."
        )
    if row["silent"]:
        said.append(
            f"{row['silent']} tables are In Progress without a heartbeat for more than 10 minutes and were not closed: switch "
            "on reconcile_monitor, and see that the daemon runs."
        )
    if row["queued"]:
        said.append(
            f"{row['queued']} tables have been Queued for more than 80 minutes: switch on longqueued_monitor, and see that "
            "the daemon runs."
        )
    return said


def running(con: Any) -> list[Attempt]:
    """Every attempt that is Queued or In Progress, the oldest first."""
    return _attempts(con, "")


def stuck_in_queue(con: Any, minutes: float) -> list[Attempt]:
    """Queued for longer than that."""
    return _attempts(
        con,
        "AND c.last_status = 'Queued' AND c.last_status_date_time < now() - %(minutes)s * interval '1 minute'",
        minutes=minutes,
    )


def running_too_long(con: Any, minutes: float, backfill_minutes: float) -> list[Attempt]:
    """In Progress for longer than that; a backfill has a limit of its own."""
    return _attempts(
        con,
        "AND c.last_status = 'In Progress' AND coalesce(c.last_load_date_time, c.last_status_date_time) < now() - "
        "CASE WHEN c.load_strategy = 'chunked_backfill' THEN %(backfill)s ELSE %(minutes)s END * interval '1 minute'",
        minutes=minutes,
        backfill=backfill_minutes,
    )


def expired(con: Any) -> list[Attempt]:
    """In Progress with a lease that ran out: the worker is dead, or cannot reach the control database."""
    return _attempts(con, "AND c.last_status = 'In Progress' AND c.lease_expires_at < now()")


def queued(con: Any, limit: int, older_than_seconds: float) -> list[Row]:
    """Queued rows as they were claimed, for whoever finds that their run was never created."""
    return con.execute(_QUEUED, {"limit": limit, "age": older_than_seconds}).fetchall()


def close_leftovers(con: Any) -> list[Row]:
    """Close open history whose row has moved on or is gone; what was closed, with ids and destination."""
    return con.execute(CLOSE_LEFTOVERS).fetchall()


def requeue(con: Any, config_id: int, attempt: int, reason: str) -> bool:
    """Free a Queued row whose run never came, so that the next claim takes it. False: it failed instead, as it did so
    `LIMIT_OF_FAILURES` times in a row.

    Raises:
        FencedError: the row has moved on, for instance because its run began.
    """
    row = attempts.read(con, config_id, attempt, lock=True)
    row = attempts.require(row, config_id, attempt, "Queued")
    again = row["retry_count"] + 1 < LIMIT_OF_FAILURES
    if again:  # a failure counts by itself
        con.execute(
            "UPDATE control.table_control SET retry_count = retry_count + 1 WHERE config_id = %s",
            (config_id,),
        )
    attempts.end(con, config_id, attempt, reason, "Cancelled" if again else "Failed", release=again)
    return again


def _attempts(con: Any, condition: str, **values: Any) -> list[Attempt]:
    return [Attempt(**row) for row in con.execute(_RUNNING + condition + _ORDER, values).fetchall()]
