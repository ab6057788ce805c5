"""The moment features are computed for, and the bounds that follow from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from quayside.foundation.errors import InputError

WINDOW_DAYS: Final = 180
HALF_WINDOW_DAYS: Final = 90
RECENT_DAYS: Final = 30
#: 180 days touch at most 7 calendar months: 6 whole months have at least 181 days.
MONTHS: Final = 7

#: What the `$names` in the queries and expressions mean.
PARAMETERS: Final[dict[str, str]] = {
    "batch_id": "the batch",
    "as_of": "the moment; rows after it are not read",
    "window_start": f"as_of - {WINDOW_DAYS} d, itself outside the window",
    "half_start": f"as_of - {HALF_WINDOW_DAYS} d, itself outside the window's second half",
    "recent_start": f"as_of - {RECENT_DAYS} d, itself outside the recent days",
    **{
        f"month_{k}": f"start (UTC) of the calendar month {MONTHS - 1 - k} before that of as_of"
        for k in range(1, MONTHS)
    },
}


@dataclass(frozen=True)
class Moment:
    """A batch as of an instant.

    Raises:
        InputError: `as_of` has no zone, or lies before 1901, where its window cannot be told.
    """

    batch_id: str
    as_of: datetime

    def __post_init__(self) -> None:
        if self.as_of.utcoffset() is None:
            raise InputError(
                f"as_of {self.as_of.isoformat()} has no zone: give an instant, e.g. with +00:00."
            )
        if self.as_of.year <= 1900:
            raise InputError(f"as_of {self.as_of.isoformat()} is before 1901: give the moment of the batch.")

    def parameters(self, sql: str) -> dict[str, Any]:
        """Values of the `$names` that `sql` uses, and of no other, as DuckDB wants them."""
        as_of = self.as_of.astimezone(UTC)
        values: dict[str, Any] = {
            "batch_id": self.batch_id,
            "as_of": as_of,
            "window_start": as_of - timedelta(days=WINDOW_DAYS),
            "half_start": as_of - timedelta(days=HALF_WINDOW_DAYS),
            "recent_start": as_of - timedelta(days=RECENT_DAYS),
        }
        this_month = as_of.year * 12 + as_of.month - 1
        for k in range(1, MONTHS):
            year, month = divmod(this_month - (MONTHS - 1 - k), 12)
            values[f"month_{k}"] = datetime(year, month + 1, 1, tzinfo=UTC)
        return {name: values[name] for name in re.findall(r"\$(\w+)", sql)}
