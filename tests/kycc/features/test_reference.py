"""Must show: on hundreds of random batches the features equal the slow, obvious implementation of their definitions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from tests.kycc.features.batches import Batch, batches, load
from tests.kycc.features.conftest import extracted
from tests.kycc.features.reference import reference_features

from quayside.kycc import features

pytestmark = pytest.mark.unit

EXAMPLES = 500


def assert_equal(ours: dict[str, dict[str, Any]], reference: dict[str, dict[str, Any]]) -> None:
    assert ours.keys() == reference.keys()
    for party_id, expected in reference.items():
        assert ours[party_id].keys() == expected.keys()
        for name, value in expected.items():
            exact = value is None or name not in features.BY_NAME or features.BY_NAME[name].kind != "number"
            wanted = value if exact else pytest.approx(value, rel=1e-9, abs=1e-12)
            assert ours[party_id][name] == wanted, (party_id, name)


@pytest.fixture(scope="module")
def loaded_decoy(con: Any) -> Any:
    """A connection on which another batch with the same parties is stored, whose rows must not be read."""
    return con


@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(batch=batches())
def test_features_equal_the_reference(con: Any, batch: Batch) -> None:
    load(con, "B", batch)
    ours = extracted(con, "B", batch)
    assert_equal(
        ours, reference_features(batch.parties, batch.transactions, batch.relationships, batch.as_of)
    )
    assert features.validate(con, "B", batch.as_of) == []
