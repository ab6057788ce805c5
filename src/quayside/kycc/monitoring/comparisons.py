"""Comparisons of a batch with a reference: each returns `Findings`, red only where a limit is passed and chance is ruled out.

Every comparison states both batches and their sizes. A comparison that cannot be made (no reference, too few rows)
passes and says so in its figures, because it has found nothing wrong.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from quayside.kycc.checks import Findings
from quayside.kycc.monitoring.index import (
    CLUSTERED_TOLERANCE,
    NETWORK_DESIGN_EFFECT,
    SCORE_DESIGN_EFFECT,
    SHIFTED,
    TOLERANCE,
    StabilityIndex,
    numeric_counts,
    share_noise,
    stability_index,
    z,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from quayside.kycc.monitoring.snapshot import Snapshot
    from quayside.kycc.scorecard import Scorecard

#: Points by which the mean of one characteristic may move: a tenth of the distance between the bands excellent and good.
MAX_POINTS_SHIFT: Final = 10.0
#: Percentage points by which a band's share, or a feature's coverage, may move.
MAX_SHARE_SHIFT: Final = 0.10


def score_stability(reference: Snapshot, current: Snapshot) -> Findings:
    """PSI of the total score: has the population moved along the scale?"""
    index = _psi(reference.scores, current.scores, 1, SCORE_DESIGN_EFFECT)
    found = _findings(reference, current)
    found.figures |= {
        **index.as_dict(),
        "limit": SHIFTED,
        "reference_mean": _mean(reference.scores),
        "current_mean": _mean(current.scores),
    }
    found.expect(
        index.status != "shifted",
        f"The score distribution of batch {current.batch_id} has shifted against {reference.batch_id}: PSI "
        f"{index.psi:.3f}, limit {SHIFTED}, sampling explains {index.noise:.3f} at {index.reference_rows:,} and "
        f"{index.current_rows:,} parties; the mean moved from {_mean(reference.scores)} to {_mean(current.scores)}.",
    )
    return found


def feature_stability(reference: Snapshot, current: Snapshot) -> Findings:
    """PSI of every feature, missing values as a bin of their own."""
    shared = [name for name in current.features if name in reference.features]
    found = _findings(reference, current)
    rows: list[dict[str, Any]] = []
    for name in shared:
        index = _psi(reference.features[name], current.features[name], len(shared), _design_effect(name))
        rows.append({"feature": name, **index.as_dict()})
        found.expect(
            index.status != "shifted",
            f"{name} has shifted against batch {reference.batch_id}: PSI {index.psi:.3f}, limit {SHIFTED}, sampling "
            f"explains {index.noise:.3f}.",
        )
    found.figures |= {"features": rows, "limit": SHIFTED}
    return found


@dataclass(frozen=True)
class CharacteristicShift:
    """One characteristic between two batches: PSI over the card's own bins, and what it did to the points.

    Attributes:
        reference_points, current_points: mean points earned.
        points_noise: the difference of the two means that sampling explains.
    """

    feature: str
    label: str
    index: StabilityIndex
    reference_points: float
    current_points: float
    points_noise: float

    @property
    def points_shift(self) -> float:
        """Mean points now less mean points then; these add up to the shift of the mean raw score."""
        return self.current_points - self.reference_points

    def as_dict(self) -> dict[str, Any]:
        """Plain data for metadata and reports."""
        points = {
            key: round(value, 2) for key, value in asdict(self).items() if key.endswith(("points", "noise"))
        }
        return {
            "feature": self.feature,
            **points,
            "points_shift": round(self.points_shift, 2),
            **self.index.as_dict(),
        }


def characteristic_shifts(
    card: Scorecard, reference: Snapshot, current: Snapshot
) -> list[CharacteristicShift]:
    """How each characteristic of the card moved, in card order."""
    from quayside.kycc.scorecard import codes

    if not reference.rows or not current.rows:
        return []
    then, now = (codes(card, snapshot.features) for snapshot in (reference, current))
    shifts = []
    for position, item in enumerate(card.characteristics):
        size = len(item.points_by_code)
        counts = [np.bincount(side[:, position], minlength=size) for side in (then, now)]
        table = np.array(item.points_by_code, np.float64)
        means = [float(count @ table / count.sum()) for count in counts]
        variances = [
            float(count @ (table - mean) ** 2 / count.sum() ** 2)
            for count, mean in zip(counts, means, strict=True)
        ]
        comparisons, effect = len(card.characteristics), _design_effect(item.feature)
        shifts.append(
            CharacteristicShift(
                item.feature,
                item.label,
                stability_index(*counts, comparisons=comparisons, design_effect=effect),
                *means,
                points_noise=z(comparisons) * float(np.sqrt(sum(variances) * effect)),
            )
        )
    return shifts


def characteristic_stability(card: Scorecard, reference: Snapshot, current: Snapshot) -> Findings:
    """Shift of each characteristic in points, with its PSI over the card's bins."""
    found = _findings(reference, current)
    shifts = characteristic_shifts(card, reference, current)
    found.figures |= {
        "characteristics": [shift.as_dict() for shift in shifts],
        "points_shift": round(sum(shift.points_shift for shift in shifts), 2),
        "limit_points": MAX_POINTS_SHIFT,
    }
    for shift in shifts:
        found.expect(
            abs(shift.points_shift) <= max(MAX_POINTS_SHIFT, shift.points_noise),
            f"{shift.label} gives {shift.points_shift:+.1f} points on average against batch {reference.batch_id} "
            f"({shift.reference_points:.1f} to {shift.current_points:.1f}), limit {MAX_POINTS_SHIFT:g}, sampling "
            f"explains {shift.points_noise:.1f}.",
        )
    return found


