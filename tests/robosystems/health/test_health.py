"""Every check finds what it is there for, and nothing in good health."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from tests.robosystems.books import GB, snapshots, subscribe

from quayside.foundation.usage import UsageEvent, append
from quayside.robosystems.billing import allocate, bill_storage
from quayside.robosystems.health import CHECKS, check_health
from quayside.robosystems.ledger import Ledger

pytestmark = pytest.mark.integration

Connection = psycopg.Connection[Any]
NOW = datetime(2026, 2, 3, 3, tzinfo=UTC)
START = NOW - timedelta(hours=50)


def found(con: Connection) -> dict[str, tuple[tuple[str, str], ...]]:
    return {f.check.name: f.offenders for f in check_health(con, NOW) if f.count}


@pytest.fixture
def healthy(con: Connection) -> Connection:
    """A graph that is two days old, measured every hour, with its allowance, and billed."""
    account = subscribe(con, "g", at=START)
    day = datetime(2026, 2, 1, tzinfo=UTC)
    snapshots(con, account, day + timedelta(hours=1), [15 * GB] * 50)
    allocate(con, date(2026, 2, 1), at=START)
    bill_storage(con, date(2026, 2, 1), date(2026, 2, 2), at=NOW)
    return con


def test_good_health(healthy: Connection):
    assert found(healthy) == {}


def late_subscription(con: Connection) -> None:
    subscribe(con, "late", at=NOW - timedelta(days=40))
    con.execute("DELETE FROM robosystems.usage_snapshots")


def unbilled_fee(con: Connection) -> None:
    subscribe(con, "late", at=NOW - timedelta(days=40))
    con.execute("UPDATE robosystems.subscriptions SET fees_from = '2026-01-01' WHERE graph_id = 'late'")


def forgotten_day(con: Connection) -> None:
    account = con.execute("SELECT id FROM robosystems.accounts WHERE graph_id = 'g'").fetchone()
    assert account is not None
    snapshots(con, account[0], datetime(2026, 1, 20, tzinfo=UTC), [GB])


def old_debt(con: Connection) -> None:
    Ledger(con).open_account("debtor", may_overdraw=True, at=START)
    Ledger(con).consume("debtor", 5, key="d", at=datetime(2026, 1, 15, tzinfo=UTC))


def stuck(con: Connection) -> None:
    con.execute(
        "INSERT INTO robosystems.subscriptions (subscription_id, customer_id, plan, state, state_at)"
        " VALUES ('stuck', 'acme', 'standard', 'provisioning', %s)",
        [NOW - timedelta(days=2)],
    )


def no_account(con: Connection) -> None:
    con.execute(
        "INSERT INTO robosystems.subscriptions (subscription_id, customer_id, graph_id, plan, state, activated_at)"
        " VALUES ('lost', 'acme', 'nowhere', 'standard', 'active', %s)",
        [NOW],
    )


def old_key(con: Connection) -> None:
    con.execute(
        "INSERT INTO robosystems.api_keys (key_id, customer_id, prefix, key_hash, created_by, expires_at)"
        " VALUES ('k1', 'acme', 'p', 'x', 'test', %s)",
        [NOW - timedelta(hours=4)],
    )


def held_event(con: Connection) -> None:
    append(con, [UsageEvent("e", "kycc", "kycc.party_scored", 1, "nobody", NOW)])
    con.execute("UPDATE usage.events SET recorded_at = %s", [NOW - timedelta(days=2)])


@pytest.mark.parametrize(
    ("spoil", "check", "offender"),
    [
        (late_subscription, "allowances overdue", "sub-late"),
        (late_subscription, "snapshots missing", "g"),
        (unbilled_fee, "fees not invoiced", "sub-late"),
        (forgotten_day, "days not billed", "g"),
        (old_debt, "debts without an invoice", "debtor"),
        (stuck, "subscriptions stuck", "stuck"),
        (no_account, "graphs without an account", "nowhere"),
        (old_key, "keys past expiry", "k1"),
        (held_event, "usage events held or unseen", "not metered: kycc"),
    ],
)
def test_each_finds_what_it_is_there_for(
    healthy: Connection, spoil: Callable[[Connection], None], check: str, offender: str
):
    spoil(healthy)
    assert check in found(healthy)
    assert found(healthy)[check][0][0] == offender


@pytest.mark.parametrize(
    ("statement", "check"),
    [
        (
            "UPDATE robosystems.accounts SET balance = balance + 1 WHERE graph_id = 'g'",
            "all accounts sum to zero",
        ),
        ("DELETE FROM robosystems.transfers WHERE kind = 'allowance'", "ledger equals balances"),
        (
            "UPDATE robosystems.transfers SET balance_after = 1 WHERE kind = 'allowance'",
            "balances follow from one another",
        ),
        ("DELETE FROM robosystems.grants", "grants cover balances"),
        ("UPDATE robosystems.accounts SET held = 5 WHERE graph_id = 'g'", "reservations equal what is held"),
        ("DELETE FROM robosystems.storage_bills", "storage bills equal transfers"),
        ("INSERT INTO robosystems.invoice_series VALUES ('2026', 3)", "overage equals invoices"),
    ],
)
def test_tampering_with_the_books_is_found(healthy: Connection, statement: str, check: str):
    with healthy.transaction(force_rollback=True):
        healthy.execute("SET LOCAL session_replication_role = replica")  # triggers are off
        healthy.execute(statement.encode())
        assert check in found(healthy)


def test_every_check_is_tried_here():
    assert len({check.name for check in CHECKS}) == len(CHECKS) == 16
