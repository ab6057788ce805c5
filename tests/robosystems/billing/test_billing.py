"""Storage, allowance, overage, expiry and invoices: what each writes, once, and what it does at the edges."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from tests.robosystems.books import GB, START, balances, change_plan, move, problems, snapshots, subscribe

from quayside.foundation.errors import CheckFailedError, NotFoundError, UsageError
from quayside.robosystems.billing import (
    allocate,
    bill_overage,
    bill_storage,
    expire_credits,
    first_allowance,
    invoices,
    pay,
    void_invoice,
    write_off,
)
from quayside.robosystems.errors import BooksError, InvoiceStateError
from quayside.robosystems.ledger import Ledger
from quayside.robosystems.plans import price, set_price

pytestmark = pytest.mark.integration

Connection = psycopg.Connection[Any]
JANUARY, FEBRUARY, MARCH = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 3))
DAY = date(2026, 1, 10)
NOON = datetime(2026, 1, 11, 12, tzinfo=UTC)


def day_of(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def booked(con: Connection, kind: str) -> dict[str, Decimal]:
    return dict(
        con.execute("SELECT key, amount FROM robosystems.transfers WHERE kind = %s", [kind]).fetchall()
    )


def test_the_worked_case(con: Connection):
    """Standard, 24 snapshots averaging 15 GB: 5 credits, on the first run and on every later one. Failures 13 and 14."""
    account = subscribe(con, "g")
    snapshots(con, account, day_of(DAY), [(4 + hour) * GB for hour in range(23)] + [15 * GB])
    for run in range(3):
        done = bill_storage(con, DAY, at=NOON + timedelta(hours=run))
        assert (done.credits, done.graph_days_written) == (5, 1 if run == 0 else 0)
    assert booked(con, "storage") == {"storage:g:2026-01-10": 5}
    assert balances(con)["graph:g"] == -5


def test_below_what_the_plan_includes_a_day_is_billed_with_nothing(con: Connection):
    account = subscribe(con, "g")
    snapshots(con, account, day_of(DAY), [5 * GB, 15 * GB])
    assert bill_storage(con, DAY, at=NOON).credits == 0
    assert booked(con, "storage") == {}
    assert bill_storage(con, DAY, at=NOON).graph_days == 1


def test_each_plan_of_a_day_counts_by_its_hours(con: Connection):
    """Failures 15 and 32: one bill, by the plan at the time of measuring."""
    account = subscribe(con, "g")
    snapshots(con, account, day_of(DAY), [20 * GB] * 6)
    snapshots(con, account, day_of(DAY) + timedelta(hours=6), [20 * GB] * 18, "large", 50)
    change_plan(con, "g", "xlarge", NOON)
    assert bill_storage(con, DAY, at=NOON).credits == Decimal("2.5")


def test_hours_not_measured_take_no_part(con: Connection):
    """Failure 31."""
    account = subscribe(con, "g")
    snapshots(con, account, day_of(DAY), [None, 12 * GB, None, 14 * GB])
    unmeasured = subscribe(con, "h")
    snapshots(con, unmeasured, day_of(DAY), [None] * 24)
    done = bill_storage(con, DAY, at=NOON)
    assert (done.credits, done.graph_days) == (3, 1)


def test_a_range_of_missed_days_is_billed_at_once_at_the_prices_of_each_day(con: Connection):
    account = subscribe(con, "g")
    for number in range(4):
        snapshots(con, account, day_of(DAY) + timedelta(days=number), [11 * GB])
    con.execute(
        "INSERT INTO robosystems.prices (code, effective_from, value, created_by) VALUES ('storage.gb_day', %s, 2, 't')",
        [day_of(DAY) + timedelta(days=2)],
    )
    at = NOON + timedelta(days=9)
    dry = bill_storage(con, DAY, DAY + timedelta(days=3), at=at, dry_run=True)
    assert (dry.credits_written, dry.dry_run) == (6, True)
    assert booked(con, "storage") == {}
    done = bill_storage(con, DAY, DAY + timedelta(days=3), at=at)
    assert (done.graph_days_written, done.credits_written) == (4, 6)
    assert list(booked(con, "storage").values()) == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [(DAY, DAY - timedelta(days=1), "ends"), (date(2999, 1, 1), None, "not over yet")],
)
def test_days_that_make_no_sense_are_refused(con: Connection, first: date, last: date | None, said: str):
    with pytest.raises(UsageError, match=said):
        bill_storage(con, first, last, at=NOON)


@pytest.mark.parametrize(
    ("start", "credits"),
    [
        (datetime(2024, 2, 29, 23, 59, tzinfo=UTC), "275.862069"),
        (datetime(2026, 2, 28, tzinfo=UTC), "285.714286"),
        (datetime(2026, 1, 1, tzinfo=UTC), "8000"),
        (datetime(2026, 1, 16, tzinfo=UTC), "4129.032258"),
        (datetime(2026, 1, 31, 12, tzinfo=UTC), "258.064516"),
    ],
)
def test_a_month_that_starts_in_the_middle_is_prorated_by_days(
    con: Connection, start: datetime, credits: str
):
    subscribe(con, "g", at=start)
    month = start.date().replace(day=1)
    assert allocate(con, month, at=start).credits_written == Decimal(credits)
    assert allocate(con, month, at=start).credits_written == 0
    assert first_allowance(con, "g", "standard", start, at=start) is not None
    assert balances(con)["graph:g"] == Decimal(credits)


def test_every_calendar_month_has_its_allowance(con: Connection):
    """Failure 18: a year has twelve, whatever the days and the moment of the run."""
    subscribe(con, "g", at=JANUARY)
    for month in range(1, 13):
        first = date(2026, month, 1)
        allocate(con, first, at=day_of(first) + timedelta(seconds=(month * 37) % 50))
    assert sum(booked(con, "allowance").values()) == 96000


def test_a_missed_month_is_filled_in_and_good_for_the_month_it_is_given_in(con: Connection):
    subscribe(con, "g", at=JANUARY)
    allocate(con, date(2026, 1, 1), date(2026, 3, 1), at=MARCH + timedelta(days=3))
    assert len(booked(con, "allowance")) == 3
    assert {grant.expires_at for grant in Ledger(con).grants("g")} == {datetime(2026, 4, 1, tzinfo=UTC)}


@pytest.mark.parametrize("state", ["past_due", "canceled", "paused"])
def test_only_active_subscriptions_get_an_allowance(con: Connection, state: str):
    """Failure 37; filled in later, a month goes by the state at its start."""
    subscribe(con, "g", at=JANUARY)
    move(con, "g", state, JANUARY + timedelta(days=10))
    assert allocate(con, date(2026, 2, 1), at=FEBRUARY).graphs == 0
    assert allocate(con, date(2026, 1, 1), date(2026, 2, 1), at=MARCH).allowances_written == 1
    assert booked(con, "allowance") == {"allowance:g:2026-01": 8000}


def test_an_allowance_goes_by_the_plan_at_the_months_start(con: Connection):
    """Failure 30."""
    subscribe(con, "g", "large", at=JANUARY)
    change_plan(con, "g", "xlarge", JANUARY + timedelta(days=10))
    allocate(con, date(2026, 1, 1), date(2026, 2, 1), at=FEBRUARY)
    assert booked(con, "allowance") == {"allowance:g:2026-01": 32000, "allowance:g:2026-02": 100000}


def test_repositories_get_their_allowances_too(con: Connection):
    """Failure 36."""
    subscribe(con, "sec:user-1", "advanced", at=JANUARY)
    assert allocate(con, date(2026, 1, 1), at=JANUARY).credits_written == 17000


def test_what_is_left_rolls_over_once_and_then_expires(con: Connection):
    """Failure 39: balances do not grow without limit."""
    subscribe(con, "g", at=JANUARY)
    ledger = Ledger(con)
    seen = []
    for month in range(1, 7):
        at = datetime(2026, month, 1, tzinfo=UTC)
        allocate(con, at.date(), at=at)
        expire_credits(con, at=at)
        seen.append(ledger.balance("g", at=at).balance)
        ledger.consume("g", 1000, key=f"use {month}", at=at + timedelta(days=3))
    assert seen == [8000, 15000, 15000, 15000, 15000, 15000]
    assert problems(con) == []


def in_debt(con: Connection, graph: str, debt: str, customer: str = "acme") -> None:
    subscribe(con, graph, at=JANUARY, customer=customer, may_overdraw=True)
    Ledger(con).consume(graph, debt, key=f"debt {graph}", at=JANUARY + timedelta(days=3))


def test_debt_is_billed_once_cleared_and_not_netted_again(con: Connection):
    """Failures 19 and 28: one line of exact cents, and the whole next allowance for the customer."""
    in_debt(con, "g", "1000.5")
    with pytest.raises(CheckFailedError, match="1 graphs owe credits of 2026-01"):
        allocate(con, date(2026, 2, 1), at=FEBRUARY)
    assert bill_overage(con, date(2026, 1, 1), at=FEBRUARY, dry_run=True).cents == 500
    assert invoices(con) == []
    first = bill_overage(con, date(2026, 1, 1), at=FEBRUARY)
    assert (first.graphs, first.credits, first.cents, first.invoices) == (1, Decimal("1000.5"), 500, 1)
    assert bill_overage(con, date(2026, 1, 1), at=FEBRUARY + timedelta(hours=1)).graphs == 0
    allocate(con, date(2026, 2, 1), at=FEBRUARY)
    assert balances(con)["graph:g"] == 8000
    (invoice,) = invoices(con)
    assert (invoice.number, invoice.total_cents, invoice.state) == ("2026-000001", 500, "open")
    assert problems(con) == []


@pytest.mark.parametrize(
    ("credits", "cents"), [("1", 0), ("3", 2), ("5", 2), ("7", 4), ("1000000.000001", 500000)]
)
def test_cents_are_rounded_half_to_even(con: Connection, credits: str, cents: int):
    in_debt(con, "g", credits)
    assert bill_overage(con, date(2026, 1, 1), at=FEBRUARY).cents == cents


def test_a_debt_paid_by_a_grant_meanwhile_is_not_billed(con: Connection):
    in_debt(con, "g", "100")
    in_debt(con, "h", "100")
    ledger = Ledger(con)
    ledger.grant("g", 500, key="gift", at=FEBRUARY)
    ledger.grant("h", 40, key="small gift", at=FEBRUARY)
    ledger.consume("h", 1000, key="in February", at=FEBRUARY + timedelta(hours=1))
    done = bill_overage(con, date(2026, 1, 1), at=FEBRUARY + timedelta(hours=2))
    assert booked(con, "overage") == {"overage:h:2026-01": 100}
    assert done.graphs == 1


def test_graphs_of_a_customer_are_lines_of_one_invoice(con: Connection):
    for number, customer in enumerate(("a", "a", "b")):
        in_debt(con, f"g{number}", "200", customer)
    assert bill_overage(con, date(2026, 1, 1), at=FEBRUARY).invoices == 2
    assert [(i.customer_id, i.total_cents) for i in invoices(con)] == [("b", 100), ("a", 200)]


def test_a_debtor_without_a_customer_does_not_stop_the_others(con: Connection):
    in_debt(con, "g", "200")
    ledger = Ledger(con)
    ledger.open_account("orphan", may_overdraw=True, at=JANUARY)
    ledger.consume("orphan", 5, key="o", at=JANUARY + timedelta(days=1))
    with pytest.raises(BooksError, match="no customer to invoice: orphan"):
        bill_overage(con, date(2026, 1, 1), at=FEBRUARY)
    assert len(invoices(con)) == 1


@pytest.mark.parametrize(
    ("terms", "days"), [("immediate", 0), ("net_15", 15), ("net_30", 30), ("net_60", 60), ("net_90", 90)]
)
def test_terms_give_the_due_date(con: Connection, terms: str, days: int):
    """Failure 33."""
    in_debt(con, "g", "200")
    con.execute("UPDATE robosystems.customers SET payment_terms = %s", [terms])
    bill_overage(con, date(2026, 1, 1), at=FEBRUARY)
    assert invoices(con)[0].due_on == date(2026, 2, 1) + timedelta(days=days)


def test_the_life_of_an_invoice(con: Connection):
    for number in range(3):
        in_debt(con, f"g{number}", "200", f"c{number}")
    bill_overage(con, date(2026, 1, 1), at=FEBRUARY)
    assert pay(con, "2026-000001", "wire 7", at=FEBRUARY).state == "paid"
    assert pay(con, "2026-000001", "wire 7", at=FEBRUARY).state == "paid"
    with pytest.raises(InvoiceStateError, match="is paid and cannot become"):
        pay(con, "2026-000001", "wire 8", at=FEBRUARY)
    assert write_off(con, "2026-000002").state == "uncollectible"
    assert pay(con, "2026-000002", "late").state == "paid"
    with pytest.raises(NotFoundError):
        pay(con, "2026-000009", "x")
    assert void_invoice(con, "2026-000003", "wrong price", at=FEBRUARY).state == "void"
    assert void_invoice(con, "2026-000003", "wrong price", at=FEBRUARY).state == "void"
    assert balances(con)["graph:g2"] == -200  # owed again, and billed with the next month
    assert bill_overage(con, date(2026, 2, 1), at=MARCH).cents == 100
    assert problems(con) == []


def test_an_issued_invoice_does_not_change(con: Connection):
    in_debt(con, "g", "200")
    bill_overage(con, date(2026, 1, 1), at=FEBRUARY)
    for statement in (
        "UPDATE robosystems.invoices SET total_cents = 1",
        "UPDATE robosystems.invoices SET state = 'draft'",
        "DELETE FROM robosystems.invoices",
        "UPDATE robosystems.invoice_lines SET amount_cents = 1",
        "INSERT INTO robosystems.invoice_lines (invoice_id, kind, period, description, quantity, unit_usd, amount_cents)"
        " SELECT id, 'other', period, 'x', 1, 1, 1 FROM robosystems.invoices",
    ):
        with pytest.raises(psycopg.Error), con.transaction():
            con.execute(statement.encode())


def test_prices_have_versions_and_do_not_change_backwards(con: Connection):
    """Failure 29: one price list."""
    set_price(con, "overage.credit_usd", Decimal("0.01"))
    assert price(con, "overage.credit_usd", JANUARY) == Decimal("0.005")
    assert price(con, "overage.credit_usd") == Decimal("0.01")
    with pytest.raises(UsageError, match="not backwards"):
        set_price(con, "overage.credit_usd", Decimal(1), JANUARY)
    with pytest.raises(UsageError, match="is no price"):
        set_price(con, "overage", Decimal(1))
    in_debt(con, "g", "200")
    assert bill_overage(con, date(2026, 1, 1), at=FEBRUARY).cents == 100


def test_a_month_that_is_not_over_or_has_not_begun_is_refused(con: Connection):
    with pytest.raises(UsageError, match="is not over"):
        bill_overage(con, date(2026, 1, 1), at=START + timedelta(days=30))
    with pytest.raises(UsageError, match="has not begun"):
        allocate(con, date(2026, 2, 1), at=START + timedelta(days=30))
