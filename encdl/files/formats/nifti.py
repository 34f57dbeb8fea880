"""NIfTI-1 and NIfTI-2 in one file, plain or gzipped: header, extensions and voxels come back byte for byte.

A slice is one z: its rows are y and its columns x, as the file stores them; further axes count slices. Values are
stored values, to which the header's slope and intercept are not applied.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gzip
import io
import math
import shutil
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import numpy as np

from encdl.files.formats import raw_pixels, verbatim
from encdl.files.formats.base import MAX_REST_BYTES, Document, Source, decoding, slice_shape
from encdl.utils.errors import ImageFileError

GZIP = b"\x1f\x8b"
HALF = "is half of a pair of .hdr and .img (NIfTI or Analyze): convert it to one .nii file"
_MAGIC = {344: (b"n+1\0", b"ni1\0"), 4: (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")}
_HEADER_BYTES = 540
_NAME = 0x08
_LEVEL = 1
"""Of compression, as nibabel's: noisy voxels hardly become smaller by higher ones, which take many times as long."""


def recognises(head: bytes) -> bool:
    """Whether the first bytes are a NIfTI header; of a pair of header and image too."""
    return any(head.startswith(magic, place) for place, both in _MAGIC.items() for magic in both)


def recognises_zipped(head: bytes) -> bool:
    """Whether the first bytes are a gzip file whose content begins with a NIfTI header."""
    return head.startswith(GZIP) and recognises(inflated_head(head))


def inflated_head(head: bytes) -> bytes:
    """The first bytes of what a gzip file holds, in however many members; b"" if it holds none."""
    with contextlib.suppress(OSError, EOFError, zlib.error):
        return gzip.GzipFile(fileobj=io.BytesIO(head)).read(_HEADER_BYTES)
    return b""


def load(source: Source) -> Document:
    """Read a .nii or .nii.gz file; of the latter, all is inflated once, piece by piece, to check it.

    Raises:
        ImageFileError: it is damaged, too large, half of a pair, or of a type that is not read.
        UsageError: nibabel is not installed.
    """
    zipped = source.read(2) == GZIP
    name = "nifti-gz" if zipped else "nifti"
    opener: raw_pixels.Opener = functools.partial(_inflating, source) if zipped else source.open
    with decoding(source.path, "NIfTI"), opener() as stream:
        header = _header(source, stream.read(_HEADER_BYTES))
        dims, dtype = header.get_data_shape(), header.get_data_dtype()
        if dtype.itemsize in (0, 16) and dtype.name != "complex128":
            code = int(header["datatype"])
            raise ImageFileError(f"{source.path}: holds voxels of the type {code}: convert them to float64 first")
        offset, least = int(header.get_data_offset()), header.sizeof_hdr + 4
        if offset < least:
            raise ValueError(f"its voxels would begin at byte {offset}")
    shape, layout = _axes(dims)
    if dtype.names is not None:  # RGB or RGBA
        shape, layout, dtype = (*shape, len(dtype.names)), layout + "C", np.dtype("u1")
    size = math.prod(shape) * dtype.itemsize
    where = raw_pixels.Spans(
        ((offset, size),), slice_shape(shape, layout), dtype, file_bytes=None if zipped else source.size
    )
    extra = {"gzip": _gzip_header(source.read(512))} if zipped else {}
    found = raw_pixels.document(source, where, shape, layout, name, opener=opener, extra=extra)
    if zipped and source.size <= MAX_REST_BYTES - 2**10 and not _zips_alike(source, extra["gzip"]):
        whole = verbatim.document(source, source.whole(), name, shape, layout, found.dtype, found.slices)
        return dataclasses.replace(whole, content=found.content)
    return found


def unzip(stream: BinaryIO, data: bytes) -> None:
    """Write what a gzipped file holds."""
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as plain:
        shutil.copyfileobj(plain, stream)


def _zips_alike(source: Source, named: dict[str, Any]) -> bool:
    """Whether `restore_gzip` gives the very same bytes; of another program's compression the first ones tell."""
    with source.open() as stream, _inflating(source) as plain:
        try:
            with _zipping(cast(BinaryIO, _Same(stream)), named) as packed:
                shutil.copyfileobj(plain, packed, 2**20)
        except _DifferentError:
            return False
        return not stream.read(1)


class _DifferentError(Exception):
    """The file does not hold what was written."""


class _Same:
    """Takes what is written, and compares it with a file."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        if self._stream.read(len(data)) != data:
            raise _DifferentError
        return len(data)

    def flush(self) -> None:
        pass


def restore_gzip(stream: BinaryIO, document: Document, recipe: dict[str, Any], around: bytes) -> None:
    """Write a gzipped file: the name and time in gzip's own header as they were, the compression anew."""
    with _zipping(stream, recipe.get("gzip") or {"name": "", "time": 0}) as packed:
        raw_pixels.restore(packed, document, recipe, around)


def _zipping(stream: BinaryIO, named: dict[str, Any]) -> BinaryIO:
    name = f"{named['name']}.gz" if named["name"] else ""  # GzipFile takes the ending off
    return cast(BinaryIO, gzip.GzipFile(name, "wb", _LEVEL, stream, mtime=int(named["time"])))


@contextlib.contextmanager
def _inflating(source: Source) -> Iterator[BinaryIO]:
    with source.open() as stream, gzip.GzipFile(fileobj=stream) as plain:
        yield cast(BinaryIO, plain)


def _header(source: Source, head: bytes) -> Any:
    import nibabel  # noqa: PLC0415

    pair = any(head.startswith(both[1], place) for place, both in _MAGIC.items())
    if pair:
        raise ImageFileError(f"{source.path}: {HALF}")
    kind, size = (nibabel.Nifti1Header, 348) if head[344:348] in _MAGIC[344] else (nibabel.Nifti2Header, 540)
    return kind(head[:size], check=False)


def _axes(dims: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
    """Shape and layout of the voxels as they lie in the file: the header counts x first, arrays count it last."""
    shape = tuple(int(size) for size in dims[::-1]) or (0,)
    if math.prod(shape[-2:]) == 1:  # no image, as in CIFTI: not a slice for each number
        shape = tuple(size for size in shape if size != 1) or (1,)
    return shape, "ZYXUTSHW"[-len(shape) :]


def _gzip_header(head: bytes) -> dict[str, str | int]:
    """Original name and time (RFC 1952, section 2.3)."""
    flags, name = head[3], b""
    if flags & _NAME and not flags & 0x04:
        name = head[10:].partition(b"\0")[0]
    return {"name": name.decode("latin-1"), "time": int.from_bytes(head[4:8], "little")}
