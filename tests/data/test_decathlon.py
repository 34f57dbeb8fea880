"""The Decathlon's layout, on tiny volumes."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.apps import DecathlonDataset

from encdl.data.decathlon import Decathlon
from encdl.data.splits import SPLITS
from encdl.data.volumes import flat, read_volume, to_bytes, with_label
from encdl.utils.errors import DataError, UsageError

TASK = "Task09_Spleen"
SHAPE = (10, 12, 8)


def save(path: Path, voxels: np.ndarray, spacing: tuple[float, ...] = (1.0, 1.0, 2.0), flips: str = "") -> None:
    """A NIfTI file; `flips` names the axes that run the other way in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([*spacing, 1.0])
    for axis in flips:
        affine["xyz".index(axis)] *= -1
        voxels = np.flip(voxels, "xyz".index(axis))
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)


def volume(number: int, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Voxels that tell their volume in Hounsfield units, and a mask in the slices 2 to 4 of the last axis."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:6, 4:8, 2:5] = 1 + number % 2
    voxels = np.full(SHAPE, -1000, np.int16)
    voxels[2:-2, 2:-2] = 10 * number
    voxels[mask > 0] = 400
    return (voxels if channels == 1 else np.stack([voxels, *[voxels - 1] * (channels - 1)], axis=-1)), mask


def describe(root: Path, count: int, **changes: Any) -> None:
    names = [f"Tr/spleen_{number}.nii.gz" for number in range(count)]
    described = {
        "labels": {"0": "background", "1": "spleen", "2": "other spleen"},
        "training": [{"image": f"./images{name}", "label": f"./labels{name}"} for name in names],
        "test": ["./imagesTs/spleen_99.nii.gz"],
    } | changes
    (root / "dataset.json").write_text(json.dumps(described))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a task of six volumes, in two orientations."""
    for number in range(6):
        voxels, mask = volume(number)
        flips = "xy" if number % 2 else ""
        save(tmp_path / TASK / "imagesTr" / f"spleen_{number}.nii.gz", voxels, flips=flips)
        save(tmp_path / TASK / "labelsTr" / f"spleen_{number}.nii.gz", mask, flips=flips)
    describe(tmp_path / TASK, 6)
    return tmp_path


def test_batches(place: Path) -> None:
    data = Decathlon(TASK, str(place), size=16, crop=12, batch_size=4, eval_batch_size=5)
    assert (data.spec.channels, data.spec.height, data.spec.width) == (1, 16, 16)
    assert data.spec.classes == ("background", "spleen", "other spleen")
    data.setup()
    train, val = next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))
    assert train["image"].shape == train["mask"].shape == (4, 1, 12, 12)
    assert val["image"].shape == val["mask"].shape == (5, 1, 16, 16)
    assert {batch[name].dtype for batch in (train, val) for name in ("image", "mask")} == {torch.uint8}
    assert set(val["mask"].unique().tolist()) in ({0, 1}, {0, 2})


def test_splits_are_by_volume(place: Path) -> None:
    data = Decathlon(TASK, str(place))
    names = {split: [image.name for image, _ in data.volumes[split]] for split in SPLITS}
    assert {split: len(each) for split, each in names.items()} == {"train": 3, "val": 1, "test": 2}
    assert len(set().union(*names.values())) == 6
    assert all(image.name == mask.name for pairs in data.volumes.values() for image, mask in pairs)
    describe(
        place / TASK, 6, training=list(reversed(json.loads((place / TASK / "dataset.json").read_text())["training"]))
    )
    assert Decathlon(TASK, str(place), seed=3).volumes == data.volumes


def test_slices_without_labels(place: Path) -> None:
    for empty, each in {0.0: 3, 0.4: 5, 1.0: 8}.items():
        data = Decathlon(TASK, str(place), size=12, empty=empty)
        assert len(data.samples("train")) == 3 * each
        assert (len(data.samples("val")), len(data.samples("test"))) == (8, 16)
        assert sum(sample["mask"].any() for sample in data.samples("train")) == 9
    assert data.samples("val") is data.samples("val")


def test_a_slice_is_the_right_one_the_right_way_up(place: Path) -> None:
    """Volume 0 was saved as it lies, volume 1 turned by 180 degrees."""
    data = Decathlon(TASK, str(place), size=12, window=(-1000, 400))
    for number in range(2):
        voxels, mask = volume(number)
        pair = tuple(place / TASK / f"{kind}Tr" / f"spleen_{number}.nii.gz" for kind in ("images", "labels"))
        sample = data._samples(0, pair, "test")[3]
        expected = np.rot90(mask[:, :, 3])
        assert np.array_equal(sample["mask"][0, :, 1:-1], expected)
        levels = np.rot90((voxels[:, :, 3] + 1000.0) * 255 / 1400).round()
        assert np.array_equal(sample["image"][0, :, 1:-1], levels)
        assert (sample["image"][0, :, [0, -1]] == 0).all()


@pytest.mark.parametrize(("axis", "count"), [("sagittal", 10), ("coronal", 12), ("axial", 8)])
def test_axes_and_voxels_that_are_no_cubes(place: Path, axis: str, count: int) -> None:
    data = Decathlon(TASK, str(place), axis=axis, size=24)  # type: ignore[arg-type]
    samples = data.samples("val")
    assert len(samples) == count
    lit = [sample["mask"][0] for sample in samples if sample["mask"].any()]
    height, width = (int(np.ptp(np.nonzero(lit[0])[side])) + 1 for side in (0, 1))
    millimetres = {"sagittal": (6, 4), "coronal": (6, 3), "axial": (4, 3)}[axis]
    assert height / width == pytest.approx(millimetres[0] / millimetres[1], rel=0.2)


def test_channels(place: Path) -> None:
    for number in range(6):
        save(
            place / TASK / "imagesTr" / f"spleen_{number}.nii.gz",
            volume(number, channels=3)[0],
            flips="xy" * (number % 2),
        )
    data = Decathlon(TASK, str(place), size=16, channels=[2, 0], crop=0)
    data.setup("fit")
    assert data.spec.channels == 2
    assert next(iter(data.train_dataloader()))["image"].shape[1:] == (2, 16, 16)
    with pytest.raises(DataError, match=r"nii\.gz: has 3 channels: set data\.init_args\.channels"):
        Decathlon(TASK, str(place), channels=[3]).setup("test")


def test_brightness() -> None:
    voxels = np.arange(1000, dtype=np.float32).reshape(1, 10, 10, 10) - 300
    stretched = to_bytes(voxels, None, (10, 90))
    assert stretched.dtype == np.uint8
    assert ((stretched == 0).mean(), (stretched == 255).mean()) == pytest.approx((0.1, 0.1), abs=0.005)
    assert to_bytes(voxels, (0.0, 255.0), (0, 100)).ravel()[[0, 300, 400, 999]].tolist() == [0, 0, 100, 255]
    assert not to_bytes(np.full((2, 3, 3, 3), 7e4, np.float32), None, (0.5, 99.5)).any()


def test_which_slices_are_kept() -> None:
    labels = np.zeros((1, 4, 4, 9), np.uint8)
    labels[0, 1, 2, 4] = 3
    assert with_label(labels, "axial", 0) == [4]
    assert with_label(labels, "axial", 0.25) == [0, 4, 8]
    assert with_label(labels, "axial", 1) == [*range(9)]
    assert with_label(labels, "sagittal", 0) == [1]
    assert with_label(np.zeros((1, 2, 2, 2), np.uint8), "coronal", 0) == []


def test_one_voxel(tmp_path: Path) -> None:
    save(tmp_path / "one.nii.gz", np.ones((1, 1, 1), np.int16))
    read = read_volume(tmp_path / "one.nii.gz")
    assert read.voxels.shape == (1, 1, 1, 1)
    assert flat(read.voxels, "coronal", 0).shape == (1, 1, 1)
    assert read.plane("axial") == (1.0, 1.0)
    assert read.plane("sagittal") == (2.0, 1.0)


def break_file(path: Path, how: str) -> None:
    content, loaded = path.read_bytes(), nibabel.load(path)
    voxels, affine = np.asarray(loaded.dataobj).copy(), loaded.affine
    changed = {
        "nan": np.where(np.arange(8) == 3, np.nan, voxels.astype(np.float32)),
        "other size": voxels[1:],
        "turned": voxels,
        "label": voxels + np.uint8(2),
        "share": 0.25 * voxels.astype(np.float32),
        "flat": voxels[0],
        "five axes": np.stack([voxels[..., None]] * 2, axis=-1),
    }
    if how == "turned":
        affine = affine @ np.diag([1, 1, -1, 1])
    path.unlink()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how != "missing":
        nibabel.save(nibabel.Nifti1Image(changed[how], affine), path)


@pytest.mark.parametrize(
    ("kind", "how", "said"),
    [
        ("images", "missing", "no such file: fetch the data set again"),
        ("images", "truncated", "is not a readable NIfTI volume"),
        ("labels", "truncated", "is not a readable NIfTI volume"),
        ("images", "empty", "is not a readable NIfTI volume"),
        ("images", "nan", "no finite numbers: mend or remove it"),
        ("images", "flat", "is not a readable NIfTI volume"),
        ("images", "five axes", r"has shape \(10, 12, 8, 1, 2\): give \(X, Y, Z\)"),
        ("labels", "other size", "its shape or axes are not those of"),
        ("labels", "turned", "its shape or axes are not those of"),
        ("labels", "label", "holds labels other than 0 to 2"),
        ("labels", "share", "holds labels other than 0 to 2"),
    ],
)
def test_bad_volumes(place: Path, kind: str, how: str, said: str) -> None:
    [image, *_] = Decathlon(TASK, str(place)).volumes["val"][0]
    path = place / TASK / f"{kind}Tr" / image.name
    break_file(path, how)
    with pytest.raises(DataError, match=said) as caught:
        Decathlon(TASK, str(place)).setup("validate")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"labels": {"1": "a"}, "training": []}', '{"labels": {"0": "a"}, "training": [{}]}']
)
def test_bad_description(place: Path, content: str) -> None:
    (place / TASK / "dataset.json").write_text(content)
    with pytest.raises(DataError, match=r"dataset\.json: cannot be read, or has no `training` and `labels`"):
        _ = Decathlon(TASK, str(place)).spec


def test_too_few_or_no_volumes(place: Path) -> None:
    describe(place / TASK, 2)
    with pytest.raises(DataError, match="has 2 volumes with masks: training needs 3 or more"):
        Decathlon(TASK, str(place)).setup("fit")
    with pytest.raises(DataError, match=r"Task04_Hippocampus: no such folder: set .*download.* fetch https://msd-for"):
        _ = Decathlon("Task04_Hippocampus", str(place)).spec
    with pytest.raises(DataError, match="or name one of Task01_BrainTumour, "):
        _ = Decathlon("Task11", str(place)).spec
    with pytest.raises(UsageError, match="the Decathlon has no Task11: give one of Task01_BrainTumour, "):
        Decathlon("Task11", str(place), download=True).prepare_data()


def test_fetching(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = place / "server" / f"{TASK}.tar"
    archive.parent.mkdir()
    with tarfile.open(archive, "w") as file:
        file.add(place / TASK, TASK)
    shutil.rmtree(place / TASK)
    monkeypatch.setitem(DecathlonDataset.resource, TASK, archive.as_uri())
    monkeypatch.setitem(DecathlonDataset.md5, TASK, hashlib.md5(archive.read_bytes()).hexdigest())
    data = Decathlon(TASK, str(place / "new"), download=True)
    data.prepare_data()
    assert len(data.samples("val")) == 8


@pytest.mark.parametrize(
    "setting",
    [
        {"size": 0},
        {"channels": []},
        {"channels": [-1]},
        {"window": (5.0, 5.0)},
        {"percentiles": (99.0, 1.0)},
        {"empty": 1.5},
        {"val_share": 0.0},
        {"test_share": 0.95},
    ],
)
def test_setting_out_of_range(setting: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(setting))):
        Decathlon(TASK, **setting)
