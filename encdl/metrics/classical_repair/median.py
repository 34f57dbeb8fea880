"""Medians: of everything, of what was judged hit, and into what was lost."""

from __future__ import annotations

import cv2
import numpy as np

from encdl.metrics.classical_repair.impulses import Image, Mask, judged_hit, neighbours


def median(image: Image) -> Image:
    """The 3 x 3 median of every pixel; the border repeats its last pixel. uint8 (H, W) to the same."""
    return np.asarray(cv2.medianBlur(np.ascontiguousarray(image), 3), dtype=np.uint8).reshape(image.shape)


def decision_median(image: Image, threshold: float, floor: float, nearest: int) -> Image:
    """The median of the sound neighbours where a pixel was judged hit (`impulses`); else the pixel."""
    return fill_median(image, judged_hit(image, threshold, floor, nearest))


def fill_median(image: Image, missing: Mask) -> Image:
    """Fill pixels with the median of their known neighbours, from the border of each gap inwards.

    Args:
        image: uint8 (H, W).
        missing: bool (H, W), true where the level counts for nothing.

    Returns:
        uint8 (H, W), equal to `image` where nothing is missing; `image` itself where everything is.
    """
    if missing.all():
        return image
    filled, open_ = image.astype(np.float32), missing.copy()
    while open_.any():
        around = neighbours(filled)[:, open_]
        around[neighbours(open_)[:, open_]] = np.nan
        ready = ~np.isnan(around).all(0)
        rows, columns = (where[ready] for where in np.nonzero(open_))
        filled[rows, columns] = np.nanmedian(around[:, ready], axis=0)
        open_[rows, columns] = False
    return np.rint(filled).astype(np.uint8)
