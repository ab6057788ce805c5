"""Each comparison red on a batch shifted to trip it, green on one that is not, and silent about chance."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from tests.kycc.monitoring.cases import CARD, february, january, march, snapshot

from quayside.kycc.checks import Findings
from quayside.kycc.monitoring import (
    LabelCounts,
    Snapshot,
    band_mix,
    characteristic_shifts,
    characteristic_stability,
    coverage,
    feature_stability,
    label_balance,
    score_stability,
)
from quayside.kycc.scorecard import points

pytestmark = pytest.mark.unit

COMPARISONS: dict[str, Callable[[Snapshot, Snapshot], Findings]] = {
    "score": score_stability,
    "features": feature_stability,
    "characteristics": lambda reference, current: characteristic_stability(CARD, reference, current),
    "bands": band_mix,
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_green_on_another_draw_of_the_same_population(name: str) -> None:
    found = COMPARISONS[name](january(), february())
    assert found.passed, found.sentence
    assert found.figures["reference_batch"] == "JANUARY"


@pytest.mark.parametrize("name", COMPARISONS)
def test_red_on_a_riskier_population(name: str) -> None:
    found = COMPARISONS[name](january(), march())
    assert not found.passed
    assert "sampling explains" in found.sentence


def test_score_sentence_states_sizes_and_both_bounds() -> None:
    found = score_stability(january(), march())
    assert "4,000 and 3,000 parties" in found.sentence
    assert "limit 0.25" in found.sentence
    assert {"psi", "noise", "bins", "reference_rows", "current_rows"} <= set(found.figures)


def test_small_batches_rarely_turn_red() -> None:
    """Every check on 60 batches of 40 parties of the same population: by their confidence under one in a hundred each."""
    red = sum(
        not compare(january(), snapshot("SMALL", 40, 100 + seed)).passed
        for seed in range(60)
        for compare in COMPARISONS.values()
    )
    assert red <= 8


def test_the_features_that_moved_are_named_and_no_other() -> None:
    moved = dataclasses.replace(
        february(),
        features=february().features
        | {"avg_transaction_amount": february().features["avg_transaction_amount"] / 3},
    )
    found = feature_stability(january(), moved)
    assert len(found.problems) == 1
    assert found.problems[0].startswith("avg_transaction_amount")


def test_shifts_in_points_add_up_to_the_shift_of_the_mean_raw_score() -> None:
    shifts = characteristic_shifts(CARD, january(), march())
    raw = [points(CARD, batch.features).sum(axis=1).mean() for batch in (january(), march())]
    assert sum(shift.points_shift for shift in shifts) == pytest.approx(raw[1] - raw[0])
    assert max(shifts, key=lambda shift: abs(shift.points_shift)).feature in {
        "kyc_verified",
        "recent_activity_flag",
    }


def test_an_empty_batch_is_compared_with_nothing() -> None:
    empty = snapshot("EMPTY", 0, 1)
    assert characteristic_shifts(CARD, january(), empty) == []
    for compare in COMPARISONS.values():
        assert compare(january(), empty).passed
        assert compare(empty, january()).passed


def test_coverage_is_green_and_names_what_is_missing() -> None:
    assert coverage(january(), february()).passed
    assert coverage(None, february()).passed
    half = dataclasses.replace(february(), scores=february().scores[:1500], parties=3100)
    found = coverage(january(), half)
    assert found.problems == [
        "100 of 3100 parties of batch FEBRUARY have no features.",
        "1600 of 3100 parties of batch FEBRUARY have no score.",
    ]


@pytest.mark.parametrize(
    ("feature", "value", "red"),
    [
        ("company_age_years", np.nan, True),
        ("transaction_count_6m", 0.0, True),  # what is stored when there is no data
        ("kyc_verified", 0.0, False),  # of a flag, 0 is a fact
    ],
)
def test_coverage_sees_a_feed_that_broke(feature: str, value: float, red: bool) -> None:
    values = february().features[feature].copy()
    values[:600] = value
    broken = dataclasses.replace(february(), features=february().features | {feature: values})
    found = coverage(january(), broken)
    assert found.passed is not red
    assert not red or found.problems[0].startswith(f"{feature} is informative for")


@pytest.mark.parametrize(
    ("current", "problem"),
    [
        (LabelCounts("B", "observed", 850, 150), ""),
        (LabelCounts("B", "observed", 990, 10), "10 bad"),
        (LabelCounts("B", "observed", 10, 9), "10 good"),
        (LabelCounts("B", "observed", 300, 700), "not between"),
        (LabelCounts("B", "observed", 99_900, 100), "not between"),
        (LabelCounts("B", "observed", 650, 350), "The default rate went from 15.0%"),
        (LabelCounts("B", "observed", 0, 0), "0 good"),
        (LabelCounts("B", "observed", 68, 32), "The default rate went"),
        (LabelCounts("B", "observed", 57, 20), ""),  # eleven points more, which 77 labels may show by chance
    ],
)
def test_label_balance(current: LabelCounts, problem: str) -> None:
    found = label_balance(current, LabelCounts("A", "observed", 850, 150))
    assert found.passed is (problem == ""), found.sentence
    assert problem in found.sentence


def test_observed_and_simulated_rates_are_not_compared() -> None:
    with pytest.raises(ValueError, match="simulated"):
        label_balance(LabelCounts("B", "observed", 9, 9), LabelCounts("A", "simulated", 9, 9))
