"""What a refined card must show before a person is asked to activate it.

Every gate is a figure, its threshold and a sentence. All are taken on the holdout, which neither bins nor points have
seen, with scores as issued: decision rules and clamp included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from quayside.kycc.scorecard import BAND_NAMES, Characteristic, Scorecard, ScoredBatch
from quayside.kycc.training.directions import direction_of
from quayside.kycc.training.metrics import Labels, compare_auc, rank_correlation

if TYPE_CHECKING:
    from collections.abc import Mapping

#: One-sided 95 % normal quantile.
Z_ONE_SIDED: Final = 1.644854
MIN_RANK_CORRELATION: Final = 0.8
MAX_BAND_MOVE: Final = 0.10


@dataclass(frozen=True)
class Gate:
    """One requirement: ``passed`` says whether `value` keeps to `threshold`, the sentence what that means."""

    name: str
    value: float
    threshold: float
    passed: bool
    sentence: str


def gates(
    base: ScoredBatch, refined: ScoredBatch, label: Labels, directions: Mapping[str, int]
) -> tuple[Gate, ...]:
    """The gates of a refined card.

    Args:
        base, refined: scores of the same rows by either card; n rows.
        label: 1 = bad, both classes present; shape (n,).
        directions: feature → 1 where a larger value is known to be safer, −1 where riskier.
    """
    before, after = base.total_score.astype(np.float64), refined.total_score.astype(np.float64)
    return (
        *_ranking(before, after, label),
        _correlation(before, after),
        _band_move(base, refined),
        _monotone(base.card, refined.card, directions),
    )


def _ranking(before: np.ndarray, after: np.ndarray, label: Labels) -> tuple[Gate, Gate]:
    pair = compare_auc(label, -before, -after)
    worst = min(pair.first, pair.second)
    agrees = Gate(
        "direction",
        worst,
        0.5,
        worst > 0.5,
        f"On the holdout the card in use ranks bad below good with AUC {pair.first:.3f}, the refined one with "
        f"{pair.second:.3f}; each must be above 0.5, or labels and scores point in opposite directions.",
    )
    noise = -Z_ONE_SIDED * pair.error
    not_worse = Gate(
        "auc",
        pair.difference,
        noise,
        pair.difference >= noise,
        f"AUC on the holdout ({len(label)} rows, {int(label.sum())} bad) goes from {pair.first:.3f} to {pair.second:.3f}, "
        f"{pair.difference:+.3f}; it may fall by {-noise:.3f}, 1.64 of DeLong's standard errors of the paired difference.",
    )
    return agrees, not_worse


def _correlation(before: np.ndarray, after: np.ndarray) -> Gate:
    value = rank_correlation(before, after)
    return Gate(
        "rank_correlation",
        value,
        MIN_RANK_CORRELATION,
        value > MIN_RANK_CORRELATION,
        f"Spearman's rank correlation with the card in use is {value:.3f}; it must be above {MIN_RANK_CORRELATION}.",
    )


def _band_move(base: ScoredBatch, refined: ScoredBatch) -> Gate:
    shares = [np.bincount(scored.band, minlength=len(BAND_NAMES)) / len(scored) for scored in (base, refined)]
    moves = np.abs(shares[1] - shares[0])
    worst = int(np.argmax(moves))
    return Gate(
        "band_share",
        float(moves[worst]),
        MAX_BAND_MOVE,
        bool(moves[worst] <= MAX_BAND_MOVE + 1e-12),
        f"The share of band {BAND_NAMES[worst]} moves most, from {shares[0][worst]:.1%} to {shares[1][worst]:.1%}; "
        f"no band's share may move by more than {MAX_BAND_MOVE:.0%} of all.",
    )


def _monotone(base: Scorecard, refined: Scorecard, directions: Mapping[str, int]) -> Gate:
    free = {item.feature for item in base.characteristics if _bends(item)}
    broken = [
        item.feature
        for item in refined.characteristics
        if item.kind == "numeric"
        and item.feature not in free
        and not _keeps(item, directions.get(item.feature, 0))
    ]
    return Gate(
        "monotone",
        len(broken),
        0,
        not broken,
        f"Points of {', '.join(broken)} do not follow the expected direction; a higher risk must never earn more points."
        if broken
        else "Points of every characteristic follow its direction: a higher risk never earns more.",
    )


def _bends(item: Characteristic) -> bool:
    """Whether points both rise and fall: an expert's choice, which the gate respects."""
    return item.kind == "numeric" and len(set(item.points)) > 1 and direction_of(item) == 0


def _keeps(item: Characteristic, expected: int) -> bool:
    if len(set(item.points)) == 1:
        return True
    found = direction_of(item)
    return found != 0 and expected in (0, found)
