"""Principal reasons against a slow, plain reference; the tie rule; rules as reasons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.kycc.monitoring.cases import snapshot

from quayside.kycc.adverse_action import MOST, Reason, principal_reasons
from quayside.kycc.scorecard import Rule, Scorecard, evaluate, load_scorecard

pytestmark = pytest.mark.unit

CARD = load_scorecard("v1")
#: A row that loses nothing, feature by feature.
BEST = {
    "kyc_verified": 1.0,
    "has_tax_id": 1.0,
    "recent_activity_flag": 1.0,
    "company_age_years": 20.0,
    "transaction_count_6m": 200.0,
    "network_size": 40.0,
    "direct_counterparty_count": 20.0,
    "network_depth_downstream": 5.0,
    "avg_transaction_amount": 200_000.0,
    "contact_completeness": 100.0,
    "party_type_score": 10.0,
    "transaction_regularity_score": 100.0,
    "network_balance_ratio": 1.0,
    "total_transaction_volume_6m": 100_000.0,
}


def reasons(card: Scorecard = CARD, **values: float) -> tuple[Reason, ...]:
    (found,) = principal_reasons(card, {name: [value] for name, value in (BEST | values).items()})
    return found


def with_rules(*rules: Rule) -> Scorecard:
    return replace(CARD, rules=rules)


def test_the_best_party_has_none() -> None:
    assert reasons() == ()


def test_a_rule_on_one_characteristic_adds_to_it() -> None:
    (reason,) = reasons(recent_activity_flag=0)
    assert reason == Reason("recent_activity_flag", 91 + 30, "No transaction in the last 30 days.")


def test_a_rule_on_more_features_is_a_reason_of_its_own() -> None:
    found = reasons(kyc_verified=0, company_age_years=0.8)
    lost = {reason.source: reason.points_lost for reason in found}
    row = {name: [value] for name, value in (BEST | {"kyc_verified": 0.0, "company_age_years": 0.8}).items()}
    raw = int(evaluate(CARD, row).raw_score[0])
    assert lost == {"kyc_override": raw - 500, "kyc_verified": 55, "company_age_years": 31}
    assert [reason.source for reason in found] == ["kyc_override", "kyc_verified", "company_age_years"]


def test_a_rule_on_a_feature_outside_the_card_is_a_reason_of_its_own() -> None:
    rule = Rule("thin_volume", 1, "total_transaction_volume_6m < 200000", "adjust", "Little was traded.", -40)
    assert reasons(with_rules(rule)) == (Reason("thin_volume", 40, "Little was traded."),)


def test_a_rule_speaks_for_a_characteristic_that_has_all_its_points() -> None:
    rule = Rule("giant", 1, "transaction_count_6m > 150", "adjust", "Unusually many transactions.", -20)
    assert reasons(with_rules(rule)) == (Reason("transaction_count_6m", 20, "Unusually many transactions."),)


def test_what_adds_points_or_only_flags_is_no_reason() -> None:
    assert reasons(total_transaction_volume_6m=900_000, contact_completeness=100) == ()
    flag = Rule("flagged", 1, "transaction_count_6m > 150", "flag", "Looked at.", flag="looked_at")
    assert reasons(with_rules(flag)) == ()


def test_ties_keep_the_order_of_the_card_and_put_rules_last() -> None:
    # 36 points each: network_size, direct_counterparty_count, network_depth_downstream, network_balance_ratio …
    worst = {"network_balance_ratio": 0.0, "network_depth_downstream": 0.0, "network_size": 0.0}
    rule = Rule("volume", 1, "total_transaction_volume_6m < 200000", "adjust", "Little was traded.", -36)
    found = reasons(with_rules(rule), **worst)
    assert [reason.source for reason in found] == [
        "network_size",
        "network_depth_downstream",
        "network_balance_ratio",
        "volume",
    ]
    assert {reason.points_lost for reason in found} == {36}


def test_missing_values_have_their_own_sentence() -> None:
    (reason,) = reasons(company_age_years=float("nan"))
    assert reason == Reason("company_age_years", 36, "Company age is unknown.")


def test_batches_agree_with_a_plain_reference() -> None:
    """Every row of 500: losses by hand from points and rules, sorted in Python."""
    batch = snapshot("REASONS", 500, 5, risk=0.4).features
    scored = evaluate(CARD, {name: batch[name] for name in CARD.required_features})
    found = principal_reasons(CARD, batch)
    for row in range(500):
        lost: dict[str, int] = {}
        for item in CARD.characteristics:
            value = batch[item.feature][row]
            code = 0 if np.isnan(value) else 1 + sum(value >= cut for cut in item.cuts)
            lost[item.feature] = item.max_points - item.points_by_code[code]
        for position, rule in enumerate(CARD.ordered_rules):
            taken = -min(int(scored.rule_deltas[row, position]), 0)
            if set(rule.features) == {"recent_activity_flag"}:
                lost["recent_activity_flag"] += taken
            else:
                lost[rule.id] = taken
        by_hand = sorted(
            (-points, place, name) for place, (name, points) in enumerate(lost.items()) if points
        )
        assert [(reason.source, reason.points_lost) for reason in found[row]] == [
            (name, -points) for points, _, name in by_hand[:MOST]
        ]


def test_no_rows_give_no_reasons() -> None:
    assert principal_reasons(CARD, {name: np.array([]) for name in CARD.required_features}) == []
