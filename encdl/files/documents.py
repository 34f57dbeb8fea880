"""Documents and arrays: one as the other, and a document cut into chunks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from encdl.files.container.chunk_grid import DTYPES, Array, Grid, Planes, as_slice, check_grid, cut, is_layout
from encdl.files.formats.base import ArrayDigest, Document, layout_of
from encdl.utils.errors import ContainerError, ImageFileError


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


def held(document: Document) -> Document:
    """The same document with its slices in memory: read once, and changed no more by whoever owns them."""
    slices = [part.copy() if part.flags.writeable else part for part in document.slices()]
    return dataclasses.replace(document, slices=lambda: iter(slices))


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
        check_grid(Grid(document.shape, document.layout, document.dtype.itemsize, (1, 1)))
    except ContainerError as error:
        raise ImageFileError(f"array: {error}") from None


def chunks_of(document: Document, grid: Grid, check: Callable[[Array], object]) -> Iterator[Planes]:
    """The byte planes of every chunk, in order; `check` is called with each slice that was read."""
    tiles = grid.count // grid.slices
    for number, part in enumerate(document.slices()):
        if part.dtype.newbyteorder("=") != document.dtype.newbyteorder("=") or part.size * grid.slices != int(
            np.prod(document.shape)
        ):
            raise ImageFileError(f"slice {number + 1} is {part.shape} {part.dtype}: it fits no {document.shape}")
        check(part)
        whole = as_slice(part, grid)
        for index in range(tiles):
            yield cut(whole, grid.place(index))


def grouped(chunks: Iterable[Planes], at_once: int) -> Iterator[list[Planes]]:
    """Neighbouring chunks of one shape, together at most `at_once` bytes, but at least one."""
    group: list[Planes] = []
    for chunk in chunks:
        if group and (chunk.shape != group[0].shape or (len(group) + 1) * chunk.size > at_once):
            yield group
            group = []
        group.append(chunk)
    if group:
        yield group
