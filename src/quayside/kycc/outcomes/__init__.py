"""Outcomes: what became of parties after their batch was scored, from a file into ``kycc.outcomes``.

Belongs here: what an outcome file may say and what is kept of it. Does not: which outcomes make a label
(`quayside.kycc.labels`). Outcomes never reach a feature: no query of `quayside.kycc.features` reads these tables.
"""

from quayside.kycc.outcomes.load import load_outcomes
from quayside.kycc.outcomes.result import OutcomeResult

__all__ = ["OutcomeResult", "load_outcomes"]
