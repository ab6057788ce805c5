"""Rows of the control database as the objects that loads and monitors work with."""

from __future__ import annotations

import csv
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

from quayside.dataloader.errors import FencedError
from quayside.dataloader.request import LoadRequest

Row = dict[str, Any]

#: What a LoadRequest takes from a row `c` of table_control and its `d` of table_control_dbconfig.
REQUEST_COLUMNS: Final = """
    c.config_id, c.control_key, c.attempt, c.db_config_key, d.db_type, d.db_config_value, d.db_kv_scope,
    c.source_catalog, c.source_schema_name, c.source_table_name, c.query, c.destination_catalog,
    c.destination_schema_name, c.destination_table_name, c.load_strategy, c.load_full, c.incremental_column,
    c.incremental_type, c.incremental_value, c.incremental_lookback_hours, c.backfill_cursor, c.rolling_column,
    c.rolling_days, c.partition_column, c.num_partitions, c.lower_bound, c.upper_bound, c.primary_key_cols, c.is_delete,
    c.delete_mode, c.deletes_checked_at, c.schema_contract, d.application_name, d.statement_timeout_seconds,
    d.max_connections
"""
_REQUEST_FIELDS: Final = frozenset(f.name for f in fields(LoadRequest))


@dataclass(frozen=True)
class Attempt:
    """An attempt that is Queued or In Progress, as the monitors see it.

    ``since`` is when it was queued, or when it started; ``run`` is what `last_dagster_run` holds, a URL or a bare id.
    """

    config_id: int
    attempt: int
    control_key: str
    metadata_id: int | None
    db_config_key: str | None
    destination: str
    load_strategy: str
    status: str
    since: datetime
    lease_expires_at: datetime
    run: str | None
    is_active: bool

    @property
    def run_id(self) -> str | None:
        """Id of the Dagster run, whichever form was written."""
        return run_id_of(self.run)


ATTEMPT_COLUMNS: Final = """
    c.config_id, c.attempt, c.control_key, h.id AS metadata_id, c.db_config_key,
    concat_ws('.', c.destination_catalog, c.destination_schema_name, c.destination_table_name) AS destination,
    c.load_strategy, c.last_status AS status, c.lease_expires_at, c.last_dagster_run AS run, c.is_active,
    coalesce(CASE WHEN c.last_status = 'In Progress' THEN c.last_load_date_time END, c.last_status_date_time,
             c.last_modified_at) AS since
"""


def request_of(row: Row, row_cap: int | None) -> LoadRequest:
    """The request that a row with `REQUEST_COLUMNS` and ``metadata_id`` stands for."""
    values = {name: value for name, value in row.items() if name in _REQUEST_FIELDS}
    return LoadRequest(
        **(values | {"primary_key_cols": column_names(row["primary_key_cols"]), "row_cap": row_cap})
    )


def column_names(text: str | None, strict: bool = False) -> tuple[str, ...]:
    """Names separated by commas; one that holds a comma or a quote stands in double quotes.

    A malformed list is taken as far as it can be, so that one row of it cannot keep others from being claimed; its load
    fails by the name that does not exist.

    Raises:
        ValueError: only with `strict`: the quotes are wrong.
    """
    if not text:
        return ()
    try:
        names = [name for line in csv.reader([text], skipinitialspace=True, strict=strict) for name in line]
    except csv.Error as error:
        if strict:
            raise ValueError(str(error)) from None
        names = text.split(",")
    return tuple(name.strip() for name in names)


def column_list(names: tuple[str, ...] | list[str]) -> str:
    """The text that `column_names` reads back."""
    return ",".join(
        '"' + name.replace('"', '""') + '"' if set(name) & set('",\n\r') or name != name.strip() else name
        for name in names
    )


def run_id_of(run: str | None) -> str | None:
    """The run's id in ``https://…/runs/<id>`` or in a bare id."""
    return run.rstrip("/").rpartition("/")[2] or None if run else None


def fenced(config_id: int, attempt: int, row: Row | None) -> FencedError:
    """The sentence for a write that came too late."""
    if row is None:
        return FencedError(
            f"Config {config_id} is gone from the control database: attempt {attempt} writes nothing."
        )
    return FencedError(
        f"Attempt {attempt} of config {config_id} was given up and writes nothing: the row is at attempt "
        f"{row['attempt']}, {row['last_status'] or 'waiting to be due'}."
    )


def storable(value: Any) -> Any:
    """A value of JSON's types with what PostgreSQL cannot store (zero bytes, halves of surrogates) replaced.

    Messages quote what sources hold; an outcome must not be lost over that.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return value
