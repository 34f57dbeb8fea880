"""Binary key planes: the key as the network sees it, one 0/1 image for each plane and channel.

An expansion says how pseudo-random bits fill the planes; see `EXPANSIONS`. Bits are taken from the bytes of
`encdl.keys.maps.byte_sequence`, lowest bit of each byte first, and fill the arrays named below in C order.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from encdl.errors import UsageError
from encdl.keys.maps import byte_sequence, check_map

Bits = NDArray[np.uint8]

KEY_BITS: Final = 256
MAX_PLANES: Final = 64
MAX_PERIOD: Final = 4096


class LeakyExpansionWarning(UserWarning):
    """The chosen expansion repeats its planes, and one ciphertext is enough to see through it.

    Python shows it once for each calling line, as its default is for warnings.
    """


class Expansion(ABC):
    """How pseudo-random bits fill the key planes of an image.

    Attributes:
        name: what users call it.
        smallest_period: least period that it takes, or 0 if it takes none.
        leaky: whether one ciphertext is enough to find the planes, and with them the image, without a key.
    """

    name: ClassVar[str]
    smallest_period: ClassVar[int] = 0
    leaky: ClassVar[bool] = False

    @abstractmethod
    def tiles(self, planes: int, period: int, height: int, width: int) -> list[tuple[int, int, int]]:
        """What is drawn for a channel, in order: (planes with tiles of one size, tile height, tile width)."""


class Full(Expansion):
    """One bit for each plane and pixel: nothing repeats. Bits fill (C, P, H, W)."""

    name = "full"

    def tiles(self, planes: int, period: int, height: int, width: int) -> list[tuple[int, int, int]]:
        """See `Expansion.tiles`."""
        return [(planes, height, width)]


class Coprime(Expansion):
    """Plane p repeats an n_p x n_p tile; the sides n_p are pairwise co-prime and near the period.

    The planes together repeat only after the product of all n_p pixels. That does not save them: each plane repeats
    by itself, and over a constant background its bits can be solved for from one ciphertext (docs/keys.md).
    Each n_p in turn is the free number nearest to the period (the smaller of two) that is at least 2 and co-prime
    to those before it.
    Bits fill, for each channel, the tiles (n_0, n_0), (n_1, n_1), ... one after the other.
    """

    name = "coprime"
    smallest_period = 2
    leaky = True

    def tiles(self, planes: int, period: int, height: int, width: int) -> list[tuple[int, int, int]]:
        """See `Expansion.tiles`."""
        return [(1, side, side) for side in coprime_sides(planes, period)]


class Periodic(Expansion):
    """Every plane repeats one period x period tile, as in the thesis. Bits fill (C, P, period, period)."""

    name = "periodic"
    smallest_period = 1
    leaky = True

    def tiles(self, planes: int, period: int, height: int, width: int) -> list[tuple[int, int, int]]:
        """See `Expansion.tiles`."""
        return [(planes, period, period)]


EXPANSIONS: Final[Mapping[str, Expansion]] = MappingProxyType(
    {expansion.name: expansion for expansion in (Full(), Coprime(), Periodic())}
)
"""Every expansion by name."""


@dataclass(frozen=True)
class PlaneSpec:
    """How key planes are made from a sub-key; part of a file's header.

    Attributes:
        map: the pseudo-random sequence, a name in `encdl.keys.maps.MAPS`.
        expansion: a name in `EXPANSIONS`.
        planes: binary planes for each channel, 1 to 64.
        period: side of the repeated tile in pixels, up to 4096; 0 for `full`, which repeats nothing.

    Raises:
        UsageError: on construction, if a value is out of its range or the period does not fit the expansion.
    """

    map: str = "logistic"
    expansion: str = "full"
    planes: int = 8
    period: int = 0

    def __post_init__(self) -> None:
        check_map(self.map)
        if self.expansion not in EXPANSIONS:
            raise UsageError(f"unknown expansion {self.expansion!r}: choose one of {', '.join(EXPANSIONS)}")
        _check_integer("planes", self.planes, 1, MAX_PLANES)
        smallest = EXPANSIONS[self.expansion].smallest_period
        if not smallest and self.period != 0:
            raise UsageError(f"expansion {self.expansion!r} repeats nothing: leave the period out (it is 0)")
        _check_integer(f"period of expansion {self.expansion!r}", self.period, smallest, MAX_PERIOD)

    def to_dict(self) -> dict[str, str | int]:
        """The fields as plain values, for a file's header."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> PlaneSpec:
        """Read what `to_dict` wrote, from untrusted input: exactly its fields, each of its type.

        Raises:
            UsageError: a field is missing, unknown, of another type or out of its range.
        """
        expected = {"map": str, "expansion": str, "planes": int, "period": int}
        if not isinstance(values, Mapping) or set(values) != set(expected):
            raise UsageError(f"key plane settings must have exactly the fields {', '.join(expected)}")
        for field, kind in expected.items():
            if type(values[field]) is not kind:
                raise UsageError(f"key plane setting {field!r} must be of type {kind.__name__}")
        return cls(**values)  # type: ignore[arg-type]  # each type was checked above