def band_mix(reference: Snapshot, current: Snapshot) -> Findings:
    """Share of each band, and by how many percentage points it moved."""
    found = _findings(reference, current)
    before, after = band_counts(reference.scores), band_counts(current.scores)
    n, m = len(reference.scores), len(current.scores)
    rows: list[dict[str, Any]] = []
    for band in before if n and m else ():
        shift = after[band] / m - before[band] / n
        chance = share_noise((before[band], n), (after[band], m), len(before), SCORE_DESIGN_EFFECT)
        rows.append(
            {
                "band": band,
                "reference_share": round(before[band] / n, 4),
                "current_share": round(after[band] / m, 4),
                "shift": round(shift, 4),
                "noise": round(chance, 4),
            }
        )
        found.expect(
            abs(shift) <= max(MAX_SHARE_SHIFT, chance),
            f"Band {band} went from {before[band] / n:.1%} to {after[band] / m:.1%} of the parties, limit "
            f"{100 * MAX_SHARE_SHIFT:.0f} percentage points, sampling explains {chance:.1%}.",
        )
    found.figures |= {"bands": rows, "limit": MAX_SHARE_SHIFT}
    return found


def coverage(reference: Snapshot | None, current: Snapshot) -> Findings:
    """Every party has features and a score, and no feature tells about fewer parties than before.

    A feature is informative where it is neither missing nor, flags apart, the value stored when there is no data; a feed
    that broke shows as a fall. The reference only serves this half; without one the first is checked alone.
    """
    found = _findings(reference, current)
    found.figures |= {
        "parties": current.parties,
        "with_features": current.rows,
        "with_score": len(current.scores),
        "limit": MAX_SHARE_SHIFT,
    }
    for what, rows in (("features", current.rows), ("score", len(current.scores))):
        found.expect(
            rows >= current.parties,
            f"{current.parties - rows} of {current.parties} parties of batch {current.batch_id} have no {what}.",
        )
    table: list[dict[str, Any]] = []
    for name, values in current.features.items():
        known, n = _informative(name, values)
        row: dict[str, Any] = {"feature": name, "informative": round(known / max(n, 1), 4)}
        if reference is not None and name in reference.features and reference.rows and n:
            before, size = _informative(name, reference.features[name])
            fall = before / size - known / n
            chance = share_noise((before, size), (known, n), len(current.features), _design_effect(name))
            row |= {"informative_in_reference": round(before / size, 4), "noise": round(chance, 4)}
            found.expect(
                fall <= max(MAX_SHARE_SHIFT, chance),
                f"{name} is informative for {known / n:.1%} of the parties, {before / size:.1%} in batch "
                f"{reference.batch_id}; sampling explains a fall of {chance:.1%}.",
            )
        table.append(row)
    found.figures["features"] = table
    return found


def band_counts(scores: npt.NDArray[np.int16]) -> dict[str, int]:
    """Scores per band, best first."""
    from quayside.kycc.bands import BANDS

    above, counts = 0, {}
    for band, floor in BANDS:
        reached = int(np.count_nonzero(scores >= floor))
        counts[band] = reached - above
        above = reached
    return counts


def _psi(
    reference: npt.NDArray[Any], current: npt.NDArray[Any], comparisons: int, design_effect: float
) -> StabilityIndex:
    counts = numeric_counts(
        reference.astype(np.float64),
        current.astype(np.float64),
        tolerance=CLUSTERED_TOLERANCE if design_effect == NETWORK_DESIGN_EFFECT else TOLERANCE,
    )
    return stability_index(*counts, comparisons=comparisons, design_effect=design_effect)


def _design_effect(name: str) -> float:
    from quayside.kycc.features import BY_NAME

    return NETWORK_DESIGN_EFFECT if name in BY_NAME and BY_NAME[name].source == "network" else 1.0


def _findings(reference: Snapshot | None, current: Snapshot) -> Findings:
    return Findings(
        {
            "reference_batch": reference.batch_id if reference else "none",
            "current_batch": current.batch_id,
            "scorecard_version": current.version,
        }
    )


def _informative(name: str, values: npt.NDArray[np.float64]) -> tuple[int, int]:
    from quayside.kycc.features import BY_NAME

    feature = BY_NAME[name]
    known = ~np.isnan(values)
    if feature.kind != "flag" and feature.no_data is not None:
        known &= values != feature.no_data
    return int(np.count_nonzero(known)), len(values)


def _mean(values: npt.NDArray[Any]) -> float | None:
    return round(float(values.mean()), 1) if len(values) else None
