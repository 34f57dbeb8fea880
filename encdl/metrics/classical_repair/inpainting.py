"""Inpainting: levels for pixels that are missing, continued from those around them."""

from __future__ import annotations

from importlib.util import find_spec

import cv2
import numpy as np

from encdl.metrics.classical_repair.impulses import Image, Mask
from encdl.utils.errors import UsageError

MARGIN = 2
"""Pixels by which an image is mirrored around its border."""


def telea(image: Image, missing: Mask, radius: int = 3) -> Image:
    """Fast marching: A. Telea, "An Image Inpainting Technique Based on the Fast Marching Method", J. Graphics Tools 9
    (2004) 23-34, as OpenCV has it.

    Args:
        image: uint8 (H, W).
        missing: bool (H, W).
        radius: Pixels around a missing one that it is continued from.

    Returns:
        uint8 (H, W), equal to `image` where nothing is missing.
    """  # noqa: D205
    if not missing.any() or missing.all():
        return image
    # OpenCV's marching is at its worst along the border, which is therefore moved away.
    known, gaps = (
        cv2.copyMakeBorder(part.astype(np.uint8), *(MARGIN,) * 4, cv2.BORDER_REFLECT)
        for part in (np.where(missing, 0, image), missing)
    )
    found = cv2.inpaint(known, gaps, radius, cv2.INPAINT_TELEA)[MARGIN:-MARGIN, MARGIN:-MARGIN]
    return np.where(missing, found, image).astype(np.uint8)


def biharmonic(image: Image, missing: Mask) -> Image:
    """The smoothest continuation: S. B. Damelin and N. S. Hoang, "On Surface Completion and Image Inpainting by
    Biharmonic Functions", Int. J. Math. Math. Sci. 2018, 3950312, as scikit-image has it.

    Args:
        image: uint8 (H, W).
        missing: bool (H, W).

    Returns:
        uint8 (H, W), equal to `image` where nothing is missing.

    Raises:
        UsageError: scikit-image is not installed.
    """  # noqa: D205
    if not missing.any() or missing.all():
        return image
    if find_spec("skimage") is None:
        raise UsageError("biharmonic inpainting needs scikit-image: pip install scikit-image")
    from skimage.restoration import inpaint_biharmonic  # noqa: PLC0415

    found = inpaint_biharmonic(np.where(missing, 0, image / 255.0), missing)
    levels = np.rint(np.clip(found * 255.0, 0, 255)).astype(np.uint8)
    return np.where(missing, levels, image).astype(np.uint8)
