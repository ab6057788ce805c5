"""Small charts as SVG text, for Dagster metadata, HTML reports and files: no plotting library, no state.

A chart is a string; `as_markdown` wraps it so that Dagster's UI shows it as a picture.
"""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

INK = "#334155"
FILL = "#4f7cac"


def bars(
    labels: Sequence[str], values: Sequence[float], title: str = "", width: int = 420, height: int = 150
) -> str:
    """Vertical bars, one per label, with the largest value as full height. Returns SVG text."""
    top, bottom = (22 if title else 6), 18
    room = height - top - bottom
    step = width / max(len(values), 1)
    highest = max((float(v) for v in values), default=0.0) or 1.0
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="10" fill="{INK}">'
    ]
    if title:
        parts.append(f'<text x="2" y="13" font-size="12">{escape(title)}</text>')
    every = max(1, round(len(labels) * 36 / width))  # labels need about 36 px each
    for i, (label, value) in enumerate(zip(labels, values, strict=True)):
        tall = room * max(float(value), 0.0) / highest
        parts.append(
            f'<rect x="{i * step + 1:.1f}" y="{top + room - tall:.1f}" width="{max(step - 2, 1):.1f}" '
            f'height="{tall:.1f}" fill="{FILL}"><title>{escape(label)}: {value:g}</title></rect>'
        )
        if i % every == 0:
            parts.append(
                f'<text x="{i * step + step / 2:.1f}" y="{height - 5}" text-anchor="middle">{escape(label)}</text>'
            )
    return "".join([*parts, "</svg>"])


def histogram(edges: Sequence[float], counts: Sequence[int], title: str = "") -> str:
    """Histogram with ``len(counts) + 1`` bin edges; each bar is named by its lower edge."""
    return bars([f"{edge:g}" for edge in edges[:-1]], counts, title)


def as_markdown(*charts: str) -> str:
    """Charts as Markdown images with the data inside, which Dagster's UI and most viewers display."""
    return "\n\n".join(
        f"![chart](data:image/svg+xml;base64,{base64.b64encode(c.encode()).decode()})" for c in charts
    )
