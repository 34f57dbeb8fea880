"""The embedded brain: what its slices are, and that splits stay apart."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from encdl.data.embedded import SLABS, TISSUES, EmbeddedMRI, EmbeddedTissue, axial_slice, volume
from encdl.data.splits import SPLITS
from encdl.utils.errors import DataError


def test_spec_is_what_the_batches_hold() -> None:
    data = EmbeddedMRI(batch_size=4, eval_batch_size=10, crop=48, augment=False)
    spec = data.spec
    data.setup("fit")
    train, val = next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))
    assert train["image"].shape == (4, spec.channels, 48, 48)
    assert val["image"].shape == (10, spec.channels, spec.height, spec.width)
    assert type(train["image"]) is type(val["image"]) is torch.Tensor
    assert train["image"].dtype == val["image"].dtype == torch.uint8


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_slices_hold_brain_on_an_exact_background(split: str) -> None:
    for sample in EmbeddedMRI().samples(split):  # type: ignore[arg-type]
        image = sample["image"]
        assert image.dtype == np.uint8
        assert (image[:, :10] == 0).all()
        assert (image[:, :, :10] == 0).all()
        assert 0.08 < (image > 0).mean() < 0.6


def test_slabs_are_at_least_five_millimetres_apart() -> None:
    owner = {index: split for split, slabs in SLABS.items() for slab in slabs for index in slab}
    assert sum(len(slab) for slabs in SLABS.values() for slab in slabs) == len(owner) == 106
    for one, split in owner.items():
        assert all(other == split or abs(one - place) > 5 for place, other in owner.items())


def test_no_test_slice_is_close_to_a_training_slice() -> None:
    data = EmbeddedMRI()
    seen = np.stack([sample["image"].ravel() for sample in data.samples("train")]).astype(float)
    held = np.stack([sample["image"].ravel() for sample in data.samples("test")]).astype(float)
    neighbours = np.sqrt(np.mean((held[1:] - held[:-1]) ** 2, axis=1))
    across = np.sqrt(np.mean((held[:, None] - seen[None]) ** 2, axis=2)).min()
    assert across > 1.8 * neighbours.max()


def test_front_of_the_head_is_up() -> None:
    voxels = volume("t1")
    image = axial_slice(voxels, 80)[0]
    assert image[0, 0] == voxels[0, -1, 80]
    assert image[116, 98] == voxels[98, 116, 80]


@pytest.mark.parametrize("name", ["grey", "white"])
def test_tissue_maps_lie_on_the_same_grid(name: str) -> None:
    assert volume(name).shape == volume("t1").shape  # type: ignore[arg-type]


def test_tissue_has_the_slices_and_splits_of_the_images() -> None:
    for split in SPLITS:
        plain, labelled = EmbeddedMRI().samples(split), EmbeddedTissue().samples(split)
        assert all(np.array_equal(a["image"], b["image"]) for a, b in zip(plain, labelled, strict=True))
        masks = np.stack([sample["mask"] for sample in labelled])
        images = np.stack([sample["image"] for sample in labelled])
        assert masks.shape == (len(plain), 1, 233, 197)
        assert masks.dtype == np.uint8
        shares = np.bincount(masks.ravel(), minlength=3) / masks.size
        assert len(shares) == 3
        assert (shares[1:] > 0.05).all()
        other, grey, white = (float(images[masks == tissue].mean()) for tissue in range(3))
        assert other < 60 < grey < 180 < white


def test_where_the_tissue_is() -> None:
    sample = EmbeddedTissue().samples("train")[0]
    grey, white = (axial_slice(volume(name), SLABS["train"][0][0]) for name in ("grey", "white"))  # type: ignore[arg-type]
    assert np.array_equal(sample["mask"] == 1, (grey >= 128) & (grey > white))
    assert np.array_equal(sample["mask"] == 2, (white >= 128) & (white > grey))


@pytest.mark.parametrize("augment", [False, True])
def test_batches_of_tissue(augment: bool) -> None:
    data = EmbeddedTissue(batch_size=8, crop=64, augment=augment)
    assert (data.spec.classes, data.spec.spacing_mm) == (TISSUES, (1.0, 1.0))
    batch, val = next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))
    assert batch["mask"].shape == batch["image"].shape == (8, 1, 64, 64)
    assert batch["mask"].dtype == torch.uint8
    assert set(batch["mask"].unique().tolist()) == {0, 1, 2}
    assert val["mask"].shape == (8, 1, 233, 197)


def test_missing_nilearn_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encdl.data.embedded.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"^.*pip install nilearn$"):
        EmbeddedMRI().samples("val")


def test_import_needs_no_large_library() -> None:
    code = (
        "import sys; import encdl.data.embedded as e; assert e.EmbeddedMRI().samples('val');"
        "print(*{'mlflow', 'monai', 'albumentations', 'nilearn'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr
