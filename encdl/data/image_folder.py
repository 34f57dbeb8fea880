"""A folder of images and scans of any size and kind, encrypted or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np

from encdl.data.base import DataSpec, ImageDataModule, Sample, Split
from encdl.data.folder_files import FolderFiles, ReadImage
from encdl.data.splits import GROUPS, SPLITS, Group, deal, group_name, split_folders, torn
from encdl.files import stores
from encdl.files.levels import ModalityLevels
from encdl.files.scan_files import Unit
from encdl.files.scans import FlatScan, Geometry, Volume, flat_scan
from encdl.keys.key_source import KeySource
from encdl.utils.errors import DataError, UsageError


@dataclass(eq=False, repr=False)
class ImageFolder(ImageDataModule):
    """Every PNG, TIFF, NPY, JPEG, BMP, DICOM and NIfTI file below a folder, whatever its size, depth or colour.

    DICOM files of one series, and a NIfTI file, are a scan: each slice is an image, and all of them are in one split.
    With a `key`, `.encdl` files of all these kinds are read, too: decrypted in memory, and never written.

    If the folder has the sub-folders `train`, `val` and `test` (or `Training`, `valid`, `Testing` and the like), they
    are the splits; if `val` or `test` is not there,
    it is split off `train`. Otherwise the files are put in an order that depends only on a hash of their paths, and
    split there. Files of one patient, say, stay together with `group: folder` if they lie in one sub-folder, and with
    `group: prefix` if their names start alike, up to the first underscore (`patient012_3.png`).

    Images become uint8 with `channels` channels: transparency is dropped, colour becomes luminance or grey is
    repeated, and deeper levels follow `levels`, as in prediction (docs/scans.md): by default CT has the window of the
    abdomen, MR and PET percentiles of the scan, and others go from their own darkest to their brightest level.

    Args:
        folder: Where the files are.
        size: Height and width of a validation or test image, cut or padded with black around the middle.
        channels: 1 (grey) or 3 (colour).
        group: What must not be torn apart by the split: nothing but the single file, files whose names start
            alike up to the first `_`, or each sub-folder.
        val_share: Share of the groups for validation; at least one.
        test_share: The same for testing.
        cache: Keep all images in memory instead of reading them again in every epoch; slices of scans always are.
        levels: A rule for all images, as `{window: [40, 400]}`, or one for each modality, as `{CT: {window: lung}}`.
        orientation: Where slices, rows and columns of scans lead (`encdl.files.scans.Geometry`); null leaves them.
        key: Where the key or grant of `.encdl` files is, as `{path: k.key}`, `{env: NAME}` or `{command: CMD}`.

    Raises:
        UsageError: A number is out of its range.
    """

    folder: str
    _: KW_ONLY
    size: int = 256
    channels: Literal[1, 3] = 1
    group: Group = "file"
    val_share: float = 0.1
    test_share: float = 0.1
    cache: bool = True
    levels: dict[str, Any] | None = None
    orientation: str | None = None
    key: KeySource | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 1 or self.channels not in {1, 3}:
            raise UsageError(
                f"size is {self.size} and channels {self.channels}: give a positive size and 1 or 3 channels"
            )
        if min(self.val_share, self.test_share) <= 0 or self.val_share + self.test_share >= 1:
            raise UsageError(
                f"val_share is {self.val_share} and test_share {self.test_share}: both must be above 0, their "
                "sum below 1"
            )
        self.reader_of_files = FolderFiles(self.key, ModalityLevels.from_dict(self.levels))
        self._samples: dict[Split, list[Sample]] = {}
        self._groups: dict[Split, list[str]] = {}
        Geometry(self.orientation)  # refuses what is none

    @property
    def sealed(self) -> bool:
        """Whether its images come from encrypted files: then nothing shows them in the clear."""
        return self.key is not None

    @property
    def root(self) -> Path:
        """The folder."""
        return stores.cached(self.folder)

    @property
    def spec(self) -> DataSpec:
        """The configured channels and size."""
        return DataSpec(channels=self.channels, height=self.size, width=self.size)

    @property
    def geometry(self) -> Geometry:
        """How scans are turned and fitted."""
        return Geometry(self.orientation)

    def samples(self, split: Split) -> Sequence[Sample]:
        """The files of one split, and the slices of its scans, finished."""
        if split not in self._samples:
            crop = self.crop if split == "train" else 0
            found = [(self._of_unit(unit, crop), self._group(unit)) for unit in self.units[split]]
            self._samples[split] = [sample for samples, _ in found for sample in samples]
            self._groups[split] = [name for samples, name in found for _ in samples]
        return self._samples[split]

    def groups(self, split: Split) -> list[str] | None:
        """The group of each sample of a split, for `group: file` its scan; None where images stand by themselves."""
        self.samples(split)
        names = self._groups[split]
        return names if self.group != "file" or len(set(names)) < len(names) else None

    @property
    def grouping(self) -> str:
        """What `groups` are."""
        return "volumes" if self.group == "file" else "patients"

    def _of_unit(self, unit: Unit, crop: int) -> list[Sample]:
        path = unit.sources[0].path
        if unit.scan is None and not unit.stack:
            return [{"image": path, **self._told_of(path)}]
        volume = self.reader_of_files.volume(unit)
        scan, read = self._flat(volume), ReadImage(self.channels, crop)
        if scan.beside and len(scan) == 1:
            raise DataError(f"{unit.path}: has one slice: with data.init_args.beside give scans of several")
        return [
            {"image": read.checked(path, self._image(scan, index)), **self._told_of(scan.file(index, volume))}
            for index in range(len(scan))
        ]

    def _flat(self, volume: Volume) -> FlatScan:
        return flat_scan(volume, self.reader_of_files.levels, self.geometry)

    def _image(self, scan: FlatScan, index: int) -> np.ndarray:
        """A slice of a scan as an image of as many channels as the others."""
        image = scan.image(index)
        return np.repeat(image, self.channels, axis=0) if not scan.beside else image

    def _told_of(self, path: Path) -> Sample:
        """What a sample holds besides the image; here nothing."""
        return {}

    def reading(self, split: Split) -> list[Any]:
        """Read and convert; cut or pad to `size` unless random crops follow."""
        from monai import transforms  # noqa: PLC0415

        crop = self.crop if split == "train" else 0
        steps = [transforms.Lambdad(keys="image", func=ReadImage(self.channels, crop, self.reader_of_files))]
        if crop == 0:
            steps.append(transforms.ResizeWithPadOrCropd(keys="image", spatial_size=(self.size, self.size)))
            steps.append(transforms.ToNumpyd(keys="image", dtype=np.uint8))
        return steps

    @cached_property
    def files(self) -> dict[Split, list[Path]]:
        """The files of each split, in a fixed order; errors as `units`."""
        return {
            split: sorted(source.path for unit in units for source in unit.sources)
            for split, units in self.units.items()
        }

    @cached_property
    def units(self) -> dict[Split, list[Unit]]:
        """The images and scans of each split, in a fixed order.

        Raises:
            DataError: The folder is missing, has too few images, or a group of them in two splits.
            EncdlError: A file cannot be opened.
        """
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder: set data.init_args.folder to your folder of images")
        shares: dict[Split, float] = {"test": self.test_share, "val": self.val_share}
        if not self._given:
            return self._split(self._units_below(self.root), shares)
        parts = {split: self._units_below(folder) for split, folder in self._given.items()}
        missing = {split: share for split, share in shares.items() if split not in parts}
        if missing:
            parts |= self._split(parts["train"], missing)
        scans = {split: [unit.scan for unit in parts[split] if unit.scan is not None] for split in SPLITS}
        series = {split: [scan.series for scan in scans[split] if scan.series] for split in SPLITS}
        if name := torn(series):
            first = next(unit for unit in parts["train"] + parts["val"] if unit.scan and unit.scan.series == name)
            raise DataError(f"{first.path}: this series is in two of train, val and test: keep it in one of them")
        groups = {split: [self._group(unit) for unit in parts[split]] for split in SPLITS}
        if self.group != "file" and (name := torn(groups)):
            raise DataError(
                f"{self.root}: `{name}` is in two of train, val and test: keep each {self.group} in one of them"
            )
        return {split: parts[split] for split in SPLITS}

    def _units_below(self, folder: Path) -> list[Unit]:
        return self.reader_of_files.units(folder)

    @cached_property
    def _given(self) -> dict[Split, Path]:
        """The splits that are sub-folders; there are none unless training is one."""
        return split_folders(self.root)

    def _inside(self, file: Path) -> PurePath:
        """The file's path below its split's folder."""
        path = file.relative_to(self.root)
        return path.relative_to(path.parts[0]) if self._given else path

    def _group(self, unit: Unit) -> str:
        """Name of what must stay together with an image or scan; parts of a series do."""
        if self.group == "file" and unit.scan is not None and unit.scan.series:
            return unit.scan.series
        return group_name(self._inside(unit.sources[0].path), self.group)

    def _kind(self, file: Path) -> str:
        """Files of each kind are split among themselves; here all are of one kind."""
        return ""

    def _split(self, units: list[Unit], shares: dict[Split, float]) -> dict[Split, list[Unit]]:
        """Deal the groups of images and scans out, kind by kind."""
        groups: dict[str, list[Unit]] = {}
        for unit in units:
            groups.setdefault(self._group(unit), []).append(unit)
        if len(groups) <= len(shares):
            raise DataError(
                f"{self.root}: holds {len(groups)} {GROUPS[self.group]}: training needs {len(shares) + 1} or more"
            )
        kinds: dict[str, list[str]] = {}
        for name, members in groups.items():
            kinds.setdefault(self._kind(members[0].sources[0].path), []).append(name)
        dealt = [deal(names, shares) for names in kinds.values()]
        return {
            split: sorted(
                (unit for parts in dealt for name in parts[split] for unit in groups[name]),
                key=lambda unit: unit.sources[0].path,
            )
            for split in ("train", *shares)
        }
