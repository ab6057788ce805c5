"""Exact amounts: credits with six decimals, money in whole cents, both rounded half to even. Never a float."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from quayside.foundation.errors import UsageError
from quayside.robosystems.names import shown

#: The smallest part of a credit that is booked.
STEP: Final = Decimal("0.000001")
#: What an account can hold.
LARGEST: Final = Decimal(10) ** 18 - STEP


def credits_of(value: Decimal | int | str, what: str = "amount") -> Decimal:
    """A positive number of credits, exact to `STEP`.

    Raises:
        UsageError: it is not a number, not positive, too large, or finer than `STEP`.
    """
    try:
        amount = Decimal(value)
    except (ArithmeticError, ValueError, TypeError):
        raise UsageError(f"The {what} {shown(str(value))} is not a number of credits.") from None
    if not amount.is_finite() or not 0 < amount <= LARGEST:
        raise UsageError(f"The {what} has to be above 0 and below 10^18 credits, not {str(value)[:40]}.")
    exact = amount.quantize(STEP)
    if exact != amount:
        raise UsageError(
            f"The {what} {value} is finer than {STEP} credits, the smallest part that is booked."
        )
    return exact


def half_even(numerator: Decimal | int, denominator: Decimal | int, places: int) -> Decimal:
    """The quotient of two exact numbers, rounded half to even. As ``robosystems.half_even`` in PostgreSQL."""
    from fractions import Fraction

    scaled = Fraction(numerator) * 10**places / Fraction(denominator)
    return Decimal(round(scaled)).scaleb(-places)
