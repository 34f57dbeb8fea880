"""Medians, and a detector of hit pixels by each pixel's rank-ordered differences to its neighbours.

R. Garnett, T. Huegerich, C. Chui, W. He, "A Universal Noise Removal Algorithm with an Impulse Detector", IEEE TIP 14
(2005) 1747-1754: the mean of a pixel's smallest differences to its neighbours (ROAD) is large at an impulse. Here it is
compared with what is usual around the pixel, so that texture and edges are spared.
"""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Scalar = TypeVar("Scalar", bound=np.generic)

AROUND = 5
"""Side of the window that says what is usual."""
PASSES = 2
"""The second pass leaves out neighbours that the first judged hit."""


def judged_hit(image: Image, threshold: float, floor: float, nearest: int) -> Mask:
    """Judge which pixels hold a random level.

    Args:
        image: uint8 (H, W).
        threshold: How many times the usual difference a pixel's may be.
        floor: Levels added to the usual difference, so that flat regions are not all hit.
        nearest: How many of the smallest differences to the eight neighbours count, 1 to 8.

    Returns:
        bool (H, W).
    """
    hit: Mask = np.zeros(image.shape, dtype=bool)
    levels = neighbours(image.astype(np.float32))
    for _ in range(PASSES):
        differences = np.abs(levels - image)
        differences[neighbours(hit)] = np.inf
        road = np.partition(differences, nearest - 1, axis=0)[:nearest].mean(0)
        known = np.where(np.isfinite(road), road, 0).astype(np.float32)
        usual = cv2.medianBlur(known, AROUND)
        hit = road > threshold * (floor + usual)
    return hit


def neighbours(image: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """The eight neighbours of each pixel, mirrored at the border pixel: (H, W) to (8, H, W)."""
    height, width = image.shape
    padded = np.pad(image, 1, mode="reflect")
    steps = [(down, right) for down in range(3) for right in range(3) if (down, right) != (1, 1)]
    return np.stack([padded[down : down + height, right : right + width] for down, right in steps])


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
