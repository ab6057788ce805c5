"""Run config of the two jobs: what a claimed row says, the names of secrets included and never a secret.

A load goes by the row as it is when the load starts (its cursor may have moved since the row was queued); of the config it
needs `config_id` and `attempt`. The rest is there for the people who look at the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
from pydantic import Field

if TYPE_CHECKING:
    from quayside.dataloader.request import LoadRequest

TABLE_OP: Final = "dataloader__table_load"
BATCH_OP: Final = "dataloader__batch_load"


class TableConfig(dg.Config):
    """What belongs to one table."""

    config_id: int = Field(description="Row of control.table_control.")
    attempt: int = Field(description="Fencing token: the run loads nothing once the row has moved on.")
    control_key: str = Field("", description="SHA-256 of the row's identity.")
    metadata_id: int = Field(0, description="Row of control.historical_metadata of this attempt.")
    source_catalog: str | None = None
    source_schema_name: str | None = None
    source_table_name: str | None = None
    query: str | None = None
    destination_catalog: str = ""
    destination_schema_name: str = ""
    destination_table_name: str = ""
    load_strategy: str = ""
    load_full: bool = False
    incremental_column: str | None = None
    incremental_type: str | None = None
    incremental_value: str | None = Field(
        None, description="The cursor when the row was queued; the load reads it again when it starts."
    )
    incremental_lookback_hours: int | None = None
    backfill_cursor: str | None = None
    rolling_column: str | None = None
    rolling_days: int | None = None
    partition_column: str | None = None
    num_partitions: int | None = None
    lower_bound: str | None = None
    upper_bound: str | None = None
    primary_key_cols: list[str] = Field(default_factory=list)
    is_delete: bool = False
    delete_mode: str = "soft"
    deletes_checked_at: str | None = None
    schema_contract: str = "evolve"
    row_cap: int | None = None


class DatabaseConfig(dg.Config):
    """What belongs to the source database."""

    db_config_key: str = ""
    db_type: str = ""
    db_config_value: dict[str, Any] = Field(
        default_factory=dict, description="Connection fields: names of secrets, never a secret."
    )
    db_kv_scope: str = ""


class DataloaderTableConfig(TableConfig, DatabaseConfig):
    """Config of ``dataloader__table_load``."""


class DataloaderBatchConfig(DatabaseConfig):
    """Config of ``dataloader__batch_load``: the database once, and its tables."""

    tables: list[TableConfig]


def table_run_config(request: LoadRequest) -> dict[str, Any]:
    """Run config of ``dataloader_table_load``."""
    return {"ops": {TABLE_OP: {"config": _of(request, DataloaderTableConfig)}}}


def batch_run_config(requests: Sequence[LoadRequest]) -> dict[str, Any]:
    """Run config of ``dataloader_batch_load`` for tables of one database."""
    config = _of(requests[0], DatabaseConfig) | {"tables": [_of(r, TableConfig) for r in requests]}
    return {"ops": {BATCH_OP: {"config": config}}}


def _of(request: LoadRequest, config: type[dg.Config]) -> dict[str, Any]:
    # What is None is left out: a run of fifty tables is kept, and read, for years.
    values = request.to_json()
    return {name: values[name] for name in config.model_fields if values[name] is not None}


def attempts_in(run_config: Any) -> list[tuple[int, int]]:
    """(config_id, attempt) of every table a run's config names; nothing where it cannot be read."""
    try:
        ops = run_config["ops"]
        tables = [ops[TABLE_OP]["config"]] if TABLE_OP in ops else ops[BATCH_OP]["config"]["tables"]
        return [(int(t["config_id"]), int(t["attempt"])) for t in tables]
    except (KeyError, TypeError, ValueError):
        return []
