"""case 29: partition bounds that are null, reversed, skewed, of another type, or no numbers."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quayside.dataloader.sources.ranges import Range, cut, ranges_of

pytestmark = pytest.mark.unit


def holds(each: Range, value: Any) -> bool:
    if value is None:
        return each.is_first
    return (each.lower is None or value >= each.lower) and (each.upper is None or value < each.upper)


@settings(max_examples=150)
@given(
    st.one_of(
        st.tuples(st.integers(), st.integers(), st.lists(st.none() | st.integers())),
        st.tuples(st.dates(), st.dates(), st.lists(st.none() | st.dates())),
        st.tuples(
            st.decimals(-1000, 1000), st.decimals(-1000, 1000), st.lists(st.none() | st.decimals(-9999, 9999))
        ),
    ),
    st.integers(1, 100),
)
def test_every_value_is_in_exactly_one_range(ends: Any, number: int):
    lower, upper, values = ends
    ranges = cut(lower, upper, number)
    assert 1 <= len(ranges) <= min(number, 64)
    for value in [None, lower, upper, *values]:
        assert sum(holds(each, value) for each in ranges) == 1


@pytest.mark.parametrize(
    "least, greatest, configured",
    [
        (1, 100, ("100", "1")),  # reversed
        (1, 100, (None, None)),
        (1, 100, ("", "abc")),
        (1, 100, ("-5.5", "1e3")),
        (1, 100, ("NaN", "Infinity")),
        (date(2024, 1, 1), date(2024, 12, 31), ("2024-01-01 10:00:00", "2024-06-01")),
        (datetime(2024, 1, 1), datetime(2024, 12, 31), ("2024-01-01", "2024-06-01T00:00:00+02:00")),
        (datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 12, 31, tzinfo=UTC), ("2024-01-01", None)),
        (Decimal("0.5"), Decimal(9), ("1", "2")),
        (1.5, 9.5, ("1", "2")),
    ],
)
def test_bounds_of_any_kind_still_cut(least: Any, greatest: Any, configured: tuple[str | None, str | None]):
    ranges = ranges_of(least, greatest, configured, 4)
    assert len(ranges) > 1
    assert sum(holds(each, least) for each in ranges) == 1
    assert sum(holds(each, greatest) for each in ranges) == 1


@pytest.mark.parametrize("least, greatest", [(None, None), ("a", "z"), (5, 5), (b"a", b"z"), (True, False)])
def test_what_cannot_be_cut_is_one_range(least: Any, greatest: Any):
    assert ranges_of(least, greatest, (None, None), 8) == [Range()]


def test_whole_numbers_and_dates_stay_what_they_are():
    assert [each.lower for each in cut(0, 10, 3)] == [None, 3, 6]
    assert [each.lower for each in cut(date(2024, 1, 1), date(2024, 1, 11), 2)] == [None, date(2024, 1, 6)]
    assert [each.lower for each in cut(2**62, 2**63 - 1, 2)] == [None, 6917529027641081855]
