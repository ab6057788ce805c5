"""The one way into the books for everything but a single consumption: stage rows, lock their accounts, write transfers.

Rows are staged by a SELECT, so one transfer and a hundred thousand are written alike, and a unit of work that is in the
books already (its key is there) is left out. Accounts are locked in the order of their ids by everybody, so two postings
never wait for one another in a circle; the transfers then continue each account's book from what the lock shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import psycopg

#: The system's own accounts.
ALLOWANCE: Final = 1
CONSUMPTION: Final = 2
OVERAGE: Final = 3
EXPIRED: Final = 4
ADJUSTMENTS: Final = 5

_STAGE: Final = """
CREATE TEMPORARY TABLE IF NOT EXISTS quayside_postings (
    position          bigint GENERATED ALWAYS AS IDENTITY,
    account_id        bigint NOT NULL,
    key               text NOT NULL,
    kind              text NOT NULL,
    operation         text NOT NULL DEFAULT '',
    system_account    smallint NOT NULL,
    change            numeric(24, 6) NOT NULL,
    effective_at      timestamptz NOT NULL,
    period            date NOT NULL,
    reverses          bigint,
    metadata          jsonb,
    source            text,
    priority          smallint NOT NULL DEFAULT 50,
    expires_at        timestamptz NOT NULL DEFAULT 'infinity',
    rollover_credits  numeric(24, 6) NOT NULL DEFAULT 0,
    rollover_until    timestamptz
) ON COMMIT DELETE ROWS
"""
_LOCK: Final = """
SELECT count(*) FROM (
    SELECT FROM robosystems.accounts WHERE id IN ({accounts}) ORDER BY id FOR NO KEY UPDATE) AS locked
"""
_STAGED_ACCOUNTS: Final = "SELECT account_id FROM quayside_postings"
# Here and below a subquery per row asks the index, however the planner, who knows nothing of the staged rows, would guess: a join
# may read every transfer and every account there is for a few of them.
_LEAVE_OUT: Final = (
    "DELETE FROM quayside_postings AS p"
    " WHERE (SELECT t.id FROM robosystems.transfers AS t WHERE t.key = p.key) IS NOT NULL"
)
_WRITE: Final = """
WITH written AS (
    INSERT INTO robosystems.transfers (key, kind, operation, from_account, to_account, amount, seq, balance_after,
                                       effective_at, booked_at, period, reverses, actor, run_id, metadata)
    SELECT p.key, p.kind, p.operation, CASE WHEN p.change > 0 THEN p.system_account ELSE a.id END,
           CASE WHEN p.change > 0 THEN a.id ELSE p.system_account END, abs(p.change),
           a.seq + row_number() OVER book, a.balance + sum(p.change) OVER book, p.effective_at,
           greatest(%(at)s, a.booked_at), p.period, p.reverses, %(actor)s, %(run_id)s, p.metadata
    FROM quayside_postings AS p CROSS JOIN LATERAL (
        SELECT id, balance, seq, booked_at FROM robosystems.accounts WHERE id = p.account_id OFFSET 0) AS a
    WINDOW book AS (PARTITION BY p.account_id ORDER BY p.position)
    RETURNING id, key, kind, to_account, account_id, amount
)
"""
_COUNT: Final = """
SELECT count(*), count(DISTINCT account_id), coalesce(sum(CASE WHEN to_account = account_id THEN amount ELSE -amount END), 0)
FROM written
"""
_WITH_GRANTS: Final = """
, granted AS (
    INSERT INTO robosystems.grants (transfer_id, account_id, source, amount, remaining, priority, granted_at, expires_at,
                                    rollover_credits, rollover_until)
    SELECT w.id, w.account_id, p.source, w.amount, w.amount, p.priority, %(at)s, p.expires_at, p.rollover_credits,
           p.rollover_until
    FROM written AS w JOIN quayside_postings AS p ON p.key = w.key WHERE p.source IS NOT NULL
)
"""
#: Writes down what was drawn from the open grants of the accounts named; see view ``robosystems.grant_positions``.
_SETTLE: Final = """
UPDATE robosystems.grants AS g SET remaining = p.left_over
FROM (
    SELECT g.transfer_id, g.remaining, g.remaining - least(g.remaining, greatest(0,
               sum(g.remaining) OVER (PARTITION BY g.account_id) - greatest(a.balance, 0)
               - (sum(g.remaining) OVER draw - g.remaining))) AS left_over
    FROM robosystems.grants AS g JOIN robosystems.accounts AS a ON a.id = g.account_id
    WHERE g.remaining > 0 AND g.account_id IN ({accounts})
    WINDOW draw AS (PARTITION BY g.account_id ORDER BY g.priority, g.expires_at, g.granted_at, g.transfer_id)
) AS p
WHERE p.transfer_id = g.transfer_id AND p.left_over <> p.remaining
"""


@dataclass(frozen=True)
class Posted:
    """What a posting wrote: ``change`` is the sum over the customers' accounts, in credits."""

    transfers: int
    accounts: int
    change: Decimal


