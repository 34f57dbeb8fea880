"""One-dimensional chaotic maps of the unit interval, in fixed point: the f that `encdl.keys.sequences` couples.

A number u of [0, 1) is the integer floor(u * 2**64); values wrap at 1. Every product is exact before its one
floor, so that any implementation of the same formula gives the same integers.

Every array is uint64 of one shape. The functions of the arithmetic write into `out` and may overwrite the `spare`
arrays, so that a map's inner loop allocates nothing. Constants are 0-d arrays: numpy converts a Python integer on each
call, which costs as much as the operation itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]


constant = partial(np.array, dtype=np.uint64)
"""A 0-d array that holds a number of 64 bits."""


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

Evaluate = Callable[[Words, Words], None]
"""f(u, out): writes the map's value at u to `out`, and leaves u as it is."""


class UnitMap(ABC):
    """A map of [0, 1) to itself.

    Attributes:
        name: what users call it.
        centred: whether it takes its argument less 1/2, so that iterating it alone takes that off in between.
        parameters: random 64-bit control parameters that each lane takes from its seed.
        code: the map's number in coupled_maps.c.
        attack_bits: the best attack known on a lane takes 2**attack_bits guesses (docs/keys.md).
    """

    name: ClassVar[str]
    centred: ClassVar[bool] = False
    parameters: ClassVar[int] = 0
    code: ClassVar[int]
    attack_bits: ClassVar[int] = 64

    @abstractmethod
    def prepare(self, parameters: Words, spare_a: Words, spare_b: Words) -> Evaluate:
        """Bind control parameters, (self.parameters, ...), and two work arrays (...): any shape, a map a number."""

    def constants(self, parameters: Words) -> Sequence[Words]:
        """What coupled_maps.c makes of the parameters of a map that has any: arrays (1, ...)."""
        raise NotImplementedError


class Logistic(UnitMap):
    """The logistic map at r = 4: f(u) = 4 u (1 - u) = 1 - (2s)**2 for u = s + 1/2.

    The argument is read as s, in two's complement: the coupled pair then needs no shift by 1/2.
    Source: R. M. May, Nature 261 (1976) 459.
    Integers: f = 2**64 - 1 - floor(d**2 / 2**64), d = 2|s| mod 2**64.
    """

    name = "logistic"
    centred = True
    code = 0

    def prepare(self, parameters: Words, spare_a: Words, spare_b: Words) -> Evaluate:
        """See `UnitMap.prepare`."""

        def evaluate(u: Words, out: Words) -> None:
            absolute_doubled(u, out)
            square_high(out, out, spare_a, spare_b)
            np.invert(out, out=out)

        return evaluate


class Chebyshev(UnitMap):
    """The Chebyshev map of degree 4, T4(x) = cos(4 arccos x) = T2(T2(x)), T2(x) = 2 x**2 - 1 on [-1, 1).

    x is the argument in two's complement with 63 fractional bits. Integers:
    T2(x) = floor(d**2 / 2**64) - 2**63 mod 2**64, d = 2|x| mod 2**64.
    Source: T. Geisel and V. Fairen, Phys. Lett. A 105 (1984) 263.
    """

    name = "chebyshev"
    code = 1

    def prepare(self, parameters: Words, spare_a: Words, spare_b: Words) -> Evaluate:
        """See `UnitMap.prepare`."""

        def evaluate(u: Words, out: Words) -> None:
            absolute_doubled(u, out)
            square_high(out, out, spare_a, spare_b)
            np.bitwise_xor(out, HALF, out=out)
            absolute_doubled(out, out)
            square_high(out, out, spare_a, spare_b)
            np.bitwise_xor(out, HALF, out=out)

        return evaluate


