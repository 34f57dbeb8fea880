"""The interface of file formats: the array of a file slice by slice, and all the rest as bytes; and such documents."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import operator
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from encdl.files.container.chunk_grid import DTYPES, MAX_CHANNELS, MAX_SLICE_BYTES, Grid, Planes, cut, is_layout
from encdl.utils.errors import ContainerError, EncdlError, ImageFileError

Array = npt.NDArray[Any]

MAX_PIXELS = 2**26
"""Rows times columns of a slice."""
MAX_BYTES = 2**36
"""Of all slices together, uncompressed."""
MAX_REST_BYTES = 2**26 - 2**16
"""Of all that a file holds beside its pixels: it is kept in memory, and a container has room for 64 MiB of it."""
_MAX_DEFLATED_BYTES = 2**29
"""Of a file that may become small enough by deflating it."""
_HEAD = 2**16
_ONE_THREAD = threading.RLock()
_identity = operator.attrgetter("st_dev", "st_ino", "st_size", "st_mtime_ns")
"""Of a file's status: what tells it from one that it was changed or exchanged for."""


@dataclass(frozen=True)
class Document:
    """A file's content.

    Attributes:
        shape: of the whole array, one size a letter of the layout.
        dtype: of its values, little-endian; one of `encdl.files.container.chunk_grid.DTYPES`.
        layout: one letter an axis; any letters for the axes that count slices (`S` slices or pages, `T` times, ...),
            then `HW` or `W` alone, then `C` where a pixel has several values: `HW`, `HWC`, `SHW`, `SHWC`, `TSHW`.
        format: name of the file's format, a key of `encdl.files.formats.FORMATS`.
        rest: everything else that the file holds, in a form that only its format knows; as secret as the pixels.
            b"" if there is no file to restore: `write` then makes a new one.
        slices: yields the array slice by slice, (H, W) or (H, W, C), little-endian, anew with each call. Only the
            slice at hand is in memory, unless docs/formats.md says otherwise of the format.
        content: the array's digest (`ArrayDigest`), if reading the file gave it anyway; else b"".
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    layout: str
    format: str
    rest: bytes = field(repr=False)
    slices: Callable[[], Iterator[Array]] = field(repr=False)
    content: bytes = field(default=b"", repr=False)

    @property
    def slice_shape(self) -> tuple[int, ...]:
        """(H, W) or (H, W, C) of each slice; H is 1 if the layout has no `H`."""
        return slice_shape(self.shape, self.layout)


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        suffixes: The endings by which its files are found in a folder, dot included, lower-case; the usual one first.
        recognises: Whether a file is of this format, by its first 64 KiB (the second argument, the format that the
            name's ending stands for, is for formats without a mark).
        load: Reads a file; the document that it gives has the format's name.
    """

    suffixes: tuple[str, ...]
    recognises: Callable[[bytes, str | None], bool]
    load: Callable[[Source], Document]


class ArrayDigest:
    """SHA-256 of an array that comes slice by slice.

    It covers the shape, layout and type as canonical JSON after its length (8 bytes, the low one first), then all
    values in C order, little-endian.

    Args:
        shape: of the whole array.
        layout: one letter an axis.
        dtype: name of its type.
    """

    def __init__(self, shape: Sequence[int], layout: str, dtype: str) -> None:
        values = {"dtype": dtype, "layout": layout, "shape": [int(size) for size in shape]}
        kind = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
        content = hashlib.sha256(len(kind).to_bytes(8, "little") + kind)
        self.digest = content.digest
        """The digest so far, 32 bytes."""
        self.update_bytes = content.update
        """Take in some of the values as they are, if they lie in C order, little-endian; cut anywhere."""

    def update(self, array: Array) -> None:
        """Take the next slice in."""
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        self.update_bytes(little.reshape(-1).view(np.uint8).data)


def slice_shape(shape: Sequence[int], layout: str) -> tuple[int, ...]:
    """(H, W) or (H, W, C) of the slices of an array."""
    sizes = dict(zip(layout, shape, strict=True))
    colour = (sizes["C"],) if "C" in sizes else ()
    return (sizes.get("H", 1), sizes["W"], *colour)


def layout_of(shape: Sequence[int]) -> str:
    """Letters for an array whose file names no axes: up to four values in the last of three or more are colour.

    Raises:
        ValueError: it has no axis, or more than eight beside the colour.
    """
    colour = len(shape) > 2 and shape[-1] <= 4
    axes = len(shape) - colour
    if not 1 <= axes <= 8:
        raise ValueError(f"an array of {len(shape)} axes")
    return "ZYXUTSHW"[-axes:] + "C" * colour


