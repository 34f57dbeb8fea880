"""A folder of images or scans with a folder of masks beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from encdl.data.base import DataSpec, Sample, Split
from encdl.data.folder_files import converted
from encdl.data.image_folder import ImageFolder
from encdl.files import dicom_seg
from encdl.files.formats.base import array_of
from encdl.files.scan_files import Unit
from encdl.files.scans import UNKNOWN_GRID, FlatScan, Geometry, Volume, flat_scan, is_volume, load_volume
from encdl.files.scans.geometry import resized
from encdl.utils.errors import DataError, UsageError

Labels = npt.NDArray[np.uint8]
IMAGES, MASKS = "images", "masks"
MARKS = ("mask", "seg", "label", "labels")
"""A mask is called like its image, or that and `.` or `_` and one of these."""


@dataclass(eq=False, repr=False)
class MaskFolder(ImageFolder):
    """Images or scans with masks: `FOLDER/images/…` and `FOLDER/masks/…`, or both in each of `train`, `val`, `test`.

    The mask of `images/a/b.png` is `masks/a/b.png`, of whatever kind, or `b.mask.png`, `b_seg.nii.gz` and the like.
    That of a series is one for each file, or one NIfTI file or DICOM Segmentation that is named like its first file or
    its folder, or lies alone in a folder of that name. Levels are the numbers of the classes; 255 is 1 where there are
    two; segments have the class of their label's name, or else of their number. A mask that has other axes is turned
    to those of its scan.

    Each slice of a scan is an image, resized until its longer side is `size`, and padded with black; with `depth` each
    scan is a volume for readers in three dimensions.

    Args:
        folder: Where `images` and `masks` are.
        classes: Names of the classes, by their number in masks.
        size: Height and width of every image.
        depth: Slices that volumes are padded to; 0 for flat images.
        spacing_mm: Millimetres between slices, rows and columns that volumes are resampled to; null leaves them.
        crop: As in `ImageDataModule`; 0, the default here, trains on whole images.

    Raises:
        UsageError: A setting is out of its range.
    """

    _: KW_ONLY
    classes: tuple[str, ...] = ("background", "foreground")
    size: int = 128
    depth: int = 0
    spacing_mm: tuple[float, float, float] | None = None
    crop: int = 0
    _masks: dict[Path, Path] = field(default_factory=dict, init=False, repr=False)
    _numbers: dict[Path, int] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.classes = tuple(self.classes)
        if not 2 <= len(self.classes) <= 256 or self.depth < 0 or self.channels != 1:
            raise UsageError("give classes of masks 2 to 256 names, depth 0 or more, and channels 1")
        if self.spacing_mm is not None and not self.depth:
            raise UsageError("spacing_mm is for volumes: set depth, too")

    @property
    def spec(self) -> DataSpec:
        """The configured size and classes."""
        levels = self.reader_of_files.levels if self.levels else None
        known: dict[str, Any] = {"depth": self.depth, "levels": levels, "geometry": self.geometry}
        return DataSpec(1, self.size, self.size, classes=self.classes, spacing_mm=self.spacing_mm, **known)

    @property
    def geometry(self) -> Geometry:
        """How scans are turned and resampled: in prediction, too."""
        return Geometry(self.orientation, self.spacing_mm, fit=0 if self.depth else self.size)

    def reading(self, split: Split) -> list[Any]:
        """Nothing: samples are finished."""
        return []

    def _units_below(self, folder: Path) -> list[Unit]:
        """The folder's images and scans; each has a mask, and no mask is without one."""
        for name in (IMAGES, MASKS):
            if not (folder / name).is_dir():
                raise DataError(f"{folder}: has no folder {name}: give one of images and one of masks, by these names")
        units = self.reader_of_files.units(folder / IMAGES)
        paths = self.reader_of_files.below(folder / MASKS)
        masks: dict[str, Path] = {}
        for path in paths:
            if (other := masks.setdefault(_bare(path.relative_to(folder / MASKS)), path)) is not path:
                raise DataError(f"{other} and {path}: are masks of one image: remove one")
        found = {unit.sources[0].path: _masks_of(unit, folder / IMAGES, masks) for unit in units}
        if bare := [path for path, of in found.items() if not of]:
            raise DataError(
                f"{bare[0]}: has no mask in {folder / MASKS} ({len(bare)} of {len(units)} images and scans have none)"
            )
        for of in found.values():
            self._masks |= of
        if left := sorted(set(paths) - set(self._masks.values())):
            raise DataError(
                f"{left[0]}: is the mask of no image in {folder / IMAGES} ({len(left)} of {len(paths)} masks are)"
            )
        return units

    def _of_unit(self, unit: Unit, crop: int) -> list[Sample]:
        number = self._numbers.setdefault(unit.sources[0].path, len(self._numbers))
        return [{**sample, "volume": number} for sample in self._finished(unit)]

    def _finished(self, unit: Unit) -> list[Sample]:
        path = unit.sources[0].path
        if unit.scan is None and not unit.stack:
            array, stored = self.reader_of_files.read(path)
            image = converted(path, array, 1, stored, self.reader_of_files.levels)
            labels, affine = self._labels(path, None, image.shape), UNKNOWN_GRID
            if self.depth:
                raise DataError(f"{path}: is one image: with data.init_args.depth give scans")
            scan = FlatScan(image, (0,), affine)
        else:
            volume = self.reader_of_files.volume(unit)
            scan = flat_scan(volume, self.reader_of_files.levels, self.geometry, gaps=bool(self.depth))
            labels, _ = self.geometry.turned(self._of_scan(unit, volume), volume.affine)
            labels = labels[list(scan.places)]
        scales = self.geometry.scales(scan.affine, scan.levels.shape)
        pairs = [(scan.levels, labels)] if self.depth else list(zip(scan.levels, labels, strict=True))
        shape = self.spec.shape
        samples = []
        for levels, mask in pairs:
            found = {
                "image": resized(levels, scales[-levels.ndim :]),
                "mask": resized(mask, scales[-levels.ndim :], nearest=True),
            }
            if any(side > most for side, most in zip(found["image"].shape, shape, strict=True)):
                raise DataError(
                    f"{unit.path}: has {_by(found['image'].shape)} voxels, more than depth and size, {_by(shape)}: "
                    "set them to as many"
                )
            samples.append({name: _padded(each, shape)[None] for name, each in found.items()})
        return samples

    def _of_scan(self, unit: Unit, volume: Volume) -> Labels:
        """The labels of each voxel of a scan."""
        first = unit.sources[0].path
        if len(unit.sources) == 1 or len({self._masks[source.path] for source in unit.sources}) == 1:
            return self._labels(first, volume, volume.array.shape)
        labels = np.zeros(volume.array.shape, np.uint8)
        for number, path in enumerate(volume.files):
            if path is not None:
                labels[number] = self._labels(path, None, (1, *volume.array.shape[1:]))[0]
        return labels

    def _labels(self, of: Path, scan: Volume | None, shape: Sequence[int]) -> Labels:
        """The mask of a file, of a whole scan or of one slice: uint8 of this shape."""
        path = self._masks[of]
        with self.reader_of_files.opened(path) as document:
            if scan is not None and dicom_seg.is_seg(document):
                array = dicom_seg.labels_on(path, document, scan.affine, shape, self.classes)
            elif is_volume(document):
                mask = load_volume(path, document)
                array = mask.array
                if scan is not None and scan.known and mask.known:
                    import nibabel  # noqa: PLC0415

                    axes = "".join(nibabel.aff2axcodes(scan.affine))
                    array, _ = Geometry(axes).turned(array, mask.affine)
            else:
                array = array_of(document)
                array = array[None] if array.ndim == 2 else array
        if array.shape != tuple(shape):
            raise DataError(f"{path}: has the shape {_by(array.shape)}, and its image {of} {_by(shape)}")
        known = np.unique(array)
        if len(self.classes) == 2 and set(known.tolist()) <= {0, 255}:
            return np.asarray(array == 255, np.uint8)
        if known[0] < 0 or known[-1] >= len(self.classes) or (known != np.rint(known)).any():
            raise DataError(
                f"{path}: has the level {known[-1]:g}, and there are {len(self.classes)} classes: levels are their "
                "numbers, set data.init_args.classes to the names of all"
            )
        return np.asarray(array, np.uint8)


