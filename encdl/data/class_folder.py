"""A folder of image files with one sub-folder for each class."""

from __future__ import annotations

from collections import Counter
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from encdl.data.base import DataSpec, Sample, Split
from encdl.data.folder_files import ReadImage
from encdl.data.image_folder import ImageFolder
from encdl.data.splits import GROUPS, SPLITS, split_of
from encdl.files.resize import FitImage
from encdl.files.scan_files import Unit
from encdl.files.scans import FlatScan, Geometry
from encdl.utils.errors import DataError, UsageError


@dataclass(eq=False, repr=False)
class ClassFolder(ImageFolder):
    """Labelled images: `FOLDER/CLASS/…`, or `FOLDER/train/CLASS/…` and the same for `val` and `test`.

    Splits may also be called `Training`, `Testing` and the like. The sub-folders' names are the classes, in the order
    of the alphabet. Images are read as by `ImageFolder`; but as a label is about the whole image, none is cut: each is
    resized until it fits `size`, and padded with black. Where the splits are not given as folders, each class is split
    by itself, so that every split has all of them; `group` works across classes, as one patient may be in two. The
    class of a scan's slice is the folder of its file, so that a series may be in one class, or its slices in several.

    Args:
        folder: Where the classes' folders are.
        size: Height and width of every image.
        beside: Of scans, how many slices before each, and as many behind, are further channels (2.5-D); needs
            `channels` 1.
        crop: As in `ImageDataModule`; 0, the default here, trains on whole images.

    Raises:
        UsageError: A number is out of its range.
    """

    _: KW_ONLY
    size: int = 128
    crop: int = 0
    beside: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beside < 0 or (self.beside and self.channels != 1):
            raise UsageError(f"beside is {self.beside}: give 0 or more, and channels 1")

    @property
    def spec(self) -> DataSpec:
        """The configured channels and size, and the classes that the folder has; lists its files."""
        channels, levels = self.channels + 2 * self.beside, self.reader_of_files.levels if self.levels else None
        return DataSpec(channels, self.size, self.size, classes=self.classes, levels=levels, geometry=self.geometry)

    @property
    def geometry(self) -> Geometry:
        """How scans, and deep images, are turned and fitted: in prediction, too."""
        return Geometry(self.orientation, fit=self.size, beside=self.beside)

    def _image(self, scan: FlatScan, index: int) -> np.ndarray:
        return FitImage(self.size)(super()._image(scan, index), scan.spacing)

    def _told_of(self, path: Path) -> Sample:
        return {"label": self.classes.index(self._kind(path))}

    def _of_unit(self, unit: Unit, crop: int) -> list[Sample]:
        if self.beside and unit.scan is None and not unit.stack:
            raise DataError(f"{unit.path}: is one image: with data.init_args.beside give scans of several slices")
        return super()._of_unit(unit, 0)

    def reading(self, split: Split) -> list[Any]:
        """Read, convert and fit into `size`."""
        from monai.transforms import Lambdad  # noqa: PLC0415

        steps = [ReadImage(self.channels, files=self.reader_of_files), FitImage(self.size)]
        return [Lambdad(keys="image", func=step) for step in steps]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label.

        Raises:
            DataError: There are fewer than two, or a split lacks one.
        """
        counts = {split: Counter(map(self._kind, self.files[split])) for split in SPLITS}
        names = tuple(sorted(set().union(*counts.values())))
        if len(names) < 2:
            raise DataError(
                f"{self.root}: has one class only, {names[0]}: give a sub-folder for each of two or more classes"
            )
        for split in SPLITS:
            for name in names:
                if not counts[split][name]:
                    raise DataError(
                        f"{self.root}: no image of class {name} is left for {split}: give each class 3 or more "
                        f"{GROUPS[self.group]}, or set data.init_args.group to another of {', '.join(GROUPS)}"
                    )
        return names

    def _inside(self, file: Path) -> PurePath:
        """The file's path below its class's folder, or for `group: file` below its split's."""
        path = super()._inside(file)
        return path if self.group == "file" else path.relative_to(self._kind(file))

    def _kind(self, file: Path) -> str:
        """The class: files of each are split among themselves."""
        folders = super()._inside(file).parent.parts
        if not folders:
            raise DataError(f"{file}: lies in no class's folder: move it into one, or out of {self.root}")
        if split_of(folders[0]):
            raise DataError(f"{self.root}: has a folder {folders[0]} and none named train: give both, or neither")
        return folders[0]
