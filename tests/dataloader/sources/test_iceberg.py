"""Iceberg tables that PyIceberg wrote to moto's S3, read without the catalog that wrote them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from tests.dataloader.servers import load_request
from tests.dataloader.sources.conftest import Opener
from tests.foundation.s3_server import s3_settings

from quayside.dataloader.errors import SourceRefusedError, SourceUnavailableError
from quayside.dataloader.load import load_table
from quayside.dataloader.request import LoadRequest
from quayside.dataloader.sources.source import Comparison
from quayside.foundation.errors import InputError
from quayside.foundation.settings import Settings

__all__ = ["s3_settings"]

pytestmark = [pytest.mark.integration, pytest.mark.slow]

HOSTILE = 'Robert\'); DROP "x";--'
SECRET = "pl4nted-s3cret"


@dataclass(frozen=True)
class Warehouse:
    catalog: Any
    endpoint: str

    def request(self, table: str, schema: str | None = "sales", **fields: Any) -> LoadRequest:
        values = {
            "s3_warehouse": {"value": "s3://lake/warehouse"},
            "aws_access_key_id": "ICEBERG_KEY_ID",
            "aws_secret_access_key": "ICEBERG_SECRET",
            "aws_region": {"value": "eu-central-1"},
            "aws_endpoint_url": self.endpoint,
            **fields.pop("values", {}),
        }
        return load_request("s3_iceberg", values, table, source_schema_name=schema, **fields)


@pytest.fixture(scope="module")
def warehouse(s3_settings: Settings) -> Iterator[Warehouse]:
    from pyiceberg.catalog.sql import SqlCatalog

    endpoint = s3_settings.aws_endpoint_url
    assert endpoint is not None
    properties = {
        "uri": "sqlite://",
        "warehouse": "s3://lake/warehouse",
        "s3.endpoint": endpoint,
        "s3.access-key-id": "test",
        "s3.secret-access-key": SECRET,
        "s3.region": "eu-central-1",
    }
    catalog = SqlCatalog("writer", **properties)
    catalog.create_namespace("sales")
    yield Warehouse(catalog, endpoint)
    catalog.close()


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICEBERG_KEY_ID", "test")
    monkeypatch.setenv("ICEBERG_SECRET", SECRET)


SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("amount", pa.decimal128(15, 2)),
        pa.field("at", pa.timestamp("us", tz="UTC")),
        pa.field("local", pa.timestamp("us")),
        pa.field("day", pa.date32()),
        pa.field(HOSTILE, pa.string()),
        pa.field("never", pa.int32()),
        pa.field("ratio", pa.float64()),
    ]
)


def rows_of(first: int, last: int) -> pa.Table:
    moments = [datetime(2026, 1, 1, 0, n // 60, n % 60, 123456, tzinfo=UTC) for n in range(first, last)]
    values = [
        list(range(first, last)),
        [Decimal(n).scaleb(-2) if n % 3 else None for n in range(first, last)],
        moments,
        [moment.replace(tzinfo=None) for moment in moments],
        [date(2026, 1, 1 + n % 28) for n in range(first, last)],
        [f"it's {n}" for n in range(first, last)],
        [None] * (last - first),
        [n / 2 for n in range(first, last)],
    ]
    return pa.table([pa.array(v, f.type) for v, f in zip(values, SCHEMA, strict=True)], schema=SCHEMA)


@pytest.fixture(scope="module")
def orders(warehouse: Warehouse) -> Any:
    """Two files, in two snapshots."""
    from pyiceberg.schema import Schema

    table = warehouse.catalog.create_table(
        "sales.orders", Schema(*_with_key(SCHEMA), identifier_field_ids=[1])
    )
    table.append(rows_of(0, 100))
    table.append(rows_of(100, 200))
    return table


def _with_key(schema: pa.Schema) -> list[Any]:
    from pyiceberg.types import (
        DateType,
        DecimalType,
        DoubleType,
        IntegerType,
        LongType,
        NestedField,
        StringType,
        TimestampType,
        TimestamptzType,
    )  # fmt: skip

    types = [
        LongType(), DecimalType(15, 2), TimestamptzType(), TimestampType(), DateType(), StringType(), IntegerType(), DoubleType()
    ]  # fmt: skip
    return [
        NestedField(n + 1, field.name, type_, required=not field.nullable)
        for n, (field, type_) in enumerate(zip(schema, types, strict=True))
    ]


def test_a_table_arrives_as_it_is(
    warehouse: Warehouse, orders: Any, opened: Opener, rows: Callable[..., Any]
):
    with opened(warehouse.request("orders")) as table:
        assert [(c.name, c.type, c.nullable) for c in table.columns] == [
            ("id", "BIGINT", False),
            ("amount", "DECIMAL(15,2)", True),
            ("at", "TIMESTAMP WITH TIME ZONE", True),
            ("local", "TIMESTAMP", True),
            ("day", "DATE", True),
            (HOSTILE, "VARCHAR", True),
            ("never", "INTEGER", True),
            ("ratio", "DOUBLE", True),
        ]
        assert (list(table.primary_key), table.snapshot) == (["id"], True)
        assert rows(table) == sorted(tuple(row.values()) for row in rows_of(0, 200).to_pylist())
        assert rows(table, (), ["never", "id"])[:2] == [(None, 0), (None, 1)]
        assert (table.count(), table.bounds("id"), table.bounds("never")) == (200, (0, 199), (None, None))
        assert abs((datetime.now(UTC) - table.clock()).total_seconds()) < 600


def test_predicates_are_pushed_and_exact(
    warehouse: Warehouse, orders: Any, opened: Opener, rows: Callable[..., Any]
):
    """case 47"""
    at = datetime(2026, 1, 1, 0, 3, 10, 123456, tzinfo=UTC)
    with opened(warehouse.request("orders")) as table:
        for where, ids in (
            ([Comparison("at", ">", at)], range(191, 200)),
            ([Comparison("at", ">=", at)], range(190, 200)),
            ([Comparison("local", "<=", at.replace(tzinfo=None)), Comparison("id", ">", 188)], (189, 190)),
            ([Comparison(HOSTILE, "=", "it's 77")], (77,)),
            ([Comparison("amount", "is null"), Comparison("id", "<", 7)], (0, 3, 6)),
            ([Comparison("amount", ">=", Decimal("1.98"))], (199,)),
            ([Comparison("never", "is not null")], ()),
            ([Comparison("day", "=", date(2026, 1, 3)), Comparison("id", "<=", 30)], (2, 30)),
            ([Comparison("ratio", "<", Decimal("0.5"))], (0,)),
        ):
            assert [row[0] for row in rows(table, where, ["id"])] == list(ids), where
            assert table.count(where) == len(ids), where
        assert table.bounds("at", [Comparison("id", "<", 191)])[1] == at
        with pytest.raises(InputError, match="has no column 'nope'"):
            table.relation([Comparison("nope", "=", 1)])


def test_a_file_that_cannot_hold_a_row_is_not_read(
    warehouse: Warehouse, opened: Opener, rows: Callable[..., Any], shared_con: duckdb.DuckDBPyConnection
):
    """The pushed filter leaves the first file alone: it is gone, and only a wide read notices."""
    table = warehouse.catalog.create_table("sales.pruned", SCHEMA)
    table.append(rows_of(0, 10))
    [first] = [task.file.file_path for task in table.scan().plan_files()]
    table.append(rows_of(10, 20))
    table.io.delete(first)
    with opened(warehouse.request("pruned")) as source:
        assert [row[0] for row in rows(source, [Comparison("id", ">", 15)], ["id"])] == [16, 17, 18, 19]
        with pytest.raises(duckdb.Error) as raised:
            rows(source)
        meaning = source.explain(raised.value)
        assert isinstance(meaning, SourceRefusedError)
        assert "lacks a file of the table" in str(meaning)


def test_a_load_sees_one_snapshot_and_the_next_the_newest(
    warehouse: Warehouse, opened: Opener, rows: Callable[..., Any]
):
    table = warehouse.catalog.create_table("sales.moving", SCHEMA)
    with opened(warehouse.request("moving")) as empty:
        assert (rows(empty), empty.count(), empty.bounds("id")) == ([], 0, (None, None))
    table.append(rows_of(0, 3))
    with opened(warehouse.request("moving")) as before:
        table.append(rows_of(3, 5))
        table.delete("id = 0")
        with table.update_schema() as change:
            change.rename_column("never", "renamed")
        assert [row[0] for row in rows(before, (), ["id"])] == [0, 1, 2]
        assert before.count() == 3
    with opened(warehouse.request("moving")) as after:
        # Ten metadata files in a second or two: the number says which is the newest.
        assert [row[0] for row in rows(after, (), ["id"])] == [1, 2, 3, 4]
        assert "renamed" in [column.name for column in after.columns]


def test_the_hint_of_a_hadoop_catalog_goes_before_the_newest_file(
    warehouse: Warehouse, orders: Any, opened: Opener, rows: Callable[..., Any]
):
    metadata = orders.metadata
    first = metadata.metadata_log[1].metadata_file  # after the first append
    io = orders.io
    folder = "s3://lake/warehouse/hinted.db/orders/metadata"
    for name, of in (("v1", first), ("v2", orders.metadata_location)):
        with (
            io.new_input(of).open() as source,
            io.new_output(f"{folder}/{name}.metadata.json").create() as sink,
        ):
            sink.write(source.read())
    with io.new_output(f"{folder}/version-hint.text").create() as sink:
        sink.write(b"1\n")
    with opened(warehouse.request("orders", "hinted")) as table:
        assert table.count() == 100
    with io.new_output(f"{folder}/version-hint.text").create(overwrite=True) as sink:
        sink.write(b"7")
    with (
        pytest.raises(SourceRefusedError, match="names metadata that is not there: '7'"),
        opened(warehouse.request("orders", "hinted")),
    ):
        pass


def test_what_is_wrong_is_said(warehouse: Warehouse, opened: Opener):
    """cases 31 and 38"""
    for request, error, words in (
        (warehouse.request("nowhere"), SourceRefusedError, "has no Iceberg metadata at sales/nowhere or sales.db/nowhere"),
        (warehouse.request("../x"), InputError, "leaves the warehouse"),
        (warehouse.request("x", query="SELECT 1"), InputError, "take no query"),
        (warehouse.request("x", values={"s3_warehouse": {"value": "/tmp"}}), InputError, "is not s3://bucket/folder"),
        (
            warehouse.request("x", values={"s3_warehouse": {"value": "s3://nobucket/x"}}),
            SourceRefusedError,
            "Source the_source refuses",
        ),
        (
            warehouse.request("x", values={"aws_endpoint_url": "http://127.0.0.1:1"}),
            SourceUnavailableError,
            "Source the_source does not answer",
        ),
    ):  # fmt: skip
        with pytest.raises(error, match=words) as raised, opened(request):
            pass
        assert SECRET not in str(raised.value)


def test_loads_first_all_and_then_what_is_new(
    warehouse: Warehouse, shared_settings: Settings, shared_con: duckdb.DuckDBPyConnection
):
    """Full, and incremental with its cursor, into the lake."""
    table = warehouse.catalog.create_table("sales.loaded", SCHEMA)
    table.append(rows_of(0, 10))
    request = warehouse.request(
        "loaded",
        destination_table_name="from_iceberg",
        load_strategy="incremental",
        incremental_column="at",
        incremental_type="timestamp",
        incremental_lookback_hours=0,
        primary_key_cols=("id",),
    )
    first = load_table(shared_settings, request, con=shared_con)
    assert (first.rows_read, first.rows_inserted, first.rows_total) == (10, 10, 10)
    assert first.columns["amount"] == "DECIMAL(15,2)"
    table.append(rows_of(10, 15))
    second = load_table(shared_settings, replace(request, attempt=2), con=shared_con)
    assert (second.rows_inserted, second.rows_updated, second.rows_total) == (5, 0, 15)
    assert second.rows_read < 15
    assert second.cursor_before == first.cursor_after != second.cursor_after
    full = replace(request, attempt=3, load_strategy="full", destination_table_name="from_iceberg_full")
    assert load_table(shared_settings, full, con=shared_con).rows_total == 15
