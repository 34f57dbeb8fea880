"""Series and volumes: encrypted file by file, read at once, their masks on the scan's own grid."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
import torch
from pydicom.data import get_testdata_file

import encdl
from encdl.files import formats, images
from encdl.files.formats.base import Document
from encdl.files.levels import Levels
from encdl.files.scans import load_scan, slices_of, sort_into_scans
from encdl.keys.key import Key
from encdl.readers import KeyedStem, MonaiNet, PlainStem, Reader
from encdl.readers.predictor import Predictor
from tests.commands.conftest import KEYED, Run, failed
from tests.files.scans.phantom import SAGITTAL, SHAPE, hounsfield, write_series
from tests.reader_checkpoint import SIZE, resnet, save_reader, smooth, tiny_reader, unet

READER = ["--reader", "r.ckpt"]


@pytest.fixture
def ct(run: Run, folder: Path) -> list[Path]:
    """A tilted, signed, rescaled CT without slice 30, MONOCHROME1, and two sagittal slices; encrypted in `safe`."""
    paths = write_series(folder / "ct", tilt=0.5, missing=[30], PhotometricInterpretation="MONOCHROME1")
    paths += write_series(folder / "ct", axes=SAGITTAL, shape=(2, *SHAPE[1:]), name="view")
    save_reader("r.ckpt", tiny_reader(unet))
    assert run("encrypt", "ct", *KEYED, "-o", "safe")[0] == 0
    return paths


@contextlib.contextmanager
def plain(path: Path) -> Iterator[Document]:
    yield formats.load(path)


def assert_on_grid(mask: object, *slices: object) -> None:
    """ITK finds a mask where it finds the slices, which it reads by itself; a slice alone has no thickness to it."""
    names = [str(each) for each in slices]
    read = [SimpleITK.ReadImage(str(mask)), SimpleITK.ReadImage(names if len(names) > 1 else names[0])]
    for name in ("GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
        found, expected = (np.array(getattr(each, name)()) for each in read)
        if name == "GetSpacing" and len(names) == 1:
            found, expected = found[:2], expected[:2]
        np.testing.assert_allclose(found, expected, atol=1e-4)


def expected_mask(paths: list[Path], levels: Levels) -> np.ndarray:
    """What the plaintext network says of the slices of a series, read from the originals."""
    [scan, *_] = sort_into_scans([each for path in paths for each in slices_of(path, formats.load(path))])
    network, volume = tiny_reader(unet, PlainStem), load_scan(scan, plain)
    mask = np.zeros(volume.array.shape, np.uint8)
    for number in volume.present:
        stored = volume.stored[number]
        image = levels.to_bytes(volume.array[number], stored, volume.bounds(levels))
        with torch.no_grad():
            padded = network(torch.from_numpy(image)[None, None])
        mask[number] = padded[0].argmax(0)
    return mask


def test_a_series_goes_through_encrypt_predict_and_decrypt(run: Run, ct: list[Path], folder: Path) -> None:
    save_reader("r.ckpt", tiny_reader(unet), size=[64, 64])
    code, out, err = run("predict", "safe", *KEYED, *READER, "-o", "masks", "--window", "brain", "--overlay", "image")
    assert code == 0
    assert out.startswith("masks: masks of 61 files in 2 scans and images, with the levels ")
    main, views = sorted(Path("masks").glob("series-*.nii.gz"))
    lines = [line.removeprefix("encdl: warning: ").partition(": ")[2] for line in err.splitlines()]
    assert lines == [
        "its slices have 2 orientations (59 + 2): they are read as 2 scans, this is 1",
        "1 slice missing between ct-076.dcm.encdl and ct-150.dcm.encdl: left empty in the mask",
        "slices are shifted by 11.3 degrees (gantry tilt): the grid is sheared as they are",
        "MONOCHROME1: its smallest value is white, and readers get it turned about",
        "its slices have 2 orientations (59 + 2): they are read as 2 scans, this is 2",
        "the slices are tilted, and so is the mask's grid: programs built on ITK refuse such NIfTI files; "
        "--masks dicom makes DICOM SEG",
    ]
    image = nibabel.load(main)  # type: ignore[attr-defined]
    mask = np.asarray(image.dataobj).T
    levels = Levels(window="brain")
    expected = expected_mask(ct, levels)
    assert len(np.unique(expected)) == 3
    assert (mask == expected).mean() > 0.999  # rounding decides between classes that are alike
    assert not mask[30].any()
    first = pydicom.dcmread(ct[0])
    corner = image.affine @ [0, 0, 0, 1]
    np.testing.assert_allclose(corner[:3], np.multiply(first.ImagePositionPatient, (-1, -1, 1)), atol=1e-4)
    last = pydicom.dcmread(ct[58])
    np.testing.assert_allclose((image.affine @ [0, 0, 59, 1])[:3] * (-1, -1, 1), last.ImagePositionPatient, atol=1e-4)
    assert nibabel.load(views).shape == (28, 24, 2)  # type: ignore[attr-defined]
    rows = list(csv.DictReader(Path("masks/measures.csv").read_text().splitlines()))
    for row in rows[: len(np.unique(mask)) - 1]:
        count = int((mask == ["background", "tumour", "oedema"].index(row["class"])).sum())
        assert int(row["voxels"]) == count
        assert float(row["millilitres"]) == pytest.approx(count * 2.5 * 1.5 * 1.25 / 1000, abs=1e-3)
        assert float(row["surface mm2"]) > 0
        drawn = Path(f"masks/{row['scan']}.{int(row['largest slice']):04}.overlay.png")
        assert images.read(drawn).shape == (11 * 24 + 24, 11 * 28, 3)
    assert run("decrypt", "safe", *KEYED, "-o", "again")[0] == 0
    for path in ct:
        assert Path("again", path.name).read_bytes() == path.read_bytes()


def test_itk_finds_the_mask_where_the_scan_is(run: Run, folder: Path) -> None:
    paths = write_series(folder / "ct", axes=SAGITTAL)
    save_reader("r.ckpt", tiny_reader(unet))
    assert run("encrypt", "ct", *KEYED, "-o", "safe")[0] == 0
    assert run("predict", "safe", *KEYED, *READER, "-o", "masks")[:2][0] == 0
    [path] = Path("masks").glob("*.nii.gz")
    assert_on_grid(path, *paths)


def test_a_network_for_volumes_reads_a_series_at_once(run: Run, folder: Path) -> None:
    write_series(folder / "ct", shape=(10, 24, 28))
    assert run("encrypt", "ct", *KEYED, "-o", "safe")[0] == 0
    arguments = {"channels": [4, 8], "strides": [2], "num_res_units": 1}
    torch.manual_seed(2)
    body = MonaiNet(4, 3, "UNet", arguments, multiple=2, dimensions=3)
    reader = Reader(KeyedStem(1, 4, 3), body).eval()
    save_reader("r.ckpt", reader, size=[12, 24, 28], geometry={"orientation": "SPL"})
    [(name, answer)] = encdl.segment("safe", "k.key", encdl.load_reader("r.ckpt", levels=Levels(window="abdomen")))
    levels = torch.from_numpy(Levels(window="abdomen").to_bytes(hounsfield((10, 24, 28))))
    padded = torch.nn.functional.pad(levels, (0, 0, 0, 0, 1, 1))[None, None]
    with torch.no_grad():
        expected = reader(padded, torch.zeros_like(padded))[0, :, 1:-1].argmax(0)
    assert answer.mask.shape == (10, 24, 28)
    assert (answer.mask == expected.numpy()).mean() > 0.999
    assert run("predict", "safe", *KEYED, *READER, "-o", "out", "--window", "abdomen")[0] == 0
    mask = nibabel.load(f"out/{name}.mask.nii.gz")  # type: ignore[attr-defined]
    np.testing.assert_array_equal(np.asarray(mask.dataobj).T, answer.mask)
    assert run("encrypt", "scan.png", *KEYED)[0] == 0
    failed(run("predict", "scan.encdl", *KEYED, *READER, "-o", "png"), "this reader takes volumes of 12x24x28: give")


def test_a_dicom_segmentation_refers_to_the_instances(run: Run, ct: list[Path]) -> None:
    assert run("predict", "safe", *KEYED, *READER, "-o", "nifti")[0] == 0
    assert run("predict", "safe", *KEYED, *READER, "-o", "seg", "--masks", "dicom")[0] == 0
    main = min(Path("seg").glob("*.seg.dcm"))
    seg = highdicom.seg.segread(main)
    originals = {pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID: path for path in ct}
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == ["tumour", "oedema"]
    assert seg.PatientID == "7"
    uids = [pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in ct[:59]]
    found = seg.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
    mask = np.asarray(nibabel.load(min(Path("nifti").glob("*.nii.gz"))).dataobj).T  # type: ignore[attr-defined]
    np.testing.assert_array_equal(found, np.delete(mask, 30, axis=0))
    referred = {
        item.ReferencedSOPInstanceUID
        for item in pydicom.dcmread(main).ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert referred <= set(originals)
    assert len(referred) == 59


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
@pytest.mark.parametrize("backbone", [unet, resnet])
def test_reading_16_bits_is_reading_the_decrypted_image(run: Run, folder: Path, dtype: str, backbone: object) -> None:
    """Both byte planes count, signed or not, by every rule."""
    deep = (smooth().astype(np.int32) * 150 - 9000 * (dtype == "int16") + np.arange(SIZE[1]) % 97).astype(dtype)
    np.save("deep.npy", deep)
    assert run("encrypt", "deep.npy", *KEYED)[0] == 0
    save_reader("r.ckpt", tiny_reader(backbone))  # type: ignore[arg-type]
    plain_network = tiny_reader(backbone, PlainStem)  # type: ignore[arg-type]
    for levels in (None, Levels(window=(3000, 500)), Levels(zscore=3)):
        answer = Predictor.load("r.ckpt", levels=levels).read("deep.encdl", Key.load("k.key"))
        image = (levels or Levels(percentiles=(0, 100))).to_bytes(deep)
        with torch.no_grad():
            expected = plain_network(torch.from_numpy(image)[None, None])[0]
        assert torch.allclose(answer.logits, expected, atol=1e-4)
    assert answer.ciphertext.shape == (2, *SIZE)


def test_a_reader_keeps_its_levels(run: Run, folder: Path) -> None:
    write_series(folder / "ct")
    assert run("encrypt", "ct", *KEYED, "-o", "safe")[0] == 0
    save_reader("r.ckpt", tiny_reader(unet), levels={"CT": {"window": [40, 400]}})
    assert run("predict", "safe", *KEYED, *READER, "-o", "b")[0] == 0
    save_reader("r.ckpt", tiny_reader(unet))
    for name, window in (("a", [40, 400]), ("c", ["bone"])):
        assert run("predict", "safe", *KEYED, *READER, "-o", name, "--window", *window)[0] == 0
    a, b, c = (np.asarray(nibabel.load(next(Path(name).glob("*.nii.gz"))).dataobj) for name in "abc")  # type: ignore[attr-defined]
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


@pytest.mark.parametrize("spacing", [None, [0, 1.0, 1.0], [2.0, 2.0, 2.0], "fit"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_reader_of_turned_scans_answers_on_their_own_grid(
    folder: Path, monkeypatch: pytest.MonkeyPatch, spacing: Any, dimensions: int
) -> None:
    """The network is a threshold, which asks for no place; the scan is tilted and sagittal."""
    paths = write_series(folder / "ct", axes=SAGITTAL, tilt=0.5)
    geometry = {"orientation": "SAR", "fit": 80} if spacing == "fit" else {"orientation": "SAR", "spacing": spacing}
    levels = {"CT": {"window": [0, 1000]}}
    predictor = Predictor.load(save_reader("r.ckpt", tiny_reader(unet), geometry=geometry, levels=levels))
    predictor.reader.backbone.dimensions, predictor.size = dimensions, (80,) * dimensions
    shapes = set()

    def threshold(_: Path, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        assert not mask.any()
        shapes.add(image.shape[2:])
        return torch.stack([64 - image[0, 0].float(), image[0, 0].float() - 64])

    monkeypatch.setattr(predictor, "_logits", threshold)
    [scan] = sort_into_scans([each for path in paths for each in slices_of(path, formats.load(path))])
    volume = load_scan(scan, plain)
    answer = predictor.segment(volume)
    inside = volume.stored[0].real(volume.array) > -250
    assert len(shapes) == 1
    [shape] = shapes
    assert len(shape) == dimensions
    assert min(shape) >= (80 if spacing == "fit" or dimensions == 3 else 1)
    wrong = float((answer.mask.astype(bool) != inside).mean()) / float(inside.mean())
    assert wrong < (0.15 if spacing else 1e-9)
    assert answer.mask.shape == volume.array.shape


def test_nifti_volumes_and_what_is_refused(run: Run, folder: Path) -> None:
    affine = np.diag([2.0, 1.5, 3, 1])
    nibabel.save(nibabel.Nifti1Image(np.arange(9 * 8 * 7, dtype=np.int16).reshape(9, 8, 7), affine), "v.nii.gz")
    save_reader("r.ckpt", tiny_reader(unet))
    assert run("encrypt", "v.nii.gz", *KEYED)[0] == 0
    assert run("predict", "v.encdl", *KEYED, *READER, "-o", "out")[0] == 0
    mask = nibabel.load("out/v.mask.nii.gz")  # type: ignore[attr-defined]
    assert mask.shape == (9, 8, 7)
    np.testing.assert_allclose(mask.affine, affine)
    predict = ("predict", "v.encdl", *KEYED, *READER, "-o", "other")
    failed(run(*predict, "--masks", "png"), "v.encdl: is a scan of several slices: its mask is no PNG")
    failed(run(*predict, "--masks", "dicom"), "v.encdl: is no DICOM")
    failed(run(*predict, "--window", "knee"), "there is no window 'knee'")
    for wrong in ("40,b", "40"):
        failed(run(*predict, "--window", wrong), "--window takes a centre and a width, or a name, not 40")
    save_reader("r.ckpt", tiny_reader(resnet))
    failed(run(*predict[:-2]), "v.encdl: holds 7 slices, and this reader takes one image a file")


def test_files_that_are_no_images_are_left_alone(run: Run, folder: Path) -> None:
    """A study with its DICOMDIR predicts with exit code 0; asked for by name, such a file is refused."""
    write_series(folder / "cd", shape=(3, *SHAPE[1:]))
    (folder / "cd" / "report.pdf").write_bytes(b"%PDF-1.4 a report")
    assert run("encrypt", "cd", *KEYED, "-o", "safe", "--carry-others")[0] == 0
    save_reader("r.ckpt", tiny_reader(unet))
    for number, more in enumerate(([], ["--overlay", "image"])):
        code, _, told = run("predict", "safe", *KEYED, *READER, "-o", f"out{number}", *more)
        assert code == 0, told
        assert "1 file left alone, no image" in told
        assert len(list((folder / f"out{number}").glob("*.nii.gz"))) == 1
    failed(run("predict", "safe/report.pdf.encdl", *KEYED, *READER, "-o", "x"), "holds no image: another file was")


def test_single_slices_tell_their_defects(run: Run, folder: Path) -> None:
    write_series(folder / "view", shape=(1, *SHAPE[1:]))
    write_series(folder / "view", axes=SAGITTAL, shape=(1, *SHAPE[1:]), name="view")
    assert run("encrypt", "view", *KEYED, "-o", "safe")[0] == 0
    save_reader("r.ckpt", tiny_reader(unet))
    code, _, told = run("predict", "safe", *KEYED, *READER, "-o", "out")
    assert code == 0, told
    assert "orientation" in told


@pytest.mark.parametrize("geometry", [None, {"orientation": "SPL", "spacing": [0, 1.0, 1.0]}])
@pytest.mark.parametrize("thickness", [4.0, None])
def test_single_slices_have_geometry_and_measures(
    run: Run, folder: Path, geometry: dict[str, Any] | None, thickness: float | None
) -> None:
    """Masks as NIfTI on the slice's grid or as DICOM SEG; an area, and a volume where the slice has a thickness."""
    [path] = write_series(folder / "ct", axes=SAGITTAL, shape=(1, 60, 48), SliceThickness=lambda _: thickness)
    save_reader("r.ckpt", tiny_reader(unet), geometry=geometry)
    assert run("encrypt", "ct", *KEYED, "-o", "safe")[0] == 0
    assert run("predict", "safe", *KEYED, *READER, "-o", "nifti")[0] == 0
    assert_on_grid(f"nifti/{path.name}.mask.nii.gz", path)
    mask = np.asarray(nibabel.load(f"nifti/{path.name}.mask.nii.gz").dataobj).T  # type: ignore[attr-defined]
    assert len(np.unique(mask)) > 1
    rows = list(csv.DictReader(Path("nifti/measures.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == [["tumour", "oedema"][index - 1] for index in np.unique(mask) if index]
    for row in rows:
        area = int((mask == ["tumour", "oedema"].index(row["class"]) + 1).sum()) * 1.5 * 1.25
        assert float(row["area mm2"]) == pytest.approx(area, abs=0.05)
        volume = f"{area * thickness / 1000:.3f}" if thickness else ""
        assert (row["millilitres"], row["surface mm2"], row["file"]) == (volume, "", f"{path.name}.encdl")
    assert run("predict", "safe", *KEYED, *READER, "-o", "png", "--masks", "png")[0] == 0
    np.testing.assert_array_equal(images.read(f"png/{path.name}.mask.png")[None], mask)
    segmented = run("predict", "safe", *KEYED, *READER, "-o", "seg", "--masks", "dicom")
    if thickness is None:
        failed(segmented, "no DICOM segmentation can refer to this series", "use --masks nifti")
        return
    seg = highdicom.seg.segread(f"seg/{path.name}.seg.dcm")
    uid = pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID
    found = seg.get_pixels_by_source_instance([uid], combine_segments=True, assert_missing_frames_are_empty=True)
    np.testing.assert_array_equal(found, mask)


def test_inspect_lists_series_by_tags(run: Run, ct: list[Path]) -> None:
    """Without the key nothing that is sealed; another key or study has another tag; a rekeyed file follows its key."""
    code, out, err = run("inspect", "safe")
    assert (code, err) == (0, "")
    [told] = [line for line in out.splitlines() if line.startswith("series 1") or ": 61 files, " in line]
    tag = told.split()[1].rstrip(":")
    twice = "2 of them again (several orientations or images at one place?)"
    there = "no 31 (missing, or never there: the key tells)"
    assert told == f"series {tag}: 61 files, instance numbers 1 to 60, {twice}, {there}"
    assert len(out.splitlines()) == 2  # of folders a summary
    some = [file for number, file in enumerate(ct[:59]) if number < 10 or number in {20, 40}]
    assert run("encrypt", *some, *KEYED, "-o", "some")[0] == 0
    assert ", no 11 to 20, 22 to 41 (missing, " in run("inspect", "some")[1]
    assert run("inspect", *sorted(Path("safe").iterdir())[:2])[1].count(f"tag {tag}, number ") == 2
    uid = pydicom.dcmread(ct[0], stop_before_pixels=True).SeriesInstanceUID
    for secret in (uid, "Doe", "CT, "):
        assert secret not in out
    shown = json.loads(run("inspect", sorted(Path("safe").iterdir())[0], "--json")[1])
    assert shown["series"]["tag"] == tag
    code, out, err = run("inspect", "safe", *KEYED)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert f"series {tag}, part 1: CT, 59 slices of 24x28, 2.55 x 1.50 x 1.25 mm, " in out
    assert "  slices are shifted by 11.3 degrees (gantry tilt): the grid is sheared as they are" in lines
    one = ct[0].name
    assert run("encrypt", ct[0], "--key", "other.key", "-o", "other.encdl")[0] == 0
    assert run("encrypt", ct[0], *KEYED, "--study", "S", "-o", "study.encdl")[0] == 0
    assert run("encrypt", ct[0], *KEYED, "--hide-series", "-o", "hidden.encdl")[0] == 0
    tags = [json.loads(run("inspect", f"{name}.encdl", "--json")[1])["series"] for name in ("other", "study", "hidden")]
    assert len({tag, *(one["tag"] for one in tags)}) == 4
    assert run("rekey", "other.encdl", "--key", "other.key", "--new-key", "k.key")[0] == 0
    assert run("rekey", "hidden.encdl", *KEYED, "--new-key", "other.key")[0] == 0
    again = [json.loads(run("inspect", f"{name}.encdl", "--json")[1])["series"] for name in ("other", "hidden")]
    assert again[0] == {"tag": tag, "number": 1}
    assert again[1]["tag"] not in {tag, *(one["tag"] for one in tags)}
    assert run("decrypt", "other.encdl", *KEYED, "-o", "one.dcm")[0] == 0
    assert Path("one.dcm").read_bytes() == Path("ct", one).read_bytes()


def test_a_series_of_pydicoms_samples(run: Run, folder: Path) -> None:
    """CT_small at three positions, and MR_small compressed: masks of both, and every file as it was."""
    Path("in").mkdir()
    for index in range(3):
        slice_ = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
        x, y, z = slice_.ImagePositionPatient
        slice_.ImagePositionPatient = [x, y, z - 5 * index]
        slice_.SOPInstanceUID = slice_.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        slice_.save_as(f"in/ct-{index}.dcm")
    Path("in/mr.dcm").write_bytes(Path(str(get_testdata_file("MR_small_RLE.dcm"))).read_bytes())
    save_reader("r.ckpt", tiny_reader(unet), size=[128, 128])
    assert run("encrypt", "in", *KEYED, "-o", "safe")[0] == 0
    code, out, err = run("predict", "safe", *KEYED, *READER, "-o", "masks", "--window", "40", "400")
    assert (code, out.partition(",")[0]) == (0, "masks: masks of 4 files in 2 scans and images")
    told = "encdl: warning: MR has no Hounsfield units: the window 40 400 is taken of its own values\n"
    assert err == told
    assert run("encrypt", "in/mr.dcm", *KEYED, "-o", "r.encdl", "--readable", "9", "--window", "40,400")[2] == told
    assert_on_grid("masks/mr.dcm.mask.nii.gz", "in/mr.dcm")
    [path] = Path("masks").glob("series-*.nii.gz")
    assert_on_grid(path, *(f"in/ct-{index}.dcm" for index in (2, 1, 0)))
    assert run("decrypt", "safe", *KEYED, "-o", "again")[0] == 0
    for original in Path("in").iterdir():
        assert Path("again", original.name).read_bytes() == original.read_bytes()
