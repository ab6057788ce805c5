"""Monthly allowances: every active subscription's credits for a calendar month, once.

The first month is prorated by days, the day of the start included. An allowance is good for its month; what is left of it, up to the
plan's roll-over, is carried into the next month once. Canceled and past-due subscriptions get none. The price list and the
plan are those of the month's start (or of the subscription's).
"""
# ruff: noqa: S608 - statements are made of constants of this package; values are bound

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation.errors import CheckFailedError, UsageError
from quayside.robosystems.amounts import half_even
from quayside.robosystems.billing import overage, work
from quayside.robosystems.ledger import accounts, posting
from quayside.robosystems.ledger.model import Entry
from quayside.robosystems.periods import (
    days_in,
    in_utc,
    month_of,
    months_between,
    next_month,
    previous_month,
    start_of,
)
from quayside.robosystems.plans import PLAN_RANGES, plan, plan_at, state_at
from quayside.robosystems.subscriptions.store import apply_plan_changes

if TYPE_CHECKING:
    import psycopg

#: Of the rows that give an allowance, or a part of one.
COLUMNS: Final = (
    "account_id, key, kind, operation, system_account, change, effective_at, period, source, expires_at, "
    "rollover_credits, rollover_until"
)
# Of a month that is still running what counts is the state now; of one that is over, the state at its start. The user of a
# repository who came back in it has two subscriptions on one account: the first one's allowance is the month's.
_DUE: Final = f"""
CREATE TEMPORARY TABLE quayside_allowances AS
SELECT DISTINCT ON (e.account_id, e.month) e.account_id, e.graph_id, e.month, e.since, p.plan,
       robosystems.half_even(p.credits * (e.month_days - ((e.since AT TIME ZONE 'UTC')::date - e.month)), e.month_days, 6)
           AS credits, p.rollover_credits
FROM (
    SELECT a.id AS account_id, s.graph_id, m.month, m.month_days, m.since, {plan_at("m.since")} AS plan
    FROM robosystems.subscriptions AS s
    JOIN robosystems.accounts AS a ON a.graph_id = s.graph_id
    CROSS JOIN LATERAL (
        SELECT month, (month + interval '1 month')::date - month AS month_days,
               greatest(month::timestamp AT TIME ZONE 'UTC', s.activated_at) AS since,
               (month + interval '1 month') AT TIME ZONE 'UTC' AS until
        FROM unnest(%(months)s::date[]) AS month
    ) AS m
    WHERE s.activated_at < m.until
      AND CASE WHEN m.until > %(at)s THEN s.state ELSE {state_at("m.since")} END = 'active'
) AS e
JOIN {PLAN_RANGES} AS p ON p.plan = e.plan AND e.since >= p.effective_from AND e.since < p.effective_until
WHERE p.credits > 0 AND NOT EXISTS (
    SELECT FROM robosystems.transfers AS t WHERE t.key = 'allowance:' || e.graph_id || ':' || to_char(e.month, 'YYYY-MM'))
ORDER BY e.account_id, e.month, e.since
"""
# One that is filled in after its month lasts to the end of the month in which it is given.
_ROWS: Final = f"""
SELECT account_id, 'allowance:' || graph_id || ':' || to_char(month, 'YYYY-MM'), 'allowance', plan, {posting.ALLOWANCE},
       credits, since, month, 'allowance', greatest(month + interval '1 month', %(month_end)s) AT TIME ZONE 'UTC',
       rollover_credits, (greatest(month + interval '1 month', %(month_end)s) + interval '1 month') AT TIME ZONE 'UTC'
FROM quayside_allowances WHERE account_id > %(after)s AND account_id <= %(until)s AND credits > 0
ORDER BY account_id, month
"""


@dataclass(frozen=True)
class Allocation:
    """What a run gave: allowances of the months ``first`` to ``last``."""

    first: date
    last: date
    graphs: int
    allowances_written: int
    credits_written: Decimal
    dry_run: bool


