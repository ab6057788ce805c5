"""Exchange rates: loading them, choosing the base currency, converting at the rate of the day."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.kycc.ingest.conftest import PlainLake, small_batch, write

from quayside.foundation.errors import InputError
from quayside.kycc import fx
from quayside.kycc.ingest import ingest

pytestmark = pytest.mark.unit

HEAD = "currency,base_currency,day,rate\n"


@pytest.fixture
def rates(plain_lake: PlainLake, tmp_path: Path) -> Callable[..., fx.RatesLoaded]:
    def load(*lines: str) -> fx.RatesLoaded:
        path = tmp_path / "rates.csv"
        path.write_text(HEAD + "".join(line + "\n" for line in lines))
        return fx.load_rates(plain_lake, path)

    return load


def batch_in(*currencies: str) -> dict[str, Any]:
    batch = small_batch()
    for row, currency in zip(batch["transactions"], currencies, strict=True):
        row["currency"] = currency
    return batch


def test_rates_are_added_corrected_and_left(
    plain_lake: PlainLake, rates: Callable[..., fx.RatesLoaded]
) -> None:
    assert rates("EUR,USD,2026-01-01,1.1", "EUR,USD,2026-01-02,1.2") == fx.RatesLoaded(2, 2, 0)
    assert rates("EUR,USD,2026-01-02,1.25", "EUR,USD,2026-01-03,1.3") == fx.RatesLoaded(2, 1, 1)
    assert rates("EUR,USD,2026-01-03,1.3") == fx.RatesLoaded(1, 0, 0)
    assert plain_lake.rows("SELECT rate::VARCHAR FROM kycc.fx_rates ORDER BY day") == [
        ("1.10000000",),
        ("1.25000000",),
        ("1.30000000",),
    ]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["EUR,USD,2026-01-01,0"], "'rates.csv' row 1 is no rate"),
        (["EUR,USD,2026-01-01,1.1", "EUR,USD,2026-01-02,-1"], "'rates.csv' row 2 is no rate"),
        (["EUR,USD,someday,1.1"], "row 1 is no rate"),
        (["EUR,USD,2026-01-01,nan"], "row 1 is no rate"),
        (["EUR,EUR,2026-01-01,1"], "row 1 is no rate"),
        (["Euro,USD,2026-01-01,1"], "row 1 is no rate"),
        (["EUR,USD,2026-01-01,1", "EUR,USD,2026-01-01,2"], "has two rates from EUR to USD on 2026-01-01"),
    ],
)
def test_what_is_no_rate_is_refused(
    plain_lake: PlainLake, rates: Callable[..., fx.RatesLoaded], lines: list[str], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        rates(*lines)
    assert plain_lake.rows("FROM kycc.fx_rates") == []


def test_other_files_are_refused(plain_lake: PlainLake, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "a.parquet").write_text("no")
    for name, sentence in {
        "a.csv": "columns currency",
        "a.parquet": "columns currency",
        "a.txt": "neither",
    }.items():
        with pytest.raises(InputError, match=sentence):
            fx.load_rates(plain_lake, tmp_path / name)


def test_amounts_are_converted_at_the_rate_of_their_day(
    plain_lake: PlainLake, rates: Callable[..., fx.RatesLoaded], tmp_path: Path
) -> None:
    rates("EUR,USD,2026-01-01,1.1", "EUR,USD,2026-01-02,1.23456789", "EUR,USD,2026-01-05,9")
    path = write(batch_in("EUR", "EUR", "USD", "EUR"), tmp_path)
    result = ingest(plain_lake, path, max_reject_ratio=0.25)
    assert result.base_currency == "USD"
    assert plain_lake.rows("SELECT txn_id, amount, amount_base FROM kycc.transactions ORDER BY 1") == [
        ("X1", Decimal("10.25"), Decimal("11.28")),
        ("X2", Decimal("20.50"), Decimal("25.31")),
        ("X3", Decimal("30.75"), Decimal("30.75")),
    ]
    assert plain_lake.rows("SELECT row_key, reason, detail FROM kycc.quarantine") == [
        ("X4", "missing_fx_rate", "no rate from EUR to USD on 2026-01-04")
    ]
    assert ingest(plain_lake, path, max_reject_ratio=0.25).already_loaded
    # The missing rate arrives, and another is corrected: the same file now changes something.
    rates("EUR,USD,2026-01-04,2", "EUR,USD,2026-01-01,2")
    again = ingest(plain_lake, path)
    assert (again.rows_added["transactions"], again.rows_changed["transactions"]) == (1, 1)
    assert plain_lake.rows("SELECT count(*) FROM kycc.quarantine") == [(0,)]
    assert ingest(plain_lake, path).already_loaded


def test_a_batch_in_one_currency_stays_in_it(
    plain_lake: PlainLake, rates: Callable[..., fx.RatesLoaded], tmp_path: Path
) -> None:
    rates("NRS,USD,2026-01-01,0.5")
    result = ingest(plain_lake, write(batch_in(*["NRS"] * 4), tmp_path))
    assert result.base_currency == "NRS"
    assert plain_lake.rows("SELECT bool_and(amount = amount_base) FROM kycc.transactions") == [(True,)]


def test_a_base_currency_that_is_asked_for_is_used_and_kept(
    plain_lake: PlainLake, rates: Callable[..., fx.RatesLoaded], tmp_path: Path
) -> None:
    rates(*(f"NRS,USD,2026-01-0{day},0.5" for day in (1, 2, 3, 4)))
    batch = batch_in(*["NRS"] * 4)
    assert ingest(plain_lake, write(batch, tmp_path)).base_currency == "NRS"
    changed = ingest(plain_lake, write(batch, tmp_path), base_currency="USD")
    assert changed.rows_changed["transactions"] == 4
    assert plain_lake.rows("SELECT sum(amount), sum(amount_base) FROM kycc.transactions") == [
        (Decimal("102.50"), Decimal("51.26"))  # 5.125 and 15.375 are rounded to the cent
    ]
    batch["transactions"].append(batch["transactions"][0] | {"txn_id": "X5"})
    assert ingest(plain_lake, write(batch, tmp_path)).base_currency == "USD"


def test_the_base_is_what_most_can_be_brought_to(
    plain_lake: PlainLake, rates: Callable[..., fx.RatesLoaded], tmp_path: Path
) -> None:
    path = write(batch_in("EUR", "EUR", "EUR", "USD"), tmp_path)
    with pytest.raises(InputError, match=r"is in several currencies \(EUR, USD\) and there are no rates"):
        ingest(plain_lake, path)
    rates(*(f"EUR,USD,2026-01-0{day},1.5" for day in (1, 2, 3, 4)))
    assert ingest(plain_lake, path).base_currency == "USD"
