"""What an attempt writes about itself. Every statement names the attempt and changes nothing when the row has moved on.

Functions here work on a connection in a transaction. Those that write an outcome may be run again after a connection was
lost: what they find written already, they take as written.
"""

# ruff: noqa: S608 - statements are made of constants of this package; values are bound
from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from quayside.dataloader.control.rows import REQUEST_COLUMNS, Row, fenced, run_id_of, storable
from quayside.foundation.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from quayside.dataloader.result import LoadResult

Outcome = Literal["Failed", "Cancelled"]
Heartbeat = Literal["continue", "stop"]

#: What is kept of a message; the whole of it is in the run's log.
MESSAGE_CHARACTERS: Final = 4000
_CHANGE_SOURCE: Final = "SELECT set_config('control.change_source', 'load', true)"
_MINE: Final = "config_id = %(config_id)s AND attempt = %(attempt)s"

_ROW: Final = f"""
SELECT {REQUEST_COLUMNS}, h.id AS metadata_id, h.load_full AS attempt_load_full, h.load_status, c.last_status, c.is_active, c.retry_count,
    c.last_load_date_time, c.next_load_date_time, c.load_cron, c.load_timezone, c.last_dagster_run, c.stop_requested,
    d.is_paused, d.paused_reason, control.in_load_window(d.load_windows, now()) AS in_window,
    clock_timestamp() AS moment
FROM control.table_control c
LEFT JOIN control.table_control_dbconfig d USING (db_config_key)
LEFT JOIN control.historical_metadata h ON h.config_id = c.config_id AND h.attempt = %(attempt)s
WHERE c.config_id = %(config_id)s
"""
LOCKED: Final = " FOR NO KEY UPDATE OF c"

_BEGIN: Final = f"""
WITH row AS (
    UPDATE control.table_control
    SET last_status = 'In Progress', last_status_date_time = clock_timestamp(), last_load_date_time = clock_timestamp(),
        last_dagster_run = %(run)s, lease_expires_at = clock_timestamp() + %(lease)s, worker = %(worker)s,
        progress_phase = 'starting'
    WHERE {_MINE} RETURNING *
)
UPDATE control.historical_metadata h
SET load_start_time = row.last_load_date_time, dagster_run = %(run)s, run_id = %(run_id)s, worker = %(worker)s,
    load_strategy = row.load_strategy, load_full = row.load_full, cursor_before = row.incremental_value
FROM row WHERE h.config_id = row.config_id AND h.attempt = row.attempt
"""

_HEARTBEAT: Final = """
UPDATE control.table_control c
SET lease_expires_at = clock_timestamp() + %(lease)s, worker = coalesce(%(worker)s, c.worker),
    progress_phase = coalesce(%(phase)s, c.progress_phase), progress_rows = coalesce(%(rows)s, c.progress_rows),
    progress_rows_total = coalesce(%(total)s, c.progress_rows_total)
FROM control.table_control_dbconfig d
WHERE d.db_config_key = c.db_config_key AND c.config_id = %(config_id)s AND c.attempt = %(attempt)s
    AND c.last_status = 'In Progress'
RETURNING c.stop_requested IS NOT NULL OR d.is_paused AS stop
"""

_SUCCEED: Final = f"""
WITH row AS (
    UPDATE control.table_control
    SET last_status = 'Succeeded', last_status_date_time = clock_timestamp(), last_status_message = %(message)s,
        next_load_date_time = %(next)s, schedule_problem = %(problem)s, schedule_changed = false,
        load_full = load_full AND NOT %(was_full)s,
        incremental_value = coalesce(%(cursor_after)s, incremental_value),
        load_strategy = CASE WHEN %(handed_over)s THEN 'incremental' ELSE load_strategy END,
        backfill_cursor = %(backfill_cursor)s,
        deletes_checked_at = coalesce(%(deletes_checked_at)s, deletes_checked_at),
        retry_count = 0, review_required = false,
        staging_model_processed = staging_model_processed AND %(unchanged)s,
        lease_expires_at = NULL, progress_phase = NULL, stop_requested = NULL,
        progress_rows = NULL, progress_rows_total = NULL
    WHERE {_MINE}
)
UPDATE control.historical_metadata
SET load_status = 'Succeeded', load_end_time = clock_timestamp(), log_message = %(message)s, rows_read = %(rows_read)s,
    rows_written = %(rows_written)s, rows_deleted = %(rows_deleted)s, rows_total = %(rows_total)s,
    bytes_written = %(bytes_written)s, cursor_before = coalesce(%(cursor_before)s, cursor_before),
    cursor_after = %(cursor_after)s, result = %(result)s::jsonb
WHERE {_MINE}
"""

