"""``quayside credits bill … price``: billing for a period, its invoices and prices, and whom usage is charged to."""

from __future__ import annotations

from dataclasses import asdict
from decimal import Decimal
from typing import Annotated

import typer

from quayside.cli.credits_options import DryRun, Graph, Json, Month, books, in_usd, last_month, moment, show

app = typer.Typer(add_completion=False)
bill_app = typer.Typer(
    help="Run a part of billing for a period; again changes nothing.", no_args_is_help=True
)
app.add_typer(bill_app, name="bill")


@bill_app.command("storage")
def bill_storage(
    day: Annotated[str | None, typer.Option(help="YYYY-MM-DD. Left out: yesterday, UTC.")] = None,
    until: Annotated[str | None, typer.Option(help="Last day of a range.")] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Bill the storage of a day or of a range of days."""
    from datetime import timedelta

    from quayside.robosystems import billing
    from quayside.robosystems.periods import parse_day, utc_now

    first = parse_day(day) if day else utc_now().date() - timedelta(days=1)
    with books() as con:
        show(billing.bill_storage(con, first, parse_day(until) if until else None, dry_run=dry_run), as_json)


@bill_app.command("overage")
def bill_overage(month: Month = None, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Invoice the debts of a month that is over, by default the last, without the prices of plans."""
    from quayside.robosystems import billing

    with books() as con:
        show(billing.bill_overage(con, last_month(month), dry_run=dry_run), as_json)


@bill_app.command("invoices")
def bill_invoices(
    month: Month = None,
    since: Annotated[
        str | None,
        typer.Option(help="First month whose fees are billed if they are not. Left out: the one before."),
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Invoice a month that is over, by default the last: debts and plans, one invoice per customer."""
    from quayside.robosystems import billing
    from quayside.robosystems.periods import parse_month

    with books() as con:
        first = parse_month(since) if since else None
        show(billing.bill_month(con, last_month(month), since=first, dry_run=dry_run), as_json)


@bill_app.command("allowances")
def bill_allowances(
    month: Month = None,
    until: Annotated[str | None, typer.Option(help="Last month of a range, YYYY-MM.")] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Give the allowances of a month, by default this one."""
    from quayside.robosystems import billing
    from quayside.robosystems.periods import month_of, parse_month, utc_now

    first = parse_month(month) if month else month_of(utc_now())
    with books() as con:
        show(billing.allocate(con, first, parse_month(until) if until else None, dry_run=dry_run), as_json)


@bill_app.command("expiry")
def bill_expiry(dry_run: DryRun = False, as_json: Json = False) -> None:
    """Let lapsed grants expire and overdue reservations end."""
    from quayside.robosystems import billing

    with books() as con:
        show(billing.expire_credits(con, dry_run=dry_run), as_json)


@bill_app.command("events")
def bill_events(dry_run: DryRun = False, as_json: Json = False) -> None:
    """Charge the usage events that are not charged yet."""
    from quayside.robosystems.usage import meter

    with books() as con:
        show(meter(con, dry_run=dry_run), as_json)


@app.command()
def assign(
    subject: Annotated[str, typer.Argument(help="Whom usage events are counted for.")], graph: Graph
) -> None:
    """Let a graph's account pay for a subject of usage events."""
    from quayside.robosystems.usage import assign_subject

    with books() as con:
        assign_subject(con, subject, graph)
    typer.echo(f"Graph {graph} pays for {subject}.")


@app.command()
def gaps(
    day: Annotated[str, typer.Option(help="First day, YYYY-MM-DD.")],
    until: Annotated[str | None, typer.Option(help="Last day. Left out: the first.")] = None,
    as_json: Json = False,
) -> None:
    """Hours in which subscribed graphs were not measured."""
    from quayside.robosystems import usage
    from quayside.robosystems.periods import parse_day, utc_now

    first = parse_day(day)
    with books() as con:
        show(usage.gaps(con, first, parse_day(until) if until else first, until=utc_now()), as_json)


@app.command()
def invoices(
    customer: Annotated[str | None, typer.Option(help="Of one customer.")] = None,
    state: Annotated[str | None, typer.Option(help="draft, open, paid, void or uncollectible.")] = None,
    as_json: Json = False,
) -> None:
    """Invoices, newest first."""
    from quayside.robosystems import billing

    with books() as con:
        show(billing.invoices(con, customer, state), as_json)  # pyright: ignore[reportArgumentType] - an unknown one finds none


@app.command()
def invoice(
    number: Annotated[str, typer.Argument(help="As in 2026-000001.")],
    as_json: Json = False,
) -> None:
    """An invoice with its lines."""
    from quayside.foundation import console
    from quayside.robosystems import billing

    with books() as con:
        found = billing.get_invoice(con, number)
        lines = billing.invoice_lines(con, found.invoice_id)
    if as_json:
        console.show_json(asdict(found) | {"lines": lines})
        return
    due = f", due on {found.due_on}" if found.state == "open" else ""
    typer.echo(f"Invoice {found.number} to {found.customer_id} is {found.state}{due}.")
    console.show(
        [
            *(
                {**line, "period": f"{line['period']:%Y-%m}", "usd": in_usd(line["amount_cents"])}
                for line in lines
            ),
            {"description": "Total", "usd": in_usd(found.total_cents)},
        ],
        columns=("period", "description", "quantity", "unit_usd", "usd"),
    )


@app.command()
def pay(
    number: Annotated[str, typer.Argument(help="As in 2026-000001.")],
    reference: Annotated[str, typer.Option(help="What paid it.")],
    as_json: Json = False,
) -> None:
    """Note that an invoice was paid."""
    from quayside.robosystems import billing

    with books() as con:
        show(billing.pay(con, number, reference), as_json)


@app.command("write-off")
def write_off(
    number: Annotated[str, typer.Argument(help="As in 2026-000001.")], as_json: Json = False
) -> None:
    """Give an open invoice up as uncollectible; it may still be paid."""
    from quayside.robosystems import billing

    with books() as con:
        show(billing.write_off(con, number), as_json)


@app.command()
def prices(as_json: Json = False) -> None:
    """Every version of every price, and the plans as they are now."""
    from quayside.foundation import console
    from quayside.robosystems import plans

    with books() as con:
        found, known = plans.prices(con), [asdict(plan) for plan in plans.plans(con)]
    if as_json:
        console.show_json({"prices": found, "plans": known})
        return
    console.show(found)
    typer.echo()
    console.show(known)


@app.command()
def price(
    code: Annotated[str, typer.Argument(help="overage.credit_usd, storage.gb_day or event.<kind>.")],
    value: Annotated[str, typer.Argument()],
    since: Annotated[str | None, typer.Option(help="From when it holds, UTC. Left out: from now on.")] = None,
) -> None:
    """Set a price from a moment on. What was billed before stays."""
    from quayside.foundation.errors import UsageError
    from quayside.robosystems import plans
    from quayside.robosystems.names import shown

    try:
        exact = Decimal(value)
    except ArithmeticError:
        raise UsageError(f"{shown(value)} is not a number.") from None
    with books() as con:
        plans.set_price(con, code, exact, moment(since) if since else None)
    typer.echo(f"{code} is {exact:f} from {since or 'now'} on.")
