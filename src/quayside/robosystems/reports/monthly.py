"""The monthly usage report: one row per account, whose opening balance and movements give its closing balance.

A month holds what was booked in it, so a report made again says the same, and the closing balance of one month opens the next. The
balances are read from the books, the movements are summed from the transfers; a report in which they differ is refused. So is one whose
cents are not those of the invoices that were issued and voided in the month.
"""
# ruff: noqa: S608 - statements are made of constants of this package; values are bound

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any, Final

from quayside.foundation.errors import UsageError
from quayside.robosystems.billing import work
from quayside.robosystems.errors import BooksError
from quayside.robosystems.ledger.accounts import customer_of
from quayside.robosystems.periods import next_month, start_of

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

#: Movements of a row: name → the transfers it sums, signed as the account sees them.
MOVEMENTS: Final[Mapping[str, str]] = {
    "allocated": "kind = 'allowance'",
    "granted": "kind = 'grant'",
    "consumed": "kind IN ('storage', 'consumption')",
    "refunded": "kind = 'refund'",
    "expired": "kind IN ('expiry', 'rollover')",
    "overage": "kind = 'overage'",
    "corrected": "kind IN ('adjustment', 'void')",
}
#: Money of a row, in cents: name → the invoice lines it sums. What was issued stays in its month; a void is in the month of the void.
CENTS: Final[Mapping[str, str]] = {
    "overage_cents": "l.kind = 'overage' AND i.issued_at >= %(since)s AND i.issued_at < %(until)s",
    "fee_cents": "l.kind = 'subscription' AND i.issued_at >= %(since)s AND i.issued_at < %(until)s",
    "voided_cents": "l.kind <> 'other' AND i.state = 'void' AND i.ended_at >= %(since)s AND i.ended_at < %(until)s",
}
_SUMS: Final = ", ".join(
    f"coalesce(sum(change) FILTER (WHERE {which}), 0) AS {name}" for name, which in MOVEMENTS.items()
)
_REPORT: Final = f"""
WITH moved AS (
    SELECT account_id, kind, operation, CASE WHEN to_account = account_id THEN amount ELSE -amount END AS change
    FROM robosystems.transfers WHERE booked_at >= %(since)s AND booked_at < %(until)s
), sums AS (
    SELECT account_id, {_SUMS} FROM moved GROUP BY account_id
), kinds AS (
    SELECT account_id, jsonb_object_agg(operation, credits ORDER BY operation)::text AS consumed_by_kind
    FROM (SELECT account_id, coalesce(nullif(operation, ''), kind) AS operation, -sum(change) AS credits
          FROM moved WHERE kind IN ('storage', 'consumption') GROUP BY 1, 2) AS k GROUP BY account_id
), sizes AS (
    SELECT account_id, count(total_bytes)::int AS hours_measured, count(*) FILTER (WHERE total_bytes IS NULL)::int AS hours_unmeasured,
           robosystems.half_even(sum(total_bytes), count(total_bytes) * 1073741824::numeric, 6) AS gb_mean,
           robosystems.half_even(max(total_bytes), 1073741824::numeric, 6) AS gb_peak
    FROM robosystems.usage_snapshots WHERE hour >= %(since)s AND hour < %(until)s GROUP BY account_id
), billed AS (
    SELECT l.graph_id, {", ".join(f"sum(l.amount_cents) FILTER (WHERE {which})::bigint AS {name}" for name, which in CENTS.items())}
    FROM robosystems.invoice_lines AS l JOIN robosystems.invoices AS i ON i.id = l.invoice_id
    WHERE (i.issued_at >= %(since)s OR i.ended_at >= %(since)s) AND i.issued_at < %(until)s GROUP BY l.graph_id
)
SELECT a.graph_id,
       {customer_of("a.graph_id")} AS customer_id,
       coalesce((SELECT balance_after FROM robosystems.transfers AS t
                 WHERE t.account_id = a.id AND t.booked_at < %(since)s ORDER BY t.seq DESC LIMIT 1), 0) AS opening,
       {", ".join(f"coalesce(m.{name}, 0) AS {name}" for name in MOVEMENTS)},
       coalesce((SELECT balance_after FROM robosystems.transfers AS t
                 WHERE t.account_id = a.id AND t.booked_at < %(until)s ORDER BY t.seq DESC LIMIT 1), 0) AS closing,
       coalesce(k.consumed_by_kind, '{{}}') AS consumed_by_kind,
       {", ".join(f"coalesce(b.{name}, 0) AS {name}" for name in CENTS)},
       z.gb_mean AS gb_hours_mean, z.gb_peak AS gb_hours_peak, coalesce(z.hours_measured, 0) AS hours_measured,
       coalesce(z.hours_unmeasured, 0) AS hours_unmeasured
FROM robosystems.accounts AS a
LEFT JOIN sums AS m ON m.account_id = a.id
LEFT JOIN kinds AS k ON k.account_id = a.id
LEFT JOIN sizes AS z ON z.account_id = a.id
LEFT JOIN billed AS b ON b.graph_id = a.graph_id
WHERE a.graph_id IS NOT NULL AND a.opened_at < %(until)s
ORDER BY a.graph_id
"""
# Lines of the kind "other" are of no account; nothing here makes any.
_INVOICES: Final = """
SELECT coalesce(sum(t.cents) FILTER (WHERE issued_at >= %(since)s), 0)
       - coalesce(sum(t.cents) FILTER (WHERE state = 'void' AND ended_at >= %(since)s AND ended_at < %(until)s), 0)
FROM robosystems.invoices AS i
CROSS JOIN LATERAL (SELECT i.total_cents - coalesce(sum(l.amount_cents), 0) AS cents
                    FROM robosystems.invoice_lines AS l WHERE l.invoice_id = i.id AND l.kind = 'other') AS t
WHERE (issued_at >= %(since)s OR ended_at >= %(since)s) AND issued_at < %(until)s
"""
_NOTE: Final = """
INSERT INTO robosystems.usage_reports (month, object_key, sha256, graphs, made_at, run_id)
VALUES (%(month)s, %(object_key)s, %(sha256)s, %(graphs)s, %(at)s, %(run_id)s)
ON CONFLICT (month) DO UPDATE SET object_key = excluded.object_key, sha256 = excluded.sha256, graphs = excluded.graphs,
                                  made_at = excluded.made_at, run_id = excluded.run_id
"""


