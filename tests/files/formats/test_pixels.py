"""Pixels of every kind of TIFF, DICOM and NIfTI are what was written, and what the format's reference reader says."""

from __future__ import annotations

import io
import itertools
import os
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

import encdl
from encdl.files import formats, images
from encdl.utils import worker_process
from encdl.utils.errors import ImageFileError
from tests.files.formats.support import array_of, noise, refusal, there_and_back
from tests.files.formats.test_dicom import save, scan
from tests.files.formats.test_names import pillow

COMPRESSIONS = [None, "zlib", "lzw", "packbits", "zstd", "lzma", "png", "jpeg2000"]


def can_be_written(case: tuple[Any, ...]) -> bool:
    compression, photometric, dtype, planar, predictor, _, _, order = case
    image = compression in ("png", "jpeg2000")
    return not (
        (photometric == "palette" and (dtype != "uint8" or predictor))
        or (image and (dtype not in ("uint8", "uint16") or order == ">"))
        or (planar and photometric not in ("rgb", "rgba"))
        or (predictor and (image or compression in (None, "packbits")))
    )


TIFFS = [
    case
    for case in itertools.product(
        COMPRESSIONS, ("minisblack", "miniswhite", "rgb", "rgba", "palette"), ("uint8", "uint16", "int16", "float32"),
        (None, 2), (False, True), (1, 6), (None, (16, 16)), "<>",
    )
    if can_be_written(case)
]  # fmt: skip


def check_tiff(path: Path, case: tuple[Any, ...]) -> None:
    """compression, photometric, type, planar configuration, predictor, orientation, tile, byte order."""
    compression, photometric, dtype, planar, predictor, orientation, tile, order = case
    colour = {"rgb": 3, "rgba": 4}.get(photometric, 0)
    array = noise((20, 30, colour) if colour else (20, 30), dtype)
    if dtype == "float32":
        array = np.random.default_rng(0).random(array.shape, np.float32)
    palette = noise((3, 256), "uint16", 3)
    tifffile.imwrite(
        path, np.moveaxis(array, -1, 0) if planar and colour else array, photometric="rgb" if colour else photometric,
        planarconfig="separate" if planar else None, compression=compression, predictor=predictor or None,
        tile=tile, byteorder=order, colormap=palette if photometric == "palette" else None, metadata=None,
        extrasamples=["unassalpha"] if colour == 4 else None, extratags=[(274, 3, 1, orientation, True)],
    )  # fmt: skip
    expected = array
    if photometric == "palette":
        expected = np.moveaxis(palette[:, array] >> 8, 0, -1).astype(np.uint8)
    elif photometric == "miniswhite" and dtype != "float32":
        expected = np.invert(array)
    document = formats.load(path)
    np.testing.assert_array_equal(array_of(document), expected, err_msg=str(case))
    there_and_back(path, whole=formats.is_whole(document))
    if dtype != "float32":
        np.testing.assert_array_equal(images.read(path), expected, err_msg=str(case))


def test_some_kinds_of_tiff(tmp_path: Path) -> None:
    for index in np.random.default_rng(5).permutation(len(TIFFS))[:60]:
        check_tiff(tmp_path / "a.tif", TIFFS[index])


@pytest.mark.slow
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_all_kinds_of_tiff(tmp_path: Path, compression: str | None) -> None:
    for case in TIFFS:
        if case[0] == compression:
            check_tiff(tmp_path / "a.tif", case)


@pytest.mark.parametrize(("bits", "compression"), [(1, None), (1, "lzw"), (4, None), (12, None)])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_packed_bits(tmp_path: Path, bits: int, compression: str | None, photometric: str) -> None:
    array, path = noise((16, 24), "uint16") % 2**bits, tmp_path / "a.tif"
    array = array.astype(np.uint16 if bits > 8 else np.uint8) if bits > 1 else array.astype(bool)
    tifffile.imwrite(path, array, photometric=photometric, bitspersample=bits, compression=compression, metadata=None)
    white = photometric == "miniswhite"
    expected = np.where(array ^ white, 255, 0) if bits == 1 else np.abs((2**bits - 1) * white - array.astype(int))
    np.testing.assert_array_equal(array_of(there_and_back(path, whole=True)), expected)


