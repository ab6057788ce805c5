"""``quayside credits``: balances, statements, grants, billing, invoices, reports and health, without Dagster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quayside.cli import keys, provision

if TYPE_CHECKING:
    import psycopg

    from quayside.robosystems.ledger import Ledger

app = typer.Typer(
    help="Credits of graphs: balance, statement, grant, void, bill, invoices, report, health.",
    no_args_is_help=True,
    add_completion=False,
)
bill_app = typer.Typer(
    help="Run a part of billing for a period; again changes nothing.", no_args_is_help=True
)
app.add_typer(bill_app, name="bill")
app.add_typer(provision.app, name="provision")
app.add_typer(keys.app, name="keys")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Graph = Annotated[str, typer.Argument(help="Id of a graph; a subgraph's parent pays.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")]
Month = Annotated[str | None, typer.Option(help="YYYY-MM.")]
Key = Annotated[
    str | None,
    typer.Option(
        help="Names this unit of work: the same key again changes nothing. Left out: one of its own."
    ),
]


@contextmanager
def _books() -> Iterator[psycopg.Connection[Any]]:
    with provision.open_database() as (_, con):
        yield con


@contextmanager
def _ledger() -> Iterator[Ledger]:
    from quayside.robosystems.ledger import Ledger

    with _books() as con:
        yield Ledger(con)


def _key(key: str | None) -> str:
    import secrets

    from quayside.robosystems.names import named

    return f"cli:{secrets.token_hex(8)}" if key is None else named(key, "A key")


def _show(result: Any, as_json: bool) -> None:
    from quayside.foundation import console

    rows = [asdict(each) for each in result] if isinstance(result, list) else [asdict(result)]
    if as_json:
        console.show_json(rows if isinstance(result, list) else rows[0])
    elif isinstance(result, list):
        console.show(rows)
    else:
        console.show([{"": name, "value": value} for name, value in rows[0].items()])


def _usd(cents: int) -> Decimal:
    return Decimal(cents).scaleb(-2)


def _moment(text: str) -> datetime:
    from quayside.robosystems.periods import parse_moment

    return parse_moment(text)


@app.command("open")
def open_account(
    graph: Graph,
    overdraft: Annotated[bool, typer.Option("--overdraft", help="Consumption may take it below 0.")] = False,
) -> None:
    """Open the account of a graph; one that is open stays as it is."""
    with _ledger() as ledger:
        ledger.open_account(graph, may_overdraw=overdraft)
    typer.echo(f"The account of graph {graph} is open.")


@app.command()
def balance(
    graph: Annotated[str | None, typer.Argument(help="Left out: every account, the system's too.")] = None,
    as_json: Json = False,
) -> None:
    """What an account holds, and the grants it consists of."""
    from quayside.foundation import console

    with _ledger() as ledger:
        if graph is None:
            names = ("name", "graph_id", "balance")
            found = ledger.connection.execute(
                "SELECT name, graph_id, balance FROM robosystems.balances ORDER BY id"
            ).fetchall()
            console.show([dict(zip(names, row, strict=True)) for row in found], as_json=as_json)
            return
        held, grants = ledger.balance(graph), ledger.grants(graph)
    if as_json:
        console.show_json(asdict(held) | {"grants": [asdict(grant) for grant in grants]})
        return
    _show(held, False)
    typer.echo()
    console.show([asdict(grant) for grant in grants if grant.left_over])


@app.command()
def statement(
    graph: Graph,
    since: Annotated[
        str | None, typer.Option(help="First moment, UTC. Left out: the start of this month.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="First moment after it, UTC. Left out: now.")] = None,
    month: Month = None,
    out: Annotated[
        Path | None, typer.Option(help="Write a file instead: .csv, .parquet or .html by its ending.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The statement of an account: opening balance, every movement, closing balance."""
    from quayside.foundation import console
    from quayside.foundation.errors import UsageError
    from quayside.robosystems.periods import month_of, next_month, parse_month, start_of, utc_now
    from quayside.robosystems.reports import render
    from quayside.robosystems.reports import statement as make

    if month is not None and (since is not None or until is not None):
        raise UsageError("Give a month, or moments, not both.")
    if month is not None:
        first = parse_month(month)
        begin, end = start_of(first), start_of(next_month(first))
    else:
        begin = _moment(since) if since else start_of(month_of(utc_now()))
        end = _moment(until) if until else utc_now()
    formats = {".csv": "csv", ".parquet": "parquet", ".html": "html"}
    if out is not None and out.suffix not in formats:
        raise UsageError(f"{out} has to end in .csv, .parquet or .html.")
    with _books() as con:
        found = make(con, graph, begin, end)
    if out is not None:
        content = render(found, formats[out.suffix])  # pyright: ignore[reportArgumentType] - one of the three
        try:
            out.write_bytes(content)
        except OSError as error:
            raise UsageError(f"{out} cannot be written: {error.strerror}.") from None
        typer.echo(f"{out}: {len(found.lines)} lines.")
    elif as_json:
        console.show_json(
            {
                "graph_id": found.graph_id,
                "since": found.since,
                "until": found.until,
                "opening": found.opening,
                "closing": found.closing,
                "lines": found.rows(),
            }
        )
    else:
        typer.echo(f"Graph {found.graph_id}, {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC")
        console.show(
            [
                {"description": "Opening balance", "balance": found.opening},
                *found.rows(),
                {"description": "Closing balance", "balance": found.closing},
            ],
            columns=("number", "booked", "effective", "description", "change", "balance"),
        )


