"""Binary key planes: the key as the network sees it, a 0/1 image for each plane and channel, packed in a byte a pixel.

Bit p of a pixel's key byte is its bit in plane p. An expansion says how the bytes of
`encdl.keys.sequences.byte_sequence` fill the planes; see `EXPANSIONS`.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Final, NamedTuple

import numpy as np

from encdl.keys.sequences import DEFAULT_MAP, MAPS, Bytes, byte_sequence, check_seeds, unknown_map
from encdl.utils.errors import UsageError

KEY_BITS: Final = 256
MAX_PLANES: Final = 8
MAX_PERIOD: Final = 4096
ALL_BITS: Final = 255


class WeakPlanesWarning(UserWarning):
    """The chosen key planes are worth less than the key.

    Python shows it once for each calling line, as its default is for warnings.
    """


class LeakyExpansionWarning(WeakPlanesWarning):
    """The chosen expansion repeats its planes, and one ciphertext is enough to see through it."""


class WeakMapWarning(WeakPlanesWarning):
    """The chosen sequence falls to an attack far cheaper than a search for the key."""


class Tile(NamedTuple):
    """Part of a channel's planes: a rectangle of bytes that is drawn, and repeated to the image's size.

    Attributes:
        bits: which bits of its bytes count, as a byte.
        height: rows of the rectangle.
        width: columns of it.
    """

    bits: int
    height: int
    width: int


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
    def tiles(self, planes: int, period: int, height: int, width: int) -> list[Tile]:
        """The tiles to draw for each channel, in this order; no two have a bit in common."""


class Full(Expansion):
    """A byte for each pixel: nothing repeats. The lowest P bits of each are its planes. Bytes fill (C, H, W)."""

    name = "full"

    def tiles(self, planes: int, period: int, height: int, width: int) -> list[Tile]:
        """See `Expansion.tiles`."""
        return [Tile((1 << planes) - 1, height, width)]


class Coprime(Expansion):
    """Plane p repeats an n_p x n_p tile; the sides n_p are pairwise co-prime and near the period.

    The planes together repeat only after the product of all n_p pixels. That does not save them: each plane repeats
    by itself, and over a constant background its bits can be solved for from one ciphertext (docs/keys.md).
    Each n_p in turn is the free number nearest to the period (the smaller of two) that is at least 2 and co-prime
    to those before it.
    Bytes fill, for each channel, the tiles (n_0, n_0), (n_1, n_1), ... one after the other; of tile p bit p counts.
    """

    name = "coprime"
    smallest_period = 2
    leaky = True

    def tiles(self, planes: int, period: int, height: int, width: int) -> list[Tile]:
        """See `Expansion.tiles`."""
        return [Tile(1 << plane, side, side) for plane, side in enumerate(coprime_sides(planes, period))]


class Periodic(Expansion):
    """Every plane repeats one period x period tile, as in the thesis. Bytes fill (C, period, period), as for `Full`."""

    name = "periodic"
    smallest_period = 1
    leaky = True

    def tiles(self, planes: int, period: int, height: int, width: int) -> list[Tile]:
        """See `Expansion.tiles`."""
        return [Tile((1 << planes) - 1, period, period)]


EXPANSIONS: Final[Mapping[str, Expansion]] = MappingProxyType(
    {expansion.name: expansion for expansion in (Full(), Coprime(), Periodic())}
)
"""Every expansion by name."""


@dataclass(frozen=True)
class PlaneSpec:
    """How key planes are made from a sub-key; part of a file's header.

    Attributes:
        map: the pseudo-random sequence, a name in `encdl.keys.sequences.MAPS`.
        expansion: a name in `EXPANSIONS`.
        count: binary planes for each channel, 1 to 8; a header calls it `planes`.
        period: side of the repeated tile in pixels, up to 4096; 0 for `full`, which repeats nothing.

    Raises:
        UsageError: on construction, if a value is out of its range or the period does not fit the expansion.
    """

    map: str = DEFAULT_MAP
    expansion: str = "full"
    count: int = 8
    period: int = 0

    def __post_init__(self) -> None:
        if self.map not in MAPS:
            raise unknown_map(self.map)
        if self.expansion not in EXPANSIONS:
            raise UsageError(f"unknown expansion {self.expansion!r}: choose one of {', '.join(EXPANSIONS)}")
        smallest = EXPANSIONS[self.expansion].smallest_period
        if not smallest and self.period != 0:
            raise UsageError(f"expansion {self.expansion!r} repeats nothing: leave the period out (it is 0)")
        for what, value, low, high in (
            ("planes", self.count, 1, MAX_PLANES),
            (f"period of expansion {self.expansion!r}", self.period, smallest, MAX_PERIOD),
        ):
            if type(value) is not int or not low <= value <= high:
                raise UsageError(f"{what} must be a whole number from {low} to {high}, not {value!r}")

    def to_dict(self) -> dict[str, str | int]:
        """The fields as plain values, for a file's header."""
        return {"map": self.map, "expansion": self.expansion, "planes": self.count, "period": self.period}

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
        names = {"planes": "count"}
        return cls(**{names.get(field, field): value for field, value in values.items()})  # type: ignore[arg-type]


