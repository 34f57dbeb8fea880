"""A folder of image files with one sub-folder for each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from encdl.data.base import DataSpec, Sample, Split
from encdl.data.image_folder import ImageFolder, ReadImage
from encdl.data.resize import FitImage
from encdl.data.splits import GROUPS, SPLITS, split_of
from encdl.utils.errors import DataError


@dataclass(eq=False, repr=False)
class ClassFolder(ImageFolder):
    """Labelled images: `FOLDER/CLASS/…`, or `FOLDER/train/CLASS/…` and the same for `val` and `test`.

    Splits may also be called `Training`, `Testing` and the like. The sub-folders' names are the classes, in the order
    of the alphabet. Images are read as by `ImageFolder`; but as a label is about the whole image, none is cut: each is
    resized until it fits `size`, and padded with black. Where the splits are not given as folders, each class is split
    by itself, so that every split has all of them; `group` works across classes, as one patient may be in two.

    Args:
        folder: Where the classes' folders are.
        size: Height and width of every image.
        crop: As in `ImageDataModule`; 0, the default here, trains on whole images.

    Raises:
        UsageError: A number is out of its range.
    """

    _: KW_ONLY
    size: int = 128
    crop: int = 0

    @property
    def spec(self) -> DataSpec:
        """The configured channels and size, and the classes that the folder has; lists its files."""
        return DataSpec(self.channels, self.size, self.size, classes=self.classes)

    def samples(self, split: Split) -> Sequence[Sample]:
        """The files of one split with their labels."""
        labels = {name: label for label, name in enumerate(self.classes)}
        return [{"image": path, "label": labels[self._kind(path)]} for path in self.files[split]]

    def reading(self, split: Split) -> list[Any]:
        """Read, convert and fit into `size`."""
        from monai.transforms import Lambdad  # noqa: PLC0415

        steps = [ReadImage(self.channels), FitImage(self.size)]
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
