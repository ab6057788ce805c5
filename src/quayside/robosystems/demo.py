"""The demonstration: two graphs of one customer, a day of storage, and the parties that KYCC has scored, on their accounts.

Everything goes the way it always does; only the sizes of the graphs are made up, and the day before is the day they start. Run again
in the same month it finds everything in the books. The subscriptions end with the month, so nothing is left to look after.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from quayside.robosystems.billing import bill_storage
from quayside.robosystems.graphs import GraphStore
from quayside.robosystems.periods import month_of, next_month, start_of, utc_now
from quayside.robosystems.provisioning import Provisioner, provision
from quayside.robosystems.reports import Statement, statement
from quayside.robosystems.subscriptions import Subscription, Subscriptions
from quayside.robosystems.usage import assign_subject, meter

if TYPE_CHECKING:
    import psycopg

    from quayside.foundation.settings import Settings

CUSTOMER: Final = "demo"
#: Plan → GB that its graph is said to have; the standard one includes 10.
PLANS: Final = {"standard": 15, "large": 30}
#: Whom KYCC's usage events are counted for.
SUBJECT: Final = "kycc"


@dataclass(frozen=True)
class Billed:
    """``storage``: credits for ``day`` by graph; ``parties`` scored and the credits charged for them to graph ``payer``."""

    day: datetime
    storage: dict[str, Decimal]
    parties: int
    charged: Decimal
    payer: str
    statements: dict[str, Statement]


def bill_demo(settings: Settings, con: psycopg.Connection[Any]) -> Billed | None:
    """Make the graphs, or find them, and bill them; `con` is an autocommit connection.

    Returns:
        None where there are other customers, whose books are left alone.
    """
    others = con.execute("SELECT FROM robosystems.customers WHERE customer_id <> %s LIMIT 1", [CUSTOMER])
    if others.fetchone() is not None:
        return None
    today = utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    graphs = {plan: _graph(settings, con, plan, today) for plan in PLANS}
    first = graphs["standard"].activated_at
    assert first is not None
    for graph in graphs.values():
        _measure(con, graph, first)
    bill_storage(con, first.date())
    payer = str(graphs["large"].graph_id)
    assign_subject(con, SUBJECT, payer)
    meter(con)
    ids = [str(each.graph_id) for each in graphs.values()]
    storage = con.execute(
        "SELECT a.graph_id, b.credits FROM robosystems.storage_bills AS b JOIN robosystems.accounts AS a ON a.id = b.account_id"
        " WHERE a.graph_id = ANY(%s) AND b.day = %s",
        [ids, first.date()],
    ).fetchall()
    used = con.execute(
        "SELECT coalesce(sum(e.quantity), 0)::bigint, coalesce(sum(m.credits), 0) FROM robosystems.metered_events AS m"
        " JOIN usage.events AS e USING (source, event_id) JOIN robosystems.accounts AS a ON a.id = m.account_id"
        " WHERE a.graph_id = %s AND m.state = 'billed'",
        [payer],
    ).fetchone()
    assert used is not None
    until = utc_now() + timedelta(seconds=1)
    statements = {graph: statement(con, graph, first, until) for graph in ids}
    return Billed(first, dict(storage), used[0], used[1], payer, statements)


def _graph(settings: Settings, con: psycopg.Connection[Any], plan: str, today: datetime) -> Subscription:
    """The subscription of this month on a plan, with its graph, since the day before."""
    con.execute(
        "INSERT INTO robosystems.customers (customer_id, name) VALUES (%s, 'Demonstration') ON CONFLICT DO NOTHING",
        [CUSTOMER],
    )
    subscriptions, start = Subscriptions(con), today - timedelta(days=1)
    name = f"demo-{today:%Y-%m}-{plan}"
    request = {"name": f"demo {plan}", "kind": "entity"}
    seen = subscriptions.create(
        CUSTOMER, plan, subscription_id=name, request=request, invoiced=False, at=start
    )
    if seen.state in ("pending", "provisioning"):
        subscriptions.paid(name, at=start)
        provisioner = Provisioner(settings, con, GraphStore(settings.graphs_path), at=start)
        provision(provisioner, provisioner.begin(name))
    if subscriptions.get(name).state == "active":
        subscriptions.cancel(
            name, ends_at=start_of(next_month(month_of(today))), reason="the demonstration is over"
        )
    return subscriptions.get(name)


def _measure(con: psycopg.Connection[Any], graph: Subscription, day: datetime) -> None:
    con.execute(
        "INSERT INTO robosystems.usage_snapshots (hour, account_id, files_bytes, tables_bytes, graph_bytes, subgraphs_bytes,"
        " plan, included_gb, measured_at) SELECT %(day)s::timestamptz + n * interval '1 hour', a.id, 0, 0, %(bytes)s, 0, p.plan,"
        " p.included_gb, now() FROM generate_series(0, 23) AS n, robosystems.accounts AS a, robosystems.plans AS p"
        " WHERE a.graph_id = %(graph)s AND p.plan = %(plan)s ON CONFLICT DO NOTHING",
        {"day": day, "bytes": PLANS[graph.plan] << 30, "graph": graph.graph_id, "plan": graph.plan},
    )
