"""The population stability index, and how much of it sampling noise alone explains.

With shares p of a reference of n rows and q of a current sample of m rows, ``PSI = Σ (q − p)·ln(q / p)``. When both are
drawn from one population, PSI is distributed about as ``(1/n + 1/m)·χ²(bins − 1)`` (Yurdakul and Naranjo, 2020). The
cut-offs 0.10 and 0.25 know nothing of n and m, so beside them stands the quantile of that distribution: a small batch
does not turn red by chance, and a large one is not excused by it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from quayside.kycc.training.metrics import psi

if TYPE_CHECKING:
    import numpy.typing as npt

#: Bins a numeric column is cut into, at quantiles of the reference.
BINS: Final = 10
#: A bin holds at least this share, as the mean of both samples …
MIN_SHARE: Final = 0.05
#: … and at least this many rows expected in the smaller sample, where the χ² approximation holds.
MIN_EXPECTED: Final = 5.0
#: Share of a column's spread (5th to 95th percentile) within which two values count as equal.
TOLERANCE: Final = 0.01
#: The same for features of the network, whose common values (the least PageRank, say) depend on the network as a whole.
CLUSTERED_TOLERANCE: Final = 0.05
#: Parties of one network are no independent draws: their features, and through them the score, vary more between batches
#: of one population than independent parties' would. So many parties count as one. Measured on generated batches of 200 to
#: 2,000 parties: the index of network features reached 7 times, that of the score twice its bound for independent rows.
NETWORK_DESIGN_EFFECT: Final = 8.0
SCORE_DESIGN_EFFECT: Final = 2.0
#: Practitioners' cut-offs.
WATCH: Final = 0.10
SHIFTED: Final = 0.25
#: How sure a check is that a difference is no accident, over all comparisons it makes at once.
CONFIDENCE: Final = 0.99

Status = Literal["stable", "within noise", "watch", "shifted", "too few"]


@dataclass(frozen=True)
class StabilityIndex:
    """One PSI and what it was computed from.

    Attributes:
        psi: the index, 0 where the two samples have equal shares.
        noise: the value sampling alone stays below with the asked confidence; infinite where nothing can be told.
        bins: bins that were compared, after sparse neighbours were joined.
        reference_rows, current_rows: sizes of the two samples.
    """

    psi: float
    noise: float
    bins: int
    reference_rows: int
    current_rows: int

    @property
    def status(self) -> Status:
        """``shifted`` only where the index is past the cut-off and past what sampling explains."""
        if min(self.reference_rows, self.current_rows) < 2 * MIN_EXPECTED:
            return "too few"
        if self.psi < WATCH:
            return "stable"
        if self.psi <= self.noise:
            return "within noise"
        return "watch" if self.psi < SHIFTED else "shifted"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for metadata and reports."""
        figures = asdict(self) | {"psi": round(self.psi, 4), "noise": _finite(self.noise)}
        return {**figures, "status": self.status}


def stability_index(
    reference: npt.ArrayLike, current: npt.ArrayLike, *, comparisons: int = 1, design_effect: float = 1.0
) -> StabilityIndex:
    """PSI of two samples counted into the same bins.

    Args:
        reference, current: rows per bin, in the bins' order; sparse neighbours are joined first.
        comparisons: how many indices are looked at together; the noise bound is Bonferroni's for that many.
        design_effect: how many rows count as one independent draw.
    """
    counts = np.array([reference, current], np.float64)
    n, m = (int(total) for total in counts.sum(axis=1))
    if not n or not m:
        return StabilityIndex(0.0, float("inf"), 0, n, m)
    counts = _joined(counts)
    bins = counts.shape[1]
    bound = design_effect * noise(n, m, bins, comparisons)
    return StabilityIndex(psi(*counts), bound, bins, n, m)


def noise(reference_rows: int, current_rows: int, bins: int, comparisons: int = 1) -> float:
    """The PSI that samples of these sizes from one population stay below with `CONFIDENCE`."""
    from scipy.special import chdtri

    if bins < 2:
        return 0.0
    quantile = float(chdtri(bins - 1, (1 - CONFIDENCE) / comparisons))
    return quantile * (1 / reference_rows + 1 / current_rows)


def z(comparisons: int = 1) -> float:
    """Standard normal bound on |z| with `CONFIDENCE` over that many comparisons."""
    return NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / comparisons / 2)


def share_noise(
    reference: tuple[int, int], current: tuple[int, int], comparisons: int = 1, design_effect: float = 1.0
) -> float:
    """The difference of two shares that sampling explains.

    Args:
        reference, current: (rows that have the property, all rows), neither sample empty.
    """
    (a, n), (b, m) = reference, current
    pooled = (a + b + 1) / (n + m + 2)  # never 0 or 1, so that one odd row among none is not certainty
    return z(comparisons) * float(np.sqrt(design_effect * pooled * (1 - pooled) * (1 / n + 1 / m)))


def numeric_counts(
    reference: npt.NDArray[np.float64], current: npt.NDArray[np.float64], *, tolerance: float = TOLERANCE
) -> npt.NDArray[np.int64]:
    """Rows of both samples per bin, cut at the reference's quantiles; int64 (2, bins).

    Missing values (NaN) are the first bin. A cut, give or take `tolerance` of the reference's spread, is a bin of its own
    beside the open intervals between cuts: a value many rows share (0, a flag's 1, the least PageRank) is never mixed with
    its neighbours, and may move a hair; where few share it, it is joined again.
    """
    cuts, width = _cuts(reference[~np.isnan(reference)], tolerance)
    result = np.zeros((2, 2 * len(cuts) + 2), np.int64)
    for row, values in enumerate((reference, current)):
        present = values[~np.isnan(values)]
        above = np.searchsorted(cuts - width, present, "right")
        beyond = np.searchsorted(cuts + width, present, "left")
        result[row] = np.bincount(1 + above + beyond, minlength=result.shape[1])
        result[row, 0] = len(values) - len(present)
    return result


def _cuts(known: npt.NDArray[np.float64], tolerance: float) -> tuple[npt.NDArray[np.float64], float]:
    """Quantiles of a column, and how far from one a value still counts as equal; they are further apart than twice that."""
    if not len(known):
        return np.array([0.0]), 0.0
    low, high = np.quantile(known, (0.05, 0.95))
    width = tolerance * float(high - low)
    cuts: list[float] = []
    for cut in np.quantile(known, np.arange(1, BINS) / BINS, method="inverted_cdf").tolist():
        if not cuts or cut > cuts[-1] + 2 * width:
            cuts.append(cut)
    return np.array(cuts), width


def _joined(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Counts with each sparse bin joined to its right neighbour, the last one to its left."""
    sizes = counts.sum(axis=1)
    least = max(MIN_SHARE, min(MIN_EXPECTED / float(sizes.min()), 0.5))
    mean_share = (counts / sizes[:, None]).mean(axis=0)
    ends: list[int] = []
    held = 0.0
    for position, share in enumerate(mean_share):
        held += share
        if held >= least - 1e-12:
            ends.append(position + 1)
            held = 0.0
    ends[-1] = counts.shape[1]
    return np.add.reduceat(counts, [0, *ends[:-1]], axis=1)


def _finite(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None
