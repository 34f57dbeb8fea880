"""Augmentation on the device: masks go with images, one seed fixes it, and what is asked for happens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from encdl.training.device_augment import DeviceAugmentation
from encdl.utils.errors import UsageError


def drawn(augmentation: DeviceAugmentation, image: Tensor, targets: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    return augmentation(image, targets, torch.Generator().manual_seed(seed))


def squares() -> tuple[Tensor, Tensor]:
    mask = torch.zeros(8, 32, 32, dtype=torch.int64)
    mask[:, 8:20, 6:16] = 1
    return (mask * 200).to(torch.uint8)[:, None], mask


def test_masks_go_with_their_images() -> None:
    image, mask = squares()
    moved, classes = drawn(DeviceAugmentation(2.0, flip=True, gamma=0.4), image, mask)
    assert moved.dtype == torch.uint8
    assert moved.shape == image.shape
    assert not torch.equal(classes, mask)
    bright = moved[:, 0] > 60
    common = 2 * (bright & (classes == 1)).sum() / (bright.sum() + classes.sum())
    assert float(common) > 0.95
    again, _ = drawn(DeviceAugmentation(2.0, flip=True, gamma=0.4), image, mask)
    other, _ = drawn(DeviceAugmentation(2.0, flip=True, gamma=0.4), image, mask, seed=1)
    assert torch.equal(again, moved)
    assert not torch.equal(other, moved)


def test_training_in_half_precision_moves_images_alike() -> None:
    image, mask = squares()
    whole = drawn(DeviceAugmentation(2.0), image, mask)
    with torch.autocast("cpu", torch.bfloat16):
        half = drawn(DeviceAugmentation(2.0), image, mask)
    assert all(torch.equal(one, other) for one, other in zip(whole, half, strict=True))


@pytest.mark.parametrize(("noise", "erase", "least", "most"), [(0, 0, 0, 0), (8.0, 0, 0.1, 0.9), (0, 0.5, 0.003, 0.3)])
def test_what_is_asked_for_happens(noise: float, erase: float, least: float, most: float) -> None:
    image, labels = torch.full((64, 1, 32, 32), 128, dtype=torch.uint8), torch.arange(64)
    changed, same = drawn(DeviceAugmentation(0.0, noise=noise, erase=erase), image, labels)
    share = float((changed != 128).float().mean())
    assert least <= share <= most
    assert torch.equal(same, labels)
    untouched = int((changed == 128).flatten(1).all(1).sum())
    assert untouched == 64 if not most else 15 < untouched < 50


def test_mistakes_are_told() -> None:
    with pytest.raises(UsageError, match="0 or more"):
        DeviceAugmentation(noise=-1)
    with pytest.raises(UsageError, match="flat images"):
        drawn(DeviceAugmentation(), torch.zeros(1, 1, 4, 8, 8, dtype=torch.uint8), torch.zeros(1))
