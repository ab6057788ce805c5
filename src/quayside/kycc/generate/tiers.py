"""The four hidden tiers, as data: what each does to a party's records and to its outcome.

A tier is a cause, not a feature. Ranges of neighbouring tiers overlap, and beside the tier every party has its own
`weakness` (standard normal), which shifts late payment, trend and default around the tier's rates without changing
them on average. So no single feature gives the outcome away, and a model has something to find beyond the tier.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

WINDOW_DAYS: Final = 180  # of transactions before the moment of a batch, and of outcomes after it
RECENT_DAYS: Final = 30

#: Position is the code stored in a batch's arrays.
PARTY_TYPES: Final = ("supplier", "manufacturer", "distributor", "retailer", "customer")
ACCOUNT_TYPES: Final = ("checking", "savings")
TXN_TYPES: Final = ("invoice", "payment", "credit_note")
EVENTS: Final = ("overdue_90", "write_off", "collection")
EVENT_SHARES: Final = (0.60, 0.25, 0.15)

#: Share of invoices among the transactions of a party that are not credit notes; the rest are payments.
INVOICE_SHARE: Final = 0.6

#: Correlation of a party's weakness with what it drives.
WEAKNESS_IN_LATENESS: Final = 0.6
WEAKNESS_IN_TREND: Final = 0.5
WEAKNESS_IN_DEFAULT: Final = 0.5


@dataclass(frozen=True)
class Tier:
    """Parameters of one tier. Pairs are the ends of a uniform draw, whole numbers inclusive."""

    name: str
    kyc_verified: float  # probability
    tax_id: float  # probability
    contact: tuple[float, float]  # share of contact fields present
    age_years: tuple[float, float]
    types: tuple[float, float, float, float, float]  # weights in the order of PARTY_TYPES
    savings: float  # probability that the account is a savings account
    balance: tuple[float, float]  # base currency
    transactions: tuple[int, int]  # in the window
    amount: tuple[float, float]  # base amount of a transaction, base currency
    volatility: float  # amounts are base × U(1 − v, 1 + v)
    credit_note: float  # probability per transaction
    recent: float  # probability of any transaction in the last RECENT_DAYS
    suppliers: tuple[int, int]  # sources per target and kind of edge
    late: float  # probability per invoice
    trend: float  # spread of growth or decline of activity over the window
    default: float  # probability of an event in the WINDOW_DAYS after the moment


TIERS: Final = (
    Tier(
        "excellent",
        kyc_verified=1.0,
        tax_id=1.0,
        contact=(0.90, 1.00),
        age_years=(8, 25),
        types=(0.3, 0.4, 0.3, 0, 0),
        savings=0.3,
        balance=(100_000, 500_000),
        transactions=(150, 300),
        amount=(30_000, 80_000),
        volatility=0.15,
        credit_note=0.05,
        recent=1.0,
        suppliers=(8, 15),
        late=0.02,
        trend=0.10,
        default=0.01,
    ),
    Tier(
        "good",
        kyc_verified=1.0,
        tax_id=1.0,
        contact=(0.75, 0.95),
        age_years=(4, 12),
        types=(0.3, 0.3, 0.4, 0, 0),
        savings=0.2,
        balance=(30_000, 150_000),
        transactions=(80, 180),
        amount=(15_000, 50_000),
        volatility=0.25,
        credit_note=0.10,
        recent=0.95,
        suppliers=(4, 10),
        late=0.08,
        trend=0.20,
        default=0.05,
    ),
    Tier(
        "fair",
        kyc_verified=0.6,
        tax_id=0.7,
        contact=(0.50, 0.80),
        age_years=(1.5, 6),
        types=(0.3, 0, 0, 0.4, 0.3),
        savings=0,
        balance=(5_000, 40_000),
        transactions=(30, 100),
        amount=(5_000, 25_000),
        volatility=0.45,
        credit_note=0.20,
        recent=0.70,
        suppliers=(2, 6),
        late=0.20,
        trend=0.35,
        default=0.20,
    ),
    Tier(
        "poor",
        kyc_verified=0.1,
        tax_id=0.3,
        contact=(0.20, 0.60),
        age_years=(0.3, 3),
        types=(0, 0, 0, 0.5, 0.5),
        savings=0,
        balance=(500, 8_000),
        transactions=(5, 40),
        amount=(1_000, 10_000),
        volatility=0.70,
        credit_note=0.40,
        recent=0.30,
        suppliers=(1, 3),
        late=0.45,
        trend=0.50,
        default=0.60,
    ),
)

#: Shares of the tiers, in their order.
MIXES: Final[dict[str, tuple[float, float, float, float]]] = {
    "balanced": (0.15, 0.35, 0.35, 0.15),
    "risky": (0.05, 0.20, 0.40, 0.35),
    "safe": (0.30, 0.45, 0.20, 0.05),
}

#: Kinds of edge: source type, target type, name. The network runs downstream only and has no cycle.
EDGE_KINDS: Final = (
    ("supplier", "manufacturer", "supplies_to"),
    ("manufacturer", "distributor", "manufactures_for"),
    ("distributor", "retailer", "distributes_for"),
    ("retailer", "customer", "sells_to"),
    ("supplier", "distributor", "supplies_to"),
    ("manufacturer", "retailer", "manufactures_for"),
)
RELATIONSHIP_TYPES: Final = ("supplies_to", "manufactures_for", "distributes_for", "sells_to")
