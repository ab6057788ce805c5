"""What assets and checks show of their results: tables and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from quayside.foundation.plots import Axis, Line, Mark, as_markdown, bars, chart, histogram
from quayside.kycc.charts import calibration_chart, roc_chart

if TYPE_CHECKING:
    from quayside.kycc.features import Extraction
    from quayside.kycc.refinement import BinComparison
    from quayside.kycc.scoring import ScoreSummary
    from quayside.kycc.training.metrics import Metrics


def table(rows: Iterable[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Rows as a table; a column that only some rows have is empty in the others."""
    rows = list(rows)
    columns = dict.fromkeys(name for row in rows for name in row)
    return dg.MetadataValue.table([dg.TableRecord({c: row.get(c) for c in columns}) for row in rows])  # pyright: ignore[reportArgumentType] - a cell may be empty, which the type does not say


def figures(found: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of a check: lists of rows become tables, what is missing is said in words."""
    return {
        name: table(value)
        if isinstance(value, list) and value and isinstance(value[0], Mapping)
        else "none"
        if value is None
        else value
        for name, value in found.items()
    }


def extraction(result: Extraction) -> dict[str, Any]:
    """Coverage and a small distribution plot per feature."""
    rows = [
        {
            "feature": name,
            "present": round(d.present, 4),
            "informative": round(d.informative, 4),
            "min": _short(d.minimum),
            "mean": _short(d.mean),
            "max": _short(d.maximum),
        }
        for name, d in result.distributions.items()
    ]
    plots = (histogram(d.edges, d.counts, name) for name, d in result.distributions.items() if d.counts)
    return {
        "rows": result.rows,
        "changed": result.changed,
        "seconds": round(result.seconds, 3),
        "coverage": table(rows),
        "distributions": dg.MetadataValue.md(as_markdown(*plots)),
    }


def scores(summary: ScoreSummary) -> dict[str, Any]:
    """Mean, bands, decisions and the histogram of a scored batch."""
    mix = [
        {"band": band, "parties": n, "share": round(n / summary.parties, 4)}
        for band, n in summary.bands.items()
    ]
    edges = [str(edge) for edge in summary.histogram]
    return {
        "parties_scored": summary.parties,
        "avg_score": round(summary.mean, 2),
        "band_mix": table(mix),
        "decisions": dict(summary.decisions),
        "histogram": dg.MetadataValue.md(
            as_markdown(
                bars(edges, list(summary.histogram.values()), "total_score"),
                bars(list(summary.bands), list(summary.bands.values()), "band"),
            )
        ),
    }


def measured(named: Mapping[str, Metrics]) -> dg.TableMetadataValue:
    """Figures of several rankings side by side."""
    return table(
        {
            "ranking": name,
            "rows": m.rows,
            "bads": m.bads,
            "auc": round(m.auc, 4),
            "auc_error": round(m.auc_error, 4),
            "gini": round(m.gini, 4),
            "ks": round(m.ks, 4),
            "brier": round(m.brier, 4),
            "pr_auc": round(m.pr_auc, 4),
        }
        for name, m in named.items()
    )


def ranking_plots(named: Mapping[str, Metrics]) -> dg.MarkdownMetadataValue:
    """ROC of all, then KS and calibration of the first."""
    (name, first), *_ = named.items()
    return dg.MetadataValue.md(
        as_markdown(roc_chart(named), _ks(name, first), calibration_chart(first, f"Calibration of {name}"))
    )


def weights(comparison: Sequence[BinComparison]) -> dg.TableMetadataValue:
    """Points between the worst and the best bin of each characteristic: in the base card, the model and the new card."""
    spans: dict[str, list[BinComparison]] = {}
    for row in comparison:
        spans.setdefault(row.label, []).append(row)

    def span(rows: list[BinComparison], card: str) -> int:
        points = [getattr(row, card) for row in rows]
        return max(points) - min(points)

    return table(
        {"characteristic": label, **{card: span(rows, card) for card in ("base", "model", "refined")}}
        for label, rows in spans.items()
    )


def _ks(name: str, m: Metrics) -> str:
    """Shares of both classes refused, against the share of all parties refused, riskiest first."""
    share = m.bads / m.rows
    refused = [(1 - share) * goods + share * bads for goods, bads in m.roc]
    at = max(range(len(m.roc)), key=lambda i: m.roc[i][1] - m.roc[i][0])
    shapes = [
        Line("bad", [(x, bads) for x, (_, bads) in zip(refused, m.roc, strict=True)], 1),
        Line("good", [(x, goods) for x, (goods, _) in zip(refused, m.roc, strict=True)], 0),
        Mark(f"KS {m.ks:.3f}", refused[at], *m.roc[at]),
    ]
    axes = Axis("parties refused, riskiest first", 0, 1, ".0%"), Axis("share of the class", 0, 1, ".0%")
    return chart(shapes, *axes, f"KS of {name}")


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
