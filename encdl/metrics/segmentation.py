"""Figures of segmentations: Dice, by volume where a volume is known, and the Hausdorff distance."""

from __future__ import annotations

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
    NaN if there is none. Class 0 is the background, which is not judged.

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
        sizes = torch.stack([(found & true).sum((2, 3)), found.sum((2, 3)), true.sum((2, 3))], dim=2)
        self.sizes.append(sizes)
        self.volumes.append(torch.full_like(sizes[:, 0, 0], ALONE) if volume is None else volume)

    def compute(self) -> Tensor:
        """float32: a scalar, or (classes - 1,) without averaging."""
        volumes, sizes = dim_zero_cat(self.volumes), dim_zero_cat(self.sizes)
        alone = torch.arange(len(volumes), device=volumes.device) + volumes.max() + 1
        whole = torch.where(volumes < 0, alone, volumes)
        _, group = torch.unique(whole, return_inverse=True)
        sums = torch.zeros_like(sizes).index_add_(0, group, sizes).float()
        common, found, true = sums.unbind(2)
        dice = torch.where(true > 0, 2 * common / (found + true), torch.nan).nanmean(0)
        return dice.nanmean() if self.average == "macro" else dice


def hausdorff_95(prediction: Tensor, truth: Tensor, classes: int, spacing: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """The 95th percentile of the distances between the outlines of truth and prediction, image by image.

    Args:
        prediction: Class of each pixel, (B, 1, H, W), any integer type.
        truth: The same.
        classes: How many there are, with the background, which is not judged.
        spacing: Height and width of a pixel, the unit of the result.

    Returns:
        float32 (B, classes - 1) on the CPU: the image's diagonal where a class of the truth was not found at all, NaN
        where the truth lacks it.
    """
    found, true = foreground(prediction.cpu(), classes), foreground(truth.cpu(), classes)
    in_found, in_true = found.flatten(2).any(2), true.flatten(2).any(2)
    height, width = truth.shape[-2:]
    diagonal = ((height * spacing[0]) ** 2 + (width * spacing[1]) ** 2) ** 0.5
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
    """A binary mask for each class but 0: (B, 1, H, W) to bool (B, classes - 1, H, W)."""
    return F.one_hot(mask[:, 0].long(), classes).movedim(-1, 1)[:, 1:].bool()
