"""``quayside credits provision``: customers' subscriptions from order to end, their graphs and backups."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import psycopg

    from quayside.foundation.settings import Settings
    from quayside.robosystems.graphs import GraphStore
    from quayside.robosystems.subscriptions import Subscription, Subscriptions

app = typer.Typer(
    help="Subscriptions and their graphs: order, paid, run, cancel, retry, backup, restore …",
    no_args_is_help=True,
    add_completion=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Id = Annotated[str, typer.Argument(help="Id of a subscription.")]
GraphId = Annotated[str, typer.Argument(help="Id of a graph.")]
Reason = Annotated[str, typer.Option(help="Kept in the history.")]


@contextmanager
def open_database() -> Iterator[tuple[Settings, psycopg.Connection[Any]]]:
    """The settings, and an autocommit connection to a database whose schemas are what this code needs."""
    import psycopg

    from quayside.foundation.errors import UsageError, sentence
    from quayside.foundation.logs import configure
    from quayside.foundation.migrations import SCHEMA as FOUNDATION
    from quayside.foundation.postgres import connect, ensure_schema
    from quayside.foundation.settings import load_settings
    from quayside.robosystems.schema import SCHEMA

    settings = load_settings()
    configure(settings.log_format)
    for schema in (FOUNDATION, SCHEMA):
        ensure_schema(settings, schema)
    with connect(settings, autocommit=True) as con:
        try:
            yield settings, con
        except (psycopg.DataError, psycopg.errors.ProgramLimitExceeded) as error:
            raise UsageError(f"The database takes no such value: {sentence(error)}.") from error


@contextmanager
def _subscriptions() -> Iterator[Subscriptions]:
    from quayside.robosystems.subscriptions import Subscriptions

    with open_database() as (_, con):
        yield Subscriptions(con)


def _graphs(settings: Settings) -> GraphStore:
    from quayside.robosystems.graphs import GraphStore

    return GraphStore(settings.graphs_path)


def _say(subscription: Subscription) -> None:
    graph = f", graph {subscription.graph_id}" if subscription.graph_id else ""
    ends = subscription.ends_at if subscription.state == "canceled" else None
    until = f" and runs until {ends:%Y-%m-%d %H:%M} UTC" if ends else ""
    typer.echo(
        f"Subscription {subscription.subscription_id} is {subscription.state} ({subscription.plan}{graph}){until}."
    )


@app.command()
def customer(
    customer_id: Annotated[str, typer.Argument(help="Id of the customer.")],
    name: Annotated[str, typer.Option(help="As it stands on invoices.")],
    email: str | None = None,
    terms: Annotated[str, typer.Option(help="immediate, net_15, net_30, net_60 or net_90.")] = "net_30",
) -> None:
    """Add a customer, or change name, e-mail address and terms of one."""
    from quayside.foundation import audit
    from quayside.foundation.errors import UsageError
    from quayside.robosystems.names import named

    known = ("immediate", "net_15", "net_30", "net_60", "net_90")
    if terms not in known:
        raise UsageError(f"A customer needs terms that are one of {', '.join(known)}.")
    named(customer_id, "The id of a customer")
    named(name, "The name of a customer")
    if email is not None:
        named(email, "The e-mail address of a customer")
    with open_database() as (_, con), con.transaction():
        con.execute(
            "INSERT INTO robosystems.customers AS c (customer_id, name, email, payment_terms) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (customer_id) DO UPDATE SET name = excluded.name, email = coalesce(excluded.email, c.email),"
            " payment_terms = excluded.payment_terms",
            [customer_id, name, email, terms],
        )
        audit.record(con, audit.actor(), "save", "customer", customer_id, {"terms": terms})
    typer.echo(f"Customer {customer_id} is saved.")


@app.command()
def order(
    customer_id: Annotated[str, typer.Argument(help="Id of the customer.")],
    plan: Annotated[str, typer.Argument(help="standard, large, xlarge; of a repository: starter …")],
    name: Annotated[str, typer.Option(help="Name of the graph.")] = "",
    kind: Annotated[str, typer.Option(help="generic or entity.")] = "generic",
    repository: Annotated[
        str | None, typer.Option(help="Access to this shared repository instead of a graph.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Who reads the repository.")] = None,
    fees: Annotated[
        str, typer.Option(help="The plan's monthly price: invoiced, or paid elsewhere.")
    ] = "invoiced",
    subscription_id: Annotated[
        str | None, typer.Option("--id", help="The same id again orders nothing new.")
    ] = None,
    overdraw: Annotated[bool, typer.Option("--overdraw", help="Its credits may go below 0.")] = False,
) -> None:
    """Order a graph, or access to a shared repository; nothing happens before it is paid."""
    from quayside.foundation.errors import UsageError
    from quayside.robosystems.graphs import SCHEMAS
    from quayside.robosystems.names import named

    if kind not in SCHEMAS:
        raise UsageError(f"There is no kind of graph {kind!r}: there are {', '.join(sorted(SCHEMAS))}.")
    if (repository is None) != (user is None):
        raise UsageError("Access to a repository needs --repository and --user.")
    if name:
        named(name, "The name of a graph")
    request: dict[str, Any] = {"may_overdraw": overdraw}
    if repository is None:
        request |= {"name": name, "kind": kind}
    else:
        request |= {"repository": repository, "user": user}
    with _subscriptions() as subscriptions:
        _say(
            subscriptions.create(
                customer_id,
                plan,
                subscription_id=subscription_id,
                resource_type="graph" if repository is None else "repository",
                request=request,
                invoiced=_invoiced(fees),
            )
        )


@app.command()
def repository(
    repository_id: Annotated[str, typer.Argument(help="Its id, as in sec.")],
    owner: Annotated[str, typer.Option(help="The customer it belongs to.")],
    name: Annotated[str, typer.Option(help="For people.")] = "",
    schema: Annotated[str, typer.Option(help="generic or entity.")] = "generic",
) -> None:
    """Make a shared repository: a graph that many users read, each with a plan and credits."""
    from quayside.robosystems.provisioning import make_repository

    with open_database() as (settings, con):
        made = make_repository(con, _graphs(settings), repository_id, owner, name=name, schema=schema)
    typer.echo(f"Repository {repository_id} {'was made' if made else 'is there already'}.")


@app.command()
def access(
    repository_id: Annotated[str | None, typer.Argument(help="Left out: all repositories.")] = None,
    as_json: Json = False,
) -> None:
    """Who has access to shared repositories now."""
    from quayside.foundation import console
    from quayside.robosystems.provisioning import readers

    with open_database() as (_, con):
        rows = readers(con, repository_id)
    (console.show_json if as_json else console.show)(rows)


@app.command()
def fees(
    subscription_id: Id,
    where: Annotated[str, typer.Argument(help="invoiced or elsewhere.")],
    since: Annotated[
        datetime | None,
        typer.Option("--from", formats=["%Y-%m-%d"], help="First day that is invoiced; left out: today."),
    ] = None,
) -> None:
    """Say whether the plan's monthly price is invoiced, and from which day on."""
    from quayside.robosystems.periods import utc_now

    first = (since or utc_now()).date() if _invoiced(where) else None
    with _subscriptions() as subscriptions:
        subscriptions.invoice_fees(subscription_id, first)
    typer.echo(
        f"Fees of subscription {subscription_id} are {f'invoiced from {first} on' if first else 'paid elsewhere'}."
    )


