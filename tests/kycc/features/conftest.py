from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import pytest
from tests.kycc.features.batches import IDS, MOMENTS, Batch, create, edge, load, party, transaction

from quayside.kycc import features
from quayside.kycc.tables import PARTIES, RELATIONSHIPS, TRANSACTIONS


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB in memory with the tables features are made of and go to."""
    with duckdb.connect(config={"threads": 2}) as con:
        create(con, (PARTIES, TRANSACTIONS, RELATIONSHIPS, *features.TABLES))
        load(con, "OTHER", another_batch())
        yield con


def another_batch() -> Batch:
    """A batch of the same parties and transaction ids, whose rows must never be read for another."""
    created = MOMENTS[0].replace(year=1950)
    return Batch(
        MOMENTS[0],
        [party(id_, kyc_verified=1, tax_id="other", created_at=created) for id_ in IDS],
        [
            transaction(id_, as_of, type_, 12345, txn_id=f"T{i}", due_date=as_of, settles_txn_id=settled)
            for as_of in MOMENTS
            for id_ in IDS
            for type_ in ("invoice", "payment", "credit_note")
            for i, settled in enumerate(["I", *(f"T{i}" for i in range(14))])
        ],
        [edge(a, b, created) for a in IDS for b in IDS],
    )


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
