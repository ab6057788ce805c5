"""What the run of a usage report shows: a table, and charts of what was consumed and stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from quayside.foundation.plots import as_markdown, bars
from quayside.robosystems.reports.monthly import CENTS, MOVEMENTS

if TYPE_CHECKING:
    from quayside.robosystems.reports import StoredReport

#: Rows of the table; all are in the file.
SHOWN = 50
#: Bars of the charts.
CHARTED = 12


def report_metadata(stored: StoredReport) -> dict[str, Any]:
    """Metadata of the output: where the file is, the totals, the largest consumers."""
    report = stored.report
    columns = (
        "graph_id",
        "opening",
        *MOVEMENTS,
        "closing",
        *CENTS,
        "gb_hours_mean",
        "gb_hours_peak",
    )
    largest = sorted(report.rows, key=lambda row: (row["consumed"], row["graph_id"]))
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_cell(row[name]) for name in columns) + " |" for row in largest[:SHOWN]]
    if len(largest) > SHOWN:
        lines.append(f"\n{len(largest) - SHOWN} more rows are in the file.")
    top = largest[:CHARTED]
    stored_most = sorted(
        (row for row in report.rows if row["gb_hours_mean"] is not None),
        key=lambda row: (-row["gb_hours_mean"], row["graph_id"]),
    )[:CHARTED]
    charts = as_markdown(
        bars([row["graph_id"] for row in top], [-row["consumed"] for row in top], "Credits consumed"),
        bars(
            [row["graph_id"] for row in stored_most],
            [row["gb_hours_mean"] for row in stored_most],
            "Mean GB stored",
        ),
    )
    return {
        "month": f"{report.month:%Y-%m}",
        "graphs": len(report.rows),
        "file": stored.url,
        "object_key": stored.object_key,
        "sha256": stored.sha256,
        **{f"total_{name}": str(value) for name, value in report.totals().items()},
        "report": dg.MetadataValue.md("\n".join(lines)),
        "charts": dg.MetadataValue.md(charts),
    }


def _cell(value: object) -> str:
    return "" if value is None else str(value).replace("|", "\\|")
