"""A data set that lies in the device's memory as a whole, and its augmentation there: for many short trainings."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from encdl.data.base import ImageDataModule, Split

SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Resident:
    """One split on a device.

    Attributes:
        images: uint8 (N, C, H, W).
        targets: int64 (N,) classes of images, or (N, H, W) of pixels.
        volumes: int64 (N,), the scan that each image is a slice of; None where none are known.
    """

    images: Tensor
    targets: Tensor
    volumes: Tensor | None

    def batches(self, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled batches of images and targets without end; what is left of an epoch is dropped."""
        size = min(size, len(self.images))
        while True:
            order = torch.randperm(len(self.images), generator=generator).to(self.images.device)
            for start in range(0, len(order) - size + 1, size):
                index = order[start : start + size]
                yield self.images[index], self.targets[index]


def resident(data: ImageDataModule, device: str) -> dict[Split, Resident]:
    """The splits of a labelled data set, whole."""
    found: dict[Split, Resident] = {}
    for split in SPLITS:
        samples = data.samples(split)
        images = torch.stack([torch.as_tensor(sample["image"]) for sample in samples])
        if "mask" in samples[0]:
            targets = torch.stack([torch.as_tensor(sample["mask"])[0] for sample in samples]).long()
        else:
            targets = torch.tensor([sample["label"] for sample in samples])
        known = "volume" in samples[0]
        volumes = torch.tensor([sample["volume"] for sample in samples]) if known else None
        found[split] = Resident(images.to(device), targets.to(device), None if volumes is None else volumes.to(device))
    return found


def augmented(
    images: Tensor, targets: Tensor, generator: torch.Generator, strength: float, flip: bool
) -> tuple[Tensor, Tensor]:
    """Small turns, shifts and changes of scale and contrast, an affine map for each image; targets of pixels alike.

    Args:
        images: uint8 (B, C, H, W).
        targets: int64 (B,) or (B, H, W).
        generator: on the CPU.
        strength: 0 changes nothing, 1 turns by up to 10 degrees and shifts by up to 5 %.
        flip: Mirror half of the images left to right.

    Returns:
        float32 images of whole levels, and targets.
    """
    count, device = len(images), images.device
    draw = torch.rand(count, 8, generator=generator).mul_(2).sub_(1).to(device)
    angle = draw[:, 0] * strength * math.radians(10)
    scale = 1 + draw[:, 1:3] * 0.1 * strength
    turn = torch.zeros(count, 2, 3, device=device)
    turn[:, 0, 0], turn[:, 0, 1] = angle.cos() * scale[:, 0], -angle.sin()
    turn[:, 1, 0], turn[:, 1, 1] = angle.sin(), angle.cos() * scale[:, 1]
    turn[:, :, 2] = draw[:, 3:5] * 0.1 * strength
    if flip:
        turn[:, 0] *= torch.where(draw[:, 5:6] > 0, 1.0, -1.0)
    grid = F.affine_grid(turn, list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    gain, offset = (1 + draw[:, 6] * 0.1 * strength), draw[:, 7] * 10 * strength
    moved = (moved * gain.view(-1, 1, 1, 1) + offset.view(-1, 1, 1, 1) * (moved > 0)).round().clamp(0, 255)
    if targets.ndim == 1:
        return moved, targets
    classes = F.grid_sample(targets[:, None].float(), grid, mode="nearest", align_corners=False)
    return moved, classes[:, 0].long()