_FAIL: Final = f"""
WITH row AS (
    UPDATE control.table_control
    SET last_status = CASE WHEN %(release)s THEN NULL ELSE 'Failed' END, last_status_date_time = clock_timestamp(),
        last_status_message = %(message)s, retry_count = retry_count + CASE WHEN %(counts)s THEN 1 ELSE 0 END,
        lease_expires_at = NULL, stop_requested = NULL, progress_phase = NULL,
        progress_rows = NULL, progress_rows_total = NULL
    WHERE {_MINE}
)
UPDATE control.historical_metadata
SET load_status = %(outcome)s, load_end_time = clock_timestamp(), log_message = %(message)s
WHERE {_MINE} AND load_status IS NULL
"""

_TRACK: Final = f"""
WITH row AS (
    UPDATE control.table_control SET last_dagster_run = coalesce(%(dagster)s, last_dagster_run),
        last_databricks_run = coalesce(%(databricks)s, last_databricks_run)
    WHERE {_MINE} AND last_status IN ('Queued', 'In Progress') RETURNING config_id, attempt
)
UPDATE control.historical_metadata h
SET dagster_run = coalesce(%(dagster)s, h.dagster_run), run_id = coalesce(%(run_id)s, h.run_id),
    databricks_run = coalesce(%(databricks)s, h.databricks_run)
FROM row WHERE h.config_id = row.config_id AND h.attempt = row.attempt
"""
_NOTED: Final = frozenset(
    {"rows_read", "rows_written", "rows_deleted", "rows_total", "bytes_written", "cursor_before", "cursor_after",
     "log_message", "dagster_run", "databricks_run", "run_id", "worker"}
)  # fmt: skip


def read(con: Any, config_id: int, attempt: int, lock: bool = False) -> Row | None:
    """The control row with its source and the attempt's history; None when the row is gone."""
    return con.execute(
        _ROW + (LOCKED if lock else ""), {"config_id": config_id, "attempt": attempt}
    ).fetchone()


def require(row: Row | None, config_id: int, attempt: int, *statuses: str) -> Row:
    """The row, when it is at this attempt and in one of these states.

    Raises:
        FencedError: it is not.
    """
    if row is None or row["attempt"] != attempt or row["last_status"] not in statuses:
        raise fenced(config_id, attempt, row)
    return row


def begin(
    con: Any, config_id: int, attempt: int, run: str | None, worker: str | None, lease: timedelta
) -> str | None:
    """Queued → In Progress. Returns why the attempt was ended or given back instead, None when it begins.

    Raises:
        FencedError: the row has moved on.
    """
    row = require(read(con, config_id, attempt, lock=True), config_id, attempt, "Queued", "In Progress")
    if row["last_status"] == "In Progress":
        if run is None or row["last_dagster_run"] != run:
            raise fenced(config_id, attempt, row)
        return None
    reason, release = None, True
    if row["stop_requested"] is not None:
        reason, release = f"it was told to stop: {row['stop_requested']}", False
    elif not row["is_active"]:
        reason = "the row was deactivated while it was queued"
    elif row["is_paused"]:
        reason = f"source {row['db_config_key']} was paused while it was queued"
    elif not row["in_window"]:
        reason = f"the load window of source {row['db_config_key']} closed while it was queued"
    if reason is not None:
        end(con, config_id, attempt, f"Cancelled - {reason}", "Cancelled", release=release)
        return reason
    con.execute(
        _BEGIN,
        {
            "config_id": config_id,
            "attempt": attempt,
            "run": run,
            "run_id": run_id_of(run),
            "worker": worker,
            "lease": lease,
        },
    )
    return None


def heartbeat(
    con: Any,
    config_id: int,
    attempt: int,
    lease: timedelta,
    *,
    rows: int | None = None,
    total: int | None = None,
    phase: str | None = None,
    worker: str | None = None,
) -> Heartbeat:
    """Extend the lease and note the progress; whether to go on.

    Raises:
        FencedError: the attempt was given up.
    """
    values = {
        "config_id": config_id,
        "attempt": attempt,
        "lease": lease,
        "rows": rows,
        "total": total,
        "phase": phase,
        "worker": worker,
    }
    found = con.execute(_HEARTBEAT, values).fetchone()
    if found is None:
        raise fenced(config_id, attempt, read(con, config_id, attempt))
    return "stop" if found["stop"] else "continue"