def _invoiced(fees: str) -> bool:
    from quayside.foundation.errors import UsageError

    if fees not in ("invoiced", "elsewhere"):
        raise UsageError(f"Fees are invoiced or paid elsewhere, not {fees!r}: write invoiced or elsewhere.")
    return fees == "invoiced"


@app.command()
def paid(subscription_id: Id) -> None:
    """Say that it is paid: pending_subscription_sensor makes its graph, or `run` here."""
    with _subscriptions() as subscriptions:
        _say(subscriptions.paid(subscription_id))


@app.command()
def run(subscription_id: Id) -> None:
    """Make the graph of a paid subscription now, without Dagster; again, it goes on where it stopped."""
    from quayside.robosystems.provisioning import Provisioner, provision

    with open_database() as (settings, con):
        provisioner = Provisioner(settings, con, _graphs(settings))
        provision(provisioner, provisioner.begin(subscription_id))
        _say(provisioner.subscriptions.get(subscription_id))


@app.command(name="list")
def list_subscriptions(
    state: Annotated[str | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the latest first.")] = 50,
    as_json: Json = False,
) -> None:
    """Subscriptions with state, plan, graph, attempts and the last error."""
    from typing import get_args

    from quayside.foundation import console
    from quayside.foundation.errors import UsageError
    from quayside.robosystems.subscriptions import State

    if state is not None and state not in get_args(State):
        raise UsageError(f"{state!r} is no state of a subscription: it is {', '.join(get_args(State))}.")
    with open_database() as (_, con):
        names = (
            "subscription_id",
            "customer_id",
            "plan",
            "state",
            "state_at",
            "graph_id",
            "attempt",
            "last_error",
        )
        rows = con.execute(
            f"SELECT {', '.join(names)} FROM robosystems.subscriptions"  # noqa: S608 - names of this function
            " WHERE state = coalesce(%s, state) ORDER BY created_at DESC, subscription_id LIMIT %s".encode(),
            [state, limit],
        ).fetchall()
    found: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in rows]
    (console.show_json if as_json else console.show)(found)


@app.command()
def history(subscription_id: Id, as_json: Json = False) -> None:
    """Every state it was in: when, by whom, why."""
    from quayside.foundation import console

    with _subscriptions() as subscriptions:
        subscriptions.get(subscription_id)
        rows = [asdict(each) for each in subscriptions.history(subscription_id)]
    (console.show_json if as_json else console.show)(rows)


