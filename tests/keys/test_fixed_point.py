from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from encdl.keys import chaotic_maps as fixed_point

WORD = 1 << 64
EDGES = [0, 1, 2, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63 - 1, 2**63, 2**63 + 1, WORD - 2, WORD - 1]
words = arrays(np.uint64, 8, elements=st.integers(0, WORD - 1) | st.sampled_from(EDGES))


@given(words)
def test_square_high_is_exact(value: np.ndarray) -> None:
    out, a, b = (np.empty_like(value) for _ in range(3))
    fixed_point.square_high(value, out, a, b)
    assert out.tolist() == [v * v >> 64 for v in value.tolist()]
    fixed_point.square_high(value, value, a, b)
    assert (value == out).all()


@given(words, st.integers(2**29, 3 * 2**29 - 1))
def test_multiply_slope_is_exact(value: np.ndarray, n: int) -> None:
    slope = 2**61 // n
    value %= np.uint64(n << 33)
    expected = [v * slope >> 30 for v in value.tolist()]
    assert max(expected) < WORD
    out = np.empty_like(value)
    slopes = np.full_like(value, slope)
    fixed_point.multiply_slope(value, slopes, out, np.empty_like(value))
    assert out.tolist() == expected
    fixed_point.multiply_slope(value, slopes, out, spare=value)
    assert out.tolist() == expected


@given(words, st.integers(1, 63))
def test_rotate_left(value: np.ndarray, count: int) -> None:
    expected = [(v << count | v >> 64 - count) % WORD for v in value.tolist()]
    left, right = fixed_point.constant(count), fixed_point.constant(64 - count)
    fixed_point.rotate_left(value, left, right, np.empty_like(value))
    assert value.tolist() == expected


@given(words)
def test_signs(value: np.ndarray) -> None:
    out = np.empty_like(value)
    fixed_point.spread_sign(value, out)
    assert out.tolist() == [WORD - 1 if v >= WORD // 2 else 0 for v in value.tolist()]
    fixed_point.absolute_doubled(value, out)
    assert out.tolist() == [2 * min(v, WORD - v) % WORD for v in value.tolist()]


@pytest.mark.parametrize("value", EDGES)
def test_constant_keeps_all_bits(value: int) -> None:
    assert int(fixed_point.constant(value)) == value
