"""Grants whose time is over: what is left of them leaves the account, or is carried over once.

The monthly job does this for everybody. Before anything is drawn from an account it is done for that account, so a
consumer can never spend what has expired, however late the job is.
"""
# ruff: noqa: S608 - statements are made of constants of this package; values are bound

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from quayside.robosystems.ledger import posting
from quayside.robosystems.ledger.posting import Author

if TYPE_CHECKING:
    import psycopg

_LAPSED: Final = "SELECT account_id FROM robosystems.grants WHERE remaining > 0 AND expires_at <= %(at)s AND expires_at < 'infinity'"
_COLUMNS: Final = "account_id, key, kind, system_account, change, effective_at, period, source, priority, expires_at, rollover_until"
#: Of grants that overlap, the one that expired first goes first; its roll-over follows it at once.
_ROWS: Final = f"""
SELECT g.account_id, e.kind || ':' || g.transfer_id, e.kind, {posting.EXPIRED}, e.change, g.expires_at,
       date_trunc('month', g.expires_at, 'UTC')::date, e.source, g.priority,
       CASE WHEN e.source IS NULL THEN 'infinity' ELSE g.rollover_until END, NULL::timestamptz
FROM robosystems.grants AS g
CROSS JOIN LATERAL (VALUES ('expiry', -g.remaining, NULL),
                           ('rollover', CASE WHEN g.rollover_until > %(at)s THEN least(g.remaining, g.rollover_credits) ELSE 0 END,
                            'rollover')) AS e (kind, change, source)
WHERE g.remaining > 0 AND g.expires_at <= %(at)s AND g.expires_at < 'infinity' AND e.change <> 0
  AND g.account_id IN ({{accounts}})
ORDER BY g.account_id, g.expires_at, g.transfer_id, e.kind
"""
_CLOSE: Final = """
UPDATE robosystems.grants SET remaining = 0
WHERE remaining > 0 AND expires_at <= %(at)s AND expires_at < 'infinity' AND account_id IN ({accounts})
"""


@dataclass(frozen=True)
class Expired:
    """What expired and what of it was carried over, in credits, and how many accounts that concerned."""

    accounts: int
    expired: Decimal
    rolled_over: Decimal


def expire(
    con: psycopg.Connection[Any], author: Author, accounts: str = _LAPSED, bound: dict[str, Any] | None = None
) -> Expired:
    """Let lapsed grants of the accounts named by a SELECT (default: of all that have any) expire, in the caller's
    transaction. Doing it again finds nothing left."""
    bound = author.bound | (bound or {})
    con.execute(
        "CREATE TEMPORARY TABLE IF NOT EXISTS quayside_lapsed (account_id bigint) ON COMMIT DELETE ROWS"
    )
    con.execute("DELETE FROM quayside_lapsed")
    con.execute(
        f"INSERT INTO quayside_lapsed SELECT DISTINCT account_id FROM ({_LAPSED}) AS l "
        f"WHERE account_id IN ({accounts})".encode(),
        bound,
    )
    mine = "SELECT account_id FROM quayside_lapsed"
    found = posting.lock(con, mine)
    if not found:
        return Expired(0, Decimal(0), Decimal(0))
    posting.settle(con, mine)
    posting.stage(con, _COLUMNS, _ROWS.format(accounts=mine), bound)
    row = con.execute(
        "SELECT coalesce(-sum(change) FILTER (WHERE change < 0), 0), coalesce(sum(change) FILTER (WHERE change > 0), 0)"
        " FROM quayside_postings"
    ).fetchone()
    con.execute(_CLOSE.format(accounts=mine).encode(), bound)
    posting.write(con, author)
    return Expired(found, *(row or (Decimal(0), Decimal(0))))
