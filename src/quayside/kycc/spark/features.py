"""The wide table of features on Spark: the columns, types and values of the lake's `kycc.features`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quayside.kycc.features import FEATURES_WIDE, kyc, transactions
from quayside.kycc.features.moment import Moment
from quayside.kycc.spark.dialect import column_type, micros, run
from quayside.kycc.spark.network import MAX_ROWS, network_features

if TYPE_CHECKING:
    from datetime import datetime

    from pyspark.sql import DataFrame

    from quayside.kycc.spark.tables import LakeTables


def extract(tables: LakeTables, batch_id: str, as_of: datetime, *, max_rows: int = MAX_ROWS) -> DataFrame:
    """Every feature of one batch as of one moment, one row per party, in no order.

    Features of parties and transactions are lazy: they run with the action on the frame. Those of the network are
    computed here, see `quayside.kycc.spark.network`, which `max_rows` belongs to.

    Raises:
        NotFoundError: the batch has no parties in the tables.
        InputError: `as_of` has no zone or is before 1901, or the network is larger than `max_rows`.
    """
    from pyspark.sql import functions as F  # noqa: N812 - the name every Spark reader knows

    moment = Moment(batch_id, as_of)
    network = network_features(tables, moment, max_rows)
    kyc_, transactions_ = (
        run(tables.spark, query, tables.frames, moment) for query in (kyc.query(), transactions.query())
    )
    wide = (
        kyc_.join(transactions_, "party_id")
        .join(network, "party_id")
        .withColumn("batch_id", F.lit(batch_id))
        .withColumn("as_of", F.timestamp_micros(F.lit(micros(as_of))))
    )
    return wide.select(
        *(F.col(name).cast(column_type(type_)).alias(name) for name, type_ in FEATURES_WIDE.columns.items())
    )
