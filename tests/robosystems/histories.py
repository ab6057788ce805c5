"""Random histories of graphs, played to the ledger in PostgreSQL and to the model in plain Python at once.

    python -m tests.robosystems.histories --histories 2000 --seed 1

Each graph has a history of its own: grants, consumption, reservations, refunds, plan changes, states, snapshots, bills. Time starts
near an edge of the calendar (month ends, leap days, New Year) and only goes on; on the first of each month the monthly job runs,
every job now and then twice. Afterwards every book has to be the model's line for line, every grant its remainder, every invoice
its cents, and the checks of the books must find nothing.
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
from tests.robosystems.books import BOOKS, change_plan, move, snapshots, subscribe
from tests.robosystems.model import GB, PLANS, Account

from quayside.foundation.errors import QuaysideError
from quayside.robosystems.billing import allocate, bill_overage, bill_storage, expire_credits
from quayside.robosystems.errors import BooksError, InsufficientCreditsError, ReservationEndedError
from quayside.robosystems.ledger import Ledger
from quayside.robosystems.periods import month_of, next_month, previous_month, start_of

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
        self.accounts: dict[str, Account] = {}
        self.ids: dict[str, int] = {}
        for number in range(graphs):
            graph, plan = f"g{seed}-{number}", self.random.choice(list(PLANS))
            start = self.now - timedelta(hours=self.random.randrange(0, 200))
            may = self.random.random() < 0.5
            customer = f"c{seed}-{number % 3}"
            self.ids[graph] = subscribe(con, graph, plan, at=start, customer=customer, may_overdraw=may)
            self.accounts[graph] = Account(plan, start, may, plans=[(start, plan)])

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
            if self.random.random() < 0.4:
                self.bill()

    def monthly(self) -> None:
        month = month_of(self.now)
        self.done_months.add(month)
        for _ in range(self.random.choice((1, 1, 2))):
            bill_overage(self.con, previous_month(month), at=self.now)
            allocate(self.con, month, at=self.now)
            expire_credits(self.con, at=self.now)
        for account in self.accounts.values():
            account.overage(self.now, previous_month(month))
            account.allowance(self.now, month)
            account.expire(self.now)

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
            (30, 5, 12, 8, 6, 2, 2, 15, 20),
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
        plan = self.random.choice([p for p in PLANS if p != account.plans[-1][1]])
        if account.plans[-1][0] < self.now:
            change_plan(self.con, graph, plan, self.now)
            account.plans.append((self.now, plan))

    def state(self, graph: str, account: Account) -> None:
        account.state = {"active": "past_due", "past_due": "active"}[account.state]
        move(self.con, graph, account.state, self.now)

    def measure(self, graph: str, account: Account) -> None:
        """Snapshots of one of the last days, as far as that day has none."""
        day = datetime.combine(
            self.now.date() - timedelta(days=self.random.randrange(0, 4)), datetime.min.time(), UTC
        )
        if any(hour.date() == day.date() for hour in account.snapshots):
            return
        mean = PLANS[account.plans[-1][1]][1] * GB
        hours = min(24, max(0, int((self.now - day) / timedelta(hours=1))))
        for hour in range(hours):
            moment = day + timedelta(hours=hour)
            since = max(moment, account.activated_at)
            plan = account.plan_at(since)
            size = None if self.random.random() < 0.1 else self.random.randrange(0, 3 * mean)
            account.snapshots[moment] = (size, PLANS[plan][1])
            snapshots(self.con, self.ids[graph], moment, [size], plan, PLANS[plan][1])

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
            cents = [
                row[0]
                for row in self.con.execute(
                    "SELECT amount_cents FROM robosystems.invoice_lines WHERE graph_id = %s ORDER BY id",
                    [graph],
                )
            ]
            assert cents == account.invoiced_cents, f"seed {self.seed}, {graph}: invoices"
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
