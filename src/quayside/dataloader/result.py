"""What one load tells: counts, the cursor before and after, and what happened to the schema."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal, Self


@dataclass(frozen=True)
class LoadResult:
    """Outcome of one load that did not fail.

    Attributes:
        outcome: ``loaded``, or ``unchanged`` where there was nothing to do.
        strategy: the strategy that ran (a forced full load says ``full``).
        rows_read: rows the source gave; equal to what was staged or written, or the load fails.
        rows_inserted, rows_updated, rows_deleted: what changed at the destination (soft deletes count as deleted).
        rows_total: rows of the destination afterwards, without soft-deleted ones.
        bytes_written: size of the files written.
        cursor_before, cursor_after: as text; None where the strategy has none.
        backfill_cursor: upper bound of the last finished chunk while a backfill is not complete.
        handed_over: a chunked backfill is complete: the row continues as ``incremental``.
        deletes_checked_at: when a comparison of keys was completed in this load.
        capped: the row cap cut the load.
        columns: destination column → type, after the load.
        schema_changes: sentences such as ``added column "note" (VARCHAR)``.
        warnings: sentences for the people who run it.
    """

    outcome: Literal["loaded", "unchanged"]
    strategy: str
    rows_read: int
    rows_inserted: int = 0
    rows_updated: int = 0
    rows_deleted: int = 0
    rows_total: int = 0
    bytes_written: int = 0
    seconds: float = 0.0
    cursor_before: str | None = None
    cursor_after: str | None = None
    backfill_cursor: str | None = None
    handed_over: bool = False
    deletes_checked_at: datetime | None = None
    capped: bool = False
    columns: dict[str, str] = field(default_factory=dict)
    schema_changes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def rows_written(self) -> int:
        """Rows inserted and updated."""
        return self.rows_inserted + self.rows_updated

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `of_json` reads them back."""
        values = asdict(self)
        if self.deletes_checked_at is not None:
            values["deletes_checked_at"] = self.deletes_checked_at.isoformat()
        return values

    @classmethod
    def of_json(cls, values: dict[str, Any]) -> Self:
        values = dict(values)
        if isinstance(checked := values.get("deletes_checked_at"), str):
            values["deletes_checked_at"] = datetime.fromisoformat(checked)
        return cls(**values)
