"""A refined scorecard: the card in use blended with a trained model, judged by the gates."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from quayside.foundation.errors import UsageError
from quayside.kycc.refinement.blend import (
    Weighted,
    at_edge,
    blend,
    is_numeric,
    of_category,
    union_of_cuts,
    union_of_groups,
    within_scale,
)
from quayside.kycc.refinement.gates import Gate, gates
from quayside.kycc.refinement.points import model_card, with_rules
from quayside.kycc.refinement.wording import Wording
from quayside.kycc.scorecard import Characteristic, Scaling, Scorecard, codes, evaluate, score
from quayside.kycc.training import logistic
from quayside.kycc.training.directions import expected_directions
from quayside.kycc.training.split import Parts, labels_of

if TYPE_CHECKING:
    import pyarrow as pa

    from quayside.kycc.training.model import TrainedModel

Status = Literal["draft", "rejected"]


@dataclass(frozen=True)
class BinComparison:
    """One bin of the union of both cards' bins: training rows in it, and its points before, in the model and after."""

    feature: str
    label: str
    bin: str
    rows: int
    bads: int
    base: int
    model: int
    refined: int


@dataclass(frozen=True)
class Refinement:
    """Outcome of a refinement.

    Attributes:
        status: ``draft`` when every gate passed, ``rejected`` otherwise.
        comparison: bins and points side by side, in card order.
    """

    card: Scorecard
    status: Status
    gates: tuple[Gate, ...]
    blend_factor: float
    base_version: str
    comparison: tuple[BinComparison, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the gates that did not pass."""
        return tuple(gate.name for gate in self.gates if not gate.passed)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, ready for JSON."""
        return {
            "card": self.card.to_dict(),
            "status": self.status,
            "gates": [asdict(gate) for gate in self.gates],
            "blend_factor": self.blend_factor,
            "base_version": self.base_version,
            "comparison": [asdict(row) for row in self.comparison],
        }


def refine(
    base: Scorecard, model: TrainedModel, blend_factor: float, parts: Parts, *, version: str | None = None
) -> Refinement:
    """Blend the card in use with a model: points = (1 − b) · base + b · model on the union of both sets of cuts.

    0 gives the base card exactly (but for the version), 1 the model's own points. Decision rules, texts and the order of
    its characteristics are those of `base`.

    Args:
        parts: of the labelled table, as `split` gives it for the model's own `config`: points are scaled on ``train``, gates
            are taken on ``holdout``. ``parts.fingerprint`` equals ``model.data.fingerprint`` when they are the rows the
            model was trained with.
        version: of the new card; derived from its ingredients when left out.

    Raises:
        UsageError: `blend_factor` is not between 0 and 1.
        InputError: the model has no characteristic, a column is absent, or a feature is numeric in one card and categorical in
            the other.
    """
    if not 0 <= blend_factor <= 1:
        raise UsageError(
            f"blend_factor lies between 0 (the card in use) and 1 (the model), not at {blend_factor}."
        )
    version = version or f"{base.version}-{model.data.fingerprint[:8]}-b{round(blend_factor * 100)}"
    learned = model_card(model, base, parts.train, version)
    card = _blended(base, learned, blend_factor, version)
    if blend_factor > 0:
        card = replace(
            card,
            description=f"{base.version} refined with what {model.data.train_rows:,} outcomes taught, blend {blend_factor:g}",
            scaling=_scaling(card, parts.train),
        )
    label = labels_of(parts.holdout)
    scored = [evaluate(item, _columns(item, parts.holdout)) for item in (base, card)]
    found = gates(scored[0], scored[1], label, expected_directions(base))
    return Refinement(
        card,
        "draft" if all(gate.passed for gate in found) else "rejected",
        found,
        blend_factor,
        base.version,
        _comparison(base, learned, card, parts.train),
    )


def _blended(base: Scorecard, learned: Scorecard, factor: float, version: str) -> Scorecard:
    if factor == 0:
        return replace(base, version=version)
    sources: dict[str, list[Weighted]] = {}
    for weight, card in ((1 - factor, base), (factor, learned)):
        for item in card.characteristics if weight > 0 else ():
            sources.setdefault(item.feature, []).append((weight, item))
    known = {item.feature: item for item in base.characteristics}
    items = [blend(found, Wording(feature, known.get(feature))) for feature, found in sources.items()]
    return with_rules(base, version, within_scale([item for item in items if item.max_points > 0]))


def _scaling(card: Scorecard, train: pa.Table) -> Scaling | None:
    """What the card's points mean as odds on the training rows: odds at 600, and points that double them."""
    points = score(card, _columns(card, train), reasons=False).raw_score.astype(np.float64)[:, None]
    fit = logistic.fit((points - 600) / 100, 1 - labels_of(train), bounded=False)
    slope = float(fit.coefficients[0]) / 100
    return Scaling(600.0, math.exp(fit.intercept), math.log(2) / slope) if slope > 0 else None


def _columns(card: Scorecard, table: pa.Table) -> dict[str, Any]:
    return {name: table[name] for name in card.required_features if name in table.column_names}


def _comparison(
    base: Scorecard, learned: Scorecard, refined: Scorecard, train: pa.Table
) -> tuple[BinComparison, ...]:
    """Every bin of the union of the two cards with its points in the three."""
    label = labels_of(train)
    found = [{item.feature: item for item in card.characteristics} for card in (base, learned, refined)]
    order = dict.fromkeys((*base.features, *refined.features, *learned.features))
    grid = [
        _grid(Wording(feature, found[0].get(feature)), [by[feature] for by in found if feature in by])
        for feature in order
    ]
    by_code = codes(Scorecard("comparison", tuple(grid)), {name: train[name] for name in order})
    rows = []
    for position, shape in enumerate(grid):
        size = len(shape.points_by_code)
        counts = np.bincount(by_code[:, position], minlength=size).tolist()
        bads = np.bincount(by_code[:, position], weights=label, minlength=size).astype(int).tolist()
        for code in range(size):
            points = [_points(by.get(shape.feature), shape, code) for by in found]
            rows.append(
                BinComparison(
                    shape.feature, shape.label, shape.code_label(code), counts[code], bads[code], *points
                )
            )
    return tuple(rows)


def _grid(wording: Wording, items: list[Characteristic]) -> Characteristic:
    """The union of the bins of `items`, without points."""
    if is_numeric(items):
        cuts = union_of_cuts(items)
        return wording.numeric(cuts, items[0].closed, (0,) * (len(cuts) + 1), 0)
    groups = union_of_groups(items)
    return wording.categorical(groups, (0,) * len(groups), 0, 0)


def _points(item: Characteristic | None, shape: Characteristic, code: int) -> int:
    """Points `item` gives to a bin of the finer `shape`; 0 when it has no such characteristic."""
    if item is None:
        return 0
    if code == 0:
        return item.missing
    if code > len(shape.points):
        return item.other
    if shape.kind == "categorical":
        return of_category(item, shape.categories[code - 1][0])
    return at_edge(item, shape.edges(code - 1)[0], shape.closed)