@app.command()
def plan(
    subscription_id: Id,
    name: Annotated[str, typer.Argument(help="The plan from then on.")],
    effective_at: Annotated[
        datetime | None,
        typer.Option("--from", formats=["%Y-%m-%dT%H:%M", "%Y-%m-%d"], help="UTC; left out: now."),
    ] = None,
) -> None:
    """Change the plan, now or from a moment on; a larger one brings its credits for the rest of the month."""
    from datetime import UTC

    from quayside.robosystems.billing import apply_upgrades

    moment = None if effective_at is None else effective_at.replace(tzinfo=UTC)
    with _subscriptions() as subscriptions:
        apply_upgrades(subscriptions.connection)  # what others wait for is none of what this one brings
        changed = subscriptions.change_plan(subscription_id, name, effective_at=moment)
        brought = apply_upgrades(subscriptions.connection).credits
    _say(changed)
    if moment is not None and changed.plan != name:
        typer.echo(f"It changes to {name} at {moment:%Y-%m-%d %H:%M} UTC.")
    if brought:
        typer.echo(f"The larger plan brings {brought.normalize():f} credits for the rest of the month.")


@app.command()
def pause(subscription_id: Id, reason: Reason = "") -> None:
    """Keep the graph, give no allowance."""
    with _subscriptions() as subscriptions:
        _say(subscriptions.pause(subscription_id, reason))


@app.command()
def resume(subscription_id: Id, reason: Reason = "") -> None:
    """Back to active, from paused or from canceled while it runs."""
    with _subscriptions() as subscriptions:
        _say(subscriptions.resume(subscription_id, reason))


@app.command()
def past_due(subscription_id: Id, reason: Reason = "payment failed") -> None:
    """A payment failed: no allowances until it is paid."""
    with _subscriptions() as subscriptions:
        _say(subscriptions.past_due(subscription_id, reason))


@app.command()
def cancel(
    subscription_id: Id,
    ends_at: Annotated[
        datetime | None,
        typer.Option("--at", formats=["%Y-%m-%dT%H:%M", "%Y-%m-%d"], help="UTC; left out: at once."),
    ] = None,
    reason: Reason = "",
) -> None:
    """Cancel: when it ends, ending_subscription_sensor backs the graph up and removes it, or `end` here."""
    from datetime import UTC

    moment = None if ends_at is None else ends_at.replace(tzinfo=UTC)
    with _subscriptions() as subscriptions:
        _say(subscriptions.cancel(subscription_id, ends_at=moment, reason=reason))


@app.command()
def end(subscription_id: Id) -> None:
    """Back up and remove the graph of a canceled subscription whose end has come, without Dagster."""
    from quayside.robosystems.provisioning import end_subscription
    from quayside.robosystems.storage import object_store
    from quayside.robosystems.subscriptions import Subscriptions

    with open_database() as (settings, con):
        backup = end_subscription(con, _graphs(settings), object_store(settings), subscription_id)
        _say(Subscriptions(con).get(subscription_id))
    if backup is not None:
        typer.echo(f"Last backup: {backup.key} ({backup.size_bytes:,} bytes).")


@app.command()
def retry(subscription_id: Id, reason: Reason = "") -> None:
    """Try a failed subscription again, with five attempts of its own."""
    with _subscriptions() as subscriptions:
        _say(subscriptions.retry(subscription_id, reason))


@app.command()
def backup(graph_id: GraphId) -> None:
    """Back a graph up to the object store, while it is read and written."""
    from quayside.foundation.settings import load_settings
    from quayside.robosystems.graphs.backup import back_up
    from quayside.robosystems.storage import object_store

    settings = load_settings()
    made = back_up(_graphs(settings), object_store(settings), graph_id)
    typer.echo(f"Backup {made.backup_id} of graph {graph_id}: {made.size_bytes:,} bytes.")


@app.command()
def backups(graph_id: GraphId, as_json: Json = False) -> None:
    """The backups of a graph, oldest first."""
    from quayside.foundation import console
    from quayside.foundation.settings import load_settings
    from quayside.robosystems.graphs import backup as module
    from quayside.robosystems.storage import object_store

    names = ("backup_id", "created_at", "size_bytes", "sha256", "engine")
    found = [asdict(each) for each in module.backups(object_store(load_settings()), graph_id)]
    rows = [{name: each[name] for name in names} for each in found]
    (console.show_json if as_json else console.show)(rows)


@app.command()
def restore(
    graph_id: GraphId,
    backup_id: Annotated[str | None, typer.Option("--backup", help="Left out: the last one.")] = None,
    into: Annotated[str | None, typer.Option(help="Another graph, which may not be there yet.")] = None,
) -> None:
    """Put a backup in the place of its graph, once it was found to be whole."""
    from quayside.foundation.settings import load_settings
    from quayside.robosystems.graphs.backup import restore as put_back
    from quayside.robosystems.storage import object_store

    settings = load_settings()
    done = put_back(_graphs(settings), object_store(settings), graph_id, backup_id=backup_id, into=into)
    typer.echo(f"Graph {into or graph_id} is as backup {done.backup_id} of {done.created_at} has it.")
