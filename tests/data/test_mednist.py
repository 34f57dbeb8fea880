"""MedNIST: fetched from a file that stands in for MONAI's server, unpacked whole or not at all."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import numpy as np
import pytest
from monai.apps import MedNISTDataset

from encdl.data.mednist import MedNIST
from encdl.files import images
from encdl.utils.errors import DataError

KINDS = ("AbdomenCT", "BreastMRI", "CXR", "ChestCT", "Hand", "HeadCT")


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny archive of MedNIST's form, at the address that MONAI would take it from."""
    for name in KINDS:
        folder = tmp_path / "server" / "MedNIST" / name
        folder.mkdir(parents=True)
        for number in range(3):
            images.write(folder / f"{number:06}.png", np.full((64, 64), 40 * number, np.uint8))
    path = tmp_path / "server" / "MedNIST.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        file.add(tmp_path / "server" / "MedNIST", "MedNIST")
    monkeypatch.setattr(MedNISTDataset, "resource", path.as_uri())
    monkeypatch.setattr(MedNISTDataset, "md5", hashlib.md5(path.read_bytes()).hexdigest())
    return path


@pytest.mark.usefixtures("archive")
def test_fetching(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "not" / "there"
    with pytest.raises(DataError, match=r"MedNIST: no such folder: set data\.init_args\.download to true") as caught:
        MedNIST(data_dir=str(place)).setup("fit")
    assert "\n" not in str(caught.value)
    data = MedNIST(data_dir=str(place), download=True)
    data.prepare_data()
    assert sorted(each.name for each in place.iterdir()) == ["MedNIST", "MedNIST.tar.gz"]
    assert data.spec.classes == KINDS
    data.setup("test")
    batch = next(iter(data.test_dataloader()))
    assert batch["image"].shape == (6, 1, 64, 64)
    assert batch["label"].tolist() == [0, 1, 2, 3, 4, 5]
    assert MedNIST(data_dir=str(place)).class_counts().tolist() == [1] * 6
    assert capsys.readouterr().out == ""


def test_an_archive_that_is_damaged_or_gone(archive: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    archive.write_bytes(archive.read_bytes()[:-9])
    for said in ("hash check", "No such file"):
        with pytest.raises(DataError, match=f"MedNIST: fetching file:.* failed .*{said}.*fetch it by hand") as caught:
            MedNIST(data_dir=str(place), download=True).setup("fit")
        assert "\n" not in str(caught.value)
        assert list(place.iterdir()) == []
        archive.unlink(missing_ok=True)


def test_an_archive_of_something_else(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(archive, "w:gz") as file:
        file.add(Path(__file__), "other/readme")
    monkeypatch.setattr(MedNISTDataset, "md5", hashlib.md5(archive.read_bytes()).hexdigest())
    with pytest.raises(DataError, match=r"No such file .*MedNIST.*or remove .*MedNIST\.tar\.gz if it is damaged"):
        MedNIST(data_dir=str(tmp_path / "place"), download=True).prepare_data()
    assert not (tmp_path / "place" / "MedNIST").exists()
