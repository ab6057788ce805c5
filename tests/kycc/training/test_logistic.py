from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from quayside.kycc.training import logistic

pytestmark = pytest.mark.unit


def problem(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Correlated columns, some almost equal, whose true weights have either sign."""
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(60, 600)), int(rng.integers(1, 25))
    x = rng.normal(size=(n, 3)) @ rng.normal(size=(3, k)) + rng.normal(size=(n, k)) * rng.choice([0.01, 1.0])
    odds = x @ rng.normal(size=k) * 0.5 + rng.normal()
    label = (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(np.int8)
    label[:2] = (0, 1)
    return x, label


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_it_finds_the_minimum_a_general_optimiser_finds(seed: int, bounded: bool) -> None:
    x, label = problem(seed)
    found = logistic.fit(x, label, 1.0, bounded=bounded)
    design, penalty = np.c_[np.ones(len(x)), x], np.r_[1e-9, np.ones(x.shape[1])]

    def objective(beta: np.ndarray) -> tuple[float, np.ndarray]:
        p = logistic.probability(design @ beta)
        return logistic._objective(design, label, beta, penalty), design.T @ (p - label) + penalty * beta

    limits = [(None, None), *[((0 if bounded else None), None)] * x.shape[1]]
    best = minimize(
        objective,
        np.zeros(len(penalty)),
        jac=True,
        method="L-BFGS-B",
        bounds=limits,
        options={"maxiter": 5000},
    )
    reached = objective(np.r_[found.intercept, found.coefficients])[0]
    assert reached <= best.fun + 1e-6 * (1 + abs(best.fun))
    assert not bounded or (found.coefficients >= 0).all()


def test_nothing_but_the_intercept_when_every_sign_is_wrong() -> None:
    x = np.arange(200.0)[:, None] / 100
    label = (np.arange(200) < 50).astype(np.int8)
    found = logistic.fit(x, label)
    assert found.coefficients.tolist() == [0]
    assert logistic.probability(found.log_odds(x)) == pytest.approx(0.25)


def test_probability_does_not_overflow() -> None:
    assert logistic.probability(np.array([-1e4, 0.0, 1e4])).tolist() == [0, 0.5, 1]
