"""Folders of images by class: what is found, how it is split, what it becomes, and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from encdl.data.class_folder import ClassFolder
from encdl.data.splits import SPLITS
from encdl.files import images
from encdl.files.resize import FitImage
from encdl.utils.errors import DataError, ImageFileError


def put(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(path, array)
    return path


def noise(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def patients(root: Path, count: int = 8, each: int = 3) -> Path:
    """Files of `count` patients in either class; patient 0 is in both."""
    for name, numbers in {"sick": range(count), "healthy": (0, *range(count, 2 * count - 1))}.items():
        for number in numbers:
            for image in range(each):
                put(root / name / f"patient{number}_{name}{image}.png", noise(12, 10 + number))
    return root


def people(data: ClassFolder) -> list[set[str]]:
    return [{file.stem.partition("_")[0] for file in data.files[split]} for split in SPLITS]


def test_mixed_files_become_labelled_batches(tmp_path: Path) -> None:
    kinds = [("png", (30, 40)), ("png", (33, 21, 3)), ("tif", (50, 22)), ("npy", (1, 1)), ("npy", (9, 40, 4))]
    for number in range(20):
        suffix, shape = kinds[number % 5]
        wide = noise(*shape, dtype="uint16" if number % 2 else "uint8")
        put(tmp_path / "abc"[number % 3] / f"{number}.{suffix}", wide if suffix != "png" else noise(*shape))
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    data = ClassFolder(str(tmp_path), size=24, batch_size=5)
    assert (data.spec.channels, data.spec.height, data.spec.width) == (1, 24, 24)
    assert data.spec.classes == ("a", "b", "c")
    data.setup()
    train, test = next(iter(data.train_dataloader())), next(iter(data.test_dataloader()))
    assert train["image"].shape == (5, 1, 24, 24)
    assert train["image"].dtype == test["image"].dtype == torch.uint8
    assert train["label"].dtype == torch.int64
    assert test["label"].tolist() == [0, 1, 2]
    assert data.class_counts().tolist() == [5, 5, 4]
    labels = [(sample["image"].parent.name, sample["label"]) for split in SPLITS for sample in data.samples(split)]
    assert set(labels) == {("a", 0), ("b", 1), ("c", 2)}


def test_colour(tmp_path: Path) -> None:
    for split in SPLITS:
        put(tmp_path / split / "grey" / "1.png", noise(8, 8))
        put(tmp_path / split / "red" / "1.png", np.full((8, 8, 3), (200, 0, 0), np.uint8))
    data = ClassFolder(str(tmp_path), size=8, channels=3)
    data.setup("test")
    grey, red = next(iter(data.test_dataloader()))["image"]
    assert torch.equal(grey[0], grey[2])
    assert red[:, 0, 0].tolist() == [200, 0, 0]


def test_every_split_has_every_class(tmp_path: Path) -> None:
    for number in range(60):
        put(tmp_path / ("rare" if number < 3 else "usual") / f"{number}.png", noise(4, 4))
    data = ClassFolder(str(tmp_path), size=4)
    counts = {split: Counter(sample["label"] for sample in data.samples(split)) for split in SPLITS}
    assert counts == {"train": {0: 1, 1: 45}, "val": {0: 1, 1: 6}, "test": {0: 1, 1: 6}}


def test_a_patient_is_in_one_split_even_with_images_in_two_classes(tmp_path: Path) -> None:
    data = ClassFolder(str(patients(tmp_path)), size=8, group="prefix", val_share=0.3, test_share=0.3)
    groups = data.groups("test") or []
    assert len(groups) == len(data.samples("test")) > len(set(groups))
    assert data.grouping == "patients"
    assert ClassFolder(data.folder, size=8).groups("test") is None
    parts = people(data)
    assert sum(map(len, parts)) == len(set().union(*parts)) == 15
    assert data.classes == ("healthy", "sick")
    torn = people(ClassFolder(str(tmp_path), size=8, val_share=0.3, test_share=0.3))
    assert sum(map(len, torn)) > 15


def test_a_patients_folder_is_in_one_split(tmp_path: Path) -> None:
    for name, number in [(name, number) for name in "ab" for number in range(6)]:
        for image in range(2):
            put(tmp_path / name / f"patient {number}" / f"{image}.png", noise(4, 4))
    files = ClassFolder(str(tmp_path), size=4, group="folder").files
    parts = [{file.parent.name for file in files[split]} for split in SPLITS]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 6


def test_given_splits(tmp_path: Path) -> None:
    for split in SPLITS:
        put(tmp_path / split / "b" / f"{split}_1.png", noise(4, 4))
        put(tmp_path / split / "a" / "deep" / f"{split}_2.png", noise(4, 4))
    data = ClassFolder(str(tmp_path), size=4, group="prefix")
    assert {split: [file.stem for file in data.files[split]] for split in SPLITS} == {
        split: [f"{split}_2", f"{split}_1"] for split in SPLITS
    }
    assert [sample["label"] for sample in data.samples("test")] == [0, 1]
    put(tmp_path / "test" / "a" / "train_9.png", noise(4, 4))
    with pytest.raises(DataError, match=r"`train` is in two of train, val and test: keep each prefix in one"):
        ClassFolder(str(tmp_path), group="prefix").samples("train")


def test_a_split_that_is_not_given_is_taken_from_training(tmp_path: Path) -> None:
    patients(tmp_path / "train", count=6)
    put(tmp_path / "test" / "sick" / "other_1.png", noise(4, 4))
    put(tmp_path / "test" / "healthy" / "other2_1.png", noise(4, 4))
    data = ClassFolder(str(tmp_path), size=4, group="prefix")
    parts = people(data)
    assert parts[2] == {"other", "other2"}
    assert len(parts[1]) == 2
    assert not parts[0] & parts[1]
    (tmp_path / "train").rename(tmp_path / "learning")
    with pytest.raises(DataError, match="has a folder test and none named train: give both, or neither"):
        ClassFolder(str(tmp_path)).samples("train")


@pytest.mark.parametrize(
    ("shape", "size", "rows", "columns"),
    [
        ((10, 40), 20, slice(7, 12), slice(0, 20)),
        ((40, 10), 20, slice(0, 20), slice(7, 12)),
        ((5, 10), 20, slice(5, 15), slice(0, 20)),
        ((1, 1), 4, slice(0, 4), slice(0, 4)),
        ((1, 900), 30, slice(14, 15), slice(0, 30)),
        ((7, 7), 7, slice(0, 7), slice(0, 7)),
    ],
)
def test_a_image_is_fitted_whole(shape: tuple[int, int], size: int, rows: slice, columns: slice) -> None:
    fitted = FitImage(size)(np.full((3, *shape), 200, np.uint8))
    assert (fitted.shape, fitted.dtype) == ((3, size, size), np.uint8)
    expected = np.zeros((3, size, size))
    expected[:, rows, columns] = 200
    assert np.array_equal(fitted, expected)


def test_fitting_keeps_what_fits_already_and_the_values_of_masks() -> None:
    image = noise(1, 9, 9)
    assert np.array_equal(FitImage(9)(image), image)
    mask = FitImage(16).mask(3 * (image > 100).astype(np.uint8))
    assert set(np.unique(mask)) == {0, 3}
    spaced = FitImage(8)(np.full((1, 8, 2), 9, np.uint8), (1.0, 2.0))
    assert (spaced[0, :, 2:6] == 9).all()
    assert (spaced[0, :, :2] == 0).all()


def test_what_is_refused(tmp_path: Path) -> None:
    def said(match: str, **settings: str) -> None:
        with pytest.raises(DataError, match=match) as caught:
            _ = ClassFolder(str(tmp_path), **settings).spec  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)

    said(r"holds no images \(\.png, ")
    for number in range(4):
        put(tmp_path / "a" / f"x_{number}.png", noise(4, 4))
    said("has one class only, a: give a sub-folder for each of two or more classes")
    put(tmp_path / "b" / "x_0.png", noise(4, 4))
    said("no image of class b is left for val: give each class 3 or more images")
    said("holds 1 beginnings of file names .* training needs 3 or more", group="prefix")
    said("holds 1 sub-folders with images: training needs 3", group="folder")
    put(tmp_path / "stray.png", noise(4, 4))
    said(r"stray\.png: lies in no class's folder: move it into one")
    with pytest.raises(DataError, match="none: no such folder"):
        _ = ClassFolder(str(tmp_path / "none")).spec


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"rubbish", r"does not start like its ending"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "truncated or damaged"),
        (np.full((4, 4), np.nan), "not-a-number values, float64"),
        (np.zeros((4, 4, 7), np.uint8), "has 7 channels"),
        (np.zeros((0, 4), np.uint8), "holds no pixels"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes | np.ndarray, said: str) -> None:
    for split in SPLITS:
        for name in "ab":
            put(tmp_path / split / name / "1.png", noise(4, 4))
    bad = tmp_path / "train" / "a" / ("2.png" if isinstance(content, bytes) else "2.npy")
    bad.write_bytes(content) if isinstance(content, bytes) else np.save(bad, content)
    with pytest.raises((ImageFileError, DataError), match=said) as caught:
        ClassFolder(str(tmp_path), size=8).setup("fit")
    assert str(caught.value).startswith(str(bad))
    assert "\n" not in str(caught.value)