def test_pages_that_are_compressed_differently(tmp_path: Path) -> None:
    pages, path = noise((3, 20, 30)), tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for page, compression in zip(pages, (None, "lzw", "zlib"), strict=True):
            file.write(page, compression=compression, photometric="minisblack")
    np.testing.assert_array_equal(array_of(there_and_back(path, whole=True)), pages)


def test_complex_values_that_are_compressed(tmp_path: Path) -> None:
    array = noise((20, 30), "uint8").astype(np.complex64)
    tifffile.imwrite(tmp_path / "a.tif", array, compression="lzw")
    np.testing.assert_array_equal(array_of(there_and_back(tmp_path / "a.tif", whole=True)), array)


def test_one_page_of_imagej_may_be_many(tmp_path: Path) -> None:
    path, array = tmp_path / "a.tif", noise((6, 10, 12))
    description = "ImageJ=1.11a\nimages=6\nslices=6\n"
    tifffile.imwrite(path, array[0], description=description, metadata=None, photometric="minisblack")
    data = path.read_bytes()
    assert data.endswith(array[0].tobytes())
    path.write_bytes(data + array[1:].tobytes())
    np.testing.assert_array_equal(array_of(there_and_back(path)), array)
    with pytest.raises(ImageFileError, match="holds 6 pages"):
        images.read(path)


@pytest.mark.parametrize(
    ("codec", "kind"), [("jpegls", "JPEG-LS of 16"), ("ljpeg", "lossless JPEG of 12"), ("jpeg8", "JPEG of 12")]
)
def test_jpegs_that_are_not_read_are_refused_by_name(tmp_path: Path, codec: str, kind: str) -> None:
    encode, deep = getattr(imagecodecs, f"{codec}_encode"), codec == "jpegls"
    array = noise((20, 30), "uint16")
    (tmp_path / "a.jpg").write_bytes(encode(array) if deep else encode(array >> 4, bitspersample=12))
    assert f"is a {kind} bits" in refusal(tmp_path / "a.jpg")


@pytest.mark.parametrize("compression", ["group3", "group4", "jpeg", "tiff_lzw", "tiff_adobe_deflate"])
def test_other_programs_tiffs_are_kept_whole(tmp_path: Path, compression: str) -> None:
    from PIL import Image

    path = tmp_path / "a.tif"
    image = Image.fromarray(noise((16, 24, 3)))
    image = image.convert("YCbCr") if compression == "jpeg" else image.convert("1" if "group" in compression else "P")
    image.save(path, compression=compression)
    document = there_and_back(path, whole=True)
    shown = np.asarray(Image.open(path).convert("L" if "group" in compression else "RGB"))
    assert np.abs(array_of(document).astype(int) - shown).max() <= (4 if compression == "jpeg" else 0)


