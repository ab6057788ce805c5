"""Which way each feature points: whether a larger value is safer or riskier, before any data is seen.

The scorecard in use says it for its own characteristics; the table below for the other features of the registry where
sense says it. The rest is learned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from quayside.kycc.scorecard import Characteristic, Scorecard

SAFER: Final = 1
RISKIER: Final = -1

#: Features no shipped card has. Not listed, so learned: pagerank, payment_type_diversity.
EXPECTED: Final[dict[str, int]] = {
    "total_transaction_volume_6m": SAFER,
    "credit_note_ratio_6m": RISKIER,
    "volume_trend_6m": SAFER,
    "customer_concentration_6m": RISKIER,
    "supplier_concentration_6m": RISKIER,
    "days_past_due_mean_6m": RISKIER,
    "days_past_due_max_6m": RISKIER,
    "late_payment_ratio_6m": RISKIER,
    "supplier_count": SAFER,
    "customer_count": SAFER,
    "weak_exposure_1hop": RISKIER,
    "weak_exposure_2hop": RISKIER,
    "in_cycle": RISKIER,
}


def expected_directions(card: Scorecard | None) -> dict[str, int]:
    """Feature → 1 (larger is safer) or −1 (larger is riskier), for every feature of which either is known."""
    stated = {} if card is None else {item.feature: direction_of(item) for item in card.characteristics}
    return EXPECTED | {feature: direction for feature, direction in stated.items() if direction}


def direction_of(item: Characteristic) -> int:
    """1 where points rise along a numeric characteristic, −1 where they fall, 0 where they do both or neither."""
    if item.kind == "categorical" or len(set(item.points)) == 1:
        return 0
    steps = {(b > a) - (b < a) for a, b in zip(item.points, item.points[1:], strict=False)} - {0}
    return steps.pop() if len(steps) == 1 else 0
