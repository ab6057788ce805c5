"""Statements and the monthly report: what opens, moves and closes, and the files they become."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest
from tests.robosystems.books import GB, snapshots, subscribe

from quayside.foundation.errors import UsageError
from quayside.robosystems.billing import (
    allocate,
    bill_month,
    bill_overage,
    bill_storage,
    expire_credits,
    void_invoice,
)
from quayside.robosystems.errors import BooksError
from quayside.robosystems.ledger import Ledger
from quayside.robosystems.reports import render, statement, store, usage_report
from quayside.robosystems.reports.monthly import CENTS, MOVEMENTS

pytestmark = pytest.mark.integration

Connection = psycopg.Connection[Any]
MONTHS = [datetime(2026, month, 1, tzinfo=UTC) for month in range(1, 6)]


@pytest.fixture
def quarter(con: Connection) -> Connection:
    """Three months of two graphs: one overdraws, the other expires."""
    ledger = Ledger(con)
    busy = subscribe(con, "busy", at=MONTHS[0], may_overdraw=True)
    subscribe(con, "quiet", at=MONTHS[0])
    for number, start in enumerate(MONTHS[:3]):
        if number:
            bill_overage(con, MONTHS[number - 1].date(), at=start)
        allocate(con, start.date(), at=start)
        expire_credits(con, at=start)
        snapshots(con, busy, start + timedelta(days=2), [15 * GB, 25 * GB, None])
        bill_storage(con, start.date() + timedelta(days=2), at=start + timedelta(days=3))
        ledger.consume("busy", 17000, key=f"u{number}", operation="=query", at=start + timedelta(days=9))
    return con


def test_every_month_opens_where_the_one_before_closed(quarter: Connection):
    """Failures 26 and 35."""
    closing: dict[str, Decimal] = {}
    for month in MONTHS[:3]:
        report = usage_report(quarter, month.date(), now=MONTHS[4])
        for row in report.rows:
            assert row["opening"] == closing.get(row["graph_id"], 0)
            assert row["opening"] + sum(row[name] for name in MOVEMENTS) == row["closing"]
            closing[row["graph_id"]] = row["closing"]
    january, march = (usage_report(quarter, m.date(), now=MONTHS[4]) for m in (MONTHS[0], MONTHS[2]))
    busy = {row["graph_id"]: row for row in january.rows}["busy"]
    assert (busy["allocated"], busy["consumed"], busy["closing"]) == (8000, -17010, -9010)
    assert (
        busy["gb_hours_mean"],
        busy["gb_hours_peak"],
        busy["hours_measured"],
        busy["hours_unmeasured"],
    ) == (20, 25, 2, 1)
    assert busy["consumed_by_kind"] == '{"=query": 17000.000000, "storage": 10.000000}'
    assert march.totals()["overage"] == 9010
    assert {row["graph_id"]: row["overage_cents"] for row in march.rows}["busy"] == 4505


def test_cents_for_debts_plans_and_voids_are_those_of_the_invoices(con: Connection):
    subscribe(con, "busy", at=MONTHS[0], may_overdraw=True)
    subscribe(con, "quiet", at=MONTHS[0], customer="b")
    con.execute("UPDATE robosystems.subscriptions SET fees_from = '2026-01-01'")
    Ledger(con).consume("busy", 100, key="u", at=MONTHS[0])
    bill_month(con, date(2026, 1, 1), at=MONTHS[1])
    void_invoice(
        con, "2026-000002", "wrong", at=MONTHS[2]
    )  # of another month: January's and February's are due in March
    bill_month(con, date(2026, 2, 1), at=MONTHS[2])

    def cents(month: datetime) -> dict[str, tuple[int, ...]]:
        rows = usage_report(con, month.date(), now=MONTHS[4]).rows
        return {row["graph_id"]: tuple(row[name] for name in CENTS) for row in rows}

    assert cents(MONTHS[0]) == {"busy": (0, 0, 0), "quiet": (0, 0, 0)}
    assert cents(MONTHS[1]) == {"busy": (50, 5000, 0), "quiet": (0, 5000, 0)}
    assert cents(MONTHS[2]) == {"busy": (0, 5000, 0), "quiet": (0, 10000, 5000)}
    with con.transaction(force_rollback=True):
        con.execute("SET LOCAL session_replication_role = replica")
        con.execute("UPDATE robosystems.invoice_lines SET graph_id = 'gone' WHERE kind = 'overage'")
        with pytest.raises(
            BooksError, match="0 cents for debts and 10000 for plans, 0 voided, and the invoices say 10050"
        ):
            usage_report(con, date(2026, 2, 1), now=MONTHS[4])


def test_the_report_is_a_file_that_is_the_same_again(quarter: Connection, tmp_path: Path):
    def upload(file: Any, key: str) -> str:
        (tmp_path / "report.parquet").write_bytes(file.read())
        return f"folder/{key}"

    first, again = (
        store(quarter, usage_report(quarter, date(2026, 1, 1), now=MONTHS[4]), upload, run_id=run)
        for run in "ab"
    )
    assert first.sha256 == again.sha256
    assert first.url == "folder/reports/usage/year=2026/month=01/usage.parquet"
    table = pq.read_table(tmp_path / "report.parquet").to_pylist()
    assert [row["graph_id"] for row in table] == ["busy", "quiet"]
    assert table[0]["consumed"] == Decimal(-17010)
    noted = quarter.execute(
        "SELECT count(*), min(graphs), min(run_id) FROM robosystems.usage_reports"
    ).fetchone()
    assert noted == (1, 2, "b")


def test_a_month_that_is_not_over_has_no_report(quarter: Connection):
    with pytest.raises(UsageError, match="is not over"):
        usage_report(quarter, date(2026, 4, 1), now=MONTHS[3])


def test_a_statement_leads_from_opening_to_closing(quarter: Connection):
    february = statement(quarter, "busy", MONTHS[1], MONTHS[2])
    march = statement(quarter, "busy", MONTHS[2], MONTHS[3])
    assert february.opening == -9010
    assert february.closing == march.opening
    assert [(line.description, line.change) for line in february.lines] == [
        ("Debt invoiced", 9010),
        ("Monthly allowance: standard", 8000),
        ("Storage above the plan", -10),
        ("Used: =query", -17000),
    ]
    assert sum(february.totals().values()) == february.closing - february.opening


def test_a_statement_as_csv_parquet_and_html(quarter: Connection):
    found = statement(quarter, "busy", MONTHS[0], MONTHS[1])
    lines = list(csv.reader(io.StringIO(render(found, "csv").decode())))
    assert lines[0] == ["number", "booked", "effective", "description", "change", "balance"]
    assert (lines[1][3], lines[-1][3], lines[-1][5]) == ("Opening balance", "Closing balance", "-9010.000000")
    table = pq.read_table(io.BytesIO(render(found, "parquet")))
    assert sum(table["change"].to_pylist()) == -9010
    assert table.schema.metadata[b"closing"] == b"-9010.000000"
    page = render(found, "html").decode()
    assert "Closing balance" in page
    assert "-17,000.000000" in page


def test_names_others_chose_do_not_become_markup_or_formulas(con: Connection):
    subscribe(con, "<b>x</b>", at=MONTHS[0], may_overdraw=True)
    Ledger(con).consume("<b>x</b>", 1, key="k", operation="<script>", at=MONTHS[0])
    found = statement(con, "<b>x</b>", MONTHS[0], MONTHS[1])
    page = render(found, "html").decode()
    assert "<script>" not in page
    assert "<b>x" not in page


def test_a_statement_of_a_wrong_book_is_refused(quarter: Connection):
    with quarter.transaction(force_rollback=True):
        quarter.execute("SET LOCAL session_replication_role = replica")
        quarter.execute("UPDATE robosystems.transfers SET balance_after = balance_after + 1 WHERE key = 'u0'")
        with pytest.raises(BooksError, match="does not add up at transfer"):
            statement(quarter, "busy", MONTHS[0], MONTHS[1])
        with pytest.raises(BooksError, match="1 accounts do not lead"):
            usage_report(quarter, date(2026, 1, 1), now=MONTHS[4])
