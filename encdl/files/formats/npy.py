"""NumPy's .npy files: every byte comes back. Pickled objects are never loaded."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from encdl.files.formats import non_pixel_data, raw_pixels
from encdl.files.formats.base import Array, Document, Source, check_array, decoding, layout_of, one_line, slice_shape
from encdl.utils.errors import ImageFileError

MAGIC = b"\x93NUMPY"


def load(source: Source) -> Document:
    """Read a .npy file of one or more axes.

    An array in Fortran order is read as a whole, and needs the memory for it; one in C order is read slice by slice.

    Raises:
        ImageFileError: it is damaged, too large, or holds other values than numbers.
    """
    with decoding(source.path, "npy"), io.BytesIO(source.head) as stream:  # NumPy takes no header over 10,000 bytes
        shape, fortran, dtype = _header(stream)
        offset = stream.tell()
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None:
        raise ImageFileError(f"{source.path}: holds Python objects or records: save one array of numbers")
    if dtype == np.bool_:
        dtype = np.dtype("u1")  # as they are stored, and a byte that is neither 0 nor 1 stays so
    shape = shape or (1,)
    try:
        layout = layout_of(shape)
    except ValueError as error:
        raise ImageFileError(f"{source.path}: holds {error}, more than eight: reshape it first") from None
    check_array(source.path, shape, layout, raw_pixels.little(dtype))
    where = ((offset, math.prod(shape) * dtype.itemsize),)
    if not fortran or len(shape) < 2:
        image = raw_pixels.Spans(where, slice_shape(shape, layout), dtype, file_bytes=source.size)
        return raw_pixels.document(source, image, shape, layout, "npy")
    return _fortran(source, raw_pixels.Spans(where, shape[::-1], dtype, file_bytes=source.size), layout)


def restore_fortran(stream: BinaryIO, document: Document, recipe: dict[str, Any], around: bytes) -> None:
    """Write an array in Fortran order."""
    where = raw_pixels.Spans.from_recipe(recipe)
    where.check(1)
    if where.shape[::-1] != document.shape:
        raise ValueError(f"an array of {where.shape[::-1]}")
    array = np.empty(document.shape, document.dtype, order="F")
    lead = array.shape[: array.ndim - len(document.slice_shape)]
    for index, image in zip(np.ndindex(lead), document.slices(), strict=True):
        array[index] = image
    for part in raw_pixels.join(around, [array.T], where):
        stream.write(part)


def _header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(stream)
    if version == (1, 0):
        return npy.read_array_header_1_0(stream)
    if version in ((2, 0), (3, 0)):  # which differ in the names of records alone
        return npy.read_array_header_2_0(stream)
    raise ValueError(f"version {version[0]}.{version[1]}")


def _fortran(source: Source, where: raw_pixels.Spans, layout: str) -> Document:
    shape = where.shape[::-1]
    with decoding(source.path, "npy"), source.open() as stream:
        where.check(1)
        around = raw_pixels.skeleton(stream, where)

    def slices() -> Iterator[Array]:
        with one_line(source.path, "npy"), source.open() as stream:
            array = next(raw_pixels.read_slices(stream, where)).T
            lead = array.ndim - len(slice_shape(shape, layout))
            for index in np.ndindex(array.shape[:lead]):
                yield np.ascontiguousarray(array[index])

    recipe = {"kind": "fortran", "mode": source.mode, **where.to_recipe()}
    packed = non_pixel_data.pack(source.path, recipe, around)
    return Document(shape, raw_pixels.little(where.dtype), layout, "npy", packed, slices)
