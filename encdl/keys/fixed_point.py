"""Vectorised 64-bit fixed-point arithmetic: the same integers on every machine.

Every array is uint64 of one shape. Functions write into `out` and may overwrite the `spare` arrays, so that
a map's inner loop allocates nothing. Constants are 0-d arrays: numpy converts a Python integer on each call,
which costs as much as the operation itself.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]


def constant(value: int) -> Words:
    """A 0-d uint64 array that holds `value` (0 <= value < 2**64)."""
    return np.array(value, dtype=np.uint64)


LOW_HALF: Final = constant(0xFFFFFFFF)
HALF: Final = constant(1 << 63)
ONE: Final = constant(1)
TWO: Final = constant(2)
BITS_30: Final = constant(30)
BITS_31: Final = constant(31)
BITS_32: Final = constant(32)
BITS_33: Final = constant(33)


def square_high(value: Words, out: Words, spare_a: Words, spare_b: Words) -> None:
    """Write floor(value**2 / 2**64), the square of a fraction of 2**64, to `out`.

    With value = a * 2**32 + b the square is a*a * 2**64 + a*b * 2**33 + b*b, and
    floor((a*b * 2**33 + b*b) / 2**64) = (a*b + (b*b >> 33)) >> 31, which never overflows 64 bits.
    `out` may be `value`.
    """
    np.right_shift(value, BITS_32, out=spare_a)
    np.bitwise_and(value, LOW_HALF, out=spare_b)
    np.multiply(spare_a, spare_a, out=out)
    np.multiply(spare_a, spare_b, out=spare_a)
    np.multiply(spare_b, spare_b, out=spare_b)
    np.right_shift(spare_b, BITS_33, out=spare_b)
    np.add(spare_a, spare_b, out=spare_a)
    np.right_shift(spare_a, BITS_31, out=spare_a)
    np.add(out, spare_a, out=out)


def multiply_slope(value: Words, slope: Words, out: Words, spare: Words) -> None:
    """Write floor(value * slope / 2**30) to `out`: `slope` is a factor with 30 fractional bits.

    The caller keeps slope <= 2**32 and the result below 2**64. With value = a * 2**32 + b the result is
    exactly (a*slope << 2) + (b*slope >> 30). `spare` may be `value`, `out` may not.
    """
    np.bitwise_and(value, LOW_HALF, out=out)
    np.right_shift(value, BITS_32, out=spare)
    np.multiply(spare, slope, out=spare)
    np.multiply(out, slope, out=out)
    np.left_shift(spare, TWO, out=spare)
    np.right_shift(out, BITS_30, out=out)
    np.add(out, spare, out=out)


def rotate_left(value: Words, left: Words, right: Words, spare: Words) -> None:
    """Rotate `value` in place by `left` bits, where `left` and `right` are constants that add up to 64."""
    np.left_shift(value, left, out=spare)
    np.right_shift(value, right, out=value)
    np.bitwise_or(value, spare, out=value)


def absolute_doubled(signed: Words, out: Words) -> None:
    """Write 2 * |s| to `out`, where s is `signed` read as two's complement (mod 2**64: 2 * 2**63 gives 0)."""
    np.absolute(signed.view(np.int64), out=out.view(np.int64))
    np.left_shift(out, ONE, out=out)


def spread_sign(value: Words, out: Words) -> None:
    """Write the top bit of `value` to every bit of `out`, which may be `value`."""
    np.right_shift(value.view(np.int64), _SIGN, out=out.view(np.int64))


_SIGN: Final = np.array(63, dtype=np.int64)
