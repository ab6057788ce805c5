"""The window a label speaks of: after the moment, up to and with its end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from quayside.foundation.errors import UsageError

#: Longer windows than ten years are a slip of the keyboard.
MAX_WINDOW_DAYS: Final = 3660
#: An invoice open for more than so many days after its due date is a default.
OVERDUE_DAYS: Final = 90


@dataclass(frozen=True)
class Window:
    """(as_of, as_of + days] of one batch; a day has 24 hours.

    Raises:
        UsageError: `days` is not between 1 and `MAX_WINDOW_DAYS`.
    """

    batch_id: str
    as_of: datetime
    days: int

    def __post_init__(self) -> None:
        if not 1 <= self.days <= MAX_WINDOW_DAYS:
            raise UsageError(
                f"observation_window_days is {self.days}: give whole days between 1 and {MAX_WINDOW_DAYS}."
            )

    @property
    def end(self) -> datetime:
        """The last moment that counts."""
        return self.as_of + timedelta(days=self.days)

    @property
    def first_due(self) -> datetime:
        """Invoices due up to here were more than 90 days past due at the moment already."""
        return self.as_of - timedelta(days=OVERDUE_DAYS)

    @property
    def last_due(self) -> datetime:
        """Invoices due after this cannot be more than 90 days past due before the window ends."""
        return self.end - timedelta(days=OVERDUE_DAYS)
