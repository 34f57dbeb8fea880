"""Folders of series, volumes and deep images: training and prediction see the same numbers, encrypted or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import torch

import encdl
from encdl.data.class_folder import ClassFolder
from encdl.data.image_folder import ImageFolder
from encdl.data.mask_folder import MaskFolder
from encdl.data.registry import images_to_judge
from encdl.data.splits import SPLITS
from encdl.files import dicom_seg, images
from encdl.files.folders import Source
from encdl.files.levels import ModalityLevels
from encdl.files.scan_files import Unit, find_units
from encdl.keys.key import Key, Opener
from encdl.keys.key_source import KeySource
from encdl.readers.answer_files import table
from encdl.readers.answers import Answer, Classification
from encdl.readers.predictor import Predictor
from encdl.utils.errors import DataError, EncdlError, UsageError, WrongKeyError
from tests.files.scans.phantom import hounsfield, write_series
from tests.reader_checkpoint import resnet, save_reader, tiny_reader, unet

SHAPE = (5, 20, 26)
Make = Callable[[Path, int], object]


def series(folder: Path, number: int, **elements: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_series(folder / f"ct{number}", number=number, shape=SHAPE, signed=bool(number % 2), **elements)


def mr(folder: Path, number: int) -> None:
    series(folder, number, Modality="MR")


def inverted(folder: Path, number: int) -> None:
    series(folder, number, PhotometricInterpretation="MONOCHROME1", missing=[2])


def nifti(folder: Path, number: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    voxels = np.asarray(hounsfield(SHAPE) + number, np.int16).T
    image = nibabel.Nifti1Image(voxels, np.diag([-1.5, 2.0, 3.0, 1]))  # type: ignore[no-untyped-call]
    nibabel.save(image, folder / f"scan{number}.nii.gz")  # type: ignore[attr-defined]


def deep_png(folder: Path, number: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(number).integers(300, 4000, (30, 22), dtype=np.uint16)
    images.write(folder / f"x{number}.{'png' if number % 2 else 'tif'}", levels)


def classes(root: Path, make: Make) -> Path:
    for number, split in enumerate(SPLITS):
        make(root / split / "ill", number)
        make(root / split / "well", 10 + number)
    return root


def sealed(root: Path, to: Path, key: Key) -> Path:
    """The same folder, encrypted."""
    for path in root.rglob("*"):
        if path.is_file():
            target = to / path.relative_to(root).with_name(path.name + ".encdl")
            target.parent.mkdir(parents=True, exist_ok=True)
            encdl.encrypt_file(path, key, target)
    return to


@pytest.fixture
def key(tmp_path: Path) -> Key:
    made = Key.generate()
    made.save(tmp_path / "k.key")
    return made


def reader_of(data: Any, path: Path, network: Any = resnet, **settings: Any) -> Predictor:
    spec = data.spec
    levels = {"levels": ModalityLevels.from_dict(spec.levels).to_dict()} if spec.levels is not None else {}
    kept = {"geometry": spec.geometry.to_dict(), "size": list(spec.shape), **levels}
    return Predictor.load(save_reader(path, tiny_reader(network, channels=spec.channels), **kept | settings))


def answers(predictor: Predictor, folder: Path, opener: Opener) -> dict[str, torch.Tensor]:
    """Logits by file, of scans by their slices."""

    def opened(path: Path) -> Any:
        return predictor.opened(path, opener)

    found: dict[str, torch.Tensor] = {}
    sources = [Source(path, path.relative_to(folder)) for path in sorted(folder.rglob("*.encdl"))]
    for unit in find_units(sources, opened, lambda tag, path: tag):
        if unit.single:
            answer: Any = predictor.read(unit.path, opener)
            found[unit.path.name] = answer.logits
        else:
            answer = predictor.read_volume(unit.load(opened))
            assert isinstance(answer, Classification)
            for index, logits in enumerate(answer.logits):
                found[f"{unit.sources[0].path.parent.name} {unit.name} {index}"] = logits
    return found


@pytest.mark.parametrize("levels", [None, {"window": [40, 900]}, {"percentiles": [5, 95]}])
@pytest.mark.parametrize("make", [series, mr, inverted, nifti, deep_png])
def test_a_classifier_sees_in_prediction_what_it_was_trained_on(
    tmp_path: Path, key: Key, make: Make, levels: dict[str, Any] | None
) -> None:
    plain = classes(tmp_path / "plain", make)
    folder = sealed(plain, tmp_path / "sealed", key)
    settings: dict[str, Any] = {"size": 16, "levels": levels, "orientation": None if make is deep_png else "SPL"}
    data, same = (
        ClassFolder(str(folder), key=KeySource(tmp_path / "k.key"), **settings),
        ClassFolder(str(plain), **settings),
    )
    predictor = reader_of(data, tmp_path / "r.ckpt")
    given = answers(predictor, folder, key)
    seen = []
    pairs = [(each.val_dataloader(), each.test_dataloader()) for each in (data, same)]
    for loader, twin in zip(*pairs, strict=True):
        batch, other = (torch.cat([part["image"] for part in each]) for each in (loader, twin))
        assert torch.equal(batch, other)
        seen += list(predictor.reader(batch, torch.zeros_like(batch)))
    assert len(seen) in (4, 4 * SHAPE[0], 4 * (SHAPE[0] - 1))
    close = [min(float((logits - other).abs().max()) for other in given.values()) for logits in seen]
    assert max(close) < 1e-5


@pytest.mark.parametrize("make", [series, nifti])
def test_slices_with_those_beside_them(tmp_path: Path, key: Key, make: Make) -> None:
    data = ClassFolder(str(classes(tmp_path / "plain", make)), size=26, beside=1, batch_size=4)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 3, 26, 26)
    assert data.spec.channels == 3
    scan = [sample["image"] for sample in data.samples("val")][: SHAPE[0]]
    assert np.array_equal(scan[0][0], scan[0][1])  # beyond the end the last slice again
    assert np.array_equal(scan[1][2], scan[2][1])
    assert np.array_equal(scan[3][0], scan[2][1])
    predictor = reader_of(data, tmp_path / "r.ckpt")
    given = answers(predictor, sealed(tmp_path / "plain", tmp_path / "sealed", key), key)
    image = torch.from_numpy(np.stack(scan))
    expected = predictor.reader(image, torch.zeros_like(image))
    assert all(min(float((each - other).abs().max()) for other in given.values()) < 1e-5 for each in expected)
    single = tmp_path / "one.encdl"
    images.write(tmp_path / "one.png", np.zeros((26, 26), np.uint8))
    encdl.encrypt_file(tmp_path / "one.png", key, single)
    with pytest.raises(UsageError, match="is one image, and this reader takes slices of scans"):
        predictor.read(single, key)


def test_a_class_may_hold_part_of_a_series(tmp_path: Path) -> None:
    for number in range(3):
        series(tmp_path / "a", number)
        for path in sorted((tmp_path / "a" / f"ct{number}").iterdir())[:2]:
            (tmp_path / "b").mkdir(exist_ok=True)
            path.rename(tmp_path / "b" / f"{number}-{path.name}")
    data = ClassFolder(str(tmp_path), size=8)
    for split in SPLITS:
        assert sorted(sample["label"] for sample in data.samples(split)) == [0, 0, 0, 1, 1]
    assert data.class_counts().tolist() == [3, 2]


def test_a_series_is_in_one_split(tmp_path: Path) -> None:
    for number in range(3):
        series(tmp_path / "free", number, ImagePositionPatient=lambda index: [0.0, 0.0, 2.5 * index])
        axes = {"ImageOrientationPatient": lambda index: [1.0, 0, 0, 0, 1, 0] if index < 3 else [0.0, 1, 0, 0, 0, -1]}
        series(tmp_path / "parts", number, **axes)
    assert all(len(units) == 1 for units in ImageFolder(str(tmp_path / "free")).units.values())
    assert [len(units) for units in ImageFolder(str(tmp_path / "parts")).units.values()] == [2, 2, 2]
    for split in SPLITS:
        (tmp_path / "given" / split).mkdir(parents=True)
    for number, path in enumerate(sorted((tmp_path / "free" / "ct0").iterdir())):
        path.rename(tmp_path / "given" / SPLITS[number % 3] / path.name)
    with pytest.raises(DataError, match=r"ct.*: this series is in two of train, val and test"):
        _ = ImageFolder(str(tmp_path / "given")).units


@pytest.mark.parametrize("depth", [0, 8])
@pytest.mark.parametrize("flipped", [False, True])
def test_masks_of_scans(tmp_path: Path, depth: int, flipped: bool) -> None:
    """A mask on axes of its own lies on its scan, and prediction sees what training saw."""
    for number in range(3):
        series(tmp_path / "images", number)
        labels = (hounsfield(SHAPE) > 200).astype(np.uint8)
        from encdl.data.folder_files import PLAIN

        [unit] = PLAIN.units(tmp_path / "images" / f"ct{number}")
        volume = PLAIN.volume(unit)
        image = nibabel.Nifti1Image(labels.T, volume.affine[:, [2, 1, 0, 3]])  # type: ignore[no-untyped-call]
        image = nibabel.as_closest_canonical(image) if flipped else image  # type: ignore[no-untyped-call]
        (tmp_path / "masks").mkdir(exist_ok=True)
        nibabel.save(image, tmp_path / "masks" / f"ct{number}.nii.gz")  # type: ignore[attr-defined]
    data = MaskFolder(str(tmp_path), size=32, depth=depth, levels={"window": [0, 2000]})
    samples = data.samples("test")
    image, mask = (np.stack([sample[name] for sample in samples]) for name in ("image", "mask"))
    shape = (1, 1, 8, 32, 32) if depth else (5, 1, 32, 32)
    assert image.shape == mask.shape == shape
    assert mask.any()
    bright = image > 150  # 300 HU is level 165
    overlap = 2 * (bright & (mask == 1)).sum() / (bright.sum() + mask.sum())
    assert overlap == 1 if depth else overlap > 0.85
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["mask"].shape[2:] == shape[2:]
    predictor = reader_of(data, tmp_path / "r.ckpt", unet)
    predictor.reader.backbone.dimensions = len(data.spec.shape)
    seen: list[torch.Tensor] = []

    def watched(_: Path, levels: torch.Tensor, __: torch.Tensor) -> torch.Tensor:
        seen.append(levels[0])
        return torch.stack([-levels[0, 0].float(), levels[0, 0].float() - 255])

    predictor._logits = watched  # type: ignore[method-assign, assignment]
    [unit] = data.units["test"]
    predictor.segment(data.reader_of_files.volume(unit))
    assert all(torch.equal(torch.from_numpy(each), other) for each, other in zip(image, seen, strict=True))


def test_masks_of_images(tmp_path: Path) -> None:
    for number, ending in enumerate(["", ".mask", "_seg"]):
        levels = np.random.default_rng(number).integers(0, 4000, (12, 16), dtype=np.uint16)
        levels[0, :2] = 0, 4000
        for name, array in {"images": levels, "masks": np.where(levels > 1999, 255, 0).astype(np.uint8)}.items():
            (tmp_path / name / "p").mkdir(parents=True, exist_ok=True)
            images.write(tmp_path / name / "p" / f"{number}{ending if name == 'masks' else ''}.png", array)
    data = MaskFolder(str(tmp_path), size=16)
    for split in SPLITS:
        [sample] = data.samples(split)
        assert sample["image"].shape == sample["mask"].shape == (1, 16, 16)
        assert np.array_equal(sample["mask"] == 1, sample["image"] > 127)


def break_masks(root: Path, how: str) -> None:
    first = root / "masks" / "0.png"
    match how:
        case "missing":
            first.unlink()
        case "stray":
            images.write(root / "masks" / "9.png", np.zeros((8, 8), np.uint8))
        case "shape":
            images.write(first, np.zeros((8, 9), np.uint8), force=True)
        case "level":
            images.write(first, np.full((8, 8), 3, np.uint8), force=True)
        case "twice":
            images.write(root / "masks" / "0_mask.png", np.zeros((8, 8), np.uint8))
        case "folder":
            (root / "masks").rename(root / "labels")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", r"0\.png: has no mask in .* \(1 of 4 images and scans have none\)"),
        ("stray", r"9\.png: is the mask of no image in .* \(1 of 5 masks are\)"),
        ("shape", r"0\.png: has the shape 1x8x9, and its image .*0\.png 1x8x8"),
        ("level", "has the level 3, and there are 2 classes"),
        ("twice", "are masks of one image"),
        ("folder", "has no folder masks"),
    ],
)
def test_masks_that_are_refused(tmp_path: Path, how: str, said: str) -> None:
    for number in range(4):
        for name in ("images", "masks"):
            (tmp_path / name).mkdir(exist_ok=True)
            images.write(tmp_path / name / f"{number}.png", np.zeros((8, 8), np.uint8))
    break_masks(tmp_path, how)
    with pytest.raises(DataError, match=said) as caught:
        [MaskFolder(str(tmp_path), size=8).samples(split) for split in SPLITS]
    assert "\n" not in str(caught.value)


def test_keys_and_files_that_open_nothing(tmp_path: Path, key: Key, capfd: pytest.CaptureFixture[str]) -> None:
    folder = sealed(classes(tmp_path / "plain", deep_png), tmp_path / "sealed", key)
    with pytest.raises(DataError, match=r"holds no images .*training reads \.encdl files with --data\.key\.path K"):
        _ = ClassFolder(str(folder)).classes
    Key.generate().save(tmp_path / "other.key")
    with pytest.raises(WrongKeyError, match=r"\(2 of 2 files cannot be read\)$") as caught:
        _ = ClassFolder(str(folder), key=KeySource(tmp_path / "other.key")).classes
    assert "\n" not in str(caught.value)
    series(tmp_path / "plain" / "val" / "ill", 1)
    cut = next((tmp_path / "plain" / "val" / "ill" / "ct1").iterdir())
    cut.write_bytes(cut.read_bytes()[:300])
    with pytest.raises(EncdlError, match=rf"{cut.name}: .* \(1 of 7 files cannot be read\)$"):
        _ = ClassFolder(str(tmp_path / "plain")).classes
    data = ClassFolder(str(folder), key=KeySource(env="MY_KEY"))
    assert data.sealed


def test_evaluation_takes_slices_of_scans_and_their_intervals_are_over_scans(tmp_path: Path) -> None:
    series(tmp_path, 1)
    nifti(tmp_path, 2)
    deep_png(tmp_path, 3)
    found = images_to_judge(str(tmp_path), None, 7)
    assert (found.of, len(found.images), len(set(found.groups))) == (11, 7, 3)
    assert {tuple(image.shape) for image in found.images} == {(1, 20, 26), (1, 30, 22)}
    one, two, *_ = sorted((tmp_path / "ct1").iterdir())
    for file, count in ((tmp_path / "scan2.nii.gz", 5), (one, 1), (two.rename(tmp_path / "IM1"), 1)):
        alone = images_to_judge(str(file))
        assert (len(alone.images), len(set(alone.groups))) == (count, 1)
    (tmp_path / "no.png").write_bytes(b"no image")
    with pytest.raises(EncdlError, match=r"no\.png: [^(]*$"):
        images_to_judge(str(tmp_path / "no.png"))
    (tmp_path / "no.png").rename(tmp_path / "x.encdl")
    with pytest.raises(DataError, match=r"x\.encdl: is encrypted"):
        images_to_judge(str(tmp_path / "x.encdl"))
    data = ImageFolder(str(tmp_path), crop=8, size=16)
    data.setup("fit")
    counts = [len(set(data.groups(split) or ["a file"])) for split in SPLITS]
    assert (counts, data.grouping) == ([1, 1, 1], "volumes")
    assert next(iter(data.train_dataloader()))["image"].shape[1:] == (1, 8, 8)


def test_an_answer_about_a_scan_is_the_mean_over_its_slices() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    answer = Classification(logits, (Path("a"), Path("b")), (0, 1))
    assert np.allclose(answer.probabilities, logits.softmax(1).mean(0))
    assert int(answer.best) == 1
    single = Answer(torch.tensor([1.0, 0.0]), np.zeros(0, np.uint8))
    units = [Unit((Source(Path(name), Path(name)),), Path(name)) for name in ("scan", "x")]
    lines = [
        line.split(",")[:3] for line in table(["no", "yes"], zip(units, [answer, single], strict=True)).splitlines()
    ]
    assert lines[1:] == [["scan", "all", "yes"], ["a", "1", "no"], ["b", "2", "yes"], ["x", "", "no"]]
    assert "slice" not in table(["no", "yes"], [(units[1], single)])


def segmented(folder: Path, name: str, number: int, classes: list[str], **elements: Any) -> np.ndarray:
    """A tilted series with a gap, and its DICOM Segmentation, as highdicom writes it; the labels of its slices."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "masks" / name).mkdir(parents=True)
    given = {"number": number, "shape": SHAPE, "tilt": 0.5, "missing": [1]}
    paths = write_series(folder / "images" / name, **given, **elements)  # type: ignore[arg-type]
    ball = hounsfield(SHAPE)
    labels = np.delete((ball > 0).astype(np.uint8) + (ball > 200), 1, axis=0).astype(np.uint8)
    sources = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    (folder / "masks" / name / "seg.dcm").write_bytes(dicom_seg.seg_bytes(labels, sources, classes))
    return labels


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("swapped", [False, True])
def test_dicom_segmentations_are_masks(tmp_path: Path, key: Key, encrypted: bool, swapped: bool) -> None:
    """Frames lie where their positions say, whatever is missing; segments are the classes that they are labelled as."""
    names = ["background", "shell", "core"]
    for number in range(3):
        labels = segmented(tmp_path / "plain", f"ct{number}", number, names)
    root = sealed(tmp_path / "plain", tmp_path / "sealed", key) if encrypted else tmp_path / "plain"
    source = KeySource(tmp_path / "k.key") if encrypted else None
    classes = ("background", "core", "shell") if swapped else tuple(names)
    data = MaskFolder(str(root), size=26, depth=SHAPE[0], classes=classes, key=source)
    [sample] = data.samples("test")
    expected = np.array([0, 2, 1], np.uint8)[labels] if swapped else labels
    assert set(np.unique(labels)) == {0, 1, 2}
    np.testing.assert_array_equal(sample["mask"][0, :, 3:-3], np.insert(expected, 1, 0, axis=0))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("elsewhere", "its frames do not lie on the grid of the scan"),
        ("other spacing", "its frames do not lie on the grid of the scan"),
        ("label", "has the level 2, and there are 2 classes"),
    ],
)
def test_segmentations_of_something_else_are_refused(tmp_path: Path, wrong: str, said: str) -> None:
    for number in range(3):
        segmented(tmp_path, f"ct{number}", number, ["background", "a", "b"])
    path = tmp_path / "masks" / "ct0" / "seg.dcm"
    dataset = pydicom.dcmread(path)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    if wrong == "elsewhere":
        for each in dataset.PerFrameFunctionalGroupsSequence:
            each.PlanePositionSequence[0].ImagePositionPatient[0] += 0.6
    elif wrong == "other spacing":
        shared.PixelMeasuresSequence[0].PixelSpacing = [1.5, 1.5]
    dataset.save_as(path)
    data = MaskFolder(str(tmp_path), size=26, classes=("background", "organ"))
    with pytest.raises(EncdlError, match=rf"seg\.dcm: {said}"):
        [data.samples(split) for split in SPLITS]
