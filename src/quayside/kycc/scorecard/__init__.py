"""Points scorecards: cards as data, the vectorised engine, decision rules, explanations, export to SQL.

What belongs here computes from feature columns alone. Where features come from and where scores go is the business of
:mod:`quayside.kycc.features` and :mod:`quayside.kycc.scoring`.
"""

from quayside.kycc.scorecard.batch import BAND_NAMES, DECISION_NAMES, ScoredBatch
from quayside.kycc.scorecard.card import Characteristic, Scaling, Scorecard
from quayside.kycc.scorecard.engine import Scores, codes, evaluate, points, score
from quayside.kycc.scorecard.files import load_scorecard, packaged_versions, parse_scorecard
from quayside.kycc.scorecard.reasons import Explanation, explain, render_bars
from quayside.kycc.scorecard.rules import Rule
from quayside.kycc.scorecard.sql import to_sql

__all__ = [
    "BAND_NAMES",
    "DECISION_NAMES",
    "Characteristic",
    "Explanation",
    "Rule",
    "Scaling",
    "Scorecard",
    "ScoredBatch",
    "Scores",
    "codes",
    "evaluate",
    "explain",
    "load_scorecard",
    "packaged_versions",
    "parse_scorecard",
    "points",
    "render_bars",
    "score",
    "to_sql",
]
