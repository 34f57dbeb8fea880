"""PNG, JPEG and BMP: decoding for the cipher, encoding, and PNG files restored chunk by chunk.

A PNG whose samples are grey or colour of 8 or 16 bits, and whose pixels deflate to the very same bytes again, is taken
apart into pixels and all other chunks. Any other PNG (of another program's compression, palette, 1, 2 or 4 bits,
interlaced, a transparent colour), and every JPEG and BMP, is kept whole beside the pixels that it shows.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import BinaryIO

import numpy as np

from encdl.files.container.chunk_grid import MAX_SLICE_BYTES
from encdl.files.formats import non_pixel_data, verbatim
from encdl.files.formats.base import MAX_PIXELS, Array, Document, Source, check_array, one_line
from encdl.files.formats.codestream import uncommon_jpeg
from encdl.utils import worker_process
from encdl.utils.errors import ImageFileError

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
BMP = b"BM"
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
"""Bytes of the second header, which tell a bitmap from a text that begins with the same two letters."""


def kind_of(head: bytes) -> str | None:
    """Say by the first bytes whether this is "png", "jpeg" or "bmp"; None if it is none of them."""
    if head.startswith(PNG):
        return "png"
    if head.startswith(JPEG):
        return "jpeg"
    bitmap = head.startswith(BMP) and int.from_bytes(head[14:18], "little") in _BMP_HEADERS
    return "bmp" if bitmap else None


def load(source: Source) -> Document:
    """Read a PNG, JPEG or BMP file.

    Raises:
        ImageFileError: it is damaged, too large, animated, or in a colour space that is not read.
    """
    data = source.whole(deflate=True)
    kind = kind_of(data) or "png"
    with one_line(source.path, kind.upper()):
        arguments = {"where": str(source.path), "data": data}
        where = f"{__name__}:decode"
        array = worker_process.decoded(source.path, where, arguments, len(data), MAX_PIXELS, MAX_SLICE_BYTES)
        around = _around(data, array) if kind == "png" else None
    layout = "HWC"[: array.ndim]
    if around is not None and _png(array, *around) != data:
        around = None  # another program's compression: only the file itself comes back byte for byte

    if around is None:
        return verbatim.document(
            source, data, kind, array.shape, layout, array.dtype, [array].__iter__, deflate=kind == "bmp"
        )
    packed = non_pixel_data.pack(source.path, {"kind": "png", "mode": source.mode}, *around)
    return Document(array.shape, array.dtype, layout, kind, packed, [array].__iter__)


def restore_png(stream: BinaryIO, document: Document, before: bytes, after: bytes) -> None:
    """Write a PNG with the chunks that it had before and after its pixels."""
    (array,) = document.slices()
    stream.write(_png(array.reshape(document.shape), before, after))


def _png(array: Array, before: bytes, after: bytes) -> bytes:
    """A PNG with other chunks before and after its pixels than `encode_png` writes."""
    encoded = encode_png("PNG", array)
    found = [place for place in _chunks(encoded) if place[0] == b"IDAT"]
    if before[16:29] != encoded[16:29]:  # width to interlacing
        raise ValueError("its pixels are not of its header's form")
    return before + encoded[found[0][1] : found[-1][2]] + after


def _around(data: bytes, array: Array) -> tuple[bytes, bytes] | None:
    """All before and after the pixels of a PNG that can be put together again; else None."""
    chunks = _chunks(data)
    depth, colour, _, _, interlaced = data[24:29]
    pixels = [chunk for chunk in chunks if chunk[0] == b"IDAT"]
    plain = depth in (8, 16) and colour != 3 and not interlaced and all(name != b"tRNS" for name, _, _ in chunks)
    if (
        not plain
        or not fits_png(array)
        or sum(stop - start for _, start, stop in pixels) != (pixels[-1][2] - pixels[0][1])
    ):
        return None
    return data[: pixels[0][1]], data[pixels[-1][2] :]


def decode(where: object, data: bytes) -> Array:
    """Decode a PNG, JPEG or BMP file.

    Returns:
        (H, W) or (H, W, C), uint8 or uint16: grey, grey and alpha, RGB or RGBA. Palettes become colour, 1, 2 and 4
        bits become 8, a transparent colour becomes alpha; a JPEG is turned upright.

    Raises:
        ImageFileError: it is too large, animated, or in a colour space that is not read.
        Exception: it is damaged.
    """
    return _decode_png(where, data) if data.startswith(PNG) else _decode_pillow(where, data)


def _decode_png(where: object, data: bytes) -> Array:
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise ValueError("no header")
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    check_array(where, (height, width), "HW", np.dtype("u1"))
    _chunks(data)
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


def _chunks(data: bytes) -> list[tuple[bytes, int, int]]:
    """Name, start and end of every chunk. Checks lengths and checksums, which the decoders do partly, or noisily."""
    found: list[tuple[bytes, int, int]] = []
    start = len(PNG)
    while not found or found[-1][0] != b"IEND":
        length, name = struct.unpack(">I4s", data[start : start + 8])
        stop = start + 8 + length
        if zlib.crc32(data[start + 4 : stop]).to_bytes(4, "big") != data[stop : stop + 4]:
            raise ValueError(f"checksum of chunk {name.decode('latin-1')!a}")
        found.append((name, start, stop + 4))
        start = stop + 4
    return found


def _decode_pillow(where: object, data: bytes) -> Array:
    from PIL import Image, ImageOps  # noqa: PLC0415

    if kind := uncommon_jpeg(data) if data.startswith(JPEG) else "":
        raise ImageFileError(f"{where}: is a {kind}, which is not read outside DICOM: convert it to PNG or TIFF first")
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "BMP")) as image:
        check_array(where, (image.height, image.width), "HW", np.dtype("u1"))
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":
            raise ImageFileError(f"{where}: is animated ({frames} frames): save one frame a file")
        image.load()
        upright = ImageOps.exif_transpose(image) if image.format in ("JPEG", "MPO") else image
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


def fits_png(array: Array) -> bool:
    """Whether the libraries at hand can write the array as PNG."""
    channels = array.shape[2] if array.ndim == 3 else 1
    # No library at hand writes 16-bit grey with alpha.
    return array.dtype.kind == "u" and (channels in (1, 3, 4) or (channels == 2 and array.dtype.itemsize == 1))


def encode_png(where: object, array: Array) -> bytes:
    """An array (H, W) or (H, W, C) as a PNG file.

    Raises:
        ImageFileError: PNG cannot hold it.
    """
    if not fits_png(array):
        raise ImageFileError(
            f"{where}: PNG cannot hold {array.dtype.name} values of shape {array.shape}: write .tiff or .npy"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim == 3 and array.dtype == np.uint16:
        import cv2  # noqa: PLC0415

        done, encoded = cv2.imencode(".png", array[..., [2, 1, 0, 3][: array.shape[2]]])
        if not done:
            raise ImageFileError(f"{where}: PNG cannot hold an image of shape {array.shape}: write .tiff or .npy")
        return bytes(encoded)
    from PIL import Image  # noqa: PLC0415

    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format="PNG")
    return stream.getvalue()
