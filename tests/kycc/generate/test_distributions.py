"""Each tier gets what its row of parameters says, and no feature gives the outcome away."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import pytest
from tests.kycc.generate.conftest import AT

from quayside.kycc.generate import Batch, generate
from quayside.kycc.generate.parties import tier_counts
from quayside.kycc.generate.tiers import MIXES, TIERS, Tier

pytestmark = pytest.mark.unit

tiers = pytest.mark.parametrize("tier", TIERS, ids=[tier.name for tier in TIERS])

FEATURES = """
WITH txn AS (
  SELECT party_id, count(*) AS n, avg(abs(amount)) FILTER (txn_type <> 'credit_note') AS amount,
    sum(abs(amount)) FILTER (txn_type <> 'credit_note') AS volume, avg((txn_type = 'credit_note')::INT) AS notes,
    (max(ts) > getvariable('as_of') - INTERVAL 30 DAY)::INT AS recent, min(abs(amount)) AS low, max(abs(amount)) AS high
  FROM t GROUP BY ALL),
invoices AS (
  SELECT i.party_id, count(y.txn_id) AS settled, count(*) FILTER (y.ts > i.due_date) AS late,
    count(*) FILTER (y.txn_id IS NULL AND i.due_date <= getvariable('as_of')) AS overdue, count(*) AS invoices
  FROM t AS i LEFT JOIN t AS y ON y.settles_txn_id = i.txn_id WHERE i.txn_type = 'invoice' GROUP BY ALL),
months AS (
  SELECT party_id, stddev_pop(s) / avg(s) AS cv FROM
  (SELECT party_id, sum(abs(amount)) AS s FROM t WHERE txn_type <> 'credit_note' GROUP BY party_id, date_trunc('month', ts))
  GROUP BY ALL),
edges AS (
  SELECT party_id, count(*) AS neighbours FROM
  (SELECT from_party_id AS party_id FROM r UNION ALL SELECT to_party_id FROM r) GROUP BY ALL)
SELECT profile, kyc_verified, (tax_id IS NOT NULL)::INT AS tax_id,
  epoch(getvariable('as_of') - created_at) / 86400 / 365.25 AS age,
  25 * ((contact_person IS NOT NULL)::INT + (email IS NOT NULL)::INT + (phone IS NOT NULL)::INT
    + (address IS NOT NULL)::INT) AS contact,
  CASE party_type WHEN 'manufacturer' THEN 10 WHEN 'distributor' THEN 8 WHEN 'supplier' THEN 7 WHEN 'retailer' THEN 6
    ELSE 5 END AS type_score,
  n, txn.amount::DOUBLE AS amount, volume::DOUBLE AS volume, notes, coalesce(recent, 0) AS recent, low::DOUBLE AS low,
  high::DOUBLE AS high,
  settled, late, overdue / invoices AS overdue, late / greatest(settled, 1) AS late_ratio, 100 * (1 - least(cv, 1)) AS regularity,
  coalesce(neighbours, 0) AS neighbours, balance::DOUBLE AS balance, account_type = 'savings' AS savings,
  o.party_id IS NOT NULL AS defaulted
