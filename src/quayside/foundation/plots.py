"""Small charts as SVG text, for Dagster metadata, HTML reports and files: no plotting library, no state.

A chart is a string. `as_markdown` wraps it so that Dagster's UI shows it as a picture; a page may hold it as it is, and
then sets its colours by the custom properties ``--ink``, ``--grid``, ``--series-1`` … ``--series-3`` (light and dark),
while a picture on its own falls back to the colours written beside them.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

INK: Final = "var(--ink, #334155)"
GRID: Final = "var(--grid, #d5dbe3)"
FILL: Final = "#4f7cac"
#: Blue, orange and grey: told apart by any kind of colour vision, and in grey print by their lightness.
SERIES: Final = ("var(--series-1, #2f6db3)", "var(--series-2, #d9771e)", "var(--series-3, #7b8794)")


def bars(
    labels: Sequence[str], values: Sequence[float], title: str = "", width: int = 420, height: int = 150
) -> str:
    """Vertical bars, one per label, with the largest value as full height. Returns SVG text."""
    top, bottom = (22 if title else 6), 18
    room = height - top - bottom
    step = width / max(len(values), 1)
    highest = max((float(v) for v in values), default=0.0) or 1.0
    parts = [_open(width, height, title)]
    if title:
        parts.append(f'<text x="2" y="13" font-size="12">{escape(title)}</text>')
    every = max(1, round(len(labels) * 36 / width))  # labels need about 36 px each
    for i, (label, value) in enumerate(zip(labels, values, strict=True)):
        tall = room * max(float(value), 0.0) / highest
        parts.append(
            f'<rect x="{i * step + 1:.1f}" y="{top + room - tall:.1f}" width="{max(step - 2, 1):.1f}" '
            f'height="{tall:.1f}" fill="var(--series-1, {FILL})"><title>{escape(label)}: {value:g}</title></rect>'
        )
        if i % every == 0:
            parts.append(
                f'<text x="{i * step + step / 2:.1f}" y="{height - 5}" text-anchor="middle">{escape(label)}</text>'
            )
    return "".join([*parts, "</svg>"])


def histogram(edges: Sequence[float], counts: Sequence[int], title: str = "") -> str:
    """Histogram with ``len(counts) + 1`` bin edges; each bar is named by its lower edge."""
    return bars([f"{edge:g}" for edge in edges[:-1]], counts, title)


@dataclass(frozen=True)
class Axis:
    """One axis: its name with the unit, its range, and how its ticks are written (a format of `format`)."""

    label: str
    low: float
    high: float
    format: str = "g"

    def ticks(self, most: int = 6) -> list[float]:
        """Round values within the range, 1, 2 or 5 times a power of ten apart."""
        raw = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw - 1e-12)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Line:
    """Points joined by straight lines; `colour` is a position in `SERIES`."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class Area:
    """Columns of a histogram: height i stands from ``edges[i]`` to ``edges[i + 1]``."""

    label: str
    edges: Sequence[float]
    heights: Sequence[float]
    colour: int = 0


@dataclass(frozen=True)
class Dots:
    """Points with vertical intervals: (x, y, low, high) each."""

    label: str
    points: Sequence[tuple[float, float, float, float]]
    colour: int = 0


@dataclass(frozen=True)
class Mark:
    """A thin upright line with a word beside it: a limit, a band's floor, where a maximum lies."""

    label: str
    x: float
    low: float | None = None
    high: float | None = None


Shape = Line | Area | Dots | Mark


def chart(shapes: Iterable[Shape], x: Axis, y: Axis, title: str, width: int = 460, height: int = 300) -> str:
    """Shapes over two axes with round ticks, a light grid and a legend of what has a label. Returns SVG text."""
    shapes = list(shapes)
    left, right, bottom = 56, 18, 40
    legend, rows = _legend(shapes, left, width - right)
    top = 14 + 16 * rows

    def at_x(value: float) -> float:
        return left + (value - x.low) / (x.high - x.low) * (width - left - right)

    def at_y(value: float) -> float:
        share = (min(max(value, y.low), y.high) - y.low) / (y.high - y.low)
        return height - bottom - share * (height - top - bottom)

    floor = height - bottom
    parts = [_open(width, height, title, size=11)]
    parts.extend(
        f'<line x1="{left}" x2="{width - right}" y1="{at_y(tick):.1f}" y2="{at_y(tick):.1f}" stroke="{GRID}"/>'
        f'<text x="{left - 6}" y="{at_y(tick) + 3.5:.1f}" text-anchor="end">{tick:{y.format}}</text>'
        for tick in y.ticks()
    )
    parts.extend(
        f'<line x1="{at_x(tick):.1f}" x2="{at_x(tick):.1f}" y1="{floor}" y2="{floor + 4}" stroke="{INK}"/>'
        f'<text x="{at_x(tick):.1f}" y="{floor + 15}" text-anchor="middle">{tick:{x.format}}</text>'
        for tick in x.ticks()
    )
    parts.extend(_drawn(shape, at_x, at_y, top, floor) for shape in shapes)
    parts.append(
        f'<line x1="{left}" x2="{width - right}" y1="{floor}" y2="{floor}" stroke="{INK}"/>'
        f'<text x="{(left + width - right) / 2:.1f}" y="{height - 6}" text-anchor="middle">{escape(x.label)}</text>'
        f'<text transform="translate(11 {(top + floor) / 2:.1f}) rotate(-90)" text-anchor="middle">{escape(y.label)}</text>'
    )
    return "".join([*parts, *legend, "</svg>"])


