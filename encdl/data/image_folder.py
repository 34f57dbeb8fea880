"""A folder of image files of any size and kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np

from encdl.data.base import DataSpec, ImageDataModule, Sample, Split
from encdl.data.splits import GROUPS, SPLITS, Group, deal, group_name, split_folders, torn
from encdl.files import images, stores
from encdl.files.folders import Left, inside
from encdl.utils.errors import DataError, UsageError
from encdl.utils.messages import warn

NAMED = 5
"""Files that are left out are named up to this number."""
LUMINANCE = (0.299, 0.587, 0.114)
"""Share of red, green and blue in grey (ITU-R BT.601)."""


@dataclass(eq=False, repr=False)
class ImageFolder(ImageDataModule):
    """Every PNG, TIFF, NPY, JPEG and BMP file below a folder, whatever its size, depth or colour.

    If the folder has the sub-folders `train`, `val` and `test` (or `Training`, `valid`, `Testing` and the like), they
    are the splits; if `val` or `test` is not there,
    it is split off `train`. Otherwise the files are put in an order that depends only on a hash of their paths, and
    split there. Files of one patient, say, stay together with `group: folder` if they lie in one sub-folder, and with
    `group: prefix` if their names start alike, up to the first underscore (`patient012_3.png`).

    Images become uint8 with `channels` channels: transparency is dropped, colour becomes luminance or grey is
    repeated, and 16-bit images are stretched from their own darkest to their brightest level.

    Args:
        folder: Where the files are.
        size: Height and width of a validation or test image, cut or padded with black around the middle.
        channels: 1 (grey) or 3 (colour).
        group: What must not be torn apart by the split: nothing but the single file, files whose names start
            alike up to the first `_`, or each sub-folder.
        val_share: Share of the groups for validation; at least one.
        test_share: The same for testing.
        cache: Keep all images in memory instead of reading them again in every epoch.

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

    @property
    def root(self) -> Path:
        """The folder."""
        return stores.cached(self.folder)

    @property
    def spec(self) -> DataSpec:
        """The configured channels and size."""
        return DataSpec(channels=self.channels, height=self.size, width=self.size)

    def samples(self, split: Split) -> Sequence[Sample]:
        """The files of one split."""
        return [{"image": path} for path in self.files[split]]

    def reading(self, split: Split) -> list[Any]:
        """Read and convert; cut or pad to `size` unless random crops follow."""
        from monai import transforms  # noqa: PLC0415

        crop = self.crop if split == "train" else 0
        steps = [transforms.Lambdad(keys="image", func=ReadImage(self.channels, crop))]
        if crop == 0:
            steps.append(transforms.ResizeWithPadOrCropd(keys="image", spatial_size=(self.size, self.size)))
            steps.append(transforms.ToNumpyd(keys="image", dtype=np.uint8))
        return steps

    @cached_property
    def files(self) -> dict[Split, list[Path]]:
        """The files of each split, in a fixed order.

        Raises:
            DataError: The folder is missing, has too few images, or a group of them in two splits.
        """
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder: set data.init_args.folder to your folder of images")
        shares: dict[Split, float] = {"test": self.test_share, "val": self.val_share}
        if not self._given:
            return self._split(images_below(self.root), shares)
        parts = {split: images_below(folder) for split, folder in self._given.items()}
        missing = {split: share for split, share in shares.items() if split not in parts}
        if missing:
            parts |= self._split(parts["train"], missing)
        groups = {split: [self._group(file) for file in parts[split]] for split in SPLITS}
        if self.group != "file" and (name := torn(groups)):
            raise DataError(
                f"{self.root}: `{name}` is in two of train, val and test: keep each {self.group} in one of them"
            )
        return {split: parts[split] for split in SPLITS}

    @cached_property
    def _given(self) -> dict[Split, Path]:
        """The splits that are sub-folders; there are none unless training is one."""
        return split_folders(self.root)

    def _inside(self, file: Path) -> PurePath:
        """The file's path below its split's folder."""
        path = file.relative_to(self.root)
        return path.relative_to(path.parts[0]) if self._given else path

    def _group(self, file: Path) -> str:
        """Name of what must stay together with `file`."""
        return group_name(self._inside(file), self.group)

    def _kind(self, file: Path) -> str:
        """Files of each kind are split among themselves; here all are of one kind."""
        return ""

    def _split(self, files: list[Path], shares: dict[Split, float]) -> dict[Split, list[Path]]:
        """Deal the groups of files out, kind by kind."""
        groups: dict[str, list[Path]] = {}
        for file in files:
            groups.setdefault(self._group(file), []).append(file)
        if len(groups) <= len(shares):
            raise DataError(
                f"{self.root}: holds {len(groups)} {GROUPS[self.group]}: training needs {len(shares) + 1} or more"
            )
        kinds: dict[str, list[str]] = {}
        for name, members in groups.items():
            kinds.setdefault(self._kind(members[0]), []).append(name)
        dealt = [deal(names, shares) for names in kinds.values()]
        return {
            split: sorted(file for parts in dealt for name in parts[split] for file in groups[name])
            for split in ("train", *shares)
        }


