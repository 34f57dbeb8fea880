"""Pictures on disk as integer arrays, without losing a bit: PNG, TIFF and NPY, and back.

An array is (H, W) or (H, W, C) of uint8, uint16 or int16; alpha is a channel like any other. The file's kind
is told by its content, not by its name. JPEG and BMP can be read too, and are written back as PNG.
Not kept: metadata (colour profiles, resolution, comments). Palettes become colour, and grey of 1, 2 or 4 bits
becomes 8 bits.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from encdl import atomic
from encdl.errors import ImageFileError

Array = npt.NDArray[Any]

DTYPES = ("uint8", "uint16", "int16")
MAX_PIXELS = 2**26
MAX_CHANNELS = 1024
MAX_BYTES = 2**30
SUFFIXES = {".png": "png", ".tif": "tiff", ".tiff": "tiff", ".npy": "npy"}
READABLE_SUFFIXES = (*SUFFIXES, ".jpg", ".jpeg", ".bmp")
LATER_SUFFIXES = (".dcm", ".nii", ".nii.gz", ".mha", ".nrrd")

_PNG = b"\x89PNG\r\n\x1a\n"
_NPY = b"\x93NUMPY"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG = b"\xff\xd8\xff"


def read(path: str | os.PathLike[str]) -> Array:
    """Read a picture.

    Args:
        path: a PNG, TIFF (one page), NPY, JPEG or BMP file.

    Returns:
        Array (H, W) or (H, W, C), uint8, uint16 or int16 in native byte order, C-contiguous; colour as RGB.

    Raises:
        ImageFileError: missing, empty, truncated, of another kind, or with values that no cipher takes.
    """
    return read_with_format(path)[0]


def read_with_format(path: str | os.PathLike[str]) -> tuple[Array, str]:
    """Read a picture, and say in which format ("png", "tiff" or "npy") it should be written back."""
    where = Path(path)
    data = _load(where)
    kind, decode = _decoder(where, data)
    with _decoding(where, kind):
        array = decode(where, data)
    array = check(array, where)
    return array, ("png" if kind not in ("TIFF", "NPY") and _fits_png(array) else _FORMAT.get(kind, "tiff"))


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
        raise ImageFileError(
            f"{where}: has shape {array.shape}: give (height, width) or (height, width, channels)"
        )
    if array.size == 0:
        raise ImageFileError(f"{where}: holds no pixels (shape {array.shape}): give an image of 1x1 or more")
    channels = array.shape[2] if array.ndim == 3 else 1
    _check_size(where, array.shape[0], array.shape[1], channels, array.dtype.itemsize)
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def write(path: str | os.PathLike[str], array: Array, *, force: bool = False) -> None:
    """Write a picture whole or not at all; the name's ending says the format.

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
    encode = {"png": _encode_png, "tiff": _encode_tiff, "npy": _encode_npy}[SUFFIXES[where.suffix.lower()]]
    atomic.write_bytes(where, encode(where, array), force=force)


def check_suffix(path: str | os.PathLike[str]) -> Path:
    """Raise `ImageFileError` unless the name's ending is one that `write` knows; return the path."""
    where = Path(path)
    if where.suffix.lower() not in SUFFIXES:
        ending = f"ending {where.suffix!r}" if where.suffix else "name without an ending"
        raise ImageFileError(f"{where}: cannot write a picture under a {ending}: use {', '.join(SUFFIXES)}")
    return where


def _load(where: Path) -> bytes:
    try:
        if where.is_dir():
            raise ImageFileError(f"{where}: is a folder: give one image file")
        if where.exists() and not where.is_file():
            raise ImageFileError(f"{where}: is no regular file: give a file on disk")
        size = where.stat().st_size
        if size > 2 * MAX_BYTES:
            raise ImageFileError(
                f"{where}: is {size:,} bytes long, more than {2 * MAX_BYTES:,}: split it first"
            )
        data = where.read_bytes()
    except FileNotFoundError:
        raise ImageFileError(f"{where}: no such file: check the name") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise ImageFileError(f"{where}: cannot be read ({reason}): check its permissions") from None
    if not data:
        raise ImageFileError(f"{where}: is empty (0 bytes): export or copy the image again")
    return data


def _decoder(where: Path, data: bytes) -> tuple[str, Callable[[Path, bytes], Array]]:
    """Tell the file's kind by its first bytes."""
    if data.startswith(_PNG):
        return "PNG", _decode_png
    if data.startswith(_NPY):
        return "NPY", _decode_npy
    if data.startswith(_TIFF):
        return "TIFF", _decode_tiff
    if data.startswith(_JPEG):
        return "JPEG", _decode_pillow
    if data.startswith(b"BM"):
        return "BMP", _decode_pillow
    raise ImageFileError(f"{where}: {_other_kind(where, data)}")


