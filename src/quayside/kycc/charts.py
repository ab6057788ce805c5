"""Charts of how a card or model ranks, shared by the pages of reports and by what Dagster shows of an asset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quayside.foundation.plots import Axis, Dots, Line, chart

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quayside.kycc.training.metrics import Metrics


def roc_chart(named: Mapping[str, Metrics]) -> str:
    """ROC curves of a few, the first drawn last and so on top."""
    lines = [
        Line(f"{name}, AUC {m.auc:.3f}", m.roc, colour) for colour, (name, m) in enumerate(named.items())
    ]
    chance = Line("", [(0, 0), (1, 1)], 2, dashed=True)
    axes = Axis("goods refused", 0, 1, ".0%"), Axis("bads caught", 0, 1, ".0%")
    return chart([chance, *lines[::-1]], *axes, "ROC curve")


def calibration_chart(metrics: Metrics, title: str = "Calibration") -> str:
    """Predicted default rates against those observed, by groups of about equal size."""
    groups = metrics.calibration
    most = min(1.0, 1.05 * max(max(g.predicted, g.high) for g in groups))
    shapes = [
        Line("predicted = observed", [(0, 0), (most, most)], 2, dashed=True),
        Dots("observed, 95 % interval", [(g.predicted, g.observed, g.low, g.high) for g in groups], 0),
    ]
    axes = Axis("predicted default rate", 0, most, ".0%"), Axis("observed default rate", 0, most, ".0%")
    return chart(shapes, *axes, title)
