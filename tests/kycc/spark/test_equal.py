"""Must show: features and scores on Spark are DuckDB's and the engine's, row for row and to the last bit.

ANSI mode is on and the session's time zone is far from UTC, see `conftest`. A Spark job costs a second whatever it does, so
that many random cases go into one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as examples
from tests.kycc.features.batches import (
    MOMENTS,
    Batch,
    batches,
    create,
    load,
    party,
    transaction,
)
from tests.kycc.features.conftest import extracted
from tests.kycc.scorecard.cases import Case, cases
from tests.kycc.scorecard.test_sql import awkward_case

from quayside.foundation.lake.export import export_table
from quayside.foundation.settings import Settings
from quayside.kycc import features
from quayside.kycc.generate import generate, write_parquet
from quayside.kycc.scorecard import evaluate, load_scorecard
from quayside.kycc.service import ScoringService
from quayside.kycc.spark import LakeTables, extract, score
from quayside.kycc.spark.scores import COLUMNS
from quayside.kycc.spark.tables import READ

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = [pytest.mark.integration, pytest.mark.slow]

BATCHES, CARDS = 90, 10
once = examples(
    database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)


def rows_of(frame: DataFrame) -> dict[str, dict[str, Any]]:
    """party_id → every column."""
    rows = frame.toArrow().to_pylist()
    assert len(rows) == len({row["party_id"] for row in rows})
    return {row["party_id"]: row for row in rows}


def exact(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as text, which no two doubles share: it tells -0.0 from 0.0, 1 from 1.0 and NULL from NaN, and shows a difference when there is one."""
    plain = {key: {name: row[name] for name in sorted(row)} for key, row in sorted(rows.items())}
    return json.dumps(plain, default=str, indent=1)


def test_a_batch_of_the_lake(spark: SparkSession, settings: Settings, tmp_path: Path) -> None:
    service = ScoringService(settings)
    moment = datetime(2026, 6, 30, tzinfo=UTC)
    for batch_id, parties in (("OTHER", 40), ("SPARK", 400)):
        service.ingest(write_parquet(generate(batch_id, parties, generated_at=moment), tmp_path / batch_id))
    service.extract("SPARK")
    service.score("SPARK")
    for table in READ:
        export_table(service.lake, table.qualified, target=f"{tmp_path}/{table.qualified}.parquet")

    made = extract(LakeTables.read(spark, str(tmp_path)), "SPARK", moment).cache()
    scored = score(made, load_scorecard("v1"))
    with service.connection() as con:
        wanted = con.execute("SELECT * FROM kycc.features WHERE batch_id = 'SPARK'").to_arrow_table()
        decided = con.execute(
            f"SELECT {', '.join(COLUMNS)} FROM kycc.scores WHERE batch_id = 'SPARK'"
        ).to_arrow_table()
    assert made.columns == wanted.column_names
    for ours, theirs in ((made, wanted), (scored, decided)):
        found = {row["party_id"]: utc(row) for row in theirs.to_pylist()}
        assert len(found) == 400
        assert exact(rows_of(ours)) == exact(found)
    values = {name: set(wanted.column(name).to_pylist()) for name in features.BY_NAME}
    constant = {name for name, found in values.items() if len(found) == 1}
    assert constant <= {"in_cycle", "payment_type_diversity"}, (
        "a feature that is everywhere the same compares little"
    )


def utc(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "as_of": row["as_of"].astimezone(UTC)}


def test_random_batches(spark: SparkSession, tmp_path: Path) -> None:
    drawn: list[Batch] = []

    @seed(4)
    @examples(once, max_examples=BATCHES)
    @given(batch=batches())
    def draw(batch: Batch) -> None:
        drawn.append(batch)

    draw()
    assert len(drawn) >= BATCHES
    with duckdb.connect(config={"threads": 2}) as con:
        create(con, (*READ, *features.TABLES))
        for number, as_of in enumerate(MOMENTS):
            same = [batch for batch in drawn if batch.as_of == as_of]
            load(con, f"B{number}", side_by_side(as_of, [*same, *awkward(as_of)]))
        tables = exported(spark, con, tmp_path)
        for number, as_of in enumerate(MOMENTS):
            wanted = extracted(con, f"B{number}", Batch(as_of, []))
            with ansi_mode(spark, on=number % 2 == 0):
                made = rows_of(extract(tables, f"B{number}", as_of))
            for row in made.values():
                assert row.pop("as_of") == as_of
                assert row.pop("batch_id") == f"B{number}"
                del row["party_id"]
            assert exact(made) == exact(wanted)


@contextmanager
def ansi_mode(spark: SparkSession, *, on: bool) -> Iterator[None]:
    spark.conf.set("spark.sql.ansi.enabled", str(on).lower())
    yield
    spark.conf.set("spark.sql.ansi.enabled", "true")


