"""Small texts of a scorecard: how bins are called and how reason sentences are filled in."""

from __future__ import annotations

import math
import re
from typing import Final, Literal

REASON_FIELDS: Final = frozenset({"{lower}", "{upper}"})

_FIELD: Final = re.compile(r"\{[^{}]*\}|[{}]")


def number(value: float) -> str:
    """A number as people write it: thousands separated, no trailing zeros."""
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.4f}".rstrip("0").rstrip(".") if 1e-3 <= abs(value) < 1e15 else f"{value:g}"


def interval_label(lower: float, upper: float, *, closed: Literal["left", "right"]) -> str:
    """Label of a numeric bin."""
    if math.isinf(lower) and math.isinf(upper):
        return "any value"
    if closed == "left":
        if math.isinf(lower):
            return f"under {number(upper)}"
        if math.isinf(upper):
            return f"{number(lower)} or more"
        return f"{number(lower)} to under {number(upper)}"
    if math.isinf(lower):
        return f"up to {number(upper)}"
    if math.isinf(upper):
        return f"over {number(lower)}"
    return f"over {number(lower)} up to {number(upper)}"


def unknown_fields(text: str, allowed: frozenset[str]) -> list[str]:
    """Placeholders and stray braces in `text` that are not in `allowed`."""
    return [field for field in _FIELD.findall(text) if field not in allowed]


def fill(text: str, lower: float, upper: float) -> str:
    """`text` with the bin's edges put in. Plain replacement: card texts are data, not format strings."""
    return text.replace("{lower}", number(lower)).replace("{upper}", number(upper))