FROM p LEFT JOIN txn USING (party_id) LEFT JOIN invoices USING (party_id) LEFT JOIN months USING (party_id)
LEFT JOIN edges USING (party_id) JOIN a USING (party_id) LEFT JOIN o USING (party_id)
"""


@pytest.fixture(scope="module")
def features(lake: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(values) for name, values in lake.execute(FEATURES).fetchnumpy().items()}


def of(features: dict[str, np.ndarray], tier: Tier) -> dict[str, np.ndarray]:
    chosen = features["profile"] == tier.name
    return {name: values[chosen] for name, values in features.items()}


def near(observed: np.ndarray, rate: float) -> bool:
    """Within four standard errors of a binomial rate."""
    return abs(observed.mean() - rate) <= 4 * sqrt(rate * (1 - rate) / len(observed)) + 1e-9


@tiers
def test_probabilities(features: dict[str, np.ndarray], tier: Tier) -> None:
    mine = of(features, tier)
    assert near(mine["kyc_verified"], tier.kyc_verified)
    assert near(mine["tax_id"], tier.tax_id)
    assert near(mine["recent"], tier.recent)
    assert near(mine["savings"], tier.savings)
    assert near(mine["defaulted"], tier.default)
    assert np.average(mine["notes"], weights=mine["n"]) == pytest.approx(tier.credit_note, rel=0.05)
    # Payments later than the window are not in it, so that the observed share is a little lower.
    assert mine["late"].sum() / mine["settled"].sum() == pytest.approx(tier.late, rel=0.15)


@tiers
def test_ranges(features: dict[str, np.ndarray], tier: Tier) -> None:
    mine = of(features, tier)
    day = 1 / 365.25
    for column, (low, high), slack in (
        ("age", tier.age_years, day),
        ("n", tier.transactions, 0),
        ("balance", tier.balance, 0.01),
    ):
        assert low - slack <= mine[column].min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < mine[column].max() <= high + slack
        assert mine[column].mean() == pytest.approx((low + high) / 2, rel=0.04)
    assert mine["contact"].mean() == pytest.approx(50 * sum(tier.contact), rel=0.03)
    assert mine["amount"].mean() == pytest.approx(sum(tier.amount) / 2, rel=0.04)
    assert mine["low"].min() >= tier.amount[0] * (1 - tier.volatility) - 0.01
    assert mine["high"].max() <= tier.amount[1] * (1 + tier.volatility) + 0.01
    assert (mine["high"] / mine["low"]).max() == pytest.approx(
        (1 + tier.volatility) / (1 - tier.volatility), rel=0.1
    )


@tiers
def test_types(large: Batch, tier: Tier) -> None:
    chosen = large.drawn.tier == TIERS.index(tier)
    for code, share in enumerate(tier.types):
        assert near(large.drawn.type[chosen] == code, share)


@tiers
def test_suppliers_per_target(large: Batch, lake: Any, tier: Tier) -> None:
    low, high = lake.execute(
        """SELECT min(n), max(n) FROM (
             SELECT to_party_id, count(*) AS n FROM r JOIN p AS s ON s.party_id = from_party_id
             JOIN p AS d ON d.party_id = to_party_id WHERE d.profile = ? GROUP BY to_party_id, s.party_type)""",
        [tier.name],
    ).fetchone()
    assert (low, high) == tier.suppliers


def test_default_rates_hold_closely_in_a_large_batch() -> None:
    batch = generate("rates", 200_000, generated_at=AT)
    position = {party: row for row, party in enumerate(batch.party_ids.to_pylist())}
    defaulted = np.zeros(200_000, dtype=bool)
    defaulted[[position[party] for party in batch.outcomes["party_id"].to_pylist()]] = True
    for code, tier in enumerate(TIERS):
        assert near(defaulted[batch.drawn.tier == code], tier.default)


def test_inactive_means_no_transaction_in_the_last_30_days(large: Batch, lake: Any) -> None:
    recent = lake.execute(
        """SELECT coalesce(max(ts) > getvariable('as_of') - INTERVAL 30 DAY, false) AS recent
           FROM p LEFT JOIN t USING (party_id) GROUP BY party_id ORDER BY party_id"""
    ).fetchnumpy()["recent"]
    assert (recent == large.drawn.recent).all()


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("parties", [1, 10, 101, 1000])
def test_mixes_add_up(mix: str, parties: int) -> None:
    spec = generate("mix", parties, generated_at=AT, mix=mix).spec
    counts = tier_counts(spec)
    assert counts.sum() == parties
    assert np.abs(counts - np.array(MIXES[mix]) * parties).max() < 1
    if parties == 1000:
        assert (counts == np.round(np.array(MIXES[mix]) * 1000)).all()


def test_tiers_are_in_no_order(large: Batch) -> None:
    assert abs(np.corrcoef(np.arange(10_000), large.drawn.tier)[0, 1]) < 0.04


def area_under_curve(score: np.ndarray, bad: np.ndarray) -> float:
    """Probability that a bad one scores higher than a good one, ties counted half."""
    from scipy.stats import rankdata

    ranks = rankdata(score)
    bads = bad.sum()
    return (ranks[bad].sum() - bads * (bads + 1) / 2) / (bads * (len(bad) - bads))


def test_no_feature_gives_the_outcome_away(features: dict[str, np.ndarray]) -> None:
    labels = {"profile", "defaulted"}
    areas = {
        name: area_under_curve(np.nan_to_num(values.astype(float)), features["defaulted"])
        for name, values in features.items()
        if name not in labels
    }
    strongest = max(areas, key=lambda name: abs(areas[name] - 0.5))
    assert 0.70 < max(areas[strongest], 1 - areas[strongest]) < 0.85, (strongest, areas)


def test_a_plain_scorecard_ranks_defaults_and_leaves_room(features: dict[str, np.ndarray]) -> None:
    card = (
        15 * features["kyc_verified"]
        + 10 * features["tax_id"]
        + 25 * features["recent"]
        + 10 * np.minimum(features["age"] / 5, 1)
        + 20 * np.minimum(features["n"] / 50, 1)
        + 10 * np.minimum(features["neighbours"] / 10, 1)
        + 15 * np.log1p(features["amount"]) / np.log(100_000)
        + features["contact"] / 20
        + features["type_score"]
        + 0.15 * np.nan_to_num(features["regularity"], nan=50.0)
    )
    assert 0.76 < area_under_curve(-card, features["defaulted"]) < 0.84


@pytest.mark.parametrize("tier", [TIERS[2], TIERS[3]], ids=["fair", "poor"])
def test_there_is_something_to_learn_beyond_the_tier(features: dict[str, np.ndarray], tier: Tier) -> None:
    mine = of(features, tier)
    known = mine["settled"] >= 5
    assert area_under_curve(mine["late_ratio"][known], mine["defaulted"][known]) > 0.58
