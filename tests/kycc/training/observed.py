"""Generated batches with their observed outcomes as labelled tables, made in a plain DuckDB in memory."""

from __future__ import annotations

from datetime import UTC, datetime

import duckdb
import pyarrow as pa

from quayside.kycc import features
from quayside.kycc.generate import generate
from quayside.kycc.tables import PARTIES, RELATIONSHIPS, TRANSACTIONS

MOMENT = datetime(2026, 6, 30, tzinfo=UTC)
EXTRACTIONS = (
    features.extract_kyc,
    features.extract_transactions,
    features.extract_network,
    features.extract_features,
)


def labelled_batch(seed: int, parties: int, mix: str = "balanced", moment: datetime = MOMENT) -> pa.Table:
    """A batch of that seed: keys, the outcome of each party within 180 days, and every feature as of `moment`."""
    batch = generate(f"OBSERVED_{seed}", parties, generated_at=moment, seed=seed, mix=mix)
    with duckdb.connect(config={"threads": 2}) as con:
        con.execute("CREATE SCHEMA kycc")
        for table in (PARTIES, TRANSACTIONS, RELATIONSHIPS, *features.TABLES):
            con.execute(table.ddl()[0])
        for table, rows, more in (
            (PARTIES, batch.parties, ""),
            (TRANSACTIONS, batch.transactions, ", amount AS amount_base"),
            (RELATIONSHIPS, batch.relationships, ""),
        ):
            con.register("incoming", rows)
            names = ", ".join(name for name in table.columns if name in rows.column_names)
            con.execute(f"INSERT INTO {table.qualified} BY NAME SELECT {names}{more} FROM incoming")
        for extract in EXTRACTIONS:
            extract(con, batch.spec.batch_id, moment)
        con.register("outcomes", batch.outcomes)
        names = ", ".join(feature.name for feature in features.FEATURES)
        return con.execute(
            "SELECT batch_id, party_id, as_of, CAST(party_id IN (SELECT party_id FROM outcomes) AS TINYINT) AS label, "
            f"'observed' AS label_source, {names} FROM kycc.features ORDER BY as_of, batch_id, party_id"
        ).to_arrow_table()