def _bare(relative: PurePath) -> str:
    """The name of an image or mask without its endings and the mark of masks."""
    name = relative.name.removesuffix(".encdl")
    for ending in (".gz", PurePath(name.removesuffix(".gz")).suffix):
        name = name.removesuffix(ending) if ending else name
    for mark in MARKS:
        name = name.removesuffix(f".{mark}").removesuffix(f"_{mark}")
    return (relative.parent / name).as_posix()


def _masks_of(unit: Unit, folder: Path, masks: dict[str, Path]) -> dict[Path, Path]:
    """The mask of each file of an image or scan; none if one is missing."""
    files = [source.path for source in unit.sources]
    inner = [file.relative_to(folder) for file in files]
    each = [masks.get(_bare(path)) for path in inner]
    if all(each):
        return {file: mask for file, mask in zip(files, each, strict=True) if mask is not None}
    place = inner[0].parent.as_posix()
    alone = [path for name, path in masks.items() if PurePath(name).parent.as_posix() == place != "."]
    one = masks.get(_bare(inner[0])) or masks.get(place) or (alone[0] if len(alone) == 1 else None)
    return dict.fromkeys(files, one) if one is not None and len(files) > 1 else {}


def _padded(array: npt.NDArray[Any], shape: Sequence[int]) -> npt.NDArray[Any]:
    """With zeros around the middle, as a reader of scans pads."""
    before = [(most - side) // 2 for side, most in zip(array.shape, shape, strict=True)]
    behind = [most - side - start for side, most, start in zip(array.shape, shape, before, strict=True)]
    return np.pad(array, list(zip(before, behind, strict=True)))


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
