"""Storage billing: for every graph and day, credits for the GB above what its plan includes, once.

A day's credits are the mean of its measured hours: of each plan the graph was on that day, the hours on it, the mean size in them
less the GB that plan includes, if that is above 0. 1 GB is 2^30 bytes. Hours without a measurement take no part in the
mean; the gap report lists them.
"""
# ruff: noqa: S608 - statements are made of constants of this package; values are bound

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation.errors import UsageError
from quayside.robosystems.billing import work
from quayside.robosystems.ledger import posting
from quayside.robosystems.ledger.expiry import expire
from quayside.robosystems.periods import start_of, utc_now
from quayside.robosystems.plans import PRICE_RANGES, STORAGE_GB_DAY

if TYPE_CHECKING:
    import psycopg

_DUE: Final = f"""
CREATE TEMPORARY TABLE quayside_due AS
SELECT d.account_id, d.day, d.hours, d.byte_hours, d.included,
       robosystems.half_even(d.excess * p.value, d.hours * 1073741824::numeric, 6) AS credits
FROM (
    SELECT account_id, day, sum(hours)::int AS hours, sum(bytes) AS byte_hours, sum(hours * included_gb)::int AS included,
           sum(greatest(0, bytes - hours * included_gb * 1073741824::numeric)) AS excess
    FROM (
        SELECT account_id, (hour AT TIME ZONE 'UTC')::date AS day, included_gb, count(*) AS hours, sum(total_bytes) AS bytes
        FROM robosystems.usage_snapshots
        WHERE hour >= %(from)s AND hour < %(until)s AND total_bytes IS NOT NULL
        GROUP BY 1, 2, 3
    ) AS on_one_plan GROUP BY 1, 2
) AS d
JOIN {PRICE_RANGES} AS p ON p.code = '{STORAGE_GB_DAY}'
    AND d.day::timestamp AT TIME ZONE 'UTC' >= p.effective_from AND d.day::timestamp AT TIME ZONE 'UTC' < p.effective_until
WHERE NOT EXISTS (SELECT FROM robosystems.storage_bills AS b WHERE b.account_id = d.account_id AND b.day = d.day)
"""
_SLICE: Final = "SELECT account_id FROM quayside_due WHERE account_id > %(after)s AND account_id <= %(until)s"
_BILL: Final = """
WITH billed AS (
    INSERT INTO robosystems.storage_bills (account_id, day, hours_measured, byte_hours, included_gb_hours, credits,
                                           billed_at, actor, run_id)
    SELECT account_id, day, hours, byte_hours, included, credits, %(at)s, %(actor)s, %(run_id)s
    FROM quayside_due WHERE account_id > %(after)s AND account_id <= %(until)s
    ON CONFLICT (account_id, day) DO NOTHING
    RETURNING account_id, day, credits
)
"""
_COLUMNS: Final = "account_id, key, kind, operation, system_account, change, effective_at, period"
_ROWS: Final = f"""
SELECT b.account_id, 'storage:' || a.graph_id || ':' || b.day, 'storage', 'storage', {posting.CONSUMPTION}, -b.credits,
       (b.day + 1)::timestamp AT TIME ZONE 'UTC', b.day
FROM billed AS b JOIN robosystems.accounts AS a ON a.id = b.account_id
WHERE b.credits > 0 ORDER BY b.account_id, b.day
"""
_TOTALS: Final = """
SELECT count(*), coalesce(sum(credits), 0) FROM robosystems.storage_bills WHERE day BETWEEN %(first)s AND %(last)s
"""


@dataclass(frozen=True)
class StorageBilling:
    """Storage of the days ``first`` to ``last``: bills and credits as they are in the books now (``graph_days``,
    ``credits``), and what of it this run wrote."""

    first: date
    last: date
    graph_days: int
    credits: Decimal
    graph_days_written: int
    credits_written: Decimal
    dry_run: bool


def bill_storage(
    con: psycopg.Connection[Any],
    first: date,
    last: date | None = None,
    *,
    at: datetime | None = None,
    run_id: str | None = None,
    dry_run: bool = False,
) -> StorageBilling:
    """Bill the storage of a day, or of every day of a range, to every graph that was measured in it.

    Args:
        con: an autocommit connection, so that every slice of accounts is committed by itself.

    Raises:
        UsageError: the range is turned round, or its last day is not over.
    """
    last = first if last is None else last
    if last < first:
        raise UsageError(f"The range of days ends ({last}) before it begins ({first}).")
    author = work.author_of(at, run_id)
    if start_of(last + timedelta(days=1)) > max(author.at, utc_now()):
        raise UsageError(f"{last} is not over yet: storage is billed by whole days, UTC.")
    bound = author.bound | {"from": start_of(first), "until": start_of(last + timedelta(days=1))}
    days = {"first": first, "last": last}
    with work.run(con, dry_run):
        bills, charged = con.execute(_TOTALS, days).fetchone() or (0, Decimal(0))
        con.execute("DROP TABLE IF EXISTS quayside_due")
        con.execute(_DUE.encode(), bound)
        con.execute("CREATE INDEX ON quayside_due (account_id)")
        con.execute("ANALYZE quayside_due")
        for part in work.slices(con, "SELECT account_id FROM quayside_due"):
            with con.transaction():
                posting.lock(con, _SLICE, part)
                expire(con, author, _SLICE, part)
                posting.stage(con, _COLUMNS, _ROWS, bound | part, _BILL)
                posting.write(con, author)
        con.execute("DROP TABLE quayside_due")
        bills_now, charged_now = con.execute(_TOTALS, days).fetchone() or (0, Decimal(0))
    return StorageBilling(
        first, last, bills_now, charged_now, bills_now - bills, charged_now - charged, dry_run
    )
