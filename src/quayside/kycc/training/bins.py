"""Bins of one feature with their weights of evidence, fitted on training rows alone.

``WoE = ln(odds of good in the bin / odds of good overall)``: above zero is safer than average. Numeric bins are
monotone: their WoE only rises or only falls along the feature, in the expected direction where there is one. A missing
value has its own bin, as has a category that no bin names. Few rows say little: every share of bads is drawn towards the
overall one, and a bin nobody fell into weighs nothing.

Why not optbinning: on the same folds its cards rank no better (``make bench-credit``), while fitting takes ten times as
long, its import costs two seconds, and it brings a second stack of optimisers (OR-Tools, CVXPY).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from quayside.kycc.scorecard.card import Characteristic, Kind
from quayside.kycc.scorecard.columns import category_codes, numeric_column
from quayside.kycc.training.metrics import Labels
from quayside.kycc.training.monotone import grouped, shares

#: Pre-bins of about equal size that the grouping starts from; a feature with fewer distinct values keeps them all.
PREBINS: Final = 40
#: What a boundary must add to the log likelihood. Low, because monotone order and shrinkage already hold noise down: half the
#: 95 % quantile of χ² (1.92) cost 0.014 AUC on German Credit and 0.003 on credit_data.
PRICE: Final = 0.05
#: Rows at the overall share added to every bin.
SHRINKAGE: Final = 20.0

Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Bins:
    """Bins of one feature. Codes are those of `Characteristic`: 0 missing, 1 … k the bins, k + 1 any other category.

    Attributes:
        cuts: k − 1 rising edges of a numeric feature; bins are [a, b).
        categories: the values of each bin of a categorical feature, safest bin first.
        direction: 1 where a larger value is safer, −1 where it is riskier, 0 for a categorical feature or a single bin.
        rows, bads, woe: of each code, on the training rows.
    """

    feature: str
    kind: Kind
    cuts: tuple[float, ...]
    categories: tuple[tuple[str, ...], ...]
    direction: int
    rows: tuple[int, ...]
    bads: tuple[int, ...]
    woe: tuple[float, ...]

    def encode(self, column: Any) -> Codes:
        """Bin code of every row."""
        if self.kind == "categorical":
            return category_codes(
                Characteristic(
                    self.feature, self.feature, "categorical", (0,) * len(self.categories), 0, "-", "-",
                    categories=self.categories,
                ),
                column,
            )  # fmt: skip
        values = numeric_column(self.feature, column).astype(np.float64, copy=False)
        codes = np.searchsorted(np.array(self.cuts), values, side="right") + 1
        return np.where(np.isnan(values), 0, codes).astype(np.uint8)


def fit_bins(
    feature: str, column: Any, label: Labels, *, direction: int = 0, min_bin_share: float = 0.02
) -> Bins:
    """Bins of one feature.

    Args:
        column: numeric, or text for a categorical feature; n rows.
        direction: 1 or −1 where larger is known to be safer or riskier, 0 to learn it.
        min_bin_share: share of the rows a bin holds at least.
    """
    least = min_bin_share * len(label)
    if is_text(column):
        bins = Bins(feature, "categorical", (), _categories(column, label, least), 0, (), (), ())
        size = len(bins.categories) + 2
    else:
        cuts, direction = _cuts(numeric_column(feature, column), label, direction, least)
        bins = Bins(feature, "numeric", cuts, (), direction, (), (), ())
        size = len(cuts) + 2
    codes = bins.encode(column)
    rows = np.bincount(codes, minlength=size).astype(np.float64)
    bads = np.bincount(codes, weights=label, minlength=size).astype(np.float64)
    overall = float(label.mean())
    share = shares(rows, bads, overall, SHRINKAGE)
    woe = math.log(overall / (1 - overall)) - np.log(share / (1 - share))
    return replace(
        bins,
        rows=tuple(rows.astype(int).tolist()),
        bads=tuple(bads.astype(int).tolist()),
        woe=tuple(woe.tolist()),
    )


def is_text(column: Any) -> bool:
    """Whether an Arrow column holds categories rather than numbers."""
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _cuts(
    values: npt.NDArray[Any], label: Labels, direction: int, least: float
) -> tuple[tuple[float, ...], int]:
    """Cuts of the best monotone bins, and whether larger is safer (1), riskier (−1) or says nothing (0)."""
    known = ~np.isnan(values.astype(np.float64, copy=False))
    limit = np.finfo(np.float64).max
    numbers = np.clip(values[known].astype(np.float64, copy=False), -limit, limit)
    edges = _edges(numbers)
    if len(edges) == 0:
        return (), 0
    code = np.searchsorted(edges, numbers, side="right")
    rows = np.bincount(code).astype(np.float64)
    bads = np.bincount(code, weights=label[known]).astype(np.float64)
    overall = float(label.mean())
    found, value, sign = [], 0.0, 0
    for tried in (direction,) if direction else (1, -1):
        boundaries, gain = grouped(
            rows, bads, overall, rising=tried < 0, price=PRICE, least=least, shrinkage=SHRINKAGE
        )
        if boundaries and gain > value:
            found, value, sign = boundaries, gain, tried
    return tuple(edges[i - 1].item() for i in found), sign


def _edges(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rising edges that part the numbers into pre-bins of about equal size: readable numbers near the quantiles, or between
    each two values where there are few."""
    distinct, counts = np.unique(numbers, return_counts=True)
    if len(distinct) <= PREBINS:
        high = np.arange(1, len(distinct))
        low = high - 1
    else:
        below, tenth = np.cumsum(counts), 0.1 * len(numbers) / PREBINS
        quantile = np.arange(1, PREBINS) / PREBINS * len(numbers)
        # A value that fills a pre-bin of its own is parted from its neighbours on both sides.
        heavy = np.flatnonzero(counts >= len(numbers) / PREBINS)
        exact = np.concatenate([heavy, heavy + 1])
        high = np.concatenate([np.searchsorted(below, quantile + 2 * tenth), exact])
        low = np.minimum(np.concatenate([np.searchsorted(below, quantile - 2 * tenth), exact - 1]), high - 1)
        inside = (high > 0) & (high < len(distinct))
        low, high = low[inside], high[inside]
    pairs = zip(low.tolist(), high.tolist(), strict=True)
    edges = np.sort([_between(distinct[i].item(), distinct[j].item()) for i, j in pairs])
    # two edges between the same two values would leave an empty pre-bin
    return edges[np.unique(np.searchsorted(distinct, edges), return_index=True)[1]]


