"""A simulated year: twelve months, a thousand graphs, everything that happens to a business.

    python -m tests.robosystems.year --graphs 1000 --seed 1

Graphs, and users of a shared repository, start on any day, change plans, pause, are canceled and come back, fall behind with payment,
overdraw, are given credits, use metered operations; invoices are voided. Some days the storage job does not run, and is filled in days
later, over the end of a month too. Every month is closed with statements, the report, and the checks of the books; at the end
consumption, expiry and invoices have to reconcile over the whole year, and every allowance, every larger plan's credits and every fee have
to be those of the plain model.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
from tests.robosystems.books import BOOKS, GB, add_customers, become, order
from tests.robosystems.model import Account
from tests.robosystems.model_plans import Catalog

from quayside.foundation.usage import UsageEvent, append
from quayside.robosystems.billing import (
    allocate,
    apply_upgrades,
    bill_month,
    bill_storage,
    expire_credits,
    invoices,
    void_invoice,
)
from quayside.robosystems.errors import InsufficientCreditsError
from quayside.robosystems.health import check_health
from quayside.robosystems.ledger import Ledger
from quayside.robosystems.periods import days_in, month_of, next_month, previous_month, start_of
from quayside.robosystems.reports import statement, usage_report
from quayside.robosystems.reports.monthly import CENTS, MOVEMENTS
from quayside.robosystems.subscriptions import Subscriptions
from quayside.robosystems.usage import meter

YEAR = datetime(2024, 1, 1, tzinfo=UTC)  # a leap year
END = datetime(2025, 1, 1, tzinfo=UTC)
GRAPHS, USERS = ("standard", "large", "xlarge"), ("starter", "advanced", "unlimited")

MEASURE = """
INSERT INTO robosystems.usage_snapshots (hour, account_id, files_bytes, tables_bytes, graph_bytes, subgraphs_bytes, plan,
                                         included_gb, problem, measured_at)
SELECT %(day)s::timestamptz + h * interval '6 hours', a.id, s.bytes, s.bytes * 0, s.bytes * 0, s.bytes * 0, sub.plan, p.included_gb,
       CASE WHEN s.bytes IS NULL THEN 'no answer' END, %(day)s
FROM robosystems.accounts AS a
JOIN robosystems.subscriptions AS sub ON sub.graph_id = a.graph_id AND sub.state IN ('active', 'past_due')
    AND sub.resource_type = 'graph'
JOIN robosystems.plans AS p ON p.plan = sub.plan
CROSS JOIN generate_series(0, 3) AS h
CROSS JOIN LATERAL (SELECT CASE WHEN (a.id * 31 + h * 7 + %(number)s) %% 50 <> 0
    THEN p.included_gb * %(gb)s::bigint / 2 + ((a.id * 7919 + %(number)s * 104729 + h * 31) %% 100) * p.included_gb * (%(gb)s::bigint / 100)
    END AS bytes) AS s
