"""Folders of images: what is found, how it is split, what it becomes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from encdl.data.folder_files import ReadImage
from encdl.data.image_folder import SPLITS, ImageFolder
from encdl.files import images
from encdl.utils.errors import DataError, ImageFileError, UsageError


def put(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(path, array)
    return path


def noise(*shape: int, dtype: str = "uint8") -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(sum(shape)).integers(0, top, shape, dtype=dtype)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Twelve images of several sizes, depths and kinds in sub-folders, and things that are no images."""
    kinds = [("png", (30, 40)), ("png", (33, 21, 3)), ("tif", (50, 22)), ("npy", (20, 20, 4))]
    for number in range(12):
        suffix, shape = kinds[number % 4]
        array = noise(*shape, dtype="uint16" if number == 2 else "uint8")
        put(tmp_path / f"patient {number % 5}" / f"{number}.{suffix}", array)
    put(tmp_path / ".thumbnails" / "hidden.png", noise(9, 9))
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("crop", [0, 16])
def test_batches_of_mixed_images(mixed: Path, channels: int, augment: bool, crop: int) -> None:
    data = ImageFolder(str(mixed), size=32, channels=channels, batch_size=5, crop=crop, augment=augment)  # type: ignore[arg-type]
    data.setup("fit")
    train, val = next(iter(data.train_dataloader()))["image"], next(iter(data.val_dataloader()))["image"]
    assert train.shape == (5, channels, crop or 32, crop or 32)
    assert val.shape[1:] == (data.spec.channels, data.spec.height, data.spec.width) == (channels, 32, 32)
    assert type(train) is type(val) is torch.Tensor
    assert train.dtype == val.dtype == torch.uint8


@pytest.mark.parametrize("cache", [False, True])
def test_reading_again_gives_the_same(mixed: Path, cache: bool) -> None:
    def first(keep: bool) -> torch.Tensor:
        data = ImageFolder(str(mixed), size=32, crop=16, cache=keep)
        return next(iter(data.train_dataloader()))["image"]  # type: ignore[no-any-return]

    assert torch.equal(first(cache), first(True))


def test_splits_cover_every_file_once_and_do_not_depend_on_the_place(mixed: Path, tmp_path: Path) -> None:
    files = ImageFolder(str(mixed)).files
    assert {split: len(files[split]) for split in SPLITS} == {"train": 8, "val": 2, "test": 2}
    assert len({file for split in SPLITS for file in files[split]}) == 12
    moved = tmp_path.parent / (tmp_path.name + " moved")
    mixed.rename(moved)
    again = ImageFolder(str(moved), seed=5).files
    assert all([file.name for file in again[split]] == [file.name for file in files[split]] for split in SPLITS)


def test_sub_folders_stay_together(mixed: Path) -> None:
    files = ImageFolder(str(mixed), group="folder").files
    patients = [{file.parent.name for file in files[split]} for split in SPLITS]
    assert [len(each) for each in patients] == [3, 1, 1]
    assert len(set().union(*patients)) == 5


def test_sub_folders_named_as_splits_are_the_splits(tmp_path: Path) -> None:
    for split in SPLITS:
        put(tmp_path / split / "deep" / f"{split}.png", noise(20, 20))
    files = ImageFolder(str(tmp_path)).files
    assert {split: [file.stem for file in files[split]] for split in SPLITS} == {s: [s] for s in SPLITS}


def test_whole_images_are_cut_or_padded_around_the_middle(tmp_path: Path) -> None:
    small = noise(10, 40)
    for split in SPLITS:
        put(tmp_path / split / "a.png", small)
    data = ImageFolder(str(tmp_path), size=20)
    data.setup("test")
    image = next(iter(data.test_dataloader()))["image"][0, 0].numpy()
    assert (image[5:15] == small[:, 10:30]).all()
    assert (image[:5] == 0).all()
    assert (image[15:] == 0).all()


def test_what_images_become(tmp_path: Path) -> None:
    red = np.zeros((8, 8, 4), np.uint8)
    red[..., 0] = 200
    path = put(tmp_path / "red.png", red)
    assert (ReadImage(1)(path) == round(0.299 * 200)).all()
    assert (ReadImage(3)(path) == np.array([200, 0, 0])[:, None, None]).all()
    grey = put(tmp_path / "grey.npy", np.array([[100, 301], [200, 500]], np.int16))
    assert ReadImage(1)(grey).tolist() == [[[0, 128], [64, 255]]]
    assert ReadImage(3)(grey).shape == (3, 2, 2)
    flat = put(tmp_path / "flat.npy", np.full((2, 2), 700, np.uint16))
    assert (ReadImage(1)(flat) == 0).all()
    assert ReadImage(1)(put(tmp_path / "two.npy", noise(4, 4, 2))).shape == (1, 4, 4)


def test_errors_name_the_file_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none: no such folder: set data\.init_args\.folder"):
        ImageFolder(str(tmp_path / "none")).samples("train")
    with pytest.raises(DataError, match=r"holds no images \(\.png, "):
        ImageFolder(str(tmp_path)).samples("train")
    for number in range(2):
        put(tmp_path / f"{number}.png", noise(20, 20))
    with pytest.raises(DataError, match="holds 2 images: training needs 3 or more"):
        ImageFolder(str(tmp_path)).samples("train")
    put(tmp_path / "2.png", noise(20, 20))
    with pytest.raises(DataError, match="holds 1 sub-folders with images: training needs 3"):
        ImageFolder(str(tmp_path), group="folder").samples("train")
    with pytest.raises(DataError, match=r"\.png: is 20 x 20 pixels, smaller than the training crop of 64"):
        ImageFolder(str(tmp_path)).setup("fit")
    (tmp_path / "3.png").write_bytes(b"rubbish")
    with pytest.raises(ImageFileError, match=r"3\.png"):
        ImageFolder(str(tmp_path), crop=8).setup()
    with pytest.raises(DataError, match=r"five\.npy: has 5 channels"):
        ReadImage(1)(put(tmp_path / "five.npy", noise(9, 9, 5)))


@pytest.mark.parametrize("setting", [{"size": 0}, {"channels": 2}, {"val_share": 0}, {"test_share": 0.95}])
def test_setting_out_of_range(setting: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=next(iter(setting))):
        ImageFolder("x", **setting)  # type: ignore[arg-type]
