"""``quayside credits``: balances, statements, grants, reports and health, without Dagster; billing is in `credits_bill`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quayside.cli import credits_bill, keys, provision
from quayside.cli.credits_options import Graph, Json, Month, books, in_usd, last_month, moment, show

if TYPE_CHECKING:
    from quayside.robosystems.ledger import Ledger

app = typer.Typer(
    help="Credits of graphs: balance, statement, grant, void, bill, invoices, report, health.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(credits_bill.app)
app.add_typer(provision.app, name="provision")
app.add_typer(keys.app, name="keys")

Key = Annotated[
    str | None,
    typer.Option(
        help="Names this unit of work: the same key again changes nothing. Left out: one of its own."
    ),
]


@contextmanager
def _ledger() -> Iterator[Ledger]:
    from quayside.robosystems.ledger import Ledger

    with books() as con:
        yield Ledger(con)


def _key(key: str | None) -> str:
    import secrets

    from quayside.robosystems.names import named

    return f"cli:{secrets.token_hex(8)}" if key is None else named(key, "A key")


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
    show(held, False)
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
        begin = moment(since) if since else start_of(month_of(utc_now()))
        end = moment(until) if until else utc_now()
    formats = {".csv": "csv", ".parquet": "parquet", ".html": "html"}
    if out is not None and out.suffix not in formats:
        raise UsageError(f"{out} has to end in .csv, .parquet or .html.")
    with books() as con:
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
            expires_at=moment(expires) if expires else None,
        )
    show(done, as_json)


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
        show(ledger.adjust(graph, change, key=_key(key), reason=reason), as_json)


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
        show(ledger.transfer(from_graph, to_graph, amount, key=_key(key)), as_json)


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
            show(ledger.void(int(number), reason=reason), as_json)
        else:
            show(void_invoice(ledger.connection, number, reason), as_json)


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
        show(ledger.refund(number, amount, key=None if key is None else _key(key), reason=reason), as_json)


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
    from quayside.robosystems.reports.monthly import MOVEMENTS
    from quayside.robosystems.storage import object_store

    objects = object_store(load_settings())

    def upload(file: Any, key: str) -> str:
        objects.put(key, file.read())
        return f"{objects.url.rstrip('/')}/{key}"

    with books() as con:
        stored = store(con, usage_report(con, last_month(month), now=utc_now()), upload)
    if as_json:
        console.show_json({"url": stored.url, "sha256": stored.sha256, "rows": list(stored.report.rows)})
        return
    money = {"overage_cents": "debts_usd", "fee_cents": "fees_usd", "voided_cents": "voided_usd"}
    console.show(
        [
            {**row, **{shown: in_usd(row[name]) for name, shown in money.items()}}
            for row in stored.report.rows
        ],
        columns=("graph_id", "opening", *MOVEMENTS, "closing", *money.values()),
    )
    typer.echo(f"\n{stored.url}")


@app.command()
def health(as_json: Json = False) -> None:
    """Check the books and what surrounds them; red findings end with exit code 1."""
    from quayside.foundation import console
    from quayside.robosystems.health import check_health
    from quayside.robosystems.periods import utc_now

    with books() as con:
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
