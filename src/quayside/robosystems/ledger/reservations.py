"""Rows of ``robosystems.reservations``: what an account holds back. The database keeps ``accounts.held`` in step."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation.errors import NotFoundError, UsageError
from quayside.robosystems.errors import InsufficientCreditsError, KeyReusedError, ReservationEndedError
from quayside.robosystems.ledger import accounts, posting
from quayside.robosystems.ledger.model import Reservation
from quayside.robosystems.ledger.posting import Author

if TYPE_CHECKING:
    import psycopg

_BY_KEY: Final = """
SELECT r.state, a.graph_id, r.operation, r.amount, r.expires_at, r.account_id
FROM robosystems.reservations AS r JOIN robosystems.accounts AS a ON a.id = r.account_id WHERE r.key = %s
"""
_END: Final = (
    "UPDATE robosystems.reservations SET state = %s, ended_at = %s WHERE key = %s AND state = 'held'"
)


@dataclass(frozen=True)
class Held:
    """What is known of one reservation while its account is locked."""

    state: str
    graph_id: str
    operation: str
    amount: Decimal
    account: int


def hold(
    con: psycopg.Connection[Any],
    graph_id: str,
    account: int,
    amount: Decimal,
    key: str,
    operation: str,
    time_out: timedelta,
    author: Author,
) -> Reservation:
    """Hold credits of an account that is locked."""
    if time_out <= timedelta(0):
        raise UsageError(f"A reservation needs time: {time_out} is none.")
    row = con.execute(_BY_KEY, [key]).fetchone()
    if row is not None:
        if (row[5], row[3]) != (account, amount):
            raise KeyReusedError(f"The key {key!r} stands for another reservation: each needs its own.")
        return Reservation(key, row[1], row[3], row[0], row[4])
    found = accounts.balance(con, graph_id, author.at)
    if not found.may_overdraw and found.available < amount:
        raise InsufficientCreditsError(accounts.short(found, amount))
    expires_at = author.at + time_out
    con.execute(
        "INSERT INTO robosystems.reservations (key, account_id, operation, amount, held_at, expires_at, actor)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s)",
        [key, account, operation, amount, author.at, expires_at, author.actor],
    )
    return Reservation(key, found.graph_id, amount, "held", expires_at)


def begin_capture(
    con: psycopg.Connection[Any], key: str, amount: Decimal | None, author: Author
) -> tuple[Held, Decimal]:
    """End a reservation for capture; what it was, and the credits to take. Its account is locked from here on."""
    held = _locked(con, key)
    taken = held.amount if amount is None else amount
    if held.state == "captured":
        row = con.execute(
            "SELECT amount FROM robosystems.transfers WHERE key = %s", [f"capture:{key}"]
        ).fetchone()
        if row is None or (amount is not None and row[0] != amount):
            raise ReservationEndedError(f"Reservation {key} was captured before, with another amount.")
        return held, row[0]
    if held.state == "held":
        time_out(con, author, key=key)
        held = _locked(con, key)
    if held.state != "held":
        said = "timed out" if held.state == "expired" else f"was {held.state}"
        raise ReservationEndedError(
            f"Reservation {key} {said}: consume the credits without it, or reserve anew."
        )
    if taken > held.amount:
        raise UsageError(
            f"Reservation {key} holds {held.amount.normalize():f} credits, fewer than {taken.normalize():f}: capture what "
            "is held and consume the rest."
        )
    con.execute(_END, ["captured", author.at, key])
    return held, taken


def release(con: psycopg.Connection[Any], key: str, author: Author) -> None:
    """Give a reservation up."""
    held = _locked(con, key)
    if held.state == "captured":
        raise ReservationEndedError(f"Reservation {key} was captured: refund its transfer instead.")
    con.execute(_END, ["released", author.at, key])


def time_out(
    con: psycopg.Connection[Any], author: Author, account: int | None = None, key: str | None = None
) -> int:
    """End the reservations whose time is over: of one account, of one key, or all; how many."""
    chosen = """
        SELECT account_id FROM robosystems.reservations WHERE state = 'held' AND expires_at <= %(at)s
        AND (%(account)s::bigint IS NULL OR account_id = %(account)s) AND (%(key)s::text IS NULL OR key = %(key)s)
    """
    bound = author.bound | {"account": account, "key": key}
    if not posting.lock(con, chosen, bound):
        return 0
    return con.execute(
        "UPDATE robosystems.reservations SET state = 'expired', ended_at = %(at)s"
        " WHERE state = 'held' AND expires_at <= %(at)s AND (%(account)s::bigint IS NULL OR account_id = %(account)s)"
        " AND (%(key)s::text IS NULL OR key = %(key)s)",
        bound,
    ).rowcount


def _locked(con: psycopg.Connection[Any], key: str) -> Held:
    posting.lock(con, "SELECT account_id FROM robosystems.reservations WHERE key = %(key)s", {"key": key})
    row = con.execute(_BY_KEY, [key]).fetchone()
    if row is None:
        raise NotFoundError(f"There is no reservation {key!r}.")
    state, graph_id, operation, amount, _, account = row
    return Held(state, graph_id, operation, amount, account)