def key_planes(subkeys: Sequence[bytes], spec: PlaneSpec, channels: int, height: int, width: int) -> Bytes:
    """Binary key planes for a batch of images; each channel has its own.

    Args:
        subkeys: the secret `ImageKeys.planes` of each image, 32 bytes.
        spec: map, expansion, planes and period.
        channels: channels C of the image, at least 1.
        height: rows H, at least 1.
        width: columns W, at least 1.

    Returns:
        uint8 array (B, C, H, W): bit p of a byte is plane p, bits from `spec.count` on are 0. Eight planes of `full`
        are the bytes of the sequence as they come.

    Raises:
        UsageError: a size below 1, or a sub-key that is not 32 bytes.
    """
    check_request(subkeys, spec, (channels, height, width))
    tiles = EXPANSIONS[spec.expansion].tiles(spec.count, spec.period, height, width)
    count = sum(tile.height * tile.width for tile in tiles)
    drawn = byte_sequence(spec.map, subkeys, channels * count).reshape(len(subkeys), channels, count)
    planes: Bytes | None = None
    start = 0
    for bits, rows, columns in tiles:
        stop = start + rows * columns
        part = drawn[:, :, start:stop].reshape(len(subkeys), channels, rows, columns)
        if bits != ALL_BITS:
            part = part & np.uint8(bits)
        if (rows, columns) != (height, width):
            part = _repeat(part, height, width)
        planes = part if planes is None else np.bitwise_or(planes, part, out=planes)
        start = stop
    assert planes is not None
    return planes


def check_request(subkeys: Sequence[bytes], spec: PlaneSpec, shape: Sequence[int]) -> None:
    """Refuse what `key_planes` cannot make, and warn of weak planes; arguments and errors are its own."""
    if min(shape) < 1:
        raise UsageError(f"no key planes for {' x '.join(map(str, shape))} (C x H x W): sizes start at 1")
    check_seeds(subkeys)
    for category, message in weakness(spec).items():
        warnings.warn(message, category, stacklevel=3)


def key_bits(spec: PlaneSpec, channels: int, height: int, width: int) -> int:
    """True key bits in the planes of one image: an attack on them takes no more than 2**key_bits steps.

    That is the least of the bits drawn that show in the image, of those that the best attack known leaves to the
    sequence (`ByteSource.attack_bits`), and of the key's 256; the sizes are those of `key_planes`.
    """
    tiles = EXPANSIONS[spec.expansion].tiles(spec.count, spec.period, height, width)
    shown = sum(bits.bit_count() * min(rows, height) * min(columns, width) for bits, rows, columns in tiles)
    return min(KEY_BITS, MAPS[spec.map].attack_bits, channels * shown)


def weakness(spec: PlaneSpec) -> dict[type[WeakPlanesWarning], str]:
    """Why key planes of this kind are worth less than the key, in a sentence for each reason; {} for the defaults."""
    found: dict[type[WeakPlanesWarning], str] = {}
    if EXPANSIONS[spec.expansion].leaky:
        found[LeakyExpansionWarning] = (
            f"expansion {spec.expansion!r} repeats tiles of about {spec.period}x{spec.period}: one ciphertext gives"
            " away the image; use it for experiments only, and 'full' (the default) for real images"
        )
    source = MAPS[spec.map]
    if source.attack_bits < KEY_BITS:
        found[WeakMapWarning] = (
            f"map {spec.map!r} alone is worth {source.attack_bits} bits of the key's {KEY_BITS}: {source.attack}"
            f" takes 2^{source.attack_bits} guesses; use it for experiments only, and '{spec.map}+chacha20' for real"
            " images"
        )
    return found


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


def _repeat(tile: Bytes, height: int, width: int) -> Bytes:
    """Tile the last two axes to height x width, cut at the right and lower edge."""
    rows, columns = tile.shape[-2:]
    repeats = (1,) * (tile.ndim - 2) + (-(-height // rows), -(-width // columns))
    return np.ascontiguousarray(np.tile(tile, repeats)[..., :height, :width])
