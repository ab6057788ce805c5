"""Customers, graphs, subscriptions and snapshots for tests of the books, and what the books must always say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
from tests.robosystems.model_plans import Life

from quayside.robosystems.health import CHECKS, check_health
from quayside.robosystems.ledger import Ledger
from quayside.robosystems.subscriptions import Subscriptions
from quayside.robosystems.usage import Sizes

GB = 1 << 30
START = datetime(2026, 1, 1, tzinfo=UTC)

#: Checks of the books themselves; the others ask what should have been done by now.
BOOKS = CHECKS[:7]


def subscribe(
    con: psycopg.Connection[Any],
    graph_id: str,
    plan: str = "standard",
    *,
    at: datetime = START,
    customer: str = "acme",
    may_overdraw: bool = False,
    state: str = "active",
) -> int:
    """A customer's graph with an active subscription and an open account; the account's id."""
    con.execute(
        "INSERT INTO robosystems.customers (customer_id, name) VALUES (%(c)s, %(c)s) ON CONFLICT DO NOTHING",
        {"c": customer},
    )
    con.execute(
        "INSERT INTO robosystems.graphs (graph_id, customer_id, created_at) VALUES (%s, %s, %s)",
        [graph_id, customer, at],
    )
    con.execute(
        "INSERT INTO robosystems.subscriptions (subscription_id, customer_id, graph_id, plan, plan_at, state, state_at,"
        " created_at, activated_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [f"sub-{graph_id}", customer, graph_id, plan, at, state, at, at, at],
    )
    return Ledger(con).open_account(graph_id, may_overdraw=may_overdraw, at=at)


def order(
    con: psycopg.Connection[Any],
    name: str,
    graph_id: str,
    plan: str,
    at: datetime,
    *,
    customer: str,
    fees_from: date | None,
) -> Life:
    """An order that is active at once, of a graph or, as "repository:user", of a shared repository that is there; as the model has it."""
    repository, _, user = graph_id.partition(":")
    subscriptions = Subscriptions(con)
    made = subscriptions.create(
        customer,
        plan,
        subscription_id=name,
        resource_type="repository" if user else "graph",
        request={"repository": repository, "user": user} if user else {},
        at=at,
    )
    subscriptions.move(made, "provisioning", at=at)
    con.execute(
        "UPDATE robosystems.subscriptions SET graph_id = %s, fees_from = %s WHERE subscription_id = %s",
        [graph_id, fees_from, name],
    )
    if not user:
        con.execute(
            "INSERT INTO robosystems.graphs (graph_id, customer_id, created_at) VALUES (%s, %s, %s)",
            [graph_id, customer, at],
        )
    subscriptions.move(subscriptions.get(name), "active", at=at)
    return Life(name, at, [(at, plan)], fees_from)


def become(
    con: psycopg.Connection[Any], life: Life, state: str, at: datetime, ends_at: datetime | None = None
) -> None:
    """Another state, in the database and in the model."""
    subscriptions = Subscriptions(con)
    seen = subscriptions.get(life.name)
    subscriptions.move(seen, state, at=at, ends_at=ends_at)  # pyright: ignore[reportArgumentType] - a state
    life.become(at, state, ends_at)


def add_customers(con: psycopg.Connection[Any], customers: Iterable[str], repository: str) -> None:
    """Customers; the first owns a shared repository."""
    names = list(customers)
    con.execute(
        "INSERT INTO robosystems.customers (customer_id, name) SELECT c, c FROM unnest(%s::text[]) AS c",
        [names],
    )
    con.execute(
        "INSERT INTO robosystems.graphs (graph_id, customer_id, kind) VALUES (%s, %s, 'repository')",
        [repository, names[0]],
    )


def move(con: psycopg.Connection[Any], graph_id: str, state: str, at: datetime) -> None:
    """Bring a graph's subscription into another state, with its history."""
    with con.transaction():
        row = con.execute(
            "SELECT subscription_id, state, version FROM robosystems.subscriptions WHERE graph_id = %s",
            [graph_id],
        ).fetchone()
        assert row is not None
        con.execute(
            "INSERT INTO robosystems.subscription_transitions (subscription_id, from_state, to_state, version, at, actor)"
            " VALUES (%s, %s, %s, %s, %s, 'test')",
            [row[0], row[1], state, row[2] + 1, at],
        )
        con.execute(
            "UPDATE robosystems.subscriptions SET state = %s, state_at = %s, version = version + 1"
            " WHERE subscription_id = %s",
            [state, at, row[0]],
        )


def change_plan(con: psycopg.Connection[Any], graph_id: str, plan: str, at: datetime) -> None:
    """Another plan from a moment on, with its history."""
    with con.transaction():
        con.execute(
            "INSERT INTO robosystems.plan_changes (subscription_id, effective_at, from_plan, plan, actor)"
            " SELECT subscription_id, %s, plan, %s, 'test' FROM robosystems.subscriptions WHERE graph_id = %s",
            [at, plan, graph_id],
        )
        con.execute(
            "UPDATE robosystems.subscriptions SET plan = %s, plan_at = %s WHERE graph_id = %s",
            [plan, at, graph_id],
        )


def snapshots(
    con: psycopg.Connection[Any],
    account: int,
    day: datetime,
    sizes: Sequence[int | None],
    plan: str = "standard",
    included_gb: int = 10,
) -> None:
    """Snapshots of a day's first hours, in bytes; None for an hour that was not measured."""
    with con.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO robosystems.usage_snapshots (hour, account_id, files_bytes, tables_bytes, graph_bytes,"
            " subgraphs_bytes, plan, included_gb, problem, measured_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    day + timedelta(hours=hour),
                    account,
                    *([None] * 4 if size is None else [0, 0, size, 0]),
                    plan,
                    included_gb,
                    "no answer" if size is None else None,
                    day,
                )
                for hour, size in enumerate(sizes)
            ],
        )


class FixedSizes:
    """A size reader that answers what it was given; graphs it was not told of do not answer."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes = sizes

    def read(self, graph_ids: Sequence[str]) -> Iterable[Sizes]:
        for graph_id in graph_ids:
            if graph_id in self.sizes:
                yield Sizes(graph_id, 0, 0, self.sizes[graph_id], 0)
            else:
                yield Sizes(graph_id, problem="the database does not answer")


def problems(con: psycopg.Connection[Any], now: datetime | None = None) -> list[str]:
    """What is wrong with the books; with `now`, also what should have been done by then."""
    found = check_health(con, now or START, CHECKS if now else BOOKS)
    return [each.sentence for each in found if each.count and (each.check.severity == "red" or now is None)]


def balances(con: psycopg.Connection[Any]) -> dict[str, Any]:
    """Balance of every account by name."""
    return dict(con.execute("SELECT name, balance FROM robosystems.balances").fetchall())
