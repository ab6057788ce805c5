"""Metering of the outbox ``usage.events``: every event is charged once, in batches, at the price of its kind when it occurred.

An event is marked as metered in the transaction that charges it. What an account owes for one kind and day in a batch is one
transfer; work that was done is charged also when credits are short. An event whose subject has no account, or whose kind has
no price, is held and charged when it has: nothing is charged as 0 in silence.

A batch is gathered first and then charged account by account, some thousands in a transaction, so that many events of an account
become one transfer and its consumers wait for that alone.
"""
# ruff: noqa: S608 - statements are made of constants of this package; values are bound

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from quayside.foundation import audit
from quayside.robosystems.billing import work
from quayside.robosystems.ledger import accounts, posting
from quayside.robosystems.ledger.expiry import expire
from quayside.robosystems.names import named
from quayside.robosystems.plans import PRICE_RANGES

if TYPE_CHECKING:
    import psycopg

#: Events gathered at once.
BATCH: Final = 500_000

_LOCK: Final = "SELECT {}(hashtextextended('robosystems.meter', 0))"
_SINCE: Final = "SELECT recorded_until FROM robosystems.meter_progress"
# An event that is not visible yet belongs to a transaction that is still open, and carries a later time than its start. So
# everything recorded before the oldest of them began has been seen by whoever reads after this. A transaction of a user
# whose times are hidden from this one is allowed for by the minute.
_HORIZON: Final = """
SELECT least(clock_timestamp() - interval '1 minute', min(xact_start)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_NEW: Final = f"""
CREATE TEMPORARY TABLE quayside_events AS
SELECT e.source, e.event_id, e.kind, e.recorded_at, (e.occurred_at AT TIME ZONE 'UTC')::date AS day, e.occurred_at,
       coalesce(u.account_id, a.id) AS account_id, e.quantity * p.value AS credits,
       CASE WHEN coalesce(u.account_id, a.id) IS NULL THEN 'no account for subject ' || e.subject
            WHEN p.value IS NULL THEN 'no price event.' || e.kind END AS reason
FROM (
    SELECT * FROM usage.events AS e
    WHERE {{which}}
    ORDER BY recorded_at, event_id LIMIT %(limit)s
) AS e
LEFT JOIN robosystems.usage_subjects AS u ON u.subject = e.subject
LEFT JOIN robosystems.graphs AS g ON g.graph_id = e.subject
LEFT JOIN robosystems.accounts AS a ON a.graph_id = coalesce(g.parent_graph_id, e.subject)
LEFT JOIN {PRICE_RANGES} AS p
    ON p.code = 'event.' || e.kind AND e.occurred_at >= p.effective_from AND e.occurred_at < p.effective_until
