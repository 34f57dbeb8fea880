from __future__ import annotations

import dataclasses
import gzip
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pytest

from encdl.files import formats
from encdl.files.formats import nifti
from encdl.files.formats.base import content_of, document_of
from encdl.utils.errors import ImageFileError
from tests.files.formats.support import array_of, noise, refusal, restored, there_and_back

AFFINE = np.array([[-2, 0.1, 0, 7], [0, 1.5, 0, -3], [0.2, 0, 3, 1], [0, 0, 0, 1.0]])


def save(path: Path, array: np.ndarray, kind: type = nibabel.Nifti1Image, order: str = "<") -> Path:
    header = kind.header_class(endianness=order)
    header.set_data_dtype(array.dtype)
    image = kind(array, AFFINE, header)
    note = nibabel.nifti1.Nifti1Extension("comment", b"patient: Jane Doe")
    image.header.extensions.append(note)
    image.header["descrip"] = b"made by a test"
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64", "complex64"])
def test_header_extensions_and_voxels_come_back(
    tmp_path: Path, dtype: str, order: str, kind: type, suffix: str
) -> None:
    array = noise((5, 4, 3), dtype)
    path = save(tmp_path / f"a{suffix}", array, kind, order)
    document = formats.load(path)
    assert (document.layout, document.shape, document.format) == (
        "SHW",
        (3, 4, 5),
        "nifti" if suffix == ".nii" else "nifti-gz",
    )
    back = restored(path, document)
    assert inflated(back) == inflated(path.read_bytes())
    stored = np.asarray(nibabel.load(path).dataobj.get_unscaled())
    assert array_of(document).tobytes() == stored.T.astype(document.dtype).tobytes()
    known = suffix == ".nii.gz" and (order == "<" or dtype == "uint8")  # inflated on the way, and in C order
    assert document.content == (content_of(dataclasses.replace(document, content=b"")) if known else b"")


def inflated(data: bytes) -> bytes:
    return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


@pytest.mark.parametrize("shape", [(1,), (6,), (6, 5), (6, 5, 4), (6, 5, 4, 3), (6, 5, 1, 1, 3), (1, 1, 1, 1, 6, 5)])
def test_shapes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = save(tmp_path / "a.nii", noise(shape, "int16"))
    document = there_and_back(path)
    expected = shape[::-1] if shape[:4] != (1, 1, 1, 1) else (5, 6)
    assert document.shape == expected
    assert len(document.layout) == len(expected)


@pytest.mark.parametrize(("names", "channels"), [("RGB", 3), ("RGBA", 4)])
def test_colour(tmp_path: Path, names: str, channels: int) -> None:
    colour = noise((5, 4, 3, channels)).view([(name, "u1") for name in names])[..., 0]
    path = save(tmp_path / "a.nii", colour)
    document = there_and_back(path)
    assert (document.layout, document.shape) == ("SHWC", (3, 4, 5, channels))


def test_scaling_is_left_to_the_reader(tmp_path: Path) -> None:
    array = noise((5, 4, 3), "int16")
    image = nibabel.Nifti1Image(array, AFFINE)
    image.header.set_slope_inter(0.5, 100)
    nibabel.save(image, tmp_path / "a.nii")
    document = there_and_back(tmp_path / "a.nii")
    assert document.dtype == np.int16


def test_names_and_times_in_gzip_stay_and_its_wrapping_can_be_changed(tmp_path: Path) -> None:
    plain = save(tmp_path / "a.nii", noise((5, 4, 3))).read_bytes()
    path = tmp_path / "a.nii.gz"
    with path.open("wb") as raw, gzip.GzipFile("Jane_Doe.nii", "wb", 1, raw, mtime=12345) as stream:
        stream.write(plain)
    document = formats.load(path)
    back = restored(path, document)
    assert back[:8] == path.read_bytes()[:8]
    assert back[10:].startswith(b"Jane_Doe.nii\0")
    formats.write(tmp_path / "unzipped.nii", document)
    assert (tmp_path / "unzipped.nii").read_bytes() == plain
    formats.write(tmp_path / "zipped.nii.gz", formats.load(tmp_path / "a.nii"))
    assert gzip.decompress((tmp_path / "zipped.nii.gz").read_bytes()) == plain


