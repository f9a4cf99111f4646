"""Powers that are the same on every processor.

``**`` of two floats asks the C library, whose last bit depends on its version and on whether the processor has fused
multiplication. Python's decimals are computed digit by digit from integers; their cost, some ten microseconds, is small
beside the models that need them.
"""

from __future__ import annotations

from decimal import Context, Decimal

# More digits than the 17 of a float, so that rounding to one is a matter of these digits alone.
_DIGITS = Context(prec=25, Emin=-999_999, Emax=999_999)


def power(base: float, exponent: float) -> float:
    """``base ** exponent`` for a base above 0."""
    return float(_DIGITS.power(Decimal(base), Decimal(exponent)))


def power_of_ten(exponent: float) -> float:
    """``10.0 ** exponent``."""
    return float(_DIGITS.power(Decimal(10), Decimal(exponent)))
