"""Pseudo-random integer sequences from chaotic maps, in 64-bit fixed point, and from ChaCha20.

A chaotic sequence is drawn from `LANES` independent lanes. Each lane couples two copies of a one-dimensional
map f of the unit interval (`encdl.keys.chaos`), both as fractions of 2**64, and perturbs them by a counter w:

    w <- w + c                              (mod 2**64, c odd: a Weyl sequence)
    x <- rotate_left(x + f(y) + w, 29)      (mod 2**64)
    y <- rotate_left(y + f(x), 19)          (mod 2**64, with the new x)
    z = y * K mod 2**64,    output x + (z XOR z >> 32)   (mod 2**64)

What this buys over iterating f alone:

- One step is a bijection of the state (x, y, w), whatever f is: y, x and w can be computed back. So no two
  states ever merge, and uniformly random states stay uniform. A map such as the logistic one piles its orbit
  up at the ends of the interval (the arcsine law); here each output word is exactly uniform over the seeds.
- w has the period 2**64 exactly, so the period of the state is a multiple of 2**64, whatever f does. A map
  iterated alone in 64 bits falls into a cycle after about 2**32 steps.
- The rotations lift low-order digits to the top: a change of one unit in the last place, which f alone would
  take dozens of steps to double up to the top, reaches every output bit within three.

These are statistical properties: none of the chaotic maps is a proven generator. `chacha20` is the
conservative choice.

Sources: coupled map lattices, K. Kaneko, Prog. Theor. Phys. 72 (1984) 480; a Weyl sequence that bounds the
period from below, G. Marsaglia, J. Stat. Softw. 8 (2003) 14, and B. Widynski, arXiv:1704.00358; SHAKE256,
which seeds the lanes, FIPS 202.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

from encdl import compiled
from encdl.errors import UsageError
from encdl.keys.chaos import Chebyshev, Logistic, PiecewiseLinear, SkewTent, UnitMap
from encdl.keys.fixed_point import BITS_32, ONE, Words, constant, rotate_left

SEED_BYTES: Final = 32
LANES: Final = 512
WARM_UP: Final = 4
"""Steps that each lane takes before its first output."""

REVISION: Final = 1
"""Of the form of the functions in maps.c."""

_DOMAIN: Final = b"encdl map v1"
_STATE_WORDS: Final = 4
_BATCH: Final = 8  # seeds iterated together: 8 x 512 lanes of 8 bytes keep the working set in the L2 cache
_MULTIPLIER: Final = constant(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd
_X_LEFT, _X_RIGHT = constant(29), constant(64 - 29)
_Y_LEFT, _Y_RIGHT = constant(19), constant(64 - 19)


class IntegerSource(Protocol):
    """A named generator of 32-bit integers from 32-byte seeds."""

    def words(self, seeds: Sequence[bytes], count: int) -> NDArray[np.uint32]:
        """The first `count` integers for each seed: uint32, (len(seeds), count)."""
        ...


class CoupledMap:
    """The lanes described at the top of this module, around one map of the unit interval."""

    def __init__(self, unit_map: UnitMap) -> None:
        self.unit_map = unit_map

    def words(self, seeds: Sequence[bytes], count: int) -> NDArray[np.uint32]:
        """The first `count` integers for each seed: uint32, (len(seeds), count).

        Word t * LANES + l of 64 bits is the output of lane l at step t after the warm-up; each gives its low
        half, then its high half.
        """
        steps = -(-count // (2 * LANES))
        out = np.empty((len(seeds), steps, LANES), dtype=np.uint64)
        for start in range(0, len(seeds), _BATCH):
            self._iterate(self._lanes(seeds[start : start + _BATCH]), out[start : start + _BATCH])
        halves = out.astype("<u8", copy=False).view("<u4").reshape(len(seeds), steps * LANES * 2)
        return halves[:, :count].astype(np.uint32, copy=False)

    def _lanes(self, seeds: Sequence[bytes]) -> Words:
        """Random start values: uint64 (words a lane, len(seeds), LANES)."""
        words = _STATE_WORDS + self.unit_map.parameters
        raw = b"".join(
            hashlib.shake_256(b"\0".join((_DOMAIN, self.unit_map.name.encode(), seed))).digest(
                words * LANES * 8
            )
            for seed in seeds
        )
        lanes = np.frombuffer(raw, dtype="<u8").reshape(len(seeds), words, LANES)
        return np.ascontiguousarray(lanes.swapaxes(0, 1), dtype=np.uint64).copy()

    def _iterate(self, lanes: Words, out: Words) -> None:
        """Fill `out`, (seeds, steps, LANES), from the start values."""
        lanes[_STATE_WORDS - 1] |= ONE
        library = compiled.library("encdl_maps_revision", REVISION)
        if library is None:
            self._iterate_by_numpy(lanes, out)
            return
        state = np.concatenate([lanes[:_STATE_WORDS], *self.unit_map.constants(lanes[_STATE_WORDS:])])
        seeds, steps, _ = out.shape
        library.encdl_iterate(
            self.unit_map.code,
            *(ctypes.c_void_p(each.ctypes.data) for each in (state, out)),
            *(ctypes.c_int64(size) for size in (seeds, LANES, WARM_UP, steps)),
        )

    def _iterate_by_numpy(self, lanes: Words, out: Words) -> None:
        x, y, w, c = lanes[:_STATE_WORDS]
        f = self.unit_map.prepare(lanes[_STATE_WORDS:], np.empty_like(x), np.empty_like(x))
        fx, spare = np.empty_like(x), np.empty_like(x)
        for step in range(-WARM_UP, out.shape[1]):
            f(y, fx)
            np.add(w, c, out=w)
            np.add(x, fx, out=x)
            np.add(x, w, out=x)
            rotate_left(x, _X_LEFT, _X_RIGHT, spare)
            f(x, fx)
            np.add(y, fx, out=y)
            rotate_left(y, _Y_LEFT, _Y_RIGHT, spare)
            if step >= 0:
                np.multiply(y, _MULTIPLIER, out=fx)
                np.right_shift(fx, BITS_32, out=spare)
                np.bitwise_xor(fx, spare, out=fx)
                np.add(fx, x, out=out[:, step])


class ChaCha20Stream:
    """ChaCha20's keystream (RFC 8439), words little-endian: the seed is the key; nonce and counter are 0."""

    def words(self, seeds: Sequence[bytes], count: int) -> NDArray[np.uint32]:
        """The first `count` integers for each seed: uint32, (len(seeds), count)."""
        out = np.empty((len(seeds), count), dtype="<u4")
        zeros = bytes(count * 4)
        for row, seed in zip(out.view(np.uint8), seeds, strict=True):
            Cipher(ChaCha20(seed, bytes(16)), mode=None).encryptor().update_into(zeros, row.data)
        return out.astype(np.uint32, copy=False)


