"""Two-dimensional augmentation by albumentations, as one MONAI transform."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

# Without it the import asks a server for the newest version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
from monai.transforms import RandomizableTransform


def pipeline(height: int, width: int) -> A.Compose:
    """Random flips, turns, affine maps, crops and changes of brightness, ending in height x width pixels.

    Half of the crops keep the scale of the image and half change it, so that what is learnt fits finer and
    coarser scans than those trained on. What is turned in from outside is black, as a scan's background is.
    """
    return A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.VerticalFlip(p=0.5),
            *([A.RandomRotate90(p=0.5)] if height == width else []),
            A.Affine(scale=(0.8, 1.25), rotate=(-20, 20), shear=(-8, 8), p=0.5),
            A.OneOf(
                [
                    A.RandomCrop(height, width, pad_if_needed=True),
                    A.RandomResizedCrop((height, width), scale=(0.15, 1.0), ratio=(0.8, 1.25)),
                ],
                p=1.0,
            ),
            A.RandomGamma(gamma_limit=(60, 160), p=0.3),
            A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.3, p=0.3),
            A.InvertImg(p=0.05),
        ]
    )


def gentle_pipeline(height: int, width: int) -> A.Compose:
    """Left-right flips, small turns, shifts and changes of scale and brightness of whole height x width images.

    Nothing is cut off but at the rim, so a label stays true.
    """
    return A.Compose(
        [
            A.PadIfNeeded(height, width),
            A.CenterCrop(height, width),
            A.HorizontalFlip(p=0.5),
            A.Affine(scale=(0.9, 1.1), rotate=(-10, 10), translate_percent=(-0.05, 0.05), p=0.8),
            A.RandomGamma(gamma_limit=(80, 125), p=0.3),
            A.RandomBrightnessContrast(brightness_limit=0.1, contrast_limit=0.15, p=0.3),
        ]
    )


class Augment(RandomizableTransform):  # type: ignore[misc]  # MONAI has no types
    """Crop and augment the `image` of a sample, and its `mask` alike.

    Args:
        size: Height and width of the result in pixels.
        whole: Keep the whole image in view and change it gently, instead of cutting a random part out.

    The result is a function of the sample and of `set_random_state`'s seed only.
    """

    def __init__(self, size: tuple[int, int], whole: bool = False) -> None:
        super().__init__()
        self._pipeline = (gentle_pipeline if whole else pipeline)(*size)

    def __call__(self, sample: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a new sample: `image` uint8 (C, h, w) and, if it was there, `mask` uint8 (1, h, w)."""
        self._pipeline.set_random_seed(int(self.R.randint(2**31)))
        planes = {key: _to_rows(sample[key]) for key in ("image", "mask") if key in sample}
        return {**sample, **{key: _to_planes(value) for key, value in self._pipeline(**planes).items()}}


def _to_rows(planes: np.ndarray) -> np.ndarray:
    """(C, H, W) as the (H, W, C) that albumentations works on, always a copy: some of it works in place."""
    return np.array(np.moveaxis(np.asarray(planes), 0, -1), order="C")


def _to_planes(rows: np.ndarray) -> np.ndarray:
    """(H, W, C) or (H, W) as (C, H, W)."""
    return np.ascontiguousarray(np.moveaxis(rows.reshape(*rows.shape[:2], -1), -1, 0))