def document_of(array: Array, layout: str | None = None, file_format: str = "npy") -> Document:
    """An array in memory as a document; raises `ImageFileError` for one that no file holds."""
    array = np.asarray(array)
    try:
        layout = layout or layout_of(array.shape)
    except ValueError:
        raise ImageFileError(f"array: has {array.ndim} axes: give 1 to 8") from None
    document = Document(array.shape, array.dtype, layout, file_format, b"", lambda: iter(slices))
    check_document(document)
    grid = Grid(array.shape, layout, array.dtype.itemsize, (1, 1))
    slices = array.reshape(grid.slices, *document.slice_shape)
    return document


def array_of(document: Document) -> Array:
    """All slices of a document as one array of its shape."""
    array = np.empty(document.shape, document.dtype)
    grid = Grid(document.shape, document.layout, document.dtype.itemsize, (1, 1))
    for target, part in zip(array.reshape(grid.slices, -1), document.slices(), strict=True):
        target[:] = part.reshape(-1)
    return array


def content_of(document: Document) -> bytes:
    """The digest of a document's array: 32 bytes. Reads all slices, unless the document knows it."""
    if document.content:
        return document.content
    content = ArrayDigest(document.shape, document.layout, document.dtype.name)
    for part in document.slices():
        content.update(part)
    return content.digest()


def check_document(document: Document) -> None:
    """Raise `ImageFileError` for an array that no file holds."""
    if document.dtype.name not in DTYPES:
        raise ImageFileError(f"array: holds {document.dtype.name} values: convert them to integers or floats first")
    if 0 in document.shape:
        raise ImageFileError(f"array: holds no pixels (shape {document.shape}): give 1 or more")
    if not is_layout(document.layout, document.shape):
        raise ImageFileError(f"array: layout {document.layout!r} does not fit its shape {document.shape}")
    try:
        Grid(document.shape, document.layout, document.dtype.itemsize, (1, 1))
    except ContainerError as error:
        raise ImageFileError(f"array: {error}") from None


def chunk_groups(
    document: Document, grid: Grid, at_once: int, looks: Sequence[Callable[[Array], object]] = ()
) -> Iterator[list[Planes]]:
    """The byte planes of every chunk, in order: neighbours of one shape, together at most `at_once` bytes if several.

    Args:
        document: the array.
        grid: how to cut it.
        at_once: bytes.
        looks: are called with each slice that was read.

    Raises:
        ImageFileError: a slice is not of the document's shape or type.
    """
    group: list[Planes] = []
    size, tiles = math.prod(document.shape) // grid.slices, grid.count // grid.slices
    for number, part in enumerate(document.slices()):
        if part.dtype.newbyteorder("=") != document.dtype.newbyteorder("=") or part.size != size:
            raise ImageFileError(f"slice {number + 1} is {part.shape} {part.dtype}: it fits no {document.shape}")
        for look in looks:
            look(part)
        little = np.ascontiguousarray(part, dtype=part.dtype.newbyteorder("<"))
        whole = little.reshape(grid.height, grid.width, grid.channels)
        for index in range(tiles):
            chunk = cut(whole, grid.place(index))
            if group and (chunk.shape != group[0].shape or (len(group) + 1) * chunk.size > at_once):
                yield group
                group = []
            group.append(chunk)
    if group:
        yield group


def check_array(where: object, shape: Sequence[int], layout: str, dtype: np.dtype[Any]) -> None:
    """Refuse an array that a file claims to hold, before anything is allocated for it.

    Raises:
        ImageFileError: it is empty, too large, or of a type without a bit pattern of its own.
    """
    if dtype.name not in DTYPES:
        raise ImageFileError(f"{where}: holds {dtype.name} values: convert them to integers or floats first")
    if min(shape, default=0) < 1:
        raise ImageFileError(f"{where}: holds no pixels (shape {tuple(shape)}): give an image of 1x1 or more")
    height, width, *colour = slice_shape(shape, layout)
    if height * width > MAX_PIXELS:
        raise ImageFileError(f"{where}: {height}x{width} is more than {MAX_PIXELS:,} pixels: tile or shrink it first")
    if colour and colour[0] > MAX_CHANNELS:
        raise ImageFileError(f"{where}: has {colour[0]} channels, more than {MAX_CHANNELS}: split it first")
    for part, size, limit in (
        ("a slice", math.prod((height, width, *colour)), MAX_SLICE_BYTES),
        ("it", math.prod(shape), MAX_BYTES),
    ):
        if size * dtype.itemsize > limit:
            raise ImageFileError(f"{where}: {part} holds more than {limit:,} bytes of pixels: split it first")