@dataclass(frozen=True)
class ReadImage:
    """Reads a file as uint8 (channels, H, W).

    Attributes:
        channels: 1 or 3.
        least: An image with fewer rows or columns is refused.
    """

    channels: int
    least: int = 0

    def __call__(self, path: Path) -> np.ndarray:
        """Read `path`.

        Raises:
            ImageFileError: It is no readable image.
            DataError: It is too small, or has neither grey nor colour.
        """
        array: np.ndarray = images.read(path)
        height, width = array.shape[:2]
        if min(height, width) < self.least:
            raise DataError(
                f"{path}: is {height} x {width} pixels, smaller than the training crop of {self.least}: "
                "remove it, or set data.init_args.crop lower"
            )
        return _converted(path, array, self.channels)


def read_as_it_is(path: Path) -> np.ndarray:
    """Read a file as uint8 (1, H, W) if it is grey, (3, H, W) if it has colour.

    Raises:
        ImageFileError: It is no readable image.
        DataError: It has neither grey nor colour.
    """
    array: np.ndarray = images.read(path)
    return _converted(path, array, 3 if array.ndim == 3 and array.shape[2] >= 3 else 1)


def _converted(path: Path, array: np.ndarray, channels: int) -> np.ndarray:
    """An array (H, W) or (H, W, C) as uint8 (channels, H, W)."""
    planes = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    if len(planes) > 4:
        raise DataError(f"{path}: has {len(planes)} channels: training takes grey, RGB and RGBA")
    planes = _to_bytes(planes[: 1 if len(planes) < 3 else 3])
    if len(planes) == channels:
        return np.array(planes, order="C")  # what was read may be read-only
    if channels == 3:
        return np.repeat(planes, 3, axis=0)
    grey: np.ndarray = np.tensordot(np.asarray(LUMINANCE), planes.astype(np.float64), axes=1)
    return grey.round().astype(np.uint8)[None]


def _to_bytes(planes: np.ndarray) -> np.ndarray:
    """uint8 as it is; deeper levels stretched from the image's own darkest to its brightest."""
    if planes.dtype == np.uint8:
        return planes
    low, high = float(planes.min()), float(planes.max())
    stretched: np.ndarray = (planes.astype(np.float64) - low) * (255 / max(high - low, 1))
    return stretched.round().astype(np.uint8)


def images_below(folder: Path) -> list[Path]:
    """All image files below `folder`, hidden ones left out; tells of others.

    Raises:
        DataError: There is none, or a part of the folder cannot be read.
    """
    left: list[Left] = []

    def hidden(path: Path) -> bool:
        return any(part.startswith(".") for part in path.relative_to(folder).parts)

    def wanted(path: Path) -> bool:
        return path.suffix.lower() in images.READABLE_SUFFIXES and not hidden(path)

    found = sorted(source.path for source in inside(folder, wanted, left))
    for one in left:
        if one.why.startswith("cannot"):
            raise DataError(f"{one.path}: {one.why}: check its permissions, or move it out of {folder}")
    others = [str(one.path) for one in left if not hidden(one.path)]
    if not found:
        raise DataError(f"{folder}: holds no images ({', '.join(images.READABLE_SUFFIXES)})")
    if others:
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        warn(
            f"{folder}: {len(others)} of {len(others) + len(found)} files are left out, for training reads "
            f"{', '.join(images.READABLE_SUFFIXES)} alone: {', '.join(others[:NAMED])}{more}"
        )
    return found
