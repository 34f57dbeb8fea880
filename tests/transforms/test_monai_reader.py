from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
import torch
from monai.data import (
    CacheDataset,
    DataLoader,
    Dataset,
    MetaTensor,
    NibabelReader,
    NumpyReader,
    PILReader,
    PydicomReader,
)
from monai.transforms import Compose, EnsureChannelFirstd, LoadImage, LoadImaged, Orientationd, Spacingd
from pydicom.data import get_testdata_file

import encdl
from encdl.files import images
from encdl.utils.errors import ContainerError, UsageError, WrongKeyError
from tests.transforms.conftest import KEY
from tests.transforms.test_encryption import AFFINE, equal

Sealed = Callable[..., Path]


@pytest.fixture
def sealed(small: str) -> Sealed:
    """Encrypts a file; gives the path of the `.encdl` file."""

    def make(path: Path, **settings: Any) -> Path:
        return encdl.encrypt_file(path, KEY, Path(f"{path}.encdl"), weights=small, **settings)

    return make


def loaded(path: Path | list[Path], reader: Any) -> MetaTensor:
    names = [str(each) for each in path] if isinstance(path, list) else str(path)
    return LoadImage(reader=reader, image_only=True)(names)


def alike(encrypted: MetaTensor, plain: MetaTensor) -> None:
    """Equal but for the name of the file."""
    assert equal(encrypted.as_tensor(), plain.as_tensor())
    ours, theirs = ({**image.meta, "filename_or_obj": ""} for image in (encrypted, plain))
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert equal(ours[name], theirs[name]), name


def nifti(path: Path, dtype: str = "int16", kind: Any = nibabel.Nifti1Image, shape: Any = (6, 7, 5)) -> Path:
    voxels = np.random.default_rng(0).integers(0, 99, shape).astype(dtype)
    image = kind(voxels, AFFINE)
    image.header["descrip"] = b"a scan"
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("wrap", ["none", "aes"])
def test_nifti(name: str, kind: Any, wrap: str, tmp_path: Path, sealed: Sealed, small: str) -> None:
    path = nifti(tmp_path / name, kind=kind)
    reader = encdl.EncdlReader(KEY, weights=small)
    alike(loaded(sealed(path, wrap=wrap), reader), loaded(path, NibabelReader()))


def test_nifti_with_a_slope_and_four_axes(tmp_path: Path, sealed: Sealed, small: str) -> None:
    path = nifti(tmp_path / "v.nii", shape=(4, 5, 3, 2))
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([0.5, -3], "<f4").tobytes()  # scl_slope and scl_inter
    path.write_bytes(raw)
    for plain in (NibabelReader(), NibabelReader(channel_dim=3), NibabelReader(as_closest_canonical=True)):
        reader = encdl.EncdlReader(KEY, weights=small, nifti=plain)
        alike(loaded(sealed(path, force=True), reader), loaded(path, plain))


@pytest.mark.filterwarnings("ignore:PydicomReader. ImageOrientationPatient")  # one of the files has none
@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm"])
def test_dicom(name: str, tmp_path: Path, sealed: Sealed, small: str) -> None:
    path = tmp_path / name
    path.write_bytes(Path(get_testdata_file(name)).read_bytes())
    reader = encdl.EncdlReader(KEY, weights=small)
    alike(loaded(sealed(path), reader), loaded(path, PydicomReader()))


def series(folder: Path) -> list[Path]:
    """Three slices, 2 mm apart, whose names are not in their order."""
    folder.mkdir()
    paths = []
    for number, name in enumerate(("c", "a", "b")):
        slice_ = pydicom.dcmread(get_testdata_file("MR_small.dcm"))
        slice_.InstanceNumber = number + 1
        slice_.ImagePositionPatient = [0, 0, 2.0 * number]
        slice_.PixelData = (slice_.pixel_array + number).astype(np.int16).tobytes()
        slice_.save_as(folder / f"{name}.dcm")
        paths.append(folder / f"{name}.dcm")
    return paths


