"""Computes powers that are the same on every processor.

For two floats, ``**`` calls the C library, and the last bit of the result depends on its version and on whether the
processor fuses multiplication and addition. Python computes decimals digit by digit from integers. This takes about ten
microseconds, which is little compared with the models that need it.
"""

from __future__ import annotations

from decimal import Context, Decimal

# More than the 17 digits of a float, so that rounding the result to a float is exact.
_DIGITS = Context(prec=25, Emin=-999_999, Emax=999_999)


def power(base: float, exponent: float) -> float:
    """``base ** exponent`` for a base above 0."""
    return float(_DIGITS.power(Decimal(base), Decimal(exponent)))


def power_of_ten(exponent: float) -> float:
    """``10.0 ** exponent``."""
    return float(_DIGITS.power(Decimal(10), Decimal(exponent)))
