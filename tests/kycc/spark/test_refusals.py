"""What is refused, in one sentence that says where and what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from tests.kycc.features.batches import MOMENTS

from quayside.foundation.errors import InputError, NotFoundError
from quayside.kycc.scorecard import load_scorecard
from quayside.kycc.spark import LakeTables, extract, score
from quayside.kycc.spark.dialect import column_type
from quayside.kycc.spark.tables import READ

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def tables(spark: SparkSession) -> LakeTables:
    """One batch, B, of three parties and no transactions."""
    schemas = {
        table.name: ", ".join(f"{name} {column_type(type_)}" for name, type_ in table.columns.items())
        for table in READ
    }
    empty = {name: spark.createDataFrame([], schema) for name, schema in schemas.items()}
    rows = [("B", id_, *[None] * (len(empty["parties"].columns) - 2)) for id_ in "abc"]
    return LakeTables(**{**empty, "parties": spark.createDataFrame(rows, schemas["parties"])})


def test_unknown_batches_and_those_too_large_for_the_driver(tables: LakeTables) -> None:
    with pytest.raises(NotFoundError, match="Batch 'X' has no parties"):
        extract(tables, "X", MOMENTS[0])
    with pytest.raises(InputError, match=r"3 parties and 0 relationships, more than the 2 .* raise max_rows"):
        extract(tables, "B", MOMENTS[0], max_rows=2)
    with pytest.raises(InputError, match="has no zone"):
        extract(tables, "B", MOMENTS[0].replace(tzinfo=None))
    assert extract(tables, "B", MOMENTS[0], max_rows=3).count() == 3


def test_tables_that_the_ingest_did_not_write(tables: LakeTables) -> None:
    raw = tables.transactions.drop("amount_base")
    with pytest.raises(InputError, match=r"kycc.transactions has no column amount_base: .*lake export"):
        replace(tables, transactions=raw)
    zoneless = tables.transactions.withColumn("ts", tables.transactions["ts"].cast("timestamp_ntz"))
    with pytest.raises(InputError, match=r"Column ts .* is timestamp_ntz and has to be timestamp"):
        replace(tables, transactions=zoneless)
    floating = tables.transactions.withColumn(
        "amount_base", tables.transactions["amount_base"].cast("double")
    )
    with pytest.raises(InputError, match=r"is double and has to be decimal\(18,2\)"):
        replace(tables, transactions=floating)


def test_frames_that_a_card_cannot_read(spark: SparkSession) -> None:
    card = load_scorecard("v1")
    columns = {name: pa.array([1.0]) for name in card.required_features}
    key = {"batch_id": ["B"], "party_id": ["a"], "as_of": [MOMENTS[0]]}
    with pytest.raises(InputError, match=r"'kyc_verified'.*no such column"):
        score(spark.createDataFrame(pa.table(key)), card)
    text = {**key, **columns, "kyc_verified": ["1"]}
    with pytest.raises(InputError, match="'kyc_verified' must be numeric, but its column holds string"):
        score(spark.createDataFrame(pa.table(text)), card)
