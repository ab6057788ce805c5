"""Subscriptions to shared repositories: access and credits without a database, from the order to the end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from tests.robosystems.books import balances, problems
from tests.robosystems.shared import module_settings  # noqa: F401  a fixture

from quayside.foundation.errors import ConflictError, InputError, NotFoundError, ServiceUnavailableError
from quayside.foundation.postgres import connect
from quayside.foundation.settings import Settings
from quayside.robosystems.billing import allocate
from quayside.robosystems.graphs import GraphStore
from quayside.robosystems.ledger import Ledger
from quayside.robosystems.periods import days_in, month_of, utc_now
from quayside.robosystems.provisioning import (
    MAX_ATTEMPTS,
    STEPS,
    Provisioner,
    claim,
    end_subscription,
    make_repository,
    may_read,
    provision,
    readers,
)
from quayside.robosystems.storage import object_store
from quayside.robosystems.subscriptions import Subscriptions

pytestmark = pytest.mark.integration
LATER = timedelta(days=1)


@pytest.fixture
def con(module_settings: Settings) -> Iterator[psycopg.Connection[Any]]:  # noqa: F811  the fixture
    with connect(module_settings, autocommit=True) as con, con.transaction(force_rollback=True):
        yield con


@pytest.fixture
def graphs(module_settings: Settings) -> GraphStore:  # noqa: F811  the fixture
    return GraphStore(module_settings.graphs_path, buffer_pool_bytes=64 * 2**20)


@pytest.fixture
def provisioner(
    module_settings: Settings,  # noqa: F811  the fixture
    con: psycopg.Connection[Any],
    graphs: GraphStore,
) -> Provisioner:
    make_repository(con, graphs, "sec", "c", name="Filings")
    return Provisioner(module_settings, con, graphs)


def order(con: psycopg.Connection[Any], user: str = "u1", plan: str = "advanced") -> str:
    subscriptions = Subscriptions(con)
    request = {"repository": "sec", "user": user}
    made = subscriptions.create("c", plan, resource_type="repository", request=request)
    return subscriptions.paid(made.subscription_id).subscription_id


def attempt(con: psycopg.Connection[Any], name: str, later: timedelta = timedelta()) -> int:
    return {c.subscription_id: c.attempt for c in claim(con, "provisioning", now=utc_now() + later)}[name]


def prorated(con: psycopg.Connection[Any], name: str) -> int:
    """Credits of an advanced plan from the day it was activated on, rounded down."""
    start = Subscriptions(con).get(name).activated_at
    assert start is not None
    days = days_in(month_of(start))
    return 17000 * (days - start.day + 1) // days


def test_a_user_gets_access_and_credits_and_no_database(
    module_settings: Settings,  # noqa: F811  the fixture
    con: psycopg.Connection[Any],
    graphs: GraphStore,
    provisioner: Provisioner,
):
    name = order(con)
    assert not may_read(con, "sec", "u1")
    mine = provisioner.begin(name, attempt(con, name))
    for number in range(len(STEPS)):  # each step twice, and in a row of repeats
        for step in STEPS[: number + 1]:
            getattr(provisioner, step)(mine)
    seen = Subscriptions(con).get(name)
    assert (seen.state, seen.graph_id) == ("active", "sec:u1")
    assert (may_read(con, "sec", "u1"), may_read(con, "sec", "u2")) == (True, False)
    assert [(row["user_id"], row["plan"]) for row in readers(con, "sec")] == [("u1", "advanced")]
    assert int(balances(con)["graph:sec:u1"]) == prorated(con, name)
    assert graphs.graph_ids().count("sec:u1") == 0
    ledger = Ledger(con)
    ledger.consume("sec:u1", 10, key="query 1")
    assert allocate(con, month_of(utc_now())).allowances_written == 0

    subscriptions = Subscriptions(con)
    subscriptions.pause(name)
    assert not may_read(con, "sec", "u1")
    subscriptions.resume(name)
    subscriptions.cancel(name, ends_at=utc_now() + LATER)
    assert may_read(con, "sec", "u1")
    subscriptions.resume(name)
    subscriptions.cancel(name)
    assert not may_read(con, "sec", "u1")
    with pytest.raises(ConflictError, match=f"sec:u1 has subscription {name} already"):
        order(con)
    assert [c.subscription_id for c in claim(con, "canceled")] == [name]
    assert end_subscription(con, graphs, object_store(module_settings), name) is None
    assert (subscriptions.get(name).state, graphs.exists("sec")) == ("ended", True)

    again = order(con)  # in the same month: the account is there, and its allowance was given
    provision(provisioner, provisioner.begin(again, attempt(con, again)))
    assert may_read(con, "sec", "u1")
    assert int(balances(con)["graph:sec:u1"]) == prorated(con, name) - 10
    assert problems(con) == []


def test_given_up_it_takes_back_what_it_gave_and_a_new_try_gives_it_again(
    con: psycopg.Connection[Any], provisioner: Provisioner, monkeypatch: pytest.MonkeyPatch
):
    name = order(con)

    def away(self: Any, mine: Any) -> None:
        raise ServiceUnavailableError("the network is away")

    monkeypatch.setattr(Provisioner, "activate", away)
    for number in range(1, MAX_ATTEMPTS + 1):
        with pytest.raises(ServiceUnavailableError):
            provision(provisioner, provisioner.begin(name, attempt(con, name, LATER * number)))
    seen = Subscriptions(con).get(name)
    assert (seen.state, seen.activated_at, may_read(con, "sec", "u1")) == ("failed", None, False)
    assert balances(con)["graph:sec:u1"] == 0
    monkeypatch.undo()
    Subscriptions(con).retry(name)
    provision(provisioner, provisioner.begin(name, attempt(con, name)))
    assert may_read(con, "sec", "u1")
    assert int(balances(con)["graph:sec:u1"]) == prorated(con, name)
    assert problems(con) == []


def test_a_failed_one_does_not_come_back_beside_its_successor(
    con: psycopg.Connection[Any], provisioner: Provisioner
):
    name = order(con)
    provisioner.give_up(provisioner.begin(name, attempt(con, name)), "a test")
    successor = order(con)
    with pytest.raises(ConflictError, match=f"has subscription {successor} by now"):
        Subscriptions(con).retry(name)


def test_a_repository_that_is_gone_is_given_up_at_once(
    con: psycopg.Connection[Any], provisioner: Provisioner
):
    name = order(con)
    con.execute("UPDATE robosystems.graphs SET deleted_at = now() WHERE graph_id = 'sec'")
    with pytest.raises(NotFoundError, match="no shared repository 'sec'"):
        provision(provisioner, provisioner.begin(name, attempt(con, name)))
    assert Subscriptions(con).get(name).state == "failed"


def test_repositories_are_made_once_and_only_as_what_they_are(
    con: psycopg.Connection[Any], graphs: GraphStore, provisioner: Provisioner
):
    assert not make_repository(con, graphs, "sec", "c")
    con.execute("INSERT INTO robosystems.graphs (graph_id, customer_id) VALUES ('kg1', 'c')")
    for repository, owner, schema, error in (
        ("kg1", "c", "generic", ConflictError),
        ("a:b", "c", "generic", InputError),
        ("new", "nobody", "generic", NotFoundError),
        ("new", "c", "odd", NotFoundError),
    ):
        with pytest.raises(error):
            make_repository(con, graphs, repository, owner, schema=schema)
    assert not graphs.exists("new")
