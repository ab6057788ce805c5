"""The shipped expert card: its numbers follow from the sentences at its top, and it means what the house says."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from quayside.kycc.scorecard import Scorecard, evaluate, explain, load_scorecard, points

pytestmark = pytest.mark.unit

WEIGHTS = {
    "kyc_verified": 15,
    "has_tax_id": 10,
    "recent_activity_flag": 25,
    "company_age_years": 10,
    "transaction_count_6m": 20,
    "network_size": 10,
    "direct_counterparty_count": 10,
    "network_depth_downstream": 10,
    "avg_transaction_amount": 15,
    "contact_completeness": 5,
    "party_type_score": 10,
    "transaction_regularity_score": 15,
    "network_balance_ratio": 10,
}
CURVES: dict[str, Callable[[float], float]] = {
    "kyc_verified": lambda v: v,
    "has_tax_id": lambda v: v,
    "recent_activity_flag": lambda v: v,
    "company_age_years": lambda v: v / 5,
    "transaction_count_6m": lambda v: v / 50,
    "network_size": lambda v: v / 20,
    "direct_counterparty_count": lambda v: v / 10,
    "network_depth_downstream": lambda v: v / 5,
    "avg_transaction_amount": lambda v: math.log10(v + 1) / math.log10(100_001),
    "contact_completeness": lambda v: v / 100,
    "party_type_score": lambda v: (v - 5) / 5,
    "transaction_regularity_score": lambda v: v / 100,
    "network_balance_ratio": lambda v: v,
}
WORST: dict[str, Any] = dict.fromkeys(WEIGHTS, 0) | {"party_type_score": 5, "total_transaction_volume_6m": 0}
BEST: dict[str, Any] = {
    "kyc_verified": 1,
    "has_tax_id": 1,
    "recent_activity_flag": 1,
    "company_age_years": 5,
    "transaction_count_6m": 50,
    "network_size": 20,
    "direct_counterparty_count": 10,
    "network_depth_downstream": 5,
    "avg_transaction_amount": 100_000,
    "contact_completeness": 100,
    "party_type_score": 10,
    "transaction_regularity_score": 100,
    "network_balance_ratio": 1,
    "total_transaction_volume_6m": 100_000,
}


@pytest.fixture(scope="module")
def card() -> Scorecard:
    return load_scorecard("v1")


def row_of(card: Scorecard, **changes: Any) -> dict[str, Any]:
    """One evaluated row, by default the best."""
    row = {**BEST, **changes}
    return evaluate(card, {name: [value] for name, value in row.items()}).to_arrow().to_pylist()[0]


def test_weights_are_rescaled_to_600_by_largest_remainder(card: Scorecard) -> None:
    exact = {feature: weight * 600 / 165 for feature, weight in WEIGHTS.items()}
    expected = {feature: int(share) for feature, share in exact.items()}
    by_remainder = sorted(WEIGHTS, key=lambda feature: -(exact[feature] % 1))
    for feature in by_remainder[: 600 - sum(expected.values())]:
        expected[feature] += 1
    assert {item.feature: item.max_points for item in card.characteristics} == expected
    assert list(card.features) == list(WEIGHTS)
    assert sum(expected.values()) == 600


def test_every_bin_earns_the_curve_at_its_lower_edge(card: Scorecard) -> None:
    for item in card.characteristics:
        curve = CURVES[item.feature]
        expected = [0, *(math.floor(item.max_points * curve(cut) + 0.5) for cut in item.cuts)]
        assert list(item.points) == expected, item.feature
        assert curve(item.cuts[-1]) == pytest.approx(1)


def test_bins_stay_close_to_the_curves(card: Scorecard) -> None:
    """Over the range of each feature no more than a seventh of a weight is lost to its steps, 3 points typically."""
    for item in card.characteristics:
        if len(item.cuts) == 1 or item.feature == "contact_completeness":
            continue  # features that only take the values at the cuts
        low, high = (5, 10) if item.feature == "party_type_score" else (0, item.cuts[-1])
        whole = item.feature.endswith(("_count", "_6m", "_size", "_downstream", "party_type_score"))
        values = np.arange(low, high + 1.0) if whole else np.linspace(low, high, 2001)
        earned = points(card, dict.fromkeys(card.features, values))[:, card.features.index(item.feature)]
        exact = np.array([item.max_points * CURVES[item.feature](float(value)) for value in values])
        assert np.abs(earned - exact).max() <= (0.5 if whole else 3.9), item.feature


def test_more_of_a_feature_never_costs_points(card: Scorecard) -> None:
    for item in card.characteristics:
        assert list(item.points) == sorted(item.points), item.feature
        assert item.missing <= min(item.points)


def test_worst_is_300_and_best_is_900(card: Scorecard) -> None:
    assert row_of(card) | {"flags": []} == {
        "raw_score": 900, "total_score": 900, "band": "excellent", "decision": "approve", "flags": [],
        "reasons": [], "reason_points": [], "rules_applied": [],
    }  # fmt: skip
    worst = row_of(card, **WORST)
    assert (worst["raw_score"], worst["total_score"]) == (300, 300)
    assert (worst["band"], worst["decision"]) == ("very_poor", "decline")
    assert worst["reasons"] == [
        "recent_activity_flag", "transaction_count_6m", "kyc_verified", "avg_transaction_amount",
    ]  # fmt: skip
    nothing = row_of(card, **dict.fromkeys(BEST))
    assert nothing["raw_score"] == 300
    assert nothing["rules_applied"] == []  # a rule does not fire on what is not known


@pytest.mark.parametrize(
    ("changes", "rules", "flags", "change"),
    [
        ({"kyc_verified": 0, "company_age_years": 0.99}, ["kyc_override"], [], "cap 500"),
        ({"kyc_verified": 0, "company_age_years": 1.0}, [], [], 0),
        ({"kyc_verified": 1, "company_age_years": 0.5}, [], [], 0),
        ({"kyc_verified": 0, "company_age_years": None}, [], [], 0),
        ({"recent_activity_flag": 0}, ["no_activity_penalty"], [], -30),
        ({"total_transaction_volume_6m": 500_000, "has_tax_id": 0}, [], [], 0),
        ({"total_transaction_volume_6m": 500_000.01, "has_tax_id": 0}, ["high_volume_bonus"], [], 25),
        ({"direct_counterparty_count": 0}, ["network_isolation_flag"], ["isolated_network"], 0),
        ({"contact_completeness": 49.9}, ["missing_contact_flag"], ["incomplete_profile"], 0),
        ({"contact_completeness": 50}, [], [], 0),
    ],
)
def test_default_rules(
    card: Scorecard, changes: dict[str, Any], rules: list[str], flags: list[str], change: Any
) -> None:
    row = row_of(card, **changes)
    assert row["rules_applied"] == rules
    assert row["flags"] == flags
    assert row["total_score"] == (500 if change == "cap 500" else row["raw_score"] + change)
    if flags:
        assert row["decision"] == "review"


def test_rules_add_up_in_their_order(card: Scorecard) -> None:
    """Cap, penalty and bonus: 500 - 30 + 25."""
    row = row_of(
        card, kyc_verified=0, company_age_years=0.5, recent_activity_flag=0, total_transaction_volume_6m=1e6
    )
    assert row["rules_applied"] == ["kyc_override", "no_activity_penalty", "high_volume_bonus"]
    assert row["total_score"] == 495


def test_every_sentence_of_the_card_reads_like_one(card: Scorecard) -> None:
    for item in card.characteristics:
        for code, earned in enumerate(item.points_by_code):
            if earned < item.max_points:
                sentence = item.code_reason(code)
                assert sentence[0].isupper(), sentence
                assert sentence.endswith("."), sentence
                assert "{" not in sentence
                assert "inf" not in sentence.split(), sentence


def test_sentences_name_the_edge_that_was_missed(card: Scorecard) -> None:
    explanation = explain(card, {**BEST, "company_age_years": 2.1, "network_size": None, "has_tax_id": 0})
    assert explanation.reason_sentences == (
        "No tax id on file.",
        "The size of the network downstream is unknown.",
        "Company is younger than 2.25 years.",
    )


def test_its_content_is_pinned(card: Scorecard) -> None:
    """v1 is recorded beside every score, so a change of it has to be another version (texts included)."""
    assert card.version == "v1"
    assert card.required_features == (*WEIGHTS, "total_transaction_volume_6m")
    assert card.content_hash[:16] == "ba8348c54fee60dd"
