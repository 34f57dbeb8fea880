"""TIFF, BigTIFF, ImageJ and OME-TIFF of one or many pages: every byte comes back, whatever the tags say.

The pages that are like the first one are slices. Where they lie in the file uncompressed, they are taken out and put
back; all tags, other pages and thumbnails stay in the rest. Any other file is kept whole beside the pixels it shows.
"""

from __future__ import annotations

import functools
import io
import logging
import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from encdl.files.container.chunk_grid import MAX_SLICE_BYTES
from encdl.files.formats import raw_pixels, verbatim
from encdl.files.formats.base import MAX_PIXELS, Array, Document, Source, check_array, decoding, one_line
from encdl.files.formats.codestream import rows_and_columns
from encdl.utils import worker_process
from encdl.utils.errors import ImageFileError

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG = ("OJPEG", "JPEG", "JPEG_LOSSY", "JPEG_2000_LOSSY", "JPEG2000", "APERIO_JP2000_RGB", "APERIO_JP2000_YCBC")
_READABLE = ("MINISBLACK", "MINISWHITE", "RGB", "PALETTE")


def load(source: Source) -> Document:
    """Read a TIFF file.

    Raises:
        ImageFileError: it is damaged, too large, or compressed or coloured in a way that is not read.
    """
    import tifffile  # noqa: PLC0415

    with decoding(source.path, "TIFF"), source.open() as stream, tifffile.TiffFile(stream) as file:
        plain = _plain(source, file)
    if plain is not None:
        where, shape, layout = plain
        return raw_pixels.document(source, where, shape, layout, "tiff")
    return _decoded(source)


def decode(where: object, data: bytes) -> Array:
    """Decode a TIFF file of one page.

    Returns:
        (H, W) or (H, W, C). Palettes become colour, bits become 0 and 255, and white is the maximum.

    Raises:
        ImageFileError: it has more pages, is too large, or is compressed or coloured in a way that is not read.
        Exception: it is damaged.
    """
    import tifffile  # noqa: PLC0415

    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # damage is reported by us, in one line
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        _check_end(file)
        count = max(len(file.pages), _images_of_imagej(file))
        if count != 1:
            raise ImageFileError(f"{where}: holds {count} pages: save one image a file")
        return _decode_page(where, file.pages[0])


def _plain(source: Source, file: Any) -> tuple[raw_pixels.Spans, tuple[int, ...], str] | None:
    """Where the pages' pixels lie as they are; None if they need decoding."""
    pages = _alike(file)
    first = pages[0]
    shape = _page_shape(source.path, first)
    dtype = first.dtype and np.dtype(first.dtype).newbyteorder(file.byteorder)
    if dtype is None or not all(_is_plain(page, dtype) for page in pages):
        return None
    planar = len(shape) == 3 and first.planarconfig == 2
    places = [place for page in pages for place in zip(page.dataoffsets, page.databytecounts, strict=True)]
    count = len(pages)
    if _images_of_imagej(file) > 1:
        count, places = _images_of_imagej(file), [(file.series[0].dataoffset, file.series[0].nbytes)]
    where = raw_pixels.Spans(raw_pixels.merged(places), shape, dtype, planar, source.size)
    try:
        where.check(count)
    except ValueError:
        return None  # strips in another order, shared, or with gaps between
    layout = "HWC"[: len(shape)]
    return where, ((count, *shape) if count > 1 else shape), ("S" + layout if count > 1 else layout)


def _images_of_imagej(file: Any) -> int:
    """ImageJ may write the tags of one page alone, and the pixels of all behind each other; 1 if it did not."""
    if len(file.pages) != 1 or not file.is_imagej or file.series[0].dataoffset is None:
        return 1
    count, remainder = divmod(file.series[0].size, math.prod(file.pages[0].shape))
    return 1 if remainder else int(count)