class SkewTent(UnitMap):
    """The skew tent map: u / q below the keyed break point q, (1 - u) / (1 - q) from there on.

    Break points and slopes: see `_Segments`. Integers: floor(v * slope / 2**30) with
    v = u below q * 2**64 and v = 2**64 - 1 - u from there on.
    Source: M. Hasler and Y. L. Maistrenko, IEEE Trans. Circuits Syst. I 44 (1997) 856.
    """

    name = "tent"
    parameters = 1
    code = 2
    attack_bits = 64 + 30

    def prepare(self, parameters: Words, spare_a: Words, spare_b: Words) -> Evaluate:
        """See `UnitMap.prepare`."""
        segments = _Segments(parameters[0])

        def evaluate(u: Words, out: Words) -> None:
            np.right_shift(u, ONE, out=out)
            np.subtract(out, segments.break_point, out=out)
            spread_sign(out, out)  # all ones below the break point, else zero
            np.bitwise_and(out, segments.left_or_right, out=spare_b)
            np.bitwise_xor(spare_b, segments.right, out=spare_b)
            np.bitwise_xor(out, u, out=spare_a)
            np.invert(spare_a, out=spare_a)
            multiply_slope(spare_a, spare_b, out, spare=spare_a)

        return evaluate

    def constants(self, parameters: Words) -> Sequence[Words]:
        """See `UnitMap.constants`."""
        return _Segments(parameters).constants()


class PiecewiseLinear(UnitMap):
    """The piecewise linear chaotic map: for e = 1 - |1 - 2u|, e / q below a keyed q, then (e - q) / (1 - q).

    That is the usual four-segment form F(u, p) with p = q / 2, even about u = 1/2. Break points and slopes:
    see `_Segments`. Integers: e = u below 2**63, 2**64 - 1 - u from there on; floor(2v * slope / 2**30) with
    v = e below q * 2**63 and v = e - q * 2**63 from there on.
    Source: H. Zhou and X.-T. Ling, IEEE Trans. Circuits Syst. I 44 (1997) 268.
    """

    name = "piecewise_linear"
    parameters = 1
    code = 3
    attack_bits = 64 + 30

    def prepare(self, parameters: Words, spare_a: Words, spare_b: Words) -> Evaluate:
        """See `UnitMap.prepare`."""
        segments = _Segments(parameters[0])

        def evaluate(u: Words, out: Words) -> None:
            spread_sign(u, out)
            np.bitwise_xor(out, u, out=spare_a)
            np.subtract(spare_a, segments.break_point, out=spare_a)
            spread_sign(spare_a, out)  # all ones below the break point, else zero
            np.bitwise_and(out, segments.left_or_right, out=spare_b)
            np.bitwise_xor(spare_b, segments.right, out=spare_b)
            np.bitwise_and(out, segments.break_point, out=out)
            np.add(spare_a, out, out=spare_a)
            np.left_shift(spare_a, ONE, out=spare_a)
            multiply_slope(spare_a, spare_b, out, spare=spare_a)

        return evaluate

    def constants(self, parameters: Words) -> Sequence[Words]:
        """See `UnitMap.constants`."""
        return _Segments(parameters).constants()


_SMALLEST = constant(1 << 29)
_WHOLE = constant(1 << 31)
_SCALE = constant(1 << 61)
_BITS_34 = constant(34)


class _Segments:
    """For each lane a break point q = n / 2**31, 2**29 <= n < 3 * 2**29, and slopes with 30 fractional bits.

    n = 2**29 + floor(parameter / 2**34), so 30 bits of the parameter count; the slopes are
    floor(2**61 / n) to the left of q and floor(2**61 / (2**31 - n)) to its right. No piece overflows 64 bits:
    for all v < n * 2**33, floor(2**61 / n) * v < 2**94.

    Attributes:
        break_point: q as a fraction of 2**63.
        right: slopes to the right of q.
        left_or_right: the slopes left of q XOR those right of it.
    """

    def __init__(self, parameter: Words) -> None:
        n = np.asarray(_SMALLEST + (parameter >> _BITS_34), dtype=np.uint64)
        self.break_point: Words = n << BITS_32
        self.right: Words = _SCALE // (_WHOLE - n)
        self.left_or_right: Words = (_SCALE // n) ^ self.right

    def constants(self) -> tuple[Words, Words, Words]:
        """Break points, slopes to their left, slopes to their right."""
        return self.break_point, self.left_or_right ^ self.right, self.right