@dataclass(frozen=True)
class Report:
    """The report of one month: a row per account (`as_arrow` has its columns), in credits but for `CENTS`."""

    month: date
    rows: tuple[Mapping[str, Any], ...]

    def totals(self) -> dict[str, Decimal]:
        """Sums over all accounts."""
        names = ("opening", *MOVEMENTS, "closing", *CENTS)
        return {name: sum((row[name] for row in self.rows), Decimal(0)) for name in names}


@dataclass(frozen=True)
class StoredReport:
    """Where the file of a report is, and what it holds."""

    report: Report
    object_key: str
    url: str
    sha256: str


def usage_report(con: psycopg.Connection[Any], month: date, *, now: datetime) -> Report:
    """The report of a month that is over.

    Raises:
        UsageError: the month is not over.
        BooksError: a row does not add up, or the rows do not to the invoices.
    """
    until = start_of(next_month(month))
    if until > now:
        raise UsageError(f"{month:%Y-%m} is not over: its report is made in the month after.")
    bound = {"since": start_of(month), "until": until}
    with work.one_moment(con):
        cursor = con.execute(_REPORT.encode(), bound)
        names = [column.name for column in cursor.description or ()]
        rows = tuple(dict(zip(names, row, strict=True)) for row in cursor)
        (invoiced,) = con.execute(_INVOICES, bound).fetchone() or (0,)
    wrong = [
        row["graph_id"]
        for row in rows
        if row["opening"] + sum(row[name] for name in MOVEMENTS) != row["closing"]
    ]
    if wrong:
        raise BooksError(
            f"{len(wrong)} accounts do not lead from opening to closing balance in {month:%Y-%m}: "
            f"{', '.join(wrong[:10])}. Run `quayside credits health`."
        )
    report = Report(month, rows)
    totals = report.totals()
    if totals["overage_cents"] + totals["fee_cents"] - totals["voided_cents"] != invoiced:
        raise BooksError(
            f"The accounts of {month:%Y-%m} have {totals['overage_cents']} cents for debts and {totals['fee_cents']} for plans, "
            f"{totals['voided_cents']} voided, and the invoices say {invoiced}. Run `quayside credits health`."
        )
    return report


def as_arrow(report: Report) -> pa.Table:
    """The report as an Arrow table."""
    import pyarrow as pa

    credits = pa.decimal128(24, 6)
    schema = pa.schema(
        [
            ("graph_id", pa.string()),
            ("customer_id", pa.string()),
            ("opening", credits),
            *((name, credits) for name in MOVEMENTS),
            ("closing", credits),
            ("consumed_by_kind", pa.string()),
            *((name, pa.int64()) for name in CENTS),
            ("gb_hours_mean", credits),
            ("gb_hours_peak", credits),
            ("hours_measured", pa.int32()),
            ("hours_unmeasured", pa.int32()),
        ],
        metadata={"month": f"{report.month:%Y-%m}"},
    )
    return pa.Table.from_pylist([dict(row) for row in report.rows], schema)


def store(
    con: psycopg.Connection[Any],
    report: Report,
    upload: Callable[[IO[bytes], str], str],
    *,
    at: datetime | None = None,
    run_id: str | None = None,
) -> StoredReport:
    """Store a report as one Parquet file and note where it is. The same report again replaces the same object.

    Args:
        upload: takes an open file and a key, and gives the URL of the object, as S3Resource.upload_file does.
    """
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(as_arrow(report), sink)
    content = sink.getvalue()
    key = f"reports/usage/year={report.month:%Y}/month={report.month:%m}/usage.parquet"
    url = upload(io.BytesIO(content), key)
    digest = hashlib.sha256(content).hexdigest()
    author = work.author_of(at, run_id)
    con.execute(
        _NOTE,
        author.bound
        | {"month": report.month, "object_key": key, "sha256": digest, "graphs": len(report.rows)},
    )
    return StoredReport(report, key, url, digest)
