"""Every sample that pydicom's and nibabel's wheels ship: what they can decode comes back, byte for byte."""

from __future__ import annotations

import gzip
import re
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from encdl.files import formats
from encdl.utils.errors import ImageFileError

DICOM = Path(pydicom.__file__).parent / "data"
NIBABEL = Path(nibabel.__file__).parent
NO_PIXELS = "holds no pixels|ends before its pixels|lacks the element Rows|ends within its header"
UNREADABLE = {
    "JPEG-lossy.dcm": r"JPEG Extended .* install another one \(pylibjpeg .* pylibjpeg-libjpeg",
    "JPGExtended.dcm": r"JPEG Extended .* install another one \(pylibjpeg .* pylibjpeg-libjpeg",
    "JPEG2000-embedded-sequence-delimiter.dcm": "a frame of 1024x3722445056 pixels",
    "MR_truncated.dcm": "pixels are missing",
    "badVR.dcm": "truncated or damaged",
    "no_meta.dcm": "does not start like its ending",
}
"""Samples with pixels that are refused, each with a reason; pydicom reads none of them with the decoders at hand."""


def samples(*folders: Path) -> list[Path]:
    ignored = {".py", ".pyc", ".json", ".txt", ".md", ".icc", ".dump"}
    found = [path for folder in folders for path in folder.rglob("*") if path.suffix not in ignored]
    return sorted(path for path in found if path.is_file())


def dicoms() -> list[Path]:
    nested = [path for path in samples(NIBABEL) if path.suffix == ".dcm"]
    return [
        path for path in (*samples(DICOM), *nested) if path.suffix == ".dcm" or path.read_bytes()[128:132] == b"DICM"
    ]


def raw_pixels(path: Path) -> np.ndarray:
    """By pydicom, in one go."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        return pydicom.pixels.pixel_array(dataset, raw=True)


def array_of(document: formats.Document) -> np.ndarray:
    slices = list(document.slices())
    assert all(array.shape == document.slice_shape and array.dtype == document.dtype for array in slices)
    return np.stack(slices).reshape(document.shape)


def test_dicom_samples(tmp_path: Path) -> None:
    restored, whole, refused = 0, 0, []
    for path in dicoms():
        problem = ""
        try:
            document = formats.load(path)
        except ImageFileError as error:
            problem = str(error)
        if problem:
            refused.append(path.name)
            assert re.search(UNREADABLE.get(path.name, NO_PIXELS), problem), problem
            with pytest.raises((AttributeError, RuntimeError, ValueError)):
                raw_pixels(path)
            continue
        np.testing.assert_array_equal(array_of(document), raw_pixels(path), str(path))
        formats.write(tmp_path / "back.dcm", document, force=True)
        assert (tmp_path / "back.dcm").read_bytes() == path.read_bytes(), path
        restored += 1
        whole += formats.is_whole(document)
    assert restored >= 100
    assert 20 <= whole <= restored - 50
    assert set(UNREADABLE) <= set(refused)


def test_elements_and_frames_of_a_restored_dicom(tmp_path: Path) -> None:
    path = DICOM / "test_files" / "examples_overlay.dcm"
    formats.write(tmp_path / "back.dcm", formats.load(path))
    before, after = pydicom.dcmread(path), pydicom.dcmread(tmp_path / "back.dcm")
    assert after == before
    assert after.file_meta == before.file_meta
    assert after.preamble == before.preamble
    np.testing.assert_array_equal(after.overlay_array(0x6000), before.overlay_array(0x6000))


def test_nifti_samples(tmp_path: Path) -> None:
    restored = 0
    for path in samples(NIBABEL):
        if not path.name.endswith((".nii", ".nii.gz")):
            continue
        document = formats.load(path)
        image = nibabel.load(path)
        stored = np.asarray(image.dataobj.get_unscaled()).T
        np.testing.assert_array_equal(array_of(document).reshape(stored.shape), stored)
        back = tmp_path / f"back{formats.suffix_of(document.format)}"
        formats.write(back, document, force=True)
        assert inflated(back) == inflated(path), path
        again = nibabel.load(back)
        assert again.header == image.header
        if hasattr(image, "affine"):  # CIFTI has none
            np.testing.assert_array_equal(again.affine, image.affine)
        restored += 1
    assert restored >= 8


def inflated(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.name.endswith(".gz") else data
