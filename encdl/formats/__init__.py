"""Files as documents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from encdl import images
from encdl.formats.base import Array, Document

__all__ = ["SUFFIXES", "WRITABLE", "Document", "load", "suffix_of", "write"]

SUFFIXES = images.READABLE_SUFFIXES
WRITABLE = images.SUFFIXES


def load(path: Path) -> Document:
    """Read a file."""
    array, file_format = images.read_with_format(path)

    def slices() -> Iterator[Array]:
        yield array

    return Document(array.shape, array.dtype, "HWC"[: array.ndim], file_format, b"", slices)


def write(path: Path, document: Document, *, force: bool = False) -> None:
    """Write a file."""
    images.write(path, np.stack(list(document.slices())).reshape(document.shape), force=force)


def suffix_of(name: str) -> str:
    """The ending of a format's files."""
    return f".{name}"
