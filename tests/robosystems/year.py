"""A simulated year: twelve months, a thousand graphs, everything that happens to a business.

    python -m tests.robosystems.year --graphs 1000 --seed 1

Graphs start on any day, change plans, are canceled, fall behind with payment, overdraw, are given credits, use metered operations. Some
days the storage job does not run, and is filled in days later, over the end of a month too. Every month is closed with statements, the
report, and the checks of the books; at the end allowances, consumption, expiry and invoices have to reconcile over the whole year.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
from tests.robosystems.books import BOOKS, GB, change_plan, move, subscribe

from quayside.foundation.usage import UsageEvent, append
from quayside.robosystems.billing import allocate, bill_overage, bill_storage, expire_credits
from quayside.robosystems.errors import InsufficientCreditsError
from quayside.robosystems.health import check_health
from quayside.robosystems.ledger import Ledger
from quayside.robosystems.periods import days_in, month_of, next_month, previous_month, start_of
from quayside.robosystems.plans import plans
from quayside.robosystems.reports import statement, usage_report
from quayside.robosystems.reports.monthly import MOVEMENTS
from quayside.robosystems.usage import meter

YEAR = datetime(2024, 1, 1, tzinfo=UTC)  # a leap year
PLANS = ("standard", "large", "xlarge")

MEASURE = """
INSERT INTO robosystems.usage_snapshots (hour, account_id, files_bytes, tables_bytes, graph_bytes, subgraphs_bytes, plan,
                                         included_gb, problem, measured_at)
SELECT %(day)s::timestamptz + h * interval '6 hours', a.id, s.bytes, s.bytes * 0, s.bytes * 0, s.bytes * 0, sub.plan, p.included_gb,
       CASE WHEN s.bytes IS NULL THEN 'no answer' END, %(day)s
FROM robosystems.accounts AS a
JOIN robosystems.subscriptions AS sub ON sub.graph_id = a.graph_id AND sub.state IN ('active', 'past_due')
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
        self.graphs, self.states, self.plans = graphs, {}, {}
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
        with self.con.transaction():
            for number in range(self.graphs):
                graph = f"g{number:04d}"
                at = YEAR + timedelta(days=self.random.choice((0, 0, self.random.randrange(0, 300))), hours=5)
                self.plans[graph] = self.random.choices(PLANS, (8, 3, 1))[0]
                self.states[graph] = (at, "active")
                subscribe(
                    self.con,
                    graph,
                    self.plans[graph],
                    at=at,
                    customer=f"customer-{number // 4}",
                    may_overdraw=number % 3 == 0,
                )

    def day(self, day: datetime) -> None:
        number = (day - YEAR).days
        month = month_of(day)
        if day.day == 1:
            if number:
                self.timed("overage", lambda: bill_overage(self.con, previous_month(month), at=day))
            self.timed("allocate", lambda: allocate(self.con, month, at=day))
            self.timed("expire", lambda: expire_credits(self.con, at=day))
        if day.day == 2 and number > 1:
            self.close(previous_month(month), day)
        # Those that start later in the month get their first allowance on their day.
        self.timed(
            "allocate",
            lambda: allocate(self.con, month, at=day + timedelta(hours=6)) if number % 7 == 3 else None,
        )
        self.con.execute(MEASURE, {"day": day, "number": number, "gb": GB})
        yesterday = (day - timedelta(days=1)).date()
        if number and self.random.random() < 0.06:
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

    def business(self, at: datetime, number: int) -> None:
        with self.con.transaction():
            living = [
                g
                for g, (since, state) in self.states.items()
                if since <= at and state in ("active", "past_due")
            ]
            chosen = self.random.sample(living, min(len(living), max(1, self.graphs // 40)))
            for graph in chosen:
                verb = self.random.choices(
                    ("consume", "grant", "plan", "late", "cancel", "refund"), (60, 8, 4, 3, 1, 4)
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
                    self.plans[graph] = self.random.choice([p for p in PLANS if p != self.plans[graph]])
                    change_plan(self.con, graph, self.plans[graph], at)
                elif verb in ("late", "cancel"):
                    now = self.states[graph][1]
                    to = "canceled" if verb == "cancel" else {"active": "past_due", "past_due": "active"}[now]
                    move(self.con, graph, to, at)
                    self.states[graph] = (self.states[graph][0], to)
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
        end = start_of(datetime(YEAR.year + 1, 1, 1, tzinfo=UTC).date())
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
        credits = {plan.plan: plan.credits for plan in plans(con, YEAR)}
        whole = con.execute(
            "SELECT operation, count(*), sum(amount) FROM robosystems.transfers WHERE kind = 'allowance'"
            " AND effective_at = period::timestamp AT TIME ZONE 'UTC' GROUP BY operation"
        ).fetchall()
        for plan, count, total in whole:
            assert total == count * credits[plan], plan
        doubled = con.execute(
            "SELECT count(*) FROM (SELECT account_id, period FROM robosystems.transfers WHERE kind = 'allowance'"
            " GROUP BY 1, 2 HAVING count(*) > 1) AS d"
        ).fetchone()
        assert doubled == (0,)
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
            "SELECT count(*), coalesce(sum(total_cents), 0), (SELECT sum(amount_cents) FROM robosystems.invoice_lines),"
            " (SELECT sum(quantity) FROM robosystems.invoice_lines) FROM robosystems.invoices"
        ).fetchone()
        assert invoiced is not None
        assert invoiced[1] == invoiced[2]
        assert invoiced[3] == -balances["overage"]
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
        }

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
