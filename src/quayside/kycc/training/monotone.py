"""The best monotone grouping of ordered pre-bins, by dynamic programming.

"Best" is the largest log likelihood of the labels, given a constant share of bads in every group, less a price per
group. The price lets the data decide how many groups there are: a boundary has to earn its place, and a feature that
says nothing ends as one group. The optimum is exact and needs no solver.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from quayside.kycc.training.metrics import Floats

NO_PATH: Final = -np.inf


def grouped(
    rows: Floats, bads: Floats, overall: float, *, rising: bool, price: float, least: float, shrinkage: float
) -> tuple[list[int], float]:
    """Boundaries of the best groups of k pre-bins, and their objective above that of one single group.

    Args:
        rows, bads: of each pre-bin, in the order of the feature; shape (k,), every `rows` > 0.
        overall: share of bads every group is drawn towards; that of all rows, those with a missing value among them, so that
            the groups are monotone by the very shares their weights of evidence are made from.
        rising: whether the share of bads rises along the pre-bins (else it falls).
        price: what each group after the first must add to the log likelihood.
        least: rows a group holds at least.
        shrinkage: rows at the overall share that are added to every group, see `shares`.

    Returns:
        Positions 0 < b < k at which a new group starts, rising.
    """
    k = len(rows)
    n = np.concatenate([[0.0], np.cumsum(rows)])
    b = np.concatenate([[0.0], np.cumsum(bads)])
    # [i, j]: the group of pre-bins i … j − 1
    size, bad = n[None, :] - n[:, None], b[None, :] - b[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):  # below the diagonal there is no group
        share = shares(size, bad, overall, shrinkage)
        gain = np.where(size > 0, bad * np.log(share) + (size - bad) * np.log1p(-share), NO_PATH)
    allowed = size >= min(least, n[-1])
    order = share if rising else -share
    # best[i, j]: of all groupings of 0 … j − 1 whose last group is i … j − 1
    best = np.full((k + 1, k + 1), NO_PATH)
    before = np.zeros((k + 1, k + 1), np.intp)
    best[0, 1:] = np.where(allowed[0, 1:], gain[0, 1:], NO_PATH)
    for i in range(1, k):
        heads = np.flatnonzero(best[:i, i] > NO_PATH)
        if len(heads) == 0:
            continue
        # Groupings that end at i, by the share of their last group: what may stand before a group is a prefix of them.
        heads = heads[np.argsort(order[heads, i], kind="stable")]
        running = np.maximum.accumulate(best[heads, i])
        leader = heads[np.maximum.accumulate(np.where(best[heads, i] == running, np.arange(len(heads)), 0))]
        prefix = np.searchsorted(order[heads, i], order[i, i + 1 :], side="left") - 1
        possible = allowed[i, i + 1 :] & (prefix >= 0)
        best[i, i + 1 :] = np.where(possible, running[prefix] + gain[i, i + 1 :] - price, NO_PATH)
        before[i, i + 1 :] = leader[prefix]
    last = int(np.argmax(best[:k, k]))
    value = float(best[last, k] - gain[0, k])
    boundaries, end = [], k
    while last > 0:
        boundaries.append(last)
        last, end = int(before[last, end]), last
    return boundaries[::-1], value


def shares(rows: Floats, bads: Floats, overall: float, shrinkage: float) -> Floats:
    """Share of bads, drawn towards the overall share by `shrinkage` rows: few rows say little."""
    return (bads + shrinkage * overall) / (rows + shrinkage)
