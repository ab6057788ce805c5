"""What a training run can be told."""

from __future__ import annotations

from dataclasses import dataclass

from quayside.foundation.errors import UsageError


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one training run.

    Attributes:
        min_samples: fewer labelled rows than this, and training is skipped.
        test_size: share of the rows held out.
        seed: of the split and the folds; equal data and seed give an equal model.
        folds: of the cross-validation on the training part.
        features: what may be learned from; every feature of the registry when left out.
        min_bin_share: share of the training rows a bin holds at least.

    Raises:
        UsageError: a value is out of its range.
    """

    min_samples: int = 100
    test_size: float = 0.2
    seed: int = 42
    folds: int = 5
    features: tuple[str, ...] | None = None
    min_bin_share: float = 0.02

    def __post_init__(self) -> None:
        for name, low, high in (
            ("min_samples", 1, float("inf")),
            ("test_size", 0.01, 0.9),
            ("folds", 2, 20),
            ("min_bin_share", 0.0, 0.5),
        ):
            if not low <= getattr(self, name) <= high:
                raise UsageError(
                    f"Training: {name} lies between {low} and {high}, not at {getattr(self, name)}."
                )
