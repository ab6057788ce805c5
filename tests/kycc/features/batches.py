"""Small random batches, and how they get into DuckDB. Times lie on and beside every edge of every window."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa
from hypothesis import strategies as st

from quayside.kycc.tables import PARTIES, RELATIONSHIPS, SCHEMA, TRANSACTIONS, Table

Row = dict[str, Any]

MICROSECOND = timedelta(microseconds=1)
ZONES = (
    UTC,
    timezone(timedelta(hours=5, minutes=45)),
    ZoneInfo("America/Los_Angeles"),
    ZoneInfo("Pacific/Kiritimati"),
)
MOMENTS = (
    datetime(2026, 6, 1, tzinfo=UTC),
    datetime(2026, 7, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2024, 2, 29, 12, 34, 56, 789012, tzinfo=ZoneInfo("Asia/Kathmandu")),
    datetime(2025, 3, 1, 3, tzinfo=ZoneInfo("Pacific/Kiritimati")),  # still February in UTC
    datetime(2025, 12, 31, 17, tzinfo=ZoneInfo("America/Los_Angeles")),  # already January in UTC
    datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC),
)
IDS = ("P-1", "P-2", "a'; DROP TABLE x", "Übersee", "P-10", "p-1", "$as_of")
TEXTS = (None, "", " ", "\t\n\x0b\x1c", "\u2003\u00a0\u3000", "x", " x ", "\u200b", "0")


@dataclass(frozen=True)
class Batch:
    """Rows of one batch without its id; optional columns that are left out are NULL."""

    as_of: datetime
    parties: Sequence[Row]
    transactions: Sequence[Row] = field(default=())
    relationships: Sequence[Row] = field(default=())

    def with_more(self, transactions: Iterable[Row] = (), relationships: Iterable[Row] = ()) -> Batch:
        return replace(
            self,
            transactions=[*self.transactions, *transactions],
            relationships=[*self.relationships, *relationships],
        )


def party(party_id: str, **columns: Any) -> Row:
    blank = dict.fromkeys(
        ("kyc_verified", "tax_id", "contact_person", "email", "phone", "address", "created_at")
    )
    return {"party_id": party_id, "party_type": "supplier", **blank, **columns}


def transaction(
    party_id: str, ts: datetime, txn_type: str = "invoice", amount: Any = 1, **columns: Any
) -> Row:
    row = {
        "party_id": party_id,
        "ts": ts,
        "txn_type": txn_type,
        "amount_base": Decimal(amount),
        "currency": "EUR",
    }
    extra = {"txn_id": None, "counterparty_id": "P-1", "due_date": None, "settles_txn_id": None}
    # What features must never look at: the amount in its own currency.
    return {**row, "amount": Decimal(-7), **extra, **columns}


def edge(source: str, target: str, since: datetime) -> Row:
    return {"from_party_id": source, "to_party_id": target, "established_date": since}


def load(con: duckdb.DuckDBPyConnection, batch_id: str, batch: Batch) -> None:
    """Make the rows of `batch_id` those of the batch."""
    for table, rows in (
        (PARTIES, batch.parties),
        (TRANSACTIONS, batch.transactions),
        (RELATIONSHIPS, batch.relationships),
    ):
        con.execute(f"DELETE FROM {table.qualified} WHERE batch_id = ?", [batch_id])
        if rows:
            incoming = pa.table({name: [row[name] for row in rows] for name in rows[0]})
            con.register("incoming", incoming)
            names = ", ".join(incoming.column_names)
            con.execute(
                f"INSERT INTO {table.qualified} (batch_id, {names}) SELECT ?, {names} FROM incoming",
                [batch_id],
            )
            con.unregister("incoming")


def create(con: duckdb.DuckDBPyConnection, tables: Iterable[Table]) -> None:
    """Make the tables in a plain DuckDB, which knows no partitions."""
    con.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    for table in tables:
        con.execute(table.ddl()[0])


def _times(as_of: datetime) -> st.SearchStrategy[datetime]:
    """Moments on and just beside the edges of the windows and of months, and any others of a year around."""
    as_of = as_of.astimezone(UTC)
    month = as_of.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    edges = [as_of - timedelta(days=d) for d in (0, 30, 90, 180)] + [month, month - timedelta(days=60)]
    exact = st.sampled_from([e + d * MICROSECOND for e in edges for d in (-1, 0, 1)])
    anywhere = st.integers(-220 * 86_400, 20 * 86_400).map(lambda s: as_of + timedelta(seconds=s))
    return st.builds(lambda moment, zone: moment.astimezone(zone), exact | anywhere, st.sampled_from(ZONES))


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    as_of = draw(st.sampled_from(MOMENTS))
    times, text = _times(as_of), st.sampled_from(TEXTS)
    ids = draw(st.lists(st.sampled_from(IDS), min_size=1, max_size=len(IDS), unique=True))
    some_id = st.sampled_from(ids)
    cents = st.sampled_from((0, 1, -1, 100, 9_999_999_999)) | st.integers(-1_000_000, 1_000_000)
    party_rows = st.fixed_dictionaries(
        {
            "party_type": st.sampled_from(
                ("supplier", "manufacturer", "distributor", "retailer", "customer")
            ),
            "kyc_verified": st.sampled_from((0, 1, None)),
            "tax_id": text,
            "contact_person": text,
            "email": text,
            "phone": text,
            "address": text,
            "created_at": st.none() | times | st.just(datetime(1990, 5, 17, 1, 2, 3, 4, tzinfo=UTC)),
        }
    )
    # Two parties do most of the trading, so that some months and counterparties get several rows.
    busy = st.sampled_from(ids[:2]) | some_id
    transaction_rows = st.fixed_dictionaries(
        {
            "party_id": busy,
            "counterparty_id": busy,
            "txn_type": st.sampled_from(("invoice", "payment", "credit_note")),
            "amount_base": cents.map(lambda c: Decimal(c).scaleb(-2)),
            "amount": st.just(Decimal(-7)),
            "currency": st.sampled_from(("EUR", "USD", "JPY")),
            "ts": times,
            "due_date": st.none() | times,
            "settles_txn_id": st.none() | st.sampled_from([f"T{i}" for i in range(14)]),
        }
    )
    transactions = draw(st.lists(transaction_rows, max_size=14))
    return Batch(
        as_of,
        [{"party_id": id_, **draw(party_rows)} for id_ in ids],
        [{"txn_id": f"T{i}", **row} for i, row in enumerate(transactions)],
        draw(st.lists(st.builds(edge, some_id, some_id, times), max_size=14)),
    )
