"""Figures of segmentations: Dice, by volume where a volume is known, and the Hausdorff distance."""

from __future__ import annotations

import math
import warnings
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

ALONE = -1
"""Volume of an image that belongs to none."""


class VolumeDice(Metric):
    """Dice coefficient of the foreground classes, 0 to 1.

    Intersection and sizes are summed over all slices of a volume, as volumes are judged in the field; an image without
    a volume counts by itself. A class is judged where the truth has it: a class's Dice is the mean over those volumes,
    NaN if there is none. Class 0 is the background, which is not judged. Where images are volumes, (B, 1, D, H, W),
    they are taken as they are.

    Once computed, `by_volume` has the Dice of each: float32 (volumes, classes - 1), in the order of their indices.

    Args:
        classes: How many there are, the background included.
        average: `macro` gives the mean over the classes that occur, `none` one value each.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(self, classes: int, average: Literal["macro", "none"] = "macro") -> None:
        super().__init__()
        self.classes, self.average = classes, average
        self.volumes: list[Tensor]
        self.sizes: list[Tensor]
        self.by_volume = torch.empty(0)
        self.add_state("volumes", [], dist_reduce_fx="cat")
        self.add_state("sizes", [], dist_reduce_fx="cat")

    def update(self, prediction: Tensor, truth: Tensor, volume: Tensor | None = None) -> None:
        """Collect a batch.

        Args:
            prediction: Class of each pixel, (B, 1, H, W), any integer type.
            truth: The same.
            volume: Index of the volume that each image is a slice of, int64 (B,); below 0, or None: of none.
        """
        found, true = foreground(prediction, self.classes), foreground(truth, self.classes)
        sizes = torch.stack([each.flatten(2).sum(2) for each in (found & true, found, true)], dim=2)
        self.sizes.append(sizes)
        self.volumes.append(torch.full_like(sizes[:, 0, 0], ALONE) if volume is None else volume)

    def compute(self) -> Tensor:
        """float32: a scalar, or (classes - 1,) without averaging."""
        volumes, sizes = dim_zero_cat(self.volumes), dim_zero_cat(self.sizes)
        alone = torch.arange(len(volumes), device=volumes.device) + volumes.max() + 1
        whole = torch.where(volumes < 0, alone, volumes)
        found, group = torch.unique(whole, return_inverse=True)
        sums = sizes.new_zeros(len(found), *sizes.shape[1:]).index_add_(0, group, sizes).float()
        common, predicted, true = sums.unbind(2)
        self.by_volume = torch.where(true > 0, 2 * common / (predicted + true), torch.nan)
        dice = self.by_volume.nanmean(0)
        return dice.nanmean() if self.average == "macro" else dice


def hausdorff_95(prediction: Tensor, truth: Tensor, classes: int, spacing: tuple[float, ...] = ()) -> Tensor:
    """The 95th percentile of the distances between the outlines of truth and prediction, image by image.

    Args:
        prediction: Class of each pixel, (B, 1, H, W), or (B, 1, D, H, W) of volumes, any integer type.
        truth: The same.
        classes: How many there are, with the background, which is not judged.
        spacing: Size of a pixel along each axis, the unit of the result; 1 by default.

    Returns:
        float32 (B, classes - 1) on the CPU: the image's diagonal where a class of the truth was not found at all, NaN
        where the truth lacks it.
    """
    found, true = foreground(prediction.cpu(), classes), foreground(truth.cpu(), classes)
    in_found, in_true = found.flatten(2).any(2), true.flatten(2).any(2)
    spacing = spacing or (1.0,) * len(truth.shape[2:])
    diagonal = math.hypot(*(side * size for side, size in zip(truth.shape[2:], spacing, strict=True)))
    distances = torch.where(in_true, diagonal, torch.nan)
    both = in_found & in_true
    if both.any():
        from monai.metrics import compute_hausdorff_distance  # noqa: PLC0415

        pairs = found[both].unsqueeze(1), true[both].unsqueeze(1)
        with warnings.catch_warnings():
            # MONAI 1.6 about an argument of its own.
            warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
            measured = compute_hausdorff_distance(*pairs, include_background=True, percentile=95, spacing=list(spacing))
        distances[both] = measured.flatten().float()
    return distances


def foreground(mask: Tensor, classes: int) -> Tensor:
    """A binary mask for each class but 0: (B, 1, ...) to bool (B, classes - 1, ...)."""
    return F.one_hot(mask[:, 0].long(), classes).movedim(-1, 1)[:, 1:].bool()
