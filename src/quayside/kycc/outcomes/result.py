"""What loading an outcome file reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

#: batch: a party the file does not name had no event. listed: the file speaks of the parties it names alone.
Covers = Literal["batch", "listed"]


@dataclass
class OutcomeResult:
    """What became of one outcome file.

    Attributes:
        observed_through: until when the file's source had looked, UTC.
        observed_before: until when the whole batch was observed before this file, None when it was not.
        rows_folded: exact copies of other rows, used once.
        events, verdicts: rows of each kind that are used.
        added: facts the lake did not have.
        missing: events the lake has, within the file's time, and the file has not; removed only with ``replace``.
        already_loaded: the same content was loaded before, and nothing was done.
    """

    batch_id: str
    content_sha256: str
    observed_through: datetime
    observed_before: datetime | None = None
    covers: Covers = "batch"
    rows_read: int = 0
    rows_kept: int = 0
    rows_quarantined: int = 0
    rows_folded: int = 0
    events: int = 0
    verdicts: int = 0
    added: int = 0
    missing: int = 0
    removed: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    already_loaded: bool = False

    @property
    def extends(self) -> bool:
        """Whether an observation that was there now reaches further."""
        return self.observed_before is not None and self.observed_through > self.observed_before

    def as_dict(self) -> dict[str, Any]:
        """All of it, fit for JSON."""
        before = self.observed_before
        return asdict(self) | {
            "observed_through": self.observed_through.isoformat(),
            "observed_before": before and before.isoformat(),
            "extends": self.extends,
        }