def _alike(file: Any) -> list[Any]:
    """The pages of the first one's size and type."""

    def form(page: Any) -> tuple[Any, ...]:
        return (page.shape, page.dtype, page.photometric, page.planarconfig, page.samplesperpixel)

    pages = list(file.pages)
    _check_end(file)
    return [page for page in pages if form(page) == form(pages[0])]


def _check_end(file: Any) -> None:
    """Refuse a file that is cut between two pages, whose first ones tifffile would take for all."""
    layout, handle, last = file.tiff, file.filehandle, file.pages[-1]
    handle.seek(last.offset)
    (tags,) = struct.unpack(layout.tagnoformat, handle.read(layout.tagnosize))
    handle.seek(last.offset + layout.tagnosize + tags * layout.tagsize)
    (following,) = struct.unpack(layout.offsetformat, handle.read(layout.offsetsize))
    if following:
        raise ValueError("pages are missing")


def _is_plain(page: Any, dtype: np.dtype[Any]) -> bool:
    return bool(
        page.compression == 1
        and page.predictor == 1
        and page.fillorder == 1
        and not page.is_tiled
        and not page.is_subsampled
        and page.bitspersample == 8 * dtype.itemsize
        and page.photometric in (1, 2)  # values are what they look like
    )


def _page_shape(where: object, page: Any) -> tuple[int, ...]:
    """(H, W) or (H, W, C)."""
    height, width, samples = page.imagelength, page.imagewidth, page.samplesperpixel
    if page.imagedepth != 1:
        raise ImageFileError(f"{where}: is a volume of {page.imagedepth} slices: save one slice a page")
    shape = (height, width, *((samples,) * (samples > 1)))
    if page.dtype is None:
        raise ImageFileError(f"{where}: has values of {page.bitspersample} bits that are not read: convert it first")
    dtype = np.dtype(page.dtype)
    check_array(where, shape, "HWC"[: len(shape)], np.dtype("u1") if dtype == np.bool_ else dtype)
    return shape


def _decoded(source: Source) -> Document:
    """The file as a whole, and its pages decoded."""
    import tifffile  # noqa: PLC0415

    data = source.whole(deflate=True)
    with decoding(source.path, "TIFF"), tifffile.TiffFile(io.BytesIO(data)) as file:
        pages = _alike(file)
        count, compressed = len(pages), any(page.compression != 1 for page in pages)
        values = math.prod(_page_shape(source.path, pages[0]))
    share = 4 * len(data) // count  # pages differ

    def page(index: int) -> Array:
        with one_line(source.path, "TIFF"):
            anywhere = replace(source, path=source.path.absolute())  # the process has a folder of its own
            arguments = {"source": anywhere, "where": str(source.path), "index": index}
            return worker_process.decoded(
                source.path, f"{__name__}:decoded_page", arguments, share, values, MAX_SLICE_BYTES
            )

    first = page(0)

    def slices() -> Iterator[Array]:
        yield first
        for index in range(1, count):
            array = page(index)
            with one_line(source.path, "TIFF"):
                if array.shape != first.shape or array.dtype != first.dtype:
                    raise ValueError(f"a page of {array.shape}")
            yield array

    shape, layout = first.shape, "HWC"[: first.ndim]
    if count > 1:
        shape, layout = (count, *shape), "S" + layout
    return verbatim.document(source, data, "tiff", shape, layout, first.dtype, slices, deflate=not compressed)


def decoded_page(source: Source, where: str, index: int) -> Array:
    """A page of a file, little-endian; in the process that may crash."""
    return raw_pixels.to_little(_decode_page(where, _pages(source)[index]))


@functools.lru_cache(maxsize=1)
def _pages(source: Source) -> list[Any]:
    """The pages of the file that was asked for last, whose pages come one by one."""
    import tifffile  # noqa: PLC0415

    with source.open() as stream:
        return _alike(tifffile.TiffFile(io.BytesIO(stream.read())))


