"""Data by the names of the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from encdl.data import registry
from encdl.data.class_folder import ClassFolder
from encdl.data.decathlon import Decathlon
from encdl.data.embedded import EmbeddedMRI, EmbeddedTissue
from encdl.data.image_folder import ImageFolder
from encdl.data.lesions import SyntheticLesionMRI
from encdl.data.medmnist import MedMNIST
from encdl.data.mednist import MedNIST
from encdl.data.npz import NpzImages
from encdl.files import images
from encdl.utils.errors import DataError, UsageError


def put_npz(path: Path, count: int = 10, shape: tuple[int, ...] = (6, 7)) -> str:
    """Images whose level is their number."""
    numbers = np.arange(count, dtype=np.uint8).reshape(-1, *(1 for _ in shape))
    test = np.broadcast_to(numbers, (count, *shape))
    np.savez(path, train_images=test[:1], val_images=test[:1], test_images=test)
    return str(path)


def put_folder(path: Path, count: int) -> str:
    path.mkdir()
    for number in range(count):
        images.write(path / f"{number}.png", np.full((5, 5), number, np.uint8))
    return str(path)


def test_each_kind(tmp_path: Path) -> None:
    assert isinstance(registry.open_data("embedded"), EmbeddedMRI)
    opened = registry.open_data(put_npz(tmp_path / "a.npz"))
    assert isinstance(opened, NpzImages)
    assert opened.path == tmp_path / "a.npz"
    assert isinstance(registry.open_data(put_folder(tmp_path / "pictures", 3)), ImageFolder)


def test_labelled_kinds(tmp_path: Path) -> None:
    assert isinstance(registry.open_data("lesions"), SyntheticLesionMRI)
    assert isinstance(registry.open_data("tissue"), EmbeddedTissue)
    classes = registry.open_data(f"classes:{put_folder(tmp_path / 'a:b@c', 3)}")
    assert isinstance(classes, ClassFolder)
    assert classes.root == tmp_path / "a:b@c"
    med = registry.open_data("medmnist:pneumoniamnist")
    assert isinstance(med, MedMNIST)
    assert med.path == Path("data/pneumoniamnist.npz")
    assert isinstance(registry.open_data("mednist"), MedNIST)
    organ = registry.open_data("decathlon:Task09_Spleen@/some/where")
    assert isinstance(organ, Decathlon)
    assert organ.root == Path("/some/where/Task09_Spleen")
    with pytest.raises(UsageError, match="MedMNIST has no set unknown"):
        registry.open_data("medmnist:unknown")


@pytest.mark.parametrize(("name", "kind"), [("brain_tumor", NpzImages), ("acdc", NpzImages), ("breastmnist", MedMNIST)])
@pytest.mark.parametrize(("folder", "title"), [("sets", "{}"), (None, "{}@sets"), ("other", "{}@sets")])
def test_sets_by_name_and_folder(name: str, kind: type[NpzImages], folder: str | None, title: str) -> None:
    opened = registry.open_data(title.format(name), folder)
    assert type(opened) is kind
    assert opened.path == Path("sets", f"{name}.npz")
    by_default = registry.open_data(name)
    assert isinstance(by_default, NpzImages)
    assert by_default.path == Path("data", f"{name}.npz")


@pytest.mark.parametrize("name", ["embedded", "a.npz", "pictures", ""])
def test_a_folder_for_data_that_has_none(name: str) -> None:
    with pytest.raises(UsageError, match="--data-dir says where sets such as brain_tumor are"):
        registry.open_data(name, "sets")


def test_opening_imports_no_large_library() -> None:
    code = (
        "import sys; import encdl.data.registry as n; n.open_data('mednist');"
        "print(*{'mlflow', 'monai', 'albumentations', 'nilearn', 'nibabel', 'medmnist'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr


def test_names_are_relative_to_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put_npz(Path("a.npz"))
    put_folder(Path("pictures"), 3)
    assert len(registry.test_images("a.npz", 4)) == 4
    assert len(registry.test_images("pictures", 4)) == 1


@pytest.mark.parametrize(
    "name", ["", "none", "none/", "embedded.png", "embedded@data", "medmnist", "mednist:x", "other:x@y"]
)
def test_nothing_of_that_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataError, match=r"give embedded, lesions, mednist, tissue, brain_tumor, acdc, .*decathlon:TASK.* \.npz file"
    ):
        registry.open_data(name)


@pytest.mark.parametrize(
    ("most", "levels"), [(1, [0]), (3, [0, 3, 6]), (5, [0, 2, 4, 6, 8]), (10, list(range(10))), (99, list(range(10)))]
)
def test_images_are_spread_evenly(tmp_path: Path, most: int, levels: list[int]) -> None:
    found = registry.test_images(put_npz(tmp_path / "a.npz"), most)
    assert [int(image.max()) for image in found] == levels
    assert {(image.dtype, image.shape) for image in found} == {(torch.uint8, (1, 6, 7))}


@pytest.mark.parametrize(("shape", "expected"), [((1, 1), (1, 1, 1)), ((3, 4, 3), (3, 3, 4)), ((9, 1), (1, 9, 1))])
def test_odd_shapes(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    [image] = registry.test_images(put_npz(tmp_path / "a.npz", 1, shape), 5)
    assert image.shape == expected


def test_embedded_images_are_the_whole_test_slab() -> None:
    found = registry.test_images("embedded", 100)
    assert len(found) == 10
    assert {image.shape for image in found} == {(1, 233, 197)}
    assert torch.equal(registry.test_images("embedded", 2)[1], found[5])


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        registry.test_images(str(tmp_path / "bad"), 3)
    with pytest.raises(DataError, match=r"none\.npz: no such file"):
        registry.test_images(str(tmp_path / "none.npz"), 3)
    np.savez(tmp_path / "no-test.npz", images=np.zeros((2, 4, 4), np.uint8), split=np.zeros(2, np.uint8))
    with pytest.raises(DataError, match="has no images in its test split"):
        registry.test_images(str(tmp_path / "no-test.npz"), 3)


def column(path: Path, name: str, groups: list[int], split: int = 2) -> str:
    """Images whose level is their number, with a column of patients or clusters."""
    count = len(groups)
    numbers = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1)
    np.savez(
        path, images=np.broadcast_to(numbers, (count, 4, 5)), split=np.full(count, split), **{name: np.array(groups)}
    )
    return str(path)


@pytest.mark.parametrize("name", ["patient", "group"])
def test_images_of_a_set_are_spread_over_groups(tmp_path: Path, name: str) -> None:
    file = column(tmp_path / "a.npz", name, [7] * 6 + [8] * 2 + [9] * 4)
    found = registry.images_to_judge(file, most=6)
    assert found.groups == ("7", "7", "8", "8", "9", "9")
    assert [int(image.max()) for image in found.images] == [0, 3, 6, 7, 8, 10]
    assert found.describe() == f"{file}, test split: 6 images (of 12) of 3 patients or clusters"
    assert len(registry.images_to_judge(file).images) == 12


def test_a_hundred_of_a_set(tmp_path: Path) -> None:
    file = column(tmp_path / "a.npz", "group", list(range(130)))
    found = registry.images_to_judge(file)
    assert (len(found.images), len(set(found.groups)), found.of) == (100, 100, 130)
    assert len(registry.images_to_judge(file, most=120).images) == 120


def test_a_folder_is_all_its_images_at_their_own_size(tmp_path: Path) -> None:
    shapes = [(5, 7), (31, 2), (1, 1), (300, 280), (9, 9, 3), (8, 6, 4), (12, 12)]
    places = ["a.png", "b.png", "c.png", "deep/er/d.png", "e.png", "test/f.png", "train/g.tif"]
    for place, shape in zip(places, shapes, strict=True):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        images.write(tmp_path / place, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    found = registry.images_to_judge(str(tmp_path))
    assert found.describe() == f"{tmp_path}: 7 images"
    sizes = [(1 if len(shape) == 2 else 3, *shape[:2]) for shape in shapes]
    assert [tuple(image.shape) for image in found.images] == sizes
    for place, image in zip(places, found.images, strict=True):
        array = images.read(tmp_path / place)
        expected = array[None] if array.ndim == 2 else np.moveaxis(array[..., :3], -1, 0)
        assert np.array_equal(image.numpy(), expected)
    assert len(registry.images_to_judge(str(tmp_path), most=3).images) == 3
    grouped = registry.images_to_judge(str(tmp_path), group="folder")
    assert grouped.groups == (".", ".", ".", "deep/er", ".", "test", "train")


def test_the_digest_is_of_the_images(tmp_path: Path) -> None:
    file = put_npz(tmp_path / "a.npz")
    first, again, other = (registry.images_to_judge(file, most=most) for most in (3, 3, 4))
    assert first.digest == again.digest != other.digest


def test_reading_arrays_needs_no_large_library(tmp_path: Path) -> None:
    code = (
        "import sys; import encdl.data.registry as n; n.images_to_judge(sys.argv[1]);"
        "print(*{'mlflow', 'monai', 'albumentations', 'nilearn', 'nibabel', 'medmnist'} & set(sys.modules))"
    )
    words = [sys.executable, "-c", code, put_npz(tmp_path / "a.npz")]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr


def test_classes_and_validation_images(tmp_path: Path) -> None:
    for kind in ("x", "y"):
        (tmp_path / "c" / kind).mkdir(parents=True)
        for number in range(6):
            images.write(tmp_path / "c" / kind / f"{number}.png", np.full((5, 6), number, np.uint8))
    found = registry.images_to_judge(f"classes:{tmp_path / 'c'}", split="val")
    assert found.dataset.endswith("val split")
    assert 1 <= len(found.images) <= 4


def test_nothing_to_judge_by(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        registry.images_to_judge(str(tmp_path / "empty"))
    with pytest.raises(DataError, match=r"brain_tumor\.npz: no such file"):
        registry.images_to_judge("brain_tumor", str(tmp_path))
    file = column(tmp_path / "train.npz", "group", [1, 2], split=0)
    with pytest.raises(DataError, match="has no images in its test split"):
        registry.images_to_judge(file)
