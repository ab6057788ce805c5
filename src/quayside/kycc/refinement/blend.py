"""Weighted sums of characteristics on the union of their bins."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace

from quayside.foundation.errors import InputError
from quayside.kycc.bands import SCORE_MAX, SCORE_MIN
from quayside.kycc.refinement.wording import Wording
from quayside.kycc.scorecard import Characteristic
from quayside.kycc.scorecard.card import Closed

#: A weight above 0 and what it applies to.
Weighted = tuple[float, Characteristic]


def blend(sources: Sequence[Weighted], wording: Wording) -> Characteristic:
    """The characteristic whose points are the weighted sums of those of `sources`, one or more, on the union of their
    bins.

    Points are rounded half up. Rounding and adding keep order, so that what rises in every source rises here.

    Raises:
        InputError: the feature is numeric in one and categorical in another.
    """
    items = [item for _, item in sources]
    if len(sources) == 1 and sources[0][0] == 1:
        return items[0]

    def weighted(points: Iterable[int]) -> int:
        return half_up(sum(weight * value for (weight, _), value in zip(sources, points, strict=True)))

    missing = weighted(item.missing for item in items)
    if is_numeric(items):
        cuts = union_of_cuts(items)
        closed = items[0].closed
        edges = (-math.inf, *cuts)
        points = tuple(weighted(at_edge(item, edge, closed) for item in items) for edge in edges)
        return wording.numeric(cuts, closed, points, missing)
    groups = union_of_groups(items)
    points = tuple(weighted(of_category(item, group[0]) for item in items) for group in groups)
    return wording.categorical(groups, points, missing, weighted(item.other for item in items))


def is_numeric(items: Sequence[Characteristic]) -> bool:
    """Whether they are all numeric.

    Raises:
        InputError: only some are.
    """
    if len({item.kind for item in items}) > 1:
        raise InputError(
            f"Feature {items[0].feature!r} is numeric in one scorecard and categorical in the other."
        )
    return items[0].kind == "numeric"


def union_of_cuts(items: Sequence[Characteristic]) -> tuple[float, ...]:
    """Every cut of numeric characteristics, rising, in the sense of the first one's `closed`."""
    closed = items[0].closed
    return tuple(sorted({cut for item in items for cut in cuts_closed(item.cuts, item.closed, closed)}))


def cuts_closed(cuts: Iterable[float], have: Closed, want: Closed) -> tuple[float, ...]:
    """The same partition of all floating-point numbers with bins closed on the other side."""
    if have == want:
        return tuple(cuts)
    return tuple(math.nextafter(cut, -math.inf if want == "right" else math.inf) for cut in cuts)


def union_of_groups(items: Sequence[Characteristic]) -> tuple[tuple[str, ...], ...]:
    """Categories grouped so that each group lies in one bin of every characteristic, in order of appearance."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for value in dict.fromkeys(v for item in items for group in item.categories for v in group):
        groups.setdefault(tuple(_bin_of(item, value) for item in items), []).append(value)
    return tuple(tuple(group) for group in groups.values())


def at_edge(item: Characteristic, lower: float, closed: Closed) -> int:
    """Points of the values just above the edge `lower` of a bin closed on that side, itself included when "left"."""
    (edge,) = cuts_closed((lower,), closed, item.closed) if math.isfinite(lower) else (lower,)
    return item.points[bisect_right(item.cuts, edge)]


def of_category(item: Characteristic, value: str) -> int:
    """Points of a category."""
    index = _bin_of(item, value)
    return item.other if index < 0 else item.points[index]


def _bin_of(item: Characteristic, value: str) -> int:
    return next((i for i, group in enumerate(item.categories) if value in group), -1)


def half_up(value: float) -> int:
    """The nearest whole number, the larger one of two."""
    return math.floor(value + 0.5)


def within_scale(items: Sequence[Characteristic]) -> tuple[Characteristic, ...]:
    """The same characteristics with their best points adding up to 600 at most.

    What rounding added too much is taken from the best bins, a point each, of the characteristics with most points, where a
    point weighs least.
    """
    result = list(items)
    excess = sum(item.max_points for item in items) - (SCORE_MAX - SCORE_MIN)
    largest = sorted(range(len(items)), key=lambda i: -items[i].max_points)
    while excess > 0:
        for index in largest[:excess]:
            if result[index].max_points > 0:
                result[index] = _one_less(result[index])
                excess -= 1
    return tuple(result)


def _one_less(item: Characteristic) -> Characteristic:
    top = item.max_points - 1
    points = tuple(min(value, top) for value in item.points)
    return replace(item, points=points, missing=min(item.missing, top), other=min(item.other, top))
