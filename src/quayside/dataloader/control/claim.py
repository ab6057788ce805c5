"""Claiming: due rows become Queued attempts with their history rows, in one statement.

What may be claimed is ``state = 'ready'`` of the view ``table_readiness``; here is only how many of them: in order of
priority and due time, no more of a source than it has room for, one backfill per source, one writer per destination.
Claims take turns (a lock for the transaction), so that those limits hold for any number of schedulers; rows that
somebody is writing at the moment are skipped, not waited for.
"""

# ruff: noqa: S608 - statements are made of constants of this package; values are bound
from __future__ import annotations

from typing import Any, Final

from quayside.dataloader.control.rows import REQUEST_COLUMNS, Row
from quayside.dataloader.next_due import schedule_of

_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('control: claim', 0))"

#: Open history whose row has moved on by other means than an attempt's own writes, such as SQL by hand.
CLOSE_LEFTOVERS: Final = """
UPDATE control.historical_metadata h
SET load_status = 'Cancelled', load_end_time = clock_timestamp(),
    log_message = coalesce(log_message, 'Closed: the control row moved on without this attempt')
WHERE h.load_status IS NULL AND NOT EXISTS (
    SELECT FROM control.table_control c
    WHERE c.config_id = h.config_id AND c.attempt = h.attempt AND c.last_status IN ('Queued', 'In Progress'))
RETURNING h.id, h.config_id, h.attempt, concat_ws('.', h.target_catalog, h.target_schema, h.target_table) AS destination
"""

_CHANGED_SCHEDULES: Final = """
SELECT config_id, load_cron, load_timezone, now() AS moment FROM control.table_control
WHERE schedule_changed ORDER BY config_id FOR NO KEY UPDATE SKIP LOCKED
"""
_RESCHEDULE: Final = """
UPDATE control.table_control SET schedule_changed = false, next_load_date_time = %(next)s, schedule_problem = %(problem)s
WHERE config_id = %(config_id)s
"""

CLAIM: Final = f"""
WITH ready AS MATERIALIZED (
    SELECT config_id, priority, due_since, db_config_key, load_strategy, room,
        row_number() OVER (
            PARTITION BY lower(destination_catalog), lower(destination_schema_name), lower(destination_table_name)
            ORDER BY priority DESC, due_since, config_id) AS at_destination,
        row_number() OVER (
            PARTITION BY db_config_key, load_strategy = 'chunked_backfill'
            ORDER BY priority DESC, due_since, config_id) AS of_kind
    FROM control.table_readiness WHERE state = 'ready'
), fitting AS MATERIALIZED (
    SELECT config_id, priority, due_since, room,
        row_number() OVER (PARTITION BY db_config_key ORDER BY priority DESC, due_since, config_id) AS at_source
    FROM ready WHERE at_destination = 1 AND (load_strategy <> 'chunked_backfill' OR of_kind = 1)
), chosen AS MATERIALIZED (
    -- Row by row in this order, each looked at again under its lock, until there are enough.
    SELECT f.config_id, f.due_since
    FROM (
        SELECT config_id, due_since FROM fitting WHERE room IS NULL OR at_source <= room
        ORDER BY priority DESC, due_since, config_id
    ) f CROSS JOIN LATERAL (
        SELECT FROM control.table_control c
        WHERE c.config_id = f.config_id AND c.is_active AND (c.last_status IS NULL OR c.last_status = 'Succeeded')
            AND (c.next_load_date_time IS NULL OR c.next_load_date_time <= now())
        FOR UPDATE SKIP LOCKED
    ) locked
    LIMIT %(limit)s
), queued AS (
    UPDATE control.table_control c
    SET last_status = 'Queued', last_status_date_time = clock_timestamp(), last_status_message = NULL,
        last_dagster_run = NULL, last_databricks_run = NULL, attempt = c.attempt + 1,
        lease_expires_at = clock_timestamp() + %(lease)s, worker = NULL, stop_requested = NULL,
        progress_phase = NULL, progress_rows = NULL, progress_rows_total = NULL
    FROM chosen WHERE c.config_id = chosen.config_id
    RETURNING c.*, chosen.due_since
), noted AS (
    INSERT INTO control.historical_metadata (config_id, control_key, attempt, db_config_key, source_catalog,
        source_schema, source_table, target_catalog, target_schema, target_table, load_strategy, load_full, due_time,
        cursor_before)
    SELECT config_id, control_key, attempt, db_config_key, source_catalog, source_schema_name, source_table_name,
        destination_catalog, destination_schema_name, destination_table_name, load_strategy, load_full, due_since,
        incremental_value
    FROM queued
    RETURNING id, config_id
)
SELECT {REQUEST_COLUMNS}, noted.id AS metadata_id
FROM queued c JOIN noted USING (config_id) JOIN control.table_control_dbconfig d USING (db_config_key)
ORDER BY c.priority DESC, c.due_since, c.config_id
"""


def claim(con: Any, limit: int, lease: Any) -> list[Row]:
    """Claim at most `limit` rows on a connection in a transaction; rows with `REQUEST_COLUMNS` and ``metadata_id``."""
    con.execute(_LOCK)
    con.execute("SELECT set_config('control.change_source', 'load', true)")
    con.execute(CLOSE_LEFTOVERS)
    for row in con.execute(_CHANGED_SCHEDULES).fetchall():
        due, problem = schedule_of(row["load_cron"], row["load_timezone"], row["moment"])
        con.execute(_RESCHEDULE, {"config_id": row["config_id"], "next": due, "problem": problem})
    return con.execute(CLAIM, {"limit": limit, "lease": lease}).fetchall()
