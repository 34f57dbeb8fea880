"""Labelled images in one `.npz` file: MedMNIST's layout, and one with a column that says the split."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from encdl.data.base import DataSpec, ImageDataModule, Sample, Split
from encdl.data.splits import SPLITS, torn
from encdl.files import stores
from encdl.utils.errors import DataError

NAMED_SPLITS = "images"
GROUPS = ("patient", "group")
MOST_KINDS = 8
"""Values of a column that is an attribute."""
"""Columns of what must not be in two splits."""
MEDMNIST = "fetch https://zenodo.org/records/10519652/files/{file}?download=1"
SOURCES = {
    "brain_tumor.npz": "make it from kaggle.com/datasets/sartajbhuvaji/brain-tumor-classification-mri",
    "acdc.npz": "make it from the ACDC challenge's data (creatis.insa-lyon.fr/Challenge/acdc), which has its own terms",
}
"""Where files of known names come from; none of them may be shipped."""
LAYOUTS = (
    "`train_images`, `val_images`, `test_images` (and `..._labels`), as the package medmnist writes them, "
    "or `images` and `split` (and `labels`, `masks`, `class_names`)"
)


@dataclass(frozen=True)
class Part:
    """One split: uint8 (N, H, W), (N, H, W, 3) or, of volumes, (N, D, H, W).

    There may be labels (N,), masks (N, H, W), and `volumes` (N,), the scans that images are slices of.
    """

    images: np.ndarray
    labels: np.ndarray | None
    masks: np.ndarray | None
    volumes: np.ndarray | None = None


@dataclass(eq=False, repr=False)
class NpzImages(ImageDataModule):
    """Images of one size, with labels or masks if the file has them.

    Two layouts are known by the arrays in the file. MedMNIST's: `train_images` uint8 (N, H, W) or (N, H, W, 3) and
    `train_labels` (N, 1), and the same for val and test. Ours: `images`, and `split` (N,) with 0 for training, 1 for
    validation and 2 for testing; if there, `labels` (N,), `masks` uint8 (N, H, W) and `class_names`. If it has a column
    `patient` or `group`, none of them may be in two splits. Slices of one patient (and of one `frame`, if there is such
    a column: a point in time) are one volume.

    Args:
        file: Name of the file, such as `pneumoniamnist.npz`.
        data_dir: The folder it is in, a path or an address (`s3://…`), as in other data sets.
        class_names: Names of the classes, for files without them.
        crop: As in `ImageDataModule`, like all further settings; 0, the default here, trains on whole images.

    Raises:
        UsageError: A number is out of its range.
    """

    file: str
    data_dir: str = "data"
    class_names: list[str] | None = None
    _: KW_ONLY
    crop: int = 0

    @property
    def of_volumes(self) -> bool:
        """Whether images are volumes (N, D, H, W)."""
        return False

    @property
    def path(self) -> Path:
        """The file."""
        return stores.cached(self.data_dir, self.file)

    @property
    def spec(self) -> DataSpec:
        """The file's description; reads it."""
        pictures = self.parts["train"].images
        if self.of_volumes:
            depth, height, width = pictures.shape[1:]
            return DataSpec(1, height, width, classes=self._classes(), depth=depth)
        channels = 1 if pictures.ndim == 3 else pictures.shape[3]
        return DataSpec(channels, pictures.shape[1], pictures.shape[2], classes=self._classes())

    def samples(self, split: Split) -> Sequence[Sample]:
        """The images of one split, with `label` and `mask` where the file has them."""
        part = self.parts[split]
        one = part.images.ndim == 3 or self.of_volumes
        planes = part.images[:, None] if one else np.moveaxis(part.images, -1, 1)
        samples: list[Sample] = [{"image": np.ascontiguousarray(image)} for image in planes]
        for index, sample in enumerate(samples):
            if part.labels is not None:
                sample["label"] = int(part.labels[index])
            if part.masks is not None:
                sample["mask"] = part.masks[index][None]
                if part.volumes is not None:
                    sample["volume"] = int(part.volumes[index])
        return samples

    def groups(self, split: Split) -> list[str] | None:
        """The patient or the cluster of near-duplicates of each image of a split; None where the file has neither."""
        arrays, number = self._arrays, SPLITS.index(split)
        names = [name for name in GROUPS if name in arrays]
        if not names or NAMED_SPLITS not in arrays:
            return None
        return [str(name) for name in arrays[names[0]][arrays["split"] == number]]

    @property
    def grouping(self) -> str:
        """What `groups` are."""
        return "patients" if GROUPS[0] in self._arrays else "clusters"

    def attributes(self, split: Split) -> dict[str, np.ndarray]:
        """Further columns of a file in our layout that tell a few kinds of images apart: int64 (N,) by name."""
        arrays, number = self._arrays, SPLITS.index(split)
        if NAMED_SPLITS not in arrays:
            return {}
        known, column = {*GROUPS, "images", "labels", "masks", "split", "class_names"}, arrays["split"]
        found = {}
        for name in sorted(set(arrays) - known):
            values = arrays[name]
            kinds = np.unique(values) if values.shape == column.shape and values.dtype.kind in "iu" else ()
            if 2 <= len(kinds) <= MOST_KINDS:
                found[name] = np.searchsorted(kinds, values[column == number]).astype(np.int64)
        return found

    @cached_property
    def parts(self) -> dict[Split, Part]:
        """The checked arrays of each split.

        Raises:
            DataError: The file is missing, unreadable or laid out in another way.
        """
        arrays = self._arrays
        if NAMED_SPLITS in arrays:
            return self._parts_by_column(arrays)
        return {
            split: self._part(f"{split}_images", arrays, arrays.get(f"{split}_labels"), arrays.get(f"{split}_masks"))
            for split in SPLITS
        }

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        self.prepare_data()
        if not self.path.is_file():
            raise DataError(
                f"{self.path}: no such file: put {self.path.name} into {self.path.parent}/, or set "
                f"data.init_args.data_dir (DATA_DIR=... with make); {_source(self.path)}"
            )
        try:
            with self.path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (ValueError, OSError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            reason = " ".join(str(error).split())[:100]
            raise DataError(f"{self.path}: is not a readable .npz file: fetch it again ({reason})") from error

    def _parts_by_column(self, arrays: Mapping[str, np.ndarray]) -> dict[Split, Part]:
        whole = self._part("images", arrays, arrays.get("labels"), arrays.get("masks"))
        column = self._array("split", arrays)
        if column.shape != (len(whole.images),) or not np.isin(column, (0, 1, 2)).all():
            raise self._wrong("`split` must hold 0 (train), 1 (val) or 2 (test) for each image")
        for name in GROUPS:
            if name in arrays:
                self._check_apart(name, arrays[name], column)
        fields = (whole.images, whole.labels, whole.masks, _volumes(arrays))
        return {
            split: Part(*(None if each is None else each[column == number] for each in fields))  # type: ignore[arg-type]
            for number, split in enumerate(SPLITS)
        }

    def _check_apart(self, name: str, groups: np.ndarray, column: np.ndarray) -> None:
        if groups.shape != column.shape or groups.dtype.kind not in "iuU":
            raise self._wrong(f"`{name}` must hold one number or word for each image")
        if group := torn({split: groups[column == number].tolist() for number, split in enumerate(SPLITS)}):
            raise self._wrong(f"{name} {group} is in two splits: keep each in one, or the figures mean nothing")

    def _part(
        self, name: str, arrays: Mapping[str, np.ndarray], labels: np.ndarray | None, masks: np.ndarray | None
    ) -> Part:
        """One split's arrays, checked against one another."""
        images = self._array(name, arrays)
        flat = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in {1, 3})
        fits = images.ndim == 4 if self.of_volumes else flat
        if images.dtype != np.uint8 or not fits or 0 in images.shape[1:]:
            wanted = "(N, D, H, W)" if self.of_volumes else "(N, H, W) or (N, H, W, 3)"
            raise self._wrong(f"`{name}` is {images.dtype} {images.shape}, not uint8 {wanted}")
        if labels is not None:
            if labels.size != len(images) or labels.dtype.kind not in "iu" or (labels < 0).any():
                raise self._wrong(f"there must be one integer label from 0 for each of the {len(images)} `{name}`")
            labels = labels.reshape(-1).astype(np.int64)
        if masks is not None and (masks.shape != images.shape[:3] or masks.dtype != np.uint8):
            raise self._wrong(f"masks must be uint8 {images.shape[:3]} like `{name}`")
        return Part(images, labels, masks)

    def _array(self, name: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        if name not in arrays:
            raise self._wrong(f"it has no `{name}`: known are {LAYOUTS}")
        return arrays[name]

    def _classes(self) -> tuple[str, ...]:
        """Names from the settings or the file, or else the numbers; checked against the values that occur."""
        values = [
            int(values.max())
            for part in self.parts.values()
            for values in (part.labels, part.masks)
            if values is not None and values.size
        ]
        count = max(values, default=-1) + 1
        named = self._named()
        if named and len(named) < count:
            raise self._wrong(f"{count} classes occur, and {len(named)} are named")
        return named or tuple(str(number) for number in range(count))

    def _named(self) -> tuple[str, ...]:
        return tuple(self.class_names or map(str, self._arrays.get("class_names", ())))

    def _wrong(self, what: str) -> DataError:
        return DataError(f"{self.path}: {what}")


def _source(path: Path) -> str:
    """Where to fetch a file, or what to make it from."""
    if path.name in SOURCES:
        return f"{SOURCES[path.name]}, in one of the two layouts: {LAYOUTS}"
    if "mnist" in path.name.lower():
        return MEDMNIST.format(file=path.name)
    return f"it must hold {LAYOUTS}"


def _volumes(arrays: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Which scan each slice is of: int64 (N,), or None where the file does not say."""
    names = [name for name in ("patient", "frame") if name in arrays]
    if "patient" not in names:
        return None
    columns = np.stack([np.unique(arrays[name], return_inverse=True)[1].reshape(-1) for name in names])
    volumes: np.ndarray = np.unique(columns, axis=1, return_inverse=True)[1].reshape(-1)
    return volumes
