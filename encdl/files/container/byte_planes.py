"""Between arrays and the byte planes of chunks.

A chunk is uint8 (planes, height, width): the lowest bytes of all channels, then their next bytes, and so on. Any type
comes back bit by bit, signed ones by their two's complement and floats by their IEEE pattern, not-a-number included.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from encdl.files.container.chunk_grid import Grid, Place

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
    words, colours = values.view(f"<u{itemsize}"), values.shape[2]
    planes = np.empty((itemsize, colours, place.height, place.width), np.uint8)
    for number, plane in enumerate(planes):  # each word's low byte, several times as fast as by strides
        shift = words.dtype.type(8 * number)
        if colours == 1:
            np.right_shift(words, shift, out=plane.reshape(words.shape), casting="unsafe")
        else:
            plane[:] = (words >> shift).transpose(2, 0, 1)
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
