"""From log odds to points: a trained model as a scorecard of its own.

A model says how much each bin adds to the log odds of good. Points are these, times a scale, plus an offset spread over
the characteristics. Scale and offset are chosen so that on the training rows the bands hold the shares they hold under
the card in use, as nearly as 0 to 600 points allow: "good" goes on meaning about the same number of parties. They move
no party past another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from quayside.foundation.errors import InputError
from quayside.kycc.bands import BANDS, SCORE_MAX, SCORE_MIN
from quayside.kycc.refinement.blend import cuts_closed, half_up, within_scale
from quayside.kycc.refinement.wording import Wording
from quayside.kycc.scorecard import Characteristic, Scorecard, score
from quayside.kycc.training.metrics import Floats

if TYPE_CHECKING:
    import pyarrow as pa

    from quayside.kycc.training.model import LearnedCharacteristic, TrainedModel

#: Scores at which a better band starts.
FLOORS: Final = np.array(sorted(floor for _, floor in BANDS if floor > SCORE_MIN), np.float64)
_RANGE: Final = SCORE_MAX - SCORE_MIN
_STEPS: Final = 61
_SAYS_NOTHING: Final = "The model says nothing: every bin of every characteristic has the same points."


@dataclass(frozen=True)
class Scale:
    """``score = 300 + offset + points_per_log_odds · (log odds above those of the worst row)``."""

    points_per_log_odds: float
    offset: float


def model_card(model: TrainedModel, base: Scorecard, train: pa.Table, version: str) -> Scorecard:
    """The model as a scorecard: its bins and points, the decision rules and texts of `base`.

    Args:
        train: rows the band shares are matched on, with the columns of both.

    Raises:
        InputError: the model says nothing, or a feature is numeric in one and categorical in the other.
    """
    if reach_of(model.characteristics) == 0:
        raise InputError(_SAYS_NOTHING)
    return points_card(model.characteristics, matching_scale(model, base, train), version, base)


def points_card(
    characteristics: Sequence[LearnedCharacteristic],
    scale: Scale,
    version: str,
    base: Scorecard | None = None,
) -> Scorecard:
    """Learned characteristics as a scorecard on this scale; those whose points are all equal are left out.

    Args:
        base: gives decision rules, order and texts; without it there are no rules, and texts are made from names.

    Raises:
        InputError: nothing is left, or a feature is numeric in one and categorical in the other.
    """
    reach = reach_of(characteristics)
    items = []
    for learned in characteristics:
        lowest = min(learned.log_odds)
        offset = scale.offset * (max(learned.log_odds) - lowest) / reach
        points = [
            half_up(scale.points_per_log_odds * (value - lowest) + offset) for value in learned.log_odds
        ]
        item = _characteristic(learned, points, base)
        if item.max_points > item.min_points:
            items.append(item)
    if not items:
        raise InputError(_SAYS_NOTHING)
    return with_rules(base, version, within_scale(items))


def reach_of(characteristics: Sequence[LearnedCharacteristic]) -> float:
    """Log odds between the worst and the best row there can be."""
    return sum(max(item.log_odds) - min(item.log_odds) for item in characteristics)


def whole_scale(characteristics: Sequence[LearnedCharacteristic]) -> Scale:
    """The scale on which the worst row has 300 and the best 900."""
    return Scale(_RANGE / reach_of(characteristics), 0.0)


def with_rules(base: Scorecard | None, version: str, items: tuple[Characteristic, ...]) -> Scorecard:
    """A card of these characteristics with the decision rules of `base`; those it has come first, in its order."""
    if base is None:
        return Scorecard(version, items)
    rank = {feature: position for position, feature in enumerate(base.features)}
    ordered = tuple(sorted(items, key=lambda item: rank.get(item.feature, len(rank))))
    own = {item.feature for item in ordered}
    read = dict.fromkeys((*base.extra_features, *(name for rule in base.rules for name in rule.features)))
    return Scorecard(version, ordered, base.rules, tuple(name for name in read if name not in own))


def matching_scale(model: TrainedModel, base: Scorecard, train: pa.Table) -> Scale:
    """The scale under which the largest move of a band's share against `base` is smallest, found on a grid."""
    columns = {name: train[name] for name in (*base.features, *model.features)}
    wanted = _shares(np.sort(score(base, columns, reasons=False).raw_score.astype(np.float64)), FLOORS)
    lowest = model.intercept + sum(min(item.log_odds) for item in model.characteristics)
    reach = reach_of(model.characteristics)
    above = np.sort(model.log_odds(columns) - lowest)
    best, found = np.inf, Scale(_RANGE / reach, 0.0)
    for points_per_log_odds in np.linspace(0.25, 1, _STEPS) * (_RANGE / reach):
        offsets = np.linspace(0, _RANGE - points_per_log_odds * reach, _STEPS)
        floors = (FLOORS - SCORE_MIN - offsets[:, None]) / points_per_log_odds
        moved = np.abs(_shares(above, floors) - wanted).max(axis=1)
        if moved.min() < best - 1e-12:
            best, offset = moved.min(), offsets[moved.argmin()]
            found = Scale(float(points_per_log_odds), float(offset))
    return found


def _shares(ordered: Floats, floors: Floats) -> Floats:
    """Share of sorted values below the first floor, between each two and from the last on; floors of shape (…, 4)."""
    return np.diff(
        np.searchsorted(ordered, floors, side="left") / len(ordered), axis=-1, prepend=0.0, append=1.0
    )


def _characteristic(
    learned: LearnedCharacteristic, points: list[int], base: Scorecard | None
) -> Characteristic:
    """A characteristic with these points by bin code. A missing value earns no more than the best known one: hiding a value
    must not pay."""
    in_use = () if base is None else base.characteristics
    known = next((item for item in in_use if item.feature == learned.feature), None)
    bins, wording = learned.bins, Wording(learned.feature, known)
    if known is not None and known.kind != bins.kind:
        raise InputError(
            f"Feature {learned.feature!r} is {known.kind} in the scorecard, but {bins.kind} in the data."
        )
    if bins.kind == "categorical":
        missing, *own, other = points
        return wording.categorical(bins.categories, tuple(own), min(missing, max(*own, other)), other)
    missing, *own = points
    closed = "left" if known is None else known.closed
    return wording.numeric(cuts_closed(bins.cuts, "left", closed), closed, tuple(own), min(missing, max(own)))
