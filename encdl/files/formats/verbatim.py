"""Files that are compressed, or stored in a way of their own: the file is kept as it is, beside its pixels.

Its pixels are decoded for the cipher, so that readers of ciphertext can read them; what comes back is the file, byte
for byte. To make it again from the pixels would be to compress it anew, and a lossy file would lose once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

from encdl.files.formats import non_pixel_data
from encdl.files.formats.base import Array, Document, Source, check_array
from encdl.files.formats.raw_pixels import little

CARRIED = "file"
"""The format of a document that is no image: `carried` makes it."""


def document(
    source: Source,
    data: bytes,
    name: str,
    shape: tuple[int, ...],
    layout: str,
    dtype: np.dtype[Any],
    slices: Callable[[], Iterator[Array]],
    *,
    deflate: bool = False,
) -> Document:
    """A document that holds its file.

    Args:
        source: the file.
        data: its bytes.
        name: the format's.
        shape: of the decoded array.
        layout: its letters.
        dtype: of its values.
        slices: decodes the array, slice by slice.
        deflate: whether the file may become smaller by it.

    Raises:
        ImageFileError: it is too large.
    """
    check_array(source.path, shape, layout, little(dtype))
    packed = non_pixel_data.pack(source.path, {"kind": "whole", "mode": source.mode}, data, deflate=deflate)
    return Document(shape, little(dtype), layout, name, packed, slices)


def carried(source: Source) -> Document:
    """A file of any kind, sealed as it is beside a single pixel that means nothing.

    Raises:
        ImageFileError: it is too large.
    """
    pixel = np.zeros((1, 1), np.uint8)
    return document(
        source, source.whole(deflate=True), CARRIED, (1, 1), "HW", pixel.dtype, lambda: iter([pixel]), deflate=True
    )


def restore(stream: BinaryIO, document: Document, recipe: dict[str, Any], around: bytes) -> None:
    """Write the file; the pixels are not needed for it."""
    stream.write(around)
