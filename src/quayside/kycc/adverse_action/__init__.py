"""Why a party was refused, in plain sentences: the principal reasons a lender has to give.

`reasons` finds them, from the same points and rules that made the score; `texts` says them, in words that a YAML file
can replace; `notice` puts them into a letter. `docs/kycc/reasons.md` states the order and the tie rule.
"""

from quayside.kycc.adverse_action.notice import Notice, notices
from quayside.kycc.adverse_action.reasons import MOST, Reason, principal_reasons
from quayside.kycc.adverse_action.texts import NoticeTexts, load_texts, parse_texts

__all__ = [
    "MOST",
    "Notice",
    "NoticeTexts",
    "Reason",
    "load_texts",
    "notices",
    "parse_texts",
    "principal_reasons",
]
