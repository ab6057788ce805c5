from __future__ import annotations

import math
from itertools import combinations, pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quayside.kycc.training import bins
from quayside.kycc.training.bins import Bins, fit_bins
from quayside.kycc.training.monotone import grouped, shares

pytestmark = pytest.mark.unit


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=7).filter(
        lambda cells: any(bads for bads, _ in cells)
    ),
    st.booleans(),
    st.sampled_from([0.0, 0.3, 2.0]),
    st.sampled_from([1, 12]),
    st.sampled_from([0.5, 20.0]),
    st.sampled_from([None, 0.1, 0.8]),
)
def test_groups_are_the_best_of_all_there_are(
    cells: list[tuple[int, int]],
    rising: bool,
    price: float,
    least: int,
    shrinkage: float,
    overall: float | None,
) -> None:
    bads = np.array([bad for bad, _ in cells], float)
    rows = bads + [good for _, good in cells]
    drawn_to = float(bads.sum() / rows.sum()) if overall is None else overall

    def gain(limits: tuple[int, ...]) -> float | None:
        edges = (0, *limits, len(rows))
        n = np.array([rows[a:b].sum() for a, b in pairwise(edges)])
        b = np.array([bads[a:b].sum() for a, b in pairwise(edges)])
        share = shares(n, b, drawn_to, shrinkage)
        steps = np.diff(share) if rising else -np.diff(share)
        if (steps <= 0).any() or (len(n) > 1 and (n < least).any()):
            return None
        return float(np.sum(b * np.log(share) + (n - b) * np.log1p(-share))) - price * len(limits)

    possible = [c for size in range(len(rows)) for c in combinations(range(1, len(rows)), size)]
    single = gain(())
    assert single is not None
    best = max(value for value in map(gain, possible) if value is not None) - single
    found, value = grouped(rows, bads, drawn_to, rising=rising, price=price, least=least, shrinkage=shrinkage)
    assert value == pytest.approx(best, abs=1e-9)
    own = gain(tuple(found))
    assert own is not None
    assert own - single == pytest.approx(best, abs=1e-9)


def sample(seed: int, n: int = 2_000) -> tuple[np.ndarray, np.ndarray]:
    """Values of which larger ones are safer, and labels."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=n)
    return values, (rng.random(n) < 1 / (1 + np.exp(1 + values))).astype(np.int8)


numbers = st.one_of(
    st.floats(allow_nan=False), st.integers(-3, 3).map(float), st.just(math.nan), st.floats(-1, 1)
)


@settings(max_examples=100)
@given(
    st.lists(st.tuples(numbers, st.booleans()), min_size=5, max_size=120).filter(
        lambda rows: 0 < sum(bad for _, bad in rows) < len(rows)
    ),
    st.sampled_from([-1, 0, 1]),
)
def test_weights_are_monotone_whatever_the_data(rows: list[tuple[float, bool]], direction: int) -> None:
    values = pa.array([v for v, _ in rows], pa.float64())
    label = np.array([bad for _, bad in rows], np.int8)
    found = fit_bins("x", values, label, direction=direction)
    steps = np.sign(np.diff(found.woe[1:]))
    assert set(steps) <= {found.direction}
    assert direction == 0 or found.direction in (0, direction)
    assert all(math.isfinite(cut) for cut in found.cuts)
    assert list(found.cuts) == sorted(set(found.cuts))
    assert sum(found.rows) == len(rows)
    assert sum(found.bads) == label.sum()
    # a bin that was cut holds rows
    assert not found.cuts or min(found.rows[1:]) > 0


def test_weights_stay_monotone_when_missing_values_have_another_risk() -> None:
    values = [0.0, 0.0, None, 0.0, None, 0.0, 0.0, 1.0, None, 0.0, None]
    label = np.array([0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0], np.int8)
    assert fit_bins("x", pa.array(values), label, direction=-1).woe[-1] < 0


def test_direction_is_learned_or_kept() -> None:
    values, label = sample(1)
    assert fit_bins("x", pa.array(values), label).direction == 1
    assert fit_bins("x", pa.array(-values), label).direction == -1
    against = fit_bins("x", pa.array(values), label, direction=-1)
    assert (against.cuts, against.direction) == ((), 0)
    assert max(map(abs, against.woe)) < 1e-9


def test_weights_have_the_sign_of_safety_and_few_rows_say_little() -> None:
    values, label = sample(2)
    found = fit_bins("x", pa.array(values), label)
    assert found.woe[1] < 0 < found.woe[-1]
    assert found.woe[0] == pytest.approx(0)  # nobody is missing
    values[:3], label[:3] = math.nan, 1  # three missing, all bad
    few = fit_bins("x", pa.array(values), label)
    assert few.rows[0] == few.bads[0] == 3
    overall = label.mean()
    drawn = (3 + bins.SHRINKAGE * overall) / (3 + bins.SHRINKAGE)
    expected = math.log(overall / (1 - overall)) - math.log(drawn / (1 - drawn))
    assert few.woe[0] == pytest.approx(expected)


def test_cuts_are_readable_and_whole_for_whole_numbers() -> None:
    values, label = sample(3, 20_000)
    found = fit_bins("x", pa.array(values * 1234.5678), label)
    assert len(found.cuts) > 4
    assert all(len(f"{cut:g}") <= 6 and float(f"{cut:.3g}") == cut for cut in found.cuts)
    whole = fit_bins("x", pa.array(np.floor(values * 50).astype(np.int64)), label)
    assert all(cut == round(cut) for cut in whole.cuts)
    assert fit_bins("flag", pa.array((values > 0).astype(np.int8)), label).cuts == (1.0,)


def test_a_value_most_rows_share_gets_a_bin_of_its_own() -> None:
    values, label = sample(4)
    values = np.where(values < 0.5, 0.0, values)
    found = fit_bins("x", pa.array(values), label)
    codes = found.encode(pa.array(values))
    assert (codes[values == 0] == 1).all()
    assert (codes[values > 0] > 1).all()


def test_categories_group_rare_ones_share_a_bin_and_unknown_ones_join_them() -> None:
    rng = np.random.default_rng(5)
    names = rng.choice(["good", "fine", "bad", "rare 1", "rare 2"], 3_000, p=[0.4, 0.3, 0.295, 0.003, 0.002])
    risk = {"good": 0.05, "fine": 0.05, "bad": 0.5}
    label = (rng.random(3_000) < [risk.get(name, 0.2) for name in names]).astype(np.int8)
    column = pa.array(np.where(np.arange(3_000) % 100 == 0, None, names), pa.string())
    found = fit_bins("kind", column, label)
    assert found.categories[-1] == ("bad",)
    assert sorted(sum(found.categories, ())) == ["bad", "fine", "good"]
    assert found.rows[0] == 30
    assert found.woe[1] > 0 > found.woe[-2]
    codes = found.encode(pa.array(["bad", "rare 1", "never seen", None]).dictionary_encode())
    assert codes.tolist() == [len(found.categories), len(found.categories) + 1, len(found.categories) + 1, 0]


@pytest.mark.parametrize("values", [[1.0] * 50, [None] * 50, [math.inf] * 50])
def test_a_feature_that_does_not_vary_says_nothing(values: list[float | None]) -> None:
    label = np.arange(50, dtype=np.int8) % 2
    found = fit_bins("x", pa.array(values, pa.float64()), label)
    assert isinstance(found, Bins)
    assert (found.cuts, found.direction) == ((), 0)
    assert max(map(abs, found.woe)) < 1e-9
