"""What the reports are made of: plain values, filled by `quayside.kycc.report.sources` or by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from quayside.kycc.bands import SCORE_MAX, SCORE_MIN
from quayside.kycc.refinement.gates import Gate
from quayside.kycc.training.metrics import Metrics

if TYPE_CHECKING:
    import numpy.typing as npt

    from quayside.kycc.checks import Findings
    from quayside.kycc.monitoring import CharacteristicShift

#: Everything a reader needs to find the data and the version again: (what, value), in the order it is shown.
Identity = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ScoreCounts:
    """Good and bad parties at every score from 300 to 900; each int64 (601,)."""

    goods: npt.NDArray[np.int64]
    bads: npt.NDArray[np.int64]

    @classmethod
    def of(cls, scores: npt.NDArray[np.integer[Any]], label: npt.NDArray[np.integer[Any]]) -> ScoreCounts:
        """Counts of n scores and their labels (1 = bad), each of shape (n,)."""
        at = np.asarray(scores, np.int64) - SCORE_MIN
        size = SCORE_MAX - SCORE_MIN + 1
        return cls(np.bincount(at[label == 0], minlength=size), np.bincount(at[label == 1], minlength=size))


@dataclass(frozen=True)
class Ranked:
    """How one card ranks and predicts the holdout."""

    name: str
    metrics: Metrics
    scores: ScoreCounts


@dataclass(frozen=True)
class BinRow:
    """One bin of a characteristic with the parties of the training part, and the points three cards give in it.

    Points are (lowest, highest): a bin of the model may span several of the card in use.
    """

    label: str
    rows: int
    bads: int
    base: tuple[int, int]
    model: tuple[int, int]
    proposed: tuple[int, int]

    @property
    def bad_rate(self) -> float | None:
        return self.bads / self.rows if self.rows else None


@dataclass(frozen=True)
class CharacteristicBins:
    """Bins of a characteristic, in order.

    Attributes:
        weight: share of the proposed card's points that stands on this characteristic, 0 to 1.
        bins: few enough to read.
        every: all of them, where `bins` puts some together.
    """

    label: str
    weight: float
    bins: tuple[BinRow, ...]
    every: tuple[BinRow, ...] = ()


@dataclass(frozen=True)
class Stability:
    """Drift of one column from the training part to the holdout, or from batch to batch."""

    name: str
    psi: float
    noise: float
    reference_rows: int
    current_rows: int
    status: str
    points_shift: float | None = None


@dataclass(frozen=True)
class TrainingReport:
    """Everything the page of a training run shows.

    Attributes:
        proposed, active: the offered card and the one in use, on the same holdout; None where there is none yet.
        difference: AUC of proposed less active, and its 95 % interval, paired on the same parties.
        model: the model alone, before its points were blended and rounded.
        cross_validated: mean and standard deviation of the model's AUC over the folds of the training part.
        importance: share of the model each feature carries, largest first.
        left_out: (feature, why the model does not use it).
        circular: trained on simulated labels, so that the figures say nothing about real defaults.
    """

    version: str
    base_version: str
    status: Literal["draft", "rejected", "skipped"]
    identity: Identity
    reason: str = ""
    circular: bool = False
    proposed: Ranked | None = None
    active: Ranked | None = None
    difference: tuple[float, float, float] | None = None
    cross_validated: tuple[float, float] | None = None
    model: Metrics | None = None
    importance: tuple[tuple[str, float], ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    gates: tuple[Gate, ...] = ()
    characteristics: tuple[CharacteristicBins, ...] = ()
    stability: tuple[Stability, ...] = ()


@dataclass(frozen=True)
class ScoringReport:
    """Everything the page of a scored batch shows.

    Attributes:
        scores: parties at every score from 300 to 900; int64 (601,).
        bands, decisions: parties in each, best first.
        reasons: (sentence or label, parties it stands against), most first.
        rules: (what the rule says, parties it fired for), in order of application.
        findings: outcome of each monitoring check, by name.
        shifts: characteristics against the reference batch; empty where there is none.
    """

    batch_id: str
    version: str
    identity: Identity
    mean: float
    scores: npt.NDArray[np.int64]
    bands: Mapping[str, int]
    decisions: Mapping[str, int]
    reasons: tuple[tuple[str, int], ...] = ()
    rules: tuple[tuple[str, int], ...] = ()
    findings: Mapping[str, Findings] = field(default_factory=dict)
    shifts: tuple[CharacteristicShift, ...] = ()
    reference: str = ""

    @property
    def parties(self) -> int:
        return int(self.scores.sum())
