"""The sequences behind the key planes, by name: chaotic maps, ChaCha20, and both together.

A chaotic map alone (`encdl.keys.coupled_maps`) is worth its `attack_bits`, far fewer than the key's 256. The default
adds ChaCha20 under a sub-key of its own to it, by XOR: who can compute one of the two keystreams still lacks the other.
"""

from __future__ import annotations

import hmac
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encdl.keys.chaotic_maps import Chebyshev, Logistic, PiecewiseLinear, SkewTent, UnitMap
from encdl.keys.coupled_maps import Bytes, chacha20, chunks
from encdl.utils.errors import UsageError

SEED_BYTES: Final = 32
DEFAULT_MAP: Final = "logistic+chacha20"

_INFO: Final = b"encdl sequence v2"


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
