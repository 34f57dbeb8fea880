"""Single images on disk as integer arrays: PNG, TIFF, NPY, JPEG and BMP, by what they show.

An array is (H, W) or (H, W, C) of uint8, uint16 or int16; alpha is a channel like any other. The file's kind
is told by its content, not by its name. Palettes become colour, grey of 1, 2 or 4 bits becomes 8 bits, and metadata is
left behind: `encdl.files.formats` reads whole files and gives them back.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

from encdl.files import formats
from encdl.files.container.chunk_grid import MAX_SLICE_BYTES
from encdl.files.formats import npy, png_jpeg_bmp, tiff
from encdl.files.formats.base import Array, check_array, decoding, source
from encdl.keys.secret_files import CONTAINER_MARK
from encdl.utils import atomic
from encdl.utils.errors import ImageFileError

DTYPES = ("uint8", "uint16", "int16")
SUFFIXES = {".png": "png", ".tif": "tiff", ".tiff": "tiff", ".npy": "npy"}
READABLE_SUFFIXES = (*SUFFIXES, ".jpg", ".jpeg", ".bmp")
OTHER_SUFFIXES = (".dcm", ".nii", ".nii.gz", ".mha", ".nrrd")


def read(path: str | os.PathLike[str]) -> Array:
    """Read an image.

    Args:
        path: a PNG, TIFF (one page), NPY, JPEG or BMP file.

    Returns:
        Array (H, W) or (H, W, C), uint8, uint16 or int16 in native byte order, C-contiguous; colour as RGB.

    Raises:
        ImageFileError: missing, empty, truncated, of another kind, or with values that no cipher takes.
    """
    return read_with_format(path)[0]


def read_with_format(path: str | os.PathLike[str]) -> tuple[Array, str]:
    """Read an image, and say in which format ("png", "tiff" or "npy") it should be written back."""
    found = source(path)
    where, limit = found.path, 2 * MAX_SLICE_BYTES
    if found.size > limit:
        raise ImageFileError(f"{where}: is {found.size:,} bytes long, more than {limit:,}: split it first")
    data = found.read(limit)
    kind = _kind(where, data)
    with decoding(where, kind.upper()):
        if kind == "npy":
            array = np.load(io.BytesIO(data), allow_pickle=False)
        else:
            array = tiff.decode(where, data) if kind == "tiff" else png_jpeg_bmp.decode(where, data)
    array = check(array, where)
    if kind not in ("tiff", "npy"):
        kind = "png" if png_jpeg_bmp.fits_png(array) else "tiff"
    return array, kind


def check(array: Array, where: str | os.PathLike[str] = "array") -> Array:
    """Return `array` C-contiguous in native byte order, if it is one that a cipher takes.

    Raises:
        ImageFileError: not (H, W) or (H, W, C), not uint8, uint16 or int16, empty, or beyond the limits.
    """
    array = np.asarray(array)
    if array.dtype.name not in DTYPES:
        problem = "not-a-number values, " if array.dtype.kind == "f" and np.isnan(array).any() else ""
        raise ImageFileError(
            f"{where}: holds {problem}{array.dtype.name} values: convert them to uint8, uint16 or int16 first"
        )
    if array.ndim not in (2, 3):
        raise ImageFileError(f"{where}: has shape {array.shape}: give (height, width) or (height, width, channels)")
    if array.size == 0:
        raise ImageFileError(f"{where}: holds no pixels (shape {array.shape}): give an image of 1x1 or more")
    check_array(where, array.shape, "HWC"[: array.ndim], array.dtype)
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def write(path: str | os.PathLike[str], array: Array, *, force: bool = False) -> None:
    """Write an image whole or not at all; the name's ending says the format.

    Args:
        path: a name that ends with .png, .tif, .tiff or .npy.
        array: (H, W) or (H, W, C), uint8, uint16 or int16.
        force: whether an existing file may be replaced.

    Raises:
        ImageFileError: an unknown ending, or values that the format cannot hold.
        OutputExistsError: the file exists and `force` is not set.
    """
    where = check_suffix(path)
    array = check(array, where)
    kind = SUFFIXES[where.suffix.lower()]
    if kind == "npy":
        stream = io.BytesIO()
        np.save(stream, array, allow_pickle=False)
        encoded = stream.getvalue()
    else:
        encoded = png_jpeg_bmp.encode_png(where, array) if kind == "png" else tiff.encode([array])
    atomic.write_bytes(where, encoded, force=force)


def check_suffix(path: str | os.PathLike[str]) -> Path:
    """Raise `ImageFileError` unless the name's ending is one that `write` knows; return the path."""
    where = Path(path)
    if where.suffix.lower() not in SUFFIXES:
        ending = f"ending {where.suffix!r}" if where.suffix else "name without an ending"
        raise ImageFileError(f"{where}: cannot write an image under a {ending}: use {', '.join(SUFFIXES)}")
    return where


def _kind(where: Path, data: bytes) -> str:
    """Tell the file's kind by its first bytes."""
    if formats.has_dicom_mark(data):
        raise ImageFileError(f"{where}: {_other_kind(where, data)}")
    kind = png_jpeg_bmp.kind_of(data)
    if kind is None and data.startswith(npy.MAGIC):
        kind = "npy"
    if kind is None and data.startswith(tiff.MAGIC):
        kind = "tiff"
    if kind is None:
        raise ImageFileError(f"{where}: {_other_kind(where, data)}")
    return kind


def _other_kind(where: Path, data: bytes) -> str:
    known = "PNG, TIFF, NPY, JPEG or BMP"
    if data.startswith(CONTAINER_MARK):
        return "is encrypted by EncDL already: `encdl decrypt` opens it"
    if data.startswith(b"PK\x03\x04") and where.suffix.lower() == ".npz":
        return "is an NPZ with several arrays: save one image as .npy"
    if data[128:132] == b"DICM" or where.name.lower().endswith(OTHER_SUFFIXES):
        return "medical formats such as DICOM and NIfTI are not read as images: convert to 16-bit TIFF or NPY first"
    if where.suffix.lower() in READABLE_SUFFIXES:
        return f"does not start like its ending {where.suffix!r}: it is damaged, or not {known}"
    return f"is not an image of a known kind: give {known}"
