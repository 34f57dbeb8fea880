"""Both layouts of `.npz` files, tiny and real."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encdl.data.base import DataSpec
from encdl.data.npz import SPLITS, NpzImages
from encdl.utils.errors import DataError

REAL = Path(os.environ.get("ENCDL_DATA_DIR") or Path(__file__).parents[2].parent / "shared" / "data")


def noise(*shape: int, top: int = 256) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, top, shape, dtype=np.uint8)


def medmnist(**changes: Any) -> dict[str, Any]:
    counts = zip(SPLITS, (6, 3, 2), strict=True)
    arrays = {}
    for split, count in counts:
        arrays[f"{split}_images"] = noise(count, 28, 28)
        arrays[f"{split}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 2
    return arrays | changes


def column(**changes: Any) -> dict[str, Any]:
    return {
        "images": noise(6, 20, 24),
        "labels": np.array([0, 1, 2, 0, 1, 2], np.uint8),
        "split": np.array([0, 0, 2, 1, 0, 2], np.uint8),
        "class_names": np.array(["a", "b", "c"]),
    } | changes


def make(tmp_path: Path, arrays: dict[str, Any], **settings: Any) -> NpzImages:
    np.savez_compressed(tmp_path / "tiny.npz", **arrays)
    return NpzImages("tiny.npz", str(tmp_path), **settings)


def test_medmnist_layout(tmp_path: Path) -> None:
    arrays = medmnist()
    data = make(tmp_path, arrays, batch_size=4, augment=False)
    assert data.spec == DataSpec(1, 28, 28, classes=("0", "1"))
    data.setup()
    train, test = next(iter(data.train_dataloader())), next(iter(data.test_dataloader()))
    assert train["image"].shape == (4, 1, 28, 28)
    assert train["label"].dtype == torch.int64
    assert np.array_equal(test["image"][:, 0].numpy(), arrays["test_images"])
    assert test["label"].tolist() == [0, 1]


def test_layout_with_a_column(tmp_path: Path) -> None:
    arrays = column()
    data = make(tmp_path, arrays)
    assert data.spec == DataSpec(1, 20, 24, classes=("a", "b", "c"))
    for number, split in enumerate(SPLITS):
        chosen = arrays["split"] == number
        samples = data.samples(split)
        assert np.array_equal(np.stack([sample["image"][0] for sample in samples]), arrays["images"][chosen])
        assert [sample["label"] for sample in samples] == arrays["labels"][chosen].tolist()


@pytest.mark.parametrize("augment", [False, True])
def test_masks_follow_their_images(tmp_path: Path, augment: bool) -> None:
    masks = noise(6, 20, 24, top=3)
    arrays = column(images=100 * masks, masks=masks)
    del arrays["labels"], arrays["class_names"]
    data = make(tmp_path, arrays, crop=16, batch_size=3, augment=augment, class_names=["x", "y", "z"])
    assert data.spec.classes == ("x", "y", "z")
    data.setup("fit")
    batch, val = next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))
    assert batch["mask"].shape == (3, 1, 16, 16)
    assert batch["mask"].max() < 3
    assert torch.equal(val["mask"] * 100, val["image"])
    if not augment:
        assert torch.equal(batch["mask"] * 100, batch["image"])


def test_a_patient_in_one_split(tmp_path: Path) -> None:
    data = make(tmp_path, column(patient=np.array([7, 7, 1, 2, 8, 1], np.int16)))
    assert [len(data.samples(split)) for split in SPLITS] == [3, 1, 2]


def test_one_pixel(tmp_path: Path) -> None:
    data = make(tmp_path, column(images=noise(6, 1, 1)), batch_size=2)
    assert data.spec == DataSpec(1, 1, 1, classes=("a", "b", "c"))
    assert next(iter(data.train_dataloader()))["image"].shape == (2, 1, 1, 1)


def test_colour(tmp_path: Path) -> None:
    data = make(tmp_path, {f"{split}_images": noise(2, 28, 28, 3) for split in SPLITS}, batch_size=2)
    assert data.spec == DataSpec(3, 28, 28)
    batch = next(iter(data.train_dataloader()))
    assert batch.keys() == {"image"}
    assert batch["image"].shape == (2, 3, 28, 28)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (medmnist(train_images=noise(6, 28)), r"`train_images` is uint8 \(6, 28\), not uint8 \(N, H, W\)"),
        (medmnist(val_images=np.zeros((3, 28, 28))), "`val_images` is float64"),
        (medmnist(val_images=np.zeros((3, 28, 28), np.uint16)), "`val_images` is uint16"),
        (medmnist(train_images=noise(6, 28, 28, 28)), r"`train_images` is uint8 \(6, 28, 28, 28\), not uint8"),
        (medmnist(train_images=noise(6, 0, 28)), r"`train_images` is uint8 \(6, 0, 28\), not uint8"),
        (medmnist(train_labels=np.full(6, -1)), "one integer label from 0"),
        (medmnist(train_labels=np.full(6, np.nan)), "one integer label from 0"),
        (medmnist(train_labels=noise(6, 14)), "one integer label from 0 for each of the 6 `train_images`"),
        (medmnist(train_labels=np.full((6, 1), 0.5)), "one integer label"),
        ({"train_images": noise(6, 28, 28)}, "it has no `val_images`: known are `train_images`"),
        ({"x": noise(2)}, "it has no `train_images`"),
        (column(split=np.full(6, 3)), r"`split` must hold 0 \(train\)"),
        (column(split=np.zeros(5, int)), "`split` must hold"),
        (column(masks=noise(6, 20, 20)), r"masks must be uint8 \(6, 20, 24\)"),
        (column(class_names=np.array(["a", "b"])), "3 classes occur, and 2 are named"),
        (column(patient=np.arange(5)), "`patient` must hold one number or word for each image"),
        (column(group=np.full(6, np.nan)), "`group` must hold one number"),
        (column(patient=np.array([1, 1, 2, 2, 1, 3])), "patient 2 is in two splits: keep each in one"),
        (column(group=np.array(list("aabcda"))), "group a is in two splits"),
        (column(class_names=np.array(["a", None], object)), "is not a readable .npz file"),
    ],
)
def test_wrong_layout(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        _ = make(tmp_path, arrays).spec
    assert "\n" not in str(caught.value)


def test_missing_or_broken_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.npz: no such file: put gone\.npz into .*/, or set"):
        _ = NpzImages("gone.npz", str(tmp_path)).spec
    whole = tmp_path / "tiny.npz"
    make(tmp_path, column())
    content = whole.read_bytes()
    np.save(tmp_path / "array.npy", noise(4))
    array = (tmp_path / "array.npy").read_bytes()
    for broken in (array, b"", b"rubbish", content[: len(content) // 2], content[:200] + b"?" * 99 + content[299:]):
        whole.write_bytes(broken)
        with pytest.raises(DataError, match="is not a readable"):
            _ = NpzImages("tiny.npz", str(tmp_path)).spec


@pytest.mark.parametrize(
    ("file", "spec", "counts"),
    [
        ("pneumoniamnist.npz", DataSpec(1, 28, 28, classes=("0", "1")), (4708, 524, 624)),
        (
            "brain_tumor.npz",
            DataSpec(1, 128, 128, classes=("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")),
            (1505, 214, 430),
        ),
        ("acdc.npz", DataSpec(1, 128, 128, classes=("0", "1", "2", "3")), (1308, 190, 404)),
    ],
)
def test_real_files(file: str, spec: DataSpec, counts: tuple[int, int, int]) -> None:
    if not (REAL / file).is_file():
        pytest.skip(f"{file} is not in {REAL}: set ENCDL_DATA_DIR to the folder that has it")
    data = NpzImages(file, str(REAL), batch_size=8)
    assert data.spec == spec
    assert tuple(len(data.samples(split)) for split in SPLITS) == counts
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (8, 1, spec.height, spec.width)
    assert batch["image"].float().std() > 10


def test_real_masks() -> None:
    if not (REAL / "acdc.npz").is_file():
        pytest.skip(f"acdc.npz is not in {REAL}: set ENCDL_DATA_DIR to the folder that has it")
    names = ["background", "right ventricle", "myocardium", "left ventricle"]
    data = NpzImages("acdc.npz", str(REAL), names, batch_size=16, crop=96)
    assert data.spec.classes == tuple(names)
    assert "patient" in data._arrays
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == batch["mask"].shape == (16, 1, 96, 96)
    assert set(batch["mask"].unique().tolist()) == {0, 1, 2, 3}
    for split in SPLITS:
        shares = np.bincount(np.concatenate([sample["mask"].ravel() for sample in data.samples(split)]))
        assert (shares / shares.sum() > 0.01).tolist() == [True] * 4


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("pneumoniamnist.npz", r"fetch https://zenodo\.org/records/10519652/files/pneumoniamnist\.npz"),
        ("brain_tumor.npz", r"make it from kaggle\.com.*`images` and `split`"),
        ("acdc.npz", r"ACDC challenge.*own terms"),
        ("own.npz", r"it must hold `train_images`"),
    ],
)
def test_a_missing_file_says_where_to_get_it(tmp_path: Path, file: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        _ = NpzImages(file, str(tmp_path)).spec
    assert "\n" not in str(caught.value)


def test_slices_of_one_scan_are_one_volume(tmp_path: Path) -> None:
    zeros = np.zeros((6, 8, 8), np.uint8)
    patient, frame = np.array([1, 1, 1, 2, 2, 3]), np.array([1, 1, 9, 1, 1, 4])
    columns = {"split": np.array([0, 0, 0, 2, 2, 1]), "patient": patient, "frame": frame}
    np.savez(tmp_path / "scans.npz", images=zeros, masks=zeros, **columns)
    data = NpzImages("scans.npz", str(tmp_path))
    volumes = {split: [sample["volume"] for sample in data.samples(split)] for split in ("train", "val", "test")}
    assert volumes == {"train": [0, 0, 1], "test": [2, 2], "val": [3]}
    np.savez(tmp_path / "flat.npz", images=zeros, masks=zeros, split=columns["split"])
    assert "volume" not in NpzImages("flat.npz", str(tmp_path)).samples("train")[0]
