from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from monai.data.image_reader import PydicomReader
from monai.data.meta_tensor import MetaTensor
from monai.transforms.spatial.array import Orientation, Spacing

from encdl.files import formats
from encdl.files.formats.base import Document
from encdl.files.levels import DEFAULT, Levels, Stored
from encdl.files.scans import Geometry, Scan, Volume, load_scan, load_volume, slices_of, sort_into_scans
from encdl.files.scans.geometry import resized, sampled
from encdl.files.scans.volume import without_high_bits
from encdl.utils.errors import ImageFileError, UsageError
from tests.files.formats.test_samples import dicoms
from tests.files.scans.phantom import SAGITTAL, SHAPE, SPACING, hounsfield, write_series


@contextlib.contextmanager
def plain(path: Path) -> Iterator[Document]:
    yield formats.load(path)


def scans_of(folder: Path) -> list[Scan]:
    paths = sorted(folder.iterdir())
    return sort_into_scans([each for path in paths for each in slices_of(path, formats.load(path))])


def volume_of(folder: Path) -> Volume:
    [scan] = scans_of(folder)
    return load_scan(scan, plain)


def test_a_series_is_one_volume_on_the_grid_that_monai_gives_it(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "ct")
    volume = volume_of(tmp_path / "ct")
    assert volume.files == tuple(paths)
    assert (volume.problems, volume.known, volume.spacing) == ((), True, pytest.approx(SPACING))
    assert volume.array.dtype == np.int16
    assert volume.stored[0] == Stored(-32768, 32767, 2.0, -20.0, modality="CT")
    np.testing.assert_array_equal(volume.stored[0].real(volume.array), hounsfield())
    reader = PydicomReader()
    array, meta = reader.get_data(reader.read(str(tmp_path / "ct")))
    np.testing.assert_allclose(volume.affine[:, [2, 1, 0, 3]], meta["affine"], atol=1e-6)
    np.testing.assert_array_equal(volume.stored[0].real(volume.array).T, array)


@pytest.mark.parametrize(
    ("defect", "told"),
    [
        ({"tilt": 0.5}, "shifted by 11.3 degrees (gantry tilt)"),
        ({"missing": [30]}, "1 slice missing between ct-076.dcm and ct-150.dcm: left empty in the mask"),
        ({"RescaleSlope": lambda n: 2 if n else 3}, "2 pairs of rescale slope and intercept"),
        ({"PhotometricInterpretation": lambda n: f"MONOCHROME{1 + n % 2}"}, "MONOCHROME1 and MONOCHROME2 are mixed"),
        ({"ImagePositionPatient": lambda n: [0.0, 0.0, 2.5 * max(n, 1)]}, "several slices at one position: ct-037.dcm"),
        ({"ImagePositionPatient": lambda n: [0.0, 0.0, 2.5 * n + n % 2]}, "steps of 1.50 to 3.50 mm between slices"),
        ({"ImagePositionPatient": lambda n: [3.0 * (n == 5), 0.0, 2.5 * n]}, "lie up to 3.00 mm off an even line"),
        ({"ImagePositionPatient": None}, "no position or orientation: ordered by instance number, 2.5 mm apart"),
        ({"PixelSpacing": None}, "no pixel spacing"),
    ],
)
def test_defects_are_told_in_a_line_each(tmp_path: Path, defect: dict[str, Any], told: str) -> None:
    write_series(tmp_path / "ct", **defect)
    volume = volume_of(tmp_path / "ct")
    assert len(volume.problems) == 1
    assert told in volume.problems[0]
    assert "\n" not in volume.problems[0]
    duplicate = "several" in told
    assert volume.array.shape == (SHAPE[0] - duplicate, *SHAPE[1:])
    if "missing" in defect:
        assert volume.files[30] is None
        assert not volume.array[30].any()
        np.testing.assert_allclose(volume.affine @ [40, 0, 0, 1], [10, 20, 30 + 40 * 2.5, 1])
    if "tilt" in defect:
        np.testing.assert_allclose(volume.affine @ [40, 0, 0, 1], [10, 20 - 40 * 0.5, 30 + 40 * 2.5, 1])
        assert volume.voxel_mm3 == pytest.approx(np.prod(SPACING))


@pytest.mark.parametrize("other", [{"axes": SAGITTAL}, {"shape": (8, 30, 30)}, {"PixelSpacing": [3.0, 3.0]}])
def test_a_series_of_two_kinds_falls_into_two_scans(tmp_path: Path, other: dict[str, Any]) -> None:
    write_series(tmp_path / "ct")
    write_series(tmp_path / "ct", name="other", **({"shape": (8, *SHAPE[1:])} | other))
    large, small = scans_of(tmp_path / "ct")
    assert (len(large.slices), len(small.slices), small.part) == (60, 8, 2)
    assert "(60 + 8): they are read as 2 scans, this is 1" in large.problems[0]
    write_series(tmp_path / "ct", name="third", number=2, shape=(3, 8, 8))
    assert [len(scan.slices) for scan in scans_of(tmp_path / "ct")] == [60, 8, 3]


