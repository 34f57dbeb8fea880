"""Chaotic integer sequences: lanes of two coupled maps of the unit interval, in 64-bit fixed point.

A sequence is drawn from `LANES` independent lanes. Each couples two copies of a one-dimensional map f
(`encdl.keys.chaotic_maps`), both as fractions of 2**64, and perturbs them by a counter w:

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

These are statistical properties. As a cipher a lane is worth `UnitMap.attack_bits`: whoever knows four of its outputs
in a row and guesses y has x from the output, then the y and x before, and so on; w and c follow from the steps
between, and the fourth output says whether the guess was right (`encdl.audit.attacks.guess_and_determine` does it at
smaller words).

Sources: coupled map lattices, K. Kaneko, Prog. Theor. Phys. 72 (1984) 480; a Weyl sequence that bounds the period from
below, G. Marsaglia, J. Stat. Softw. 8 (2003) 14, and B. Widynski, arXiv:1704.00358; ChaCha20, which seeds the lanes,
RFC 8439.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

from encdl.keys.chaotic_maps import BITS_32, ONE, UnitMap, Words, constant, rotate_left
from encdl.utils import compiled

Bytes = NDArray[np.uint8]

LANES: Final = 512
WARM_UP: Final = 4
"""Steps that each lane takes before its first output."""

REVISION: Final = 3
"""Of the form of the functions in coupled_maps.c."""

SEED_WORDS: Final = 8
"""Words of the ChaCha20 block that seeds a lane: x, y, w, c, the map's parameter, and three of no use."""

_WORD: Final = 8  # bytes
_STATE_WORDS: Final = 4
_CHUNK_STEPS: Final = 32  # 128 KiB of output: it stays in the L2 cache until it is used
_ZEROS: Final = memoryview(bytes(LANES * SEED_WORDS * _WORD))
_VERSION: Final = b"v2 "
_VECTORS = 2  # the widest that coupled_maps.c may use; tests take narrower ones
_MULTIPLIER: Final = constant(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd
_X_LEFT, _X_RIGHT = constant(29), constant(64 - 29)
_Y_LEFT, _Y_RIGHT = constant(19), constant(64 - 19)


def chunks(unit_map: UnitMap, key: bytes, count: int) -> Iterator[Bytes]:
    """The first `count` bytes of a sequence, piece by piece.

    Word t * LANES + l of 64 bits, low byte first, is the output of lane l at step t after the warm-up.

    Args:
        unit_map: what the lanes couple.
        key: 32 secret bytes.
        count: 0 or more.

    Yields:
        uint8 (n,); the next one may overwrite it.
    """
    lanes = min(LANES, -(-count // _WORD))  # a short sequence takes the first step of the first lanes
    if not lanes:
        return
    iterate = _iteration(unit_map, lane_seeds(unit_map, key, lanes))
    out = np.empty((_CHUNK_STEPS, lanes), dtype=np.uint64)
    iterate(out[:WARM_UP])
    row = lanes * _WORD
    while count > 0:
        steps = min(_CHUNK_STEPS, -(-count // row))
        iterate(out[:steps])
        yield out[:steps].astype("<u8", copy=False).reshape(-1).view(np.uint8)[:count]
        count -= steps * row


def lane_seeds(unit_map: UnitMap, key: bytes, lanes: int) -> Words:
    """Start values of the first lanes: uint64 (words a lane, lanes), c odd.

    Lane l takes the words of block l of ChaCha20's keystream (RFC 8439) under the key, low byte first; the 12 bytes of
    the nonce are "v2 " and the first 9 of the map's name, with zeros behind it.
    """
    raw = np.empty(lanes * SEED_WORDS * _WORD, dtype=np.uint8)
    chacha20(key, bytes(4) + lane_nonce(unit_map)).update_into(_ZEROS[: len(raw)], raw.data)
    words = raw.view("<u8").reshape(lanes, SEED_WORDS)
    state = words.T[: _STATE_WORDS + unit_map.parameters].astype(np.uint64, order="C")
    state[_STATE_WORDS - 1] |= ONE
    return state


def chacha20(key: bytes, nonce: bytes = bytes(16)) -> CipherContext:
    """ChaCha20's keystream (RFC 8439), added to what it is given; `nonce` is 4 bytes of counter, and 12."""
    return Cipher(ChaCha20(key, nonce), mode=None).encryptor()


def lane_nonce(unit_map: UnitMap) -> bytes:
    """The nonce of the ChaCha20 that seeds lanes, 12 bytes; see `lane_seeds`."""
    return (_VERSION + unit_map.name.encode())[:12].ljust(12, b"\0")


def _iteration(unit_map: UnitMap, state: Words) -> Callable[[Words], None]:
    """A function that fills uint64 (steps, lanes) with the next outputs of lanes in a state, and advances that."""
    library = compiled.library("encdl_maps_revision", REVISION)
    if library is None:
        return _iteration_by_numpy(unit_map, state)
    constants = unit_map.constants(state[_STATE_WORDS:]) if unit_map.parameters else ()
    rows = np.concatenate([state[:_STATE_WORDS], *constants])

    call, state_at = library.encdl_iterate, ctypes.c_void_p(rows.ctypes.data)

    def iterate(out: Words, rows: Words = rows) -> None:  # `rows` stay as long as this function does
        steps, lanes = out.shape
        place, *sizes = ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(lanes), ctypes.c_int64(steps)
        call(unit_map.code, _VECTORS, state_at, place, *sizes)

    return iterate


def _iteration_by_numpy(unit_map: UnitMap, state: Words) -> Callable[[Words], None]:
    x, y, w, c = state[:_STATE_WORDS]
    f = unit_map.prepare(state[_STATE_WORDS:], np.empty_like(x), np.empty_like(x))
    fx, spare = np.empty_like(x), np.empty_like(x)

    def iterate(out: Words) -> None:
        for row in out:
            f(y, fx)
            np.add(w, c, out=w)
            np.add(x, fx, out=x)
            np.add(x, w, out=x)
            rotate_left(x, _X_LEFT, _X_RIGHT, spare)
            f(x, fx)
            np.add(y, fx, out=y)
            rotate_left(y, _Y_LEFT, _Y_RIGHT, spare)
            np.multiply(y, _MULTIPLIER, out=fx)
            np.right_shift(fx, BITS_32, out=spare)
            np.bitwise_xor(fx, spare, out=fx)
            np.add(fx, x, out=row)

    return iterate
