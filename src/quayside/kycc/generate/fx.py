"""Exchange rates: a smooth, invented series per currency that depends on the day alone.

Two batches that share a day therefore agree on its rate, whatever their seeds, and their rate files can be loaded into
one table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DAY: Final = 86_400

#: Units of US dollar for one unit of the currency around which the series swings.
CURRENCIES: Final[dict[str, float]] = {
    "USD": 1.0,
    "EUR": 1.08,
    "GBP": 1.27,
    "CHF": 1.12,
    "CAD": 0.73,
    "SGD": 0.75,
    "AED": 0.2723,
    "INR": 0.0119,
    "ZAR": 0.055,
    "BRL": 0.19,
    "NPR": 0.0075,
}
#: Swings of a series: length in days, amplitude as a share of the rate.
_SWINGS: Final = ((97.0, 0.020), (23.0, 0.008), (5.3, 0.003))


def rates(currency: str, base: str, days: NDArray[np.int64]) -> NDArray[np.float64]:
    """Units of `base` for one unit of `currency` on each day (days since 1970 UTC), rounded to 8 decimals.

    Amount × rate is the amount in the base currency.
    """
    return np.round(_in_dollars(currency, days) / _in_dollars(base, days), 8)


def _in_dollars(currency: str, days: NDArray[np.int64]) -> NDArray[np.float64]:
    level = np.full(len(days), CURRENCIES[currency])
    if currency == "USD":
        return level
    phase = sum(currency.encode())
    for length, amplitude in _SWINGS:
        level *= 1 + amplitude * np.sin(2 * np.pi * days / length + phase)
    return level
