"""Credit accounts: opening one, finding the one that pays for a graph, and what it holds."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from quayside.robosystems.errors import UnknownAccountError
from quayside.robosystems.ledger.model import Balance, Grant
from quayside.robosystems.names import named, shown

if TYPE_CHECKING:
    import psycopg

#: A subgraph draws on its parent's account.
PAYER: Final = (
    "coalesce((SELECT parent_graph_id FROM robosystems.graphs WHERE graph_id = %(graph_id)s), %(graph_id)s)"
)


def customer_of(graph_id: str) -> str:
    """SQL for whom the account of a graph, given as SQL, is invoiced to: its owner; the user of a repository has subscriptions alone."""
    return f"""coalesce(
           (SELECT customer_id FROM robosystems.graphs AS g WHERE g.graph_id = {graph_id}),
           (SELECT customer_id FROM robosystems.subscriptions AS s WHERE s.graph_id = {graph_id}
            ORDER BY created_at DESC LIMIT 1))"""  # noqa: S608 - a column's name


_BALANCE: Final = f"""
SELECT a.graph_id, a.balance, a.held,
       a.balance - a.held
       + coalesce((SELECT sum(amount) FROM robosystems.reservations AS r
                   WHERE r.account_id = a.id AND r.state = 'held' AND r.expires_at <= %(at)s), 0)
       - coalesce((SELECT sum(p.left_over - CASE WHEN p.rollover_until > %(at)s
                                                 THEN least(p.left_over, p.rollover_credits) ELSE 0 END)
                   FROM robosystems.grant_positions AS p
                   WHERE p.account_id = a.id AND p.expires_at <= %(at)s), 0),
       a.may_overdraw
FROM robosystems.accounts AS a WHERE a.graph_id = {PAYER}
"""  # noqa: S608 - made of a constant of this module
_GRANTS: Final = """
SELECT g.transfer_id, g.source, g.amount, coalesce(p.left_over, 0), g.priority, g.granted_at,
       nullif(g.expires_at, 'infinity')
FROM robosystems.grants AS g
LEFT JOIN (SELECT * FROM robosystems.grant_positions WHERE account_id = %(id)s) AS p USING (transfer_id)
WHERE g.account_id = %(id)s ORDER BY g.granted_at, g.transfer_id
"""


def open_account(
    con: psycopg.Connection[Any], graph_id: str, actor: str, at: datetime, may_overdraw: bool
) -> int:
    """The account of a graph, opened empty if there is none yet; its id. Raises: UsageError: the id can be no name."""
    named(graph_id, "The id of a graph")
    row = con.execute(
        "INSERT INTO robosystems.accounts (name, graph_id, may_overdraw, opened_at, opened_by)"
        " VALUES ('graph:' || %(graph_id)s, %(graph_id)s, %(may_overdraw)s, %(at)s, %(actor)s)"
        " ON CONFLICT (graph_id) DO NOTHING RETURNING id",
        {"graph_id": graph_id, "may_overdraw": may_overdraw, "at": at, "actor": actor},
    ).fetchone()
    if row is not None:
        return row[0]
    found = con.execute("SELECT id FROM robosystems.accounts WHERE graph_id = %s", [graph_id]).fetchone()
    assert found is not None
    return found[0]


def account_id(con: psycopg.Connection[Any], graph_id: str) -> int:
    """Id of the account that pays for a graph.

    Raises:
        UnknownAccountError: there is none.
    """
    row = con.execute(
        f"SELECT id FROM robosystems.accounts WHERE graph_id = {PAYER}".encode(),  # noqa: S608 - as above
        {"graph_id": graph_id},
    ).fetchone()
    if row is None:
        raise unknown(graph_id)
    return row[0]


def balance(con: psycopg.Connection[Any], graph_id: str, at: datetime) -> Balance:
    """What the account that pays for a graph holds. Raises as `account_id` does."""
    row = con.execute(_BALANCE.encode(), {"graph_id": graph_id, "at": at}).fetchone()
    if row is None:
        raise unknown(graph_id)
    return Balance(*row)


def grants(con: psycopg.Connection[Any], graph_id: str) -> list[Grant]:
    """Every grant of the account that pays for a graph, oldest first. Raises as `account_id` does."""
    found = con.execute(_GRANTS, {"id": account_id(con, graph_id)}).fetchall()
    return [Grant(*row) for row in found]


def unknown(graph_id: str) -> UnknownAccountError:
    """The error of a graph that has no account."""
    return UnknownAccountError(
        f"Graph {shown(graph_id)} has no credit account: it gets one when it is provisioned, or by `quayside credits open`."
    )


def short(found: Balance, amount: Decimal) -> str:
    """The sentence that says how far the credits of an account go."""
    held = f", {found.held.normalize():f} of them held" if found.held else ""
    return (
        f"Graph {found.graph_id} has {max(found.available, Decimal(0)).normalize():f} credits to spend "
        f"(balance {found.balance.normalize():f}{held}) and this costs {amount.normalize():f}: grant or buy credits, "
        "or let the graph overdraw."
    )
