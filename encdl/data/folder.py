"""A folder of picture files of any size and kind."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from encdl import images
from encdl.data.base import PURPOSE, DataSpec, ImageDataModule, Sample, Split
from encdl.errors import DataError, UsageError
from encdl.lazy import need

SPLITS: tuple[Split, ...] = ("train", "val", "test")
Group: TypeAlias = Literal["file", "folder"]
LUMINANCE = (0.299, 0.587, 0.114)
"""Share of red, green and blue in grey (ITU-R BT.601)."""


class ImageFolder(ImageDataModule):
    """Every PNG, TIFF, NPY, JPEG and BMP file below a folder, whatever its size, depth or colour.

    If the folder has the sub-folders `train`, `val` and `test`, they are the splits. Otherwise the files are put in
    an order that depends only on a hash of their paths, and split there; with `group: folder` files of one
    sub-folder (one patient, say) stay together.

    Pictures become uint8 with `channels` channels: transparency is dropped, colour becomes luminance or grey is
    repeated, and 16-bit pictures are stretched from their own darkest to their brightest level.

    Args:
        folder: Where the files are.
        size: Height and width of a validation or test picture, cut or padded with black around the middle.
        channels: 1 (grey) or 3 (colour).
        group: What must not be torn apart by the split: nothing but the single file, or each sub-folder.
        val_share: Share of the files (or sub-folders) for validation; at least one.
        test_share: The same for testing.
        cache: Keep all pictures in memory instead of reading them again in every epoch.
        batch_size: As for every data module, like the rest.
        eval_batch_size: See `ImageDataModule`.
        crop: See `ImageDataModule`; 0 trains on pictures of `size`.
        repeats: See `ImageDataModule`.
        num_workers: See `ImageDataModule`.
        seed: See `ImageDataModule`; it does not change the split.
        augment: See `ImageDataModule`.

    Raises:
        UsageError: A number is out of its range.
    """

    def __init__(
        self,
        folder: str,
        *,
        size: int = 256,
        channels: Literal[1, 3] = 1,
        group: Group = "file",
        val_share: float = 0.1,
        test_share: float = 0.1,
        cache: bool = True,
        batch_size: int = 16,
        eval_batch_size: int = 8,
        crop: int = 64,
        repeats: int = 1,
        num_workers: int = 0,
        seed: int = 0,
        augment: bool = True,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            crop=crop,
            repeats=repeats,
            num_workers=num_workers,
            seed=seed,
            augment=augment,
        )
        if size < 1 or channels not in {1, 3}:
            raise UsageError(
                f"size is {size} and channels {channels}: give a positive size and 1 or 3 channels"
            )
        if min(val_share, test_share) <= 0 or val_share + test_share >= 1:
            raise UsageError(
                f"val_share is {val_share} and test_share {test_share}: both must be above 0, their sum below 1"
            )
        self.folder, self.size, self.channels, self.cache = Path(folder), size, channels, cache
        self.group, self.shares = group, {"test": test_share, "val": val_share}

    @property
    def spec(self) -> DataSpec:
        """The configured channels and size."""
        return DataSpec(channels=self.channels, height=self.size, width=self.size)

    def samples(self, split: Split) -> Sequence[Sample]:
        """The files of one split."""
        return [{"image": path} for path in self.files[split]]

    def reading(self, split: Split) -> list[Any]:
        """Read and convert; cut or pad to `size` unless random crops follow."""
        transforms = need("monai.transforms", PURPOSE)
        crop = self.crop if split == "train" else 0
        steps = [transforms.Lambdad(keys="image", func=ReadPicture(self.channels, crop))]
        if crop == 0:
            steps.append(transforms.ResizeWithPadOrCropd(keys="image", spatial_size=(self.size, self.size)))
            steps.append(transforms.ToNumpyd(keys="image", dtype=np.uint8))
        return steps

    @cached_property
    def files(self) -> dict[Split, list[Path]]:
        """The files of each split, in a fixed order.

        Raises:
            DataError: The folder is missing, or has too few pictures.
        """
        if not self.folder.is_dir():
            raise DataError(
                f"{self.folder}: no such folder: set data.init_args.folder to your folder of pictures"
            )
        if all((self.folder / split).is_dir() for split in SPLITS):
            return {split: _pictures(self.folder / split) for split in SPLITS}
        return self._split(_pictures(self.folder))

    def _split(self, files: list[Path]) -> dict[Split, list[Path]]:
        """Deal the groups out: the first by hash are for testing, the next for validation."""
        groups: dict[str, list[Path]] = {}
        for file in files:
            member = file if self.group == "file" else file.parent
            groups.setdefault(member.relative_to(self.folder).as_posix(), []).append(file)
        names = sorted(
            groups, key=lambda name: hashlib.sha256(name.encode(errors="surrogateescape")).digest()
        )
        if len(names) < len(SPLITS):
            kind = "pictures" if self.group == "file" else "sub-folders with pictures"
            raise DataError(f"{self.folder}: holds {len(names)} {kind}: training needs 3 or more")
        test = math.ceil(self.shares["test"] * len(names))
        val = min(math.ceil(self.shares["val"] * len(names)), len(names) - test - 1)
        parts: dict[Split, list[str]] = {
            "test": names[:test],
            "val": names[test : test + val],
            "train": names[test + val :],
        }
        return {
            split: sorted(file for name in part for file in groups[name]) for split, part in parts.items()
        }


@dataclass(frozen=True)
class ReadPicture:
    """Reads a file as uint8 (channels, H, W).

    Attributes:
        channels: 1 or 3.
        least: A picture with fewer rows or columns is refused.
    """

    channels: int
    least: int = 0

    def __call__(self, path: Path) -> np.ndarray:
        """Read `path`.

        Raises:
            ImageFileError: It is no readable picture.
            DataError: It is too small, or has neither grey nor colour.
        """
        array: np.ndarray = images.read(path)
        height, width = array.shape[:2]
        if min(height, width) < self.least:
            raise DataError(
                f"{path}: is {height} x {width} pixels, smaller than the training crop of {self.least}: "
                "remove it, or set data.init_args.crop lower"
            )
        planes = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
        if len(planes) > 4:
            raise DataError(f"{path}: has {len(planes)} channels: training takes grey, RGB and RGBA")
        planes = _to_bytes(planes[: 1 if len(planes) < 3 else 3])
        if len(planes) == self.channels:
            return np.array(planes, order="C")  # what was read may be read-only
        if self.channels == 3:
            return np.repeat(planes, 3, axis=0)
        grey: np.ndarray = np.tensordot(np.asarray(LUMINANCE), planes.astype(np.float64), axes=1)
        return grey.round().astype(np.uint8)[None]


def _to_bytes(planes: np.ndarray) -> np.ndarray:
    """uint8 as it is; deeper levels stretched from the picture's own darkest to its brightest."""
    if planes.dtype == np.uint8:
        return planes
    low, high = float(planes.min()), float(planes.max())
    stretched: np.ndarray = (planes.astype(np.float64) - low) * (255 / max(high - low, 1))
    return stretched.round().astype(np.uint8)


def _pictures(folder: Path) -> list[Path]:
    """All picture files below `folder`, hidden ones left out.

    Raises:
        DataError: There is none.
    """
    found = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in images.READABLE_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not found:
        raise DataError(f"{folder}: holds no pictures ({', '.join(images.READABLE_SUFFIXES)})")
    return sorted(found)