@app.command()
def grant(
    graph: Graph,
    amount: Annotated[str, typer.Argument(help="Credits.")],
    source: Annotated[str, typer.Option(help="promotion, purchase or adjustment.")] = "promotion",
    priority: Annotated[int, typer.Option(help="0 to 100; the lowest is drawn first.")] = 50,
    expires: Annotated[str | None, typer.Option(help="When it expires, UTC. Left out: never.")] = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Give credits to a graph."""
    from quayside.foundation.errors import UsageError

    if source not in ("promotion", "purchase", "adjustment"):
        raise UsageError(f"A grant by hand is a promotion, a purchase or an adjustment, not {source!r}.")
    with _ledger() as ledger:
        done = ledger.grant(
            graph,
            amount,
            key=_key(key),
            source=source,  # pyright: ignore[reportArgumentType] - one of the three
            priority=priority,
            expires_at=_moment(expires) if expires else None,
        )
    _show(done, as_json)


@app.command()
def adjust(
    graph: Graph,
    change: Annotated[str, typer.Option(help="Credits, with a minus to take them.")],
    reason: Annotated[str, typer.Option(help="Why; it is kept with the transfer.")],
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Correct an account by hand."""
    from quayside.robosystems.names import named

    named(reason, "The reason")
    with _ledger() as ledger:
        _show(ledger.adjust(graph, change, key=_key(key), reason=reason), as_json)


@app.command()
def transfer(
    from_graph: Graph,
    to_graph: Graph,
    amount: Annotated[str, typer.Argument(help="Credits.")],
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Move credits from one graph to another."""
    with _ledger() as ledger:
        _show(ledger.transfer(from_graph, to_graph, amount, key=_key(key)), as_json)


@app.command()
def void(
    number: Annotated[str, typer.Argument(help="A transfer's number, or an invoice's (2026-000001).")],
    reason: Annotated[str, typer.Option(help="Why; it is kept.")],
    as_json: Json = False,
) -> None:
    """Undo a transfer by the opposite one, or void an invoice and what it cleared."""
    from quayside.robosystems.billing import void_invoice
    from quayside.robosystems.names import named

    named(reason, "The reason")
    with _ledger() as ledger:
        if number.isdigit():
            _show(ledger.void(int(number), reason=reason), as_json)
        else:
            _show(void_invoice(ledger.connection, number, reason), as_json)


@app.command()
def refund(
    number: Annotated[int, typer.Argument(help="Number of the transfer that consumed.")],
    amount: Annotated[str | None, typer.Option(help="Credits. Left out: all that is left of it.")] = None,
    reason: Annotated[str, typer.Option(help="Why; it is kept.")] = "",
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Give consumed credits back."""
    with _ledger() as ledger:
        _show(ledger.refund(number, amount, key=None if key is None else _key(key), reason=reason), as_json)


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
    with _books() as con:
        _show(billing.bill_storage(con, first, parse_day(until) if until else None, dry_run=dry_run), as_json)


@bill_app.command("overage")
def bill_overage(month: Month = None, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Invoice the debts of a month that is over, by default the last, without the prices of plans."""
    from quayside.robosystems import billing

    with _books() as con:
        _show(billing.bill_overage(con, _last_month(month), dry_run=dry_run), as_json)


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

    with _books() as con:
        first = parse_month(since) if since else None
        _show(billing.bill_month(con, _last_month(month), since=first, dry_run=dry_run), as_json)


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
    with _books() as con:
        _show(billing.allocate(con, first, parse_month(until) if until else None, dry_run=dry_run), as_json)


@bill_app.command("expiry")
def bill_expiry(dry_run: DryRun = False, as_json: Json = False) -> None:
    """Let lapsed grants expire and overdue reservations end."""
    from quayside.robosystems import billing

    with _books() as con:
        _show(billing.expire_credits(con, dry_run=dry_run), as_json)


@bill_app.command("events")
def bill_events(dry_run: DryRun = False, as_json: Json = False) -> None:
    """Charge the usage events that are not charged yet."""
    from quayside.robosystems.usage import meter

    with _books() as con:
        _show(meter(con, dry_run=dry_run), as_json)


@app.command()
def assign(
    subject: Annotated[str, typer.Argument(help="Whom usage events are counted for.")], graph: Graph
) -> None:
    """Let a graph's account pay for a subject of usage events."""
    from quayside.robosystems.usage import assign_subject

    with _books() as con:
        assign_subject(con, subject, graph)
    typer.echo(f"Graph {graph} pays for {subject}.")


@app.command()
def prices(as_json: Json = False) -> None:
    """Every version of every price, and the plans as they are now."""
    from quayside.foundation import console
    from quayside.robosystems import plans

    with _books() as con:
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
    with _books() as con:
        plans.set_price(con, code, exact, _moment(since) if since else None)
    typer.echo(f"{code} is {exact:f} from {since or 'now'} on.")


@app.command()
def invoices(
    customer: Annotated[str | None, typer.Option(help="Of one customer.")] = None,
    state: Annotated[str | None, typer.Option(help="draft, open, paid, void or uncollectible.")] = None,
    as_json: Json = False,
) -> None:
    """Invoices, newest first."""
    from quayside.robosystems import billing

    with _books() as con:
        _show(billing.invoices(con, customer, state), as_json)  # pyright: ignore[reportArgumentType] - an unknown one finds none


@app.command()
def invoice(
    number: Annotated[str, typer.Argument(help="As in 2026-000001.")],
    as_json: Json = False,
) -> None:
    """An invoice with its lines."""
    from quayside.foundation import console
    from quayside.robosystems import billing

    with _books() as con:
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
                {**line, "period": f"{line['period']:%Y-%m}", "usd": _usd(line["amount_cents"])}
                for line in lines
            ),
            {"description": "Total", "usd": _usd(found.total_cents)},
        ],
        columns=("period", "description", "quantity", "unit_usd", "usd"),
    )


