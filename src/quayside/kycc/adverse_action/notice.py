"""Notices of adverse action for the parties of a batch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quayside.kycc.adverse_action.reasons import Reason, principal_reasons
from quayside.kycc.adverse_action.texts import NoticeTexts, load_texts
from quayside.kycc.scorecard.batch import DECISION_NAMES
from quayside.kycc.scorecard.engine import evaluate

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa

    from quayside.kycc.scorecard import Scorecard


@dataclass(frozen=True)
class Notice:
    """What one party is told."""

    party_id: str
    scorecard_version: str
    decision: str
    reasons: tuple[Reason, ...]
    text: str


def notices(
    card: Scorecard, table: pa.Table, as_of: datetime, texts: NoticeTexts | None = None
) -> list[Notice]:
    """A notice for each party the card decides on in a way the texts name, in the table's order.

    Args:
        table: ``party_id`` and one column per feature in ``card.required_features``, as `quayside.kycc.scoring.read_features`
            gives it.
        as_of: the features' moment.
        texts: the shipped English ones when left out.

    Raises:
        InputError: a column is absent, or the texts do not fit the card.
    """
    import pyarrow as pa

    texts = texts or load_texts()
    worded = texts.applied_to(card)
    scored = evaluate(worded, {name: table[name] for name in card.required_features})
    wanted = [DECISION_NAMES.index(decision) for decision in texts.decisions]
    due = pa.array([code in wanted for code in scored.decision.tolist()], pa.bool_())
    table = table.filter(due)
    if not table.num_rows:
        return []
    columns = {name: table[name] for name in card.required_features}
    scored = evaluate(worded, columns)
    found = principal_reasons(worded, columns, most=texts.most, scored=scored)
    return [
        _notice(party, card.version, DECISION_NAMES[code], reasons, as_of, texts)
        for party, code, reasons in zip(
            table["party_id"].to_pylist(), scored.decision.tolist(), found, strict=True
        )
    ]


def _notice(
    party: str, version: str, decision: str, reasons: tuple[Reason, ...], as_of: datetime, texts: NoticeTexts
) -> Notice:
    values = {"{party}": party, "{decision}": decision, "{as_of}": f"{as_of:%Y-%m-%d}"}
    lines = [f"{number}. {reason.sentence}" for number, reason in enumerate(reasons, 1)]
    text = "\n".join(
        part for part in (_filled(texts.opening, values), *lines, _filled(texts.closing, values)) if part
    )
    return Notice(party, version, decision, reasons, text)


def _filled(text: str, values: dict[str, str]) -> str:
    """`text` with its fields replaced in one pass, so that a party's name cannot hold a field."""
    return re.sub("|".join(map(re.escape, values)), lambda match: values[match[0]], text)
