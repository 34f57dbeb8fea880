"""Whole images brought to one size, without cutting anything off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FitImage:
    """Resizes an image until its longer side is `size`, and pads the other one with black around the middle.

    Attributes:
        size: Height and width of the result in pixels.
    """

    size: int

    def __call__(self, image: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
        """uint8 (C, H, W) to uint8 (C, size, size); `spacing` is the size of a pixel, in any unit."""
        return self._padded(image, spacing, "area" if max(image.shape[1:]) > self.size else "bilinear")

    def mask(self, mask: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
        """The same of a mask, uint8 (1, H, W), whose values stay as they are."""
        return self._padded(mask, spacing, "nearest-exact")

    def _padded(self, planes: np.ndarray, spacing: tuple[float, float], mode: str) -> np.ndarray:
        sides = np.multiply(planes.shape[1:], spacing)
        target = np.maximum(1, np.round(sides * (self.size / sides.max()))).astype(int)
        if tuple(target) == planes.shape[1:] == (self.size, self.size):
            return planes
        from monai import transforms  # noqa: PLC0415

        if tuple(target) != planes.shape[1:]:
            planes = transforms.Resize(tuple(target.tolist()), mode=mode)(planes)
        padded = transforms.ResizeWithPadOrCrop((self.size, self.size))(planes)
        return np.asarray(padded).round().astype(np.uint8)
