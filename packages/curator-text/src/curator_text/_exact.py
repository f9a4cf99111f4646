"""Computes powers that are the same on every processor.

For two floats, ``**`` calls the C library, whose last bit depends on its version and on whether the processor fuses
multiplication and addition. Python's decimals are computed digit by digit from integers; their cost, about ten
microseconds, is small beside the models that need them.
"""

from __future__ import annotations

from decimal import Context, Decimal

# More digits than the 17 of a float, so that these digits alone decide how the result is rounded to one.
_DIGITS = Context(prec=25, Emin=-999_999, Emax=999_999)


def power(base: float, exponent: float) -> float:
    """``base ** exponent`` for a base above 0."""
    return float(_DIGITS.power(Decimal(base), Decimal(exponent)))


def power_of_ten(exponent: float) -> float:
    """``10.0 ** exponent``."""
    return float(_DIGITS.power(Decimal(10), Decimal(exponent)))
