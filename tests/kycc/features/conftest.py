from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import pytest
from tests.kycc.features.batches import Batch, create, load

from quayside.kycc import features
from quayside.kycc.tables import PARTIES, RELATIONSHIPS, TRANSACTIONS


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB in memory with the tables features are made of and go to."""
    with duckdb.connect(config={"threads": 2}) as con:
        create(con, (PARTIES, TRANSACTIONS, RELATIONSHIPS, *features.TABLES))
        yield con


@pytest.fixture
def computed(con: duckdb.DuckDBPyConnection) -> Callable[..., dict[str, dict[str, Any]]]:
    """``computed(batch)``: load it, extract everything, and return party_id → feature → value."""

    def compute(batch: Batch, batch_id: str = "B") -> dict[str, dict[str, Any]]:
        load(con, batch_id, batch)
        return extracted(con, batch_id, batch)

    return compute


def extracted(con: duckdb.DuckDBPyConnection, batch_id: str, batch: Batch) -> dict[str, dict[str, Any]]:
    """Extract everything as of the batch's moment: party_id → feature → value."""
    for extract in (
        features.extract_kyc,
        features.extract_transactions,
        features.extract_network,
        features.extract_features,
    ):
        extract(con, batch_id, batch.as_of)
    rows = con.execute(
        "SELECT * EXCLUDE (batch_id, as_of) FROM kycc.features WHERE batch_id = ? AND as_of = ?",
        [batch_id, batch.as_of],
    )
    names = [column[0] for column in rows.description]
    return {row[0]: dict(zip(names[1:], row[1:], strict=True)) for row in rows.fetchall()}
