"""Between arrays and the byte planes of chunks.

A chunk is uint8 (planes, height, width): the lowest bytes of all channels, then their next bytes, and so on. Any type
comes back bit by bit, signed ones by their two's complement and floats by their IEEE pattern, not-a-number included.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from encdl.container.grid import Grid, Place

Array = npt.NDArray[Any]
Planes = npt.NDArray[np.uint8]


def as_slice(array: Array, grid: Grid) -> Array:
    """One slice as (height, width, channels), little-endian, without changing a bit."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return little.reshape(grid.height, grid.width, grid.channels)


def cut(array: Array, place: Place) -> Planes:
    """The byte planes of one tile of a slice from `as_slice`: uint8 (planes, height, width)."""
    tile = array[place.top : place.top + place.height, place.left : place.left + place.width]
    values = np.ascontiguousarray(tile)
    octets = values.view(np.uint8).reshape(*values.shape, values.dtype.itemsize)
    planes = octets.transpose(3, 2, 0, 1)
    return np.ascontiguousarray(planes).reshape(-1, place.height, place.width)


def paste(array: Array, place: Place, planes: Planes) -> None:
    """Undo `cut`: put the byte planes of a tile into a slice, (height, width, channels) and little-endian."""
    channels, itemsize = array.shape[2], array.dtype.itemsize
    octets = planes.reshape(itemsize, channels, place.height, place.width).transpose(2, 3, 1, 0)
    values = np.ascontiguousarray(octets).view(array.dtype)[..., 0]
    array[place.top : place.top + place.height, place.left : place.left + place.width] = values
