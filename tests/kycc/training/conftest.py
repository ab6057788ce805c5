from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from tests.kycc.training.observed import labelled_batch

from quayside.kycc.scorecard import Scorecard, load_scorecard


@pytest.fixture(scope="session")
def observed() -> pa.Table:
    """1,000 parties with features and observed outcomes."""
    return labelled_batch(7, 1_000)


@pytest.fixture(scope="session")
def v1() -> Scorecard:
    return load_scorecard("v1")


def small_table(rows: int = 400, dates: int = 1, seed: int = 1) -> pa.Table:
    """A labelled table with two features of the registry, one of which tells the outcome a little."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(0, 10, rows)
    return pa.table(
        {
            "batch_id": pa.array([f"B{i % dates}" for i in range(rows)]),
            "party_id": pa.array([f"P{i}" for i in range(rows)]),
            "as_of": pa.array(
                [datetime(2026, 1 + i % dates, 1, tzinfo=UTC) for i in range(rows)], pa.timestamp("us", "UTC")
            ),
            "label": pa.array((rng.random(rows) < 0.6 - 0.05 * age).astype(np.int8)),
            "label_source": pa.array(["observed"] * rows),
            "company_age_years": pa.array(age),
            "pagerank": pa.array(rng.random(rows)),
        }
    )
