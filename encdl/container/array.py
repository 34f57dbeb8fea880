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
LARGEST_WORD = 8
"""Bytes of the largest integer that values are taken apart as."""


def as_slice(array: Array, grid: Grid) -> Array:
    """One slice as (height, width, channels), little-endian, without changing a bit."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return little.reshape(grid.height, grid.width, grid.channels)


def cut(array: Array, place: Place) -> Planes:
    """The byte planes of one tile of a slice from `as_slice`: uint8 (planes, height, width)."""
    tile = array[place.top : place.top + place.height, place.left : place.left + place.width]
    values, itemsize = np.ascontiguousarray(tile), array.dtype.itemsize
    if itemsize > LARGEST_WORD:
        octets = values.view(np.uint8).reshape(*values.shape, itemsize)
        return np.ascontiguousarray(octets.transpose(3, 2, 0, 1)).reshape(-1, place.height, place.width)
    words = values.view(f"<u{itemsize}")
    planes = np.empty((itemsize, values.shape[2], place.height, place.width), np.uint8)
    for number, plane in enumerate(planes):  # each word's low byte, several times as fast as by strides
        plane[:] = (words >> (8 * number)).transpose(2, 0, 1)
    return planes.reshape(-1, place.height, place.width)


def paste(array: Array, place: Place, planes: Planes) -> None:
    """Undo `cut`: put the byte planes of a tile into a slice, (height, width, channels) and little-endian."""
    itemsize = array.dtype.itemsize
    octets = planes.reshape(itemsize, array.shape[2], place.height, place.width)
    if itemsize > LARGEST_WORD:
        values = np.ascontiguousarray(octets.transpose(2, 3, 1, 0)).view(array.dtype)[..., 0]
    else:
        words = octets[-1].astype(f"<u{itemsize}")
        for plane in octets[-2::-1]:
            words <<= 8
            words |= plane
        values = words.transpose(1, 2, 0).view(array.dtype)
    array[place.top : place.top + place.height, place.left : place.left + place.width] = values
