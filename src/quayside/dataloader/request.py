"""What one load is told: a row of ``control.table_control`` with its database, at the moment of its attempt, as JSON.

It travels through run config and Pipes, so it holds the names of secrets and never a secret.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any, Final, Literal, Self

from quayside.foundation.errors import InputError

Strategy = Literal[
    "full", "incremental", "append_only", "rolling", "check_and_load", "chunked_backfill", "scd2"
]
STRATEGIES: Final[tuple[Strategy, ...]] = (
    "full", "incremental", "append_only", "rolling", "check_and_load", "chunked_backfill", "scd2",
)  # fmt: skip
IncrementalType = Literal["timestamp", "integer"]
DeleteMode = Literal["soft", "hard"]
SchemaContract = Literal["evolve", "freeze", "discard_columns"]


@dataclass(frozen=True)
class LoadRequest:
    """One attempt at one table.

    Attributes:
        config_id: the row of ``control.table_control``; ``attempt`` is its fencing token.
        control_key: SHA-256 of the row's identity, hexadecimal.
        metadata_id: the row of ``control.historical_metadata`` of this attempt.
        db_config_value: connection fields → names of secrets in scope ``db_kv_scope`` (or plain values where a field
            cannot be secret, such as a file's path: docs/dataloader/sources.md).
        incremental_value: the cursor as last mirrored in the control row, as text. What the destination's own commit
            says goes before it.
        primary_key_cols: column names, in order.
        application_name, statement_timeout_seconds, max_connections: how the load has to behave at its source.
        row_cap: load at most this many rows (a setting for development); None = all.
    """

    config_id: int
    control_key: str
    metadata_id: int
    attempt: int
    db_config_key: str
    db_type: str
    db_config_value: dict[str, Any]
    db_kv_scope: str
    source_catalog: str | None
    source_schema_name: str | None
    source_table_name: str
    query: str | None
    destination_catalog: str
    destination_schema_name: str
    destination_table_name: str
    load_strategy: Strategy
    load_full: bool = False
    incremental_column: str | None = None
    incremental_type: IncrementalType | None = None
    incremental_value: str | None = None
    incremental_lookback_hours: int | None = None
    backfill_cursor: str | None = None
    rolling_column: str | None = None
    rolling_days: int | None = None
    partition_column: str | None = None
    num_partitions: int | None = None
    lower_bound: str | None = None
    upper_bound: str | None = None
    primary_key_cols: tuple[str, ...] = field(default=())
    is_delete: bool = False
    delete_mode: DeleteMode = "soft"
    deletes_checked_at: datetime | None = None
    schema_contract: SchemaContract = "evolve"
    row_cap: int | None = None
    application_name: str = "quayside dataloader"
    statement_timeout_seconds: int | None = None
    max_connections: int | None = None

    @property
    def destination(self) -> tuple[str, str, str]:
        """Catalog, schema, table: also the asset key of the loaded table."""
        return (self.destination_catalog, self.destination_schema_name, self.destination_table_name)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `of_json` reads them back."""
        values = asdict(self)
        values["primary_key_cols"] = list(self.primary_key_cols)
        if self.deletes_checked_at is not None:
            values["deletes_checked_at"] = self.deletes_checked_at.isoformat()
        return values

    @classmethod
    def of_json(cls, values: dict[str, Any]) -> Self:
        """The request that `to_json` wrote.

        Raises:
            InputError: a field is missing or unknown.
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(values.keys() - known):
            raise InputError(f"A load request has fields this version does not know: {', '.join(unknown)}.")
        values = dict(values)
        values["primary_key_cols"] = tuple(values.get("primary_key_cols") or ())
        if isinstance(checked := values.get("deletes_checked_at"), str):
            values["deletes_checked_at"] = datetime.fromisoformat(checked)
        try:
            return cls(**values)
        except TypeError as error:
            raise InputError(f"A load request is incomplete: {error}.") from None
