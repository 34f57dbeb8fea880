"""The images of an audit: named sets, several at a time, and what their digest depends on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from encdl.audit.security import image_sets
from encdl.utils.errors import DataError, UsageError
from tests.audit.security import tiny


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    tiny.clear()
    yield
    tiny.clear()


def write(file: Path, level: int, *, size: int = 20, labels: bool = True, channels: tuple[int, ...] = ()) -> None:
    random = np.random.default_rng(level)
    arrays: dict[str, np.ndarray] = {}
    for split in ("train", "val", "test"):
        images = random.integers(0, 20, (6, size, size, *channels), dtype=np.uint8) + level
        arrays[f"{split}_images"] = images.astype(np.uint8)
        if labels:
            arrays[f"{split}_labels"] = np.arange(6)[:, None] % 2
    np.savez(file, **arrays)


def cut(folder: Path, name: str, train: int = 16, seed: int = 0) -> image_sets.Cuts:
    return image_sets.cuts(name, str(folder), 16, train, 8, "cpu", seed, True)


def test_a_set_by_its_name_in_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "mine.npz", 100)
    found = cut(tmp_path, "mine")
    assert found.scene.train.shape == (16, 1, 16, 16)
    assert found.scene.test.shape == (8, 1, 16, 16)
    assert found.scene.large is not None
    assert found.scene.large.shape[2:] == (image_sets.LARGE_SIDE, image_sets.LARGE_SIDE)
    assert found.labels.startswith("classes of the data set")
    assert 90 < float(found.scene.train.float().mean()) < 130


def test_several_sets_have_equal_shares(tmp_path: Path) -> None:
    write(tmp_path / "dark.npz", 0)
    write(tmp_path / "bright.npz", 200, size=28)
    found = cut(tmp_path, "dark+bright")
    bright = found.scene.train.float().flatten(1).mean(1) > 100
    assert int(bright.sum()) == 8
    assert "brighter or darker" in found.labels
    assert torch.equal(found.scene.train_labels, bright.long())


def test_few_of_many_are_of_all_classes(tmp_path: Path) -> None:
    """The file is sorted by class."""
    random = np.random.default_rng(0)
    arrays = {f"{split}_images": random.integers(0, 256, (90, 8, 8), dtype=np.uint8) for split in ("train", "val")}
    arrays["test_images"] = arrays["val_images"]
    arrays |= {f"{split}_labels": np.arange(90)[:, None] // 30 for split in ("train", "val", "test")}
    np.savez(tmp_path / "sorted.npz", **arrays)
    found = cut(tmp_path, "sorted").scene
    assert set(found.train_labels.tolist()) == set(found.test_labels.tolist()) == {0, 1, 2}
    many = cut(tmp_path, "sorted", train=180).scene
    assert many.train_labels.bincount().tolist() == [60, 60, 60]


def test_what_is_embedded_lies_in_no_folder(tmp_path: Path) -> None:
    write(tmp_path / "mine.npz", 100)
    assert [type(each).__name__ for each in image_sets._opened("embedded+mine", str(tmp_path))] == [
        "EmbeddedMRI",
        "NpzImages",
    ]


def test_grey_and_colour_do_not_mix(tmp_path: Path) -> None:
    write(tmp_path / "grey.npz", 0)
    write(tmp_path / "colour.npz", 0, channels=(3,))
    with pytest.raises(DataError, match="in colour"):
        cut(tmp_path, "grey+colour")


def test_the_digest_follows_images_and_labels(tmp_path: Path) -> None:
    write(tmp_path / "mine.npz", 100)
    first = cut(tmp_path, "mine").digest
    assert cut(tmp_path, "mine").digest == first
    assert cut(tmp_path, "mine", seed=1).digest != first
    write(tmp_path / "mine.npz", 100, labels=False)
    tiny.clear()
    assert cut(tmp_path, "mine").digest != first


def test_no_set_of_that_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none needs none"):
        cut(tmp_path, "none")
    with pytest.raises(DataError, match=r"brain_tumor\.npz"):
        cut(tmp_path, "brain_tumor")


def test_files_count_by_their_content(tmp_path: Path) -> None:
    write(tmp_path / "mine.npz", 100)
    write(tmp_path / "other.npz", 50)
    first = image_sets.files_digest("mine", str(tmp_path))
    (tmp_path / "mine.npz").touch()
    write(tmp_path / "other.npz", 60)
    assert image_sets.files_digest("mine", str(tmp_path)) == first
    assert image_sets.files_digest(str(tmp_path / "mine.npz"), None) == first
    assert image_sets.files_digest("mine+other", str(tmp_path)) != first
    write(tmp_path / "mine.npz", 101)
    assert image_sets.files_digest("mine", str(tmp_path)) != first
    assert image_sets.files_digest("embedded", None) == image_sets.files_digest("lesions", None)
