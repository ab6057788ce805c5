"""The stability index: its value by hand, its noise by simulation, its bins at the awkward places."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quayside.kycc.monitoring import numeric_counts, stability_index
from quayside.kycc.monitoring.index import noise, share_noise

pytestmark = pytest.mark.unit


def test_value_is_the_textbook_sum() -> None:
    index = stability_index([5000, 3000, 2000], [4000, 3000, 3000])
    by_hand = (0.4 - 0.5) * math.log(0.4 / 0.5) + (0.3 - 0.2) * math.log(0.3 / 0.2)
    assert index.psi == pytest.approx(by_hand, abs=2e-4)  # half a row per bin
    assert (index.bins, index.reference_rows, index.current_rows) == (3, 10_000, 10_000)


def test_noise_is_the_chi_square_quantile() -> None:
    # 99 % of χ²(9) is 21.666
    assert noise(1000, 1000, 10) == pytest.approx(21.666 * 2 / 1000, rel=1e-4)
    assert noise(1000, 1000, 10, comparisons=20) > noise(1000, 1000, 10)


@pytest.mark.parametrize("sizes", [(60, 60), (5000, 80), (1000, 1000)])
@pytest.mark.parametrize("kind", ["continuous", "counts", "flag", "half zero"])
def test_noise_bounds_what_one_population_gives(sizes: tuple[int, int], kind: str) -> None:
    """At 99 % confidence about 1 % of 600 comparisons lie above; 4 % would be 24, seven standard deviations off."""
    rng = np.random.default_rng(7)
    draws = {
        "continuous": lambda n: rng.normal(size=n),
        "counts": lambda n: rng.poisson(4, n).astype(float),
        "flag": lambda n: (rng.random(n) < 0.1).astype(float),
        "half zero": lambda n: np.where(rng.random(n) < 0.5, 0, rng.exponential(size=n)),
    }
    above = 0
    for _ in range(600):
        index = stability_index(*numeric_counts(*(draws[kind](n) for n in sizes)))
        above += index.psi > index.noise
    assert above < 24


def test_a_small_sample_does_not_turn_red_by_chance() -> None:
    rng = np.random.default_rng(3)
    indices = [
        stability_index(*numeric_counts(rng.normal(size=5000), rng.normal(size=40))) for _ in range(300)
    ]
    assert max(index.psi for index in indices) > 0.25, "the bare cut-off would have cried wolf"
    assert sum(index.status == "shifted" for index in indices) <= 12
    assert {"within noise"} <= {index.status for index in indices}


def test_a_large_sample_is_not_excused() -> None:
    rng = np.random.default_rng(4)
    index = stability_index(*numeric_counts(rng.normal(size=20_000), rng.normal(0.6, 1, 20_000)))
    assert index.status == "shifted"
    assert index.noise < 0.01
    slight = stability_index(*numeric_counts(rng.normal(size=20_000), rng.normal(0.36, 1, 20_000)))
    assert slight.status == "watch"


@pytest.mark.parametrize(
    ("reference", "current", "status"),
    [
        ([0.0] * 500, [0.0] * 500, "stable"),
        ([0.0] * 500, [1.0] * 500, "shifted"),
        ([1.0] * 500, [0.0] * 500, "shifted"),
        ([np.nan] * 500, [np.nan] * 500, "stable"),
        ([np.nan] * 500, [3.0] * 500, "shifted"),
        ([3.0] * 500, [np.nan] * 200 + [3.0] * 300, "shifted"),
        ([0.0, 1.0] * 250, [0.0] * 50 + [1.0] * 450, "shifted"),
        ([1.0] * 3, [2.0] * 3, "too few"),
        ([], [2.0] * 30, "too few"),
    ],
)
def test_constant_missing_and_empty_columns(
    reference: list[float], current: list[float], status: str
) -> None:
    index = stability_index(*numeric_counts(np.array(reference), np.array(current)))
    assert index.status == status


def test_a_common_value_may_move_a_hair() -> None:
    """A least PageRank is shared by many parties and differs from batch to batch in the third digit."""
    rng = np.random.default_rng(5)

    def ranks(least: float) -> np.ndarray:
        return np.where(rng.random(2000) < 0.3, least, least + rng.exponential(0.5, 2000))

    assert stability_index(*numeric_counts(ranks(0.4226), ranks(0.4247))).status == "stable"
    assert stability_index(*numeric_counts(ranks(0.4247), ranks(0.4226))).status == "stable"


@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=30),
    st.lists(st.integers(0, 400), min_size=1, max_size=30),
)
def test_any_counts_give_a_finite_index(one: list[int], other: list[int]) -> None:
    size = max(len(one), len(other))
    reference, current = (counts + [0] * (size - len(counts)) for counts in (one, other))
    index = stability_index(reference, current)
    assert math.isfinite(index.psi)
    assert index.psi >= 0
    assert index.bins <= size
    assert (index.reference_rows, index.current_rows) == (sum(reference), sum(current))
    same = stability_index(reference, reference)
    assert same.psi == pytest.approx(0, abs=1e-12)


def test_noise_of_a_share_covers_chance() -> None:
    rng = np.random.default_rng(6)
    bound = share_noise((200, 1000), (40, 200))
    differences = rng.binomial(1000, 0.2, 4000) / 1000 - rng.binomial(200, 0.2, 4000) / 200
    assert 0.003 < np.mean(np.abs(differences) > bound) < 0.02