def test_bounds_are_of_the_whole_volume_and_each_slice_has_its_own_scale(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", signed=False, PhotometricInterpretation=lambda n: f"MONOCHROME{1 + n % 2}")
    volume = volume_of(tmp_path / "ct")
    assert (volume.stored[0].low, volume.stored[0].high) == (0, 4095)
    real = hounsfield().astype(np.float32)
    for levels in (Levels(percentiles=(1, 90.5)), Levels(zscore=2), Levels(window="abdomen")):
        bounds = volume.bounds(levels)
        assert bounds == pytest.approx(levels.bounds(real, volume.stored[0]), rel=1e-6)
        expected = levels.to_bytes(real, bounds=bounds)
        expected[::2] = 255 - expected[::2]
        assert np.abs(volume.to_bytes(levels).astype(int) - expected).max() <= 1
    assert volume.bounds(Levels(percentiles=(1, 90.5)))[1] == pytest.approx(np.percentile(real, 90.5))


def test_values_above_the_stored_bits_do_not_count() -> None:
    np.testing.assert_array_equal(without_high_bits(np.array([0xF123, 0x0FFF], "<u2"), 12), [0x123, 0xFFF])
    np.testing.assert_array_equal(without_high_bits(np.array([0x0FFF, 0x7123], "<i2"), 12), [-1, 0x123])


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_nifti_and_stacks(tmp_path: Path, ending: str) -> None:
    array = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    affine = np.array([[0, 2.0, 0, 1], [-1, 0, 0, 2], [0, 0.0, 3, 3], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_slope_inter(2, -5)
    nibabel.save(image, tmp_path / f"a{ending}")
    volume = load_volume(tmp_path / "a", formats.load(tmp_path / f"a{ending}"))
    np.testing.assert_array_equal(volume.array, array.T)
    np.testing.assert_allclose(volume.affine @ [1, 2, 3, 1], affine @ [3, 2, 1, 1])
    assert (volume.stored[0].slope, volume.stored[0].intercept, volume.spacing) == (2, -5, (3, 2, 1))
    np.save(tmp_path / "b.npy", array)
    stack = load_volume(tmp_path / "b.npy", formats.load(tmp_path / "b.npy"))
    assert (stack.array.shape, stack.known) == ((4, 5, 6), False)
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6, 2), np.int16), affine), tmp_path / "c.nii")
    with pytest.raises(ImageFileError, match="axes TSHW"):
        load_volume(tmp_path / "c.nii", formats.load(tmp_path / "c.nii"))


@pytest.mark.parametrize("path", dicoms(), ids=lambda path: path.name)
def test_pydicoms_samples_are_scans(path: Path) -> None:
    try:
        document = formats.load(path)
    except ImageFileError:
        return  # tests/files/formats/test_samples.py has the reasons
    scans = sort_into_scans(slices_of(path, document))
    assert len(scans) == (not document.layout.endswith("C"))
    for scan in scans:
        volume = load_scan(scan, plain)
        assert len(volume.present) == len(scan.slices) == (document.shape[0] if document.layout == "SHW" else 1)
        assert volume.voxel_mm3 > 0
        assert volume.to_bytes(DEFAULT.choose(volume.stored[0])).shape == volume.array.shape


def test_turning_and_spacing_are_monais(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", shape=(12, 9, 14), axes=SAGITTAL)
    volume = volume_of(tmp_path / "ct")
    geometry = Geometry("SPL", (2.0, 1.0, 1.75))
    view, affine = geometry.turned(volume.array, volume.affine)
    tensor = MetaTensor(volume.array[None].astype(np.float32), affine=volume.affine)
    turned = Orientation("SPL", labels=None)(tensor)
    np.testing.assert_array_equal(view, turned[0].numpy())
    np.testing.assert_allclose(affine, turned.affine, atol=1e-6)
    expected = Spacing(geometry.spacing, padding_mode="border")(turned)[0].numpy()
    found = resized(view.astype(np.float32), geometry.scales(affine))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=0.01)
    back = sampled(found, [1 / scale for scale in geometry.scales(affine)], view.shape)
    assert np.corrcoef(back.ravel(), view.ravel())[0, 1] > 0.9
    target, _ = geometry.turned(other := np.zeros_like(volume.array), volume.affine)
    target[:] = view
    np.testing.assert_array_equal(other, volume.array)
    for wrong in ({"orientation": "SPP"}, {"orientation": "xyz"}, {"spacing": (1, -1, 1)}):
        with pytest.raises(UsageError):
            Geometry(**wrong)  # type: ignore[arg-type]
