"""Random histories of graphs, played to the ledger in PostgreSQL and to the model in plain Python at once.

    python -m tests.robosystems.histories --histories 2000 --seed 1

Each graph, and each user of a shared repository, has a history of its own: grants, consumption, reservations, refunds, changes of plan
(set for later, too), states, ends and new orders, snapshots, bills. A plan gets another price and other credits. Time starts near an edge of
the calendar (month ends, leap days, New Year) and only goes on; on the first of each month the monthly job runs, every job now and then
twice; invoices are voided. Afterwards every book has to be the model's line for line, every grant its remainder, every invoice its
lines, and the checks of the books must find nothing.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
from tests.robosystems.books import BOOKS, add_customers, become, order, snapshots
from tests.robosystems.model import Account
from tests.robosystems.model_plans import FAMILIES, GB, Catalog, Invoices, Version

from quayside.foundation.errors import QuaysideError
from quayside.robosystems.billing import (
    allocate,
    apply_upgrades,
    bill_month,
    bill_storage,
    expire_credits,
    first_allowance,
    void_invoice,
)
from quayside.robosystems.errors import BooksError, InsufficientCreditsError, ReservationEndedError
from quayside.robosystems.ledger import Ledger
from quayside.robosystems.periods import month_of, next_month, previous_month, start_of
from quayside.robosystems.subscriptions import Subscriptions

EDGES = (
    datetime(2023, 12, 30, 22, tzinfo=UTC),
    datetime(2024, 1, 31, 12, tzinfo=UTC),
    datetime(2024, 2, 28, 23, 59, tzinfo=UTC),
    datetime(2025, 2, 27, 1, tzinfo=UTC),
    datetime(2026, 4, 30, 0, tzinfo=UTC),
    datetime(2027, 12, 31, 23, 30, tzinfo=UTC),
)


class Group:
    """Graphs that live through the same time and jobs, each with a history of its own."""

    def __init__(self, con: psycopg.Connection[Any], seed: int, graphs: int) -> None:
        self.con, self.ledger, self.random = con, Ledger(con), random.Random(seed)
        self.seed, self.numbers = seed, 0
        self.now = EDGES[seed % len(EDGES)] + timedelta(minutes=self.random.randrange(0, 3000))
        self.done_months = {month_of(self.now)}
        self.subscriptions, self.catalog = Subscriptions(con), Catalog()
        self.accounts: dict[str, Account] = {}
        self.ids: dict[str, int] = {}
        self.invoices = Invoices(self.catalog)
        self.another_version()
        add_customers(con, [f"c{number}" for number in range(3)], "sec")
        for number in range(graphs):
            graph, customer = (f"g{number}", f"c{number % 3}") if number % 4 else (f"sec:u{number}", "c0")
            account = Account(self.catalog, customer, self.random.random() < 0.5)
            self.accounts[graph] = account
            start = self.now - timedelta(hours=self.random.randrange(0, 200))
            self.order(graph, account, start)
            self.ids[graph] = self.ledger.open_account(graph, may_overdraw=account.may_overdraw, at=start)

    def another_version(self) -> None:
        """A plan that costs and brings something else from some moment on."""
        plan = self.random.choice([plan for family in FAMILIES.values() for plan in family])
        since = self.now + timedelta(hours=self.random.randrange(-24, 24 * 40))
        old = self.catalog.versions[plan][-1]
        new = Version(since, old.cents // 3 * 4 + 1, old.credits // 7 * 9 + 1, old.included_gb + 3)
        self.catalog.versions[plan].append(new)
        self.con.execute(
            "INSERT INTO robosystems.plans (plan, effective_from, family, price_cents, credits, included_gb,"
            " rollover_credits, created_by) SELECT plan, %s, family, %s, %s, %s, %s, 't' FROM robosystems.plans WHERE plan = %s",
            [since, new.cents, new.credits, new.included_gb, new.credits, plan],
        )

    def order(self, graph: str, account: Account, at: datetime) -> None:
        """A subscription that is active from the moment on; its allowance comes with whatever gives it next."""
        plan = self.random.choice(list(FAMILIES["repository" if ":" in graph else "graph"]))
        fees = self.random.choice((at.date(), at.date(), at.date() + timedelta(days=12), None))
        account.lives.append(
            order(self.con, self.key("sub"), graph, plan, at, customer=account.customer, fees_from=fees)
        )

    def credits(self, top: int = 4000) -> Decimal:
        return Decimal(self.random.randrange(1, top * 1_000_000)).scaleb(-6)

    def key(self, what: str) -> str:
        self.numbers += 1
        return f"{what}:{self.seed}:{self.numbers}"

    def play(self, steps: int) -> None:
        for _ in range(steps):
            self.now += timedelta(minutes=self.random.choice((0, 1, 90, 700, 1440, 4000)))
            if month_of(self.now) not in self.done_months:
                self.monthly()
            for graph, account in self.accounts.items():
                self.act(graph, account)
            for often, work in ((0.4, self.bill), (0.5, self.tick), (0.1, self.allocate), (0.1, self.void)):
                if self.random.random() < often:
                    work()

    def monthly(self) -> None:
        """The monthly job; one that looks far back finds what was voided long ago."""
        month = month_of(self.now)
        last = previous_month(month)
        since = self.random.choice((None, last, previous_month(previous_month(last))))
        self.done_months.add(month)
        for _ in range(self.random.choice((1, 1, 2))):
            bill_month(self.con, last, since=since, at=self.now)
            allocate(self.con, month, at=self.now)
            apply_upgrades(self.con, at=self.now)
            expire_credits(self.con, at=self.now)
        self.invoices.bill(self.now, last, since or previous_month(last), self.accounts)
        for account in self.accounts.values():
            account.allowance(self.now, month)
            account.larger_plans(self.now)
            account.expire(self.now)

    def allocate(self) -> None:
        """Allowances once more, of the last month too now and then: those who have become active since get theirs."""
        month = month_of(self.now)
        first = self.random.choice((month, month, previous_month(month)))
        allocate(self.con, first, month, at=self.now)
        for account in self.accounts.values():
            for each in sorted({first, month}):
                account.allowance(self.now, each)

    def tick(self) -> None:
        """As the sensor does every minute: changes of plan take effect."""
        apply_upgrades(self.con, at=self.now)
        for account in self.accounts.values():
            account.larger_plans(self.now)

    def void(self) -> None:
        sent = [invoice for invoice in self.invoices.all if invoice.state == "open"]
        if sent:
            invoice = self.random.choice(sent)
            row = self.con.execute(
                "SELECT series || '-' || lpad(number::text, 6, '0') FROM robosystems.invoices"
                " WHERE (customer_id, issued_at, period) = (%s, %s, %s)",
                [invoice.customer, invoice.issued_at, invoice.period],
            ).fetchone()
            assert row is not None
            void_invoice(self.con, row[0], "wrong", at=self.now)
            self.invoices.void(self.now, invoice, self.accounts)

    def bill(self) -> None:
        last = self.now.date() - timedelta(days=1)
        first = last - timedelta(days=self.random.randrange(0, 6))
        for _ in range(self.random.choice((1, 2))):
            bill_storage(self.con, first, last, at=self.now)
        for account in self.accounts.values():
            for ago in range((last - first).days, -1, -1):
                account.bill_day(self.now, last - timedelta(days=ago))

    def act(self, graph: str, account: Account) -> None:
        verb = self.random.choices(
            ("consume", "again", "grant", "reserve", "refund", "plan", "state", "measure", "nothing"),
            # Users of repositories come, go and change their plan the more.
            (15, 1, 5, 3, 2, 30, 25, 0, 5) if ":" in graph else (30, 5, 12, 8, 6, 5, 5, 15, 20),
        )[0]
        getattr(self, verb)(graph, account)

    def nothing(self, graph: str, account: Account) -> None:
        pass

    def consume(self, graph: str, account: Account) -> None:
        key, amount = self.key("use"), self.credits()
        expected = account.consume(self.now, key, amount)
        assert expected == self.succeeds(
            lambda: self.ledger.consume(graph, amount, key=key, at=self.now), InsufficientCreditsError
        )

    def again(self, graph: str, account: Account) -> None:
        keys = [key for key in account.done if key.startswith("use:")]
        if keys:
            key = self.random.choice(keys)
            assert self.ledger.consume(graph, account.done[key], key=key, at=self.now).repeated

    def grant(self, graph: str, account: Account) -> None:
        key, amount, priority = self.key("grant"), self.credits(), self.random.choice((10, 50, 50, 90))
        life = self.random.choice((None, 1, 10, 45))
        expires = None if life is None else self.now + timedelta(days=life)
        rollover = self.credits(500) if expires and self.random.random() < 0.3 else Decimal(0)
        until = expires + timedelta(days=5) if expires and rollover else None
        for _ in range(self.random.choice((1, 2))):
            self.ledger.grant(
                graph,
                amount,
                key=key,
                priority=priority,
                expires_at=expires,
                rollover_credits=rollover,
                rollover_until=until,
                at=self.now,
            )
        account.give(
            self.now,
            "grant",
            amount,
            priority=priority,
            expires_at=expires,
            rollover=rollover,
            rollover_until=until,
        )

    def reserve(self, graph: str, account: Account) -> None:
        if account.held and self.random.random() < 0.7:
            key = self.random.choice(list(account.held))
            amount = min(self.credits(), account.held[key][0])
            expected = account.capture(self.now, key, amount)
            assert expected == self.succeeds(
                lambda: self.ledger.capture(key, amount, at=self.now), ReservationEndedError
            )
            return
        key, amount, minutes = self.key("hold"), self.credits(), self.random.choice((5, 2000, 9000))
        time_out = timedelta(minutes=minutes)
        expected = account.reserve(self.now, key, amount, time_out)
        assert expected == self.succeeds(
            lambda: self.ledger.reserve(graph, amount, key=key, time_out=time_out, at=self.now),
            InsufficientCreditsError,
        )

    def refund(self, graph: str, account: Account) -> None:
        keys = [key for key in account.done if key.startswith(("use:", "capture:"))]
        if not keys:
            return
        key = self.random.choice(keys)
        amount = min(self.credits(), account.done[key])
        row = self.con.execute("SELECT id FROM robosystems.transfers WHERE key = %s", [key]).fetchone()
        assert row is not None
        expected = account.refund(self.now, key, amount)
        refund_key = self.key("refund")
        assert expected == self.succeeds(
            lambda: self.ledger.refund(row[0], amount, key=refund_key, at=self.now), BooksError
        )

    def plan(self, graph: str, account: Account) -> None:
        """Another plan, now or later; some at the very beginning of the next month."""
        life, family = account.life, FAMILIES["repository" if ":" in graph else "graph"]
        if life.state in ("canceled", "ended") or life.plans[-1][0] >= self.now:
            return
        plan = self.random.choice([p for p in family if p != life.plans[-1][1]])
        days = self.random.choice((0, 0, 3, 20))
        moment = self.random.choice(
            (self.now + timedelta(days=days), start_of(next_month(month_of(self.now))))
            if days
            else (self.now,)
        )
        self.subscriptions.change_plan(life.name, plan, effective_at=moment, at=self.now)
        life.plans.append((moment, plan))

    def state(self, graph: str, account: Account) -> None:
        """Fall behind, pause, cancel, come back; a repository whose subscription is over is ordered again."""
        life, ends = account.life, None
        if life.state == "ended":
            if ":" in graph:
                self.order(graph, account, self.now)
                self.first_allowance(graph, account)
            return
        if life.state == "canceled":
            to = "ended" if life.ends_at and life.ends_at <= self.now else "active"
            ends = life.ends_at if to == "ended" else None
        else:
            to = self.random.choice(
                [
                    s
                    for s in ("active", "active", "past_due", "paused", "canceled", "canceled")
                    if s != life.state
                ]
            )
            if to == "canceled":
                ends = self.now + timedelta(hours=self.random.choice((0, 0, 0, 30, 200, 800)))
        become(self.con, life, to, self.now, ends)
        if ":" in graph and ends is not None and ends <= self.now:  # over, and back at once
            self.state(graph, account)

    def first_allowance(self, graph: str, account: Account) -> None:
        first_allowance(self.con, graph, account.life.plans[0][1], self.now, at=self.now)
        account.allowance(self.now, month_of(self.now))

    def measure(self, graph: str, account: Account) -> None:
        """Snapshots of one of the last days, as far as that day has none."""
        day = datetime.combine(
            self.now.date() - timedelta(days=self.random.randrange(0, 4)), datetime.min.time(), UTC
        )
        life = account.life
        if ":" in graph or any(hour.date() == day.date() for hour in account.snapshots):
            return
        mean = self.catalog.version(life.plan_at(self.now), self.now).included_gb * GB
        hours = min(24, max(0, int((self.now - day) / timedelta(hours=1))))
        for hour in range(hours):
            moment = day + timedelta(hours=hour)
            since = max(moment, life.activated_at)
            plan = life.plan_at(since)
            included = self.catalog.version(plan, since).included_gb
            size = None if self.random.random() < 0.1 else self.random.randrange(0, 3 * mean)
            account.snapshots[moment] = (size, included)
            snapshots(self.con, self.ids[graph], moment, [size], plan, included)

    @staticmethod
    def succeeds(work: Any, refusal: type[QuaysideError]) -> bool:
        try:
            work()
        except refusal:
            return False
        return True

    def finish(self) -> None:
        """A last month's turn, then compare."""
        self.now = start_of(next_month(month_of(self.now))) + timedelta(minutes=self.random.choice((0, 1)))
        self.monthly()
        for graph, account in self.accounts.items():
            book = self.con.execute(
                "SELECT booked_at, kind, CASE WHEN to_account = account_id THEN amount ELSE -amount END, balance_after"
                " FROM robosystems.transfers WHERE account_id = %s ORDER BY seq",
                [self.ids[graph]],
            ).fetchall()
            assert book == account.book, f"seed {self.seed}, {graph}: {difference(book, account.book)}"
            left = sorted(grant.left_over for grant in self.ledger.grants(graph) if grant.left_over)
            assert left == sorted(g.left for g in account.grants if g.left), (
                f"seed {self.seed}, {graph}: grants"
            )
        found = self.con.execute(
            "SELECT i.issued_at, i.customer_id, i.period, i.state, i.total_cents, l.kind, coalesce(l.subscription_id, l.graph_id),"
            " l.period, coalesce(l.plan, ''), l.quantity, l.amount_cents"
            " FROM robosystems.invoices AS i JOIN robosystems.invoice_lines AS l ON l.invoice_id = i.id"
        ).fetchall()
        expected = [
            (
                i.issued_at,
                i.customer,
                i.period,
                i.state,
                i.cents,
                line.kind,
                *line.what,
                line.quantity,
                line.cents,
            )
            for i in self.invoices.all
            for line in i.lines
        ]
        found, expected = sorted(found), sorted(expected)
        assert found == expected, f"seed {self.seed}, invoices: {difference(found, expected)}"
        for check in BOOKS:
            found = self.con.execute(check.query.encode(), {"now": self.now}).fetchall()
            assert found == [], f"seed {self.seed}: {check.name}: {found[:3]}"


def difference(found: list[Any], expected: list[Any]) -> str:
    for number, (a, b) in enumerate(zip(found, expected, strict=False)):
        if a != b:
            return f"line {number} is {a} instead of {b}"
    return f"{len(found)} lines instead of {len(expected)}"


@contextmanager
def undone(con: psycopg.Connection[Any]) -> Iterator[None]:
    """Everything inside happens in one transaction that is rolled back: the next group finds empty books."""
    with con.transaction(force_rollback=True):
        yield


def play(con: psycopg.Connection[Any], histories: int, seed: int, steps: int = 25, together: int = 10) -> int:
    """Play histories in groups; how many lines the books had."""
    lines = 0
    for number in range(0, histories, together):
        with undone(con):
            group = Group(con, seed * 100_000 + number // together, min(together, histories - number))
            group.play(steps)
            group.finish()
            lines += sum(len(account.book) for account in group.accounts.values())
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--histories", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    from tests.faults.billing import private_books

    with private_books() as (_, con):
        started = time.perf_counter()
        lines = play(con, chosen.histories, chosen.seed)
        seconds = time.perf_counter() - started
    print(f"{chosen.histories} histories, {lines} transfers, equal to the model; {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    sys.exit(main())