@dataclass(frozen=True)
class Source:
    """A regular file, told from one that was changed or exchanged since.

    Attributes:
        path: where it is.
        size: its bytes.
        identity: what tells it from another one.
        mode: its permissions.
        head: its first bytes, up to 64 KiB.
    """

    path: Path
    size: int
    identity: tuple[int, ...] = field(repr=False)
    mode: int = 0o600
    head: bytes = field(default=b"", repr=False)

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the file for reading.

        Raises:
            ImageFileError: it cannot be read, or is not what it was.
        """
        with _opened(self.path) as stream:
            if _identity(os.fstat(stream.fileno())) != self.identity:
                raise ImageFileError(f"{self.path}: was changed while it was read: try again")
            yield stream

    def read(self, limit: int) -> bytes:
        """The file's first bytes, `limit` at most."""
        with self.open() as stream:
            return stream.read(limit)

    def whole(self, *, deflate: bool = False) -> bytes:
        """The whole file, for a container to keep.

        Args:
            deflate: whether it may become smaller by deflating.

        Raises:
            ImageFileError: it is larger than a container takes.
        """
        limit = _MAX_DEFLATED_BYTES if deflate else MAX_REST_BYTES
        if self.size > limit:
            raise ImageFileError(
                f"{self.path}: is {self.size:,} bytes long and not stored plainly, and of such files a container "
                f"takes {limit:,}: save it uncompressed"
            )
        return self.read(limit)


def source(path: str | os.PathLike[str], *, empty: bool = False) -> Source:
    """Look at a file, once for all.

    Args:
        path: the file.
        empty: whether it may be.

    Raises:
        ImageFileError: it is missing, a folder or device, empty, or cannot be read.
    """
    where = Path(path)
    with _opened(where) as stream:
        status, head = os.fstat(stream.fileno()), stream.read(_HEAD)
    if status.st_size == 0 and not empty:
        raise ImageFileError(f"{where}: is empty (0 bytes): export or copy the image again")
    return Source(where, status.st_size, _identity(status), stat.S_IMODE(status.st_mode), head)


@contextlib.contextmanager
def decoding(where: object, kind: str) -> Iterator[None]:
    """As `one_line`, and the libraries are kept from warnings and logs of their own.

    One thread at a time, for warnings and loggers belong to the process; so not across a `yield`.
    """
    with one_line(where, kind), _ONE_THREAD, warnings.catch_warnings(), _quiet("pydicom", "tifffile", "nibabel.global"):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def one_line(where: object, kind: str) -> Iterator[None]:
    """Turn whatever the libraries raise on bad files into one line."""
    try:
        yield
    except (EncdlError, GeneratorExit):
        raise
    except MemoryError:
        raise ImageFileError(f"{where}: this {kind} does not fit in memory: it is too large or damaged") from None
    except Exception as error:  # on bad bytes decoders raise anything, from TokenError to AttributeError
        text = "".join(letter if letter.isprintable() else " " for letter in str(error).split("<")[0][:1000])
        reason = " ".join(text.split())[:100] or type(error).__name__
        raise ImageFileError(
            f"{where}: this {kind} file is truncated or damaged ({reason}): export or copy it again"
        ) from None


@contextlib.contextmanager
def _quiet(*loggers: str) -> Iterator[None]:
    """Let nothing out of loggers and those below them; their levels would take a walk through all loggers there are."""
    found = [logging.getLogger(name) for name in loggers]
    before = [(logger.handlers, logger.propagate) for logger in found]
    for logger in found:
        logger.handlers, logger.propagate = [logging.NullHandler()], False
    try:
        yield
    finally:
        for logger, (handlers, propagate) in zip(found, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate


@contextlib.contextmanager
def _opened(where: Path) -> Iterator[BinaryIO]:
    try:
        status = where.stat()  # before opening: some devices do things when they are opened
        if stat.S_ISDIR(status.st_mode):
            raise ImageFileError(f"{where}: is a folder: give one image file")
        if not stat.S_ISREG(status.st_mode):
            raise ImageFileError(f"{where}: is no regular file: give a file on disk")
        stream = open(where, "rb", opener=_without_blocking)  # noqa: SIM115
    except FileNotFoundError:
        raise ImageFileError(f"{where}: no such file: check the name") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise ImageFileError(f"{where}: cannot be read ({reason}): check its permissions") from None
    with stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise ImageFileError(f"{where}: is no regular file: give a file on disk")
        yield stream


def _without_blocking(path: str, flags: int) -> int:
    """Open a file, and do not hang should a pipe have taken its place."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