WHERE sub.activated_at < %(day)s::timestamptz + h * interval '6 hours' + interval '1 hour'
"""


class Year:
    """One year of one seed."""

    def __init__(self, con: psycopg.Connection[Any], graphs: int, seed: int) -> None:
        self.con, self.ledger, self.random = con, Ledger(con), random.Random(seed)
        self.graphs, self.accounts = graphs, dict[str, Account]()
        self.counts: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self.missed: list[datetime] = []
        self.closing: dict[str, Decimal] = {}
        self.totals: Counter[str] = Counter()

    def timed(self, what: str, work: Any) -> Any:
        started = time.perf_counter_ns()
        done = work()
        self.seconds[what] += time.perf_counter_ns() - started
        return done

    def start(self) -> None:
        """A tenth are users of a shared repository, and a tenth of the subscriptions are paid elsewhere."""
        catalog = Catalog()
        with self.con.transaction():
            add_customers(self.con, (f"customer-{number}" for number in range(self.graphs // 4 + 1)), "sec")
            for number in range(self.graphs):
                graph = f"sec:u{number:04d}" if number % 10 == 7 else f"g{number:04d}"
                at = YEAR + timedelta(days=self.random.choice((0, 0, self.random.randrange(0, 300))), hours=5)
                self.accounts[graph] = Account(catalog, f"customer-{number // 4}", number % 3 == 0)
                self.ledger.open_account(graph, may_overdraw=number % 3 == 0, at=at)
                self.order(graph, at, at.date() if number % 10 else None)

    def order(self, graph: str, at: datetime, fees_from: date | None) -> None:
        account = self.accounts[graph]
        plan = self.random.choices(USERS if ":" in graph else GRAPHS, (8, 3, 1))[0]
        name = f"{graph}-{len(account.lives)}"
        account.lives.append(
            order(self.con, name, graph, plan, at, customer=account.customer, fees_from=fees_from)
        )

    def allocate(self, at: datetime) -> None:
        self.timed("allocate", lambda: allocate(self.con, month_of(at), at=at))
        for account in self.accounts.values():
            account.allowance(at, month_of(at))

    def larger_plans(self, at: datetime) -> None:
        self.timed("larger plans", lambda: apply_upgrades(self.con, at=at))
        for account in self.accounts.values():
            account.larger_plans(at)

    def day(self, day: datetime) -> None:
        number = (day - YEAR).days
        month = month_of(day)
        if day.day == 1:
            if number:
                self.timed("invoices", lambda: bill_month(self.con, previous_month(month), at=day))
            self.allocate(day)
            self.timed("expire", lambda: expire_credits(self.con, at=day))
        if day.day == 2 and number > 1:
            self.close(previous_month(month), day)
        # Those that start later in the month get their first allowance on their day.
        if number % 7 == 3:
            self.allocate(day + timedelta(hours=6))
        self.con.execute(MEASURE, {"day": day, "number": number, "gb": GB})
        yesterday = (day - timedelta(days=1)).date()
        if number and self.random.random() < 0.06 and day < END - timedelta(days=8):
            self.missed.append(day - timedelta(days=1))
            self.counts["storage runs missed"] += 1
        elif number:
            self.timed("storage", lambda: bill_storage(self.con, yesterday, at=day + timedelta(hours=2)))
        if self.missed and (day - self.missed[0]).days > 5:
            first, self.missed = self.missed[0], []
            self.timed(
                "storage",
                lambda: bill_storage(self.con, first.date(), yesterday, at=day + timedelta(hours=3)),
            )
            self.counts["ranges filled in"] += 1
        self.business(day + timedelta(hours=9), number)
        self.larger_plans(day + timedelta(hours=10))
        if number % 11 == 5 and day < END:
            self.void(month, day + timedelta(hours=11))

    def business(self, at: datetime, number: int) -> None:
        with self.con.transaction():
            self.come_and_go(at)
            living = [
                graph
                for graph, account in self.accounts.items()
                if account.life.activated_at <= at and account.life.state in ("active", "past_due")
            ]
            chosen = self.random.sample(living, min(len(living), max(1, self.graphs // 40)))
            for graph in chosen:
                verb = self.random.choices(
                    ("consume", "grant", "plan", "late", "pause", "cancel", "refund"), (60, 8, 8, 3, 1, 2, 4)
                )[0]
                self.counts[verb] += 1
                key = f"{verb}:{number}:{graph}"
                amount = Decimal(self.random.randrange(1, 9_000_000_000)).scaleb(-6)
                if verb == "consume":
                    try:
                        self.ledger.consume(graph, amount, key=key, operation="query", at=at)
                    except InsufficientCreditsError:
                        self.counts["refused"] += 1
                elif verb == "grant":
                    expires = at + timedelta(days=self.random.choice((10, 40, 200)))
                    self.ledger.grant(graph, amount, key=key, expires_at=expires, at=at)
                elif verb == "plan":
                    life = self.accounts[graph].life
                    plan = self.random.choice(
                        [p for p in (USERS if ":" in graph else GRAPHS) if p != life.plans[-1][1]]
                    )
                    Subscriptions(self.con).change_plan(life.name, plan, at=at)
                    life.plans.append((at, plan))
                elif verb in ("late", "pause", "cancel"):
                    life = self.accounts[graph].life
                    late = {"active": "past_due", "past_due": "active"}[life.state]
                    to = {"late": late, "pause": "paused", "cancel": "canceled"}[verb]
                    ends = (
                        at + timedelta(days=self.random.choice((0, 9, 40, 70))) if to == "canceled" else None
                    )
                    become(self.con, life, to, at, ends)
                else:
                    self.refund(graph, at)
            events = [
                UsageEvent(
                    f"{number}:{n}", "kycc", "kycc.party_scored", self.random.randrange(1, 900), graph,
                    at - timedelta(days=self.random.choice((0, 0, 0, 3, 33))),
                )
                for n, graph in enumerate(chosen)
            ]  # fmt: skip
            append(self.con, events + events[:3])
        self.timed("meter", lambda: meter(self.con, at=at))

    def come_and_go(self, at: datetime) -> None:
        """Who paused comes back; who was canceled changes his mind, or goes; users of the repository order again."""
        for graph, account in self.accounts.items():
            life = account.life
            if life.state == "paused" and self.random.random() < 0.05:
                become(self.con, life, "active", at)
            elif life.state == "canceled" and life.ends_at is not None and life.ends_at <= at:
                become(self.con, life, "ended", at, life.ends_at)
            elif life.state == "canceled" and self.random.random() < 0.01:
                become(self.con, life, "active", at)
            elif life.state == "ended" and ":" in graph and self.random.random() < 0.2:
                self.counts["back"] += 1
                self.order(graph, at, at.date())

    def void(self, month: date, at: datetime) -> None:
        """An invoice of this month: the next one has its lines again."""
        sent = [i for i in invoices(self.con, state="open") if i.period == previous_month(month)]
        if sent:
            number = self.random.choice(sent).number
            assert number is not None
            void_invoice(self.con, number, "wrong address", at=at)
            self.counts["invoices voided"] += 1

    def refund(self, graph: str, at: datetime) -> None:
        row = self.con.execute(
            "SELECT t.id FROM robosystems.transfers AS t JOIN robosystems.accounts AS a ON a.id = t.account_id"
            " WHERE a.graph_id = %s AND kind = 'consumption' AND NOT EXISTS"
            " (SELECT FROM robosystems.transfers AS r WHERE r.reverses = t.id) ORDER BY t.id DESC LIMIT 1",
            [graph],
        ).fetchone()
        if row is not None:
            give_back = self.random.choice((self.ledger.refund, self.ledger.void))
            give_back(row[0], reason="complaint", at=at)

    def close(self, month: Any, now: datetime) -> None:
        """The report of a month: it opens where the last one closed; ten statements agree with it."""
        report = self.timed("report", lambda: usage_report(self.con, month, now=now))
        for row in report.rows:
            graph = row["graph_id"]
            assert row["opening"] == self.closing.get(graph, 0), (month, row)
            assert row["opening"] + sum(row[name] for name in MOVEMENTS) == row["closing"], (month, row)
            self.closing[graph] = row["closing"]
        for name, total in report.totals().items():
            self.totals[name] += total
        for row in self.random.sample(report.rows, min(10, len(report.rows))):
            found = statement(self.con, row["graph_id"], start_of(month), start_of(next_month(month)))
            assert (found.opening, found.closing) == (row["opening"], row["closing"])
        for check in BOOKS:
            wrong = self.con.execute(check.query.encode(), {"now": now}).fetchall()
            assert wrong == [], (month, check.name, wrong[:3])

    def reconcile(self) -> dict[str, Any]:
        """The whole year, by other ways than the reports went."""
        con = self.con
        end = END
        balances = dict(
            con.execute("SELECT name, balance FROM robosystems.balances WHERE id < 100").fetchall()
        )
        inside = con.execute(
            "SELECT coalesce(sum(CASE WHEN to_account = account_id THEN amount ELSE -amount END), 0)"
            " FROM robosystems.transfers WHERE booked_at < %s", [end]
        ).fetchone()  # fmt: skip
        assert inside is not None
        assert sum(self.closing.values()) == inside[0]
        assert sum(self.totals[name] for name in MOVEMENTS) == inside[0]
        compared = self.compare()
        unbilled = con.execute(
            "SELECT count(*) FROM (SELECT DISTINCT account_id, (hour AT TIME ZONE 'UTC')::date AS day"
            " FROM robosystems.usage_snapshots WHERE total_bytes IS NOT NULL AND hour < %s) AS d"
            " WHERE NOT EXISTS (SELECT FROM robosystems.storage_bills AS b WHERE b.account_id = d.account_id AND b.day = d.day)",
            [end],
        ).fetchone()
        assert unbilled == (0,)
        uncharged = con.execute(
            "SELECT count(*) FROM usage.events AS e LEFT JOIN robosystems.metered_events AS m USING (source, event_id)"
            " WHERE m.state IS DISTINCT FROM 'billed'"
        ).fetchone()
        assert uncharged == (0,)
        invoiced = con.execute(
            "SELECT count(DISTINCT i.id), coalesce(sum(amount_cents), 0)::bigint,"
            " (SELECT sum(total_cents) FROM robosystems.invoices WHERE state <> 'void'),"
            " sum(quantity) FILTER (WHERE kind = 'overage'), sum(amount_cents) FILTER (WHERE issued_at < %s)"
            " FROM robosystems.invoices AS i JOIN robosystems.invoice_lines AS l ON l.invoice_id = i.id WHERE state <> 'void'",
            [end],
        ).fetchone()
        assert invoiced is not None
        assert invoiced[1] == invoiced[2]
        assert invoiced[3] == -balances["overage"]
        reported = self.totals["overage_cents"] + self.totals["fee_cents"] - self.totals["voided_cents"]
        assert invoiced[4] == reported  # December's are issued, and reported, in the next January
        cleared = con.execute(
            "SELECT sum(amount) FROM robosystems.transfers WHERE kind = 'overage' AND booked_at < %s", [end]
        ).fetchone()
        assert cleared == (self.totals["overage"],)  # December's is booked, and reported, in the next January
        red = [
            f.sentence
            for f in check_health(con, end + timedelta(hours=4))
            if f.count and f.check.severity == "red"
        ]
        assert red == []
        return {
            "invoices": invoiced[0],
            "invoiced_usd": f"{Decimal(invoiced[1]) / 100:,.2f}",
            **{name: f"{self.totals[name]:,.6f}" for name in MOVEMENTS},
            **{name: int(self.totals[name]) for name in CENTS},
            **compared,
        }

    def compare(self) -> dict[str, int]:
        """Every allowance, larger plan and fee of the year with the model's; how many there were."""
        given = self.con.execute(
            "SELECT a.graph_id, to_char(t.period, 'YYYY-MM'), t.key LIKE '%:upgrade:%', t.effective_at, t.amount"
            " FROM robosystems.transfers AS t JOIN robosystems.accounts AS a ON a.id = t.account_id WHERE t.kind = 'allowance'"
        ).fetchall()
        found = {
            (g, f"larger:{at}" if larger else f"allowance:{m}"): amount for g, m, larger, at, amount in given
        }
        expected = {
            (graph, key): amount
            for graph, account in self.accounts.items()
            for key, amount in account.done.items()
        }
        assert len(found) == len(given)
        assert found == expected, sorted(found.items() ^ expected.items())[:4]
        lines = self.con.execute(
            "SELECT l.subscription_id, l.period, l.plan, l.quantity, l.amount_cents FROM robosystems.invoice_lines AS l"
            " JOIN robosystems.invoices AS i ON i.id = l.invoice_id WHERE l.kind = 'subscription' AND i.state <> 'void'"
        ).fetchall()
        months = [date(YEAR.year, month, 1) for month in range(1, 13)]
        fees = [
            (life.name, month, *fee)
            for account in self.accounts.values()
            for life in account.lives
            for month in months
            for fee in life.fees(month, account.catalog)
        ]
        assert sorted(lines) == sorted(fees), sorted(set(lines) ^ set(fees))[:4]
        larger = sum(key.startswith("larger:") for _, key in found)
        return {"allowances": len(found) - larger, "larger_plans": larger, "fees": len(fees)}

    def run(self) -> dict[str, Any]:
        started = time.perf_counter()
        self.start()
        days = sum(
            days_in((YEAR + timedelta(days=31 * m)).date().replace(month=m + 1, day=1)) for m in range(12)
        )
        for number in range(days + 2):  # the last month is closed on the second of the next year
            self.day(YEAR + timedelta(days=number))
        figures = self.reconcile()
        transfers = self.con.execute("SELECT count(*) FROM robosystems.transfers").fetchone()
        assert transfers is not None
        return {
            "graphs": self.graphs,
            "days": days,
            "transfers": transfers[0],
            **figures,
            "happened": dict(self.counts),
            "seconds": {name: ns // 10**7 * 10 / 1000 for name, ns in self.seconds.items()},
            "seconds_in_all": round(time.perf_counter() - started),
        }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--graphs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    from tests.faults.billing import private_books

    with private_books() as (_, con):
        print(json.dumps(Year(con, chosen.graphs, chosen.seed).run(), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
