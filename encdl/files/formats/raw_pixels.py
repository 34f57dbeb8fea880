"""Files whose pixels lie in them as they are: an array taken out of a file, and put back to the last byte.

What is left of the file is its *skeleton*: all bytes outside the spans where the pixels are. Both ways need the memory
of one slice and of the skeleton.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from encdl.files.formats import non_pixel_data
from encdl.files.formats.base import Array, ArrayDigest, Document, Source, check_array, one_line

_PIECE = 2**20
_MAX_SKELETON = 2**28
_TOO_MUCH = f"more than {_MAX_SKELETON:,} bytes beside its pixels"


@dataclass(frozen=True)
class Spans:
    """Where the pixels lie, and how.

    Attributes:
        places: offset and length in bytes of each stretch, ascending.
        shape: (H, W) or (H, W, C) of a slice.
        dtype: of the values as they are stored, byte order included.
        planar: whether the colours of a slice lie one plane after the other, (C, H, W).
        file_bytes: length of the whole file; None if only its end tells.
    """

    places: tuple[tuple[int, int], ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    planar: bool = False
    file_bytes: int | None = None

    @property
    def slice_bytes(self) -> int:
        """Bytes of a slice."""
        return math.prod(self.shape) * self.dtype.itemsize

    def check(self, slices: int) -> None:
        """Refuse stretches that overlap, leave the file, or hold another number of slices.

        Raises:
            ValueError: says which of them it is.
        """
        end = 0
        for offset, length in self.places:
            if offset < end or length < 1:
                raise ValueError("its parts overlap")
            end = offset + length
        if self.file_bytes is not None and end > self.file_bytes:
            raise ValueError("pixels are missing")
        if sum(length for _, length in self.places) != slices * self.slice_bytes:
            raise ValueError("it holds more or fewer pixels than its header says")

    def to_recipe(self) -> dict[str, Any]:
        """For `non_pixel_data.pack`."""
        return {"places": self.places, "shape": self.shape, "dtype": self.dtype.str, "planar": self.planar}

    @classmethod
    def from_recipe(cls, recipe: dict[str, Any]) -> Spans:
        """Undo `to_recipe`."""
        places = tuple((int(offset), int(length)) for offset, length in recipe["places"])
        shape = tuple(int(size) for size in recipe["shape"])
        return cls(places, shape, np.dtype(str(recipe["dtype"])), bool(recipe["planar"]))


def merged(places: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The same stretches, those that touch as one."""
    result: list[tuple[int, int]] = []
    for offset, length in places:
        if result and sum(result[-1]) == offset:
            result[-1] = (result[-1][0], result[-1][1] + length)
        elif length:
            result.append((offset, length))
    return tuple(result)


Opener = Callable[[], AbstractContextManager[BinaryIO]]


