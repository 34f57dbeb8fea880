"""The sequences once more, lane by lane with Python's whole numbers: slow, and sharing no code with the package."""

from __future__ import annotations

import hmac
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction

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


def quarter(state: list[int], a: int, b: int, c: int, d: int) -> None:
    """RFC 8439, 2.1."""
    for i, j, k, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[i] = (state[i] + state[j]) % 2**32
        mixed = state[k] ^ state[i]
        state[k] = (mixed << turn | mixed >> 32 - turn) % 2**32


def chacha20_block(key: bytes, nonce: bytes, number: int) -> bytes:
    """RFC 8439, 2.3: 64 bytes of keystream."""
    start = [*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<8I", key)]
    start += [number, *struct.unpack("<3I", nonce)]
    state = start.copy()
    for _ in range(10):
        for column in range(4):
            quarter(state, column, column + 4, column + 8, column + 12)
        for column in range(4):
            quarter(state, column, (column + 1) % 4 + 4, (column + 2) % 4 + 8, (column + 3) % 4 + 12)
    return struct.pack("<16I", *((a + b) % 2**32 for a, b in zip(state, start, strict=True)))


def chacha20(key: bytes, count: int) -> bytes:
    """The first bytes of the keystream, nonce and counter 0."""
    return b"".join(chacha20_block(key, bytes(12), number) for number in range(-(-count // 64)))[:count]


def subkey(seed: bytes, name: str, part: str) -> bytes:
    """HKDF-Expand to 32 bytes (RFC 5869, 2.3), of a sequence of two parts."""
    info = b"encdl sequence v2\0" + name.encode() + b"\0" + part.encode()
    return hmac.digest(seed, info + b"\x01", "sha256")


def lane_outputs(name: str, seed: bytes, lane: int) -> Iterator[int]:
    """The 64-bit outputs of one lane."""
    nonce = (b"v2 " + name.encode() + bytes(12))[:12]
    x, y, w, c, parameter, *_ = struct.unpack("<8Q", chacha20_block(seed, nonce, lane))
    state = (x, y, w)
    for index in range(1 << 62):
        state = step(REFERENCE[name], state, c | 1, parameter)
        if index >= WARM_UP:
            yield output(state)
