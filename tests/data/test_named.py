"""Data by the names of the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from encdl import images
from encdl.data import named
from encdl.data.classes import ClassFolder
from encdl.data.decathlon import Decathlon
from encdl.data.embedded import EmbeddedMRI, EmbeddedTissue
from encdl.data.folder import ImageFolder
from encdl.data.lesions import SyntheticLesionMRI
from encdl.data.medmnist import MedMNIST
from encdl.data.mednist import MedNIST
from encdl.data.npz import NpzImages
from encdl.errors import DataError, UsageError


def put_npz(path: Path, count: int = 10, shape: tuple[int, ...] = (6, 7)) -> str:
    """Pictures whose level is their number."""
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
    assert isinstance(named.open_data("embedded"), EmbeddedMRI)
    opened = named.open_data(put_npz(tmp_path / "a.npz"))
    assert isinstance(opened, NpzImages)
    assert opened.path == tmp_path / "a.npz"
    assert isinstance(named.open_data(put_folder(tmp_path / "pictures", 3)), ImageFolder)


def test_labelled_kinds(tmp_path: Path) -> None:
    assert isinstance(named.open_data("lesions"), SyntheticLesionMRI)
    assert isinstance(named.open_data("tissue"), EmbeddedTissue)
    classes = named.open_data(f"classes:{put_folder(tmp_path / 'a:b@c', 3)}")
    assert isinstance(classes, ClassFolder)
    assert classes.root == tmp_path / "a:b@c"
    med = named.open_data("medmnist:pneumoniamnist")
    assert isinstance(med, MedMNIST)
    assert med.path == Path("data/pneumoniamnist.npz")
    assert isinstance(named.open_data("mednist"), MedNIST)
    organ = named.open_data("decathlon:Task09_Spleen@/some/where")
    assert isinstance(organ, Decathlon)
    assert organ.root == Path("/some/where/Task09_Spleen")
    with pytest.raises(UsageError, match="MedMNIST has no set unknown"):
        named.open_data("medmnist:unknown")


def test_opening_imports_no_large_library() -> None:
    code = (
        "import sys; import encdl.data.named as n; n.open_data('mednist');"
        "print(*{'mlflow', 'monai', 'albumentations', 'nilearn', 'nibabel', 'medmnist'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr


def test_names_are_relative_to_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put_npz(Path("a.npz"))
    put_folder(Path("pictures"), 3)
    assert len(named.test_images("a.npz", 4)) == 4
    assert len(named.test_images("pictures", 4)) == 1


@pytest.mark.parametrize(
    "name", ["", "none", "none/", "embedded.png", "embedded@data", "medmnist", "mednist:x", "other:x@y"]
)
def test_nothing_of_that_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataError, match=r"no such data: give embedded, lesions, tissue, a folder .*decathlon:TASK"
    ):
        named.open_data(name)


@pytest.mark.parametrize(
    ("most", "levels"),
    [(1, [0]), (3, [0, 3, 6]), (5, [0, 2, 4, 6, 8]), (10, list(range(10))), (99, list(range(10)))],
)
def test_pictures_are_spread_evenly(tmp_path: Path, most: int, levels: list[int]) -> None:
    found = named.test_images(put_npz(tmp_path / "a.npz"), most)
    assert [int(picture.max()) for picture in found] == levels
    assert {(picture.dtype, picture.shape) for picture in found} == {(torch.uint8, (1, 6, 7))}


@pytest.mark.parametrize(
    ("shape", "expected"), [((1, 1), (1, 1, 1)), ((3, 4, 3), (3, 3, 4)), ((9, 1), (1, 9, 1))]
)
def test_odd_shapes(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    [picture] = named.test_images(put_npz(tmp_path / "a.npz", 1, shape), 5)
    assert picture.shape == expected


def test_embedded_pictures_are_the_whole_test_slab() -> None:
    found = named.test_images("embedded", 100)
    assert len(found) == 10
    assert {picture.shape for picture in found} == {(1, 233, 197)}
    assert torch.equal(named.test_images("embedded", 2)[1], found[5])


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        named.test_images(str(tmp_path / "bad"), 3)
    with pytest.raises(DataError, match=r"none\.npz: no such file"):
        named.test_images(str(tmp_path / "none.npz"), 3)
    np.savez(
        tmp_path / "no-test.npz",
        images=np.zeros((2, 4, 4), np.uint8),
        split=np.zeros(2, np.uint8),
    )
    with pytest.raises(DataError, match="has no pictures in its test split"):
        named.test_images(str(tmp_path / "no-test.npz"), 3)