def document(
    source: Source,
    spans: Spans,
    shape: tuple[int, ...],
    layout: str,
    name: str,
    *,
    opener: Opener | None = None,
    extra: dict[str, Any] | None = None,
) -> Document:
    """A document whose slices are read from the file when they are asked for.

    Args:
        source: the file.
        spans: where its pixels are.
        shape: of the whole array.
        layout: its letters.
        name: the format's.
        opener: opens the bytes that `spans` counts, if they are not the file's own.
        extra: what else `write` needs to know, as JSON can hold it.

    Raises:
        ImageFileError: there are fewer pixels than they should be, or more than the limits allow.
    """
    open_it = opener or source.open
    check_array(source.path, shape, layout, little(spans.dtype))
    with one_line(source.path, name), open_it() as stream:
        spans.check(math.prod(shape) // math.prod(spans.shape))
        content = _content(spans, shape, layout)
        around = skeleton(stream, spans, content)
    recipe = {"kind": "spans", "mode": source.mode, **spans.to_recipe(), **(extra or {})}

    def slices() -> Iterator[Array]:
        with one_line(source.path, name), open_it() as stream:
            yield from read_slices(stream, spans)

    packed, digest = non_pixel_data.pack(source.path, recipe, around), content.digest() if content else b""
    return Document(shape, little(spans.dtype), layout, name, packed, slices, digest)


def restore(stream: BinaryIO, document: Document, recipe: dict[str, Any], around: bytes) -> None:
    """Write the file that `document` was read from; `recipe` and `around` are what its `rest` holds."""
    spans = Spans.from_recipe(recipe)
    spans.check(math.prod(document.shape) // math.prod(document.slice_shape))
    for part in join(around, document.slices(), spans):
        stream.write(part)


def little(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The same type, little-endian."""
    return dtype.newbyteorder("<")


def _content(spans: Spans, shape: tuple[int, ...], layout: str) -> ArrayDigest | None:
    """A digest of pixels that have to be read in any case, in the order in which they lie there; None for others."""
    if spans.file_bytes is not None or spans.planar or spans.dtype != little(spans.dtype):
        return None
    return ArrayDigest(shape, layout, spans.dtype.name)


def skeleton(stream: BinaryIO, spans: Spans, content: ArrayDigest | None = None) -> bytes:
    """All bytes outside the spans; `stream` is read from its start to its end.

    Args:
        stream: the file's bytes.
        spans: where its pixels are.
        content: takes in the pixels on the way, if they cannot be skipped.

    Raises:
        EOFError: the stream ends within the pixels.
        ValueError: they are more than a container can take.
    """
    parts: list[bytes] = []
    room, end = _MAX_SKELETON, 0
    for offset, length in spans.places:
        if offset - end > room:
            raise ValueError(_TOO_MUCH)
        room -= offset - end
        parts.append(_read(stream, offset - end))
        if len(parts[-1]) != offset - end:
            raise EOFError("pixels are missing")
        end = offset + length
        _skip(stream, length, spans.file_bytes is not None, content)
    parts.append(_read(stream, room + 1))
    if len(parts[-1]) > room:
        raise ValueError(_TOO_MUCH)
    return b"".join(parts)


def read_slices(stream: BinaryIO, spans: Spans) -> Iterator[Array]:
    """Yield slice by slice, (H, W) or (H, W, C), little-endian and read-only.

    Raises:
        EOFError: the stream ends within the pixels.
    """
    height, width, *colour = spans.shape
    stored = (*colour, height, width) if spans.planar else spans.shape
    for data in _blocks(stream, spans):
        array: Array = np.frombuffer(data, spans.dtype).reshape(stored)
        yield to_little(np.moveaxis(array, 0, -1) if spans.planar and colour else array)


def to_little(array: Array) -> Array:
    """The same values, little-endian; bytes are moved, and never go through a floating-point unit."""
    if array.dtype == little(array.dtype):
        return array
    return array.byteswap().view(little(array.dtype))


def stored_bytes(array: Array, spans: Spans) -> bytes:
    """A slice as it lies in the file.

    Raises:
        ValueError: it is of another shape or type.
    """
    if array.dtype != little(spans.dtype) or array.size != math.prod(spans.shape):
        raise ValueError(f"a slice of {array.dtype.name} {array.shape} is not one of {spans.shape}")
    array = array.reshape(spans.shape)
    if spans.planar and array.ndim == 3:
        array = np.moveaxis(array, -1, 0)
    if spans.dtype != little(spans.dtype):
        array = array.byteswap()
    return array.tobytes()


def join(skeleton: bytes, slices: Iterable[Array], spans: Spans) -> Iterator[bytes | memoryview]:
    """The file again, piece by piece.

    Args:
        skeleton: the file without its pixels.
        slices: the array, slice by slice.
        spans: where the pixels belong.

    Raises:
        ValueError: there are more or fewer slices than places for them.
    """
    blocks = (memoryview(stored_bytes(array, spans)) for array in slices)
    block, done, end = memoryview(b""), 0, 0
    for offset, length in spans.places:
        yield skeleton[done : done + offset - end]
        done, end = done + offset - end, offset + length
        left = length
        while left:
            block = block or next(blocks, memoryview(b""))
            if not block:
                raise ValueError("slices are missing")
            part = block[:left]
            yield part
            block, left = block[len(part) :], left - len(part)
    if block or next(blocks, None) is not None:
        raise ValueError("there are more slices than the file had")
    yield skeleton[done:]


def _blocks(stream: BinaryIO, spans: Spans) -> Iterator[bytes]:
    """The bytes of slice after slice."""
    block = bytearray()
    for offset, length in spans.places:
        stream.seek(offset)
        left = length
        while left:
            part = stream.read(min(left, spans.slice_bytes - len(block)))
            if not part:
                raise EOFError("pixels are missing")
            left -= len(part)
            if not block and len(part) == spans.slice_bytes:
                yield part
                continue
            block += part
            if len(block) == spans.slice_bytes:
                yield bytes(block)
                block.clear()


def _read(stream: BinaryIO, length: int) -> bytes:
    """Up to `length` bytes; unlike `stream.read`, it takes memory for no more than there are."""
    parts = []
    while length and (part := stream.read(min(length, _PIECE))):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _skip(stream: BinaryIO, length: int, seek: bool, content: ArrayDigest | None) -> None:
    if seek:
        stream.seek(length, os.SEEK_CUR)
        return
    while length:
        part = stream.read(min(length, _PIECE))
        if not part:
            raise EOFError("pixels are missing")
        length -= len(part)
        if content is not None:
            content.update_bytes(part)