def succeed(con: Any, config_id: int, attempt: int, result: LoadResult) -> datetime | None:
    """Everything a success changes, in the caller's one transaction. Returns when the table is due next.

    Raises:
        FencedError: the attempt was given up before.
    """
    from quayside.dataloader.next_due import schedule_of

    row = read(con, config_id, attempt, lock=True)
    if row is not None and row["load_status"] == "Succeeded":
        return row["next_load_date_time"]  # written before the connection was lost
    row = require(row, config_id, attempt, "In Progress")
    began = row["last_load_date_time"] or row["moment"]
    if result.backfill_cursor is not None and not result.handed_over:
        due, problem = row["moment"], None  # more chunks wait
    elif row["next_load_date_time"] is not None and row["next_load_date_time"] > began:
        due, problem = row["next_load_date_time"], None  # somebody asked for another load meanwhile
    else:
        due, problem = schedule_of(row["load_cron"], row["load_timezone"], began)
    told = storable(result.to_json()) | {"warnings": [kept(warning) for warning in result.warnings]}
    con.execute(_CHANGE_SOURCE)
    con.execute(
        _SUCCEED,
        {
            "config_id": config_id,
            "attempt": attempt,
            "message": kept(summary(result)),
            "next": due,
            "problem": problem,
            "was_full": row["attempt_load_full"],
            "cursor_before": result.cursor_before,
            "cursor_after": result.cursor_after,
            "handed_over": result.handed_over and row["load_strategy"] == "chunked_backfill",
            "backfill_cursor": None if result.handed_over else result.backfill_cursor,
            "deletes_checked_at": result.deletes_checked_at,
            "unchanged": result.outcome == "unchanged",
            "rows_read": result.rows_read,
            "rows_written": result.rows_written,
            "rows_deleted": result.rows_deleted,
            "rows_total": result.rows_total,
            "bytes_written": result.bytes_written,
            "result": json.dumps(told, default=str),
        },
    )
    return due


def end(
    con: Any,
    config_id: int,
    attempt: int,
    message: str,
    outcome: Outcome,
    *,
    release: bool = False,
    only_expired: bool = False,
    states: tuple[str, ...] = ("Queued", "In Progress"),
) -> None:
    """Close an attempt that did not succeed: the row Failed, or with `release` free to be claimed again.

    Raises:
        FencedError: the row has moved on, or with `only_expired` its lease was extended meanwhile.
    """
    row = read(con, config_id, attempt, lock=True)
    if row is not None and row["load_status"] in ("Failed", "Cancelled") and row["attempt"] == attempt:
        return  # closed before, by a monitor or before the connection was lost
    row = require(row, config_id, attempt, *states)
    if (
        only_expired
        and not con.execute(
            f"SELECT 1 FROM control.table_control WHERE {_MINE} AND lease_expires_at < clock_timestamp()",
            {"config_id": config_id, "attempt": attempt},
        ).fetchone()
    ):
        raise fenced(config_id, attempt, row)
    # What a paused source stopped goes on by itself when the source does.
    release = release or (outcome == "Cancelled" and bool(row["is_paused"]))
    con.execute(
        _FAIL,
        {
            "config_id": config_id,
            "attempt": attempt,
            "message": kept(message),
            "outcome": outcome,
            "release": release,
            "counts": not release,
        },
    )


def track_runs(
    con: Any, config_id: int, attempt: int, dagster_run: str | None, databricks_run: str | None
) -> None:
    """Write the links into the row and its history; None leaves a link as it is. Raises FencedError."""
    values = {
        "config_id": config_id,
        "attempt": attempt,
        "dagster": dagster_run,
        "run_id": run_id_of(dagster_run),
        "databricks": databricks_run,
    }
    if con.execute(_TRACK, values).rowcount == 0:
        raise fenced(config_id, attempt, read(con, config_id, attempt))


def note(con: Any, config_id: int, attempt: int, metadata_id: int, values: dict[str, Any]) -> None:
    """Write figures into the attempt's open history row.

    Raises:
        FencedError: it was closed, or is another attempt's.
        UsageError: a value has no column.
    """
    if unknown := sorted(values.keys() - _NOTED):
        raise UsageError(f"historical_metadata takes no {', '.join(unknown)} from a load.")
    if not values:
        return
    columns = ", ".join(f"{name} = %({name})s" for name in sorted(values))
    bound = storable(values) | {"metadata_id": metadata_id, "config_id": config_id, "attempt": attempt}
    statement = (
        f"UPDATE control.historical_metadata SET {columns} "
        f"WHERE id = %(metadata_id)s AND {_MINE} AND load_status IS NULL"
    )
    if con.execute(statement, bound).rowcount == 0:
        raise fenced(config_id, attempt, read(con, config_id, attempt))


def kept(message: str) -> str:
    """A message as it is stored: without secrets, of bounded length, in characters that can be stored."""
    from quayside.foundation.secrets import redact

    return storable(redact(message)[:MESSAGE_CHARACTERS])


def summary(result: LoadResult) -> str:
    """One line about a success, with the warnings."""
    if result.outcome == "unchanged":
        text = f"Unchanged: nothing to load of {result.rows_total:,} rows"
    else:
        text = (
            f"Read {result.rows_read:,} rows: {result.rows_inserted:,} new, {result.rows_updated:,} changed"
        )
        if result.rows_deleted:
            text += f", {result.rows_deleted:,} deleted"
    if result.capped:
        text += " (CAPPED by QUAYSIDE_DATALOADER_ROW_CAP: not the whole table)"
    return " | ".join([text, *result.warnings, *result.schema_changes])
