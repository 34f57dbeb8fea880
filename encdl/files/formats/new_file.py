"""New files for arrays that come from no file, or go into a file of another kind."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from encdl.files.formats import png_jpeg_bmp, tiff
from encdl.files.formats.base import Array, Document
from encdl.utils import atomic
from encdl.utils.errors import ImageFileError


def write_new(path: Path, document: Document, kind: str, *, force: bool) -> None:
    """Write the pixel values alone.

    Args:
        path: the file to be written.
        document: whose slices are to be written.
        kind: "npy" (written slice by slice), "png" or "tiff" (the slices become pages).
        force: whether an existing file may be replaced.

    Raises:
        ImageFileError: another kind, or one that cannot hold the array.
        OutputExistsError: the file exists and `force` is not set.
    """
    if kind == "npy":
        _write_npy(path, document, force)
    elif kind == "png":
        if document.layout not in ("HW", "HWC"):
            raise ImageFileError(f"{path}: PNG holds one image, not a volume: write .npy or .tiff")
        encoded = png_jpeg_bmp.encode_png(path, _native(next(iter(document.slices())).reshape(document.shape)))
        atomic.write_bytes(path, encoded, force=force, mode=0o600)
    elif kind == "tiff":
        atomic.write_bytes(path, tiff.encode(_pages(path, document)), force=force, mode=0o600)
    else:
        raise ImageFileError(
            f"{path}: only the original file can be restored as {kind.upper()}, and this is another: "
            "write .npy, .png or .tiff"
        )


def _write_npy(path: Path, document: Document, force: bool) -> None:
    header = io.BytesIO()
    fields: dict[str, Any] = {
        "descr": npy.dtype_to_descr(document.dtype),
        "fortran_order": False,
        "shape": document.shape,
    }
    npy.write_array_header_1_0(header, fields)
    left = math.prod(document.shape) * document.dtype.itemsize
    with atomic.writing(path, force=force, mode=0o600) as stream:
        stream.write(header.getvalue())
        for array in document.slices():
            stream.write(np.ascontiguousarray(array, document.dtype).tobytes())
            left -= array.nbytes
        if left:
            raise ImageFileError(f"{path}: the slices do not fill an array of shape {document.shape}")


def _pages(path: Path, document: Document) -> Iterator[Array]:
    if document.dtype.kind == "c":
        raise ImageFileError(f"{path}: TIFF readers do not take complex values: write .npy")
    for array in document.slices():
        yield _native(array)


def _native(array: Array) -> Array:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