@pytest.mark.parametrize("said", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("side", [1, 16, 64, 128])
def test_a_meta_group_may_be_wrong_about_vrs(tmp_path: Path, said: Any, side: int) -> None:
    array = noise((1, side, side, 1), "int16")
    dataset = scan(array)
    body, data = pydicom.filebase.DicomBytesIO(), io.BytesIO()
    body.is_little_endian, body.is_implicit_VR = True, said != ImplicitVRLittleEndian
    dataset["PixelData"].VR = "OW"
    pydicom.filewriter.write_dataset(body, pydicom.dataset.Dataset(dict(dataset.items())))
    dataset.file_meta.TransferSyntaxUID = said
    pydicom.filewriter.write_file_meta_info(data, dataset.file_meta)
    path = tmp_path / "a.dcm"
    path.write_bytes(bytes(128) + b"DICM" + data.getvalue() + body.getvalue())
    np.testing.assert_array_equal(array_of(there_and_back(path)), array[0, ..., 0])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "complex64", "uint64"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_as_nibabel_reads_it(tmp_path: Path, dtype: str, kind: Any, name: str) -> None:
    for shape in [(5,), (5, 4), (5, 4, 3), (5, 4, 1), (1, 4, 3), (5, 4, 3, 2), (5, 4, 3, 1, 2)]:
        nibabel.save(kind(np.ones(shape, dtype), np.eye(4), dtype=dtype), tmp_path / name)
        expected = np.asarray(nibabel.load(tmp_path / name).dataobj).T
        found = array_of(there_and_back(tmp_path / name))
        np.testing.assert_array_equal(found.reshape(expected.shape), expected)


def growing(kind: str, path: Path, count: int) -> Path:
    """A file of so many pages, frames or slices; or a folder of so many files."""
    if kind.startswith("tiff"):
        pages = noise((count, 16, 16))
        compression = None if kind == "tiff" else kind.removeprefix("tiff ")
        tifffile.imwrite(path, pages, compression=compression, photometric="minisblack", metadata=None)
    elif kind.startswith("nifti"):
        path = path.with_suffix(".nii.gz" if kind.endswith("gz") else ".nii")
        nibabel.save(nibabel.Nifti1Image(noise((16, 16, count)), np.eye(4)), path)
    elif kind == "npy":
        np.save(path.with_suffix(".npy"), noise((count, 16, 16)))
        path = path.with_suffix(".npy")
    elif kind == "folder":
        path.mkdir()
        for number in range(count // 4):
            np.save(path / f"{number}.npy", noise((9, 9)))
    else:
        packed = kind != "dicom"
        dataset = scan(noise((count, 16, 16, 1)), JPEGBaseline8Bit if packed else ExplicitVRLittleEndian)
        if packed:
            dataset.PixelData = encapsulate([pillow("JPEG", noise((16, 16)))] * count, has_bot="table" in kind)
            dataset["PixelData"].is_undefined_length = True
        save(path, dataset)
    return path


def seconds(path: Path) -> float:
    """Processor time, that of decoding processes included."""
    worker_process._end_all()
    before = sum(os.times()[:4])
    if path.is_dir():
        key, weights = encdl.Key(bytes(32)), Path(__file__).parents[2] / "golden" / "containers" / "tiny.pt"
        encdl.convert_folder(encdl.encryption(key, weights=str(weights)), path, Path(f"{path}-out"))
    else:
        for _ in formats.load(path).slices():
            pass
    worker_process._end_all()
    return sum(os.times()[:4]) - before


GROWING = [
    "tiff",
    "tiff lzw",
    "tiff zlib",
    "dicom",
    "dicom jpeg",
    "dicom jpeg table",
    "nifti",
    "nifti-gz",
    "npy",
    "folder",
]


@pytest.mark.parametrize("kind", ["tiff lzw", "dicom jpeg"])
def test_cost_is_linear_in_pages_and_frames(tmp_path: Path, kind: str) -> None:
    few, many = (seconds(growing(kind, tmp_path / f"{count}.x", count)) for count in (200, 800))
    assert many < 4 * 2 * few


@pytest.mark.slow
@pytest.mark.parametrize("kind", GROWING)
def test_cost_of_growth(tmp_path: Path, kind: str) -> None:
    """Four times as much takes some four times as long, not sixteen times; what it costs to begin counts in neither."""
    seconds(growing(kind, tmp_path / "warm.x", 4))
    took = [seconds(growing(kind, tmp_path / f"{count}.x", count)) for count in (625, 2500, 10_000)]
    print(f"{kind}: {', '.join(f'{each:.2f} s' for each in took)} for 625, 2,500 and 10,000")
    assert took[2] - took[1] < 8 * max(took[1] - took[0], 0.05)
