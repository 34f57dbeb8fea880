"""Arrays, documents and damaged containers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from encdl.files import container
from encdl.files.container import ContainerReader
from encdl.files.formats import Document
from encdl.keys.key import Key
from tests.files.container.support import parts

KEY = Key(bytes(range(32)))
BEHIND = 44
"""Bytes behind the pixels: the section `series` and its tag."""
WEIGHTS = "0123456789abcdef"
Array = np.ndarray[Any, Any]


def noise(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> Array:
    """Random bits: among floats also infinities and what is not a number."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(np.random.default_rng(seed).bytes(count), dtype).reshape(shape)


def same(one: Array, two: Array) -> bool:
    """Bit by bit."""
    return (one.shape, one.dtype, one.tobytes()) == (two.shape, two.dtype, two.tobytes())


def header_of(data: bytes) -> container.Header:
    return ContainerReader(io.BytesIO(data), KEY).header


def document(slices: list[Array], shape: tuple[int, ...], calls: list[int] | None = None) -> Document:
    def each() -> Iterator[Array]:
        for number, part in enumerate(slices):
            if calls is not None:
                calls.append(number)
            yield part

    return Document(shape, slices[0].dtype, "SHW", "npy", b"", each)


def damaged(made: bytes, *slices: int) -> ContainerReader:
    """A tolerant reader of a container with a flipped bit in these slices."""
    whole = parts(made)
    for number in slices:
        whole.chunks[number] = bytes([whole.chunks[number][0] ^ 4]) + whole.chunks[number][1:]
    return ContainerReader(io.BytesIO(whole.joined()), KEY, tolerant=True)
