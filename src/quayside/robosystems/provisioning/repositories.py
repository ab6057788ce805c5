"""Shared repositories: graphs that many users read, each with a plan and credits of its own.

A repository is a graph of kind ``repository`` that belongs to one customer, who fills it (an adapter, a job). A user's subscription
to it makes no database: it opens the account ``<repository>:<user>`` and gives access for as long as it is active, past due or
canceled and not over. Access is read from the subscriptions (view ``robosystems.repository_access``), so it ends with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quayside.foundation import audit
from quayside.foundation.errors import ConflictError, NotFoundError
from quayside.robosystems.graphs import SCHEMAS, GraphStore
from quayside.robosystems.graphs.names import checked

if TYPE_CHECKING:
    import psycopg


def make_repository(
    con: psycopg.Connection[Any],
    graphs: GraphStore,
    repository: str,
    customer_id: str,
    *,
    name: str = "",
    schema: str = "generic",
) -> bool:
    """Make a shared repository: its database, with a schema, and its row. Again changes nothing; whether it was made.

    Raises:
        NotFoundError: there is no such customer or schema.
        ConflictError: the id is another graph's.
        InputError: the id could not be a graph's.
    """
    if schema not in SCHEMAS:
        raise NotFoundError(f"There is no graph schema {schema!r}: there are {', '.join(sorted(SCHEMAS))}.")
    checked(repository)
    owner = con.execute("SELECT FROM robosystems.customers WHERE customer_id = %s", [customer_id]).fetchone()
    if owner is None:
        raise NotFoundError(f"There is no customer {customer_id!r} to own the repository.")
    with con.transaction():
        made = con.execute(
            "INSERT INTO robosystems.graphs (graph_id, customer_id, name, kind, schema_name)"
            " VALUES (%s, %s, %s, 'repository', %s) ON CONFLICT (graph_id) DO NOTHING",
            [repository, customer_id, name, schema],
        ).rowcount
        row = con.execute(
            "SELECT kind, customer_id FROM robosystems.graphs WHERE graph_id = %s AND deleted_at IS NULL",
            [repository],
        ).fetchone()
        if row != ("repository", customer_id):
            raise ConflictError(
                f"Graph {repository} is there already and is not this repository: choose another id."
            )
        graphs.create(repository, SCHEMAS[schema])
        if made:
            audit.record(con, audit.actor(), "make", "repository", repository, {"customer_id": customer_id})
    return bool(made)


def may_read(con: psycopg.Connection[Any], repository: str, user_id: str) -> bool:
    """Whether a user has access to a repository now."""
    found = con.execute(
        "SELECT FROM robosystems.repository_access WHERE account = %s", [f"{repository}:{user_id}"]
    )
    return found.fetchone() is not None


def readers(con: psycopg.Connection[Any], repository: str | None = None) -> list[dict[str, Any]]:
    """Who has access now: rows of repository, user_id, subscription_id, customer_id, plan, since, until."""
    names = ("repository", "user_id", "subscription_id", "customer_id", "plan", "since", "until")
    found = con.execute(
        f"SELECT {', '.join(names)} FROM robosystems.repository_access"  # noqa: S608 - names of this function
        " WHERE repository = coalesce(%s, repository) ORDER BY repository, user_id".encode(),
        [repository],
    )
    return [dict(zip(names, row, strict=True)) for row in found]
