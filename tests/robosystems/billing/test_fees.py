"""Prices of plans on invoices, and the credits of a larger plan: by days, once, and with nothing lost at the edges."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from tests.robosystems.books import START, balances, change_plan, move, problems, subscribe

from quayside.foundation.errors import UsageError
from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings
from quayside.robosystems.billing import (
    allocate,
    apply_upgrades,
    bill_month,
    bill_overage,
    get_invoice,
    invoice_lines,
    invoices,
    void_invoice,
)
from quayside.robosystems.health import CHECKS, check_health
from quayside.robosystems.ledger import Ledger
from quayside.robosystems.subscriptions import Subscriptions
from quayside.robosystems.subscriptions.store import apply_plan_changes

pytestmark = pytest.mark.integration

Connection = psycopg.Connection[Any]
JANUARY, FEBRUARY, MARCH = (date(2026, month, 1) for month in (1, 2, 3))


def at(month: int, day: int, hour: int = 0) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


def paying(
    con: Connection,
    graph: str,
    plan: str = "standard",
    *,
    start: datetime = START,
    since: date | None = JANUARY,
    customer: str = "acme",
    may_overdraw: bool = False,
) -> None:
    """A graph whose fees are invoiced."""
    subscribe(con, graph, plan, at=start, customer=customer, may_overdraw=may_overdraw)
    con.execute("UPDATE robosystems.subscriptions SET fees_from = %s WHERE graph_id = %s", [since, graph])


def fees(con: Connection) -> dict[tuple[str, str, str], int]:
    """Cents by graph, month and plan, of invoices that count."""
    found = con.execute(
        "SELECT graph_id, to_char(l.period, 'YYYY-MM'), plan, sum(amount_cents)::int FROM robosystems.invoice_lines AS l"
        " JOIN robosystems.invoices AS i ON i.id = l.invoice_id"
        " WHERE kind = 'subscription' AND i.state <> 'void' GROUP BY 1, 2, 3"
    ).fetchall()
    return {row[:3]: row[3] for row in found}


def test_a_customer_has_one_invoice_for_a_month_with_debts_and_plans(con: Connection):
    paying(con, "g", may_overdraw=True)
    paying(con, "h", "large")
    paying(con, "else", since=None)
    paying(con, "other", customer="b")
    Ledger(con).consume("g", 1000, key="debt", at=at(1, 4))
    dry = bill_month(con, JANUARY, at=at(2, 1), dry_run=True)
    assert (dry.fees, dry.fee_cents, dry.overage_cents, dry.invoices) == (3, 40000, 500, 2)
    assert invoices(con) == []
    done = bill_month(con, JANUARY, at=at(2, 1))
    assert (done.fees, done.fee_cents, done.overage_cents, done.invoices) == (3, 40000, 500, 2)
    assert done.credits == 1000
    invoice = get_invoice(con, "2026-000001")
    lines = [
        (line["description"], line["quantity"], line["unit_usd"], line["amount_cents"])
        for line in invoice_lines(con, invoice.invoice_id)
    ]
    assert (invoice.customer_id, invoice.total_cents) == ("acme", 35500)
    assert lines == [
        ("Plan standard of g", 1, 50, 5000),
        ("Plan large of h", 1, 300, 30000),
        ("Credits above the balance of g", 1000, Decimal("0.005"), 500),
    ]
    again = bill_month(con, JANUARY, at=at(2, 1, 5))
    assert (again.fees, again.graphs, again.invoices) == (0, 0, 0)
    assert problems(con) == []


# Day by day: what becomes of a standard subscription in January, and its cents for the month.
LIVES: dict[str, tuple[list[tuple[datetime, str]], dict[str, int]]] = {
    "whole": ([], {"standard": 5000}),
    "start": ([(at(1, 16, 12), "start")], {"standard": 2581}),  # 16 of 31 days, the first included
    "last day": ([(at(1, 31, 23), "start")], {"standard": 161}),
    "upgrade": ([(at(1, 11, 12), "large")], {"standard": 1613, "large": 20323}),
    "there and back": ([(at(1, 11), "large"), (at(1, 21), "standard")], {"standard": 3387, "large": 9677}),
    "paused": ([(at(1, 11), "paused"), (at(1, 21), "active")], {"standard": 3387}),
    "past due": ([(at(1, 11), "past_due")], {"standard": 5000}),
    "canceled for later": ([(at(1, 11, 5), "canceled until 21")], {"standard": 3226}),
    "canceled at once": ([(at(1, 11, 5), "canceled until 11")], {"standard": 1774}),
    "canceled in December": ([(datetime(2025, 12, 20, tzinfo=UTC), "canceled until 21")], {"standard": 3226}),
    "paused in December": ([(datetime(2025, 12, 20, tzinfo=UTC), "paused")], {}),
    "canceled and back": ([(at(1, 11, 5), "canceled"), (at(1, 13), "active")], {"standard": 5000}),
    "later in February": ([(at(2, 1, 3), "xlarge"), (at(2, 1, 4), "paused")], {"standard": 5000}),
    "from the 22nd on": ([(at(1, 22), "fees")], {"standard": 1613}),
}


@pytest.mark.parametrize("name", LIVES)
def test_fees_go_by_the_days_on_a_plan(con: Connection, name: str):
    happened, expected = LIVES[name]
    start = next((moment for moment, what in happened if what == "start"), datetime(2025, 6, 3, tzinfo=UTC))
    since = next((moment.date() for moment, what in happened if what == "fees"), JANUARY)
    paying(con, "g", start=start, since=since)
    for moment, what in happened:
        if what in ("large", "standard", "xlarge"):
            change_plan(con, "g", what, moment)
        elif what not in ("start", "fees"):
            state, _, day = what.partition(" until ")
            move(con, "g", state, moment)
            ends = at(1, int(day), 6) if day == "11" else at(1, int(day)) if day else None
            con.execute("UPDATE robosystems.subscriptions SET ends_at = %s", [ends])
    done = bill_month(con, JANUARY, at=at(2, 1, 6))
    assert {plan: cents for (_, _, plan), cents in fees(con).items()} == expected
    assert done.fee_cents == sum(expected.values())


def test_a_leap_february_has_29_days(con: Connection):
    paying(con, "g", start=datetime(2024, 2, 29, 23, tzinfo=UTC), since=date(2024, 2, 1))
    bill_month(con, date(2024, 2, 1), at=datetime(2024, 3, 1, tzinfo=UTC))
    assert fees(con) == {("g", "2024-02", "standard"): 172}


def test_the_price_is_the_one_when_the_plans_days_begin(con: Connection):
    for plan, since in (("standard", at(1, 11)), ("new", at(1, 20, 12))):
        con.execute(
            "INSERT INTO robosystems.plans (plan, effective_from, family, price_cents, credits, included_gb,"
            " rollover_credits, created_by) VALUES (%s, %s, 'graph', 31000, 1, 1, 0, 't')",
            [plan, since],
        )
    paying(con, "before")
    paying(con, "after", start=at(1, 22))
    paying(con, "new", "new", start=at(1, 20, 13))  # a plan of the same day
    bill_month(con, JANUARY, at=at(2, 1))
    assert sorted(fees(con).values()) == [5000, 10000, 12000]


def test_what_came_late_or_was_voided_is_on_the_next_invoice(con: Connection):
    paying(con, "g")
    bill_month(con, JANUARY, at=at(2, 1))
    void_invoice(con, "2026-000001", "wrong address", at=at(2, 2))
    paying(con, "late", start=at(1, 31, 23), customer="b")  # activation came through in February
    done = bill_month(con, FEBRUARY, at=at(3, 1))
    assert (done.fees, done.invoices) == (4, 2)
    assert fees(con) == {
        ("g", "2026-01", "standard"): 5000,
        ("g", "2026-02", "standard"): 5000,
        ("late", "2026-01", "standard"): 161,
        ("late", "2026-02", "standard"): 5000,
    }
    void_invoice(con, "2026-000002", "again", at=at(3, 2))
    assert (
        bill_month(con, MARCH, at=at(4, 1)).fees == 4
    )  # the two of March, and two that were voided, however old
    assert bill_month(con, MARCH, at=at(4, 1)).fees == 0
    assert fees(con)["g", "2026-01", "standard"] == 5000
    assert problems(con) == []


def test_the_database_bills_a_fee_twice_only_in_place_of_a_voided_line(con: Connection):
    paying(con, "g")
    bill_month(con, JANUARY, at=at(2, 1))
    insert = (
        "WITH draft AS (INSERT INTO robosystems.invoices (customer_id, period, created_by) VALUES ('acme', '2026-01-01', 't')"
        " RETURNING id) INSERT INTO robosystems.invoice_lines (invoice_id, kind, graph_id, subscription_id, plan, period,"
        " description, quantity, unit_usd, amount_cents, replaces) SELECT draft.id, 'subscription', 'g', 'sub-g', 'standard',"
        " '2026-01-01', 'x', 1, 1, 1, {} FROM draft, robosystems.invoice_lines AS l"
    )
    for replaces, error in (
        ("NULL", psycopg.errors.UniqueViolation),
        ("l.id", psycopg.errors.RaiseException),
    ):
        with pytest.raises((error, psycopg.errors.IntegrityError)), con.transaction():
            con.execute(insert.format(replaces).encode())


def test_missed_months_are_billed_as_a_range_and_health_names_them(con: Connection):
    paying(con, "g")
    (check,) = (each for each in CHECKS if each.name == "fees not invoiced")
    (found,) = check_health(con, at(3, 3), [check])
    assert found.offenders == (("sub-g", "Plan standard of g"),)
    done = bill_month(con, FEBRUARY, since=JANUARY, at=at(3, 3))
    assert (done.fees, done.invoices) == (2, 1)
    (found,) = check_health(con, at(3, 3), [check])
    assert found.count == 0


def test_months_that_make_no_sense_are_refused(con: Connection):
    with pytest.raises(UsageError, match="is not over"):
        bill_month(con, FEBRUARY, at=at(2, 3))
    with pytest.raises(UsageError, match="before it begins"):
        bill_month(con, JANUARY, since=FEBRUARY, at=at(3, 3))


def test_debts_alone_can_be_billed_and_the_fees_after_them(con: Connection):
    paying(con, "g", may_overdraw=True)
    Ledger(con).consume("g", 1000, key="debt", at=at(1, 4))
    assert bill_overage(con, JANUARY, at=at(2, 1)).cents == 500
    done = bill_month(con, JANUARY, at=at(2, 1))
    assert (done.graphs, done.fees, done.invoices) == (0, 1, 1)


def test_of_two_at_once_one_bills(settings: Settings):
    start = threading.Barrier(2)
    results: list[int] = []

    def bill() -> None:
        with connect(settings, autocommit=True) as mine:
            start.wait()
            results.append(bill_month(mine, JANUARY, at=at(2, 1)).fees)

    with connect(settings, autocommit=True) as con:
        paying(con, "both", customer="both")
        threads = [threading.Thread(target=bill) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == [0, 1]
        assert [i.total_cents for i in invoices(con, "both")] == [5000]


# -- credits of a larger plan ------------------------------------------------------------------------------------------


def given(con: Connection) -> list[tuple[Decimal, str]]:
    found = con.execute(
        "SELECT amount, operation FROM robosystems.transfers WHERE kind = 'allowance' ORDER BY seq"
    )
    return [(row[0].normalize(), row[1]) for row in found]


def test_a_larger_plan_brings_its_credits_for_the_rest_of_the_month_once(con: Connection):
    paying(con, "g")
    allocate(con, JANUARY, at=at(1, 1))
    change_plan(con, "g", "large", at(1, 16, 12))
    first = apply_upgrades(con, at=at(1, 16, 12))
    assert (first.graphs, first.credits) == (1, Decimal("12387.096774"))  # 24,000 × 16 of 31 days
    assert apply_upgrades(con, at=at(1, 17)).graphs == 0
    change_plan(con, "g", "standard", at(1, 18))
    change_plan(con, "g", "large", at(1, 20))
    assert apply_upgrades(con, at=at(1, 20)).credits == 0  # back and forth brings nothing
    change_plan(con, "g", "xlarge", at(1, 31, 23))
    assert apply_upgrades(con, at=at(2, 1)).credits == Decimal(
        "2193.548387"
    )  # 68,000 × 1 of 31, seen a day late
    assert [plan for _, plan in given(con)] == ["standard", "large", "xlarge"]
    expiries = [grant.expires_at for grant in Ledger(con).grants("g")]
    assert expiries == [at(2, 1), at(2, 1), at(3, 1)]
    allocate(con, FEBRUARY, at=at(2, 1))
    assert apply_upgrades(con, at=at(2, 2)).credits == 0
    assert balances(con)["graph:g"] == sum(amount for amount, _ in given(con))
    assert problems(con) == []


@pytest.mark.parametrize(
    ("plan", "state", "allocated"),
    [("large", "past_due", True), ("large", "active", False), ("standard", "active", True)],
)
def test_nothing_is_brought_without_an_allowance_to_one_that_does_not_pay_or_by_a_smaller_plan(
    con: Connection, plan: str, state: str, allocated: bool
):
    paying(con, "g", "large" if plan == "standard" else "standard")
    if allocated:
        allocate(con, JANUARY, at=at(1, 1))
    change_plan(con, "g", plan, at(1, 10))
    if state != "active":
        move(con, "g", state, at(1, 10))
    assert apply_upgrades(con, at=at(1, 11)).graphs == 0


def test_a_change_that_was_set_for_the_first_of_a_month_is_its_allowance(con: Connection):
    paying(con, "g")
    con.execute(
        "INSERT INTO robosystems.plan_changes (subscription_id, effective_at, from_plan, plan, actor)"
        " VALUES ('sub-g', %s, 'standard', 'large', 't')",
        [at(2, 1)],
    )
    allocate(con, FEBRUARY, at=at(2, 1))  # before anything else has let it take effect
    assert given(con) == [(Decimal("3.2E+4"), "large")]
    assert apply_upgrades(con, at=at(2, 1, 1)).graphs == 0
    assert apply_plan_changes(con, at(2, 1, 1)) == 0


def test_a_change_is_found_however_long_ago_it_was_due(con: Connection):
    paying(con, "g", start=at(1, 1) - timedelta(days=400))
    con.execute(
        "INSERT INTO robosystems.plan_changes (subscription_id, effective_at, from_plan, plan, actor)"
        " VALUES ('sub-g', %s, 'standard', 'large', 't')",
        [at(1, 1) - timedelta(days=200)],
    )
    assert apply_upgrades(con, at=at(1, 2)).changed == 0
    bill_month(con, JANUARY, at=at(2, 1))
    assert fees(con) == {("g", "2026-01", "large"): 30000}


# -- one account, several subscriptions: the user of a repository who comes back ---------------------------------------


def user(con: Connection, name: str, plan: str, start: datetime, end: datetime | None = None) -> None:
    """A subscription of sec:u1 to a shared repository, at its end when that is given."""
    con.execute(
        "INSERT INTO robosystems.customers (customer_id, name) VALUES ('acme', 'Acme') ON CONFLICT DO NOTHING"
    )
    order = Subscriptions(con)
    con.execute(
        "INSERT INTO robosystems.graphs (graph_id, customer_id, kind) VALUES ('sec', 'acme', 'repository') ON CONFLICT DO NOTHING"
    )
    request = {"repository": "sec", "user": "u1"}
    seen = order.create(
        "acme", plan, subscription_id=name, resource_type="repository", request=request, at=start
    )
    seen = order.move(order.move(seen, "provisioning", at=start), "active", at=start)
    Ledger(con).open_account("sec:u1", at=start)
    if end is not None:
        finish(con, name, end)


def finish(con: Connection, name: str, end: datetime) -> None:
    order = Subscriptions(con)
    order.move(order.move(order.get(name), "canceled", at=end), "ended", at=end)


def test_who_comes_back_gets_no_credits_of_a_larger_plan_again(con: Connection):
    user(con, "first", "starter", at(1, 1))
    allocate(con, JANUARY, at=at(1, 1))
    change_plan(con, "sec:u1", "unlimited", at(1, 2))
    assert apply_upgrades(con, at=at(1, 2)).graphs == 1
    finish(con, "first", at(1, 3))
    user(con, "second", "starter", at(1, 4))
    allocate(con, JANUARY, at=at(1, 4))
    Subscriptions(con).change_plan("second", "unlimited", at=at(1, 5))
    assert apply_upgrades(con, at=at(1, 5)).graphs == 0
    bill_month(con, JANUARY, at=at(2, 1))
    assert fees(con) == {
        ("sec:u1", "2026-01", "starter"): 2 * 94,  # a day each
        ("sec:u1", "2026-01", "unlimited"): 1610 + 43461,  # a day, 27 days
    }


def test_a_month_filled_in_later_brings_one_allowance_to_who_came_back_in_it(con: Connection):
    user(con, "first", "starter", at(1, 1), at(2, 10))
    user(con, "second", "advanced", at(2, 12))
    allocate(con, FEBRUARY, at=at(3, 1, 1))
    assert [plan for _, plan in given(con)] == ["starter"]
