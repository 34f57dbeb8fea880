"""What every file format gives and takes: the array of a file slice by slice, and all the rest as bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Document:
    """A file's content.

    Attributes:
        shape: of the whole array.
        dtype: of its values.
        layout: one letter an axis; H and W last, then C for colour.
        format: name of the file's format.
        rest: everything else that the file holds, in a form that its format knows.
        slices: yields the array slice by slice, (H, W) or (H, W, C), anew with each call.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    layout: str
    format: str
    rest: bytes
    slices: Callable[[], Iterator[Array]]
