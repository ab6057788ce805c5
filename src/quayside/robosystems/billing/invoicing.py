"""Invoices: made of lines as drafts, issued with the next number of their year's series, then paid, voided or written off.

Numbers have no gap and no repeat, however many issue at once: the database hands them out and takes them back with a transaction
that does not commit. An issued invoice and its lines never change.
"""
# ruff: noqa: S608 - statements are made of constants of this package; values are bound

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from quayside.foundation import audit
from quayside.foundation.errors import NotFoundError, UsageError
from quayside.robosystems.billing import work
from quayside.robosystems.errors import InvoiceStateError
from quayside.robosystems.ledger import reversals
from quayside.robosystems.ledger.posting import Author, unit
from quayside.robosystems.names import named, shown

if TYPE_CHECKING:
    import psycopg

State = Literal["draft", "open", "paid", "void", "uncollectible"]

_STAGE: Final = """
CREATE TEMPORARY TABLE IF NOT EXISTS quayside_lines (
    invoice_id bigint, customer_id text NOT NULL, kind text NOT NULL, graph_id text, subscription_id text,
    period date NOT NULL, description text NOT NULL, quantity numeric NOT NULL, unit_usd numeric NOT NULL,
    amount_cents bigint NOT NULL, transfer_id bigint, plan text, replaces bigint
) ON COMMIT DELETE ROWS
"""
_DRAFT: Final = """
WITH made AS (
    INSERT INTO robosystems.invoices (customer_id, period, created_by, run_id)
    SELECT DISTINCT customer_id, %(period)s::date, %(actor)s, %(run_id)s FROM quayside_lines ORDER BY customer_id
    RETURNING id, customer_id
)
UPDATE quayside_lines AS l SET invoice_id = m.id FROM made AS m WHERE m.customer_id = l.customer_id
"""
_LINES: Final = """
INSERT INTO robosystems.invoice_lines (invoice_id, kind, graph_id, subscription_id, period, description, quantity, unit_usd,
                                       amount_cents, transfer_id, plan, replaces)
SELECT invoice_id, kind, graph_id, subscription_id, period, description, quantity, unit_usd, amount_cents, transfer_id,
       plan, replaces
FROM quayside_lines ORDER BY invoice_id, kind DESC, period, graph_id, subscription_id, description
"""
_ISSUE: Final = """
UPDATE robosystems.invoices AS i
SET state = 'open', series = to_char(%(at)s::timestamptz AT TIME ZONE 'UTC', 'YYYY'), issued_at = %(at)s,
    total_cents = l.cents,
    due_on = (%(at)s::timestamptz AT TIME ZONE 'UTC')::date + CASE c.payment_terms
        WHEN 'immediate' THEN 0 WHEN 'net_15' THEN 15 WHEN 'net_30' THEN 30 WHEN 'net_60' THEN 60 WHEN 'net_90' THEN 90 END
FROM (SELECT invoice_id, sum(amount_cents) AS cents FROM quayside_lines GROUP BY invoice_id) AS l,
     robosystems.customers AS c
WHERE i.id = l.invoice_id AND c.customer_id = i.customer_id
"""
_SELECT: Final = """
SELECT i.id, i.series || '-' || lpad(i.number::text, 6, '0'), i.customer_id, i.state, i.period, i.total_cents, i.issued_at,
       i.due_on
FROM robosystems.invoices AS i
"""


@dataclass(frozen=True)
class Invoice:
    """One invoice; ``number`` is "2026-000001", None while it is a draft."""

    invoice_id: int
    number: str | None
    customer_id: str
    state: State
    period: date
    total_cents: int
    issued_at: datetime | None
    due_on: date | None


def begin_lines(con: psycopg.Connection[Any]) -> None:
    """Begin to gather lines, in the caller's transaction."""
    con.execute(_STAGE)
    con.execute("DELETE FROM quayside_lines")


def add_lines(
    con: psycopg.Connection[Any], columns: str, rows: str, bound: dict[str, Any]
) -> tuple[int, int]:
    """Gather the lines that a SELECT gives; how many, and their cents."""
    row = con.execute(
        f"WITH added AS (INSERT INTO quayside_lines ({columns}) {rows} RETURNING amount_cents)"
        " SELECT count(*), coalesce(sum(amount_cents), 0)::bigint FROM added".encode(),
        bound,
    ).fetchone()
    return row or (0, 0)


def issue_lines(con: psycopg.Connection[Any], period: date, author: Author) -> int:
    """Issue one invoice per customer over the lines that were gathered; how many."""
    con.execute(_DRAFT, author.bound | {"period": period})
    con.execute(_LINES)
    return con.execute(_ISSUE, author.bound).rowcount


