"""How an array is cut into chunks: one a slice, or one a tile where a slice is large.

The axes of an array have one letter each: any letters for the axes that count slices, then `HW` (or `W` alone), then
`C` where a pixel has several values. So `HW` and `HWC` are images, `SHW` a volume, `TSHW` a volume over time.

A chunk is uint8 (planes, height, width): the lowest bytes of all channels, then their next bytes, and so on. Any type
comes back bit by bit, signed ones by their two's complement and floats by their IEEE pattern, not-a-number included.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from encdl.files.container.sections import BLOCK_BYTES
from encdl.utils.errors import ContainerError

Array = npt.NDArray[Any]
Planes = npt.NDArray[np.uint8]
LARGEST_WORD = 8
"""Bytes of the largest integer that values are taken apart as."""

MAX_AXES = 8
MAX_SIDE = 2**26
MAX_CHANNELS = 1024
MAX_SLICES = 2**32
MAX_SLICE_BYTES = 2**30
MAX_BODY_BYTES = 2**40
MAX_CHUNK_BYTES = 2**22
MAX_CHUNK_PIXELS = 2**20

DTYPES = (
    "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
)  # fmt: skip
"""Types of values, each stored as its bytes, the lowest first."""

_LAYOUT = re.compile(r"(?!.*(.).*\1)(?:[ABD-GI-VX-Z]*H)?WC?")


@dataclass(frozen=True)
class Place:
    """Where a chunk lies: rows `top` to `top + height` and columns `left` to `left + width` of one slice."""

    slice: int
    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Grid:
    """The chunks of an array, counted through slice by slice, tile rows from the top and in them from the left.

    Attributes:
        shape: the array's shape, one size a letter of the layout.
        layout: one letter an axis.
        itemsize: bytes of a value.
        tile: rows and columns of a chunk; those at the lower and right edge are smaller.
        channels: values of a pixel.
        height: rows of a slice; 1 for an array of one axis.
        width: columns of a slice.
        slices: of the array.
        planes: byte planes of a slice: what the cipher takes for channels.
        body_bytes: of all chunks together: as many as the array has.
        tiles: how many a slice has, down and across.
        count: chunks of the array.
        blocks: of up to 4 KiB, in all chunks: what has a tag of its own.
    """

    shape: tuple[int, ...]
    layout: str
    itemsize: int
    tile: tuple[int, int]
    channels: int = field(init=False, compare=False)
    height: int = field(init=False, compare=False)
    width: int = field(init=False, compare=False)
    slices: int = field(init=False, compare=False)
    planes: int = field(init=False, compare=False)
    body_bytes: int = field(init=False, compare=False)
    tiles: tuple[int, int] = field(init=False, compare=False)
    count: int = field(init=False, compare=False)
    blocks: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Work out all sizes once: they are asked for with every chunk.

        Raises:
            ContainerError: one is beyond the limits; nothing was allocated for it yet.
        """
        sizes = dict(zip(self.layout, self.shape, strict=True))
        channels, height, width = sizes.get("C", 1), sizes.get("H", 1), sizes["W"]
        slices = math.prod(self.shape) // (height * width * channels)
        tiles = -(-height // self.tile[0]), -(-width // self.tile[1])
        known: dict[str, Any] = {
            "channels": channels,
            "height": height,
            "width": width,
            "slices": slices,
            "planes": channels * self.itemsize,
            "body_bytes": math.prod(self.shape) * self.itemsize,
            "tiles": tiles,
            "count": slices * math.prod(tiles),
        }
        # How many tiles along a side are whole, and how many are smaller; each with its length.
        down, across = (
            ((side // tile, tile), (side % tile > 0, side % tile))
            for side, tile in zip((height, width), self.tile, strict=True)
        )
        known["blocks"] = slices * sum(
            rows * columns * -(-tall * wide * known["planes"] // BLOCK_BYTES)
            for rows, tall in down
            for columns, wide in across
        )
        for name, value in known.items():
            object.__setattr__(self, name, value)
        for what, size, limit in (
            ("rows", height, MAX_SIDE),
            ("columns", width, MAX_SIDE),
            ("channels", channels, MAX_CHANNELS),
            ("slices", slices, MAX_SLICES),
            ("bytes a slice", height * width * self.planes, MAX_SLICE_BYTES),
            ("bytes", self.body_bytes, MAX_BODY_BYTES),
        ):
            if size > limit:
                raise ContainerError(f"an array of {size:,} {what} is more than a file holds ({limit:,}): split it")

    def place(self, index: int) -> Place:
        """Where chunk `index` lies."""
        down, across = self.tiles
        number, within = divmod(index, down * across)
        row, column = divmod(within, across)
        top, left = row * self.tile[0], column * self.tile[1]
        height, width = min(self.tile[0], self.height - top), min(self.tile[1], self.width - left)
        return Place(number, top, left, height, width)

    def form(self, index: int) -> tuple[int, int, int]:
        """(planes, height, width) of chunk `index`."""
        place = self.place(index)
        return self.planes, place.height, place.width


def is_layout(layout: object, shape: Sequence[int]) -> bool:
    """Whether the letters fit the shape: each once, and in an order that a file may have."""
    return isinstance(layout, str) and len(layout) == len(shape) <= MAX_AXES and _LAYOUT.fullmatch(layout) is not None


def choose_tile(shape: Sequence[int], layout: str, dtype: str) -> tuple[int, int]:
    """Rows and columns of a chunk: the whole slice, or near to the largest squares within the limits."""
    whole = Grid(tuple(shape), layout, np.dtype(dtype).itemsize, (1, 1))
    height, width = whole.height, whole.width
    pixels = max(1, min(MAX_CHUNK_PIXELS, MAX_CHUNK_BYTES // whole.planes))
    if height * width <= pixels:
        return height, width
    rows = min(1 << (pixels.bit_length() - 1) // 2, height)
    columns = min(pixels // rows, width)
    return min(pixels // columns, height), columns  # a narrow slice gets longer tiles


def cut(array: Array, place: Place) -> Planes:
    """The byte planes of one tile of a slice, uint8 (planes, height, width).

    Args:
        array: the slice, (height, width, channels), little-endian.
        place: the tile's.
    """
    tile = array[place.top : place.top + place.height, place.left : place.left + place.width]
    values, itemsize = np.ascontiguousarray(tile), array.dtype.itemsize
    if itemsize > LARGEST_WORD:
        octets = values.view(np.uint8).reshape(*values.shape, itemsize)
        return np.ascontiguousarray(octets.transpose(3, 2, 0, 1)).reshape(-1, place.height, place.width)
    words, colours = values.view(f"<u{itemsize}"), values.shape[2]
    planes = np.empty((itemsize, colours, place.height, place.width), np.uint8)
    octets = words.reshape(-1).view(np.uint8)
    for number, plane in enumerate(planes):
        if colours > 1:
            plane[:] = (words >> words.dtype.type(8 * number)).transpose(2, 0, 1)
            continue
        # A word that begins at the byte has it lowest, and a conversion keeps that: several times as fast as strides.
        at, flat = np.ndarray(words.size - (number > 0), words.dtype, octets, number), plane.reshape(-1)
        np.copyto(flat[: at.size], at, casting="unsafe")
        flat[-1] = octets[number - itemsize]
    return planes.reshape(-1, place.height, place.width)


def paste(array: Array, place: Place, planes: Planes) -> None:
    """Undo `cut`: put the byte planes of a tile into a slice, (height, width, channels) and little-endian."""
    itemsize = array.dtype.itemsize
    octets = planes.reshape(itemsize, array.shape[2], place.height, place.width)
    part = array[place.top : place.top + place.height, place.left : place.left + place.width]
    if itemsize > LARGEST_WORD:
        part[:] = np.ascontiguousarray(octets.transpose(2, 3, 1, 0)).view(array.dtype)[..., 0]
        return
    whole = part.view(f"<u{itemsize}").transpose(2, 0, 1)
    words = whole if len(whole) == 1 else np.empty_like(whole, order="C")
    words[:] = octets[-1]
    for plane in octets[-2::-1]:
        words <<= 8
        words |= plane
    if words is not whole:
        whole[:] = words
