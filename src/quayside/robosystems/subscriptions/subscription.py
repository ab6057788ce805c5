"""A subscription and one line of its history, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from quayside.robosystems.subscriptions.states import State


@dataclass(frozen=True)
class Subscription:
    """A row of ``robosystems.subscriptions``; times in UTC. `request` is what was ordered (name, kind, schema …).

    ``graph_id`` of a repository is ``<repository>:<user>``. From ``fees_from`` on the plan's price is invoiced; None: it is
    paid elsewhere.
    """

    subscription_id: str
    customer_id: str
    resource_type: str
    graph_id: str | None
    plan: str
    state: State
    state_at: datetime
    version: int
    attempt: int
    next_attempt_at: datetime | None
    last_error: str | None
    request: Mapping[str, Any]
    created_at: datetime
    activated_at: datetime | None
    canceled_at: datetime | None
    ends_at: datetime | None
    fees_from: date | None


@dataclass(frozen=True)
class Transition:
    """One move: None came before the first."""

    from_state: State | None
    to_state: State
    version: int
    at: datetime
    actor: str
    reason: str
