"""What the modules of ``quayside credits`` have in common: options that mean the same in each, the books, and how a result is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quayside.cli.provision import open_database

if TYPE_CHECKING:
    import psycopg

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Graph = Annotated[str, typer.Argument(help="Id of a graph; a subgraph's parent pays.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")]
Month = Annotated[str | None, typer.Option(help="YYYY-MM.")]


@contextmanager
def books() -> Iterator[psycopg.Connection[Any]]:
    """An autocommit connection to the books."""
    with open_database() as (_, con):
        yield con


def show(result: Any, as_json: bool) -> None:
    """Print a result of the domain, or a list of them: as a table, or as JSON."""
    from quayside.foundation import console

    rows = [asdict(each) for each in result] if isinstance(result, list) else [asdict(result)]
    if as_json:
        console.show_json(rows if isinstance(result, list) else rows[0])
    elif isinstance(result, list):
        console.show(rows)
    else:
        console.show([{"": name, "value": value} for name, value in rows[0].items()])


def in_usd(cents: int) -> Decimal:
    """Cents in dollars."""
    return Decimal(cents).scaleb(-2)


def moment(text: str) -> datetime:
    """A moment as it is typed."""
    from quayside.robosystems.periods import parse_moment

    return parse_moment(text)


def last_month(text: str | None) -> date:
    """A month as it is typed, by default the last one."""
    from quayside.robosystems.periods import month_of, parse_month, previous_month, utc_now

    return parse_month(text) if text else previous_month(month_of(utc_now()))
