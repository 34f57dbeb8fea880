from __future__ import annotations

import dataclasses
import gzip
import io
import logging
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from encdl.files import formats
from encdl.files.formats import non_pixel_data
from encdl.utils.errors import ImageFileError, OutputExistsError, UsageError
from tests.files.formats.support import array_of, noise, refusal


def document(shape: tuple[int, ...], layout: str, dtype: str = "uint16", kind: str = "npy") -> formats.Document:
    """One that comes from no file."""
    array = noise(shape, dtype)
    size = sum(letter in "HWC" for letter in layout)
    images = array.reshape(-1, *shape[len(shape) - size :])
    return formats.Document(shape, array.dtype, layout, kind, b"", lambda: iter(images))


def test_names_and_endings() -> None:
    assert all(formats.ending_of(formats.suffix_of(name))[1] == name for name in formats.FORMATS)
    for name, kind in {
        "a.DCM": "dicom", "b.nii.gz": "nifti-gz", "c.NII": "nifti", "d.tif": "tiff", "e.gz": None, "f": None,
    }.items():  # fmt: skip
        assert formats.ending_of(name)[1] == kind


@pytest.mark.parametrize("suffix", [".npy", ".tiff"])
@pytest.mark.parametrize(
    ("shape", "layout"), [((4, 5), "HW"), ((4, 5, 3), "HWC"), ((2, 4, 5), "SHW"), ((2, 3, 4, 5, 3), "TSHWC")]
)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_new_files(tmp_path: Path, shape: tuple[int, ...], layout: str, dtype: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    formats.write(path, document(shape, layout, dtype))
    again = array_of(formats.load(path))
    assert again.tobytes() == noise(shape, dtype).tobytes()
    if suffix == ".npy":
        assert again.shape == shape


def test_files_become_others_by_their_pixels_alone(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(noise((5, 4, 3), "int16"), np.eye(4)), tmp_path / "a.nii")
    loaded = formats.load(tmp_path / "a.nii")
    formats.write(tmp_path / "a.npy", loaded)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array_of(loaded), strict=True)
    formats.write(tmp_path / "a.tif", loaded)
    np.testing.assert_array_equal(array_of(formats.load(tmp_path / "a.tif")), array_of(loaded))
    with pytest.raises(ImageFileError, match="PNG holds one image"):
        formats.write(tmp_path / "a.png", loaded)
    with pytest.raises(ImageFileError, match="only the original file can be restored as DICOM"):
        formats.write(tmp_path / "a.dcm", loaded)
    with pytest.raises(ImageFileError, match=r"TIFF readers do not take complex"):
        formats.write(tmp_path / "b.tif", document((4, 5), "HW", "complex64"))
    with pytest.raises(ImageFileError, match="do not fill"):
        formats.write(tmp_path / "b.npy", formats.Document((9, 4, 5), np.dtype("u2"), "SHW", "npy", b"", loaded.slices))
    Image.fromarray(noise((4, 5, 3))).save(tmp_path / "b.jpg")
    formats.write(tmp_path / "c.png", formats.load(tmp_path / "b.jpg"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii", "a.npy", "a.tif", "b.jpg", "c.png"]


def test_what_is_written_under_an_unknown_name_is_the_original(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", noise((4, 5)))
    formats.write(tmp_path / "IM0001", formats.load(tmp_path / "a.npy"))
    assert (tmp_path / "IM0001").read_bytes() == (tmp_path / "a.npy").read_bytes()


def test_files_are_restored_in_memory(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", noise((3, 4, 5)))
    nibabel.save(nibabel.Nifti1Image(noise((3, 4, 5)), np.eye(4)), tmp_path / "b.nii")
    (tmp_path / "c.nii.gz").write_bytes(gzip.compress((tmp_path / "b.nii").read_bytes()))
    Image.fromarray(noise((6, 7), "uint8")).save(tmp_path / "d.png")
    for name, original in {"a.npy": "a.npy", "b.nii": "b.nii", "c.nii.gz": "b.nii", "d.png": "d.png"}.items():
        stream = io.BytesIO()
        formats.restore(formats.load(tmp_path / name), stream)
        assert stream.getvalue() == (tmp_path / original).read_bytes()
    with pytest.raises(ImageFileError, match="holds its pixels alone"):
        formats.restore(document((4, 5), "HW"), io.BytesIO())
    with pytest.raises(ImageFileError, match="does not fit its pixels"):
        formats.restore(dataclasses.replace(document((4, 5), "HW"), rest=b"nonsense"), io.BytesIO())


def test_existing_files_are_kept_unless_forced(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", noise((4, 5)))
    loaded = formats.load(tmp_path / "a.npy")
    (tmp_path / "b.npy").write_bytes(b"precious")
    for one in (loaded, document((4, 5), "HW")):
        with pytest.raises(OutputExistsError):
            formats.write(tmp_path / "b.npy", one)
    assert (tmp_path / "b.npy").read_bytes() == b"precious"
    formats.write(tmp_path / "b.npy", loaded, force=True)
    assert (tmp_path / "b.npy").read_bytes() == (tmp_path / "a.npy").read_bytes()
    with pytest.raises(UsageError):
        formats.write(tmp_path, loaded)


def test_an_error_half_way_leaves_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", noise((6, 40, 50)))
    loaded = formats.load(tmp_path / "a.npy")

    def broken() -> object:
        yield next(iter(loaded.slices()))
        raise RuntimeError("decryption failed")

    half = formats.Document(loaded.shape, loaded.dtype, loaded.layout, "npy", loaded.rest, broken)
    with pytest.raises(RuntimeError, match="decryption failed"):
        formats.write(tmp_path / "b.npy", half)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_the_content_tells_the_kind(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", noise((4, 5)))
    (tmp_path / "a.dcm").write_bytes((tmp_path / "a.npy").read_bytes())
    assert formats.load(tmp_path / "a.dcm").format == "npy"


BAD = {
    "empty.dcm": (b"", "is empty"),
    "text.dcm": (b"hello", "does not start like its ending"),
    "text.nii.gz": (b"hello", "does not start like its ending"),
    "other.nii.gz": (b"\x1f\x8b" + bytes(99), "gzipped file, but not of NIfTI"),
    "text": (b"hello" * 99, "not an image of a known kind"),
    "zeros": (bytes(999), "not an image of a known kind"),
    "scan.encdl": (b"\x89ENCDL\r\n1234", "encrypted by EncDL already"),
    "a.npz": (b"PK\x03\x04" + bytes(99), "several arrays"),
    "a.mha": (b"ObjectType = Image", "files of its kind are not read"),
    "a.img": (bytes(99), "half of a pair of .hdr and .img"),
    "a.zip": (b"PK\x03\x04" + bytes(99), "not an image of a known kind"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_no_images(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageFileError, match=message):
        formats.load(tmp_path / name)
    assert refusal(tmp_path / name)


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.dcm")
    (tmp_path / "link.npy").symlink_to("/dev/zero")
    (tmp_path / "dangling.npy").symlink_to(tmp_path / "nowhere")
    for path, message in {
        tmp_path: "is a folder",
        tmp_path / "pipe.dcm": "no regular file",
        tmp_path / "link.npy": "no regular file",
        tmp_path / "dangling.npy": "no such file",
        tmp_path / "a\0b.npy": "cannot be read|no such file",
        Path("/dev/zero"): "no regular file",
    }.items():
        with pytest.raises(ImageFileError, match=message):
            formats.load(path)
    np.save(tmp_path / "a.npy", noise((4, 5)))
    (tmp_path / "good.npy").symlink_to(tmp_path / "a.npy")
    assert formats.load(tmp_path / "good.npy").shape == (4, 5)


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", noise((6, 4, 5)))
    loaded = formats.load(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", noise((7, 4, 5)))
    with pytest.raises(ImageFileError, match="was changed while it was read"):
        list(loaded.slices())


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(sorted(formats.FORMATS)), st.booleans())
def test_any_rest_is_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, kind: str, packed: bool
) -> None:
    path = tmp_path_factory.mktemp("any") / "IM0001"
    one = document((4, 5), "HW", kind=kind)
    damaged = (b"\x01" if packed else b"") + (data or b"x")
    with pytest.raises(ImageFileError, match="does not fit its pixels"):
        formats.write(path, formats.Document(one.shape, one.dtype, one.layout, kind, damaged, one.slices))
    assert not path.exists()


@pytest.mark.parametrize(
    "recipe",
    [
        {"kind": "spans"},
        {"kind": "spans", "places": [], "shape": [], "dtype": "|u1", "planar": False},
        {"kind": "spans", "places": [[0, -5]], "shape": [4, 5], "dtype": "<u2", "planar": False},
        {"kind": "spans", "places": [[0, 10**12]], "shape": [4, 5], "dtype": "<u2", "planar": False},
        {"kind": "spans", "places": [[0, 40]], "shape": [4, 5], "dtype": "O", "planar": False},
        {"kind": "fortran", "places": [[0, 40]], "shape": [10**6, 10**6], "dtype": "<u2", "planar": False},
        {"kind": "png"},
        {"kind": "other"},
    ],
)
def test_recipes_that_make_no_sense(tmp_path: Path, recipe: dict[str, object]) -> None:
    one = document((4, 5), "HW")
    packed = non_pixel_data.pack("a", recipe, b"12345")
    changed = formats.Document(one.shape, one.dtype, one.layout, "npy", packed, one.slices)
    with pytest.raises(ImageFileError, match="does not fit its pixels"):
        formats.write(tmp_path / "a.npy", changed)
    assert not (tmp_path / "a.npy").exists()


def test_a_rest_that_inflates_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = non_pixel_data.pack("a", {"kind": "whole"}, bytes(10**6))
    assert len(packed) < 10**4
    monkeypatch.setattr(non_pixel_data, "_MAX_UNPACKED", 10**5)
    with pytest.raises(ValueError, match="does not end"):
        non_pixel_data.unpack(packed)


def test_a_rest_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(non_pixel_data, "MAX_REST_BYTES", 10**4)
    np.save(tmp_path / "a.npy", noise((4, 5)))
    with (tmp_path / "a.npy").open("ab") as stream:
        stream.write(noise((10**5,)).tobytes())
    with pytest.raises(ImageFileError, match="beside its pixels: take the largest of them out"):
        formats.load(tmp_path / "a.npy")
    Image.fromarray(noise((300, 300, 3))).save(tmp_path / "a.jpg")
    with pytest.raises(ImageFileError, match="save it uncompressed"):
        formats.load(tmp_path / "a.jpg")


def test_threads_leave_warnings_and_loggers_as_they_were(tmp_path: Path) -> None:
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    paths = [folder / name for name in ("MR_small_padded.dcm", "SC_rgb_jpeg.dcm", "SC_rgb_rle_2frame.dcm")] * 8
    filters, level = list(warnings.filters), logging.getLogger("pydicom").level
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda path: refusal(path) == "", paths))
    assert warnings.filters == filters
    assert logging.getLogger("pydicom").level == level


def test_importing_the_formats_loads_no_large_library() -> None:
    code = (
        "import sys, encdl.files.formats; "
        "print(sorted({'torch', 'pydicom', 'nibabel', 'tifffile', 'PIL', 'cv2', 'monai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