def _other_kind(where: Path, data: bytes) -> str:
    known = "PNG, TIFF, NPY, JPEG or BMP"
    if data.startswith(b"\x89ENCDL"):
        return "is encrypted by EncDL already: `encdl decrypt` opens it"
    if data.startswith(b"PK\x03\x04") and where.suffix.lower() == ".npz":
        return "is an NPZ with several arrays: save one image as .npy"
    if data[128:132] == b"DICM" or where.name.lower().endswith(LATER_SUFFIXES):
        return "medical formats such as DICOM and NIfTI are not read yet: convert to 16-bit TIFF or NPY first"
    if where.suffix.lower() in READABLE_SUFFIXES:
        return f"does not start like its ending {where.suffix!r}: it is damaged, or not {known}"
    return f"is not an image of a known kind: give {known}"


@contextlib.contextmanager
def _decoding(where: Path, kind: str) -> Iterator[None]:
    """Turn what the libraries raise on bad files into one line."""
    try:
        yield
    except ImageFileError:
        raise
    except MemoryError:
        raise ImageFileError(
            f"{where}: this {kind} does not fit in memory: it is too large or damaged"
        ) from None
    except Exception as error:  # on bad bytes decoders raise anything, from TokenError to AttributeError
        reason = " ".join(str(error).split("<")[0].split())[:100] or type(error).__name__
        raise ImageFileError(
            f"{where}: this {kind} file is truncated or damaged ({reason}): export or copy it again"
        ) from None


def _check_size(where: object, height: int, width: int, channels: int = 1, itemsize: int = 1) -> None:
    if height * width > MAX_PIXELS:
        raise ImageFileError(
            f"{where}: {height}x{width} is more than {MAX_PIXELS:,} pixels: tile or shrink it first"
        )
    if channels > MAX_CHANNELS:
        raise ImageFileError(
            f"{where}: has {channels} channels (the last axis), more than {MAX_CHANNELS}: split it first"
        )
    if height * width * channels * itemsize > MAX_BYTES:
        raise ImageFileError(f"{where}: is more than {MAX_BYTES:,} bytes of pixels: split it first")


def _fits_png(array: Array) -> bool:
    channels = array.shape[2] if array.ndim == 3 else 1
    # No library at hand writes 16-bit grey with alpha.
    return array.dtype.kind == "u" and (
        channels in (1, 3, 4) or (channels == 2 and array.dtype.itemsize == 1)
    )


_FORMAT = {"NPY": "npy"}


def _decode_png(where: Path, data: bytes) -> Array:
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise ValueError("no header")
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    _check_size(where, height, width)
    _check_png_chunks(data)
    array = _decode_pillow(where, data)  # also for 16-bit colour: it finds pixels that are missing
    if depth != 16 or colour == 0:
        return array
    import cv2  # noqa: PLC0415

    # Pillow cuts 16-bit colour to 8 bits, OpenCV keeps it, as BGR(A).
    wide: Array | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if wide is None or wide.dtype != np.uint16 or wide.ndim != 3:
        raise ValueError("16-bit colour that cannot be decoded")
    if colour == 4:  # grey with alpha comes as B=G=R and alpha
        return wide[..., [0, 3]]
    return wide[..., [2, 1, 0, 3][: wide.shape[2]]]


def _check_png_chunks(data: bytes) -> None:
    """Check length and checksum of every chunk, which the decoders do partly, or noisily."""
    start = len(_PNG)
    name = b""
    while name != b"IEND":
        length, name = struct.unpack(">I4s", data[start : start + 8])
        stop = start + 8 + length
        if zlib.crc32(data[start + 4 : stop]).to_bytes(4, "big") != data[stop : stop + 4]:
            raise ValueError(f"checksum of chunk {name.decode('latin-1')!a}")
        start = stop + 4


def _decode_pillow(where: Path, data: bytes) -> Array:
    from PIL import Image, ImageOps  # noqa: PLC0415

    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "BMP")) as picture:
        _check_size(where, picture.height, picture.width)
        frames = getattr(picture, "n_frames", 1)
        if frames > 1 and picture.format != "MPO":
            raise ImageFileError(f"{where}: is animated ({frames} frames): save one frame a file")
        picture.load()
        upright = ImageOps.exif_transpose(picture) if picture.format in ("JPEG", "MPO") else picture
        mode, keyed = upright.mode, "transparency" in upright.info
        if mode in ("P", "PA"):
            upright = upright.convert("RGBA" if keyed or mode == "PA" else "RGB")
        elif mode == "1":
            upright = upright.convert("L")
        elif keyed and mode in ("L", "RGB"):
            upright = upright.convert(mode + "A")
        if upright.mode not in ("L", "LA", "RGB", "RGBA", "I;16"):
            raise ImageFileError(f"{where}: has the colour mode {mode}: convert it to grey or RGB first")
        return np.asarray(upright)


