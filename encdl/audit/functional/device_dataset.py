"""A data set that lies in the device's memory as a whole: for many short trainings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

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
