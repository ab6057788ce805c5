"""Label and sentences of a characteristic: those of the card in use where it has it, else the ones below.

A sentence that holds of a bin holds of every part of it. So sentences and names for single bins are kept for bins that
lie within one of the bins they were written for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from quayside.kycc.scorecard import Characteristic
from quayside.kycc.scorecard.texts import interval_label

if TYPE_CHECKING:
    from quayside.kycc.scorecard.card import Closed

#: Feature no shipped card has → label, sentence where points are lost, sentence for a missing value.
NEW: Final[dict[str, tuple[str, str, str]]] = {
    "total_transaction_volume_6m": (
        "Volume traded in 6 months",
        "Less than {upper} was traded in six months.",
        "The volume traded in six months is unknown.",
    ),
    "payment_type_diversity": (
        "Kinds of transaction",
        "The mix of invoices, payments and credit notes carries more risk than others.",
        "The kinds of transaction are unknown.",
    ),
    "credit_note_ratio_6m": (
        "Share of credit notes",
        "{lower} or more of the transactions (1 = all) are credit notes.",
        "There are no transactions to tell the share of credit notes from.",
    ),
    "volume_trend_6m": (
        "Trend of volume, -1 to 1",
        "Trade is shrinking, or grows less than it could (trend below {upper} on a scale from -1 to 1).",
        "There is no volume to tell a trend from.",
    ),
    "customer_concentration_6m": (
        "Concentration of customers, 0-1",
        "Sales depend on few customers (concentration {lower} or more, 1 = a single one).",
        "There are no invoices to tell the concentration of customers from.",
    ),
    "supplier_concentration_6m": (
        "Concentration of suppliers, 0-1",
        "Purchases depend on few suppliers (concentration {lower} or more, 1 = a single one).",
        "There are no payments to tell the concentration of suppliers from.",
    ),
    "days_past_due_mean_6m": (
        "Mean days past due",
        "Invoices were paid {lower} or more days late on average.",
        "No invoice fell due in six months.",
    ),
    "days_past_due_max_6m": (
        "Longest days past due",
        "An invoice was {lower} or more days late.",
        "No invoice fell due in six months to be late.",
    ),
    "late_payment_ratio_6m": (
        "Share of invoices paid late",
        "{lower} or more of the invoices (1 = all) were paid late.",
        "No invoice fell due in six months to tell the share of late ones from.",
    ),
    "supplier_count": (
        "Suppliers",
        "Fewer than {upper} suppliers.",
        "The number of suppliers is unknown.",
    ),
    "customer_count": (
        "Customers",
        "Fewer than {upper} customers.",
        "The number of customers is unknown.",
    ),
    "weak_exposure_1hop": (
        "Share of weak partners",
        "{lower} or more of the direct trading partners (1 = all) are neither verified nor have a tax id.",
        "It is unknown how weak the direct trading partners are.",
    ),
    "weak_exposure_2hop": (
        "Share of weak partners of partners",
        "{lower} or more of the partners' partners (1 = all) are neither verified nor have a tax id.",
        "It is unknown how weak the partners' partners are.",
    ),
    "pagerank": (
        "Weight in the network (1 = average)",
        "The party's place in the trading network carries more risk than others.",
        "The party's place in the trading network is unknown.",
    ),
    "in_cycle": (
        "Part of a circle of trade",
        "The party is part of a circle of trade.",
        "It is unknown whether the party is part of a circle of trade.",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Wording:
    """Texts of one feature; `base` is its characteristic in the card in use, if it has one."""

    feature: str
    base: Characteristic | None = None

    @property
    def texts(self) -> tuple[str, str, str]:
        """Label, sentence for lost points, sentence for a missing value."""
        if self.base is not None:
            return self.base.label, self.base.reason, self.base.missing_reason
        if self.feature in NEW:
            return NEW[self.feature]
        name = self.feature.replace("_", " ").replace("{", "(").replace("}", ")")
        return name, f"The value of {name} carries more risk than others.", f"The value of {name} is unknown."

    def numeric(
        self, cuts: tuple[float, ...], closed: Closed, points: tuple[int, ...], missing: int
    ) -> Characteristic:
        """A numeric characteristic with these bins."""
        label, reason, missing_reason = self.texts
        best, edges = max(*points, missing), (-math.inf, *cuts, math.inf)
        labels, reasons = [], []
        for index, (lower, upper) in enumerate(pairwise(edges)):
            own_label, own_reason = self._of_bin(lower, upper)
            name = interval_label(lower, upper, closed=closed)
            labels.append(own_label or name)
            unfillable = ("{lower}" in reason and lower == -math.inf) or (
                "{upper}" in reason and upper == math.inf
            )
            if own_reason is not None:
                reasons.append((index, own_reason))
            elif unfillable and points[index] < best:
                reasons.append((index, f"{_braceless(label)}: {name}."))
        named = self.base is not None and self.base.bin_labels
        return Characteristic(
            self.feature, label, "numeric", points, missing, reason, missing_reason,
            cuts=cuts, closed=closed, bin_labels=tuple(labels) if named else (), bin_reasons=tuple(reasons),
        )  # fmt: skip

    def categorical(
        self, categories: tuple[tuple[str, ...], ...], points: tuple[int, ...], missing: int, other: int
    ) -> Characteristic:
        """A categorical characteristic with these bins."""
        label, reason, missing_reason = self.texts
        return Characteristic(
            self.feature, label, "categorical", points, missing, reason, missing_reason,
            categories=categories, other=other,
        )  # fmt: skip

    def _of_bin(self, lower: float, upper: float) -> tuple[str | None, str | None]:
        """Name and sentence the base has for this very bin, and sentence for the bin it lies in."""
        if self.base is None or self.base.kind != "numeric":
            return None, None
        for index in range(len(self.base.points)):
            low, high = self.base.edges(index)
            if low <= lower and upper <= high:
                label = (
                    self.base.bin_labels[index]
                    if self.base.bin_labels and (low, high) == (lower, upper)
                    else None
                )
                return label, dict(self.base.bin_reasons).get(index)
        return None, None


def _braceless(text: str) -> str:
    return text.replace("{", "(").replace("}", ")")
