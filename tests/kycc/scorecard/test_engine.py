"""The engine against the slow reference, and the kinds of columns it takes."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings

from quayside.foundation.errors import InputError
from quayside.kycc.scorecard import (
    BAND_NAMES,
    DECISION_NAMES,
    Characteristic,
    Rule,
    Scorecard,
    engine,
    evaluate,
    points,
    score,
)

from .cases import Case, anything_finite, cases, reference_points, reference_score

pytestmark = pytest.mark.unit

TEXTS = {"label": "x", "reason": "Lost.", "missing_reason": "Missing."}


def numeric(
    feature: str, cuts: tuple[float, ...], earned: tuple[int, ...], missing: int = 0, closed: Any = "left"
) -> Characteristic:
    return Characteristic(
        feature=feature, kind="numeric", cuts=cuts, points=earned, missing=missing, closed=closed, **TEXTS
    )


def categorical(feature: str) -> Characteristic:
    return Characteristic(
        feature=feature, kind="categorical", categories=(("a", "b"), ("c",)), points=(5, 9), other=2, missing=1,
        **TEXTS,
    )  # fmt: skip


STEP = Scorecard("step", (numeric("x", (0.7,), (0, 10), missing=3),))


@settings(max_examples=80)
@given(cases())
@pytest.mark.slow
def test_evaluation_equals_the_reference_row_by_row(case: Case) -> None:
    check(case)


@settings(max_examples=50)
@given(cases(numbers=anything_finite, rules=False))
def test_points_equal_the_reference_over_the_whole_range_of_doubles(case: Case) -> None:
    check(case)


def check(case: Case) -> None:
    scored = evaluate(case.card, case.columns)
    table = scored.to_arrow().to_pylist()
    matrix = points(case.card, case.columns)
    without = score(case.card, case.columns, reasons=False)
    for i, row in enumerate(case.rows):
        expected = reference_score(case.card, row, case.wrapped)
        assert matrix[i].tolist() == [
            reference_points(item, row[item.feature]) for item in case.card.characteristics
        ]
        assert table[i] == {
            "raw_score": expected.raw,
            "total_score": expected.total,
            "band": expected.band,
            "decision": expected.decision,
            "flags": sorted(expected.flags, key=case.card.flags.index),
            "reasons": [feature for feature, _ in expected.reasons],
            "reason_points": [lost for _, lost in expected.reasons],
            "rules_applied": expected.rules,
        }
        assert scored.rule_deltas[i].tolist() == expected.deltas
        assert scored.clamped[i] == expected.total - expected.raw - sum(expected.deltas)
        assert without.raw_score[i] == expected.raw


def test_many_rows_and_characteristics_cross_chunks_and_the_wide_packing() -> None:
    """65 and 127 characteristics leave 16-bit packing; the row count ends inside a chunk."""
    rng = np.random.default_rng(7)
    rows = engine.CHUNK + 1001
    for count in (64, 65, 127):
        items = tuple(
            numeric(
                f"f{i}", (-0.5, 0.5), tuple(rng.integers(0, 5, 3).tolist()), missing=int(rng.integers(0, 5))
            )
            for i in range(count)
        )
        card = Scorecard("wide", items)
        columns = {f"f{i}": rng.normal(size=rows) for i in range(count)}
        columns["f3"][::17] = np.nan
        scores = score(card, columns)
        matrix = points(card, columns)
        best = np.array([item.max_points for item in items])
        lost = best - matrix
        order = np.argsort(-lost, axis=1, kind="stable")[:, :4]
        expected_lost = np.take_along_axis(lost, order, axis=1)
        assert np.array_equal(scores.raw_score, 300 + matrix.sum(axis=1))
        assert np.array_equal(scores.reason_points, expected_lost)
        assert np.array_equal(scores.reasons, np.where(expected_lost > 0, order, -1))
        for i in (0, engine.CHUNK - 1, engine.CHUNK, rows - 1):
            assert matrix[i].tolist() == [
                reference_points(item, columns[item.feature][i].item()) for item in items
            ]


@pytest.mark.parametrize("others", [63, 64, 126])
def test_a_loss_of_600_points_is_kept_whole(others: int) -> None:
    names = [f"y{i}" for i in range(others)]
    card = Scorecard("all", (numeric("x", (1,), (0, 600)), *(numeric(name, (), (0,)) for name in names)))
    scores = score(card, {"x": [0.0], **{name: [0.0] for name in names}})
    assert scores.raw_score.tolist() == [300]
    assert scores.reasons is not None
    assert scores.reasons.tolist() == [[0, -1, -1, -1]]
    assert scores.reason_points is not None
    assert scores.reason_points.tolist() == [[600, 0, 0, 0]]


def test_ties_go_to_the_characteristic_listed_first() -> None:
    items = tuple(numeric(name, (1,), (0, 7)) for name in ("e", "d", "c", "b", "a"))
    scored = evaluate(Scorecard("ties", items), {name: [0.0] for name in "abcde"})
    assert scored.to_arrow()["reasons"].to_pylist() == [["e", "d", "c", "b"]]


def test_values_on_a_cut_follow_the_closed_side() -> None:
    left = Scorecard("left", (numeric("x", (1.0, 2.0), (1, 2, 3)),))
    right = Scorecard("right", (numeric("x", (1.0, 2.0), (1, 2, 3), closed="right"),))
    column = {"x": [-math.inf, 1.0, 1.5, 2.0, math.inf]}
    assert points(left, column)[:, 0].tolist() == [1, 2, 2, 3, 3]
    assert points(right, column)[:, 0].tolist() == [1, 1, 2, 2, 3]


@pytest.mark.parametrize(
    "column",
    [
        np.array([0.5, 0.9, np.nan]),
        np.array([0.5, 0.9, np.nan], np.float32),
        np.ma.masked_array([0.5, 0.9, 0.9], [False, False, True]),
        np.array([0.5, 0.9, None], object),
        [0.5, 0.9, None],
        [Decimal("0.5"), Decimal("0.9"), None],
        pa.array([0.5, 0.9, None]),
        pa.array([0.5, 0.9, float("nan")]),
        pa.array([Decimal("0.5"), Decimal("0.9"), None]),
        pa.chunked_array([[0.5], [0.9, None]]),
        pa.chunked_array([[0.5, 0.9, None]]),
        pa.array([0.5, 0.9, None]).dictionary_encode(),
        pl.Series([0.5, 0.9, None]),
        pa.array([9, 0.5, 0.9, None, 7]).slice(1, 3),
    ],
    ids=lambda column: f"{type(column).__module__}.{type(column).__name__}-{getattr(column, 'type', '')}",
)
def test_every_kind_of_numeric_column(column: Any) -> None:
    assert score(STEP, {"x": column}).raw_score.tolist() == [300, 310, 303]


@pytest.mark.parametrize(
    "column",
    [
        np.array([0, 1]),
        np.array([0, 1], np.uint8),
        np.array([False, True]),
        pa.array([0, 1], pa.int8()),
        pa.array([False, True]),
        [0, 1],
    ],
)
def test_whole_numbers_and_truth_values(column: Any) -> None:
    assert score(STEP, {"x": column}).raw_score.tolist() == [300, 310]


def test_a_single_precision_value_is_compared_as_the_double_it_is() -> None:
    value = np.array([0.7], np.float32)
    assert float(value[0]) < 0.7
    assert score(STEP, {"x": value}).raw_score.tolist() == [300]


def test_a_column_of_nulls_is_missing_throughout() -> None:
    card = Scorecard("nulls", (numeric("x", (1,), (0, 10), missing=3), categorical("y")))
    scores = score(card, {"x": [None, None], "y": [None, None]})
    assert scores.raw_score.tolist() == [304, 304]


@pytest.mark.parametrize(
    "column",
    [
        ["a", "b", "c", "zzz", None],
        np.array(["a", "b", "c", "zzz", None], object),
        np.array(["a", "b", "c", "zzz", np.nan], object),
        pa.array(["a", "b", "c", "zzz", None]),
        pa.array(["a", "b", "c", "zzz", None], pa.large_string()),
        pa.array(["a", "b", "c", "zzz", None], pa.string_view()),
        pa.array(["a", "b", "c", "zzz", None]).dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([2, 1, 0, 3, 4]), pa.array(["c", "b", "a", "zzz", None])),
        pa.chunked_array([pa.array(["a", "b"]).dictionary_encode(), pa.array(["c", "zzz", None]).dictionary_encode()]),
        pl.Series(["a", "b", "c", "zzz", None]),
        pl.Series(["a", "b", "c", "zzz", None], dtype=pl.Categorical()),
    ],
    ids=lambda column: f"{type(column).__module__}.{type(column).__name__}-{getattr(column, 'type', '')}",
)  # fmt: skip
def test_every_kind_of_text_column(column: Any) -> None:
    card = Scorecard("text", (categorical("y"),))
    assert score(card, {"y": column}).raw_score.tolist() == [305, 305, 309, 302, 301]


@pytest.mark.parametrize(
    ("column", "complaint"),
    [
        (["1", "2"], "Feature 'x' must be numeric, but its column holds string."),
        (np.array(["2024-01-01"], "M8[D]"), "Feature 'x' must be numeric, but its column holds date32"),
        (np.array([[1.0]]), "Feature 'x' must be one column, but it has shape"),
        ([1.0, "a"], "Feature 'x' holds values of mixed or unknown types."),
        ([object()], "Feature 'x' holds values of mixed or unknown types."),
        (np.array([1j]), "Feature 'x' holds values of mixed or unknown types."),
        ([10**30], "Feature 'x' holds values of mixed or unknown types."),
    ],
)
def test_columns_that_are_no_numbers_are_refused(column: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint[:20]) as caught:
        score(STEP, {"x": column})
    assert complaint in str(caught.value)


def test_numbers_in_a_categorical_column_are_refused() -> None:
    with pytest.raises(InputError, match="Feature 'y' is categorical, but its column holds int64"):
        score(Scorecard("text", (categorical("y"),)), {"y": [1, 2]})


def test_absent_columns_and_different_lengths_are_refused() -> None:
    card = Scorecard("two", (numeric("x", (1,), (0, 10)), numeric("y", (1,), (0, 10))), extra_features=("z",))
    with pytest.raises(InputError, match="The scorecard reads 'y', 'z', but there is no such column"):
        evaluate(card, {"x": [1.0]})
    with pytest.raises(InputError, match="differ in length: 'y' has 1 rows, 'x' has 2"):
        evaluate(card, {"x": [1.0, 2.0], "y": [1.0], "z": [1.0, 2.0]})


def test_no_rows_give_no_scores() -> None:
    card = Scorecard("none", (numeric("x", (1,), (0, 10)), categorical("y")))
    scored = evaluate(card, {"x": np.array([]), "y": pa.array([], pa.string())})
    assert len(scored) == 0
    assert scored.reasons.shape == (0, 4)
    assert scored.to_arrow().num_rows == 0
    assert sum(scored.band_counts().values()) == 0


def test_inputs_are_left_as_they_were() -> None:
    column = np.array([0.1, np.nan, 0.9])
    before = column.copy()
    evaluate(STEP, {"x": column})
    assert np.array_equal(column, before, equal_nan=True)


def test_bands_and_decisions_follow_the_one_table() -> None:
    """Every total score from 300 to 900, reached by points alone."""
    item = numeric("x", tuple(float(i) for i in range(1, 201)), tuple(range(201)))
    card = Scorecard("all", (item, *(numeric(f"y{i}", (1,), (0, 100)) for i in range(4))))
    extra = np.repeat(np.arange(5), 201)
    columns: dict[str, Any] = {"x": np.tile(np.arange(201.0), 5)}
    columns |= {f"y{i}": (extra > i).astype(float) for i in range(4)}
    scored = evaluate(card, columns)
    floors = {"excellent": 800, "good": 700, "fair": 600, "poor": 450, "very_poor": 300}
    decisions = {
        "excellent": "approve", "good": "approve", "fair": "review", "poor": "review", "very_poor": "decline",
    }  # fmt: skip
    assert set(scored.total_score.tolist()) == set(range(300, 901))
    for total, band, decision in zip(
        scored.total_score.tolist(), scored.band.tolist(), scored.decision.tolist(), strict=True
    ):
        expected = next(name for name, floor in floors.items() if total >= floor)
        assert BAND_NAMES[band] == expected
        assert DECISION_NAMES[decision] == decisions[expected]
    assert scored.band_counts() == {
        name: sum(BAND_NAMES[code] == name for code in scored.band.tolist()) for name in floors
    }
    assert sum(scored.decision_counts().values()) == len(scored)


def test_a_flag_or_a_cap_keeps_a_good_row_from_approval_and_saves_no_bad_one() -> None:
    def decide(*rules: Rule, x: float) -> str:
        card = Scorecard("d", (numeric("x", (1,), (0, 600)),), rules=rules)
        return evaluate(card, {"x": [x]}).to_arrow()["decision"].to_pylist()[0]

    flag = Rule("f", 1, "x >= 0", "flag", "t", flag="look")
    cap = Rule("c", 1, "x >= 0", "cap", "t", amount=900)  # does not lower anything, yet it fired
    assert decide(x=1) == "approve"
    assert decide(flag, x=1) == "review"
    assert decide(cap, x=1) == "review"
    assert decide(flag, cap, x=0) == "decline"
    assert decide(Rule("a", 1, "x >= 0", "adjust", "t", amount=-5), x=1) == "approve"
