"""The Medical Segmentation Decathlon: volumes of ten organs with masks, as flat slices or as volumes.

Source: medicaldecathlon.com (Antonelli et al. 2022, Nature Communications 13, 4128), CC BY-SA 4.0.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from encdl.data.base import DataSpec, ImageDataModule, Sample, Split
from encdl.data.download import fetch
from encdl.data.splits import deal
from encdl.data.volumes import TURNED, Axis, Volume, flat, read_volume, to_bytes, with_label
from encdl.files import stores
from encdl.files.levels import Levels
from encdl.files.resize import FitImage
from encdl.files.scans import Geometry
from encdl.utils.errors import DataError, UsageError

Pair: TypeAlias = tuple[Path, Path]
"""Files of a volume and of its mask."""


@dataclass(eq=False, repr=False)
class DecathlonTask(ImageDataModule):
    """One task of the Decathlon, split by volume, so that no patient's slices are in two splits.

    Where `dataset.json` names volumes with masks for `training`, `validation` and `test`, those are the splits. The
    challenge keeps the masks of its own test volumes: then all three splits come from its training volumes, in an order
    that depends only on a hash of their names. Brightness becomes 8 bits volume by volume.

    Args:
        task: Name of the task and its folder, such as `Task09_Spleen`.
        data_dir: The folder that holds the task's folder.
        download: Fetch the task from MONAI's server if it is not there; up to tens of gigabytes.
        channels: Which channels to take, for tasks with several, by their numbers in `dataset.json`.
        window: Levels that become black and white, in the file's units (Hounsfield units in CT); null for
            `percentiles`.
        percentiles: Percentiles of a volume that become black and white.
        val_share: Share of the volumes for validation, at least one, where `dataset.json` names none.
        test_share: The same for testing.

    Raises:
        UsageError: A setting is out of its range.
    """

    task: str
    data_dir: str = "data"
    _: KW_ONLY
    download: bool = False
    channels: list[int] = field(default_factory=lambda: [0])
    window: tuple[float, float] | None = None
    percentiles: tuple[float, float] = (0.5, 99.5)
    val_share: float = 0.1
    test_share: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.percentiles
        shares = (self.val_share, self.test_share)
        right = {
            "channels one or more numbers from 0": bool(self.channels) and min(self.channels) >= 0,
            "window two rising levels": self.window is None or self.window[0] < self.window[1],
            "percentiles two rising numbers from 0 to 100": 0 <= low < high <= 100,
            "val_share and test_share above 0, their sum below 1": min(shares) > 0 and sum(shares) < 1,
            **self._ranges(),
        }
        if wrong := [wanted for wanted, given in right.items() if not given]:
            raise UsageError(f"data setting out of range: give {wrong[0]}")
        self._read_splits: dict[Split, list[Sample]] = {}

    def _ranges(self) -> dict[str, bool]:
        """What further settings must be, and whether they are."""
        return {}

    @abstractmethod
    def _samples(self, number: int, pair: Pair, split: Split) -> list[Sample]:
        """What a volume gives; its number is its place in the split."""

    def samples(self, split: Split) -> Sequence[Sample]:
        """The images of one split with `mask`; reads its volumes once."""
        if split not in self._read_splits:
            self._read_splits[split] = [
                sample
                for number, pair in enumerate(self.volumes[split])
                for sample in self._samples(number, pair, split)
            ]
        return self._read_splits[split]

    @property
    def root(self) -> Path:
        """The task's folder."""
        return stores.cached(self.data_dir, self.task)

    def prepare_data(self) -> None:
        """Fetch the task if that is asked for; Lightning calls it in one process."""
        if not self.root.is_dir() and self.download:
            from monai.apps import DecathlonDataset  # noqa: PLC0415

            source = DecathlonDataset
            if self.task not in source.resource:
                raise UsageError(f"the Decathlon has no {self.task}: give one of {', '.join(source.resource)}")
            fetch(source.resource[self.task], source.md5[self.task], self.root)

    @property
    def levels(self) -> Levels:
        """How the values of a volume become bytes."""
        if self.window is None:
            return Levels(percentiles=self.percentiles)
        low, high = self.window
        return Levels(window=((low + high) / 2, high - low))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes by label, background first."""
        return self._described[1]

    @cached_property
    def _described(self) -> tuple[dict[Split, list[Pair]], tuple[str, ...]]:
        """The volumes with masks by split, and the classes, as `dataset.json` says.

        Raises:
            DataError: The task is not there, or its description is damaged.
        """
        self.prepare_data()
        file = self.root / "dataset.json"
        if not self.root.is_dir():
            from monai.apps import DecathlonDataset  # noqa: PLC0415

            source = DecathlonDataset.resource
            known = f"fetch {source[self.task]}" if self.task in source else f"name one of {', '.join(source)}"
            raise DataError(
                f"{self.root}: no such folder: set data.init_args.download to true (ARGS='--data.init_args.download "
                f"true' with make), or {known} and unpack it into "
                f"{self.data_dir}/, or set data.init_args.data_dir (DATA_DIR=... with make)"
            )
        try:
            described = json.loads(file.read_text())
            named: dict[Split, str] = {"train": "training", "val": "validation", "test": "test"}
            pairs = {split: self._pairs(described.get(part, [])) for split, part in named.items()}
            pairs["train"] = self._pairs(described["training"])
            names = [str(described["labels"][str(label)]) for label in range(len(described["labels"]))]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{file}: cannot be read, or has no `training` and `labels` (from 0) as the Decathlon's has: "
                "fetch the task again"
            ) from error
        return pairs, tuple(names)

    def _pairs(self, entries: list[Any]) -> list[Pair]:
        """Those with a mask."""
        with_mask = [pair for pair in entries if not isinstance(pair, str)]
        return [(self.root / pair["image"], self.root / pair["label"]) for pair in with_mask]

    @cached_property
    def volumes(self) -> dict[Split, list[Pair]]:
        """The volumes of each split, in a fixed order.

        Raises:
            DataError: There are fewer than three.
        """
        named = self._described[0]
        if all(named.values()):
            return named
        found = {pair[0].name: pair for pair in named["train"]}
        if len(found) < 3:
            raise DataError(f"{self.root}: has {len(found)} volumes with masks: training needs 3 or more")
        shares: dict[Split, float] = {"test": self.test_share, "val": self.val_share}
        return {split: [found[name] for name in sorted(names)] for split, names in deal(found, shares).items()}

    def _read_pair(self, pair: Pair) -> tuple[Volume, np.ndarray, np.ndarray]:
        """A volume as it was read, its levels uint8 (C, X, Y, Z), and its mask uint8 (1, X, Y, Z).

        Raises:
            DataError: A file is damaged, or the two do not go together.
        """
        image, mask = map(read_volume, pair)
        if max(self.channels) >= len(image.voxels):
            raise DataError(
                f"{pair[0]}: has {len(image.voxels)} channels: set data.init_args.channels to numbers below that"
            )
        labels = mask.voxels
        if labels.shape != (1, *image.voxels.shape[1:]) or mask.turned_from != image.turned_from:
            raise DataError(f"{pair[1]}: its shape or axes are not those of {pair[0]}: fetch the task again")
        if not np.isin(labels, range(len(self.classes))).all():
            raise DataError(f"{pair[1]}: holds labels other than 0 to {len(self.classes) - 1}: fetch the task again")
        levels = to_bytes(image.voxels[self.channels], self.window, self.percentiles)
        return image, levels, labels.astype(np.uint8)


@dataclass(eq=False, repr=False)
class Decathlon(DecathlonTask):
    """Slices of one task; validation and test hold every slice.

    Args:
        axis: Direction that the slices are across.
        size: Height and width of a slice: it is resized by its size in millimetres until it fits, and padded.
        empty: Share of the training slices without any label that are kept, evenly spread.
    """

    axis: Axis = "axial"
    size: int = 128
    empty: float = 0.1

    def _ranges(self) -> dict[str, bool]:
        return {"size 1 or more": self.size >= 1, "empty from 0 to 1": 0 <= self.empty <= 1}

    @property
    def spec(self) -> DataSpec:
        """The configured size and the classes that `dataset.json` names; reads that."""
        geometry = Geometry(TURNED[self.axis], fit=self.size)
        return DataSpec(
            len(self.channels), self.size, self.size, classes=self.classes, levels=self.levels, geometry=geometry
        )

    def _samples(self, number: int, pair: Pair, split: Split) -> list[Sample]:
        """The slices of one volume; in training, of those without a label only a share."""
        image, levels, labels = self._read_pair(pair)
        fit, pixel = FitImage(self.size), image.plane(self.axis)
        return [
            {
                "image": fit(flat(levels, self.axis, index), pixel),
                "mask": fit.mask(flat(labels, self.axis, index), pixel),
                "volume": number,
            }
            for index in with_label(labels, self.axis, self.empty if split == "train" else 1.0)
        ]