@dataclass(frozen=True)
class Author:
    """When something is booked, by whom, and in which run."""

    at: datetime
    actor: str
    run_id: str | None = None

    @property
    def bound(self) -> dict[str, Any]:
        """As statements name it: ``at``, ``actor``, ``run_id``."""
        return {"at": self.at, "actor": self.actor, "run_id": self.run_id}


def unit(con: psycopg.Connection[Any]) -> AbstractContextManager[Any]:
    """A unit of work: a transaction of its own on an autocommit connection, else a part of the caller's, begun if need be."""
    if (
        not con.autocommit and con.info.transaction_status == 0
    ):  # idle: psycopg would commit at the end of the block
        con.execute("SELECT")
    return con.transaction()


def lock(con: psycopg.Connection[Any], accounts: str, bound: Mapping[str, Any] | None = None) -> int:
    """Lock the accounts that a SELECT of ids names, in order, until the transaction ends; how many there are."""
    row = con.execute(_LOCK.format(accounts=accounts).encode(), bound).fetchone()
    return row[0] if row else 0


def settle(con: psycopg.Connection[Any], accounts: str, bound: Mapping[str, Any] | None = None) -> None:
    """Write down what debits drew from the grants of accounts, which are locked; before their set of grants changes."""
    con.execute(_SETTLE.format(accounts=accounts).encode(), bound)


def post(
    con: psycopg.Connection[Any], columns: str, rows: str, bound: Mapping[str, Any], author: Author
) -> Posted:
    """Write transfers for the rows of a SELECT, in the caller's transaction.

    Args:
        columns: the columns of the staging table that `rows` gives, in its order. ``change`` is signed: what is
            added to the customer's account. Rows with a ``source`` make a grant.
        rows: the SELECT. Where it reads balances, its accounts have to be locked already.
    """
    stage(con, columns, rows, bound)
    return write(con, author)


def stage(
    con: psycopg.Connection[Any], columns: str, rows: str, bound: Mapping[str, Any], first: str = ""
) -> None:
    """First half of `post`: the rows. ``first`` is a WITH clause that may write, whose rows the SELECT may read."""
    con.execute(_STAGE)
    con.execute("DELETE FROM quayside_postings")
    con.execute(f"{first} INSERT INTO quayside_postings ({columns}) {rows}".encode(), bound)


def write(con: psycopg.Connection[Any], author: Author) -> Posted:
    """Second half of `post`: locks, and transfers for what is staged and not in the books yet."""
    lock(con, _STAGED_ACCOUNTS)
    con.execute(
        _LEAVE_OUT
    )  # a statement of its own: it sees what was committed while this one waited for the locks
    row = con.execute("SELECT count(*), count(source) FROM quayside_postings").fetchone()
    if row is None or not row[0]:
        return Posted(0, 0, Decimal(0))
    if row[1]:
        settle(con, _STAGED_ACCOUNTS)
    statement = _WRITE + (_WITH_GRANTS if row[1] else "") + _COUNT
    written = con.execute(statement.encode(), author.bound).fetchone()
    assert written is not None
    return Posted(*written)