_UNIT_MAPS: Final[tuple[UnitMap, ...]] = (Logistic(), Chebyshev(), PiecewiseLinear(), SkewTent())

MAPS: Final[Mapping[str, IntegerSource]] = MappingProxyType(
    {**{unit_map.name: CoupledMap(unit_map) for unit_map in _UNIT_MAPS}, "chacha20": ChaCha20Stream()}
)
"""Every sequence by name."""


def check_map(name: str) -> None:
    """Raise `UsageError` unless `name` is one of `MAPS`."""
    if name not in MAPS:
        raise UsageError(f"unknown map {name!r}: choose one of {', '.join(MAPS)}")


def integer_sequence(name: str, seeds: Sequence[bytes], count: int) -> NDArray[np.uint32]:
    """Pseudo-random integers, the same on every machine.

    The first n of a longer sequence are the sequence of n, and a row depends on its own seed only.

    Args:
        name: a name in `MAPS`.
        seeds: one secret of 32 random bytes (a derived sub-key) a row.
        count: integers a row, 0 or more.

    Returns:
        uint32 array (len(seeds), count), uniform over 0..2**32-1.

    Raises:
        UsageError: unknown map, a seed that is not 32 bytes, or a negative count.
    """
    check_map(name)
    if any(len(seed) != SEED_BYTES for seed in seeds):
        raise UsageError(f"a sequence is seeded with {SEED_BYTES} bytes: pass derived sub-keys, one a row")
    if count < 0:
        raise UsageError(f"a sequence cannot hold {count} integers: ask for 0 or more")
    return MAPS[name].words(seeds, count)


def byte_sequence(name: str, seeds: Sequence[bytes], count: int) -> NDArray[np.uint8]:
    """The bytes of `integer_sequence`, low byte first: uint8 array (len(seeds), count).

    Raises:
        UsageError: as `integer_sequence`.
    """
    words = integer_sequence(name, seeds, -(-count // 4))
    return np.ascontiguousarray(words, dtype="<u4").view(np.uint8)[:, :count]
