"""Types of the batches that data sets give to training tasks."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from torch import Tensor


class ImageBatch(TypedDict):
    """One batch of images of equal size; those of volumes have a further axis, the slices: (B, C, D, H, W).

    Attributes:
        image: uint8 (B, C, H, W), 0 to 255.
        label: int64 (B,), index into the data set's class names; only where the data set has classes.
        mask: uint8 (B, 1, H, W), class of each pixel; only where the data set has masks.
        volume: int64 (B,), index of the three-dimensional scan that an image is a slice of, within its split; only
            where the data set knows it.
    """

    image: Tensor
    label: NotRequired[Tensor]
    mask: NotRequired[Tensor]
    volume: NotRequired[Tensor]
