"""The life of a subscription, as one table. The database holds the same one (migration 0002) and refuses every other move.

pending → pending_payment → provisioning → active → past_due / paused / canceled → ended, and failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

State = Literal[
    "pending",
    "pending_payment",
    "provisioning",
    "active",
    "past_due",
    "paused",
    "canceled",
    "ended",
    "failed",
]

MOVES: Final[Mapping[State, frozenset[State]]] = {
    # Ordered.
    "pending": frozenset({"pending_payment", "provisioning", "canceled"}),
    "pending_payment": frozenset({"provisioning", "canceled", "failed"}),
    # Its graph is being made. A cancellation is taken before that has begun and after it has failed.
    "provisioning": frozenset({"active", "failed", "canceled"}),
    "active": frozenset({"past_due", "paused", "canceled"}),
    "past_due": frozenset({"active", "paused", "canceled"}),
    "paused": frozenset({"active", "past_due", "canceled"}),
    # Runs until `ends_at`; until then the customer may come back.
    "canceled": frozenset({"active", "ended"}),
    "ended": frozenset(),
    # Given up; somebody may try again.
    "failed": frozenset({"provisioning", "ended"}),
}


def may_move(before: State, after: State) -> bool:
    """Whether the table allows this move."""
    return after in MOVES[before]
