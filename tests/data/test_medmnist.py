"""MedMNIST by name: without the package, with a stand-in for it, and the real file."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from encdl.data.medmnist import NAMES, MedMNIST
from encdl.data.splits import SPLITS
from encdl.utils.errors import DataError, UsageError

REAL = Path(os.environ.get("ENCDL_DATA_DIR") or Path(__file__).parents[2].parent / "shared" / "data")
STAND_IN = """
INFO = {{
    "bloodmnist": {{
        "url_64": "{blood}", "MD5_64": "{md5}", "url": "{blood}", "MD5": "0" * 32,
        "label": {{"0": "basophil", "1": "eosinophil"}},
    }},
    "retinamnist": {{"url": "{blood}.gone", "MD5": "{md5}", "label": {{"0": "0", "1": "1"}}}},
}}
"""
"""What is used of the package: addresses, here on this disk, checksums, and names of the classes."""


def put(path: Path, labels: np.ndarray | None = None) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    labels = np.array([[0], [1], [1], [2]], np.uint8) if labels is None else labels
    np.savez(path, **{f"{split}_images": noise for split in SPLITS}, **{f"{split}_labels": labels for split in SPLITS})


@pytest.fixture
def _package(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    place = tmp_path_factory.mktemp("packages")
    blood = place / "blood.npz"
    arrays: dict[str, np.ndarray] = {f"{part}_images": np.full((2, 64, 64, 3), 9, np.uint8) for part in SPLITS}
    np.savez(blood, **arrays, **{f"{part}_labels": np.array([[0], [1]], np.uint8) for part in SPLITS})
    md5 = hashlib.md5(blood.read_bytes(), usedforsecurity=False).hexdigest()
    (place / "medmnist.py").write_text(STAND_IN.format(blood=blood.as_uri(), md5=md5))
    monkeypatch.syspath_prepend(place)
    real = sys.modules.pop("medmnist", None)
    yield
    sys.modules.pop("medmnist", None)
    if real is not None:
        sys.modules["medmnist"] = real


@pytest.fixture
def _no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encdl.data.medmnist.find_spec", lambda name: None)


@pytest.mark.usefixtures("_no_package")
def test_a_file_needs_no_package(tmp_path: Path) -> None:
    put(tmp_path / "retinamnist.npz")
    data = MedMNIST(name="retinamnist", data_dir=str(tmp_path))
    assert data.spec.classes == ("0", "1", "2")
    assert data.class_counts().tolist() == [1, 2, 1]
    named = MedMNIST(name="retinamnist", data_dir=str(tmp_path), class_names=["none", "mild", "severe"])
    assert named.spec.classes == ("none", "mild", "severe")


@pytest.mark.usefixtures("_package")
def test_the_package_fetches_and_names(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    data = MedMNIST(name="bloodmnist", data_dir=str(folder), size=64, batch_size=2)
    assert data.path == folder / "bloodmnist_64.npz"
    data.prepare_data()
    assert data.path.is_file()
    assert data.spec.classes == ("basophil", "eosinophil")
    assert next(iter(data.train_dataloader()))["image"].shape == (2, 3, 64, 64)


@pytest.mark.usefixtures("_package")
@pytest.mark.parametrize(
    ("name", "why"),
    [("retinamnist", "No such file or directory"), ("bloodmnist", "md5 hash check of downloaded file failed")],
)
def test_what_cannot_be_fetched_or_is_another_file(tmp_path: Path, name: str, why: str) -> None:
    said = rf"{name}\.npz: fetching file:.* failed \(.*{why}.*\): fetch it by hand into "
    with pytest.raises(DataError, match=said) as caught:
        MedMNIST(name=name, data_dir=str(tmp_path)).setup("fit")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("_no_package")
@pytest.mark.parametrize("size", [28, 128])
def test_without_file_and_package(tmp_path: Path, size: int) -> None:
    file = "pneumoniamnist.npz" if size == 28 else f"pneumoniamnist_{size}.npz"
    said = f"{file}: no such file: pip install medmnist .* fetch https://zenodo.org/records/10519652/files/{file}"
    for use in ("prepare_data", "setup"):
        with pytest.raises(DataError, match=said) as caught:
            getattr(MedMNIST(name="pneumoniamnist", data_dir=str(tmp_path), size=size), use)()  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("chestmnist", "MedMNIST has no set chestmnist with one label an image"),
        ("PneumoniaMNIST", "MedMNIST has no set PneumoniaMNIST: give"),
        ("", "MedMNIST has no set : give"),
    ],
)
def test_other_sets_are_refused(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        MedMNIST(name=name)


def test_several_labels_a_image(tmp_path: Path) -> None:
    put(tmp_path / "octmnist.npz", labels=np.zeros((4, 14), np.uint8))
    with pytest.raises(DataError, match="there must be one integer label from 0 for each of the 4"):
        _ = MedMNIST(name="octmnist", data_dir=str(tmp_path)).spec


def test_the_real_file() -> None:
    if not (REAL / "pneumoniamnist.npz").is_file():
        pytest.skip(f"pneumoniamnist.npz is not in {REAL}: set ENCDL_DATA_DIR to the folder that has it")
    data = MedMNIST(name="pneumoniamnist", data_dir=str(REAL), class_names=["normal", "pneumonia"])
    assert data.spec.classes == ("normal", "pneumonia")
    assert data.class_counts().tolist() == [1214, 3494]
    assert len(NAMES) == 11


def test_volumes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {f"{split}_images": random.integers(0, 256, (6, 28, 28, 28), np.uint8) for split in SPLITS}
    np.savez(
        tmp_path / "organmnist3d.npz", **arrays, **{f"{split}_labels": np.arange(6)[:, None] % 3 for split in SPLITS}
    )
    data = MedMNIST(name="organmnist3d", data_dir=str(tmp_path), crop=20, batch_size=2, class_names=list("abc"))
    assert (data.spec.shape, data.spec.classes) == ((28, 28, 28), ("a", "b", "c"))
    data.setup()
    assert next(iter(data.train_dataloader()))["image"].shape == (2, 1, 20, 20, 20)
    assert next(iter(data.test_dataloader()))["image"].shape == (6, 1, 28, 28, 28)
    with pytest.raises(UsageError, match="no volumes of size 128: give 28 or 64"):
        MedMNIST(name="organmnist3d", size=128)


@pytest.mark.parametrize(
    ("name", "size"), [("bloodmnist", 64), ("pneumoniamnist", 128), ("pathmnist", 224), ("nodulemnist3d", 64)]
)
def test_larger_sizes(tmp_path: Path, name: str, size: int) -> None:
    shape = (
        (size,) * 3 if name.endswith("3d") else (size, size, 3) if name in ("bloodmnist", "pathmnist") else (size, size)
    )
    arrays = {f"{split}_images": np.full((4, *shape), 7, np.uint8) for split in SPLITS}
    labels = {f"{split}_labels": np.arange(4)[:, None] % 2 for split in SPLITS}
    np.savez(tmp_path / f"{name}_{size}.npz", **arrays, **labels)
    data = MedMNIST(name=name, data_dir=str(tmp_path), size=size, crop=0, batch_size=2)  # type: ignore[arg-type]
    data.setup()
    assert data.spec.shape == shape[: len(data.spec.shape)] == next(iter(data.train_dataloader()))["image"].shape[2:]
    assert data.class_counts().tolist() == [2, 2]
