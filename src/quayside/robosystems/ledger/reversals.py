"""Refunds and voids: the opposite of a transfer, linked to it, never a change of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation.errors import NotFoundError
from quayside.robosystems.errors import BooksError, KeyReusedError
from quayside.robosystems.ledger import posting
from quayside.robosystems.ledger.model import Entry
from quayside.robosystems.ledger.posting import Author

if TYPE_CHECKING:
    import psycopg

_ORIGINAL: Final = """
SELECT t.account_id, t.kind, t.key, least(t.from_account, t.to_account), t.to_account = t.account_id, t.amount,
       t.amount - coalesce((SELECT sum(r.amount) FROM robosystems.transfers AS r WHERE r.reverses = t.id), 0)
FROM robosystems.transfers AS t WHERE t.id = %s
"""
_COLUMNS: Final = "account_id, key, kind, operation, system_account, change, effective_at, period, reverses, metadata, source"
_ROW: Final = (
    "SELECT %(account)s, %(key)s, %(kind)s, %(operation)s, %(system)s, %(change)s, %(at)s,"
    " (%(at)s::timestamptz AT TIME ZONE 'UTC')::date, %(reverses)s, %(metadata)s::jsonb, %(source)s"
)
_BY_KEY: Final = "SELECT id, balance_after, reverses, amount FROM robosystems.transfers WHERE key = %s"


@dataclass(frozen=True)
class _Original:
    """A transfer, and how much of it (``left``) was not reversed yet."""

    account: int
    kind: str
    key: str
    system: int
    incoming: bool
    amount: Decimal
    left: Decimal


def refund(
    con: psycopg.Connection[Any],
    transfer_id: int,
    amount: Decimal | None,
    key: str,
    reason: str,
    author: Author,
) -> Entry:
    """Give consumed credits back as a grant; see `Ledger.refund`."""
    original = _original(con, transfer_id)
    if (repeated := _repeated(con, key, transfer_id, amount)) is not None:
        return repeated
    if original.kind not in ("consumption", "storage"):
        raise BooksError(f"Transfer {transfer_id} is {original.kind}, no consumption: void it instead.")
    wanted = original.left if amount is None else amount
    if not 0 < wanted <= original.left:
        raise BooksError(
            f"Transfer {transfer_id} took {original.amount.normalize():f} credits of which {original.left.normalize():f} are left to refund, "
            f"not {wanted.normalize():f}."
        )
    return _reverse(con, transfer_id, original, "refund", wanted, key, "refund", reason, author)


def void(con: psycopg.Connection[Any], transfer_id: int, reason: str, author: Author) -> Entry:
    """Undo what is left of a transfer; see `Ledger.void`."""
    original = _original(con, transfer_id)
    if (repeated := _repeated(con, f"void:{transfer_id}", transfer_id, None)) is not None:
        return repeated
    if original.kind == "void":
        raise BooksError(f"Transfer {transfer_id} is a void itself and stays.")
    if original.kind == "overage":
        raise BooksError(f"Transfer {transfer_id} ({original.key}) was invoiced: void its invoice.")
    return undo(con, transfer_id, reason, author)


def undo(con: psycopg.Connection[Any], transfer_id: int, reason: str, author: Author) -> Entry:
    """As `void`, for whoever knows that the transfer may be undone (an invoice being voided)."""
    original = _original(con, transfer_id)
    if not original.left:
        raise BooksError(f"Transfer {transfer_id} was reversed in full before: nothing is left to void.")
    if original.incoming:
        expired = con.execute(
            "SELECT FROM robosystems.transfers WHERE key = %s", [f"expiry:{transfer_id}"]
        ).fetchone()
        if expired is not None:
            raise BooksError(
                f"What was left of grant {transfer_id} has expired, so a void would take it twice: adjust the account."
            )
        # What is left of its grant goes with it; the rest of the amount was spent and becomes debt of the account.
        posting.settle(con, "SELECT %(account)s::bigint", {"account": original.account})
        con.execute(
            "UPDATE robosystems.grants SET remaining = remaining - least(remaining, %s) WHERE transfer_id = %s",
            [original.left, transfer_id],
        )
    return _reverse(
        con,
        transfer_id,
        original,
        "void",
        -original.left if original.incoming else original.left,
        f"void:{transfer_id}",
        None if original.incoming else "refund",
        reason,
        author,
    )


def _original(con: psycopg.Connection[Any], transfer_id: int) -> _Original:
    """The transfer, with its account locked, so that what is left of it stays so."""
    posting.lock(con, "SELECT account_id FROM robosystems.transfers WHERE id = %(id)s", {"id": transfer_id})
    row = con.execute(_ORIGINAL, [transfer_id]).fetchone()
    if row is None:
        raise NotFoundError(f"There is no transfer {transfer_id}.")
    return _Original(*row)


def _repeated(
    con: psycopg.Connection[Any], key: str, transfer_id: int, amount: Decimal | None
) -> Entry | None:
    row = con.execute(_BY_KEY, [key]).fetchone()
    if row is None:
        return None
    if row[2] != transfer_id or (amount is not None and row[3] != amount):
        raise KeyReusedError(f"The key {key!r} stands for another transfer (number {row[0]}).")
    return Entry(row[0], row[1], repeated=True)


def _reverse(
    con: psycopg.Connection[Any],
    transfer_id: int,
    original: _Original,
    kind: str,
    change: Decimal,
    key: str,
    source: str | None,
    reason: str,
    author: Author,
) -> Entry:
    posting.post(
        con,
        _COLUMNS,
        _ROW,
        author.bound
        | {
            "account": original.account,
            "key": key,
            "kind": kind,
            "operation": original.kind,
            "system": original.system,
            "change": change,
            "reverses": transfer_id,
            "metadata": json.dumps({"reason": reason}) if reason else None,
            "source": source,
        },
        author,
    )
    row = con.execute(_BY_KEY, [key]).fetchone()
    assert row is not None
    return Entry(row[0], row[1])