def _between(low: float, high: float) -> float:
    """The number with fewest digits in (low, high], whole between whole numbers: a cut people can read that parts the
    same rows."""
    whole = low == round(low) and high == round(high)
    for digits in range(1, 17):
        for candidate in (float(f"{low + (high - low) / 2:.{digits}g}"), float(f"{high:.{digits}g}")):
            if low < candidate <= high and (not whole or candidate == round(candidate)):
                return candidate
    return float(high)


def _categories(column: Any, label: Labels, least: float) -> tuple[tuple[str, ...], ...]:
    """Groups of categories, safest first. Those with fewer than `SHRINKAGE` rows stay unnamed and share one bin."""
    import pyarrow as pa

    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    codes = encoded.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)
    rows = np.bincount(codes, minlength=len(names) + 1)[: len(names)].astype(np.float64)
    bads = np.bincount(codes, weights=label, minlength=len(names) + 1)[: len(names)].astype(np.float64)
    named = np.array(
        [i for i, name in enumerate(names) if name is not None and rows[i] >= SHRINKAGE], np.intp
    )
    if len(named) == 0:
        return ()
    overall = float(label.mean())
    share = shares(rows[named], bads[named], overall, SHRINKAGE)
    order = named[np.lexsort((named, share))]
    boundaries, _ = grouped(
        rows[order], bads[order], overall, rising=True, price=PRICE, least=least, shrinkage=SHRINKAGE
    )
    return tuple(
        tuple(sorted(names[i] for i in group)) for group in np.split(order, boundaries) if len(group)
    )
