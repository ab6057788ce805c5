"""What a loaded table shows in Dagster: a materialization of its own, at the moment it was loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.events import DagsterEvent

if TYPE_CHECKING:
    from quayside.dataloader.dagster.plane import Context
    from quayside.dataloader.result import LoadResult
    from quayside.dataloader.worker import Outcome


def materialized(context: Context, destination: tuple[str, str, str], outcome: Outcome) -> None:
    """Record that a table was loaded. Any thread may call it.

    It is written at once. What an op yields or gives to `log_event` is written when the op comes to its end, and so not at
    all when the run is killed after half a batch.
    """
    materialization = dg.AssetMaterialization(
        asset_key=dg.AssetKey(list(destination)),
        description=outcome.message,
        metadata={
            "config_id": outcome.config_id,
            "attempt": outcome.attempt,
            **(figures(outcome.result) if outcome.result else {}),
        },
    )
    DagsterEvent.asset_materialization(context.get_step_execution_context(), materialization)


def figures(result: LoadResult) -> dict[str, Any]:
    """A result as metadata."""
    found: dict[str, Any] = {
        "dagster/row_count": result.rows_total,
        "strategy": result.strategy,
        "outcome": result.outcome,
        "rows_read": result.rows_read,
        "rows_inserted": result.rows_inserted,
        "rows_updated": result.rows_updated,
        "rows_deleted": result.rows_deleted,
        "bytes_written": result.bytes_written,
        "seconds": round(result.seconds, 3),
        "rows_per_second": round(result.rows_read / result.seconds) if result.seconds else 0,
    }
    if result.columns:
        found["dagster/column_schema"] = dg.TableSchema(
            columns=[dg.TableColumn(name, type) for name, type in result.columns.items()]
        )
    for name in ("cursor_before", "cursor_after", "backfill_cursor"):
        if (value := getattr(result, name)) is not None:
            found[name] = value
    if result.capped:
        found["capped"] = True
    if result.handed_over:
        found["handed_over"] = True
    for name in ("warnings", "schema_changes"):
        if sentences := getattr(result, name):
            found[name] = dg.MetadataValue.md("\n".join(f"- {text}" for text in sentences))
    return found
