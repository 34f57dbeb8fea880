"""A digest of an array, by which a file tells whether another holds the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


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
        self._hash = hashlib.sha256(len(kind).to_bytes(8, "little") + kind)

    def update(self, array: npt.NDArray[Any]) -> None:
        """Take the next slice in."""
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        self._hash.update(little.reshape(-1).view(np.uint8).data)

    def update_bytes(self, values: bytes) -> None:
        """Take in some of the values as they are, if they lie in C order, little-endian; pieces may be cut anywhere."""
        self._hash.update(values)

    def digest(self) -> bytes:
        """The digest so far, 32 bytes."""
        return self._hash.digest()
