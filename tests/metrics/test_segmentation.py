"""Dice against MONAI and by hand, by volume; the Hausdorff distance by hand."""

from __future__ import annotations

import math

import pytest
import torch
from monai.metrics import DiceMetric
from monai.networks.utils import one_hot
from torch import Tensor

from encdl.metrics.segmentation import VolumeDice, hausdorff_95


def masks(*shape: int, classes: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, classes, (shape[0], 1, *shape[1:]), dtype=torch.uint8, generator=generator)


def line(*pixels: int) -> Tensor:
    """One image of one row."""
    return torch.tensor(pixels, dtype=torch.uint8).view(1, 1, 1, -1)


def dice(
    *pairs: tuple[Tensor, Tensor], classes: int = 3, volumes: list[int] | None = None, average: str = "none"
) -> list[float]:
    metric = VolumeDice(classes, average=average)  # type: ignore[arg-type]
    for number, (found, true) in enumerate(pairs):
        metric.update(found, true, None if volumes is None else torch.tensor([volumes[number]]))
    return [float(value) for value in metric.compute().reshape(-1)]


def test_dice_of_images_is_monais() -> None:
    found, true = masks(6, 9, 11), masks(6, 9, 11, seed=1)
    true[2][true[2] == 3] = 0  # a class that an image lacks, and one that all lack
    known = DiceMetric(include_background=False, reduction="mean_batch")
    known(one_hot(found, 5), one_hot(true, 5))
    expected = known.aggregate()
    ours = VolumeDice(5, average="none")
    for part in (slice(0, 4), slice(4, 6)):
        ours.update(found[part], true[part])
    assert torch.allclose(ours.compute()[:3], expected[:3])
    assert ours.compute()[3].isnan()
    mean = VolumeDice(5)
    mean.update(found, true)
    assert mean.compute() == pytest.approx(float(expected[:3].mean()))


def test_dice_by_hand() -> None:
    assert dice((line(0, 1, 1, 2), line(0, 1, 1, 2))) == [1, 1]
    assert dice((line(0, 1, 0, 2), line(1, 1, 2, 0))) == pytest.approx([2 / 3, 0])
    assert dice((line(0, 0, 0, 0), line(1, 1, 2, 0))) == [0, 0]
    assert dice((line(0, 1, 0, 2), line(1, 1, 2, 0)), average="macro") == pytest.approx([1 / 3])
    [first, second] = dice((line(1, 2), line(1, 1)))
    assert first == pytest.approx(2 / 3)
    assert math.isnan(second)  # found where the truth has none: no truth to judge by
    assert dice((line(1, 2), line(1, 1)), average="macro") == pytest.approx([2 / 3])
    assert all(map(math.isnan, dice((line(0, 1), line(0, 0)))))


def test_slices_of_a_volume_are_judged_together() -> None:
    pairs = [(line(1, 1, 0), line(1, 0, 0)), (line(1, 0, 0), line(0, 0, 0)), (line(1, 1, 1), line(1, 1, 1))]
    assert dice(*pairs, classes=2) == pytest.approx([(2 / 3 + 1) / 2])  # the second image has no truth
    assert dice(*pairs, classes=2, volumes=[7, 7, 3]) == pytest.approx([(2 / 4 + 1) / 2])
    assert dice(*pairs, classes=2, volumes=[5, 5, 5]) == pytest.approx([2 * 4 / (6 + 4)])
    assert dice(*pairs, classes=2, volumes=[-1, -1, -1]) == dice(*pairs, classes=2)
    mixed = dice(*pairs, classes=2, volumes=[-1, -1, 0])  # an image alone never joins volume 0
    assert mixed == dice(*pairs, classes=2)


def test_reset_and_what_two_processes_would_gather() -> None:
    """Slices of one volume may lie on two ranks: the states are joined before anything is divided."""
    found, true, volume = masks(6, 5, 5), masks(6, 5, 5, seed=1), torch.tensor([0, 1, 0, 1, 2, 2])
    whole, left, right = VolumeDice(4), VolumeDice(4), VolumeDice(4)
    whole.update(found, true, volume)
    left.update(found[:3], true[:3], volume[:3])
    right.update(found[3:], true[3:], volume[3:])
    left.sizes, left.volumes = left.sizes + right.sizes, left.volumes + right.volumes
    assert left.compute() == whole.compute()
    whole.reset()
    whole.update(true, true)
    assert whole.compute() == 1


def square(side: int, top: int, left: int, size: int) -> Tensor:
    mask = torch.zeros(1, 1, side, side, dtype=torch.uint8)
    mask[..., top : top + size, left : left + size] = 1
    return mask


def test_hausdorff_by_hand() -> None:
    true = square(32, 8, 8, 10)
    assert hausdorff_95(true, true, 2).tolist() == [[0]]
    assert hausdorff_95(square(32, 8, 11, 10), true, 2).tolist() == [[3]]
    assert hausdorff_95(square(32, 8, 11, 10), true, 2, (1.0, 1.5)).tolist() == [[4.5]]
    missed = hausdorff_95(torch.zeros_like(true), true, 3, (2.0, 1.0))
    assert missed[0, 0] == pytest.approx(math.hypot(64, 32))
    assert missed[0, 1].isnan()
    assert hausdorff_95(true, torch.zeros_like(true), 2).isnan().all()


def test_hausdorff_of_many_images_and_classes_at_once() -> None:
    found, true = masks(4, 12, 10), masks(4, 12, 10, seed=1)
    found[1] = 0
    together = hausdorff_95(found, true, 4)
    assert together.shape == (4, 3)
    for index in range(4):
        one = slice(index, index + 1)
        assert torch.equal(hausdorff_95(found[one], true[one], 4)[0], together[index])


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (40, 1)])
def test_thin_images(shape: tuple[int, int]) -> None:
    true = torch.ones(1, 1, *shape, dtype=torch.uint8)
    assert hausdorff_95(true, true, 2).tolist() == [[0]]
    assert dice((true, true), classes=2) == [1]


def test_dice_has_one_line_a_volume() -> None:
    metric = VolumeDice(3)
    metric.update(torch.cat([line(1, 2), line(1, 1), line(0, 2)]), torch.cat([line(1, 2), line(1, 2), line(2, 2)]))
    metric.compute()
    assert metric.by_volume.shape == (3, 2)
    metric.reset()
    metric.update(torch.cat([line(1, 2), line(1, 1)]), torch.cat([line(1, 2), line(1, 2)]), torch.tensor([7, 7]))
    metric.compute()
    assert metric.by_volume.tolist() == [[pytest.approx(0.8), pytest.approx(2 / 3)]]