def _decode_page(where: object, page: Any) -> Array:
    """Decode a page as it looks."""
    _page_shape(where, page)
    end = page.parent.filehandle.size
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if not segments or any(start + count > end for start, count in segments):
        raise ValueError("pixels are missing")
    photometric = getattr(page.photometric, "name", "unknown")
    # JPEG decoders turn YCbCr into RGB by themselves.
    jpeg = getattr(page.compression, "name", "") in _JPEG
    if photometric not in _READABLE and not (photometric == "YCBCR" and jpeg):
        raise ImageFileError(f"{where}: has the colour space {photometric}: convert it to grey or RGB first")
    if photometric == "PALETTE" and page.samplesperpixel > 1:
        raise ImageFileError(f"{where}: has a palette and further channels: convert it to grey or RGB first")
    _check_decoder(where, page)
    if jpeg:
        _check_frames(where, page, segments)
    array: Array = page.asarray(maxworkers=1)
    if page.axes == "SYX":  # colour planes one after the other
        array = np.moveaxis(array, 0, -1)
    height, width, samples = page.imagelength, page.imagewidth, page.samplesperpixel
    array = array.reshape(height, width, *((samples,) * (samples > 1)))
    if photometric == "PALETTE":
        if page.colormap is None:
            raise ValueError("its palette is missing")
        array = np.moveaxis(page.colormap[:, array.astype(np.intp)] >> 8, 0, -1).astype(np.uint8)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
        array = np.invert(array) if photometric == "MINISWHITE" else array
    elif photometric == "MINISWHITE" and array.dtype.kind == "u" and page.bitspersample < 8 * array.itemsize:
        array = array.dtype.type(2**page.bitspersample - 1) - array
    elif photometric == "MINISWHITE" and array.dtype.kind in "ui":
        array = np.invert(array)  # black is the minimum of what a cipher or reader takes
    return array


def _check_decoder(where: object, page: Any) -> None:
    """Refuse by name what tifffile and imagecodecs cannot decode."""
    import tifffile  # noqa: PLC0415

    for codecs, code, what in (
        (tifffile.TIFF.DECOMPRESSORS, page.compression, "compression"),
        (tifffile.TIFF.UNPREDICTORS, page.predictor, "predictor"),
    ):
        name = getattr(code, "name", code)
        try:
            codecs[code]
        except KeyError:
            raise ImageFileError(
                f"{where}: its TIFF {what} {name} is not supported here: save it uncompressed"
            ) from None
    if page.is_subsampled and page.compression == 1:
        raise ImageFileError(f"{where}: has subsampled colours: convert it to RGB first")


def _check_frames(where: object, page: Any, segments: list[tuple[int, int]]) -> None:
    """Refuse frames that claim to be larger than the page, before a decoder allocates that much."""
    for start, _ in segments:
        page.parent.filehandle.seek(start)
        size = rows_and_columns(page.parent.filehandle.read(2**16))
        if size and math.prod(size) > 4 * max(MAX_PIXELS // 64, page.imagelength * page.imagewidth):
            raise ImageFileError(f"{where}: a frame of {size[0]}x{size[1]} pixels: it is damaged")


def encode(pages: Iterable[Array]) -> bytes:
    """Images (H, W) or (H, W, C), of any type that is not complex, as the pages of a TIFF file."""
    import tifffile  # noqa: PLC0415

    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        for page in pages:
            channels = page.shape[2] if page.ndim == 3 else 1
            colour = channels in (3, 4)
            extra = {2: ["unassalpha"], 4: ["unassalpha"]}.get(channels, ["unspecified"] * (channels - 1))
            file.write(
                page if channels > 1 else page.reshape(page.shape[:2]),
                photometric="rgb" if colour else "minisblack",
                planarconfig="contig" if channels > 1 else None,
                extrasamples=None if channels in (1, 3) else extra,
                compression="zlib",
                metadata=None,
            )
    return stream.getvalue()
