"""Draws, batches and errors of the data module base, on tiny images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encdl.data.base import DataSpec, DrawSampler, ImageDataModule, Sample, Split
from encdl.utils.errors import DataError, UsageError


class Tiny(ImageDataModule):
    """Twelve images whose pixels tell their number, with labels and masks."""

    images = 12

    @property
    def spec(self) -> DataSpec:
        return DataSpec(channels=2, height=20, width=24, classes=("a", "b"))

    def samples(self, split: Split) -> Sequence[Sample]:
        shape = (2, 20, 24)
        return [
            {"image": np.full(shape, 10 * i, np.uint8), "label": i % 2, "mask": np.full((1, 20, 24), i, np.uint8)}
            for i in range(self.images)
        ]


def epoch(data: ImageDataModule, number: int = 0) -> list[Any]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)  # type: ignore[attr-defined]
    return list(loader)


def test_batch_holds_image_label_and_mask() -> None:
    data = Tiny(batch_size=5, crop=8, augment=True)
    data.setup("fit")
    batch = epoch(data)[0]
    assert batch["image"].shape == (5, 2, 8, 8)
    assert batch["image"].dtype == torch.uint8
    assert batch["label"].dtype == torch.int64
    assert batch["mask"].shape == (5, 1, 8, 8)
    assert batch["mask"].dtype == torch.uint8


@pytest.mark.parametrize("augment", [False, True])
def test_epochs_repeat_with_the_seed_and_differ_from_one_another(augment: bool) -> None:
    def pictures(seed: int, number: int) -> torch.Tensor:
        data = Tiny(batch_size=4, crop=8, seed=seed, augment=augment)
        return torch.cat([batch["image"] for batch in epoch(data, number)])

    first = pictures(1, 0)
    assert torch.equal(first, pictures(1, 0))
    assert not torch.equal(first, pictures(1, 1))
    assert not torch.equal(first, pictures(2, 0))


def test_workers_change_nothing() -> None:
    alone, helped = (Tiny(batch_size=4, crop=8, num_workers=workers) for workers in (0, 2))
    for one, other in zip(epoch(alone, 3), epoch(helped, 3), strict=True):
        assert torch.equal(one["image"], other["image"])


@pytest.mark.parametrize("augment", [False, True])
def test_draws_leave_the_images_alone(augment: bool) -> None:
    class Grey(Tiny):
        @property
        def spec(self) -> DataSpec:
            return DataSpec(channels=1, height=20, width=24)

        def samples(self, split: Split) -> Sequence[Sample]:
            return [{"image": sample["image"][:1].copy()} for sample in super().samples(split)]

    data = Grey(batch_size=12, crop=0, repeats=8, augment=augment)
    before = [sample["image"].copy() for sample in data.samples("train")]
    data.setup("fit")
    epoch(data)
    kept = data._ready("train").pictures
    assert all(np.array_equal(kept[i]["image"], before[i]) for i in range(12))


def test_mask_moves_with_the_image() -> None:
    class Marked(Tiny):
        def samples(self, split: Split) -> Sequence[Sample]:
            marks = np.random.default_rng(0).integers(0, 2, (1, 20, 24), dtype=np.uint8)
            return [{"image": np.repeat(200 * marks, 2, axis=0), "mask": marks}] * 16

    for batch in epoch(Marked(batch_size=16, crop=16, augment=False)):
        assert torch.equal(batch["image"][:, :1] > 0, batch["mask"] > 0)


@given(st.integers(1, 30), st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32), st.integers(0, 5))
def test_ranks_share_one_epoch(images: int, repeats: int, world_size: int, seed: int, number: int) -> None:
    samplers = [DrawSampler(images, repeats, seed, rank, world_size) for rank in range(world_size)]
    for sampler in samplers:
        sampler.set_epoch(number)
    shares = [list(sampler) for sampler in samplers]
    assert all(len(share) == len(samplers[0]) for share in shares)
    whole = DrawSampler(images, repeats, seed)
    whole.set_epoch(number)
    in_turn = [share[i] for i in range(len(samplers[0])) for share in shares]
    if images * repeats >= world_size:
        assert in_turn == list(whole)[: len(in_turn)]
    assert all(0 <= index < images for index, _ in in_turn)


def test_every_image_is_drawn_as_often_as_said() -> None:
    assert sorted(index for index, _ in DrawSampler(5, 3, seed=0)) == sorted([*range(5)] * 3)


def test_evaluation_keeps_order_and_size() -> None:
    data = Tiny(eval_batch_size=5)
    data.setup("test")
    batches = list(data.test_dataloader())
    assert [len(batch["image"]) for batch in batches] == [5, 5, 2]
    assert torch.cat([batch["label"] for batch in batches]).tolist() == [0, 1] * 6
    assert batches[0]["image"].shape[1:] == (2, 20, 24)


def test_small_data_set_still_gives_a_batch() -> None:
    assert len(epoch(Tiny(batch_size=64, crop=8, augment=False))) == 1


@pytest.mark.parametrize(
    "setting", [{"batch_size": 0}, {"eval_batch_size": 0}, {"crop": -1}, {"repeats": 0}, {"seed": -1}]
)
def test_setting_out_of_range(setting: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=next(iter(setting))):
        Tiny(**setting)  # type: ignore[arg-type]


def test_crop_larger_than_the_images() -> None:
    with pytest.raises(UsageError, match="crop is 64, larger than the 20 x 24 images of Tiny"):
        Tiny(crop=64).setup("fit")


def test_empty_split() -> None:
    class Empty(Tiny):
        images = 0

    with pytest.raises(DataError, match="Empty has no images in its train split"):
        Empty(crop=8).setup("fit")


def test_class_counts() -> None:
    assert Tiny(crop=8).class_counts().tolist() == [6, 6]


@pytest.mark.parametrize("label", [None, 2, -1])
def test_class_counts_need_a_label_for_each_image(label: int | None) -> None:
    class Odd(Tiny):
        def samples(self, split: Split) -> Sequence[Sample]:
            return [*super().samples(split), {"image": np.zeros((2, 20, 24), np.uint8), "label": label}]

    with pytest.raises(DataError, match="Odd has training images without a label from 0 to 1"):
        Odd(crop=8).class_counts()


def test_whole_images_stay_whole_under_augmentation() -> None:
    """A mark in the middle never leaves the image; random crops of a small part would lose it."""

    class Marked(Tiny):
        def samples(self, split: Split) -> Sequence[Sample]:
            image = np.full((2, 20, 24), 40, np.uint8)
            image[:, 8:12, 10:14] = 250
            return [{"image": image.copy(), "label": 0}] * 12

    batch = epoch(Marked(batch_size=96, crop=0, repeats=8))[0]["image"]
    assert batch.shape == (96, 2, 20, 24)
    assert (batch.flatten(1).amax(1) > 150).all()
