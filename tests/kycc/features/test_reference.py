"""Must show: on hundreds of random batches the features equal the slow, obvious implementation of their definitions."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest
from hypothesis import given, seed, settings
from tests.kycc.features.batches import Batch, batches, load
from tests.kycc.features.conftest import extracted
from tests.kycc.features.reference import reference_features

from quayside.kycc import features

pytestmark = pytest.mark.unit

EXAMPLES = 200
PARTS = 4  # for several workers


def assert_equal(ours: dict[str, dict[str, Any]], reference: dict[str, dict[str, Any]]) -> None:
    assert ours.keys() == reference.keys()
    for party_id, expected in reference.items():
        assert ours[party_id].keys() == expected.keys()
        for name, value in expected.items():
            exact = value is None or name not in features.BY_NAME or features.BY_NAME[name].kind != "number"
            wanted = value if exact else pytest.approx(value, rel=1e-9, abs=1e-12)
            assert ours[party_id][name] == wanted, (party_id, name)


@pytest.mark.parametrize("part", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, PARTS))])
def test_features_equal_the_reference(con: duckdb.DuckDBPyConnection, part: int) -> None:
    seen = 0

    @seed(part)
    @settings(max_examples=EXAMPLES // PARTS)
    @given(batch=batches())
    def equal(batch: Batch) -> None:
        nonlocal seen
        seen += 1
        load(con, "B", batch)
        ours = extracted(con, "B", batch)
        assert_equal(
            ours, reference_features(batch.parties, batch.transactions, batch.relationships, batch.as_of)
        )
        assert features.validate(con, "B", batch.as_of) == []

    equal()
    assert seen >= EXAMPLES // PARTS
