"""Masks of segmenters: as NIfTI, as an image to look at, and their measures."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from encdl.files.scans import UNKNOWN_GRID
from encdl.utils.palette import OKABE_ITO

Bytes = npt.NDArray[np.uint8]

COLOURS = np.array([[*bytes.fromhex(code[1:])] for code in OKABE_ITO.values()], np.uint8)
"""Of the classes 1 to 7 ; then they repeat."""
LEAST_SIDE, MOST_SIDE = 256, 2048
"""Pixels of the shorter side of an overlay at least, and of the longer one at most because of that."""
LEVEL = 6
"""Of compression: 9 takes ten times as long for masks that are a tenth smaller."""
LINE, MARGIN = 16, 4
"""Pixels of a line of the legend, and around it."""


def is_sheared(affine: npt.NDArray[np.float64]) -> bool:
    """Whether the axes of a grid (4, 4) are not at right angles."""
    axes = affine[:3, :3] / np.maximum(np.linalg.norm(affine[:3, :3], axis=0), 1e-12)
    return float(np.abs(axes.T @ axes - np.eye(3)).max()) > 1e-3


def nifti_bytes(mask: Bytes, affine: npt.NDArray[np.float64] = UNKNOWN_GRID) -> bytes:
    """A mask as a `.nii.gz` file.

    Args:
        mask: uint8 (H, W) or (S, H, W), the class index of each pixel.
        affine: (4, 4), of (slice, row, column) to millimetres to the right, front and head. By default pixels are 1 mm
            wide, and lie as ITK and MONAI lay out a PNG.

    Returns:
        A NIfTI-1 file of uint8 (W, H, S). Equal masks give equal files.
    """
    import nibabel  # noqa: PLC0415

    volume = mask if mask.ndim == 3 else mask[None]
    image = nibabel.Nifti1Image(volume.T, affine[:, [2, 1, 0, 3]])
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), LEVEL, mtime=0)


def largest_slices(mask: Bytes) -> dict[int, int]:
    """Of each class in a mask (S, H, W) but the first, the number of the slice with most of it."""
    areas = np.stack([np.bincount(part.ravel(), minlength=256) for part in mask], axis=1)
    return {index: int(areas[index].argmax()) for index in range(1, 256) if areas[index].any()}


def surface_mm2(inside: npt.NDArray[np.bool_], spacing: tuple[float, float, float]) -> float:
    """Surface of what is inside in (S, H, W), by marching cubes; pixels at the rim of the image are closed.

    Of voxels that are in or out, as these are, it comes out about a tenth too large where the surface is curved.
    The areas of the 256 neighbourhoods of a corner are MONAI's (`create_table_neighbour_code_to_surface_area`).
    """
    from monai.metrics.utils import create_table_neighbour_code_to_surface_area  # noqa: PLC0415

    areas = create_table_neighbour_code_to_surface_area(spacing)[0].numpy()
    padded = ((1, 1), (1, 1))
    counts, above = np.zeros(256, np.int64), np.zeros(np.add(inside.shape[1:], 1), np.uint8)
    for part in [*inside, np.zeros_like(inside[0])]:
        flat = np.pad(part, padded).astype(np.uint8)
        here = flat[:-1, :-1] * 8 + flat[:-1, 1:] * 4 + flat[1:, :-1] * 2 + flat[1:, 1:]
        counts += np.bincount((above * 16 + here).ravel(), minlength=256)
        above = here
    return float(counts @ areas)


def overlay(
    mask: Bytes, image: npt.NDArray[Any], names: Sequence[str] = (), strength: float = 0.45, least: int = LEAST_SIDE
) -> Bytes:
    """A mask over an image, large enough to look at: every class but the first tinted and outlined, and a legend.

    Args:
        mask: uint8 (H, W), the class index of each pixel; class 0 is background.
        image: Levels 0 to 255 (H, W).
        names: Of the classes; without them there is no legend.
        strength: Of the tint, 0 to 1.
        least: Pixels that the shorter side has at least: smaller images are enlarged by a whole number.

    Returns:
        uint8 (k H + legend, k W, 3).
    """
    import cv2  # noqa: PLC0415

    times = min(-(-least // min(mask.shape)), max(1, MOST_SIDE // max(mask.shape)))
    drawn = _enlarged(tinted(image.astype(np.float64), mask, strength), times)
    large = _enlarged(mask, times)
    # A pixel of a class beside one of another: of two classes that meet, both are outlined.
    around = np.ones((3, 3), np.uint8)
    outline = (large > 0) & (cv2.erode(large, around) != cv2.dilate(large, around))
    drawn[outline] = _colours(large)[outline]
    return np.concatenate([drawn, _legend(names, drawn.shape[1])]) if len(names) > 1 else drawn


def _enlarged(image: Bytes, times: int) -> Bytes:
    return image.repeat(times, axis=0).repeat(times, axis=1)


def _legend(names: Sequence[str], width: int) -> Bytes:
    """The colour and the name of each class but the first, on black, in as many lines as it takes: uint8 (h, W, 3)."""
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415

    font, places, left, top = ImageFont.load_default(12), [], MARGIN, MARGIN
    for name in names[1:]:
        wide = LINE + round(font.getlength(name)) + 2 * MARGIN
        if left + wide > width and left > MARGIN:
            left, top = MARGIN, top + LINE
        places.append((left, top))
        left += wide
    strip = Image.new("RGB", (width, top + LINE + MARGIN))
    draw = ImageDraw.Draw(strip)
    for index, (name, (x, y)) in enumerate(zip(names[1:], places, strict=True)):
        colour = tuple(int(level) for level in COLOURS[index % len(COLOURS)])
        draw.rectangle((x, y + 2, x + 10, y + 12), fill=colour)
        draw.text((x + LINE, y), name, font=font, fill="white")
    return np.asarray(strip)


def faint(ciphertext: Bytes) -> npt.NDArray[np.float64]:
    """A ciphertext, uint8 (C, H, W), as faint grey noise to draw on: levels (H, W)."""
    levels: npt.NDArray[np.float64] = 255 - ciphertext.mean(0) * 0.3
    return levels


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
