"""What Spark is given, without a Spark: one text per query, its parameters and the names of its types."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest

from quayside.kycc.features import FEATURES_WIDE, kyc, transactions
from quayside.kycc.features.moment import Moment
from quayside.kycc.spark.dialect import arguments, column_type, micros, to_spark
from quayside.kycc.tables import SCORES, TRANSACTIONS

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("query", [kyc.query(), transactions.query()], ids=["kyc", "transaction"])
def test_every_parameter_is_bound_and_every_table_a_frame(query: str) -> None:
    text = to_spark(query)
    moment = Moment("B", datetime(2026, 6, 1, 12, tzinfo=timezone(timedelta(hours=9))))
    values = arguments(moment, query)
    assert set(re.findall(r":(\w+)", text)) == set(values)
    assert values["batch_id"] == "B"
    assert all(isinstance(value, int) for name, value in values.items() if name != "batch_id")
    tables = set(re.findall(r"(?<!\{)\{(\w+)\}(?!\})", text))
    assert tables == set(re.findall(r"kycc\.(\w+)", query))
    assert "kycc." not in text
    assert not re.search(r"(?<!TIMESTAMP_MICROS\():(?!batch_id)\w+", text), "an instant is bound as a number"


def test_instants_are_exact_before_and_after_1970() -> None:
    assert micros(datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)) == -1
    assert (
        micros(datetime(2026, 1, 1, 5, 45, tzinfo=timezone(timedelta(hours=5, minutes=45))))
        == 1767225600000000
    )


def test_types_have_the_names_of_a_spark_schema() -> None:
    named = {
        type_: column_type(type_)
        for type_ in {*TRANSACTIONS.columns.values(), *FEATURES_WIDE.columns.values()}
    }
    assert named == {
        "VARCHAR": "string",
        "DECIMAL(18,2)": "decimal(18,2)",
        "TIMESTAMP WITH TIME ZONE": "timestamp",
        "TINYINT": "tinyint",
        "BIGINT": "bigint",
        "DOUBLE": "double",
        "BOOLEAN": "boolean",
    }
    assert (column_type(SCORES.columns["flags"]), column_type(SCORES.columns["raw_score"])) == (
        "array<string>",
        "smallint",
    )


def test_importing_needs_no_spark() -> None:
    code = "import sys; import quayside.kycc.spark; sys.exit(any(m in sys.modules for m in ('pyspark', 'py4j', 'duckdb')))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
