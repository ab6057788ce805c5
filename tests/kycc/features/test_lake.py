"""Extraction on the real lake: in one transaction with temporary tables, untouched when nothing changed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import duckdb
import pytest
from tests.kycc.features.batches import Batch, edge, load, party, transaction
from tests.kycc.features.conftest import extracted

from quayside.foundation.lake import Lake
from quayside.foundation.settings import Settings
from quayside.kycc import features
from quayside.kycc.tables import PARTIES, RELATIONSHIPS, TRANSACTIONS

pytestmark = pytest.mark.integration

AS_OF = datetime(2026, 6, 1, tzinfo=UTC)
BATCH = Batch(
    AS_OF,
    [party("a", created_at=AS_OF), party("b", kyc_verified=1)],
    [
        transaction("a", AS_OF, amount=5, txn_id="T", due_date=AS_OF),
        transaction("b", AS_OF, "payment", settles_txn_id="T"),
    ],
    [edge("a", "b", AS_OF)],
)


@pytest.fixture
def lake(settings: Settings) -> Lake:
    lake = Lake(settings)
    lake.ensure_tables([PARTIES, TRANSACTIONS, RELATIONSHIPS, *features.TABLES])
    return lake


@pytest.fixture
def lake_con(lake: Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    con = lake.connect()
    yield con
    con.close()


def snapshots(con: duckdb.DuckDBPyConnection) -> int:
    return con.execute("SELECT count(*) FROM ducklake_snapshots('lake')").fetchall()[0][0]


@pytest.mark.slow
def test_features_on_the_lake(lake: Lake, lake_con: duckdb.DuckDBPyConnection) -> None:
    lake.transaction(lambda con: load(con, "B", BATCH), lake_con)
    found = lake.transaction(lambda con: extracted(con, "B", BATCH), lake_con)
    assert found["a"]["network_size"] == found["b"]["kyc_verified"] == 1
    assert found["a"]["days_past_due_max_6m"] == 0
    assert features.validate(lake_con, "B", AS_OF) == []
    assert lake.transaction(features.publish_definitions, lake_con)

    before = snapshots(lake_con)
    assert lake.transaction(lambda con: extracted(con, "B", BATCH), lake_con) == found
    assert not lake.transaction(features.publish_definitions, lake_con)
    assert snapshots(lake_con) == before

    lake.transaction(lambda con: load(con, "B", BATCH.with_more([transaction("a", AS_OF)])), lake_con)
    assert (
        lake.transaction(lambda con: extracted(con, "B", BATCH), lake_con)["a"]["transaction_count_6m"] == 2
    )
    assert lake_con.execute("SELECT count(*) FROM kycc.features").fetchall() == [(2,)]


def test_an_error_inside_leaves_nothing_and_keeps_its_type(
    lake: Lake, lake_con: duckdb.DuckDBPyConnection
) -> None:
    lake.transaction(lambda con: load(con, "B", BATCH), lake_con)

    def fail(con: duckdb.DuckDBPyConnection) -> None:
        features.extract_network(con, "B", AS_OF)
        con.execute("DROP TABLE kycc.features_network")
        features.extract_network(con, "B", AS_OF)

    with pytest.raises(duckdb.CatalogException, match="features_network"):
        lake.transaction(fail, lake_con)
    assert lake_con.execute("SELECT count(*) FROM kycc.features_network").fetchall() == [(0,)]
    assert lake.transaction(lambda con: extracted(con, "B", BATCH), lake_con)["a"]["customer_count"] == 1
