"""A statement of account: what was booked on one graph's account between two moments, line by line with the balance.

Opening balance and movements give the closing balance, and the closing balance of one period opens the next: both follow from
the numbered book of the account, and `statement` refuses to show one that does not.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING, Any, Final, Literal

from quayside.foundation.errors import UsageError
from quayside.robosystems.billing import work
from quayside.robosystems.errors import BooksError
from quayside.robosystems.ledger import accounts
from quayside.robosystems.periods import in_utc

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

Format = Literal["csv", "parquet", "html"]

_OPENING: Final = """
SELECT coalesce((SELECT balance_after FROM robosystems.transfers
                 WHERE account_id = %(id)s AND booked_at < %(since)s ORDER BY seq DESC LIMIT 1), 0)
"""
_LINES: Final = """
SELECT id, booked_at, effective_at, kind, operation, CASE WHEN to_account = account_id THEN amount ELSE -amount END,
       balance_after, key, reverses, actor
FROM robosystems.transfers WHERE account_id = %(id)s AND booked_at >= %(since)s AND booked_at < %(until)s ORDER BY seq
"""
_WORDS: Final = {
    "allowance": "Monthly allowance",
    "grant": "Credits granted",
    "rollover": "Unused credits carried over",
    "overage": "Debt invoiced",
    "storage": "Storage above the plan",
    "consumption": "Used",
    "expiry": "Credits expired",
    "adjustment": "Correction",
    "refund": "Refund",
    "void": "Undone",
}
COLUMNS: Final = ("number", "booked", "effective", "description", "change", "balance")


@dataclass(frozen=True)
class Line:
    """One transfer as the account saw it; ``change`` is negative for what left it."""

    number: int
    booked: datetime
    effective: datetime
    kind: str
    operation: str
    change: Decimal
    balance: Decimal
    key: str
    reverses: int | None
    actor: str

    @property
    def description(self) -> str:
        """In words for a customer."""
        said = _WORDS[self.kind]
        if self.reverses is not None:
            return f"{said}: number {self.reverses}"
        return f"{said}: {self.operation}" if self.operation not in ("", self.kind) else said


@dataclass(frozen=True)
class Statement:
    """What was booked from ``since`` (included) to ``until`` (excluded)."""

    graph_id: str
    since: datetime
    until: datetime
    opening: Decimal
    closing: Decimal
    lines: tuple[Line, ...]

    def rows(self) -> list[dict[str, Any]]:
        """As a table, one row per line, in the order of `COLUMNS`."""
        return [{name: getattr(line, name) for name in COLUMNS} for line in self.lines]

    def totals(self) -> dict[str, Decimal]:
        """Movements by kind, signed."""
        found: dict[str, Decimal] = {}
        for line in self.lines:
            found[line.kind] = found.get(line.kind, Decimal(0)) + line.change
        return found


def statement(con: psycopg.Connection[Any], graph_id: str, since: datetime, until: datetime) -> Statement:
    """The statement of the account that pays for a graph.

    Raises:
        UsageError: it ends before it begins.
        UnknownAccountError: there is none.
        BooksError: its lines do not lead from one balance to the next.
    """
    if in_utc(until) < in_utc(since):
        raise UsageError(f"A statement from {since.isoformat()} on cannot end at {until.isoformat()}.")
    bound = {
        "id": accounts.account_id(con, graph_id),
        "since": in_utc(since),
        "until": in_utc(until),
    }
    with work.one_moment(con):
        row = con.execute(_OPENING, bound).fetchone()
        lines = tuple(Line(*found) for found in con.execute(_LINES, bound))
    balance = opening = row[0] if row else Decimal(0)
    for line in lines:
        balance += line.change
        if balance != line.balance:
            raise BooksError(
                f"The book of graph {graph_id} does not add up at transfer {line.number}: {line.balance} instead of {balance}. "
                "Run `quayside credits health`."
            )
    return Statement(graph_id, bound["since"], bound["until"], opening, balance, lines)


def as_arrow(found: Statement) -> pa.Table:
    """The lines as an Arrow table; opening and closing balance are in its metadata."""
    import pyarrow as pa

    credits, moment = pa.decimal128(24, 6), pa.timestamp("us", tz="UTC")
    columns = {
        "number": pa.array([line.number for line in found.lines], pa.int64()),
        "booked": pa.array([line.booked for line in found.lines], moment),
        "effective": pa.array([line.effective for line in found.lines], moment),
        "kind": pa.array([line.kind for line in found.lines], pa.string()),
        "description": pa.array([line.description for line in found.lines], pa.string()),
        "change": pa.array([line.change for line in found.lines], credits),
        "balance": pa.array([line.balance for line in found.lines], credits),
        "key": pa.array([line.key for line in found.lines], pa.string()),
    }
    return pa.table(columns).replace_schema_metadata(
        {
            "graph_id": found.graph_id,
            "since": found.since.isoformat(),
            "until": found.until.isoformat(),
            "opening": str(found.opening),
            "closing": str(found.closing),
        }
    )


def render(found: Statement, format: Format) -> bytes:
    """The statement as a file."""
    if format == "parquet":
        import pyarrow.parquet as pq

        sink = io.BytesIO()
        pq.write_table(as_arrow(found), sink)
        return sink.getvalue()
    return (_csv(found) if format == "csv" else _html(found)).encode()


def _csv(found: Statement) -> str:
    import csv

    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerow(["", found.since.isoformat(), "", "Opening balance", "", found.opening])
    for line in found.lines:
        # A leading = + - @ would be a formula to a spreadsheet; descriptions may hold names that others chose.
        said = line.description
        said = f"'{said}" if said[:1] in "=+-@\t" else said
        writer.writerow(
            [
                line.number,
                line.booked.isoformat(),
                line.effective.isoformat(),
                said,
                line.change,
                line.balance,
            ]
        )
    writer.writerow(["", found.until.isoformat(), "", "Closing balance", "", found.closing])
    return sink.getvalue()


_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
:root {{ color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }}
body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ padding: .3rem .6rem; text-align: left; border-bottom: 1px solid #8884 }}
td.n, th.n {{ text-align: right; font-variant-numeric: tabular-nums }}
tr.total {{ font-weight: 600 }}
</style></head><body><h1>{title}</h1>
<p>{since} to {until} (UTC, the end excluded). Credits.</p>
<table><thead><tr><th>Booked</th><th>For</th><th>What</th><th class="n">Change</th><th class="n">Balance</th></tr></thead><tbody>
{rows}
</tbody></table></body></html>
"""


def _html(found: Statement) -> str:
    def total(what: str, amount: Decimal) -> str:
        return f'<tr class="total"><td colspan="4">{what}</td><td class="n">{amount:,f}</td></tr>'

    rows = [
        f"<tr><td>{line.booked:%Y-%m-%d %H:%M}</td><td>{line.effective:%Y-%m-%d}</td>"
        f'<td>{escape(line.description)}</td><td class="n">{line.change:+,f}</td><td class="n">{line.balance:,f}</td></tr>'
        for line in found.lines
    ]
    return _PAGE.format(
        title=escape(f"Credits of graph {found.graph_id}"),
        since=f"{found.since:%Y-%m-%d}",
        until=f"{found.until:%Y-%m-%d}",
        rows="\n".join(
            [total("Opening balance", found.opening), *rows, total("Closing balance", found.closing)]
        ),
    )