def invoices(
    con: psycopg.Connection[Any], customer_id: str | None = None, state: State | None = None
) -> list[Invoice]:
    """Invoices, newest first: all, of one customer, in one state. Raises: UsageError: there is no such state."""
    if state is not None and state not in get_args(State):
        raise UsageError(f"{shown(state)} is no state of an invoice: it is {', '.join(get_args(State))}.")
    found = con.execute(
        _SELECT + " WHERE (%(customer)s::text IS NULL OR customer_id = %(customer)s)"
        " AND (%(state)s::text IS NULL OR state = %(state)s) ORDER BY i.id DESC",
        {"customer": customer_id, "state": state},
    ).fetchall()
    return [Invoice(*row) for row in found]


def get_invoice(con: psycopg.Connection[Any], number: str) -> Invoice:
    """An issued invoice by its number. Raises: NotFoundError."""
    return _by_number(con, number)


def _by_number(con: psycopg.Connection[Any], number: str, locking: str = "") -> Invoice:
    found = con.execute(
        f"{_SELECT} WHERE i.series || '-' || lpad(i.number::text, 6, '0') = %s {locking}".encode(), [number]
    ).fetchone()
    if found is None:
        raise NotFoundError(f"There is no invoice {shown(number)}: `quayside credits invoices` lists them.")
    return Invoice(*found)


def invoice_lines(con: psycopg.Connection[Any], invoice_id: int) -> list[dict[str, Any]]:
    """The lines of an invoice as rows for a reader."""
    names = ("kind", "graph_id", "period", "description", "quantity", "unit_usd", "amount_cents")
    found = con.execute(
        f"SELECT {', '.join(names)} FROM robosystems.invoice_lines WHERE invoice_id = %s ORDER BY id".encode(),
        [invoice_id],
    ).fetchall()
    return [dict(zip(names, row, strict=True)) for row in found]


def pay(con: psycopg.Connection[Any], number: str, reference: str, *, at: datetime | None = None) -> Invoice:
    """Note that an invoice was paid. Paying it again with the same reference changes nothing.

    Raises:
        NotFoundError: there is no such invoice.
        UsageError: the reference says nothing.
        InvoiceStateError: it is neither open nor written off, or was paid by something else.
    """
    named(reference, "What paid an invoice")
    return _end(con, number, "paid", work.author_of(at, None), reference)


def write_off(con: psycopg.Connection[Any], number: str, *, at: datetime | None = None) -> Invoice:
    """Give up an open invoice as uncollectible; it may still be paid. Raises as `pay` does."""
    return _end(con, number, "uncollectible", work.author_of(at, None))


def void_invoice(
    con: psycopg.Connection[Any], number: str, reason: str, *, at: datetime | None = None
) -> Invoice:
    """Void an issued invoice, which keeps its number, and undo the transfers that cleared its debts: the graphs owe the credits
    again, for the next overage to bill unless they are granted before. Raises as `pay` does."""
    author = work.author_of(at, None)
    with unit(con):
        found = _end(con, number, "void", author, reason)
        for (transfer_id,) in con.execute(
            "SELECT l.transfer_id FROM robosystems.invoice_lines AS l"
            " JOIN robosystems.transfers AS t ON t.id = l.transfer_id"
            " WHERE l.invoice_id = %s AND NOT EXISTS (SELECT FROM robosystems.transfers AS v WHERE v.reverses = t.id)"
            " ORDER BY t.account_id",
            [found.invoice_id],
        ).fetchall():
            reversals.undo(con, transfer_id, reason, author)
    return found


def _end(
    con: psycopg.Connection[Any], number: str, state: State, author: Author, reference: str | None = None
) -> Invoice:
    with unit(con):
        invoice = _by_number(con, number, "FOR UPDATE")
        if invoice.state == state:
            known = con.execute(
                "SELECT payment_reference FROM robosystems.invoices WHERE id = %s", [invoice.invoice_id]
            ).fetchone()
            if state != "paid" or known == (reference,):
                return invoice
        elif invoice.state == "open" or (invoice.state == "uncollectible" and state in ("paid", "void")):
            con.execute(
                "UPDATE robosystems.invoices SET state = %s, ended_at = %s, payment_reference = %s WHERE id = %s",
                [state, author.at, reference if state == "paid" else None, invoice.invoice_id],
            )
            audit.record(
                con,
                author.actor,
                state,
                "invoice",
                number,
                {"cents": invoice.total_cents, "note": reference},
            )
            return replace(invoice, state=state)
        raise InvoiceStateError(f"Invoice {number} is {invoice.state} and cannot become {state}.")
