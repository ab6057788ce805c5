"""What an ingest reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any


@dataclass
class IngestResult:
    """What became of one batch. Row counts are by table.

    Attributes:
        as_of: default moment of the batch's features, UTC.
        rows_folded: further copies of rows that stand in the input more than once, used once.
        rows_added, rows_changed, rows_unchanged: of the rows kept, by what the lake held before.
        rows_missing: rows the lake has of this batch and this input has not; removed only with ``replace``.
        rows_removed: rows taken out of the lake.
        seconds: wall time by stage (read, validate, write).
        already_loaded: the same content was loaded before, and nothing was done.
    """

    batch_id: str
    content_sha256: str
    as_of: datetime
    base_currency: str | None = None
    rows_read: dict[str, int] = field(default_factory=dict)
    rows_kept: dict[str, int] = field(default_factory=dict)
    rows_quarantined: dict[str, int] = field(default_factory=dict)
    rows_folded: dict[str, int] = field(default_factory=dict)
    rows_added: dict[str, int] = field(default_factory=dict)
    rows_changed: dict[str, int] = field(default_factory=dict)
    rows_unchanged: dict[str, int] = field(default_factory=dict)
    rows_missing: dict[str, int] = field(default_factory=dict)
    rows_removed: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, dict[str, int]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    already_loaded: bool = False

    def counts(self) -> dict[str, dict[str, int]]:
        """Per table: read, kept, quarantined, added, changed, unchanged."""
        return {
            table: {
                "read": self.rows_read.get(table, 0),
                "kept": self.rows_kept.get(table, 0),
                "quarantined": self.rows_quarantined.get(table, 0),
                "added": self.rows_added.get(table, 0),
                "changed": self.rows_changed.get(table, 0),
                "unchanged": self.rows_unchanged.get(table, 0),
            }
            for table in self.rows_read
        }

    def as_dict(self) -> dict[str, Any]:
        """All of it, fit for JSON."""
        return asdict(self) | {"as_of": self.as_of.isoformat()}
