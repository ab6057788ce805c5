"""Figures against their definitions, written out slowly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quayside.kycc.training import metrics

pytestmark = pytest.mark.unit

# few distinct risks, so that ties are common
samples = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=4, max_size=40).filter(
    lambda rows: sum(bad for bad, _ in rows) >= 2 and sum(not bad for bad, _ in rows) >= 2
)


def arrays(rows: list[tuple[bool, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([bad for bad, _ in rows], np.int8), np.array([risk for _, risk in rows], float)


def wins(label: np.ndarray, risk: np.ndarray) -> np.ndarray:
    """1, ½ or 0 for each pair of a bad (row) and a good (column)."""
    bad, good = risk[label == 1][:, None], risk[label == 0][None, :]
    return (bad > good) + 0.5 * (bad == good)


@given(samples)
def test_auc_and_its_error_are_those_of_all_pairs(rows: list[tuple[bool, int]]) -> None:
    label, risk = arrays(rows)
    pairs = wins(label, risk)
    variance = pairs.mean(1).var(ddof=1) / pairs.shape[0] + pairs.mean(0).var(ddof=1) / pairs.shape[1]
    assert metrics.auc(label, risk) == pytest.approx(pairs.mean())
    assert metrics.auc_with_error(label, risk) == pytest.approx((pairs.mean(), math.sqrt(variance)))


@given(samples, st.randoms(use_true_random=False))
def test_paired_comparison_uses_the_covariance_of_the_pairs(rows: list[tuple[bool, int]], random) -> None:
    label, first = arrays(rows)
    second = np.array([random.randint(0, 6) for _ in rows], float)
    a, b = wins(label, first), wins(label, second)
    variance = 0.0
    for axis, n in ((1, a.shape[0]), (0, a.shape[1])):
        covariance = np.cov(a.mean(axis), b.mean(axis))
        variance += (covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) / n
    found = metrics.compare_auc(label, first, second)
    assert (found.first, found.second) == pytest.approx((a.mean(), b.mean()))
    assert found.error == pytest.approx(math.sqrt(max(variance, 0)), abs=1e-7)
    assert found.difference == pytest.approx(b.mean() - a.mean())


@given(samples)
def test_roc_ks_and_precision(rows: list[tuple[bool, int]]) -> None:
    label, risk = arrays(rows)
    false_rate, true_rate = metrics.roc_curve(label, risk)
    assert np.trapezoid(true_rate, false_rate) == pytest.approx(metrics.auc(label, risk))
    steps, found, precision = sorted(set(risk), reverse=True), 0.0, 0.0
    ks = 0.0
    for limit in steps:
        taken = risk >= limit
        recall = label[taken].sum() / label.sum()
        precision += (recall - found) * label[taken].mean()
        found = recall
        ks = max(ks, recall - (1 - label[taken]).sum() / (1 - label).sum())
    assert metrics.average_precision(label, risk) == pytest.approx(precision)
    found_all = metrics.measure(label, metrics.midranks(risk) / (len(risk) + 1))
    assert found_all.ks == pytest.approx(max(ks, 0))
    assert found_all.gini == pytest.approx(2 * found_all.auc - 1)


def test_midranks_and_rank_correlation() -> None:
    assert metrics.midranks(np.array([3, 1, 3, 2])).tolist() == [3.5, 1, 3.5, 2]
    assert metrics.rank_correlation(np.array([1, 2, 3]), np.array([10, 20, 90])) == pytest.approx(1)
    assert metrics.rank_correlation(np.array([1, 2, 3]), np.array([5, 4, -9])) == pytest.approx(-1)
    assert metrics.rank_correlation(np.array([1, 2, 3]), np.array([7, 7, 7])) == 0


def test_calibration_groups_cover_the_rows_and_intervals_hold_the_share() -> None:
    rng = np.random.default_rng(1)
    risk = rng.random(5_000)
    label = (rng.random(5_000) < risk).astype(np.int8)
    table = metrics.calibration(label, risk)
    assert sum(group.rows for group in table) == 5_000
    assert all(group.low <= group.observed <= group.high for group in table)
    assert all(abs(group.predicted - group.observed) < 0.08 for group in table)
    assert metrics.calibration(label, np.full(5_000, 0.5))[0].rows == 5_000


def test_wilson_interval_is_the_published_one() -> None:
    # 10 of 100, Wilson without continuity correction: 0.0552 to 0.1744 (Newcombe 1998 gives the method)
    assert metrics.wilson(10, 100) == pytest.approx((0.0552, 0.1744), abs=5e-5)
    assert metrics.wilson(0, 20)[0] == 0
    assert metrics.wilson(20, 20)[1] == 1


def test_stability_index() -> None:
    same = np.array([100, 200, 700])
    assert metrics.psi(same, same * 3) == pytest.approx(0, abs=1e-4)
    moved = metrics.psi(np.array([500, 500]), np.array([250, 750]))
    assert moved == pytest.approx(0.25 * math.log(3), rel=0.01)
    assert math.isfinite(metrics.psi(np.array([10, 0]), np.array([0, 10])))
