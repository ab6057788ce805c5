"""Reports for people: one self-contained HTML file per training run and per scored batch.

`content` says what a report is made of, `training` and `scoring` lay it out, `sources` fills it from models and the lake.
A page holds its style sheet and its charts, refers to nothing outside itself and reads well in light, dark and print.
"""

from quayside.kycc.report.content import (
    BinRow,
    CharacteristicBins,
    Ranked,
    ScoreCounts,
    ScoringReport,
    Stability,
    TrainingReport,
)
from quayside.kycc.report.scoring import scoring_page
from quayside.kycc.report.sources import scoring_report, skipped_report, training_report
from quayside.kycc.report.training import training_page

__all__ = [
    "BinRow",
    "CharacteristicBins",
    "Ranked",
    "ScoreCounts",
    "ScoringReport",
    "Stability",
    "TrainingReport",
    "scoring_page",
    "scoring_report",
    "skipped_report",
    "training_page",
    "training_report",
]
