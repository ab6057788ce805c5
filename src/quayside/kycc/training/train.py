"""One training run: labelled rows in, a model with its figures out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from quayside.foundation.errors import InputError
from quayside.kycc.features.registry import BY_NAME
from quayside.kycc.training import logistic
from quayside.kycc.training.bins import Bins, fit_bins
from quayside.kycc.training.config import TrainingConfig
from quayside.kycc.training.directions import expected_directions
from quayside.kycc.training.metrics import Floats, Metrics, auc, measure, psi
from quayside.kycc.training.model import (
    CrossValidation,
    LearnedCharacteristic,
    Skipped,
    TrainedModel,
    TrainingData,
)
from quayside.kycc.training.split import KEYS, Parts, fold_numbers, labels_of, split

if TYPE_CHECKING:
    import pyarrow as pa

    from quayside.kycc.scorecard import Scorecard


def train(
    table: pa.Table,
    config: TrainingConfig | None = None,
    *,
    active: Scorecard | None = None,
    on_progress: Callable[[str], None] = lambda step: None,
) -> TrainedModel | Skipped:
    """Train on a labelled table, see `split` for its columns.

    Args:
        active: the scorecard in use; it states the direction of its features and is measured on the same holdout.
        on_progress: told the name of each step as it starts.

    Returns:
        A model, or the reason why there is none: too few rows, one class only, or no feature that says anything.

    Raises:
        InputError: a column is absent, or a label is neither 0 nor 1.
    """
    config = config or TrainingConfig()
    on_progress("split")
    parts = split(table, config)
    if reason := _reason_to_skip(parts, config):
        return Skipped(reason, *_counts(parts))
    features = config.features or tuple(name for name in BY_NAME if name in table.column_names)
    if absent := [name for name in features if name not in table.column_names]:
        raise InputError(f"The labelled table has no column for the feature {absent[0]!r}.")
    learner = Learner(features, expected_directions(active), config.min_bin_share)
    on_progress("bins and coefficients")
    learned = learner.learn(parts.train)
    on_progress("cross-validation")
    folds = _cross_validate(learner, parts.train, config)
    on_progress("figures")
    model = _assembled(parts, config, learned, folds, active)
    if not model.characteristics:
        reason = "No feature says anything about the outcome in the direction it is expected to."
        return Skipped(reason, *_counts(parts))
    return model


@dataclass(frozen=True)
class Learned:
    """Bins of every feature and the regression on their weights of evidence."""

    bins: tuple[Bins, ...]
    fit: logistic.Fit

    def log_odds(self, table: pa.Table) -> Floats:
        """Log odds of good of every row."""
        return self.fit.log_odds(woe_columns(self.bins, table))


@dataclass(frozen=True)
class Learner:
    """The whole way from rows to a fitted model, which each fold of the cross-validation goes anew."""

    features: tuple[str, ...]
    directions: dict[str, int]
    min_bin_share: float

    def learn(self, table: pa.Table) -> Learned:
        label = labels_of(table)
        bins = tuple(
            fit_bins(
                name,
                table[name],
                label,
                direction=self.directions.get(name, 0),
                min_bin_share=self.min_bin_share,
            )
            for name in self.features
        )
        return Learned(bins, logistic.fit(woe_columns(bins, table), 1 - label))


def woe_columns(bins: tuple[Bins, ...], table: pa.Table) -> Floats:
    """Weight of evidence of every row and feature; shape (rows, features)."""
    return np.stack([np.array(item.woe)[item.encode(table[item.feature])] for item in bins], axis=1)


def _counts(parts: Parts) -> tuple[int, int]:
    """Rows, and how many of them are bad."""
    label = np.concatenate([labels_of(parts.train), labels_of(parts.holdout)])
    return len(label), int(label.sum())


def _reason_to_skip(parts: Parts, config: TrainingConfig) -> str | None:
    rows = parts.train.num_rows + parts.holdout.num_rows
    if rows < config.min_samples:
        return f"There are {rows} labelled rows; training needs {config.min_samples}."
    for name, part in (("training part", parts.train), ("holdout", parts.holdout)):
        bads = int(labels_of(part).sum())
        if bads == 0 or bads == part.num_rows:
            found = "no bad" if bads == 0 else "no good"
            return f"The {name} of {part.num_rows} rows holds {found} one; training needs both classes in each part."
    return None


def _cross_validate(learner: Learner, table: pa.Table, config: TrainingConfig) -> CrossValidation:
    import pyarrow as pa

    label = labels_of(table)
    fold = fold_numbers(table, label, config.folds, config.seed + 1)
    found = []
    for number in range(config.folds):
        out = fold == number
        if 0 < label[out].sum() < out.sum() and 0 < label[~out].sum() < (~out).sum():
            learned = learner.learn(table.filter(pa.array(~out)))
            found.append(auc(label[out], -learned.log_odds(table.filter(pa.array(out)))))
    return CrossValidation(tuple(found))


def _assembled(
    parts: Parts,
    config: TrainingConfig,
    learned: Learned,
    folds: CrossValidation,
    active: Scorecard | None,
) -> TrainedModel:
    label, held = labels_of(parts.train), labels_of(parts.holdout)
    contribution = woe_columns(learned.bins, parts.train) * learned.fit.coefficients
    spread = contribution.std(axis=0)
    weight = spread / max(spread.sum(), np.finfo(np.float64).tiny)
    kept, dropped = [], {}
    for item, coefficient, importance in zip(learned.bins, learned.fit.coefficients, weight, strict=True):
        if importance > 1e-9:
            kept.append(
                LearnedCharacteristic(item, float(coefficient), float(importance), _stability(item, parts))
            )
        elif len(item.rows) - (item.kind == "categorical") <= 2:
            dropped[item.feature] = "It says nothing about the outcome in its expected direction."
        else:
            dropped[item.feature] = "The other characteristics already say what it says."
    kept.sort(key=lambda item: -item.importance)
    seen = logistic.probability(-(learned.fit.intercept + contribution.sum(axis=1)))
    unseen = logistic.probability(-learned.log_odds(parts.holdout))
    tenths = np.unique(np.quantile(seen, np.linspace(0, 1, 11)[1:-1]))
    counts = [
        np.bincount(np.searchsorted(tenths, p, side="right"), minlength=len(tenths) + 1)
        for p in (seen, unseen)
    ]
    data = _data(parts)
    return TrainedModel(
        characteristics=tuple(kept),
        intercept=learned.fit.intercept,
        config=config,
        data=data,
        holdout=measure(held, unseen),
        training=measure(label, seen),
        cross_validation=folds,
        stability=psi(counts[0], counts[1]),
        dropped=dropped,
        circular=any(source != "observed" for source in data.sources),
        active=None if active is None else measure_card(active, parts),
        active_version=None if active is None else active.version,
    )


def measure_card(card: Scorecard, parts: Parts) -> Metrics:
    """Figures of a scorecard on the holdout, its scores as issued (rules included) read as probabilities.

    A card states no probability; a logistic regression of the label on its score, fitted on the training part, does.
    """
    from quayside.kycc.scorecard import evaluate

    scores = []
    for part in (parts.train, parts.holdout):
        columns = {name: part[name] for name in card.required_features}
        scores.append(evaluate(card, columns).total_score.astype(np.float64)[:, None] / 100)
    fit = logistic.fit(scores[0], 1 - labels_of(parts.train), bounded=False)
    return measure(labels_of(parts.holdout), logistic.probability(-fit.log_odds(scores[1])))


def _stability(item: Bins, parts: Parts) -> float:
    held = np.bincount(item.encode(parts.holdout[item.feature]), minlength=len(item.rows))
    return psi(np.array(item.rows), held)


def _data(parts: Parts) -> TrainingData:
    import pyarrow as pa

    both = pa.concat_tables([parts.train.select(KEYS), parts.holdout.select(KEYS)])
    moments = both["as_of"].unique().to_pylist()
    return TrainingData(
        train_rows=parts.train.num_rows,
        train_bads=int(labels_of(parts.train).sum()),
        holdout_rows=parts.holdout.num_rows,
        holdout_bads=int(labels_of(parts.holdout).sum()),
        method=parts.method,
        batches=tuple(sorted(both["batch_id"].unique().to_pylist())),
        first_as_of=min(moments).isoformat(),
        last_as_of=max(moments).isoformat(),
        sources=dict(sorted(Counter(both["label_source"].to_pylist()).items())),
        fingerprint=parts.fingerprint,
    )
