"""Files: their shapes, that JSON and Parquet say the same, the same bytes every time, complete or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.kycc.generate.conftest import AT

from quayside.foundation.errors import UsageError
from quayside.kycc.generate import (
    Batch,
    Population,
    generate,
    write_fx_rates,
    write_json,
    write_outcomes,
    write_parquet,
)
from quayside.kycc.generate.batch import iso

pytestmark = pytest.mark.unit

TABLES = ("parties", "accounts", "transactions", "relationships")


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"), parse_float=Decimal)


def plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as JSON should show them: UTC to the second with Z, no key without a value but tax_id."""

    def value(each: Any) -> Any:
        return each.strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(each, datetime) else each

    return [{k: value(v) for k, v in row.items() if v is not None or k == "tax_id"} for row in rows]


def test_json_is_one_object_with_the_agreed_keys(small: Batch, tmp_path: Path) -> None:
    path = write_json(small, tmp_path / "new" / "folder" / "batch.json")
    document = read(path)
    assert list(document) == [
        "batch_id",
        "seed",
        "generated_at",
        "distribution",
        "counts",
        "profile_breakdown",
        *TABLES,
    ]
    assert document["batch_id"] == "B-small"
    assert document["seed"] == 42
    assert document["generated_at"] == "2026-03-02T12:30:00Z"
    assert document["distribution"] == {
        "excellent": Decimal("0.15"),
        "good": Decimal("0.35"),
        "fair": Decimal("0.35"),
        "poor": Decimal("0.15"),
    }
    assert document["profile_breakdown"] == {"excellent": 15, "good": 35, "fair": 35, "poor": 15}
    assert document["counts"] == {name: len(document[name]) for name in TABLES}
    required = {
        "parties": {"party_id", "name", "profile", "party_type", "kyc_verified", "tax_id", "created_at", "batch_id"},
        "accounts": {"account_id", "party_id", "account_type", "currency", "balance", "batch_id"},
        "transactions": {
            "txn_id", "party_id", "counterparty_id", "account_id", "amount", "currency", "txn_type", "ts", "reference",
            "batch_id",
        },
        "relationships": {
            "relationship_id", "from_party_id", "to_party_id", "relationship_type", "established_date", "batch_id",
        },
    }  # fmt: skip
    optional = {
        "parties": {"contact_person", "email", "phone", "address", "registration_number"},
        "transactions": {"due_date", "settles_txn_id"},
    }
    for name, keys in required.items():
        seen = [set(row) for row in document[name]]
        assert set.intersection(*seen) == keys
        assert set.union(*seen) == keys | optional.get(name, set())
        assert all(
            value is not None for row in document[name] for key, value in row.items() if key != "tax_id"
        )
    assert {row["kyc_verified"] for row in document["parties"]} == {0, 1}
    assert any(row["tax_id"] is None for row in document["parties"])


def test_json_holds_exactly_the_rows(small: Batch, tmp_path: Path) -> None:
    document = read(write_json(small, tmp_path / "batch.json"))
    for name in TABLES:
        assert document[name] == plain(small.table(name).to_pylist())


@pytest.mark.slow
def test_parquet_holds_exactly_the_rows_of_the_json(tmp_path: Path) -> None:
    batch = generate(
        "B-both", 3_000, generated_at=AT, currencies=("USD", "EUR")
    )  # two blocks of transactions
    document = read(write_json(batch, tmp_path / "batch.json"))
    folder = write_parquet(batch, tmp_path / "folder")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["batch.json", *(f"{name}.parquet" for name in TABLES)]
    )
    assert read(folder / "batch.json") == {key: document[key] for key in document if key not in TABLES}
    for name in TABLES:
        table = pq.read_table(folder / f"{name}.parquet")
        assert plain(table.to_pylist()) == document[name]
        for field in table.schema:
            wanted = {
                "amount": pa.decimal128(18, 2),
                "balance": pa.decimal128(18, 2),
                "kyc_verified": pa.int8(),
                "ts": pa.timestamp("us", "UTC"),
                "due_date": pa.timestamp("us", "UTC"),
                "created_at": pa.timestamp("us", "UTC"),
                "established_date": pa.timestamp("us", "UTC"),
            }.get(field.name, pa.string())
            assert field.type == wanted, field


