"""Charts: valid SVG, shapes where the data says, labels escaped."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from quayside.foundation.plots import Area, Axis, Dots, Line, Mark, bars, chart, split_bar

pytestmark = pytest.mark.unit

NASTY = '<b>"&</b>'
UNIT = Axis("x", 0, 1), Axis("y", 0, 1, ".0%")


def elements(svg: str, tag: str) -> list[ET.Element]:
    return ET.fromstring(svg).findall(f".//{{http://www.w3.org/2000/svg}}{tag}")


@pytest.mark.parametrize(
    "svg",
    [
        bars([NASTY], [1], NASTY),
        split_bar([(NASTY, 0.4, "#123456"), ("rest", 0.6, "#654321")]),
        chart(
            [
                Line(NASTY, [(0, 0), (1, 1)]),
                Area(NASTY, [0, 0.5, 1], [0.2, 0.8], 1),
                Dots(NASTY, [(0.5, 0.5, 0.4, 0.6)]),
                Mark(NASTY, 0.5),
            ],
            Axis(NASTY, 0, 1),
            Axis(NASTY, 0, 1),
            NASTY,
        ),
        chart([], *UNIT, "empty"),
    ],
)
def test_every_chart_is_well_formed_and_escapes_its_texts(svg: str) -> None:
    assert NASTY not in svg
    ET.fromstring(svg)


def test_a_line_runs_from_corner_to_corner() -> None:
    svg = chart([Line("", [(0, 0), (1, 1)])], *UNIT, "diagonal", width=200, height=100)
    (line,) = elements(svg, "polyline")
    (x0, y0), (x1, y1) = ((float(v) for v in point.split(",")) for point in line.attrib["points"].split())
    assert (x0, y0) == (56, 60)
    assert (x1, y1) == (182, 14)


def test_columns_stand_on_the_axis_with_heights_in_proportion() -> None:
    svg = chart([Area("", [0, 0.5, 1], [0.25, 0.5])], *UNIT, "columns", width=200, height=154)
    low, high = (rect for rect in elements(svg, "rect") if "height" in rect.attrib)
    assert float(high.attrib["height"]) == 2 * float(low.attrib["height"]) == 50
    assert {float(r.attrib["y"]) + float(r.attrib["height"]) for r in (low, high)} == {114}


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (300, 900, [300, 400, 500, 600, 700, 800, 900]),
        (0, 0.037, [0, 0.01, 0.02, 0.03]),
        (-4, 11, [-2.5, 0, 2.5, 5, 7.5, 10]),
        (0, 123456, [0, 25000, 50000, 75000, 100000]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert Axis("", low, high).ticks() == pytest.approx(ticks)


def test_a_long_legend_wraps_and_stays_within_the_chart() -> None:
    shapes = [Line(f"a label of some length {i}", [(0, 0)], i % 3) for i in range(4)]
    svg = chart(shapes, *UNIT, "legend")
    texts = [text for text in elements(svg, "text") if (text.text or "").startswith("a label")]
    assert len({text.attrib["y"] for text in texts}) >= 2
    assert all(float(text.attrib["x"]) + 6 * len(text.text or "") <= 460 for text in texts)


def test_colours_come_from_the_page_and_fall_back() -> None:
    svg = chart([Line("one", [(0, 0)]), Line("two", [(0, 0)], 1)], *UNIT, "colours")
    assert len(set(re.findall(r"var\(--series-\d, #[0-9a-f]{6}\)", svg))) == 2
