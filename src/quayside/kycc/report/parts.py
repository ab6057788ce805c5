"""Parts that both pages show."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from quayside.foundation.plots import Axis
from quayside.kycc.bands import SCORE_MAX, SCORE_MIN
from quayside.kycc.report.html import Html, chip, h, section, table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quayside.kycc.report.content import Identity, Stability


def score_axis() -> Axis:
    """The whole scale."""
    return Axis("score", SCORE_MIN, SCORE_MAX)


def status_chip(status: str) -> Html:
    """A stability status with its colour."""
    return chip(status, {"shifted": "bad", "watch": "warn", "stable": "good"}.get(status, "plain"))


def stability_table(rows: Iterable[Stability]) -> Html:
    """PSI beside its sampling noise and sizes, with the shift in points where there is one."""
    rows = list(rows)
    shift = any(row.points_shift is not None for row in rows)
    head = ["what", "status", "PSI", "noise", "rows then", "rows now", *(["points"] if shift else [])]
    return table(
        head,
        [
            [
                row.name,
                status_chip(row.status),
                f"{row.psi:.3f}",
                f"{row.noise:.3f}" if isfinite(row.noise) else "–",
                f"{row.reference_rows:,}",
                f"{row.current_rows:,}",
                *(["–" if row.points_shift is None else f"{row.points_shift:+.1f}"] if shift else []),
            ]
            for row in rows
        ],
        text=2,
    )


def identity_section(identity: Identity) -> Html:
    """Where the data and the version can be found again."""
    return section(
        "Data and version",
        table(["what", "value"], [[name, h("code", value)] for name, value in identity], text=2),
    )