ORDER BY account_id
"""
_UNSEEN: Final = """recorded_at >= %(since)s AND NOT EXISTS (
        SELECT FROM robosystems.metered_events AS m WHERE m.source = e.source AND m.event_id = e.event_id)"""
_HELD: Final = "event_id IN (SELECT event_id FROM robosystems.metered_events WHERE state = 'held')"
_HOLD: Final = """
INSERT INTO robosystems.metered_events (source, event_id, state, reason, account_id, credits, batch_id)
SELECT source, event_id, 'held', reason, account_id, credits, %(batch)s FROM quayside_events WHERE reason IS NOT NULL
"""
_PART: Final = "reason IS NULL AND account_id > %(after)s AND account_id <= %(until)s"
_MARK: Final = f"""
INSERT INTO robosystems.metered_events (source, event_id, state, account_id, credits, batch_id)
SELECT source, event_id, 'billed', account_id, credits, %(batch)s FROM quayside_events WHERE {_PART}
ORDER BY source, event_id
"""
_MARK_HELD: Final = f"""
UPDATE robosystems.metered_events AS m
SET state = 'billed', reason = NULL, account_id = e.account_id, credits = e.credits, batch_id = %(batch)s
FROM (SELECT * FROM quayside_events WHERE {_PART}) AS e WHERE m.source = e.source AND m.event_id = e.event_id
"""
_COLUMNS: Final = "account_id, key, kind, operation, system_account, change, effective_at, period, metadata"
_ROWS: Final = f"""
SELECT * FROM (
    SELECT account_id, 'events:' || %(batch)s || ':' || account_id || ':' || kind || ':' || day, 'consumption', kind,
           {posting.CONSUMPTION}, -robosystems.half_even(sum(credits), 1, 6) AS change, max(occurred_at), day,
           jsonb_build_object('events', count(*), 'batch', %(batch)s::bigint)
    FROM quayside_events WHERE {_PART} GROUP BY account_id, kind, day ORDER BY account_id, kind, day
) AS due WHERE change <> 0
"""
_CHARGED: Final = "SELECT account_id FROM quayside_events WHERE reason IS NULL"
_CHARGED_PART: Final = f"SELECT account_id FROM quayside_events WHERE {_PART}"


@dataclass(frozen=True)
class Metering:
    """What a run metered: events charged, events held, transfers written, credits taken."""

    events: int
    held: int
    transfers: int
    credits: Decimal
    dry_run: bool


def meter(
    con: psycopg.Connection[Any],
    *,
    at: datetime | None = None,
    run_id: str | None = None,
    batch: int = BATCH,
    dry_run: bool = False,
) -> Metering:
    """Charge every event that is not charged yet, the held ones first. ``con`` is an autocommit connection.

    Its time depends on what is new, not on what was metered before.
    """
    author = work.author_of(at, run_id)
    total = Metering(0, 0, 0, Decimal(0), dry_run)
    with _alone(con), work.run(con, dry_run):
        for again in (True, False):
            more = True
            while more:
                done, more = _batch(con, author, batch, again)
                total = Metering(
                    total.events + done.events,
                    total.held + done.held,
                    total.transfers + done.transfers,
                    total.credits + done.credits,
                    dry_run,
                )
    return total


def assign_subject(con: psycopg.Connection[Any], subject: str, graph_id: str) -> None:
    """Let the account of a graph pay for a subject of usage events, from the events on that are held or still to come.

    Raises:
        UnknownAccountError: the graph has no account.
        UsageError: the subject can be no name.
    """
    named(subject, "The subject of usage events")
    with posting.unit(con):
        account = accounts.account_id(con, graph_id)
        con.execute(
            "INSERT INTO robosystems.usage_subjects (subject, account_id, created_by) VALUES (%s, %s, %s)"
            " ON CONFLICT (subject) DO UPDATE SET account_id = excluded.account_id, created_by = excluded.created_by",
            [subject, account, audit.actor()],
        )
        audit.record(con, audit.actor(), "assign", "usage subject", subject, {"graph": graph_id})


@contextmanager
def _alone(con: psycopg.Connection[Any]) -> Iterator[None]:
    """One meter at a time; the primary key of the marks guards the same, less patiently."""
    idle = con.info.transaction_status == 0  # else the lock ends with the caller's transaction
    con.execute(_LOCK.format("pg_advisory_lock" if idle else "pg_advisory_xact_lock").encode())
    try:
        yield
    finally:
        if idle and con.info.transaction_status == 0:  # of a connection that was lost it is gone
            con.execute(_LOCK.format("pg_advisory_unlock").encode())


def _batch(
    con: psycopg.Connection[Any], author: posting.Author, limit: int, again: bool
) -> tuple[Metering, bool]:
    """Charge the events of a batch; and whether there may be more."""
    since = con.execute(_SINCE).fetchone()
    horizon = con.execute(_HORIZON).fetchone()
    number = con.execute("SELECT nextval('robosystems.meter_batches')").fetchone()
    assert since is not None
    assert horizon is not None
    assert number is not None
    con.execute("DROP TABLE IF EXISTS quayside_events")
    con.execute(
        _NEW.format(which=_HELD if again else _UNSEEN).encode(),
        {"since": since[0], "limit": None if again else limit},
    )
    found = con.execute(
        "SELECT count(*), count(*) FILTER (WHERE reason IS NULL), max(recorded_at) FROM quayside_events"
    ).fetchone()
    assert found is not None
    seen, charged, latest = found
    bound = {"batch": number[0]}
    if seen > charged and not again:
        con.execute(_HOLD, bound)
    transfers, credits = 0, Decimal(0)
    if charged:
        con.execute("CREATE INDEX ON quayside_events (account_id)")
        con.execute("ANALYZE quayside_events (account_id)")
        for part in work.slices(con, _CHARGED):
            with con.transaction():
                expire(con, author, _CHARGED_PART, part)
            with con.transaction():
                con.execute((_MARK_HELD if again else _MARK).encode(), bound | part)
                done = posting.post(con, _COLUMNS, _ROWS, bound | part, author)
            transfers, credits = transfers + done.transfers, credits - done.change
    con.execute("DROP TABLE quayside_events")
    if not again:
        until = horizon[0] if seen < limit else min(horizon[0], latest)
        con.execute(
            "UPDATE robosystems.meter_progress SET recorded_until = %s WHERE recorded_until < %s",
            [until, until],
        )
    return Metering(
        charged, 0 if again else seen - charged, transfers, credits, False
    ), not again and seen == limit
