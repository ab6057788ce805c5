"""Logistic regression with coefficients that cannot turn negative.

Weights of evidence carry the direction of each characteristic; a negative coefficient would turn it round, and a better
value would cost points. So the coefficients are bounded at zero, which scikit-learn's logistic regression does not
offer. Each Newton step is a small quadratic problem with the same bounds, solved exactly; about six of them are enough, and
NumPy alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from quayside.kycc.training.metrics import Floats, Labels

#: Penalty of the squared coefficients; as if a few more rows had said nothing.
RIDGE: Final = 1.0
MAX_STEPS: Final = 100
TOLERANCE: Final = 1e-9
#: Multiplications up to which OpenBLAS uses one thread.
SMALL_PRODUCT: Final = 4 * 65_536
#: Far above what any problem needs; an end for what rounding might let go round in circles.
MAX_EXCHANGES: Final = 1_000


@dataclass(frozen=True, eq=False)
class Fit:
    """Log odds of bad = intercept + x @ coefficients."""

    intercept: float
    coefficients: Floats

    def log_odds(self, x: Floats) -> Floats:
        return self.intercept + _times(x, self.coefficients)


def fit(x: Floats, label: Labels, ridge: float = RIDGE, *, bounded: bool = True) -> Fit:
    """Maximum likelihood less ``ridge / 2 · Σ coefficient²``, coefficients ≥ 0 when `bounded`.

    Args:
        x: shape (n, k).
        label: 0 or 1, both present; shape (n,).
        ridge: keeps near-collinear characteristics from trading weight; the intercept is free.
    """
    n, k = x.shape
    share = float(label.mean())
    design = np.concatenate([np.ones((n, 1)), x], axis=1)  # the intercept stands in column 0
    penalty = np.full(k + 1, ridge)
    penalty[0] = 1e-9  # keeps the system solvable and weighs nothing
    beta = np.zeros(k + 1)
    beta[0] = np.log(share / (1 - share))
    value = _objective(design, label, beta, penalty)
    for _ in range(MAX_STEPS):
        p = probability(_times(design, beta))
        gradient = np.einsum("nk,n->k", design, p - label) + penalty * beta
        hessian = _gram(design * np.sqrt(p * (1 - p))[:, None]) + np.diag(penalty)
        target = _lowest(hessian, hessian @ beta - gradient, beta > 0, bounded)
        beta, found = _toward(target, design, label, beta, penalty, value)
        if value - found <= TOLERANCE * (1 + abs(value)):
            break
        value = found
    return Fit(float(beta[0]), beta[1:])


def probability(log_odds: Floats) -> Floats:
    """1 / (1 + exp(−log odds)), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * log_odds))


# The products over all rows are kept from OpenBLAS's threads, which wait for one another when other programs use the
# cores: training on 100,000 rows took 20 s instead of 3 on a busy machine, and no less time on a quiet one.


def _times(x: Floats, coefficients: Floats) -> Floats:
    """``x @ coefficients``, shape (n,)."""
    return np.einsum("nk,k->n", x, coefficients)


def _gram(x: Floats) -> Floats:
    """``x.T @ x``, in blocks small enough for one thread."""
    n, k = x.shape
    block = max(1, SMALL_PRODUCT // k**2)
    whole = n - n % block
    blocks = x[:whole].reshape(-1, block, k)
    rest = x[whole:]
    return np.matmul(blocks.transpose(0, 2, 1), blocks).sum(axis=0) + rest.T @ rest


def _lowest(hessian: Floats, linear: Floats, free: npt.NDArray[np.bool_], bounded: bool) -> Floats:
    """Minimum of ½·β'Hβ − linear'β, every β but the first ≥ 0 when `bounded`.

    By block principal pivoting (Júdice and Pires 1994): solve for the free ones, then exchange all that ended on the wrong
    side; one at a time when that no longer gets fewer.
    """
    k = len(linear)
    if not bounded:
        return np.linalg.solve(hessian, linear).astype(np.float64)
    beta, free = np.zeros(k), free | (np.arange(k) == 0)
    fewest, patience = k + 1, 3
    tolerance = 1e-10 * (1 + np.abs(linear).max())
    for _ in range(MAX_EXCHANGES):
        beta[~free] = 0
        beta[free] = np.linalg.solve(hessian[np.ix_(free, free)], linear[free])
        wrong = np.where(free, beta < 0, hessian @ beta - linear < -tolerance)
        wrong[0] = False
        count = int(wrong.sum())
        if count == 0:
            break
        if count < fewest:
            fewest, patience = count, 3
        elif patience > 0:
            patience -= 1
        else:
            wrong[: int(np.flatnonzero(wrong)[-1])] = False
        free = free ^ wrong
    return np.concatenate([beta[:1], np.maximum(beta[1:], 0)])


def _toward(
    target: Floats, design: Floats, label: Labels, beta: Floats, penalty: Floats, value: float
) -> tuple[Floats, float]:
    """The first point on the way back from `target` to `beta` where the objective is lower, and the objective there."""
    for halving in range(40):
        tried = beta + (target - beta) * 0.5**halving
        found = _objective(design, label, tried, penalty)
        if found < value:
            return tried, found
    return beta, value


def _objective(design: Floats, label: Labels, beta: Floats, penalty: Floats) -> float:
    log_odds = _times(design, beta)
    # log(1 + exp(z)) − y·z, stable for large |z|
    loss = np.logaddexp(0.0, log_odds) - label * log_odds
    return float(loss.sum() + 0.5 * np.sum(penalty * beta**2))
