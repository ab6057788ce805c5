"""Range checks find what is outside and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime

import duckdb
import pytest
from tests.kycc.features.batches import Batch, load, party
from tests.kycc.features.conftest import extracted

from quayside.kycc import features
from quayside.kycc.features import Violation

pytestmark = pytest.mark.unit

AS_OF = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def stored(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    batch = Batch(AS_OF, [party("a", created_at=AS_OF), party("b")])
    load(con, "V", batch)
    extracted(con, "V", batch)
    return con


def test_values_in_range_are_no_violation(stored: duckdb.DuckDBPyConnection) -> None:
    assert features.validate(stored, "V", AS_OF) == []


@pytest.mark.parametrize(
    "feature, value, rule",
    [
        ("kyc_verified", "2", "0 … 1"),
        ("kyc_verified", "NULL", "0 … 1"),
        ("company_age_years", "-0.1", "0 … 500, or NULL"),
        ("company_age_years", "'NaN'", "0 … 500, or NULL"),
        ("contact_completeness", "100.001", "0 … 100"),
        ("avg_transaction_amount", "'Infinity'", "0 … ∞"),
        ("avg_transaction_amount", "'NaN'", "0 … ∞"),
        ("network_depth_downstream", "6", "0 … 5"),
        ("volume_trend_6m", "-1.5", "-1 … 1, or NULL"),
        ("transaction_count_6m", "-1", "0 … ∞"),
    ],
)
def test_a_value_out_of_range_is_found(
    stored: duckdb.DuckDBPyConnection, feature: str, value: str, rule: str
) -> None:
    stored.execute(f"UPDATE kycc.features SET {feature} = {value} WHERE batch_id = 'V' AND party_id = 'b'")
    assert features.validate(stored, "V", AS_OF) == [Violation(feature, 1, "b", rule)]
    stored.execute(f"UPDATE kycc.features SET {feature} = {value} WHERE batch_id = 'V'")
    assert features.validate(stored, "V", AS_OF) == [Violation(feature, 2, "a", rule)]


def test_null_is_allowed_where_there_is_no_value_without_data(stored: duckdb.DuckDBPyConnection) -> None:
    stored.execute("UPDATE kycc.features SET company_age_years = NULL WHERE batch_id = 'V'")
    assert features.validate(stored, "V", AS_OF) == []
