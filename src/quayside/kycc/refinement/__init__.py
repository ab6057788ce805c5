"""From a trained model to a better points card: points, blending with the card in use, and the gates before it is offered.

What belongs here computes from a card, a model and tables in memory. Versions and their states are the business of
`quayside.kycc.versions`.
"""

from quayside.kycc.refinement.gates import Gate
from quayside.kycc.refinement.points import model_card
from quayside.kycc.refinement.refine import BinComparison, Refinement, refine

__all__ = ["BinComparison", "Gate", "Refinement", "model_card", "refine"]