def key_planes(
    subkeys: Sequence[bytes], spec: PlaneSpec, channels: int, height: int, width: int
) -> NDArray[np.uint8]:
    """Binary key planes for a batch of images; each channel has its own.

    Args:
        subkeys: the secret `ImageKeys.planes` of each image, 32 bytes.
        spec: map, expansion, planes and period.
        channels: channels C of the image, at least 1.
        height: rows H, at least 1.
        width: columns W, at least 1.

    Returns:
        uint8 array (B, C, P, H, W) of 0 and 1.

    Raises:
        UsageError: a size below 1, or a sub-key that is not 32 bytes.
    """
    _check_sizes(channels, height, width)
    expansion = EXPANSIONS[spec.expansion]
    if expansion.leaky:
        warnings.warn(
            f"expansion {spec.expansion!r} repeats tiles of about {spec.period}x{spec.period}: one ciphertext gives"
            " away the image; use it for experiments only, and 'full' (the default) for real images",
            LeakyExpansionWarning,
            stacklevel=2,
        )
    tiles = expansion.tiles(spec.planes, spec.period, height, width)
    count = sum(math.prod(tile) for tile in tiles)
    bits = _bits(spec.map, subkeys, channels * count).reshape(len(subkeys), channels, count)
    parts, start = [], 0
    for planes, rows, columns in tiles:
        stop = start + planes * rows * columns
        tile = bits[:, :, start:stop].reshape(len(subkeys), channels, planes, rows, columns)
        parts.append(_repeat(tile, height, width))
        start = stop
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def key_bits(spec: PlaneSpec, channels: int, height: int, width: int) -> int:
    """True key bits in the planes of one image: the bits drawn that show in it, 256 (the key's) at the most.

    Raises:
        UsageError: a size below 1.
    """
    _check_sizes(channels, height, width)
    tiles = EXPANSIONS[spec.expansion].tiles(spec.planes, spec.period, height, width)
    shown = sum(planes * min(rows, height) * min(columns, width) for planes, rows, columns in tiles)
    return min(KEY_BITS, channels * shown)


def coprime_sides(planes: int, period: int) -> list[int]:
    """The tile sides of `Coprime` in the order of its planes: pairwise co-prime, nearest to `period` first."""
    sides: list[int] = []
    distance = 0
    while len(sides) < planes:
        for side in dict.fromkeys((period - distance, period + distance)):
            if side >= 2 and len(sides) < planes and all(math.gcd(side, other) == 1 for other in sides):
                sides.append(side)
        distance += 1
    return sides


def _bits(name: str, subkeys: Sequence[bytes], count: int) -> Bits:
    """The first `count` bits for each sub-key: uint8 (B, count)."""
    packed = byte_sequence(name, subkeys, -(-count // 8))
    return np.unpackbits(packed, axis=1, count=count, bitorder="little")


def _repeat(tile: Bits, height: int, width: int) -> Bits:
    """Tile the last two axes to height x width, cut at the right and lower edge."""
    rows, columns = tile.shape[-2:]
    if (rows, columns) == (height, width):
        return tile
    repeats = (1,) * (tile.ndim - 2) + (-(-height // rows), -(-width // columns))
    return np.ascontiguousarray(np.tile(tile, repeats)[..., :height, :width])


def _check_sizes(channels: int, height: int, width: int) -> None:
    if min(channels, height, width) < 1:
        raise UsageError(f"no key planes for {channels} x {height} x {width} (C x H x W): sizes start at 1")


def _check_integer(what: str, value: int, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise UsageError(f"{what} must be a whole number from {low} to {high}, not {value!r}")
