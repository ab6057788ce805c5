"""How well scores rank and how well probabilities hold: figures over NumPy arrays, label 1 = bad.

A `risk` is any number that rises with the danger of default (a probability, or minus a score). Every figure is exact
under ties.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int8]

#: Normal quantile of a two-sided 95 % interval.
Z95: Final = 1.959964
#: Points a ROC curve is thinned to.
CURVE_POINTS: Final = 101
#: Groups of equal size in a calibration table.
GROUPS: Final = 10


@dataclass(frozen=True)
class CalibrationBin:
    """Rows of similar predicted probability: how many were bad, with the 95 % Wilson interval of that share."""

    rows: int
    predicted: float
    observed: float
    low: float
    high: float


@dataclass(frozen=True)
class Metrics:
    """Figures of one ranking on one set of rows.

    Attributes:
        auc, auc_error: area under the ROC curve (0.5 = chance) and its DeLong standard error.
        gini: 2·AUC − 1.
        ks: largest distance of the two classes' distributions.
        brier: mean squared error of the probabilities.
        pr_auc: average precision; chance gives the share of bads.
        roc: (false positive rate, true positive rate) from (0, 0) to (1, 1), at most `CURVE_POINTS`.
    """

    rows: int
    bads: int
    auc: float
    auc_error: float
    gini: float
    ks: float
    brier: float
    pr_auc: float
    calibration: tuple[CalibrationBin, ...]
    roc: tuple[tuple[float, float], ...]


def measure(label: Labels, probability: Floats) -> Metrics:
    """Every figure of `Metrics` for probabilities of default; both arrays of shape (n,), both classes present."""
    value, error = auc_with_error(label, probability)
    false_rate, true_rate = roc_curve(label, probability)
    steps = np.unique(np.linspace(0, len(false_rate) - 1, CURVE_POINTS).round().astype(int))
    return Metrics(
        rows=len(label),
        bads=int(label.sum()),
        auc=value,
        auc_error=error,
        gini=2 * value - 1,
        ks=float(np.max(true_rate - false_rate)),
        brier=float(np.mean((probability - label) ** 2)),
        pr_auc=average_precision(label, probability),
        calibration=calibration(label, probability),
        roc=tuple(zip(false_rate[steps].tolist(), true_rate[steps].tolist(), strict=True)),
    )


def midranks(values: npt.NDArray[np.generic]) -> Floats:
    """Ranks from 1, equal values sharing the mean of theirs; shape (n,)."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place].astype(np.float64)


def auc(label: Labels, risk: npt.NDArray[np.generic]) -> float:
    """Probability that a bad has a higher risk than a good, ties counting half."""
    bad = label == 1
    bads = int(bad.sum())
    goods = len(label) - bads
    return float((midranks(risk)[bad].sum() - bads * (bads + 1) / 2) / (bads * goods))


def auc_with_error(label: Labels, risk: npt.NDArray[np.generic]) -> tuple[float, float]:
    """AUC and its standard error after DeLong, DeLong and Clarke-Pearson (1988)."""
    of_bads, of_goods = _placements(label, risk)
    return float(of_bads.mean()), math.sqrt(_variance(of_bads) + _variance(of_goods))


@dataclass(frozen=True)
class PairedAuc:
    """Two rankings of the same rows: AUC of each, their difference (second − first) and its standard error."""

    first: float
    second: float
    error: float

    @property
    def difference(self) -> float:
        return self.second - self.first

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the difference."""
        return self.difference - Z95 * self.error, self.difference + Z95 * self.error


def compare_auc(label: Labels, first: npt.NDArray[np.generic], second: npt.NDArray[np.generic]) -> PairedAuc:
    """Paired comparison of two risks on the same rows, with DeLong's standard error of the difference.

    The placements come from mid-ranks (Sun and Xu 2014), so that it costs a sort and not goods × bads.
    """
    bads_1, goods_1 = _placements(label, first)
    bads_2, goods_2 = _placements(label, second)
    variance = _variance(bads_2 - bads_1) + _variance(goods_2 - goods_1)
    return PairedAuc(float(bads_1.mean()), float(bads_2.mean()), math.sqrt(variance))


def _placements(label: Labels, risk: npt.NDArray[np.generic]) -> tuple[Floats, Floats]:
    """Share of goods below each bad, and of bads above each good, ties counting half."""
    bad = label == 1
    ranks, bads, goods = midranks(risk), int(bad.sum()), int((~bad).sum())
    of_bads = (ranks[bad] - midranks(risk[bad])) / goods
    of_goods = 1 - (ranks[~bad] - midranks(risk[~bad])) / bads
    return of_bads, of_goods


def _variance(placements: Floats) -> float:
    """Variance of a mean of placements; one alone says nothing of its spread and counts as one of a coin's."""
    n = len(placements)
    return float(placements.var(ddof=1)) / n if n > 1 else 0.25


def rank_correlation(first: npt.NDArray[np.generic], second: npt.NDArray[np.generic]) -> float:
    """Spearman's rank correlation; 0 where one of them is constant."""
    a, b = midranks(first), midranks(second)
    spread = float(a.std() * b.std())
    return float(np.mean((a - a.mean()) * (b - b.mean()))) / spread if spread > 0 else 0.0


def roc_curve(label: Labels, risk: npt.NDArray[np.generic]) -> tuple[Floats, Floats]:
    """False and true positive rates at every distinct risk, highest first, from 0 to 1."""
    values, place = np.unique(risk, return_inverse=True)
    bads = np.bincount(place, weights=label, minlength=len(values))[::-1]
    goods = np.bincount(place, weights=1 - label, minlength=len(values))[::-1]
    start = np.zeros(1)
    return (
        np.concatenate([start, np.cumsum(goods) / goods.sum()]),
        np.concatenate([start, np.cumsum(bads) / bads.sum()]),
    )


def average_precision(label: Labels, risk: npt.NDArray[np.generic]) -> float:
    """Area under the precision-recall curve as the sum of precision × gain in recall."""
    values, place = np.unique(risk, return_inverse=True)
    found = np.cumsum(np.bincount(place, weights=label, minlength=len(values))[::-1])
    taken = np.cumsum(np.bincount(place, minlength=len(values))[::-1])
    return float(np.sum(np.diff(found, prepend=0) * found / taken) / found[-1])


def calibration(label: Labels, probability: Floats, groups: int = GROUPS) -> tuple[CalibrationBin, ...]:
    """Observed share of bads in groups of about equal size by predicted probability, lowest first.

    Equal probabilities stay together, so that there may be fewer groups.
    """
    edges = np.unique(np.quantile(probability, np.linspace(0, 1, groups + 1)[1:-1]))
    group = np.searchsorted(edges, probability, side="right")
    found = []
    for number in np.unique(group):
        rows = group == number
        n, bads = int(rows.sum()), int(label[rows].sum())
        low, high = wilson(bads, n)
        found.append(CalibrationBin(n, float(probability[rows].mean()), bads / n, low, high))
    return tuple(found)


def wilson(count: int, n: int) -> tuple[float, float]:
    """95 % interval of a share after Wilson (1927), which stays within 0 and 1 and works for 0 of n."""
    share, z2 = count / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def psi(expected: npt.NDArray[np.integer], actual: npt.NDArray[np.integer]) -> float:
    """Population stability index of two count vectors over the same bins.

    Half an observation is added to every bin, so that an empty one is a large shift and not an infinite one.
    """
    p = (expected + 0.5) / (expected.sum() + 0.5 * len(expected))
    q = (actual + 0.5) / (actual.sum() + 0.5 * len(actual))
    return float(np.sum((q - p) * np.log(q / p)))