def test_a_folder_of_slices(tmp_path: Path, sealed: Sealed, small: str) -> None:
    (tmp_path / "sealed").mkdir()
    for path in series(tmp_path / "plain"):
        sealed(path).rename(tmp_path / "sealed" / f"{path.name}.encdl")
    reader = encdl.EncdlReader(KEY, weights=small)
    volume = loaded(tmp_path / "sealed", reader)
    assert volume.shape == (64, 64, 3)
    alike(volume, loaded(tmp_path / "plain", PydicomReader()))
    turned = pydicom.dcmread(tmp_path / "plain" / "a.dcm")
    turned.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    turned.save_as(tmp_path / "turned.dcm")
    sealed(tmp_path / "turned.dcm").rename(tmp_path / "sealed" / "turned.encdl")
    with pytest.raises(UsageError, match="sealed: holds 2 scans: name one of ") as told:
        reader.get_data(reader.read(tmp_path / "sealed"))
    first, *_, second, _, _ = str(told.value).partition("name one of ")[2].split()
    assert second == str(tmp_path / "sealed" / "turned.encdl")
    assert "-1 (3 slices), " in str(told.value)
    alike(loaded(Path(first), reader), volume)  # chosen by its name
    with pytest.raises(UsageError, match=r"series-0: no such scan: .*sealed holds .*-1 \(3 slices\)"):
        reader.get_data(reader.read(tmp_path / "sealed" / "series-0"))
    one = tmp_path / "one"
    one.mkdir()
    os.link(tmp_path / "sealed" / "a.dcm.encdl", one / "a.encdl")
    assert loaded(one, reader).shape == (64, 64)


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 3), (9, 7, 4)])
def test_images(shape: tuple[int, ...], tmp_path: Path, sealed: Sealed, small: str) -> None:
    path = tmp_path / "p.png"
    images.write(path, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    reader = encdl.EncdlReader(KEY, weights=small)
    alike(loaded(sealed(path), reader), loaded(path, PILReader()))


def test_arrays(tmp_path: Path, sealed: Sealed, small: str) -> None:
    np.save(tmp_path / "a.npy", np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    reader = encdl.EncdlReader(KEY, weights=small)
    alike(loaded(sealed(tmp_path / "a.npy"), reader), loaded(tmp_path / "a.npy", NumpyReader()))
    (tmp_path / "b.encdl").write_bytes(encdl.encrypt(np.ones((3, 4)), KEY, weights=small))
    assert loaded(tmp_path / "b.encdl", reader).shape == (3, 4)


@pytest.mark.parametrize(("shape", "expected"), [((9, 7), (7, 9)), ((9, 7, 3), (7, 9, 3)), ((4, 9, 7), (7, 9, 4))])
def test_tiff_has_x_first(
    shape: tuple[int, ...], expected: tuple[int, ...], tmp_path: Path, sealed: Sealed, small: str
) -> None:
    array = np.random.default_rng(0).integers(0, 2**16, shape, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "t.tiff", array, photometric="rgb" if shape[-1] == 3 else "minisblack")
    image = loaded(sealed(tmp_path / "t.tiff"), encdl.EncdlReader(KEY, weights=small))
    assert tuple(image.shape) == expected
    first, last = array[(0,) * (len(shape) - (shape[-1] == 3))], image.as_tensor()[(0,) * 2]
    assert np.array_equal(np.ravel(first)[:1], np.ravel(np.asarray(last))[:1])
    channel = image.meta["original_channel_dim"]
    assert (channel == -1) == (shape[-1] == 3)


def test_what_encrypt_made(tmp_path: Path, small: str) -> None:
    image = MetaTensor(torch.rand(1, 4, 5), affine=torch.from_numpy(AFFINE), meta={"note": "mine"})
    (tmp_path / "x.encdl").write_bytes(encdl.Encrypt(KEY, weights=small)(image))
    reader = encdl.EncdlReader(KEY, weights=small)
    found = loaded(tmp_path / "x.encdl", reader)
    assert equal(found.as_tensor(), image.as_tensor())
    assert found.meta["note"] == "mine"
    torch.testing.assert_close(found.affine, image.affine, rtol=0, atol=0)
    (tmp_path / "y.encdl").write_bytes(encdl.Encrypt(KEY, weights=small)(np.ones((3, 4), np.float32)))
    assert loaded(tmp_path / "y.encdl", reader).shape == (3, 4)


def test_files_are_stacked(tmp_path: Path, sealed: Sealed, small: str) -> None:
    paths = [nifti(tmp_path / f"{name}.nii") for name in "ab"]
    both = [sealed(path) for path in paths]
    reader = encdl.EncdlReader(KEY, weights=small)
    alike(loaded(both, reader), loaded(paths, NibabelReader()))
    np.save(tmp_path / "c.npy", np.ones((6, 7, 5)))
    with pytest.raises(UsageError, match="files of nifti and npy do not go into one image"):
        loaded([both[0], sealed(tmp_path / "c.npy")], reader)


# ---- in pipelines


@pytest.mark.parametrize("context", [None, "fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_ciphertext_stands_in_any_pipeline(
    context: str | None, tmp_path: Path, sealed: Sealed, small: str, key: Path
) -> None:
    """The same transforms on files and on encrypted files give the same training batches."""
    plain = [{"image": str(nifti(tmp_path / f"{name}.nii.gz"))} for name in "abcd"]
    encrypted = [{"image": str(sealed(Path(item["image"])))} for item in plain]

    def batches(files: list[dict[str, str]], dataset: Any, reader: Any) -> torch.Tensor:
        steps = Compose(
            [
                LoadImaged("image", reader=reader),
                EnsureChannelFirstd("image"),
                Orientationd("image", axcodes="RAS", labels=None),
                Spacingd("image", pixdim=(2, 2, 2)),
            ]
        )
        data = CacheDataset(files, steps, progress=False) if dataset is CacheDataset else Dataset(files, steps)
        workers = {"num_workers": 1, "multiprocessing_context": context} if context else {}
        loader = DataLoader(data, batch_size=2, **workers)
        return torch.cat([batch["image"].as_tensor() for batch in loader])

    expected = batches(plain, Dataset, NibabelReader())
    reader = encdl.EncdlReader(key, weights=small)
    for dataset in (Dataset, CacheDataset):
        assert equal(batches(encrypted, dataset, reader), expected)


def test_a_wrong_key_is_told_in_one_line(tmp_path: Path, sealed: Sealed, small: str) -> None:
    path = sealed(nifti(tmp_path / "v.nii"))
    reader = encdl.EncdlReader(encdl.Key(bytes(32)), weights=small)
    for load in (LoadImage(reader=reader), LoadImaged("image", reader=reader)):
        with pytest.raises(WrongKeyError, match=r"v\.nii\.encdl: was encrypted with key") as caught:
            load({"image": str(path)} if isinstance(load, LoadImaged) else str(path))
        assert len(str(caught.value)) < 200
        assert "\n" not in str(caught.value)


def test_grants_and_damage(tmp_path: Path, sealed: Sealed, small: str) -> None:
    path = sealed(nifti(tmp_path / "v.nii"), study="S")
    assert encdl.EncdlReader(KEY.grant_study("S"), weights=small).read(path)
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    reader = encdl.EncdlReader(KEY, weights=small)
    with pytest.raises(ContainerError, match="changed after it was written"):
        loaded(path, reader)
    with pytest.raises(ContainerError, match="no such file"):
        reader.get_data(reader.read(tmp_path / "none.encdl"))
    (tmp_path / "arrays").mkdir()
    (tmp_path / "arrays" / "a.encdl").write_bytes(encdl.encrypt(np.ones((3, 4)), KEY, weights=small))
    for folder in ("arrays", "none"):
        (tmp_path / folder).mkdir(exist_ok=True)
        with pytest.raises(UsageError, match="is a folder, and not of encrypted DICOM"):
            reader.get_data(reader.read(tmp_path / folder))
    with pytest.raises(UsageError, match="takes no mmap"):
        reader.read(path, mmap=True)


def test_a_damaged_dicom_file_that_is_kept_whole(tmp_path: Path, sealed: Sealed, small: str) -> None:
    """Its pixels are not needed to restore it, and are verified all the same."""
    (tmp_path / "c.dcm").write_bytes(Path(get_testdata_file("JPEG2000.dcm")).read_bytes())
    path = sealed(tmp_path / "c.dcm")
    data = bytearray(path.read_bytes())
    data[-200] ^= 1
    path.write_bytes(data)
    with pytest.raises(ContainerError, match="changed after it was written"):
        loaded(path, encdl.EncdlReader(KEY, weights=small))


def test_names_and_pickles(key: Path, small: str) -> None:
    reader = encdl.EncdlReader(key, weights=small)
    assert reader.verify_suffix("a.encdl")
    assert reader.verify_suffix(["a.encdl", "b.ENCDL".lower()])
    assert not reader.verify_suffix("a.nii")
    assert KEY._secret not in pickle.dumps(reader)
    with pytest.raises(TypeError, match="is not pickled"):
        pickle.dumps(encdl.EncdlReader(KEY))