def split_bar(shares: Sequence[tuple[str, float, str]], width: int = 460, height: int = 26) -> str:
    """One bar cut into shares of its length: (what, share from 0 to 1, colour) each, named where there is room."""
    named = ", ".join(f"{what} {share:.1%}" for what, share, _ in shares)
    parts = [_open(width, height, named, size=12)]
    start = 0.0
    for what, share, colour in shares:
        wide = share * width
        parts.append(
            f'<rect x="{start:.1f}" width="{max(wide - 1, 0):.1f}" height="{height}" fill="{colour}">'
            f"<title>{escape(what)}: {share:.1%}</title></rect>"
        )
        if wide > 34:
            parts.append(
                f'<text x="{start + wide / 2:.1f}" y="{height / 2 + 4:.1f}" text-anchor="middle" fill="#fff">{share:.0%}</text>'
            )
        start += wide
    return "".join([*parts, "</svg>"])


def as_markdown(*charts: str) -> str:
    """Charts as Markdown images with the data inside, which Dagster's UI and most viewers display."""
    return "\n\n".join(
        f"![chart](data:image/svg+xml;base64,{base64.b64encode(c.encode()).decode()})" for c in charts
    )


def _open(width: int, height: int, title: str, size: int = 10) -> str:
    named = f'role="img" aria-label="{escape(title)}" ' if title else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {named}width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="{size}" fill="{INK}">'
    )


def _drawn(
    shape: Shape, at_x: Callable[[float], float], at_y: Callable[[float], float], top: float, floor: float
) -> str:
    if isinstance(shape, Mark):
        low = floor if shape.low is None else at_y(shape.low)
        high = top if shape.high is None else at_y(shape.high)
        beside = top + 9 if shape.high is None else high + (low - high) / 4  # between the curves it joins
        return (
            f'<line x1="{at_x(shape.x):.1f}" x2="{at_x(shape.x):.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{INK}" '
            f'stroke-dasharray="2 2"/><text x="{at_x(shape.x) + 4:.1f}" y="{beside:.1f}">{escape(shape.label)}</text>'
        )
    colour = SERIES[shape.colour]
    if isinstance(shape, Line):
        where = " ".join(f"{at_x(a):.1f},{at_y(b):.1f}" for a, b in shape.points)
        dashes = ' stroke-dasharray="5 4"' if shape.dashed else ""
        return f'<polyline points="{where}" fill="none" stroke="{colour}" stroke-width="1.8"{dashes}/>'
    if isinstance(shape, Area):
        rects = [
            f'<rect x="{at_x(a):.1f}" y="{at_y(height):.1f}" width="{max(at_x(b) - at_x(a) - 0.6, 0.5):.1f}" '
            f'height="{floor - at_y(height):.1f}"><title>{a:g} to {b:g}: {height:g}</title></rect>'
            for a, b, height in zip(shape.edges, shape.edges[1:], shape.heights, strict=False)
            if height > 0
        ]
        return f'<g fill="{colour}" fill-opacity="0.55">{"".join(rects)}</g>'
    return "".join(
        f'<line x1="{at_x(a):.1f}" x2="{at_x(a):.1f}" y1="{at_y(low):.1f}" y2="{at_y(high):.1f}" stroke="{colour}" '
        f'stroke-width="1.5"/><circle cx="{at_x(a):.1f}" cy="{at_y(b):.1f}" r="3" fill="{colour}">'
        f"<title>{b:.3f}, interval {low:.3f} to {high:.3f}</title></circle>"
        for a, b, low, high in shape.points
    )


def _legend(shapes: Sequence[Shape], left: float, right: float) -> tuple[list[str], int]:
    """Legend of the shapes that have a label, and the rows it takes."""
    parts: list[str] = []
    where, row = left, 0
    for shape in shapes:
        if isinstance(shape, Mark) or not shape.label:
            continue
        wide = 36 + 6.2 * len(shape.label)
        if where > left and where + wide > right:
            where, row = left, row + 1
        y = 10 + 15 * row
        colour = SERIES[shape.colour]
        if isinstance(shape, Line):
            dashes = ' stroke-dasharray="4 3"' if shape.dashed else ""
            parts.append(
                f'<line x1="{where:.0f}" x2="{where + 16:.0f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"{dashes}/>'
            )
        else:
            parts.append(f'<rect x="{where + 4:.0f}" y="{y - 4}" width="9" height="9" fill="{colour}"/>')
        parts.append(f'<text x="{where + 20:.0f}" y="{y + 4}">{escape(shape.label)}</text>')
        where += wide
    return parts, row + 1 if parts else 0