def side_by_side(as_of: datetime, parts: Iterable[Batch]) -> Batch:
    """Batches as one that does not mix them: every id gets the number of its part."""
    ids = ("party_id", "counterparty_id", "txn_id", "settles_txn_id", "from_party_id", "to_party_id")
    whole = Batch(as_of, [])
    for number, part in enumerate(parts):

        def apart(rows: Iterable[dict[str, Any]], mark: str = f"{number}|") -> list[dict[str, Any]]:
            return [
                {k: f"{mark}{v}" if k in ids and v is not None else v for k, v in row.items()} for row in rows
            ]

        whole = replace(whole, parties=[*whole.parties, *apart(part.parties)]).with_more(
            apart(part.transactions), apart(part.relationships)
        )
    return whole


def awkward(as_of: datetime) -> list[Batch]:
    """What random batches are too small for: no division by zero, overflow or rounding may set the engines apart."""
    nobody = {
        "party_type": "customer", "kyc_verified": 0, "tax_id": None, "contact_person": None, "email": None,
        "phone": None, "address": None, "created_at": None,
    }  # fmt: skip

    def trade(amounts: Iterable[Any], step: int, **columns: Any) -> list[dict[str, Any]]:
        return [
            transaction(
                "a",
                as_of - timedelta(days=step * i),
                amount=amount,
                txn_id=f"T{i}",
                counterparty_id=f"c{i % 7}",
                **columns,
            )
            for i, amount in enumerate(amounts)
        ]

    largest = Decimal("90071992547409.91")  # 2^53 - 1 cents, the last sum that a double holds exactly
    cents = [Decimal(i * i * 7919 % 1_000_003).scaleb(-2) for i in range(170)]
    return [
        Batch(as_of, [{"party_id": "a", **nobody}], rows)
        for rows in (
            trade([largest], 0),
            trade([largest / 2 - 1, largest / 2], 40),
            trade(cents, 1),
            trade(cents, 1, txn_type="payment"),
            trade([0] * 6, 30),
            trade([5] * 6, 30, txn_type="credit_note"),
            trade([Decimal("33.33")] * 6, 30, due_date=as_of - timedelta(days=179, microseconds=1)),
        )
    ]


def exported(spark: SparkSession, con: duckdb.DuckDBPyConnection, folder: Path) -> LakeTables:
    for table in READ:
        con.execute(f"COPY {table.qualified} TO '{folder}/{table.qualified}.parquet' (FORMAT parquet)")
    return LakeTables.read(spark, str(folder))


def test_sums_beyond_the_exact_integers_of_a_double(spark: SparkSession, tmp_path: Path) -> None:
    """DuckDB turns a decimal of more than 2^53 cents into a double in two steps, each of which rounds."""
    as_of = MOMENTS[0]
    amounts = [Decimal(f"{9_999_999_999_999_999 - i * 12_345_678_901}.{i:02d}") for i in range(20)]
    rows = [
        transaction("a", as_of, amount=a, counterparty_id=str(i), txn_id=str(i))
        for i, a in enumerate(amounts)
    ]
    with duckdb.connect() as con:
        create(con, (*READ, *features.TABLES))
        load(con, "B", Batch(as_of, [party("a", created_at=as_of)], rows))
        wanted = extracted(con, "B", Batch(as_of, []))["a"]
        made = rows_of(extract(exported(spark, con, tmp_path), "B", as_of))["a"]
    assert {name for name in wanted if wanted[name] is None} == {
        name for name in wanted if made[name] is None
    }
    numbers = {name: value for name, value in wanted.items() if value is not None}
    assert numbers["total_transaction_volume_6m"] > 1e17
    assert {name: made[name] for name in numbers} == pytest.approx(numbers, rel=4e-16, abs=0)


def test_random_cards(spark: SparkSession) -> None:
    drawn: list[Case] = []

    @seed(4)
    @examples(once, max_examples=CARDS)
    @given(case=cases())
    def draw(case: Case) -> None:
        drawn.append(case)

    draw()
    assert len(drawn) >= CARDS
    drawn.append(awkward_case())
    made = reduce(lambda a, b: a.unionAll(b), (scored(spark, i, case) for i, case in enumerate(drawn)))
    found = {(row["batch_id"], row["party_id"]): row for row in made.toArrow().to_pylist()}
    assert len(found) == sum(len(case.rows) for case in drawn)
    for number, case in enumerate(drawn):
        rows = evaluate(case.card, case.columns).to_arrow().drop_columns(["reason_points"])
        for at, wanted in enumerate(rows.rename_columns({"rules_applied": "rules"}).to_pylist()):
            row = found[str(number), str(at)]
            assert {name: row[name] for name in wanted} == wanted, (case.card, case.rows[at])


def scored(spark: SparkSession, number: int, case: Case) -> DataFrame:
    kind_of = {item.feature: item.kind for item in case.card.characteristics}
    types = {
        name: pa.string() if kind_of.get(name) == "categorical" else pa.float64() for name in case.columns
    }
    key = {
        "batch_id": [str(number)] * len(case.rows),
        "party_id": [str(at) for at in range(len(case.rows))],
        "as_of": [MOMENTS[0]] * len(case.rows),
    }
    table = pa.table(
        {**key, **{name: pa.array(values, types[name]) for name, values in case.columns.items()}}
    )
    return score(spark.createDataFrame(table), case.card)
