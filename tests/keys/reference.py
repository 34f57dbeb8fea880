"""The sequences once more, lane by lane with Python's whole numbers: slow, and sharing no code with the package."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from hashlib import shake_256

WORD = 1 << 64
LANES = 512
WARM_UP = 4
MULTIPLIER = 0x9E3779B97F4A7C15
State = tuple[int, int, int]
Map = Callable[[int, int], int]


def rotate(value: int, count: int) -> int:
    return (value << count | value >> 64 - count) % WORD


def signed(u: int) -> int:
    return u - WORD if u >= WORD // 2 else u


def logistic(u: int, parameter: int) -> int:
    d = 2 * abs(signed(u)) % WORD
    return WORD - 1 - d * d // WORD


def chebyshev(u: int, parameter: int) -> int:
    for _ in range(2):
        d = 2 * abs(signed(u)) % WORD
        u = (d * d // WORD - WORD // 2) % WORD
    return u


def break_point(parameter: int) -> tuple[Fraction, int, int]:
    n = 2**29 + parameter // 2**34
    return Fraction(n, 2**31), 2**61 // n, 2**61 // (2**31 - n)


def tent(u: int, parameter: int) -> int:
    q, left, right = break_point(parameter)
    return u * left // 2**30 if u < q * WORD else (WORD - 1 - u) * right // 2**30


def piecewise_linear(u: int, parameter: int) -> int:
    q, left, right = break_point(parameter)
    e = u if u < WORD // 2 else WORD - 1 - u
    start = int(q * 2**63)
    return 2 * e * left // 2**30 if e < start else 2 * (e - start) * right // 2**30


REFERENCE: dict[str, Map] = {
    "logistic": logistic,
    "chebyshev": chebyshev,
    "piecewise_linear": piecewise_linear,
    "tent": tent,
}


def step(f: Map, state: State, c: int, parameter: int) -> State:
    x, y, w = state
    w = (w + c) % WORD
    x = rotate((x + f(y, parameter) + w) % WORD, 29)
    y = rotate((y + f(x, parameter)) % WORD, 19)
    return x, y, w


def step_back(f: Map, state: State, c: int, parameter: int) -> State:
    """The inverse of `step`: what makes a step a bijection."""
    x, y, w = state
    y = (rotate(y, 64 - 19) - f(x, parameter)) % WORD
    x = (rotate(x, 64 - 29) - f(y, parameter) - w) % WORD
    return x, y, (w - c) % WORD


def output(state: State) -> int:
    """What a lane gives in a state."""
    x, y, _ = state
    z = y * MULTIPLIER % WORD
    return (x + (z ^ z >> 32)) % WORD


def lane_outputs(name: str, seed: bytes, lane: int) -> Iterator[int]:
    """The 64-bit outputs of one lane."""
    words = 5 if name in {"tent", "piecewise_linear"} else 4
    raw = shake_256(b"encdl map v1\0" + name.encode() + b"\0" + seed).digest(words * LANES * 8)
    start = [struct.unpack_from("<Q", raw, 8 * (word * LANES + lane))[0] for word in range(words)]
    state, c, parameter = (start[0], start[1], start[2]), start[3] | 1, start[-1]
    for index in range(1 << 62):
        state = step(REFERENCE[name], state, c, parameter)
        if index >= WARM_UP:
            yield output(state)
