"""DICOM and NIfTI over everything that their headers can say of pixels, against pydicom and nibabel."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel
import numpy as np
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate

from encdl.data.volumes import read_volume
from encdl.files import formats
from encdl.utils.errors import DataError
from encdl.utils.worker_process import CrashedError, RaisedError, array_from
from tests.files.formats.support import array_of, noise, refusal, there_and_back
from tests.files.formats.test_dicom import PLAIN, save, scan

LOSSLESS = {
    uid.JPEGLosslessSV1: lambda frame: imagecodecs.ljpeg_encode(frame, bitspersample=8 * frame.itemsize),
    uid.HTJ2KLossless: lambda frame: imagecodecs.htj2k_encode(frame, reversible=True),
    uid.JPEG2000Lossless: lambda frame: imagecodecs.jpeg2k_encode(frame, level=0, codecformat="j2k", mct=False),
    uid.JPEGLSLossless: imagecodecs.jpegls_encode,
    uid.JPEGBaseline8Bit: imagecodecs.jpeg8_encode,
    uid.RLELossless: None,
}
"""Transfer syntaxes of compressed frames and what writes them: pydicom, if there is nothing."""
SIGNED = (uid.HTJ2KLossless, uid.JPEG2000Lossless)
"""Those whose code streams know of signs; others hold two's complement."""
SYNTAXES = [*PLAIN, uid.DeflatedExplicitVRLittleEndian, *LOSSLESS]
SAMPLES = {"MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1, "RGB": 3, "YBR_FULL": 3, "YBR_FULL_422": 3}
BITS = [(1, 1, 0), (8, 8, 7), (8, 6, 5), (16, 16, 15), (16, 12, 11), (16, 12, 15), (32, 32, 31), (32, 20, 19)]


def possible(case: tuple[Any, ...]) -> bool:
    syntax, photometric, (allocated, stored, _), signed, planar, frames, table = case
    colour, packed = SAMPLES[photometric] == 3, syntax in LOSSLESS
    return not (
        (planar and (not colour or packed or "422" in photometric))
        or (allocated == 1 and (packed or signed or photometric != "MONOCHROME2"))
        or ("422" in photometric and (packed or allocated != 8))
        or (colour and (allocated == 32 or signed))
        or (photometric == "PALETTE COLOR" and signed)
        or (packed and (allocated == 32 or (signed and syntax == uid.JPEGBaseline8Bit)))
        or (syntax == uid.JPEGBaseline8Bit and stored != 8)
        or (syntax == uid.JPEGLosslessSV1 and colour)
        or (syntax == uid.RLELossless and photometric == "YBR_FULL" and allocated > 8)
        or (table and (not packed or frames == 1))
    )


DICOMS = [
    case for case in itertools.product(SYNTAXES, SAMPLES, BITS, (0, 1), (0, 1), (1, 3), (False, True)) if possible(case)
]


def dicom(path: Path, case: tuple[Any, ...]) -> np.ndarray | None:
    """Write a file; gives its stored values, None if they are not kept exactly."""
    syntax, photometric, (allocated, stored, high), signed, planar, frames, table = case
    samples, size = SAMPLES[photometric], max(allocated, 8)
    array = noise((frames, 6, 8, samples), f"uint{size}") & np.array(2**stored - 1, f"uint{size}")
    if signed:  # two's complement within the stored bits
        array = (array << (size - stored)).view(f"int{size}") >> (size - stored)
    elements: dict[str, Any] = {
        "PhotometricInterpretation": photometric, "PlanarConfiguration": planar, "BitsAllocated": allocated,
        "BitsStored": stored, "HighBit": high, "PixelRepresentation": signed,
    }  # fmt: skip
    if photometric == "PALETTE COLOR":
        for colour in ("Red", "Green", "Blue"):
            elements |= {f"{colour}PaletteColorLookupTableDescriptor": [256, 0, 16]}
            elements |= {f"{colour}PaletteColorLookupTableData": noise((512,)).tobytes()}
    big = syntax == uid.ExplicitVRBigEndian
    pixels = array.astype(array.dtype.newbyteorder(">" if big else "<"))
    known = True
    if allocated == 1:
        elements["PixelData"] = np.packbits(array.ravel(), bitorder="little").tobytes()
    elif planar:
        elements["PixelData"] = np.moveaxis(pixels, -1, 1).tobytes()
    elif "422" in photometric:
        elements["PixelData"], known = noise((frames, 6, 8, 2)).tobytes(), False
    elif LOSSLESS.get(syntax):
        coded = array if syntax in SIGNED else array.view(f"uint{size}") & np.array(2**stored - 1, f"uint{size}")
        encoded = [LOSSLESS[syntax](np.ascontiguousarray(frame.squeeze())) for frame in coded]
        elements["PixelData"], known = encapsulate(encoded, has_bot=table), syntax != uid.JPEGBaseline8Bit
    plain = syntax == uid.RLELossless
    dataset = scan(pixels, uid.ExplicitVRLittleEndian if plain else syntax, **elements)
    if plain:
        dataset.compress(syntax, generate_instance_uid=False)
    elif syntax in LOSSLESS:
        dataset["PixelData"].is_undefined_length = True
    save(path, dataset)
    return array if known else None


def check_dicom(path: Path, case: tuple[Any, ...]) -> bool:
    """Whether it is read: as pydicom reads it, and byte for byte; what pydicom refuses is refused."""
    array = dicom(path, case)
    try:  # decoders may abort
        expected = array_from("tests.files.formats.test_samples:raw_pixels", {"path": path}, 20.0, 10**6)
    except (RaisedError, CrashedError):
        expected = None
    if expected is None:
        assert refusal(path), str(case)
        return False
    document = formats.load(path)
    found = array_of(there_and_back(path, whole=formats.is_whole(document)))
    np.testing.assert_array_equal(found, expected, err_msg=str(case))
    if array is not None:
        bits = np.array(2 ** case[2][1] - 1, f"uint{8 * array.itemsize}")  # above them signs may go on, or not
        written = array.view(bits.dtype) & bits
        np.testing.assert_array_equal(found.view(bits.dtype).reshape(array.shape) & bits, written, err_msg=str(case))
    return True


@pytest.mark.filterwarnings("ignore")  # pydicom's, about headers
def test_some_kinds_of_dicom(tmp_path: Path) -> None:
    picked = np.random.default_rng(3).permutation(len(DICOMS))[:60]
    assert sum(check_dicom(tmp_path / "a.dcm", DICOMS[index]) for index in picked) > 50


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_all_kinds_of_dicom(tmp_path: Path, syntax: str) -> None:
    cases = [case for case in DICOMS if case[0] == syntax]
    read = sum(check_dicom(tmp_path / "a.dcm", case) for case in cases)
    assert read == len(cases) or (syntax == uid.JPEGLosslessSV1 and read > len(cases) / 2)


TYPES = [
    f"{kind}{size}"
    for kind, sizes in {"u": (1, 2, 4, 8), "i": (1, 2, 4, 8), "f": (4, 8), "c": (8, 16)}.items()
    for size in sizes
]
DIMS = [
    (5,),
    (5, 4),
    (5, 4, 3),
    (5, 4, 1),
    (1, 4, 3),
    (1, 1, 1),
    (5, 4, 3, 2),
    (5, 4, 1, 2),
    (5, 4, 3, 1, 2),
    (3, 2, 2, 2, 1, 2, 2),
]
SCALES = [(None, None), (0.5, -100), (0, 7), (float("nan"), 0)]
NIFTIS = list(
    itertools.product(
        [*TYPES, "RGB", "RGBA"], DIMS, SCALES, (nibabel.Nifti1Image, nibabel.Nifti2Image), "<>", (".nii", ".nii.gz")
    )
)


def check_nifti(folder: Path, case: tuple[Any, ...]) -> None:
    """Stored values and bytes come back, and training sees what nibabel makes of them."""
    code, dims, (slope, intercept), kind, order, ending = case
    if code.startswith("RGB"):
        array = noise((*dims, len(code))).view([(name, "u1") for name in code])[..., 0]
    else:
        array = (noise(dims, f"u{min(np.dtype(code).itemsize, 4)}") % 100).astype(code)
    header = kind.header_class(endianness=order)
    header.set_data_dtype(array.dtype)
    image, path = kind(array, np.diag([-2, 1.5, 3, 1]), header), folder / f"a{ending}"
    nibabel.save(image, path)
    if slope is not None and ending == ".nii":  # whatever other programs write there
        data = bytearray(path.read_bytes())
        place, letter = (112, "f4") if kind is nibabel.Nifti1Image else (176, "f8")
        scale = np.array([slope, intercept], order + letter).tobytes()
        data[place : place + len(scale)] = scale
        path.write_bytes(data)
    stored = np.asarray(nibabel.load(path).dataobj.get_unscaled())
    if code.startswith("RGB"):
        stored = np.stack([stored[name] for name in code], -1)
    spatial = stored.transpose(*reversed(range(len(dims))), *range(len(dims), stored.ndim))
    document = formats.load(path)
    found = array_of(there_and_back(path, whole=formats.is_whole(document)))
    np.testing.assert_array_equal(found.reshape(spatial.shape), spatial, err_msg=str(case))
    if len(dims) not in (3, 4) or code[0] in "Rc":
        with pytest.raises(DataError):
            read_volume(path)
        return
    if slope and np.isfinite(slope) and ending == ".nii":
        stored = stored * np.float64(slope) + intercept
    expected = stored[::-1] if stored.ndim == 4 else stored[::-1, ..., None]  # x runs left
    np.testing.assert_allclose(np.moveaxis(read_volume(path).voxels, 0, -1), expected, 1e-6, err_msg=str(case))


def test_some_kinds_of_nifti(tmp_path: Path) -> None:
    for index in np.random.default_rng(4).permutation(len(NIFTIS))[:120]:
        check_nifti(tmp_path, NIFTIS[index])


@pytest.mark.slow
@pytest.mark.parametrize("dims", DIMS)
def test_all_kinds_of_nifti(tmp_path: Path, dims: tuple[int, ...]) -> None:
    for case in NIFTIS:
        if case[1] == dims:
            check_nifti(tmp_path, case)
