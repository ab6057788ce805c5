"""Batches without a database: features and scores of generated parties, as snapshots."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

import numpy as np

from quayside.kycc.monitoring import Snapshot
from quayside.kycc.scorecard import evaluate, load_scorecard

MOMENT = datetime(2026, 6, 30, tzinfo=UTC)
CARD = load_scorecard("v1")


def snapshot(name: str, rows: int, seed: int, risk: float = 0.0) -> Snapshot:
    """Parties drawn from one population, `risk` of them replaced by weak ones."""
    rng = np.random.default_rng(seed)
    weak = rng.random(rows) < 0.15 + risk
    age = np.where(weak, rng.uniform(0.3, 3, rows), rng.uniform(1.5, 25, rows))
    age[rng.random(rows) < 0.01] = np.nan
    count = np.where(weak, rng.integers(5, 40, rows), rng.integers(30, 300, rows)).astype(np.float64)
    features = {
        "kyc_verified": (rng.random(rows) < np.where(weak, 0.1, 0.9)).astype(np.float64),
        "has_tax_id": (rng.random(rows) < np.where(weak, 0.3, 0.95)).astype(np.float64),
        "recent_activity_flag": (rng.random(rows) < np.where(weak, 0.3, 0.9)).astype(np.float64),
        "company_age_years": age,
        "transaction_count_6m": count,
        "network_size": rng.integers(0, 40, rows).astype(np.float64),
        "direct_counterparty_count": rng.integers(1, 15, rows).astype(np.float64),
        "network_depth_downstream": rng.integers(0, 5, rows).astype(np.float64),
        "avg_transaction_amount": rng.lognormal(9, 1, rows),
        "contact_completeness": rng.choice([25.0, 50, 75, 100], rows),
        "party_type_score": rng.choice([5.0, 6, 7, 8, 10], rows),
        "transaction_regularity_score": rng.uniform(0, 100, rows),
        "network_balance_ratio": rng.random(rows),
        "total_transaction_volume_6m": count * 20_000,
    }
    scores = evaluate(CARD, {n: features[n] for n in CARD.required_features}).total_score
    return Snapshot(name, MOMENT, "v1", rows, features, scores)


@cache
def january() -> Snapshot:
    return snapshot("JANUARY", 4000, 1)


@cache
def february() -> Snapshot:
    """Another draw of the same population."""
    return snapshot("FEBRUARY", 3000, 2)


@cache
def march() -> Snapshot:
    """A riskier population."""
    return snapshot("MARCH", 3000, 3, risk=0.35)
