"""Overage: what graphs owe at the end of a month becomes an invoice line, and the transfer that clears the debt, in one transaction.

Debt is a balance below 0 at the end of the month, as far as it is still there. Billed, it is gone: the next allowance is
not eaten by it, and the next run finds nothing. All graphs of a customer are lines of one invoice.
"""
# ruff: noqa: S608 - statements are made of constants of this package; values are bound

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation.errors import UsageError
from quayside.robosystems.billing import invoicing, work
from quayside.robosystems.errors import BooksError
from quayside.robosystems.ledger import posting
from quayside.robosystems.ledger.accounts import customer_of
from quayside.robosystems.periods import next_month, start_of
from quayside.robosystems.plans import OVERAGE_CREDIT_USD, price

if TYPE_CHECKING:
    import psycopg

    from quayside.robosystems.ledger.posting import Author

_IN_DEBT: Final = "SELECT id FROM robosystems.accounts WHERE balance < 0"
#: Debts of the end of a month (before ``until``) that are still there, were not invoiced for it, and whose payer is known.
_OWED: Final = f"""
SELECT a.id AS account_id, a.graph_id, least(-t.balance_after, -a.balance) AS credits,
       {customer_of("a.graph_id")} AS customer_id
FROM robosystems.accounts AS a
CROSS JOIN LATERAL (SELECT balance_after FROM robosystems.transfers AS t
                    WHERE t.account_id = a.id AND t.booked_at < %(until)s ORDER BY t.seq DESC LIMIT 1) AS t
WHERE a.balance < 0 AND t.balance_after < 0 AND NOT EXISTS (
    SELECT FROM robosystems.transfers AS o WHERE o.key = 'overage:' || a.graph_id || ':' || to_char(%(month)s::date, 'YYYY-MM'))
"""
_COLUMNS: Final = "account_id, key, kind, operation, system_account, change, effective_at, period"
_ROWS: Final = f"""
SELECT account_id, 'overage:' || graph_id || ':' || to_char(%(month)s::date, 'YYYY-MM'), 'overage', 'overage',
       {posting.OVERAGE}, credits, %(until)s, %(month)s
FROM ({_OWED}) AS o WHERE customer_id IS NOT NULL ORDER BY account_id
"""
_LINE_COLUMNS: Final = (
    "customer_id, kind, graph_id, period, description, quantity, unit_usd, amount_cents, transfer_id"
)
_LINES: Final = f"""
SELECT {customer_of("a.graph_id")},
       'overage', a.graph_id, %(month)s, 'Credits above the balance of ' || a.graph_id, t.amount, %(credit_usd)s,
       robosystems.half_even(t.amount * %(credit_usd)s * 100, 1, 0), t.id
FROM quayside_postings AS p
JOIN robosystems.transfers AS t ON t.key = p.key
JOIN robosystems.accounts AS a ON a.id = p.account_id
"""


@dataclass(frozen=True)
class Overage:
    """What was invoiced for a month: graphs, credits cleared, cents billed, invoices issued by this run."""

    month: date
    graphs: int
    credits: Decimal
    cents: int
    invoices: int
    dry_run: bool


def owed(con: psycopg.Connection[Any], month: date) -> int:
    """How many graphs have a debt of the end of a month that is still to be invoiced."""
    row = con.execute(f"SELECT count(*) FROM ({_OWED}) AS o".encode(), _bound(month)).fetchone()
    return row[0] if row else 0


def bill_overage(
    con: psycopg.Connection[Any],
    month: date,
    *,
    at: datetime | None = None,
    run_id: str | None = None,
    dry_run: bool = False,
) -> Overage:
    """Invoice the debts of a month that is over, and clear them.

    Raises:
        UsageError: the month is not over.
        BooksError: graphs that owe have no customer; all others were billed.
        NotFoundError: there was no price of a credit in that month.
    """
    author = work.author_of(at, run_id)
    check_over(month, author)
    with work.run(con, dry_run), con.transaction():
        invoicing.begin_lines(con)
        done, cents = clear(con, month, author)
        issued = invoicing.issue_lines(con, month, author)
        orphans = unpaid(con, month)
    refuse_orphans(orphans, month)
    return Overage(month, done.accounts, done.change, cents, issued, dry_run)


def check_over(month: date, author: Author) -> None:
    """Raises: UsageError: the month is not over."""
    if start_of(next_month(month)) > author.at:
        raise UsageError(f"{month:%Y-%m} is not over: it is billed on the first day of the next month.")


def clear(con: psycopg.Connection[Any], month: date, author: Author) -> tuple[posting.Posted, int]:
    """Clear the debts of a month and gather their invoice lines, in the caller's transaction; with the lines' cents."""
    bound = author.bound | _bound(month)
    posting.lock(con, _IN_DEBT)
    done = posting.post(con, _COLUMNS, _ROWS, bound, author)
    if not done.transfers:
        return done, 0
    bound["credit_usd"] = price(con, OVERAGE_CREDIT_USD, start_of(month))
    return done, invoicing.add_lines(con, _LINE_COLUMNS, _LINES, bound)[1]


def unpaid(con: psycopg.Connection[Any], month: date) -> list[str]:
    """Graphs with a debt of a month and nobody to send an invoice to."""
    found = con.execute(
        f"SELECT graph_id FROM ({_OWED}) AS o WHERE customer_id IS NULL ORDER BY graph_id".encode(),
        _bound(month),
    )
    return [graph for (graph,) in found]


def refuse_orphans(orphans: list[str], month: date) -> None:
    """Raises: BooksError: there are any."""
    if orphans:
        shown = ", ".join(orphans[:10]) + (" …" if len(orphans) > 10 else "")
        raise BooksError(
            f"{len(orphans)} graphs owe credits of {month:%Y-%m} and have no customer to invoice: {shown}. "
            "All others were billed; give these a customer and run the month again."
        )


def _bound(month: date) -> dict[str, Any]:
    return {"month": month, "until": start_of(next_month(month))}
