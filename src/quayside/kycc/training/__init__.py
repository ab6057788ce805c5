"""Learning from labelled rows: split, bins with weights of evidence, logistic regression, figures.

What belongs here computes from an Arrow table in memory. Where labels come from is the business of
`quayside.kycc.labels`, how a model becomes a points card that of `quayside.kycc.refinement`.
"""

from quayside.kycc.training.bins import Bins
from quayside.kycc.training.config import TrainingConfig
from quayside.kycc.training.metrics import Metrics, PairedAuc, compare_auc
from quayside.kycc.training.model import LearnedCharacteristic, Skipped, TrainedModel, TrainingData
from quayside.kycc.training.split import Parts, split
from quayside.kycc.training.train import measure_card, train

__all__ = [
    "Bins",
    "LearnedCharacteristic",
    "Metrics",
    "PairedAuc",
    "Parts",
    "Skipped",
    "TrainedModel",
    "TrainingConfig",
    "TrainingData",
    "compare_auc",
    "measure_card",
    "split",
    "train",
]