def test_a_batch_id_that_needs_escaping(tmp_path: Path) -> None:
    name = 'a "quoted" \\ näme 東'
    batch = generate(name, 3, generated_at=AT)
    document = read(write_json(batch, tmp_path / "batch.json"))
    assert {document["batch_id"], *(row["batch_id"] for table in TABLES for row in document[table])} == {name}
    assert read(write_outcomes(batch, tmp_path / "o.json"))["batch_id"] == name


def test_moments_before_1970(tmp_path: Path) -> None:
    batch = generate("old", 60, generated_at=datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC))
    document = read(write_json(batch, tmp_path / "batch.json"))
    assert document["transactions"] == plain(batch.transactions.to_pylist())
    assert document["parties"] == plain(batch.parties.to_pylist())


def test_outcomes_file(large: Batch, tmp_path: Path) -> None:
    document = read(write_outcomes(large, tmp_path / "B_outcomes.json"))
    assert list(document) == ["batch_id", "observed_through", "outcomes"]
    assert document["observed_through"] == "2026-08-29T12:30:00Z"
    assert document["outcomes"] == plain(large.outcomes.to_pylist())
    assert {row["event"] for row in document["outcomes"]} == {"overdue_90", "write_off", "collection"}
    assert all(set(row) == {"party_id", "event", "event_date", "amount"} for row in document["outcomes"])
    assert all(row["amount"] > 0 for row in document["outcomes"])


def test_no_outcomes_at_all(tmp_path: Path) -> None:
    batch = generate("quiet", 1, generated_at=AT, mix="safe")
    assert not batch.outcomes.num_rows
    assert read(write_outcomes(batch, tmp_path / "o.json"))["outcomes"] == []
    document = read(write_json(batch, tmp_path / "b.json"))
    assert (len(document["parties"]), document["transactions"], document["relationships"]) == (1, [], [])
    assert pq.read_table(write_parquet(batch, tmp_path / "f") / "transactions.parquet").num_rows == 0


def test_rates_as_csv_and_parquet(tmp_path: Path) -> None:
    batch = generate("fx", 5, generated_at=AT, currencies=("USD", "GBP", "NPR"))
    rows = pq.read_table(write_fx_rates(batch, tmp_path / "fx_rates.parquet")).to_pylist()
    assert list(rows[0]) == ["currency", "base_currency", "day", "rate"]
    assert {(row["currency"], row["base_currency"]) for row in rows} == {("GBP", "USD"), ("NPR", "USD")}
    assert min(row["day"] for row in rows) == date(2025, 9, 3)
    assert max(row["day"] for row in rows) == date(2026, 3, 2)
    assert all(Decimal("1.2") < row["rate"] < Decimal("1.35") for row in rows if row["currency"] == "GBP")
    lines = write_fx_rates(batch, tmp_path / "fx_rates.csv").read_text().splitlines()
    assert lines[0].replace('"', "") == "currency,base_currency,day,rate"
    assert [line.replace('"', "").split(",") for line in lines[1:]] == [
        [str(row[key]) for key in ("currency", "base_currency", "day", "rate")] for row in rows
    ]
    with pytest.raises(UsageError, match=r"\.csv or \.parquet"):
        write_fx_rates(batch, tmp_path / "fx_rates.xlsx")


PROGRAM = """
import sys
from datetime import UTC, datetime
from quayside.kycc.generate import *
folder, threads = sys.argv[1], int(sys.argv[2])
batch = generate("B-same", 5_000, generated_at=datetime(2026, 3, 2, tzinfo=UTC), seed=9, currencies=("USD", "EUR"))
write_json(batch, f"{folder}/b.json", threads=threads)
write_parquet(batch, f"{folder}/p", threads=threads)
write_outcomes(batch, f"{folder}/o.json")
write_fx_rates(batch, f"{folder}/fx.csv")
"""


