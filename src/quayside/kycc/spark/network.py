"""Network features for Spark, computed on the driver.

Reach within five hops, PageRank and cycles are sparse linear algebra over the whole network and not a query, and there is
to be no second definition of them. So the three columns of each party and edge come to the driver as Arrow, an in-memory
DuckDB runs the very code of the lake on them, and a frame of one row per party goes back. Parties and edges are few beside
transactions (1 M parties have some 7 M edges and 105 M transactions), which stay on the cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from quayside.foundation.errors import InputError, NotFoundError
from quayside.kycc.tables import PARTIES, RELATIONSHIPS, SCHEMA

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

    from quayside.kycc.features.moment import Moment
    from quayside.kycc.spark.tables import LakeTables

#: Parties and edges of a batch that may come to the driver, together.
MAX_ROWS: Final = 20_000_000

_COLUMNS: Final = {
    PARTIES.name: ("party_id", "kyc_verified", "tax_id"),
    RELATIONSHIPS.name: ("from_party_id", "to_party_id", "established_date"),
}


def network_features(tables: LakeTables, moment: Moment, max_rows: int = MAX_ROWS) -> DataFrame:
    """party_id and every network feature, one row per party of the batch. Starts Spark jobs at once.

    Raises:
        NotFoundError: the batch has no parties.
        InputError: it has more than `max_rows` parties and edges.
    """
    from pyspark.sql import functions as F  # noqa: N812 - the name every Spark reader knows

    chosen = {
        name: tables.frames[name].where(F.col("batch_id") == moment.batch_id).select(*columns)
        for name, columns in _COLUMNS.items()
    }
    parties, edges = (frame.count() for frame in chosen.values())
    if not parties:
        raise NotFoundError(f"Batch {moment.batch_id!r} has no parties in the tables given: ingest it first.")
    if parties + edges > max_rows:
        raise InputError(
            f"Batch {moment.batch_id!r} has {parties:,} parties and {edges:,} relationships, more than the {max_rows:,} "
            "rows the driver may hold: give it more memory and raise max_rows."
        )
    measured = _measure(moment, {name: frame.toArrow() for name, frame in chosen.items()})
    return tables.spark.createDataFrame(measured)


def _measure(moment: Moment, rows: dict[str, pa.Table]) -> pa.Table:
    import duckdb

    from quayside.kycc.features import network
    from quayside.kycc.features.measures import measure_network

    with duckdb.connect() as con:
        con.execute(f"CREATE SCHEMA {SCHEMA}")
        for name, table in rows.items():
            con.register("incoming", table)
            create = f"CREATE TABLE {SCHEMA}.{name} AS SELECT ? AS batch_id, * FROM incoming"  # noqa: S608 - constants of this package
            con.execute(create, [moment.batch_id])
            con.unregister("incoming")
        con.register("feature_measures", measure_network(con, moment))
        return con.execute(network.query()).to_arrow_table()
