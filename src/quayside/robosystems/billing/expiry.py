"""The expiry of grants for all accounts, as a job: slice by slice, each in a transaction of its own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from quayside.robosystems.billing import work
from quayside.robosystems.ledger import expiry, reservations

if TYPE_CHECKING:
    import psycopg

_LAPSED: Final = "SELECT account_id FROM robosystems.grants WHERE remaining > 0 AND expires_at <= %(at)s AND expires_at < 'infinity'"


@dataclass(frozen=True)
class Expiry:
    """What a run let expire: credits, what of them was carried over, and reservations that timed out."""

    graphs: int
    expired: Decimal
    rolled_over: Decimal
    reservations: int
    dry_run: bool


def expire_credits(
    con: psycopg.Connection[Any],
    *,
    at: datetime | None = None,
    run_id: str | None = None,
    dry_run: bool = False,
) -> Expiry:
    """Let every lapsed grant expire and every overdue reservation end. ``con`` is an autocommit connection."""
    author = work.author_of(at, run_id)
    graphs, expired, rolled = 0, Decimal(0), Decimal(0)
    with work.run(con, dry_run):
        with con.transaction():
            ended = reservations.time_out(con, author)
        for part in work.slices(con, _LAPSED, bound=author.bound):
            with con.transaction():
                done = expiry.expire(
                    con,
                    author,
                    "SELECT id FROM robosystems.accounts WHERE id > %(after)s AND id <= %(until)s",
                    part,
                )
                graphs, expired, rolled = (
                    graphs + done.accounts,
                    expired + done.expired,
                    rolled + done.rolled_over,
                )
    return Expiry(graphs, expired, rolled, ended, dry_run)
