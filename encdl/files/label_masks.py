"""Masks of segmenters as files: NIfTI, and an image to look at."""

from __future__ import annotations

import gzip
from typing import Any

import numpy as np
import numpy.typing as npt

from encdl.utils.palette import OKABE_ITO

Bytes = npt.NDArray[np.uint8]

COLOURS = np.array([[*bytes.fromhex(code[1:])] for code in OKABE_ITO.values()], np.uint8)
"""Of the classes 1 to 7 ; then they repeat."""


def nifti_bytes(mask: Bytes) -> bytes:
    """A mask as a `.nii.gz` file.

    Args:
        mask: uint8 (H, W), the class index of each pixel.

    Returns:
        A NIfTI-1 file of uint8 (W, H, 1): its first axis runs to the right and its second one down, as ITK and MONAI
        lay out a PNG. Pixels are 1 mm wide, for a container knows no geometry. Equal masks give equal files.
    """
    import nibabel  # noqa: PLC0415

    affine = np.diag([-1.0, -1.0, 1.0, 1.0])  # NIfTI's axes run left to right and back to front, ITK's against them
    image = nibabel.Nifti1Image(np.ascontiguousarray(mask.T)[..., None], affine)
    return gzip.compress(image.to_bytes(), mtime=0)


def overlay(mask: Bytes, ciphertext: Bytes) -> Bytes:
    """A mask over the ciphertext that it was read from: every class but the first tinted and outlined.

    Args:
        mask: uint8 (H, W), the class index of each pixel; class 0 is background.
        ciphertext: uint8 (C, H, W), shown as faint grey noise.

    Returns:
        uint8 (H, W, 3).
    """
    import cv2  # noqa: PLC0415

    drawn = tinted(255 - ciphertext.mean(0) * 0.3, mask, 0.45)
    # A pixel of a class beside one of another: of two classes that meet, both are outlined.
    around = np.ones((3, 3), np.uint8)
    outline = (mask > 0) & (cv2.erode(mask, around) != cv2.dilate(mask, around))
    drawn[outline] = _colours(mask)[outline]
    return drawn


def tinted(grey: npt.NDArray[np.floating[Any]], mask: npt.NDArray[Any], strength: float) -> Bytes:
    """Grey images with every class but the first in its colour.

    Args:
        grey: Levels 0 to 255 (…, H, W).
        mask: Class index of each pixel (…, H, W), any integer type; class 0 is background and stays grey.
        strength: Of the colour, 0 to 1.

    Returns:
        uint8 (…, H, W, 3).
    """
    share = strength * (mask > 0)[..., None]
    drawn: Bytes = ((1 - share) * grey[..., None] + share * _colours(mask)).round().astype(np.uint8)
    return drawn


def _colours(mask: npt.NDArray[Any]) -> Bytes:
    colours: Bytes = COLOURS[(mask.astype(np.int64) - 1) % len(COLOURS)]
    return colours
