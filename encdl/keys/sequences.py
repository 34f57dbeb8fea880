"""The sequences behind the key planes, by name: chaotic maps, ChaCha20, and both together.

A chaotic map alone is worth its `attack_bits`, far fewer than the key's 256. The default
adds ChaCha20 under a sub-key of its own to it, by XOR: who can compute one of the two keystreams still lacks the other.

A chaotic sequence is drawn from `LANES` independent lanes, in 64-bit fixed point. Each couples two copies of a
one-dimensional map f of the unit interval (`encdl.keys.chaotic_maps`), both as fractions of 2**64, and perturbs them by
a counter w:

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
import hmac
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

from encdl.keys.chaotic_maps import (
    BITS_32,
    ONE,
    Chebyshev,
    Logistic,
    PiecewiseLinear,
    SkewTent,
    UnitMap,
    Words,
    constant,
    rotate_left,
)
from encdl.utils import compiled
from encdl.utils.errors import UsageError

Bytes = NDArray[np.uint8]

SEED_BYTES: Final = 32
DEFAULT_MAP: Final = "logistic+chacha20"
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
_INFO: Final = b"encdl sequence v2"
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


@dataclass(frozen=True, kw_only=True)
class ByteSource(ABC):
    """A named generator of pseudo-random bytes from 32-byte seeds.

    Attributes:
        attack_bits: The best attack known that tells bytes not seen from those seen takes 2**attack_bits steps.
        attack: Its name.
    """

    attack_bits: int = 256
    attack: str = "exhaustive search for the key"

    @abstractmethod
    def write(self, seed: bytes, out: Bytes) -> None:
        """Fill `out`, contiguous uint8 (n,), with the first n bytes under a seed."""


@dataclass(frozen=True, kw_only=True)
class ChaoticSequence(ByteSource):
    """A chaotic map alone: the thesis's sequence, keyed by the seed itself."""

    unit_map: UnitMap

    def write(self, seed: bytes, out: Bytes) -> None:
        """See `ByteSource.write`."""
        start = 0
        for chunk in chunks(self.unit_map, seed, len(out)):
            out[start : start + len(chunk)] = chunk
            start += len(chunk)


class ChaCha20Sequence(ByteSource):
    """ChaCha20's keystream (RFC 8439): the seed is the key; nonce and counter are 0."""

    def write(self, seed: bytes, out: Bytes) -> None:
        """See `ByteSource.write`."""
        chacha20(seed).update_into(bytes(len(out)), out.data)


@dataclass(frozen=True, kw_only=True)
class MaskedSequence(ByteSource):
    """A chaotic map XOR ChaCha20, each keyed by a sub-key of its own: it falls only if both fall.

    The sub-keys are HKDF-Expand-SHA256 (RFC 5869) of the seed; see `subkeys`.
    """

    unit_map: UnitMap

    def write(self, seed: bytes, out: Bytes) -> None:
        """See `ByteSource.write`."""
        chaotic, conservative = self.subkeys(seed)
        stream, start = chacha20(conservative), 0
        for chunk in chunks(self.unit_map, chaotic, len(out)):
            stream.update_into(chunk.data, out[start : start + len(chunk)].data)
            start += len(chunk)

    def subkeys(self, seed: bytes) -> tuple[bytes, bytes]:
        """The keys of the chaotic map and of ChaCha20, 32 bytes each."""
        # One block of HKDF-Expand is one HMAC, which costs a small image less than an object of its own.
        chaotic, conservative = (hmac.digest(seed, info, "sha256") for info in self.infos())
        return chaotic, conservative

    def infos(self) -> tuple[bytes, bytes]:
        """The texts hashed under the seed for each of the `subkeys`."""
        info = b"\0".join((_INFO, f"{self.unit_map.name}+chacha20".encode(), b""))
        return info + b"chaotic\x01", info + b"chacha20\x01"


_GUESSING: Final = "guess-and-determine of a lane's state"
_UNIT_MAPS: Final[tuple[UnitMap, ...]] = (Logistic(), Chebyshev(), PiecewiseLinear(), SkewTent())

MAPS: Final[Mapping[str, ByteSource]] = MappingProxyType(
    {
        **{f"{unit_map.name}+chacha20": MaskedSequence(unit_map=unit_map) for unit_map in _UNIT_MAPS},
        "chacha20": ChaCha20Sequence(),
        **{
            unit_map.name: ChaoticSequence(unit_map=unit_map, attack_bits=unit_map.attack_bits, attack=_GUESSING)
            for unit_map in _UNIT_MAPS
        },
    }
)
"""Every sequence by name, the default first, those worth less than their key last."""


def unknown_map(name: str) -> UsageError:
    """The error about a name that is not one of `MAPS`."""
    chaotic = ", ".join(unit_map.name for unit_map in _UNIT_MAPS)
    return UsageError(f"unknown map {name!r}: choose chacha20, or one of {chaotic}, with +chacha20 or alone")


def check_seeds(seeds: Sequence[bytes]) -> None:
    """Raise `UsageError` unless every seed has 32 bytes."""
    if any(len(seed) != SEED_BYTES for seed in seeds):
        raise UsageError(f"a sequence is seeded with {SEED_BYTES} bytes: pass derived sub-keys, one a row")


def byte_sequence(name: str, seeds: Sequence[bytes], count: int) -> Bytes:
    """Pseudo-random bytes, the same on every machine.

    The first n of a longer sequence are the sequence of n, and a row depends on its own seed only.

    Args:
        name: a name in `MAPS`.
        seeds: one secret of 32 random bytes (a derived sub-key) a row.
        count: bytes a row, 0 or more.

    Returns:
        uint8 array (len(seeds), count), uniform over 0..255.

    Raises:
        UsageError: unknown map, a seed that is not 32 bytes, or a negative count.
    """
    if name not in MAPS:
        raise unknown_map(name)
    check_seeds(seeds)
    if count < 0:
        raise UsageError(f"a sequence cannot hold {count} values: ask for 0 or more")
    out = np.empty((len(seeds), count), dtype=np.uint8)
    for seed, row in zip(seeds, out, strict=True):
        if count:
            MAPS[name].write(seed, row)
    return out


def integer_sequence(name: str, seeds: Sequence[bytes], count: int) -> NDArray[np.uint32]:
    """The bytes of `byte_sequence` as 32-bit integers, low byte first: uint32 array (len(seeds), count).

    Raises:
        UsageError: as `byte_sequence`.
    """
    return byte_sequence(name, seeds, 4 * count).view("<u4").astype(np.uint32, copy=False)
