"""The Decathlon's layout as volumes; masks put back on the scan, judged there by SimpleITK."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from encdl.data.decathlon_volumes import DecathlonVolumes
from encdl.metrics.segmentation import VolumeDice
from encdl.utils.errors import DataError, UsageError
from tests.data.test_decathlon import TASK, save

SHAPES = ((10, 12, 8), (9, 11, 7), (12, 10, 6))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Three volumes, one a split, in three orientations; a voxel is 1 x 1 x 2 mm."""
    random, root = np.random.default_rng(0), tmp_path / TASK
    pairs = {}
    for number, (shape, flips) in enumerate(zip(SHAPES, ("", "xy", "z"), strict=True)):
        mask = np.zeros(shape, np.uint8)
        mask[2:6, 3:9, 1:4], mask[6:8, 3:7, 2:5] = 1, 2
        voxels = random.normal(1000.0, 50.0, shape) + 900.0 * mask
        for kind, part in (("images", voxels.astype(np.float32)), ("labels", mask)):
            save(root / kind / f"v_{number}.nii.gz", part, flips=flips)
        pairs[("training", "validation", "test")[number]] = [
            {"image": f"images/v_{number}.nii.gz", "label": f"labels/v_{number}.nii.gz"}
        ]
    labels = {"0": "background", "1": "one", "2": "other"}
    (root / "dataset.json").write_text(json.dumps({"labels": labels, **pairs}))
    return tmp_path


def test_named_splits_and_whole_volumes(place: Path) -> None:
    data = DecathlonVolumes(TASK, str(place), size=(9, 13, 12), augment=True)
    assert {split: len(pairs) for split, pairs in data.volumes.items()} == {"train": 1, "val": 1, "test": 1}
    assert data.spec.shape == (9, 13, 12)
    assert data.groups("test") == ["v_2"]
    data.setup()
    [first], [again] = ([*DecathlonVolumes(TASK, str(place), size=(9, 13, 12)).train_dataloader()] for _ in range(2))
    assert first["image"].shape == first["mask"].shape == (1, 1, 9, 13, 12)
    assert first["image"].dtype == first["mask"].dtype == torch.uint8
    assert torch.equal(first["image"], again["image"])  # the seed alone decides
    assert set(first["mask"].unique().tolist()) <= {0, 1, 2}


def test_cubes_and_volumes_as_they_are(place: Path) -> None:
    data = DecathlonVolumes(TASK, str(place), crop=8, spacing_mm=(1.0, 1.0, 1.0), batch_size=1)
    data.setup()
    assert next(iter(data.train_dataloader()))["image"].shape == (1, 1, 8, 8, 8)
    [test] = data.test_dataloader()
    assert test["image"].shape == (1, 1, 12, 10, 12)  # six slices of 2 mm


@pytest.mark.parametrize("spacing", [None, (2.0, 1.0, 1.0)])
def test_masks_lie_on_the_scan(place: Path, spacing: tuple[float, float, float] | None) -> None:
    sitk = pytest.importorskip("SimpleITK")
    data = DecathlonVolumes(TASK, str(place), size=(9, 13, 12), spacing_mm=spacing)
    for split in ("train", "val", "test"):
        [sample], [pair] = data.samples(split), data.volumes[split]
        truth = torch.from_numpy(sample["mask"])
        guess = truth.roll(1, dims=2)
        label = sitk.ReadImage(str(pair[1]))
        back = {}
        for name, mask in (("truth", truth), ("guess", guess)):
            found = sitk.GetImageFromArray(np.ascontiguousarray(data.on_scan(mask, pair).T))
            found.CopyInformation(label)
            back[name] = found
        assert np.array_equal(sitk.GetArrayFromImage(back["truth"]), sitk.GetArrayFromImage(label))
        overlap = sitk.LabelOverlapMeasuresImageFilter()
        overlap.Execute(label, back["guess"])
        dice = VolumeDice(3, average="none")
        dice.update(guess[None], truth[None])
        assert dice.compute().tolist() == pytest.approx([overlap.GetDiceCoefficient(each) for each in (1, 2)])


def test_mistakes_are_told(place: Path) -> None:
    with pytest.raises(DataError, match="more than data setting size"):
        DecathlonVolumes(TASK, str(place), size=(4, 13, 12)).samples("train")
    for wrong in ({"crop": 8, "eval_batch_size": 2}, {"size": (0, 8, 8)}, {"spacing_mm": (1.0, 0.0, 1.0)}):
        with pytest.raises(UsageError, match="data setting out of range"):
            DecathlonVolumes(TASK, str(place), **wrong)  # type: ignore[arg-type]
