"""Arrays in the middle of larger ones: black around an image, as training pads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def middle(inner: Sequence[int], outer: Sequence[int]) -> tuple[Any, ...]:
    """Slices of `outer` where an array of the shape `inner` lies, behind `...`; an axis that is larger stays whole."""
    starts = [max(0, most - side) // 2 for side, most in zip(inner, outer, strict=True)]
    return (..., *(slice(start, start + side) for start, side in zip(starts, inner, strict=True)))


def framed(array: npt.NDArray[Any], outer: Sequence[int]) -> npt.NDArray[Any]:
    """An array with zeros around its last axes, up to the sides `outer`; axes that are larger stay as they are."""
    kept, inner = array.shape[: -len(outer)], array.shape[-len(outer) :]
    if all(side >= most for side, most in zip(inner, outer, strict=True)):
        return array
    found = np.zeros((*kept, *map(max, inner, outer)), array.dtype)
    found[middle(inner, outer)] = array
    return found
