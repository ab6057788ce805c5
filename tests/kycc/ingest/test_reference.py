"""Random batches, good and bad: the set-based judgement is that of a row-by-row reading of the rules."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kycc.ingest.reference import FIELDS, judge

from quayside.kycc.ingest import ingest

if TYPE_CHECKING:
    from tests.kycc.ingest.conftest import PlainLake

pytestmark = [pytest.mark.unit, pytest.mark.slow]

PARTY = st.sampled_from(["P1", "P2", "P3", "P4"])
ACCOUNT = st.sampled_from(["A1", "A2", "A3"])
WRONG = st.sampled_from([None, "", "  ", 7, True, {"a": 1}, ["x"]])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "party_id": PARTY,
    "counterparty_id": PARTY | st.none(),
    "from_party_id": PARTY,
    "to_party_id": PARTY,
    "account_id": ACCOUNT,
    "txn_id": st.sampled_from([f"X{i}" for i in range(12)]),
    "relationship_id": st.sampled_from(["L1", "L2", "L3", "L4"]),
    "name": st.sampled_from(["Mill", "Ünïcødé 漢字", 'quoted " and \\ back', "tab\there"]),
    "party_type": st.sampled_from(["supplier", "Vendor", " individual", "bank"]),
    "account_type": st.sampled_from(["checking", "SAVINGS", "gold"]),
    "txn_type": st.sampled_from(["invoice", "payment", "credit-note", "Purchase  Order", "wire", "refund", "gift"]),
    "relationship_type": st.sampled_from(["supplies_to", "sells to", "purchases from", "knows"]),
    "kyc_verified": st.sampled_from([0, 1, True, False, 2, "1"]),
    "currency": st.sampled_from(["USD", "USD", "USD", " usd", "$"]),
    "amount": st.sampled_from([0, -0.0, 1.25, -7.5, 10**11, "12.5", "nan", "ten", "1_000", float("nan"), float("inf"), 1e12, -1e300, 10**40])
    | st.integers(-(10**13), 10**13).map(lambda cents: cents / 100),
    "balance": st.sampled_from([None, 5, -0.01, "7", 1e15]),
    "ts": st.sampled_from(
        [
            *("2026-01-01T00:00:00Z", "2026-01-01", "2026-01-01T10:00:00+05:30", "2026-01-01 10:00", "2026-02-29"),
            *("1600-01-01T00:00:00Z", "1799-12-31T23:59:59Z", "1800-01-01", "2099-12-31T23:59:59Z", "2100-01-01", "9999-01-01", "soon"),
        ]
    ),
    "reference": st.sampled_from([None, "", "R-1"]),
}  # fmt: skip
VALUES["created_at"] = VALUES["established_date"] = VALUES["ts"]


def rows(table: str, at_most: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    def row(draw: st.DrawFn) -> dict[str, Any]:
        made = {field: draw(VALUES[field]) for field in FIELDS[table]}
        for field in draw(st.lists(st.sampled_from(list(made)), max_size=1)):
            made[field] = draw(WRONG)
        if draw(st.integers(0, 9)) == 0:
            made["batch_id"] = draw(st.sampled_from(["B1", "B2"]))
        return made

    return st.lists(st.composite(row)(), max_size=at_most)


BATCHES = st.fixed_dictionaries(
    {
        "batch_id": st.just("B1"),
        "generated_at": st.just("2026-01-31T00:00:00Z"),
        "parties": rows("parties", 5).map(
            lambda extra: (
                [
                    {"party_id": f"P{i}", "name": f"N{i}", "party_type": "supplier", "kyc_verified": 1}
                    for i in (1, 2, 3)
                ]
                + extra
            )
        ),
        "accounts": rows("accounts", 4),
        "transactions": rows("transactions", 25),
        "relationships": rows("relationships", 5),
    }
)


@settings(max_examples=20)
@given(batch=BATCHES)
def test_same_judgement(batch: dict[str, Any], plain_lake: PlainLake, tmp_path: Path) -> None:
    number = next(NUMBERS)
    batch = json.loads(json.dumps(batch).replace('"B1"', f'"B1-{number}"'))
    path = tmp_path / f"{number}.json"
    path.write_text(json.dumps(batch, indent=number % 3 or None), encoding="utf-8")

    kept, bad = judge(batch)
    result = ingest(plain_lake, path, max_reject_ratio=1, base_currency="USD")

    found = plain_lake.rows(
        "SELECT table_name, row_number, reason FROM kycc.quarantine WHERE batch_id = ?", result.batch_id
    )
    assert set(found) == bad
    assert len(found) == len(bad)
    for table, expected in kept.items():
        columns = list(FIELDS[table])
        stored = plain_lake.rows(
            f"SELECT {', '.join(columns)} FROM kycc.{table} WHERE batch_id = ?", result.batch_id
        )
        assert len(stored) == len(expected)
        assert {row[0]: dict(zip(columns, row, strict=True)) for row in stored} == expected


NUMBERS = count(1)
