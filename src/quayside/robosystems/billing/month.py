"""The invoices of a month: what each customer owes for it, debts of credits and prices of plans, on one invoice."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from quayside.foundation.errors import UsageError
from quayside.robosystems.billing import fees, invoicing, overage, work
from quayside.robosystems.periods import months_between, previous_month
from quayside.robosystems.subscriptions.store import apply_plan_changes

if TYPE_CHECKING:
    import psycopg


@dataclass(frozen=True)
class MonthBilling:
    """What a run invoiced for a month: debts cleared, lines for plans, and invoices issued."""

    month: date
    graphs: int
    credits: Decimal
    overage_cents: int
    fees: int
    fee_cents: int
    invoices: int
    dry_run: bool


def bill_month(
    con: psycopg.Connection[Any],
    month: date,
    *,
    since: date | None = None,
    at: datetime | None = None,
    run_id: str | None = None,
    dry_run: bool = False,
) -> MonthBilling:
    """Invoice the debts of a month that is over and the fees of plans, one invoice per customer, in one transaction.

    Args:
        since: first month whose fees are billed as far as they are not yet; by default the one before `month`, so that what
            came late is on the next invoice. What was on an invoice that was voided is, however old it is.

    Raises:
        UsageError: the month is not over, or `since` lies after it.
        BooksError: graphs that owe have no customer; all others were billed.
        NotFoundError: there was no price of a credit in that month.
    """
    author = work.author_of(at, run_id)
    overage.check_over(month, author)
    months = list(months_between(previous_month(month) if since is None else since, month))
    if not months:
        raise UsageError(f"The range of months ends ({month:%Y-%m}) before it begins ({since:%Y-%m}).")
    with work.run(con, dry_run), con.transaction():
        apply_plan_changes(con, author.at)
        invoicing.begin_lines(con)
        lines, fee_cents = fees.gather(con, months)
        done, overage_cents = overage.clear(con, month, author)
        issued = invoicing.issue_lines(con, month, author)
        orphans = overage.unpaid(con, month)
    overage.refuse_orphans(orphans, month)
    return MonthBilling(month, done.accounts, done.change, overage_cents, lines, fee_cents, issued, dry_run)