def allocate(
    con: psycopg.Connection[Any],
    first: date,
    last: date | None = None,
    *,
    at: datetime | None = None,
    run_id: str | None = None,
    dry_run: bool = False,
) -> Allocation:
    """Give the allowances of a month, or of every month of a range (first days of months), that were not given yet.

    Args:
        con: an autocommit connection, so that every slice of accounts is committed by itself.

    Raises:
        CheckFailedError: debts of the month before are not invoiced yet; the allowance would pay them.
        UsageError: the range is turned round, or a month has not begun.
    """
    author = work.author_of(at, run_id)
    last = first if last is None else last
    months = list(months_between(first, last))
    if not months:
        raise UsageError(f"The range of months ends ({last:%Y-%m}) before it begins ({first:%Y-%m}).")
    if start_of(months[-1]) > author.at:
        raise UsageError(f"{months[-1]:%Y-%m} has not begun: its allowance is given on its first day.")
    owing = overage.owed(con, previous_month(months[-1]))
    if owing and not dry_run:
        raise CheckFailedError(
            f"{owing} graphs owe credits of {previous_month(months[-1]):%Y-%m} that are not invoiced, and an allowance would "
            f"pay them: bill it first (`quayside credits bill invoices --month {previous_month(months[-1]):%Y-%m}`)."
        )
    bound = author.bound | {
        "months": months,
        "month_end": datetime.combine(next_month(month_of(author.at)), datetime.min.time()),
    }
    graphs, written, credits = 0, 0, Decimal(0)
    with work.run(con, dry_run):
        apply_plan_changes(con, author.at)
        con.execute("DROP TABLE IF EXISTS quayside_allowances")
        con.execute(_DUE.encode(), bound)
        con.execute("ANALYZE quayside_allowances")
        for part in work.slices(con, "SELECT account_id FROM quayside_allowances"):
            with con.transaction():
                done = posting.post(con, COLUMNS, _ROWS, bound | part, author)
                written, credits, graphs = (
                    written + done.transfers,
                    credits + done.change,
                    graphs + done.accounts,
                )
        con.execute("DROP TABLE quayside_allowances")
    return Allocation(months[0], months[-1], graphs, written, credits, dry_run)


def first_allowance(
    con: psycopg.Connection[Any],
    graph_id: str,
    plan_name: str,
    start: datetime,
    *,
    at: datetime | None = None,
    run_id: str | None = None,
) -> Entry | None:
    """The prorated allowance of a new graph, whose account is open; None where the plan has no credits.

    It is the unit of work that the monthly job would do, so neither gives it a second time. `start` decides on month and share:
    pass the same one whenever this is tried again.

    Raises:
        UnknownAccountError: the account is not open yet.
        NotFoundError: there is no such plan.
    """
    author = work.author_of(at, run_id)
    start = in_utc(start)
    month = month_of(start)
    chosen = plan(con, plan_name, start)
    credits = half_even(chosen.credits * (days_in(month) - start.day + 1), days_in(month), 6)
    if not credits:
        return None
    key = f"allowance:{graph_id}:{month:%Y-%m}"
    until = max(next_month(month), next_month(month_of(author.at)))
    with posting.unit(con):
        account = accounts.account_id(con, graph_id)
        if undone := _undone(con, account, month):
            key += f":again:{undone}"
        posting.post(
            con,
            COLUMNS,
            f"SELECT %(account)s, %(key)s, 'allowance', %(plan)s, {posting.ALLOWANCE}, %(credits)s, %(start)s, %(month)s,"
            " 'allowance', %(until)s, %(rollover)s, %(rollover_until)s",
            {
                "account": account,
                "key": key,
                "plan": plan_name,
                "credits": credits,
                "start": start,
                "month": month,
                "until": start_of(until),
                "rollover": chosen.rollover_credits,
                "rollover_until": start_of(next_month(until)),
            },
            author,
        )
        row = con.execute(
            "SELECT id, balance_after FROM robosystems.transfers WHERE key = %s", [key]
        ).fetchone()
    assert row is not None
    return Entry(*row)


def _undone(con: psycopg.Connection[Any], account: int, month: date) -> int:
    """Allowances of a month that were taken back: the user of a repository has one account in all lives of a subscription."""
    row = con.execute(
        "SELECT count(*) FROM robosystems.transfers AS t JOIN robosystems.transfers AS v ON v.reverses = t.id"
        " WHERE t.account_id = %s AND t.kind = 'allowance' AND t.period = %s AND v.kind = 'void'",
        [account, month],
    ).fetchone()
    return row[0] if row else 0
