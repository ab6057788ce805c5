"""Loading and loading again: what is written, and that nothing else is."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from tests.kycc.ingest.conftest import GOOD, PlainLake, small_batch, write

from quayside.foundation.errors import InputError, NotFoundError, UsageError
from quayside.kycc.ingest import ingest

pytestmark = pytest.mark.unit


def test_the_first_load_says_what_it_did(plain_lake: PlainLake) -> None:
    steps: list[str] = []
    result = ingest(plain_lake, str(GOOD), on_progress=steps.append)
    assert (result.batch_id, result.base_currency) == ("B1", "USD")
    assert result.as_of == datetime(2026, 1, 31, tzinfo=UTC)
    assert result.counts()["transactions"] == {
        "read": 4,
        "kept": 4,
        "quarantined": 0,
        "added": 4,
        "changed": 0,
        "unchanged": 0,
    }
    assert not result.already_loaded
    assert result.as_dict()["as_of"] == "2026-01-31T00:00:00+00:00"
    assert steps[0] == "read"
    assert steps[-2:] == ["write", "commit"]
    assert set(result.seconds) == {"read", "validate", "write"}
    assert plain_lake.rows("SELECT count(*), sum(amount), sum(amount_base) FROM kycc.transactions") == [
        (4, Decimal("102.50"), Decimal("102.50"))
    ]
    assert plain_lake.rows("SELECT source, rows_kept->>'parties' FROM kycc.batches") == [(str(GOOD), "3")]


def test_the_same_content_again_changes_nothing(plain_lake: PlainLake, tmp_path: Path) -> None:
    first = ingest(plain_lake, GOOD)
    state, commits = plain_lake.state(), plain_lake.commits
    copy = tmp_path / "another name.json"
    copy.write_bytes(GOOD.read_bytes())
    for options in ({}, {"replace": True}, {"base_currency": "USD"}):
        again = ingest(plain_lake, copy, **options)
        assert again.already_loaded
        assert (again.as_of, again.content_sha256) == (first.as_of, first.content_sha256)
        assert plain_lake.state() == state
        assert plain_lake.commits == commits


def test_one_more_transaction_adds_exactly_that_one(plain_lake: PlainLake, tmp_path: Path) -> None:
    ingest(plain_lake, write(small_batch(), tmp_path))
    before = plain_lake.state()
    result = ingest(plain_lake, write(small_batch(transactions=5), tmp_path))
    assert sum(result.rows_added.values()) == result.rows_added["transactions"] == 1
    assert not any(result.rows_changed.values())
    assert result.rows_unchanged["transactions"] == 4
    after = plain_lake.state()
    (new,) = set(after["transactions"]) - set(before["transactions"])
    assert new[1] == "Y0"
    assert after["transactions"] == sorted([*before["transactions"], new])
    assert after["parties"] == before["parties"]


def test_rows_that_changed_are_replaced_and_others_left(plain_lake: PlainLake, tmp_path: Path) -> None:
    batch = small_batch()
    ingest(plain_lake, write(batch, tmp_path))
    batch["parties"][1]["address"] = "1 New Street"
    batch["transactions"][2]["amount"] = 9.99
    result = ingest(plain_lake, write(batch, tmp_path))
    assert result.rows_changed == {"parties": 1, "accounts": 0, "transactions": 1, "relationships": 0}
    assert not any(result.rows_added.values())
    assert plain_lake.rows("SELECT party_id FROM kycc.parties WHERE address = '1 New Street'") == [("P2",)]
    assert plain_lake.rows("SELECT amount_base FROM kycc.transactions WHERE txn_id = 'X3'") == [
        (Decimal("9.99"),)
    ]
    assert plain_lake.rows("SELECT count(*) FROM kycc.transactions") == [(4,)]
    assert plain_lake.rows("SELECT count(*) FROM kycc.batches") == [(2,)]


def test_rows_no_longer_there_stay_unless_replaced(plain_lake: PlainLake, tmp_path: Path) -> None:
    ingest(plain_lake, write(small_batch(transactions=6), tmp_path))
    path = write(small_batch(), tmp_path)
    kept = ingest(plain_lake, path)
    assert kept.rows_missing["transactions"] == 2
    assert "The lake keeps 2 transactions of this batch that the source no longer has." in kept.warnings
    assert plain_lake.rows("SELECT count(*) FROM kycc.transactions") == [(6,)]
    replaced = ingest(plain_lake, path, replace=True)
    assert replaced.rows_removed["transactions"] == 2
    assert plain_lake.rows("SELECT count(*) FROM kycc.transactions") == [(4,)]
    assert ingest(plain_lake, path, replace=True).already_loaded


def test_a_later_file_may_refer_to_rows_loaded_before(plain_lake: PlainLake, tmp_path: Path) -> None:
    batch = small_batch()
    ingest(plain_lake, write(batch, tmp_path))
    batch["parties"] = batch["parties"][:1]
    batch["accounts"] = []
    batch["transactions"] = [batch["transactions"][0] | {"txn_id": "Z1", "party_id": "P3"}]
    result = ingest(plain_lake, write(batch, tmp_path))
    assert result.rows_quarantined["transactions"] == 0
    with pytest.raises(InputError, match="dangling_reference 1"):
        ingest(plain_lake, write(batch, tmp_path), replace=True)


def test_batches_do_not_touch_one_another(plain_lake: PlainLake, tmp_path: Path) -> None:
    ingest(plain_lake, write(small_batch("B1"), tmp_path))
    ingest(plain_lake, write(small_batch("B2", transactions=5), tmp_path))
    ingest(plain_lake, write(small_batch("B2"), tmp_path), replace=True)
    assert plain_lake.rows("SELECT batch_id, count(*) FROM kycc.transactions GROUP BY ALL ORDER BY ALL") == [
        ("B1", 4),
        ("B2", 4),
    ]
    assert plain_lake.rows("SELECT count(DISTINCT party_id), count(*) FROM kycc.parties") == [(3, 6)]


def test_json_and_parquet_of_a_batch_are_the_same_batch(plain_lake: PlainLake, tmp_path: Path) -> None:
    ingest(plain_lake, GOOD)
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        for table in ("parties", "accounts", "transactions", "relationships"):
            con.sql(
                f"SELECT unnest(r, max_depth := 2) FROM (SELECT unnest({table}) AS r FROM read_json('{GOOD}'))"
            ).write_parquet(str(tmp_path / f"{table}.parquet"))
    (tmp_path / "batch.json").write_text('{"batch_id": "B1", "generated_at": "2026-01-31T00:00:00Z"}')
    result = ingest(plain_lake, tmp_path)
    assert not any(
        [*result.rows_added.values(), *result.rows_changed.values(), *result.rows_missing.values()]
    )
    assert result.rows_unchanged["transactions"] == 4


def test_tables_of_the_lake_are_a_batch(plain_lake: PlainLake, tmp_path: Path) -> None:
    with plain_lake.connect() as con:
        con.execute('CREATE SCHEMA "bronze_trade"')
        for table in ("parties", "accounts", "transactions", "relationships"):
            con.execute(
                f"CREATE TABLE bronze_trade.{table} AS SELECT unnest(r, max_depth := 2) "
                f"FROM (SELECT unnest({table}) AS r FROM read_json('{GOOD}'))"
            )
    result = ingest(plain_lake, "lake:bronze.trade", batch_id="B1")
    assert result.rows_kept["transactions"] == 4
    assert result.as_of == datetime(2026, 1, 4, 8, tzinfo=UTC)
    assert ingest(plain_lake, "lake:bronze.trade").already_loaded
    plain_lake.rows(
        "INSERT INTO bronze_trade.transactions SELECT * REPLACE ('X9' AS txn_id) FROM bronze_trade.transactions LIMIT 1"
    )
    assert ingest(plain_lake, "lake:bronze_trade").rows_added["transactions"] == 1
    with pytest.raises(NotFoundError, match="'lake:silver': the lake has no schema 'silver'"):
        ingest(plain_lake, "lake:silver")


def test_what_was_refused_can_be_looked_at(plain_lake: PlainLake, tmp_path: Path) -> None:
    batch = small_batch(transactions=10)
    for row in batch["transactions"][:3]:
        row["txn_type"] = "gift"
    path = write(batch, tmp_path)
    for _ in range(2):
        with pytest.raises(InputError, match="3 of 10 transactions"):
            ingest(plain_lake, path)
        assert plain_lake.rows("SELECT row_key, row->>'txn_type' FROM kycc.quarantine ORDER BY 1") == [
            (f"X{i}", "gift") for i in (1, 2, 3)
        ]
    assert plain_lake.rows("SELECT count(*) FROM kycc.batches") == [(0,)]
    ingest(plain_lake, path, max_reject_ratio=0.3)
    assert plain_lake.rows("SELECT count(*) FROM kycc.quarantine") == [(3,)]
    assert plain_lake.rows("SELECT count(*) FROM kycc.transactions") == [(7,)]
    ingest(plain_lake, write(small_batch(transactions=10), tmp_path))
    assert plain_lake.rows("SELECT count(*) FROM kycc.quarantine") == [
        (3,)
    ]  # of the content that was not as good
    assert plain_lake.rows("SELECT count(*) FROM kycc.transactions") == [(10,)]


def test_a_file_that_changes_meanwhile_is_not_loaded(plain_lake: PlainLake, tmp_path: Path) -> None:
    path = write(small_batch(), tmp_path)

    def append(step: str) -> None:
        if step == "write":
            with path.open("a") as file:
                file.write(" ")

    with pytest.raises(InputError, match="changed while it was read"):
        ingest(plain_lake, path, on_progress=append)
    assert not any(plain_lake.state().values())


def test_an_error_while_writing_leaves_nothing(plain_lake: PlainLake) -> None:
    def fail(step: str) -> None:
        if step == "commit":
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        ingest(plain_lake, GOOD, on_progress=fail)
    assert not any(plain_lake.state().values())
    assert not ingest(plain_lake, GOOD).already_loaded


@pytest.mark.parametrize(
    "options", [{"max_reject_ratio": 2}, {"max_reject_ratio": -0.1}, {"base_currency": "usd"}]
)
def test_arguments_are_checked(plain_lake: PlainLake, options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        ingest(plain_lake, GOOD, **options)  # pyright: ignore[reportArgumentType]
