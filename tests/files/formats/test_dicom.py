from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    BasicTextSRStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
    generate_uid,
)

import encdl
from encdl.files import formats
from encdl.utils import worker_process
from encdl.utils.errors import ImageFileError
from tests.files.formats.support import array_of, noise, refusal, there_and_back

PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


def scan(array: np.ndarray, syntax: str = ExplicitVRLittleEndian, **elements: Any) -> FileDataset:
    """A data set around (frames, rows, columns, samples)."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = syntax, CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["a"])
    encoding = {"is_implicit_VR": syntax == ImplicitVRLittleEndian, "is_little_endian": syntax != ExplicitVRBigEndian}
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"II*\0" + b"\7" * 124, **encoding)
    dataset.PatientName, dataset.SOPClassUID = "Doe^Jane", CTImageStorage
    block = dataset.private_block(0x0011, "A maker", create=True)
    block.add_new(1, "LO", "private")
    item = pydicom.Dataset()
    item.CodeValue = "1234"
    dataset.AnatomicRegionSequence = [item]
    frames, dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = array.shape
    if frames != 1:
        dataset.NumberOfFrames = frames
    dataset.PhotometricInterpretation = "RGB" if array.shape[3] == 3 else "MONOCHROME2"
    dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * array.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(array.dtype.kind == "i")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    if array.dtype.kind == "f":
        keyword = "FloatPixelData" if array.itemsize == 4 else "DoubleFloatPixelData"
        setattr(dataset, keyword, array.astype(array.dtype.newbyteorder(order)).tobytes())
    else:
        data = array.astype(array.dtype.newbyteorder(order)).tobytes()
        dataset.PixelData = data + b"\0" * (len(data) % 2)
        dataset["PixelData"].VR = "OB" if array.itemsize == 1 else "OW"
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


def save(path: Path, dataset: FileDataset) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.sampled_from((1, 3))),
    st.sampled_from(("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")),
    st.sampled_from(PLAIN),
)
def test_every_uncompressed_file_comes_back(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...], dtype: str, syntax: str
) -> None:
    array = noise(shape, dtype)
    path = save(tmp_path_factory.mktemp("any") / "a.dcm", scan(array, syntax))
    document = there_and_back(path)
    assert array_of(document).tobytes() == array.tobytes()
    assert document.layout == "S" * (shape[0] != 1) + "HW" + "C" * (shape[3] != 1)


def test_colour_planes_one_after_the_other(tmp_path: Path) -> None:
    array = noise((2, 5, 4, 3))
    planes = np.ascontiguousarray(np.moveaxis(array, -1, 1)).tobytes()
    path = save(tmp_path / "a.dcm", scan(array, PlanarConfiguration=1, PixelData=planes))
    np.testing.assert_array_equal(array_of(there_and_back(path)), array)


def test_stored_values_are_not_changed(tmp_path: Path) -> None:
    """No rescaling, no window, no colour conversion, and overlays above the stored bits stay."""
    array = noise((1, 5, 4, 1), "uint16")
    elements = {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 400}
    path = save(tmp_path / "a.dcm", scan(array, BitsStored=12, HighBit=11, **elements))
    np.testing.assert_array_equal(array_of(there_and_back(path)), array[0, ..., 0])
    colour = noise((1, 5, 4, 3))
    path = save(tmp_path / "b.dcm", scan(colour, PhotometricInterpretation="YBR_FULL"))
    np.testing.assert_array_equal(array_of(there_and_back(path)), colour[0])


def test_single_bits_and_halved_colours_are_unpacked(tmp_path: Path) -> None:
    bits = noise((3, 5, 5, 1), "bool").astype(np.uint8)
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    elements = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "PixelData": packed}
    path = save(tmp_path / "a.dcm", scan(bits, **elements))
    np.testing.assert_array_equal(array_of(there_and_back(path, whole=True)), bits[..., 0])
    halved = noise((1, 4, 6, 2)).tobytes()
    elements = {"PhotometricInterpretation": "YBR_FULL_422", "PixelData": halved}
    path = save(tmp_path / "b.dcm", scan(noise((1, 4, 6, 3)), **elements))
    assert there_and_back(path, whole=True).shape == (4, 6, 3)


def test_bytes_in_big_endian_words_are_put_in_order(tmp_path: Path) -> None:
    array = noise((1, 4, 6, 1))
    dataset = scan(array, ExplicitVRBigEndian, PixelData=array.reshape(-1, 2)[:, ::-1].tobytes())
    dataset["PixelData"].VR = "OW"
    document = there_and_back(save(tmp_path / "a.dcm", dataset), whole=True)
    np.testing.assert_array_equal(array_of(document), array[0, ..., 0])


def test_deflated_data_sets(tmp_path: Path) -> None:
    array = noise((2, 5, 4, 1), "int16")
    path = save(tmp_path / "a.dcm", scan(array, DeflatedExplicitVRLittleEndian))
    np.testing.assert_array_equal(array_of(there_and_back(path, whole=True)), array[..., 0])


def test_compressed_frames(tmp_path: Path) -> None:
    array = noise((3, 5, 4, 1), "uint16")
    dataset = scan(array)
    dataset.compress(RLELossless, generate_instance_uid=False)
    path = save(tmp_path / "a.dcm", dataset)
    document = there_and_back(path, whole=True)
    np.testing.assert_array_equal(array_of(document), array[..., 0])
    assert [frame.shape for frame in document.slices()] == [(5, 4)] * 3


@pytest.mark.parametrize(
    "name", ["MR_small_RLE.dcm", "SC_rgb_jpeg.dcm", "JPEG2000.dcm", "MR_small_jpeg_ls_lossless.dcm", "JPEG-lossy.dcm"]
)
def test_compressed_samples_with_and_without_their_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes((Path(pydicom.__file__).parent / "data" / "test_files" / name).read_bytes())
    syntax = pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID
    decoder = pydicom.pixels.get_decoder(syntax)
    if name == "JPEG-lossy.dcm":
        assert "which no decoder installed here could read" in refusal(path)  # 12 bits
    else:
        there_and_back(path, whole=True)
    monkeypatch.setattr(decoder, "_unavailable", {"some": ("a-package>=3.0.10",)})
    monkeypatch.setattr(decoder, "_available", {})
    problem = refusal(path)
    assert f"its pixels are in {syntax.name}, and decoding them needs a package that is not installed" in problem
    assert "pip install 'encdl[dicom]' (some - requires a-package>=3.0.10)" in problem


HARMFUL = {
    "aborts": ("SC_rgb_dcmtk_+eb+cr.dcm", {1817: 0, 2490: 128}, "SIGABRT"),
    "spins": ("GDCMJ2K_TextGBR.dcm", {2383: 0, 2384: 64}, "did not end within 2 s"),
}
"""Samples of pydicom, bytes to change in them, and what becomes of the decoder."""


def harmful(name: str) -> bytes:
    sample, changes, _ = HARMFUL[name]
    data = bytearray((Path(pydicom.__file__).parent / "data" / "test_files" / sample).read_bytes())
    for place, value in changes.items():
        data[place] = value
    return bytes(data)


def test_frames_that_crash_or_hang_a_decoder_do_not_end_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "SECONDS", 2.0)
    (tmp_path / "in").mkdir()
    for name in HARMFUL:
        (tmp_path / "in" / f"{name}.dcm").write_bytes(harmful(name))
    for name in ("a.npy", "z.npy"):
        np.save(tmp_path / "in" / name, noise((5, 4)))
    found = encdl.convert_folder(encdl.encryption(encdl.Key.generate()), tmp_path / "in", tmp_path / "out")
    for name, (_, _, told) in HARMFUL.items():
        problem = found.pop(tmp_path / "in" / f"{name}.dcm")
        assert isinstance(problem, ImageFileError)
        assert told in str(problem)
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["a.npy.encdl", "z.npy.encdl"]
    assert len(found) == 2


def test_a_transfer_syntax_without_decoder_or_unknown(tmp_path: Path) -> None:
    for syntax, message in (
        ("1.2.840.10008.1.2.4.100", "MPEG2 .* no decoder"),
        ("1.2.840.113619.5.2", "private transfer syntax"),
        ("1.2.3.4", "unknown or private transfer syntax 1.2.3.4"),
    ):
        dataset = scan(noise((1, 5, 4, 1)))
        path = save(tmp_path / "a.dcm", dataset)
        data = path.read_bytes()
        old = ExplicitVRLittleEndian.encode() + b"\0"
        place = data.index(b"UI" + len(old).to_bytes(2, "little") + old)
        new = syntax.encode() + b"\0" * (len(syntax) % 2)
        changed = data[:place] + b"UI" + len(new).to_bytes(2, "little") + new + data[place + 4 + len(old) :]
        length = int.from_bytes(changed[140:144], "little") + len(new) - len(old)
        path.write_bytes(changed[:140] + length.to_bytes(4, "little") + changed[144:])
        with pytest.raises(ImageFileError, match=message):
            formats.load(path)


def test_without_a_preamble_or_meta(tmp_path: Path) -> None:
    array = noise((1, 5, 4, 1), "uint16")
    data = save(tmp_path / "a.dcm", scan(array)).read_bytes()
    meta = 132 + 12 + int.from_bytes(data[140:144], "little")
    for name, content in {"a.dcm": data[132:], "b": data[132:], "c.dcm": data[meta:], "d": data[meta:]}.items():
        path = tmp_path / name
        path.write_bytes(content)
        np.testing.assert_array_equal(array_of(there_and_back(path)), array[0, ..., 0])


def test_a_preamble_that_is_a_tiff_header(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", scan(noise((1, 5, 4, 1))))
    assert formats.load(path).format == "dicom"


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no pixels": ({"PixelData": None}, "holds no pixels|pixels are missing"),
    "too few": ({"PixelData": b"\0\0"}, "pixels are missing"),
    "huge": ({"Rows": 65535, "Columns": 65535}, "more than 67,108,864 pixels"),
    "frames": ({"NumberOfFrames": 10**9}, "pixels are missing"),
    "all": ({"NumberOfFrames": 2**31 - 1, "Rows": 8000, "Columns": 8000}, "more than 68,719,476,736 bytes"),
    "none": ({"Rows": 0}, "no pixels"),
    "negative": ({"NumberOfFrames": -4}, "no pixels"),
    "bits": ({"BitsAllocated": 12}, "has 12 bits allocated"),
    "no rows": ({"Rows": None}, "lacks the element Rows"),
    "no depth": ({"BitsAllocated": None}, "lacks the element BitsAllocated"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_elements(tmp_path: Path, name: str) -> None:
    elements, message = BAD[name]
    path = save(tmp_path / "a.dcm", scan(noise((1, 5, 4, 1)), **elements))
    with pytest.raises(ImageFileError, match=message):
        formats.load(path)
    assert refusal(path)


@pytest.mark.parametrize("kind", [CTImageStorage, BasicTextSRStorage])
def test_a_report_has_no_pixels(tmp_path: Path, kind: Any) -> None:
    dataset = scan(noise((1, 5, 4, 1)), SOPClassUID=kind)
    del dataset.PixelData
    told = "holds no pixels" if kind == BasicTextSRStorage else "ends before its pixels"
    assert f"{told} ({kind.name})" in refusal(save(tmp_path / "a.dcm", dataset))


@pytest.mark.parametrize("syntax", [*PLAIN, JPEGBaseline8Bit])
def test_a_truncated_dicom_file_is_said_to_be_one(tmp_path: Path, syntax: str) -> None:
    dataset = scan(noise((1, 50, 40, 1)), syntax)
    if syntax == JPEGBaseline8Bit:
        dataset.PixelData, dataset["PixelData"].is_undefined_length = encapsulate([bytes(2000)]), True
    data = save(tmp_path / "whole.dcm", dataset).read_bytes()
    path = tmp_path / "a.dcm"
    for length in range(132, len(data) - 1990):
        path.write_bytes(data[:length])
        assert "truncated" in refusal(path) or "transfer syntax" in refusal(path), length


def test_bits_of_frames_that_do_not_begin_with_a_byte(tmp_path: Path) -> None:
    bits = noise((3, 17, 13, 1), "bool").astype(np.uint8)
    dataset = scan(bits, BitsAllocated=1, BitsStored=1, HighBit=0)
    dataset.PixelData = np.packbits(bits, bitorder="little").tobytes()
    document = there_and_back(save(tmp_path / "a.dcm", dataset), whole=True)
    np.testing.assert_array_equal(array_of(document), bits[..., 0])


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = scan(noise((1, 5, 4, 1)), JPEGBaseline8Bit)
    frame = b"\xff\xd8\xff\xc0\x00\x0b\x08\xff\xff\xff\xff\x01\x01\x11\x00" + bytes(99)
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    assert "a frame of 65535x65535 pixels" in refusal(save(tmp_path / "a.dcm", dataset))
    monkeypatch.setattr("encdl.files.formats.dicom._DEFLATED_LIMIT", 2**22)
    data = save(tmp_path / "b.dcm", scan(noise((1, 5, 4, 1)), DeflatedExplicitVRLittleEndian)).read_bytes()
    meta = 132 + 12 + int.from_bytes(data[140:144], "little")
    (tmp_path / "b.dcm").write_bytes(data[:meta] + zlib.compress(bytes(2**23))[2:-4])
    assert "inflates to more than" in refusal(tmp_path / "b.dcm")


@pytest.mark.parametrize("syntax", [*PLAIN, DeflatedExplicitVRLittleEndian, RLELossless])
def test_cut_and_damaged_files(tmp_path: Path, syntax: str) -> None:
    dataset = scan(noise((2, 5, 4, 1), "int16"), ExplicitVRLittleEndian if syntax == RLELossless else syntax)
    if syntax == RLELossless:
        dataset.compress(RLELossless, generate_instance_uid=False)
    data = save(tmp_path / "whole.dcm", dataset).read_bytes()
    path = tmp_path / "a.dcm"
    for length in range(1, len(data) - 16, 37):
        path.write_bytes(data[:length])
        assert refusal(path), length
    random = np.random.default_rng(1)
    for _ in range(100):
        damaged = bytearray(data)
        damaged[int(random.integers(128, len(data)))] = int(random.integers(256))
        path.write_bytes(damaged)
        refusal(path)