@app.command("write-off")
def write_off(
    number: Annotated[str, typer.Argument(help="As in 2026-000001.")], as_json: Json = False
) -> None:
    """Give an open invoice up as uncollectible; it may still be paid."""
    from quayside.robosystems import billing

    with _books() as con:
        _show(billing.write_off(con, number), as_json)


@app.command()
def pay(
    number: Annotated[str, typer.Argument(help="As in 2026-000001.")],
    reference: Annotated[str, typer.Option(help="What paid it.")],
    as_json: Json = False,
) -> None:
    """Note that an invoice was paid."""
    from quayside.robosystems import billing

    with _books() as con:
        _show(billing.pay(con, number, reference), as_json)


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
    with _books() as con:
        _show(usage.gaps(con, first, parse_day(until) if until else first, until=utc_now()), as_json)


@app.command()
def report(
    month: Month = None,
    as_json: Json = False,
) -> None:
    """The usage report of a month, by default the last: stored as Parquet, and shown."""
    from quayside.foundation import console
    from quayside.foundation.settings import load_settings
    from quayside.robosystems.periods import utc_now
    from quayside.robosystems.reports import store, usage_report
    from quayside.robosystems.storage import object_store

    objects = object_store(load_settings())

    def upload(file: Any, key: str) -> str:
        objects.put(key, file.read())
        return f"{objects.url.rstrip('/')}/{key}"

    with _books() as con:
        stored = store(con, usage_report(con, _last_month(month), now=utc_now()), upload)
    if as_json:
        console.show_json({"url": stored.url, "sha256": stored.sha256, "rows": list(stored.report.rows)})
        return
    console.show(
        stored.report.rows,
        columns=(
            "graph_id",
            "opening",
            "allocated",
            "granted",
            "consumed",
            "refunded",
            "expired",
            "overage",
            "corrected",
            "closing",
        ),
    )
    typer.echo(f"\n{stored.url}")


@app.command()
def health(as_json: Json = False) -> None:
    """Check the books and what surrounds them; red findings end with exit code 1."""
    from quayside.foundation import console
    from quayside.robosystems.health import check_health
    from quayside.robosystems.periods import utc_now

    with _books() as con:
        found = check_health(con, utc_now())
    rows = [
        {
            "check": each.check.name,
            "severity": each.check.severity if each.count else "fine",
            "found": each.count,
            "which": "; ".join(f"{who} {what}".strip() for who, what in each.offenders[:5]),
        }
        for each in found
    ]
    console.show(rows, as_json=as_json)
    if any(each.count and each.check.severity == "red" for each in found):
        raise typer.Exit(1)


def _last_month(text: str | None) -> date:
    from quayside.robosystems.periods import month_of, parse_month, previous_month, utc_now

    return parse_month(text) if text else previous_month(month_of(utc_now()))
