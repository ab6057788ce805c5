"""Why a row scored as it did: every characteristic's points, the rules that moved the score, the reasons in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from quayside.kycc.scorecard.batch import BAND_NAMES, DECISION_NAMES
from quayside.kycc.scorecard.card import Characteristic, Scorecard
from quayside.kycc.scorecard.engine import codes, evaluate
from quayside.kycc.scorecard.texts import number


@dataclass(frozen=True)
class CharacteristicPoints:
    """One bar of the explanation.

    Attributes:
        value: as given, None where missing.
        bin: what the value's bin is called.
        shown: value as people read it, with the bin's name where it says more than the number.
        sentence: why points were lost, empty where none were.
    """

    feature: str
    label: str
    value: Any
    bin: str
    shown: str
    points: int
    max_points: int
    sentence: str

    @property
    def points_lost(self) -> int:
        return self.max_points - self.points


@dataclass(frozen=True)
class RuleEffect:
    """A decision rule that fired: the running score before and after it, the flag it raised if any."""

    id: str
    text: str
    before: int
    after: int
    flag: str


@dataclass(frozen=True)
class Explanation:
    """The whole way from 300 to the decision, for one row.

    Attributes:
        characteristics: all of them, in card order; ``raw_score`` is `base` plus their points.
        rules: those that fired, in order of application.
        clamped: points by which the final clamp to 300–900 moved the score.
        reasons: features of the strongest reasons against, most points lost first, at most four.
    """

    version: str
    base: int
    raw_score: int
    total_score: int
    band: str
    decision: str
    flags: tuple[str, ...]
    characteristics: tuple[CharacteristicPoints, ...]
    rules: tuple[RuleEffect, ...]
    clamped: int
    reasons: tuple[str, ...]

    @property
    def reason_sentences(self) -> tuple[str, ...]:
        """The reasons in words, in their order."""
        sentences = {item.feature: item.sentence for item in self.characteristics}
        return tuple(sentences[feature] for feature in self.reasons)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"reason_sentences": list(self.reason_sentences)}


def explain(card: Scorecard, row: Mapping[str, Any]) -> Explanation:
    """Explanation of one row, computed by the same engine that scores batches.

    Args:
        row: value or None for each feature in ``card.required_features``; others are ignored.

    Raises:
        InputError: a feature is absent or of the wrong type.
    """
    columns = {name: [row[name]] for name in card.required_features if name in row}
    scored = evaluate(card, columns)
    bars = []
    for item, code in zip(card.characteristics, codes(card, columns)[0].tolist(), strict=True):
        points = item.points_by_code[code]
        sentence = item.code_reason(code) if points < item.max_points else ""
        value = row[item.feature] if code else None
        value = value.item() if isinstance(value, np.generic) else value
        bars.append(
            CharacteristicPoints(
                feature=item.feature,
                label=item.label,
                value=value,
                bin=item.code_label(code),
                shown=_shown(item, code, value),
                points=points,
                max_points=item.max_points,
                sentence=sentence,
            )
        )
    effects, running = [], int(scored.raw_score[0])
    for position, rule in enumerate(card.ordered_rules):
        if int(scored.rules[0]) >> position & 1:
            after = running + int(scored.rule_deltas[0, position])
            effects.append(RuleEffect(rule.id, rule.text, running, after, rule.flag))
            running = after
    return Explanation(
        version=card.version,
        base=card.base,
        raw_score=int(scored.raw_score[0]),
        total_score=int(scored.total_score[0]),
        band=BAND_NAMES[scored.band[0]],
        decision=DECISION_NAMES[scored.decision[0]],
        flags=tuple(name for bit, name in enumerate(card.flags) if int(scored.flags[0]) >> bit & 1),
        characteristics=tuple(bars),
        rules=tuple(effects),
        clamped=int(scored.clamped[0]),
        reasons=tuple(card.features[index] for index in scored.reasons[0].tolist() if index >= 0),
    )


def render_bars(explanation: Explanation, *, width: int = 80, unicode: bool = True) -> str:
    """Explanation as plain text for a terminal, points as bars.

    Args:
        width: columns to use; bars shrink before texts are cut.
        unicode: draw with block characters; ASCII otherwise.
    """
    full, empty = ("█", "·") if unicode else ("#", ".")
    bars = explanation.characteristics
    label_width = min(max(len("raw score"), *(len(item.label) for item in bars)), 36)
    value_width = min(max(len(item.shown) for item in bars), 22)
    bar_width = max(8, min(40, width - label_width - value_width - 13))
    longest = max(item.max_points for item in bars) or 1

    def line(label: str, value: str, points: str) -> str:
        return (
            f"{_cut(label, label_width):<{label_width}}  {_cut(value, value_width):<{value_width}}  {points}"
        )

    lines = [
        f"Score {explanation.total_score} · {explanation.band} · {explanation.decision}"
        f" (scorecard {explanation.version})",
        "",
        line("base", "", str(explanation.base)),
    ]
    for item in bars:
        length = round(bar_width * item.max_points / longest)
        filled = round(bar_width * item.points / longest)
        bar = full * filled + empty * (length - filled)
        lines.append(line(item.label, item.shown, f"{item.points:>3}/{item.max_points:<3}  {bar}"))
    lines.append(line("raw score", "", str(explanation.raw_score)))
    for effect in explanation.rules:
        if effect.flag:
            change = f"flag {effect.flag}"
        elif effect.before == effect.after:
            change = f"{effect.after}, unchanged"
        else:
            change = f"{effect.before} → {effect.after}"
        lines.append(f"rule {effect.id}: {change}. {effect.text}")
    if explanation.clamped:
        lines.append(f"kept within 300 and 900: {explanation.clamped:+d}")
    if explanation.reasons:
        lines += ["", "Strongest reasons against:"]
        lost = {item.feature: item for item in bars}
        for feature in explanation.reasons:
            lines.append(f"  -{lost[feature].points_lost:<4} {lost[feature].sentence}")
    text = "\n".join(lines)
    return text if unicode else text.replace("·", "-").replace("→", "->").replace("…", "~")


def _shown(item: Characteristic, code: int, value: Any) -> str:
    if code == 0:
        return "missing"
    if item.kind == "categorical":
        return str(value)
    text = number(float(value))
    return f"{text} ({item.code_label(code)})" if item.bin_labels else text


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
