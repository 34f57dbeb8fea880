"""The mixture: sizes, weights, determinism, resumed epochs and whole images for judging."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from encdl.data.mixture import Mixture
from encdl.utils.errors import DataError, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Data sets whose levels tell them apart: `small` 0 to 79, `large` 80 to 159, `wide` from 160, in colour."""
    random = np.random.default_rng(0)
    for name, shape, low in (("small", (12, 10), 0), ("large", (40, 44), 80), ("wide", (20, 64, 3), 160)):
        images = random.integers(low, low + 80, (15, *shape), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", images=images, split=np.arange(15) % 3)
    return tmp_path


def mixture(folder: Path, **settings: Any) -> Mixture:
    usual = {"parts": {"small": 1.0, "large": 1.0, "wide": 2.0}, "batch_size": 8, "crop": 16, "batches": 6}
    return Mixture(**{**usual, "data_dir": str(folder), **settings})


def epoch(data: Mixture, number: int = 0) -> list[Tensor]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)  # type: ignore[attr-defined]
    return [batch["image"] for batch in loader]


def test_crops_of_one_size_and_small_images_whole(folder: Path) -> None:
    batches = epoch(mixture(folder, batches=60))
    assert len(batches) == 60
    shapes = {tuple(batch.shape) for batch in batches}
    assert shapes == {(8, 1, 16, 16), (int(8 * 256 / 120), 1, 12, 10)}
    assert all(batch.dtype == torch.uint8 for batch in batches)


def test_small_images_do_not_fill_a_batch_without_end(folder: Path) -> None:
    [shape] = {tuple(batch.shape) for batch in epoch(mixture(folder, parts={"small": 1.0}, crop=40))}
    assert shape == (8 * 8, 1, 12, 10)


def test_every_data_set_as_often_as_its_weight_says(folder: Path) -> None:
    batches = epoch(mixture(folder, batches=400))
    small = sum(int(batch.max()) < 80 for batch in batches)
    assert small / 400 == pytest.approx(0.25, abs=0.07)
    crops = torch.cat([batch for batch in batches if batch.shape[-1] == 16])
    of = crops.flatten(1).float().mean(1)
    assert (of > 160).float().mean().item() == pytest.approx(2 / 3, abs=0.05)
    none = epoch(mixture(folder, parts={"large": 1.0, "wide": 0.0}))
    assert all(int(batch.max()) < 160 for batch in none)


def test_crops_are_parts_of_images(folder: Path) -> None:
    data = mixture(folder, parts={"large": 1.0}, smaller=0.0, augment=False)
    images = np.load(folder / "large.npz")
    training = images["images"][images["split"] == 0]
    windows = np.lib.stride_tricks.sliding_window_view(training, (16, 16), (1, 2)).reshape(-1, 256)
    known = {window.tobytes() for window in windows}
    crops = epoch(data)[0]
    assert all(crop.numpy().tobytes() in known for crop in crops)
    assert len({crop.numpy().tobytes() for crop in crops}) == 8


def test_some_crops_are_turned_and_some_made_smaller(folder: Path) -> None:
    """A ramp to the right: mirrored it falls, transposed it goes down, made smaller it is steeper."""
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8) * 3, (3, 64, 64))
    np.savez(folder / "ramp.npz", images=ramp, split=np.arange(3))
    crops = torch.cat(epoch(mixture(folder, parts={"ramp": 1.0}, batches=20))).float()
    across = (crops[..., 8, -2] - crops[..., 8, 1]).flatten() / 13
    down = (crops[..., -2, 8] - crops[..., 1, 8]).flatten() / 13
    slopes = torch.where(across.abs() > down.abs(), across, down)
    for chosen in (across > 2, across < -2, down > 2, down < -2):
        assert chosen.float().mean().item() == pytest.approx(0.25, abs=0.12)
    assert (slopes.abs() > 3.05).float().mean().item() == pytest.approx(0.3, abs=0.12)
    assert float(slopes.abs().max()) < 6.3


def test_a_seed_fixes_everything(folder: Path) -> None:
    first, again, helped = (mixture(folder, seed=3, num_workers=workers) for workers in (0, 0, 2))
    for one, other, third in zip(epoch(first, 1), epoch(again, 1), epoch(helped, 1), strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, third)
    assert not torch.equal(epoch(first, 0)[0], epoch(again, 1)[0])
    assert not torch.equal(epoch(first, 0)[0], epoch(mixture(folder, seed=4), 0)[0])
    assert len({batch.numpy().tobytes() for batch in epoch(first)}) == 6


def test_an_epoch_goes_on_where_it_stopped(folder: Path) -> None:
    whole, data = epoch(mixture(folder), 2), mixture(folder)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(2)  # type: ignore[attr-defined]
    batches = iter(loader)
    for _ in range(4):
        next(batches)
    again = mixture(folder)
    again.load_state_dict(data.state_dict())
    rest = epoch(again, 2)
    assert len(rest) == 2
    assert all(map(torch.equal, rest, whole[4:]))


def test_whole_images_are_judged_at_their_own_size(folder: Path) -> None:
    data = mixture(folder, judged_images=4, eval_batch_size=3)
    data.setup("validate")
    batches = [batch["image"] for batch in data.val_dataloader()]
    assert [tuple(batch.shape) for batch in batches] == [
        (3, 1, 12, 10), (1, 1, 12, 10), (3, 1, 40, 44), (1, 1, 40, 44), (3, 1, 20, 64), (1, 1, 20, 64),
    ]  # fmt: skip
    everything = mixture(folder, judged_images=0)
    assert sum(len(batch["image"]) for batch in everything.test_dataloader()) == 5 + 5 + 3 * 5
    file = np.load(folder / "small.npz")
    expected = torch.from_numpy(file["images"][file["split"] == 2])
    assert torch.equal(next(iter(everything.test_dataloader()))["image"][:, 0], expected)


def test_every_data_set_by_itself(folder: Path) -> None:
    each = mixture(folder, judged_images=2, seed=5).each()
    assert list(each) == ["small", "large", "wide"]
    for name, data in each.items():
        assert (data.name, data.seed, data.judged_images, data.data_dir) == (name, 5, 2, str(folder))
        assert [len(batch["image"]) for batch in data.test_dataloader()] == [2]


def test_what_is_told_of_it(folder: Path) -> None:
    data = mixture(folder)
    assert (data.spec.channels, data.spec.height, data.spec.width) == (1, 40, 64)
    assert data.name == "small+large+wide"
    assert len(data.raw("train")) == 15


def test_the_embedded_brain_is_a_part() -> None:
    data = Mixture({"embedded": 1.0}, batch_size=4, batches=1)
    assert epoch(data)[0].shape == (4, 1, 64, 64)
    assert next(iter(data.val_dataloader()))["image"].shape == (10, 1, 233, 197)


@pytest.mark.parametrize(
    "wrong",
    [{"parts": {}}, {"parts": {"small": -1.0}}, {"parts": {"small": 0.0}}, {"crop": 0}, {"batches": 0},
     {"judged_images": -1}, {"smaller": 1.5}, {"least_scale": 0.0}],
    ids=str,
)  # fmt: skip
def test_numbers_out_of_range(folder: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="data setting"):
        mixture(folder, **wrong)


def test_a_missing_file_says_so(folder: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.npz: no such file"):
        mixture(folder, parts={"nowhere": 1.0}).setup("fit")