@pytest.mark.slow
def test_same_bytes_in_any_process_with_any_number_of_threads(tmp_path: Path) -> None:
    contents = []
    for hash_seed, threads in (("0", "1"), ("4242", "3")):
        folder = tmp_path / hash_seed
        subprocess.run(
            [sys.executable, "-c", PROGRAM, str(folder), threads],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        contents.append(
            {
                str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
        )
    assert contents[0] == contents[1]
    assert len(contents[0]) == 8


def test_what_this_seed_gives() -> None:
    """A change here changes every batch anyone has generated: say so in the change log."""
    batch = generate("BATCH_001", 100, generated_at=AT)
    assert batch.counts["transactions"] == 10828
    assert batch.counts["relationships"] == 581
    assert batch.outcomes.num_rows == 18
    first = batch.transactions.slice(0, 1).to_pylist()[0]
    assert first["txn_id"] == "TXN-7A7IHYK5-0000000001"
    assert first["party_id"] == "P-UV3W36NS-0000001"
    assert first["counterparty_id"] == "P-UV3W36NS-0000038"
    assert first["amount"] == Decimal("12188.23")
    assert iso(first["ts"]) == "2025-09-03T16:36:18Z"
    assert batch.parties["name"][0].as_py() == "Falwood Electronics Ltd"


def test_arguments_change_the_batch(small: Batch) -> None:
    changed = generate("B-small", 100, generated_at=AT, seed=43)
    assert changed.drawn.base_amount.tolist() != small.drawn.base_amount.tolist()
    assert generate("B-smalk", 100, generated_at=AT).drawn.weakness.tolist() != small.drawn.weakness.tolist()


def record(calls: list[tuple[int, int]], done: int, total: int) -> None:
    calls.append((done, total))


@pytest.mark.slow
def test_progress_ends_with_everything(large: Batch, tmp_path: Path) -> None:
    for write in (write_json, write_parquet):
        calls: list[tuple[int, int]] = []
        write(large, tmp_path / write.__name__, on_progress=partial(record, calls))
        assert calls == [(done, 10_000) for done in (2048, 4096, 6144, 8192, 10_000)]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"parties": 0}, "A batch holds 1 to 9,999,999 parties, not 0."),
        ({"parties": 10_000_000}, "A batch holds 1 to 9,999,999 parties, not 10,000,000."),
        ({"mix": "wild"}, "Unknown mix 'wild': choose one of balanced, risky, safe."),
        ({"batch_id": " "}, "A batch id must be 1 to 200 printable characters: ' '."),
        ({"batch_id": "a\nb"}, "A batch id must be 1 to 200 printable characters: 'a\\nb'."),
        ({"generated_at": datetime(2026, 1, 1)}, "generated_at 2026-01-01T00:00:00 has no time zone"),
        ({"generated_at": datetime(1600, 1, 1, tzinfo=UTC)}, "is not between the years 1900 and 9900"),
        ({"currencies": ("USD", "XXX")}, "No rates for currency 'XXX': choose from USD, EUR"),
        ({"currencies": ()}, "Currencies must be a list of different codes"),
        ({"currencies": ("USD", "USD")}, "Currencies must be a list of different codes"),
        (
            {"population": Population("p", datetime(2026, 5, 1, tzinfo=UTC))},
            "generated_at 2026-03-02 12:30 is before the population's as_of 2026-05-01 00:00",
        ),
    ],
)
def test_arguments_that_cannot_be_used(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        generate(**{"batch_id": "B", "parties": 10, "generated_at": AT, **arguments})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("write", [write_json, write_parquet, write_outcomes])
def test_places_that_cannot_be_written(small: Batch, tmp_path: Path, write: Any) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    wrong = [
        tmp_path / "file" / "child",
        tmp_path / "folder",
        tmp_path / "pipe",
        tmp_path / ("long" * 100),
        "a\0b",
        "/proc/nowhere/b",
        "/",
    ]
    for place in wrong:
        with pytest.raises(UsageError, match="Cannot write") as caught:
            write(small, place)
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "notes.txt", "pipe"]


def test_a_file_in_the_place_of_a_folder_stays(small: Batch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="it is a file; name a folder"):
        write_parquet(small, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_earlier_batch_is_replaced_also_through_a_link(small: Batch, tmp_path: Path) -> None:
    other = generate("B-other", 5, generated_at=AT)
    for write, name in ((write_parquet, "folder"), (write_json, "b.json")):
        write(other, tmp_path / name)
        (tmp_path / f"link-{name}").symlink_to(name)
        write(small, tmp_path / f"link-{name}")
        assert (tmp_path / f"link-{name}").is_symlink()
    assert read(tmp_path / "folder" / "batch.json")["batch_id"] == "B-small"
    assert read(tmp_path / "b.json")["batch_id"] == "B-small"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "b.json",
        "folder",
        "link-b.json",
        "link-folder",
    ]


@pytest.mark.parametrize("write", [write_json, write_parquet])
def test_an_interrupted_write_leaves_what_was_there(small: Batch, tmp_path: Path, write: Any) -> None:
    target = write(small, tmp_path / "target")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(generate("B-other", 50, generated_at=AT), target, on_progress=interrupt)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
