"""Reject inference: labels for parties that were refused, and the check whether using them helped.

A model learned from accepted parties alone has never seen those it will refuse. Parcelling gives each refused party a
label: the bad odds seen among accepted parties of the same predicted risk, times a factor for what the refusal knew and
the features do not, and a draw. That adds an assumption, not knowledge, so `check` hides outcomes that are known, as if
those parties had been refused, and compares both ways on everyone. Inferred labels are worth using only where it says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from quayside.foundation.errors import InputError, UsageError
from quayside.kycc.training.metrics import auc
from quayside.kycc.training.split import KEYS, fold_numbers, labels_of

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from quayside.kycc.checks import Findings
    from quayside.kycc.training.train import Learner

#: What `label_source` says of an inferred label.
INFERRED: Final = "inferred"
#: Accepted parties a band of predicted risk holds at least on average; fewer say little about its bad odds.
LEAST_PER_BAND: Final = 20


@dataclass(frozen=True)
class Parcelling:
    """How refused parties are labelled.

    Attributes:
        factor: bad odds of a refused party against an accepted one of the same predicted risk; 1 believes that the refusal
            knew no more than the features.
        bands: of equal size by predicted risk.
        seed: of the draws.

    Raises:
        UsageError: a value is out of its range.
    """

    factor: float = 1.0
    bands: int = 10
    seed: int = 42

    def __post_init__(self) -> None:
        if not (math.isfinite(self.factor) and self.factor > 0):
            raise UsageError(f"Reject inference: factor is a positive number, not {self.factor}.")
        if self.bands < 1:
            raise UsageError(f"Reject inference: bands is 1 or more, not {self.bands}.")

    def labels(
        self,
        risk: npt.NDArray[np.float64],
        label: npt.NDArray[np.int8],
        refused_risk: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.int8]:
        """Labels of m refused parties.

        Args:
            risk, label: predicted risk and outcome (1 = bad) of n accepted parties, shape (n,).
            refused_risk: of the refused ones, shape (m,); beyond the accepted parties' range the riskiest band speaks.
        """
        bands = max(1, min(self.bands, len(risk) // LEAST_PER_BAND))
        edges = np.unique(np.quantile(risk, np.arange(1, bands) / bands))
        band = np.searchsorted(edges, risk, side="right")
        rows = np.bincount(band, minlength=len(edges) + 1)
        bads = np.bincount(band, weights=label, minlength=len(edges) + 1)
        odds = self.factor * (bads + 0.5) / (rows - bads + 0.5)
        share = (odds / (1 + odds))[np.searchsorted(edges, refused_risk, side="right")]
        return (np.random.default_rng(self.seed).random(len(refused_risk)) < share).astype(np.int8)


def infer(
    labelled: pa.Table, refused: pa.Table, learner: Learner, parcelling: Parcelling | None = None
) -> pa.Table:
    """The labelled rows of accepted parties, and below them the refused ones with inferred labels.

    Args:
        labelled: as `quayside.kycc.training.train` takes it, both classes present.
        refused: the same columns, ``label`` and ``label_source`` not needed.

    Raises:
        InputError: the labelled rows are of one class.
    """
    import pyarrow as pa

    label = labels_of(labelled)
    if not 0 < label.sum() < len(label):
        raise InputError("Reject inference needs good and bad accepted parties to learn from.")
    learned = learner.learn(labelled)
    inferred = (parcelling or Parcelling()).labels(
        -learned.log_odds(labelled), label, -learned.log_odds(refused)
    )
    given = {
        "label": pa.array(inferred, labelled.schema.field("label").type),
        "label_source": pa.array([INFERRED] * refused.num_rows, pa.string()),
    }
    columns = [given[name] if name in given else refused[name] for name in labelled.column_names]
    below = pa.table(columns, names=labelled.column_names).cast(_plain(labelled.schema))
    return pa.concat_tables([labelled.cast(_plain(labelled.schema)), below])


@dataclass(frozen=True)
class Usefulness:
    """Whether inferred labels made the ranking of everyone better.

    Attributes:
        without: mean AUC of learning from accepted parties alone.
        inferred: mean AUC with refused ones added by inference.
        ceiling: mean AUC had their outcomes been known: what there was to gain.
        low, high: 95 % interval of ``inferred − without``.
        refused_share: share of parties whose outcomes were hidden.
    """

    without: float
    inferred: float
    ceiling: float
    low: float
    high: float
    refused_share: float
    rows: int

    @property
    def helped(self) -> bool:
        """Only when the whole interval is above zero."""
        return self.low > 0

    @property
    def sentence(self) -> str:
        gain = f"{self.inferred - self.without:+.4f} AUC (95 % interval {self.low:+.4f} to {self.high:+.4f})"
        kept = "helped" if self.helped else "did not help beyond chance, so do without it"
        return (
            f"With the outcomes of {self.refused_share:.0%} of {self.rows:,} parties hidden as if refused, reject inference "
            f"{kept}: {gain}, where knowing them would have given {self.ceiling - self.without:+.4f}."
        )

    @property
    def findings(self) -> Findings:
        """As a check: it fails where reject inference did not help."""
        from quayside.kycc.checks import Findings

        found = Findings(
            {
                "auc_without": round(self.without, 4),
                "auc_inferred": round(self.inferred, 4),
                "auc_outcomes_known": round(self.ceiling, 4),
                "difference_low": round(self.low, 4),
                "difference_high": round(self.high, 4),
                "refused_share": self.refused_share,
                "rows": self.rows,
            }
        )
        found.expect(self.helped, self.sentence)
        return found


def check(
    labelled: pa.Table,
    learner: Learner,
    parcelling: Parcelling | None = None,
    *,
    refused_share: float = 0.3,
    folds: int = 5,
    repeats: int = 2,
    seed: int = 42,
) -> Usefulness:
    """Hide the outcomes of the parties with the lowest scores, learn with and without inference, rank everyone held out.

    The interval is the corrected resampled t interval (Nadeau and Bengio, 2003), which knows that folds share training rows.

    Args:
        labelled: as for `infer`, with the column ``score`` of the card that refuses.
        refused_share: share of the training rows hidden, lowest scores first.

    Raises:
        InputError: ``score`` is absent, or what is left of a fold is of one class.
    """
    import pyarrow as pa
    from scipy.special import stdtrit

    if absent := [name for name in (*KEYS, "score") if name not in labelled.column_names]:
        raise InputError(f"The check of reject inference needs the column {absent[0]}.")
    if not 0 < refused_share < 1:
        raise UsageError(f"Reject inference: refused_share lies between 0 and 1, not at {refused_share}.")
    label = labels_of(labelled)
    found: list[tuple[float, float, float]] = []
    for repeat in range(repeats):
        fold = fold_numbers(labelled, label, folds, seed + repeat)
        for number in range(folds):
            train, held = (labelled.filter(pa.array(rows)) for rows in (fold != number, fold == number))
            found.append(_one(train, held, learner, parcelling or Parcelling(), refused_share))
    without, inferred, ceiling = np.array(found).T
    gain = inferred - without
    # test rows over training rows is 1 / (folds − 1)
    error = math.sqrt(float(gain.var(ddof=1)) * (1 / len(gain) + 1 / (folds - 1)))
    half = float(stdtrit(len(gain) - 1, 0.975)) * error
    centre = float(gain.mean())
    return Usefulness(
        without=float(without.mean()),
        inferred=float(inferred.mean()),
        ceiling=float(ceiling.mean()),
        low=centre - half,
        high=centre + half,
        refused_share=refused_share,
        rows=labelled.num_rows,
    )


def _one(
    train: pa.Table, held: pa.Table, learner: Learner, parcelling: Parcelling, refused_share: float
) -> tuple[float, float, float]:
    """AUC on `held` without inference, with it, and with all outcomes known."""
    import pyarrow as pa

    score = train["score"].to_numpy().astype(np.float64)
    label = labels_of(held)
    accepted = np.ones(len(score), np.bool_)
    accepted[np.argsort(score, kind="stable")[: round(refused_share * len(score))]] = False
    known, hidden = (train.filter(pa.array(rows)) for rows in (accepted, ~accepted))
    completed = infer(known, hidden, learner, parcelling)
    if not 0 < label.sum() < len(label):
        raise InputError("The check of reject inference needs good and bad parties in every fold: use fewer.")
    known_only, with_inferred, with_all = (
        auc(label, -learner.learn(rows).log_odds(held)) for rows in (known, completed, train)
    )
    return known_only, with_inferred, with_all


def _plain(schema: pa.Schema) -> pa.Schema:
    """The schema with dictionaries as their values, so that tables of different origin can be put together."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field(field.name, field.type.value_type if pa.types.is_dictionary(field.type) else field.type)
            for field in schema
        ]
    )
