"""What the ledger answers with: plain values, credits exact to six decimals."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

Source = Literal["allowance", "purchase", "promotion", "rollover", "refund", "adjustment"]


@dataclass(frozen=True)
class Balance:
    """An account: ``available`` is what can be consumed, the balance without what reservations hold and what has expired."""

    graph_id: str
    balance: Decimal
    held: Decimal
    available: Decimal
    may_overdraw: bool


@dataclass(frozen=True)
class Entry:
    """A transfer as its customer's account sees it. ``repeated``: it was in the books before this call."""

    transfer_id: int
    balance_after: Decimal
    repeated: bool = False


@dataclass(frozen=True)
class Grant:
    """Credits that were given, and what is left of them now."""

    transfer_id: int
    source: Source
    amount: Decimal
    left_over: Decimal
    priority: int
    granted_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True)
class Reservation:
    """Credits held for work whose cost is known only afterwards."""

    key: str
    graph_id: str
    amount: Decimal
    state: Literal["held", "captured", "released", "expired"]
    expires_at: datetime