def _decode_npy(where: Path, data: bytes) -> Array:
    array: Array = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def _decode_tiff(where: Path, data: bytes) -> Array:
    import tifffile  # noqa: PLC0415

    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # damage is reported by us, in one line
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        if len(file.pages) != 1:
            raise ImageFileError(f"{where}: holds {len(file.pages)} pages: save one image a file")
        page = file.pages[0]
        height, width, samples = page.imagelength, page.imagewidth, page.samplesperpixel
        _check_size(where, height, width, samples)
        if page.imagedepth != 1:
            raise ImageFileError(f"{where}: is a volume of {page.imagedepth} slices: save one slice a file")
        segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        if not segments or any(count == 0 or start + count > len(data) for start, count in segments):
            raise ValueError("pixels are missing")
        photometric = getattr(page.photometric, "name", "unknown")
        if photometric not in ("MINISBLACK", "MINISWHITE", "RGB", "PALETTE"):
            raise ImageFileError(
                f"{where}: has the colour space {photometric}: convert it to grey or RGB first"
            )
        array = _tiff_pixels(where, page, data)
        if photometric == "PALETTE":
            array = np.moveaxis(page.colormap[:, array] >> 8, 0, -1).astype(np.uint8)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    if photometric == "MINISWHITE" and array.dtype.kind in "ui":
        array = np.invert(array)  # show the same picture once it is written with black as the minimum
    return array


def _tiff_pixels(where: Path, page: Any, data: bytes) -> Array:
    try:
        array: Array = page.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        return _tiff_by_opencv(where, page, data)
    if page.axes == "SYX":  # colour planes one after the other
        array = np.moveaxis(array, 0, -1)
    return array.reshape(
        page.imagelength, page.imagewidth, *((page.samplesperpixel,) * (page.samplesperpixel > 1))
    )


def _tiff_by_opencv(where: Path, page: Any, data: bytes) -> Array:
    """Decode a compression (LZW, JPEG, ...) that tifffile leaves to an optional package."""
    import cv2  # noqa: PLC0415

    samples, name = page.samplesperpixel, getattr(page.compression, "name", "unknown")
    logging_of_cv2 = cv2.utils.logging  # it would tell of damage on stderr; the shape below tells it too
    level = logging_of_cv2.setLogLevel(logging_of_cv2.LOG_LEVEL_SILENT)
    try:
        array: Array | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        logging_of_cv2.setLogLevel(level)
    expected = (page.imagelength, page.imagewidth, *((samples,) * (samples > 1)))
    if array is None or samples not in (1, 3, 4) or array.shape != expected or array.dtype != page.dtype:
        raise ImageFileError(
            f"{where}: its TIFF compression {name} is not supported here: save it uncompressed"
        )
    return array[..., [2, 1, 0, 3][:samples]] if samples > 1 else array


def _encode_png(where: Path, array: Array) -> bytes:
    if not _fits_png(array):
        raise ImageFileError(
            f"{where}: PNG cannot hold {array.dtype.name} values of shape {array.shape}: write .tiff or .npy"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim == 3 and array.dtype == np.uint16:
        import cv2  # noqa: PLC0415

        done, encoded = cv2.imencode(".png", array[..., [2, 1, 0, 3][: array.shape[2]]])
        if not done:
            raise ImageFileError(
                f"{where}: PNG cannot hold an image of shape {array.shape}: write .tiff or .npy"
            )
        return bytes(encoded)
    from PIL import Image  # noqa: PLC0415

    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format="PNG")
    return stream.getvalue()


def _encode_tiff(where: Path, array: Array) -> bytes:
    import tifffile  # noqa: PLC0415

    channels = array.shape[2] if array.ndim == 3 else 1
    colour = channels in (3, 4)
    extra = {2: ["unassalpha"], 4: ["unassalpha"]}.get(channels, ["unspecified"] * (channels - 1))
    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        array if channels > 1 else array.reshape(array.shape[:2]),
        photometric="rgb" if colour else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=None if channels in (1, 3) else extra,
        compression="zlib",
        metadata=None,
    )
    return stream.getvalue()


def _encode_npy(where: Path, array: Array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()
