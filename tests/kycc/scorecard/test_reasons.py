"""Explanations: the whole way from 300 to the decision, as data and as bars."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from quayside.foundation.errors import InputError
from quayside.kycc.scorecard import (
    Characteristic,
    Rule,
    Scorecard,
    evaluate,
    explain,
    load_scorecard,
    render_bars,
)
from quayside.kycc.scorecard.texts import interval_label, number

from .cases import Case, cases, is_missing

pytestmark = pytest.mark.unit

CARD = Scorecard(
    "t1",
    (
        Characteristic(
            feature="age", label="Age", kind="numeric", cuts=(1, 2.5), points=(0, 10, 20), missing=5,
            reason="Younger than {upper}.", missing_reason="Age is unknown.", bin_reasons=((0, "Newborn."),),
        ),
        Characteristic(
            feature="type", label="Type", kind="categorical", categories=(("a", "b"), ("c",)), points=(1, 40),
            other=0, missing=0, reason="Type is not c.", missing_reason="Type is unknown.",
        ),
        Characteristic(
            feature="flag", label="Flag", kind="numeric", cuts=(1,), points=(0, 5), missing=0,
            reason="No flag.", missing_reason="Flag is unknown.", bin_labels=("no", "yes"),
        ),
    ),
    rules=(
        Rule("bonus", 1, "volume > 5", "adjust", "Large volume.", amount=25),
        Rule("limit", 2, "age < 2", "cap", "Too young.", amount=320),
        Rule("mark", 3, "age < 2", "flag", "Look at it.", flag="young"),
    ),
    extra_features=("volume",),
)  # fmt: skip


def test_an_explanation_holds_every_step() -> None:
    explanation = explain(CARD, {"age": 1.5, "type": "b", "flag": 0, "volume": 6, "ignored": object()})
    assert explanation.as_dict() == {
        "version": "t1",
        "base": 300,
        "raw_score": 311,
        "total_score": 320,
        "band": "very_poor",
        "decision": "decline",
        "flags": ("young",),
        "characteristics": (
            {"feature": "age", "label": "Age", "value": 1.5, "bin": "1 to under 2.5", "shown": "1.5",
             "points": 10, "max_points": 20, "sentence": "Younger than 2.5."},
            {"feature": "type", "label": "Type", "value": "b", "bin": "a, b", "shown": "b",
             "points": 1, "max_points": 40, "sentence": "Type is not c."},
            {"feature": "flag", "label": "Flag", "value": 0, "bin": "no", "shown": "0 (no)",
             "points": 0, "max_points": 5, "sentence": "No flag."},
        ),
        "rules": (
            {"id": "bonus", "text": "Large volume.", "before": 311, "after": 336, "flag": ""},
            {"id": "limit", "text": "Too young.", "before": 336, "after": 320, "flag": ""},
            {"id": "mark", "text": "Look at it.", "before": 320, "after": 320, "flag": "young"},
        ),
        "clamped": 0,
        "reasons": ("type", "age", "flag"),
        "reason_sentences": ["Type is not c.", "Younger than 2.5.", "No flag."],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("row", "bins", "sentences"),
    [
        ({"age": None, "type": None, "flag": math.nan}, ["missing"] * 3,
         ["Type is unknown.", "Age is unknown.", "Flag is unknown."]),
        ({"age": 0.5, "type": "zzz", "flag": 1}, ["under 1", "other", "yes"], ["Type is not c.", "Newborn."]),
        ({"age": np.float64(2.5), "type": "c", "flag": True}, ["2.5 or more", "c", "yes"], []),
    ],
)  # fmt: skip
def test_bins_and_sentences(row: dict[str, Any], bins: list[str], sentences: list[str]) -> None:
    explanation = explain(CARD, row | {"volume": 0})
    assert [item.bin for item in explanation.characteristics] == bins
    assert list(explanation.reason_sentences) == sentences
    values = [item.value for item in explanation.characteristics]
    assert [value is None for value in values] == [name == "missing" for name in bins]


@pytest.mark.slow
@settings(max_examples=50)
@given(cases())
def test_an_explanation_adds_up_and_agrees_with_the_batch(case: Case) -> None:
    scored = evaluate(case.card, case.columns).to_arrow().to_pylist()
    for row, expected in zip(case.rows, scored, strict=True):
        explanation = explain(case.card, row)
        assert explanation.raw_score == 300 + sum(item.points for item in explanation.characteristics)
        running = explanation.raw_score
        for effect in explanation.rules:
            assert effect.before == running
            running = effect.after
        assert explanation.total_score == running + explanation.clamped
        assert [effect.id for effect in explanation.rules] == expected["rules_applied"]
        for field in ("raw_score", "total_score", "band", "decision"):
            assert getattr(explanation, field) == expected[field]
        assert list(explanation.flags) == expected["flags"]
        assert list(explanation.reasons) == expected["reasons"]
        lost = {item.feature: item.points_lost for item in explanation.characteristics}
        assert [lost[feature] for feature in explanation.reasons] == expected["reason_points"]
        for item in explanation.characteristics:
            assert bool(item.sentence) == (item.points_lost > 0)
            assert (item.bin == "missing" and item.value is None) == is_missing(row[item.feature])
        render_bars(explanation)


def test_bars() -> None:
    explanation = explain(CARD, {"age": 1.5, "type": "c", "flag": 1, "volume": 6})
    assert render_bars(explanation, width=52).splitlines() == [
        "Score 320 · very_poor · decline (scorecard t1)",
        "",
        "base                300",
        "Age        1.5       10/20   ██████······",
        "Type       c         40/40   ███████████████████████",
        "Flag       1 (yes)    5/5    ███",
        "raw score           355",
        "rule bonus: 355 → 380. Large volume.",
        "rule limit: 380 → 320. Too young.",
        "rule mark: flag young. Look at it.",
        "",
        "Strongest reasons against:",
        "  -10   Younger than 2.5.",
    ]
    plain = render_bars(explanation, width=52, unicode=False)
    assert plain.isascii()
    assert "Age        1.5       10/20   ######......" in plain


def test_bars_show_the_clamp_and_rules_that_changed_nothing() -> None:
    card = Scorecard(
        "t2",
        CARD.characteristics[:1],
        rules=(
            Rule("down", 1, "age >= 0", "adjust", "Down.", amount=-100),
            Rule("limit", 2, "age >= 0", "cap", "Low.", amount=800),
        ),
    )
    text = render_bars(explain(card, {"age": 1.5}))
    assert "rule down: 310 → 210. Down." in text
    assert "rule limit: 210, unchanged. Low." in text
    assert "kept within 300 and 900: +90" in text


def test_v1_explained_row_fits_a_terminal_and_json() -> None:
    card = load_scorecard("v1")
    row: dict[str, Any] = dict.fromkeys(card.required_features, 0.5) | {"network_size": None}
    row["transaction_count_6m"] = np.int64(3)
    explanation = explain(card, row)
    json.loads(json.dumps(explanation.as_dict()))
    text = render_bars(explanation, width=80)
    bars = [line for line in text.splitlines() if "█" in line or "··" in line]
    assert len(bars) == len(card.characteristics)
    assert max(len(line) for line in bars) <= 80


def test_a_row_without_a_feature_is_refused() -> None:
    with pytest.raises(InputError, match="The scorecard reads 'flag', 'volume', but there is no such column"):
        explain(CARD, {"age": 1, "type": "a"})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5.0, "5"), (100_000, "100,000"), (0.25, "0.25"), (-1.5, "-1.5"), (1234.5678, "1,234.5678"), (0.0, "0"),
        (1e-9, "1e-09"), (1e20, "1e+20"), (0.00012, "0.00012"), (math.inf, "inf"), (-math.inf, "-inf"),
    ],
)  # fmt: skip
def test_numbers_as_people_write_them(value: float, text: str) -> None:
    assert number(value) == text


def test_labels_say_which_side_is_closed() -> None:
    inf = math.inf
    assert interval_label(-inf, 1, closed="left") == "under 1"
    assert interval_label(1, 2, closed="left") == "1 to under 2"
    assert interval_label(2, inf, closed="left") == "2 or more"
    assert interval_label(-inf, 1, closed="right") == "up to 1"
    assert interval_label(1, 2, closed="right") == "over 1 up to 2"
    assert interval_label(2, inf, closed="right") == "over 2"
    assert interval_label(-inf, inf, closed="left") == "any value"
