"""Reject inference, and the check that says both no and yes when it should."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from quayside.foundation.errors import InputError, UsageError
from quayside.kycc.reject_inference import INFERRED, Parcelling, Usefulness, check, infer
from quayside.kycc.training.split import labels_of
from quayside.kycc.training.train import Learner

pytestmark = pytest.mark.unit

LEARNER = Learner(("seen", "hidden"), {}, 0.05)


def parties(rows: int, seed: int, cliff: float) -> pa.Table:
    """Refused are the lowest in `score`, which is `hidden` itself. Below 0.3 the odds of bad are `cliff` times as high;
    above, `hidden` says nothing, so that accepted parties alone cannot teach it."""
    rng = np.random.default_rng(seed)
    hidden, seen = rng.random(rows), rng.normal(size=rows)
    odds = np.exp(-1.8 - 0.8 * seen) * np.where(hidden < 0.3, cliff, 1.0)
    label = (rng.random(rows) < odds / (1 + odds)).astype(np.int8)
    return pa.table(
        {
            "batch_id": ["B"] * rows,
            "party_id": [f"P{i}" for i in range(rows)],
            "as_of": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * rows, pa.timestamp("us", "UTC")),
            "label": label,
            "label_source": pa.array(["observed"] * rows).dictionary_encode(),
            "seen": seen,
            "hidden": hidden,
            "score": hidden,
        }
    )


def test_it_does_not_help_where_the_refusal_knew_nothing() -> None:
    found = check(parties(3000, 1, cliff=1.0), LEARNER)
    assert not found.helped
    assert "did not help beyond chance" in found.sentence
    assert not found.findings.passed
    assert found.findings.figures["rows"] == 3000


def test_a_gain_that_may_be_chance_is_no_help() -> None:
    found = Usefulness(0.70, 0.71, 0.75, low=-0.005, high=0.025, refused_share=0.3, rows=900)
    assert not found.helped
    assert found.sentence == (
        "With the outcomes of 30% of 900 parties hidden as if refused, reject inference did not help beyond chance, so do "
        "without it: +0.0100 AUC (95 % interval -0.0050 to +0.0250), where knowing them would have given +0.0500."
    )


def test_it_helps_where_the_factor_says_what_the_refusal_knew() -> None:
    found = check(parties(3000, 2, cliff=8.0), LEARNER, Parcelling(factor=8.0))
    assert found.helped
    assert found.findings.passed
    assert found.without < found.inferred <= found.ceiling + 0.01
    assert found.low < found.inferred - found.without < found.high


def test_the_same_data_is_not_helped_without_that_knowledge() -> None:
    found = check(parties(3000, 2, cliff=8.0), LEARNER, Parcelling(factor=1.0))
    assert found.ceiling - found.without > 0.05, "there was something to gain"
    assert found.inferred - found.without < 0.02


@pytest.mark.parametrize("factor", [1.0, 4.0])
def test_inferred_bads_have_the_odds_of_their_band_times_the_factor(factor: float) -> None:
    rng = np.random.default_rng(3)
    risk = rng.random(20_000)
    label = (rng.random(20_000) < risk * 0.5).astype(np.int8)
    refused = np.full(20_000, 0.85)
    inferred = Parcelling(factor=factor, bands=10).labels(risk, label, refused)
    share = label[(risk > 0.8) & (risk < 0.9)].mean()
    odds = factor * share / (1 - share)
    assert inferred.mean() == pytest.approx(odds / (1 + odds), abs=0.04)
    assert (inferred == Parcelling(factor=factor, bands=10).labels(risk, label, refused)).all()


def test_beyond_what_was_accepted_the_riskiest_band_speaks() -> None:
    risk = np.linspace(0, 1, 1000)
    label = (risk > 0.9).astype(np.int8)
    assert Parcelling().labels(risk, label, np.full(2000, 50.0)).mean() > 0.95
    assert Parcelling().labels(risk, label, np.full(2000, -50.0)).mean() < 0.05


def test_inferred_rows_stand_below_and_say_what_they_are() -> None:
    known, refused = parties(500, 4, 2.0), parties(200, 5, 2.0).drop_columns(["label", "label_source"])
    both = infer(known, refused, LEARNER)
    assert both.num_rows == 700
    assert both.column_names == known.column_names
    assert both["label_source"].to_pylist() == ["observed"] * 500 + [INFERRED] * 200
    assert (labels_of(both.slice(0, 500)) == labels_of(known)).all()
    assert both["seen"].to_pylist()[500:] == refused["seen"].to_pylist()


def test_errors_say_what_is_needed() -> None:
    table = parties(200, 6, 1.0)
    with pytest.raises(InputError, match="column score"):
        check(table.drop_columns(["score"]), LEARNER)
    with pytest.raises(UsageError, match="refused_share"):
        check(table, LEARNER, refused_share=1.0)
    with pytest.raises(UsageError, match="factor"):
        Parcelling(factor=0)
    with pytest.raises(UsageError, match="bands"):
        Parcelling(bands=0)
    goods = table.set_column(3, "label", pa.array(np.zeros(200, np.int8)))
    with pytest.raises(InputError, match="good and bad accepted parties"):
        infer(goods, goods, LEARNER)
