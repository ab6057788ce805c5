"""Principal reasons: what lost most points, characteristics and rules together.

The reasons kept with every score name characteristics alone, because points are what they explain. A notice has to name
what the decision rests on, so rules that lowered the score count as well, by the points they took:

- A rule that reads one feature, and that is a characteristic of the card, adds to that characteristic: one fact, one reason.
- Any other rule is a reason of its own.
- Most points first. Equal losses keep the card's order, characteristics before rules, rules in order of application.
- What lost no points is no reason, and a low score is none either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from quayside.kycc.scorecard.engine import REASONS, codes, evaluate

if TYPE_CHECKING:
    import numpy.typing as npt

    from quayside.kycc.scorecard import Characteristic, Scorecard
    from quayside.kycc.scorecard.batch import ScoredBatch
    from quayside.kycc.scorecard.columns import Columns

#: More than four reasons are not likely to help (commentary on 12 CFR 1002.9).
MOST: Final = REASONS


@dataclass(frozen=True)
class Reason:
    """One principal reason.

    Attributes:
        source: the characteristic's feature, or the rule's id.
        points_lost: against the characteristic's maximum, and by the rule.
    """

    source: str
    points_lost: int
    sentence: str


def principal_reasons(
    card: Scorecard, columns: Columns, *, most: int = MOST, scored: ScoredBatch | None = None
) -> list[tuple[Reason, ...]]:
    """Reasons of each of n rows, at most `most`, strongest first.

    Args:
        columns: one column per feature in ``card.required_features``.
        scored: the rows' evaluation by this card, where it is at hand.

    Raises:
        InputError: a column is absent or of the wrong type.
    """
    scored = scored or evaluate(card, columns)
    bins = codes(card, columns)
    taken = np.maximum(-scored.rule_deltas, 0)
    lost = np.empty((len(bins), len(card.features) + taken.shape[1]), np.int16)
    for position, item in enumerate(card.characteristics):
        by_code = item.max_points - np.array(item.points_by_code, np.int16)
        lost[:, position] = by_code[bins[:, position]]
        for rule in _rules_of(card, item):
            lost[:, position] += taken[:, rule]
    alone = [rule.features[1:] != () or rule.features[0] not in card.features for rule in card.ordered_rules]
    lost[:, len(card.features) :] = taken * np.array(alone, np.int16)
    order = np.argsort(-lost, axis=1, kind="stable")[:, :most]
    return [
        tuple(
            Reason(
                _source(card, column), int(lost[row, column]), _sentence(card, bins[row], taken[row], column)
            )
            for column in order[row].tolist()
            if lost[row, column] > 0
        )
        for row in range(len(bins))
    ]


def _rules_of(card: Scorecard, item: Characteristic) -> list[int]:
    return [i for i, rule in enumerate(card.ordered_rules) if rule.features == (item.feature,)]


def _source(card: Scorecard, column: int) -> str:
    if column < len(card.features):
        return card.features[column]
    return card.ordered_rules[column - len(card.features)].id


def _sentence(card: Scorecard, bins: npt.NDArray[np.uint8], taken: npt.NDArray[np.int16], column: int) -> str:
    if column >= len(card.features):
        return card.ordered_rules[column - len(card.features)].text
    item = card.characteristics[column]
    code = int(bins[column])
    if item.points_by_code[code] < item.max_points:
        return item.code_reason(code)
    # the characteristic has all its points, so a rule of its own took some
    return next(card.ordered_rules[rule].text for rule in _rules_of(card, item) if taken[rule])
