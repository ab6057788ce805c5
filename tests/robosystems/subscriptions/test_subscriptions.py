"""The life of subscriptions: code and database allow the same moves, and no history is lost under concurrency."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import psycopg
import pytest
from tests.robosystems.shared import module_settings  # noqa: F401  a fixture

from quayside.foundation import audit
from quayside.foundation.errors import ConflictError, NotFoundError, UsageError
from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings
from quayside.robosystems.periods import utc_now
from quayside.robosystems.subscriptions import MOVES, Subscription, Subscriptions, may_move
from quayside.robosystems.subscriptions.store import apply_plan_changes

pytestmark = pytest.mark.integration
START = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def con(module_settings: Settings) -> Iterator[psycopg.Connection[Any]]:  # noqa: F811  the fixture
    with connect(module_settings, autocommit=True) as con, con.transaction(force_rollback=True):
        yield con


@pytest.fixture
def subscriptions(con: psycopg.Connection[Any]) -> Subscriptions:
    return Subscriptions(con)


def active(subscriptions: Subscriptions, name: str = "s1") -> Subscription:
    """An active subscription, as provisioning leaves it."""
    subscriptions.create("c", "standard", subscription_id=name, at=START)
    subscriptions.paid(name, at=START)
    subscriptions.connection.execute(
        "UPDATE robosystems.subscriptions SET graph_id = %s WHERE subscription_id = %s", [f"kg-{name}", name]
    )
    return subscriptions.move(subscriptions.get(name), "active", at=START + timedelta(minutes=1))


def test_the_database_allows_the_moves_of_the_table_and_no_other(con: psycopg.Connection[Any]) -> None:
    found = con.execute("SELECT from_state, to_state FROM robosystems.subscription_moves").fetchall()
    assert set(found) == {(before, after) for before in MOVES for after in MOVES[before]}
    con.execute(
        "INSERT INTO robosystems.subscriptions (subscription_id, customer_id, plan, state, graph_id, activated_at)"
        " SELECT s || n, 'c', 'standard', s, s || n, now() FROM unnest(%s::text[]) AS s, generate_series(1, 9) AS n",
        [list(MOVES)],
    )
    refused = []
    for number, (before, after) in enumerate(product(MOVES, MOVES)):
        if before == after:
            continue
        name = f"{before}{number % 9 + 1}"
        try:
            with con.transaction():
                con.execute(
                    "UPDATE robosystems.subscriptions SET state = %s, version = version + 1 WHERE subscription_id = %s",
                    [after, name],
                )
                con.execute(
                    "INSERT INTO robosystems.subscription_transitions (subscription_id, from_state, to_state, version, at,"
                    " actor) VALUES (%s, %s, %s, 2, now(), 'test')",
                    [name, before, after],
                )
        except psycopg.errors.IntegrityConstraintViolation:
            refused.append((before, after))
    assert set(refused) == {(a, b) for a, b in product(MOVES, MOVES) if a != b and not may_move(a, b)}


def test_a_move_outside_the_code_needs_version_and_history(
    con: psycopg.Connection[Any], subscriptions: Subscriptions
) -> None:
    active(subscriptions)
    for change, message in [
        ("state = 'paused'", "moves from version 3 to the next"),
        ("state = 'paused', version = version + 1", "its history does not say so"),
        ("state = 'ended', version = version + 1", "is active and cannot become ended"),
    ]:
        update = f"UPDATE robosystems.subscriptions SET {change}; SET CONSTRAINTS ALL IMMEDIATE"
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match=message), con.transaction():
            con.execute(update)
    for statement in (
        "DELETE FROM robosystems.subscriptions",
        "DELETE FROM robosystems.subscription_transitions",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), con.transaction():
            con.execute(statement)
    assert subscriptions.get("s1").state == "active"


def test_history_names_who_did_what_and_why(subscriptions: Subscriptions) -> None:
    active(subscriptions)
    with audit.acting_as("user:ann"):
        subscriptions.pause("s1", "on holiday")
        subscriptions.pause("s1", "told twice changes nothing")
    subscriptions.resume("s1")
    history = subscriptions.history("s1")
    assert [h.to_state for h in history] == ["pending", "provisioning", "active", "paused", "active"]
    assert [h.version for h in history] == [1, 2, 3, 4, 5]
    assert (history[3].actor, history[3].reason, history[3].from_state) == (
        "user:ann",
        "on holiday",
        "active",
    )


def test_of_two_who_saw_the_same_only_the_first_moves(subscriptions: Subscriptions) -> None:
    seen = active(subscriptions)
    subscriptions.move(seen, "past_due")
    with pytest.raises(ConflictError, match=r"was active \(version 3\) and is past_due \(version 4\) now"):
        subscriptions.move(seen, "paused")
    # Back to the state it was seen in is still not what was seen.
    subscriptions.paid("s1")
    with pytest.raises(ConflictError, match="version 5"):
        subscriptions.move(seen, "paused")
    assert subscriptions.get("s1").state == "active"


def test_moves_that_the_table_does_not_have_are_one_sentence(subscriptions: Subscriptions) -> None:
    subscriptions.create("c", "standard", subscription_id="s1")
    with pytest.raises(
        UsageError, match="is pending and cannot become active, only canceled, pending_payment, prov"
    ):
        subscriptions.resume("s1")
    ended = subscriptions.move(subscriptions.cancel("s1"), "ended")
    with pytest.raises(UsageError, match="is ended and cannot become paused, only nothing else"):
        subscriptions.move(ended, "paused")


def test_payment_told_twice_or_late_makes_one_graph(subscriptions: Subscriptions) -> None:
    subscriptions.create("c", "standard", subscription_id="s1")
    subscriptions.await_payment("s1")
    first = subscriptions.paid("s1")
    assert subscriptions.paid("s1") == first
    active(subscriptions, "s2")
    subscriptions.past_due("s2")
    assert subscriptions.paid("s2").state == "active"


def test_orders_are_taken_once_and_only_for_what_exists(
    con: psycopg.Connection[Any], subscriptions: Subscriptions
) -> None:
    first = subscriptions.create("c", "standard", subscription_id="s1", request={"name": "books"})
    assert subscriptions.create("c", "standard", subscription_id="s1") == first
    assert first.request == {"name": "books"}
    con.execute(
        "INSERT INTO robosystems.graphs (graph_id, customer_id, kind) VALUES ('sec', 'c', 'repository')"
    )
    reader = {"repository": "sec", "user": "u1"}
    first = subscriptions.create("c", "starter", resource_type="repository", request=reader)
    assert (first.state, first.graph_id, first.fees_from) == ("pending", "sec:u1", utc_now().date())
    with pytest.raises(ConflictError, match=f"sec:u1 has subscription {first.subscription_id} already"):
        subscriptions.create("c", "starter", resource_type="repository", request=reader)
    for request, error, said in (
        ({"repository": "sec", "user": "a b"}, UsageError, "no user of a repository"),
        ({"repository": "sec"}, UsageError, "no user of a repository"),
        ({"repository": "kg1", "user": "u2"}, NotFoundError, "no shared repository 'kg1'"),
    ):
        with pytest.raises(error, match=said):
            subscriptions.create("c", "starter", resource_type="repository", request=request)
    with pytest.raises(NotFoundError, match="no customer 'x'"):
        subscriptions.create("x", "standard")
    with pytest.raises(NotFoundError, match=r"no plan 'huge': there are .*xlarge"):
        subscriptions.create("c", "huge")
    with pytest.raises(UsageError, match="Plan starter is for a repository, not for a graph"):
        subscriptions.create("c", "starter")
    with pytest.raises(ConflictError, match="another order"):
        subscriptions.create(
            "c", "starter", resource_type="repository", request=reader | {"user": "u2"}, subscription_id="s1"
        )


def test_canceling_now_later_and_coming_back(subscriptions: Subscriptions) -> None:
    active(subscriptions)
    later = START + timedelta(days=10)
    canceled = subscriptions.cancel("s1", ends_at=later, at=START + timedelta(days=1))
    assert (canceled.state, canceled.ends_at) == ("canceled", later)
    assert subscriptions.cancel("s1").ends_at == later
    back = subscriptions.resume("s1", at=later - timedelta(seconds=1))
    assert (back.state, back.ends_at, back.canceled_at) == ("active", None, None)
    subscriptions.cancel("s1", at=later)
    with pytest.raises(UsageError, match="ran until"):
        subscriptions.resume("s1")
    with pytest.raises(UsageError, match="cannot end in the past"):
        subscriptions.cancel(active(subscriptions, "s2").subscription_id, ends_at=START, at=later)


def test_a_graph_that_is_being_made_is_not_canceled_under_way(subscriptions: Subscriptions) -> None:
    subscriptions.create("c", "standard", subscription_id="s1")
    subscriptions.paid("s1")
    subscriptions.connection.execute("UPDATE robosystems.subscriptions SET attempt = 1")
    with pytest.raises(ConflictError, match="is being made"):
        subscriptions.cancel("s1")


def test_plans_change_from_a_moment_on(con: psycopg.Connection[Any], subscriptions: Subscriptions) -> None:
    active(subscriptions)
    now = START + timedelta(hours=5)
    assert subscriptions.change_plan("s1", "large", at=now).plan == "large"
    ahead = now + timedelta(days=3)
    assert subscriptions.change_plan("s1", "xlarge", effective_at=ahead, at=now).plan == "large"
    assert apply_plan_changes(con, ahead - timedelta(seconds=1)) == 0
    assert (apply_plan_changes(con, ahead), apply_plan_changes(con, ahead)) == (1, 0)
    seen = subscriptions.get("s1")
    assert (seen.plan, seen.state) == ("xlarge", "active")
    rows = con.execute(
        "SELECT effective_at, from_plan, plan FROM robosystems.plan_changes ORDER BY 1"
    ).fetchall()
    assert rows == [(START, None, "standard"), (now, "standard", "large"), (ahead, "large", "xlarge")]
    for wrong, message in [
        (now - timedelta(hours=1), "changes now or later"),
        (ahead, "changes to xlarge at"),
    ]:
        with pytest.raises(UsageError, match=message):
            subscriptions.change_plan("s1", "standard", effective_at=wrong, at=now)
    with pytest.raises(UsageError, match="no time zone"):
        subscriptions.change_plan("s1", "standard", effective_at=datetime(2030, 1, 1))
    with pytest.raises(UsageError, match="for a repository"):
        subscriptions.change_plan("s1", "starter")
