"""A trained model: bins and coefficients, the figures it was judged by, and where its data came from. Stored as JSON.

``log odds of good = intercept + Σ coefficient · WoE``. No coefficient is negative, so that each characteristic keeps the
direction of its bins.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from quayside.foundation.errors import InputError
from quayside.kycc.training.bins import Bins
from quayside.kycc.training.config import TrainingConfig
from quayside.kycc.training.logistic import probability
from quayside.kycc.training.metrics import CalibrationBin, Floats, Metrics

if TYPE_CHECKING:
    from quayside.kycc.scorecard.columns import Columns

FORMAT: Final = "quayside.kycc.model/1"


@dataclass(frozen=True)
class LearnedCharacteristic:
    """Bins of one feature and the weight they have in the model.

    Attributes:
        importance: its share of the spread of the log odds (standard deviations on the training rows); they add up to 1.
        stability: PSI of its bins, training part against holdout.
    """

    bins: Bins
    coefficient: float
    importance: float
    stability: float

    @property
    def feature(self) -> str:
        return self.bins.feature

    @property
    def log_odds(self) -> tuple[float, ...]:
        """What each bin code adds to the log odds of good."""
        return tuple(self.coefficient * woe for woe in self.bins.woe)


@dataclass(frozen=True)
class TrainingData:
    """Which rows a model was made from.

    Attributes:
        sources: label source → rows.
        method: how the holdout was chosen, see `quayside.kycc.training.split.split`.
        fingerprint: of all of them, see `Parts`.
    """

    train_rows: int
    train_bads: int
    holdout_rows: int
    holdout_bads: int
    method: str
    batches: tuple[str, ...]
    first_as_of: str
    last_as_of: str
    sources: dict[str, int]
    fingerprint: str


@dataclass(frozen=True)
class CrossValidation:
    """AUC of each fold of the training part, bins and coefficients fitted anew without it. Folds that lack a class have
    none; what nothing is left for is NaN."""

    auc: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.auc)) if self.auc else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation over the folds."""
        return float(np.std(self.auc, ddof=1)) if len(self.auc) > 1 else math.nan


@dataclass(frozen=True)
class TrainedModel:
    """Outcome of a training run.

    Attributes:
        holdout, training: figures of the model on each part.
        active: the same figures on the holdout for the scorecard in use, `active_version`; None when none was given.
        stability: PSI of the predicted probability, tenths of the training part against the holdout.
        dropped: feature → why it is not in the model.
        circular: whether any label was simulated from a score, so that the figures prove nothing.
    """

    characteristics: tuple[LearnedCharacteristic, ...]
    intercept: float
    config: TrainingConfig
    data: TrainingData
    holdout: Metrics
    training: Metrics
    cross_validation: CrossValidation
    stability: float
    dropped: dict[str, str]
    circular: bool
    active: Metrics | None = None
    active_version: str | None = None

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(item.feature for item in self.characteristics)

    def log_odds(self, columns: Columns) -> Floats:
        """Log odds of good of every row; `columns` holds one column per feature of the model."""
        total: Floats = np.asarray(self.intercept)
        for item in self.characteristics:
            total = total + np.array(item.log_odds)[item.bins.encode(columns[item.feature])]
        return total

    def probability(self, columns: Columns) -> Floats:
        """Probability of default of every row."""
        return probability(-self.log_odds(columns))

    def to_json(self) -> str:
        """The model as JSON text; `from_json` gives an equal one."""
        return json.dumps({"format": FORMAT, **asdict(self)}, allow_nan=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> TrainedModel:
        """Raises: InputError: the text is no model."""
        try:
            data = json.loads(text)
            if data.pop("format") != FORMAT:
                raise InputError(f"The model is not in the format {FORMAT}: train again.")
            return _model(data)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"The text is no model of format {FORMAT}: {error}.") from error


@dataclass(frozen=True)
class Skipped:
    """A training that did not take place, and why."""

    reason: str
    rows: int
    bads: int


def _model(data: dict[str, Any]) -> TrainedModel:
    active = data.pop("active")
    return TrainedModel(
        characteristics=tuple(
            LearnedCharacteristic(**{**item, "bins": _bins(item["bins"])})
            for item in data.pop("characteristics")
        ),
        config=TrainingConfig(**_tuples(data.pop("config"), "features")),
        data=TrainingData(**_tuples(data.pop("data"), "batches")),
        holdout=_metrics(data.pop("holdout")),
        training=_metrics(data.pop("training")),
        cross_validation=CrossValidation(tuple(data.pop("cross_validation")["auc"])),
        active=None if active is None else _metrics(active),
        **data,
    )


def _bins(data: dict[str, Any]) -> Bins:
    groups = tuple(tuple(group) for group in data.pop("categories"))
    return Bins(categories=groups, **_tuples(data, "cuts", "rows", "bads", "woe"))


def _metrics(data: dict[str, Any]) -> Metrics:
    table = tuple(CalibrationBin(**item) for item in data.pop("calibration"))
    curve = tuple((float(x), float(y)) for x, y in data.pop("roc"))
    return Metrics(calibration=table, roc=curve, **data)


def _tuples(data: dict[str, Any], *names: str) -> dict[str, Any]:
    """The mapping with these lists as tuples, which JSON does not know."""
    return {
        name: tuple(value) if name in names and value is not None else value for name, value in data.items()
    }
