"""Two cards side by side: what is counted, and when there is a test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from tests.kycc.features.batches import create

from quayside.foundation.errors import NotFoundError
from quayside.kycc import features
from quayside.kycc.challenger import Comparison, compare, paired_test
from quayside.kycc.scorecard import Characteristic, Scorecard

pytestmark = pytest.mark.unit

MOMENT = datetime(2026, 1, 31, tzinfo=UTC)


def card(version: str, *points: int) -> Scorecard:
    """Points by supplier_count: below 1, 2, 3 and above."""
    reason = {"reason": "Few suppliers.", "missing_reason": "Suppliers unknown."}
    return Scorecard(
        version,
        (
            Characteristic(
                "supplier_count", "Suppliers", "numeric", points, 0, cuts=(1.0, 2.0, 3.0), **reason
            ),
        ),
    )


OLD, NEW = card("old", 0, 200, 450, 600), card("new", 0, 350, 450, 600)


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    """Batch B: parties with 0, 1, 1, 2 and 3 suppliers."""
    with duckdb.connect() as con:
        create(con, (features.FEATURES_WIDE,))
        for party, suppliers in enumerate((0, 1, 1, 2, 3)):
            con.execute(
                "INSERT INTO kycc.features (batch_id, party_id, as_of, supplier_count) VALUES ('B', ?, ?, ?)",
                [f"P{party}", MOMENT, suppliers],
            )
        yield con


def labels(good: int, bad: int, source: str = "observed") -> pa.Table:
    """Good parties have 1 … 3 suppliers, bad ones 0 … 2."""
    n = good + bad
    return pa.table(
        {
            "batch_id": ["A"] * n,
            "label": np.repeat(np.array([0, 1], np.int8), [good, bad]),
            "label_source": [source] * n,
            "supplier_count": [1 + i % 3 for i in range(good)] + [i % 3 for i in range(bad)],
        }
    )


def side_by_side(con: duckdb.DuckDBPyConnection, rows: pa.Table) -> Comparison:
    return compare(con, OLD, NEW, "B", MOMENT, rows)


def test_what_moves_is_counted(con: duckdb.DuckDBPyConnection) -> None:
    found = side_by_side(con, labels(0, 0))
    assert (found.parties, found.mean_shift, found.largest_shift) == (5, 60, 150)
    assert found.bands == {
        "excellent": (1, 1), "good": (1, 1), "fair": (0, 2), "poor": (2, 0), "very_poor": (1, 1)
    }  # fmt: skip
    assert found.moved == {("poor", "fair"): 2}
    assert found.decisions_changed == 0
    assert found.rank_correlation == pytest.approx(1)
    assert found.as_dict()["moved"] == [{"from": "poor", "to": "fair", "parties": 2}]


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        (labels(0, 0), "has an observed outcome"),
        (labels(50, 50, "simulated"), "has an observed outcome"),
        (labels(50, 19), "too few"),
        (labels(19, 50), "too few"),
    ],
)
def test_without_enough_outcomes_there_is_no_test(
    con: duckdb.DuckDBPyConnection, rows: pa.Table, note: str
) -> None:
    found = side_by_side(con, rows)
    assert found.test is None
    assert note in found.test_note


def test_with_outcomes_there_is_a_paired_test(con: duckdb.DuckDBPyConnection) -> None:
    found = side_by_side(con, labels(60, 30))
    assert found.test is not None
    assert (found.test.good, found.test.bad, found.test.difference, found.test.p_value) == (60, 30, 0, 1)
    assert found.test_note.startswith("90 parties of 1 batch ")


def test_the_test_knows_better_from_worse() -> None:
    rng = np.random.default_rng(7)
    label = (rng.random(2000) < 0.2).astype(np.int8)
    truth = -label + rng.normal(0, 1, 2000)
    noisy = truth + rng.normal(0, 2, 2000)
    better = paired_test(label, noisy, truth)
    assert better.difference > 0
    assert better.low > 0
    assert better.p_value < 1e-6
    worse = paired_test(label, truth, noisy)
    assert (worse.difference, worse.high) == (-better.difference, -better.low)
    assert worse.p_value == better.p_value


def test_the_test_is_as_often_wrong_as_it_says() -> None:
    rng = np.random.default_rng(11)
    label = np.repeat(np.array([0, 1], np.int8), [150, 50])
    found = [paired_test(label, *(-label + rng.normal(0, 1, (2, 200)))).p_value < 0.05 for _ in range(600)]
    assert 0.02 < np.mean(found) < 0.09  # 0.05 with a standard error of 0.009


def test_scores_of_a_narrow_type_are_not_turned_round() -> None:
    label = np.array([0, 0, 1, 1], np.int8)
    scores = np.array([200, 190, 10, 0], np.uint8)
    assert paired_test(label, scores, scores).champion_auc == 1


def test_a_batch_without_features_is_named(con: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(NotFoundError, match="Batch C has no features"):
        compare(con, OLD, replace(NEW, version="other"), "C", MOMENT, labels(0, 0))