def test_a_gzipped_file_is_inflated_three_times_for_its_encryption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice when it is opened, which checks it, gives the digest and tries its compression, and once for the cipher."""
    path = save(tmp_path / "a.nii.gz", noise((9, 8, 7), "int16"))
    opened: list[object] = []
    inflating = nifti._inflating
    monkeypatch.setattr(nifti, "_inflating", lambda source: opened.append(source) or inflating(source))
    document = formats.load(path)
    array = array_of(document)
    assert content_of(document) == content_of(document_of(array, document.layout))
    assert len(opened) == 4  # the header's first bytes, all, all, all


def test_several_gzip_members_are_one_file(tmp_path: Path) -> None:
    plain = save(tmp_path / "a.nii", noise((5, 4, 3))).read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(plain[:360]) + gzip.compress(plain[360:]))
    assert gzip.decompress(restored(path, formats.load(path))) == plain


def with_fields(path: Path, **fields: object) -> Path:
    header = nibabel.Nifti1Header(path.read_bytes()[:348])
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + path.read_bytes()[348:])
    return path


BAD = {
    "huge": ({"dim": [3, 30000, 30000, 30000, 1, 1, 1, 1]}, "more than 67,108,864 pixels"),
    "many": ({"dim": [4, 1000, 1000, 1000, 1000, 1, 1, 1]}, "more than 68,719,476,736 bytes"),
    "missing": ({"dim": [3, 500, 400, 300, 1, 1, 1, 1]}, "pixels are missing"),
    "none": ({"dim": [3, 5, 0, 3, 1, 1, 1, 1]}, "no pixels"),
    "negative": ({"dim": [3, 5, -4, 3, 1, 1, 1, 1]}, "no pixels"),
    "no axes": ({"dim": [0, 5, 4, 3, 1, 1, 1, 1]}, "no pixels|truncated"),
    "bits": ({"datatype": 1}, "type 1|damaged"),
    "wide": ({"datatype": 1536}, "type 1536"),
    "unknown": ({"datatype": 999}, "truncated|damaged"),
    "early": ({"vox_offset": 0}, "begin at byte 0"),
    "back": ({"vox_offset": -5}, "begin at byte -5"),
    "nowhere": ({"vox_offset": float("inf")}, "damaged"),
    "pair": ({"magic": b"ni1"}, r"half of a pair"),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", BAD)
def test_bad_headers(tmp_path: Path, name: str, zipped: bool) -> None:
    fields, message = BAD[name]
    path = with_fields(save(tmp_path / "a.nii", noise((5, 4, 3))), **fields)
    if zipped:
        path = tmp_path / "a.nii.gz"
        path.write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes()))
    with pytest.raises(ImageFileError, match=message):
        formats.load(path)
    assert refusal(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_cut_and_damaged_files(tmp_path: Path, suffix: str) -> None:
    data = save(tmp_path / f"whole{suffix}", noise((5, 4, 3), "int16")).read_bytes()
    path = tmp_path / f"a{suffix}"
    for length in range(1, len(data), 23):
        path.write_bytes(data[:length])
        assert refusal(path), length
    random = np.random.default_rng(1)
    for _ in range(100):
        damaged = bytearray(data)
        damaged[int(random.integers(min(400, len(data))))] = int(random.integers(256))
        path.write_bytes(damaged)
        refusal(path)


def test_a_bomb_is_not_inflated_into_memory(tmp_path: Path) -> None:
    header = with_fields(save(tmp_path / "a.nii", noise((2, 2, 2))), dim=[3, 8000, 4000, 1, 1, 1, 1, 1])
    path = tmp_path / "b.nii.gz"
    with gzip.open(path, "wb", 1) as stream:
        stream.write(header.read_bytes()[:400])
        for _ in range(32):
            stream.write(bytes(2**20))
    tracemalloc.start()
    document = formats.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert document.shape == (1, 4000, 8000)
    assert peak < 12 * 2**20


def test_a_bomb_behind_the_voxels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encdl.files.formats.raw_pixels._MAX_SKELETON", 2**22)
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(save(tmp_path / "a.nii", noise((2, 2, 2))).read_bytes() + bytes(2**24), 1))
    assert "bytes beside its pixels" in refusal(path)
