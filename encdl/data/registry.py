"""Data sets by the short names that the command line takes, and the images of them that a cipher is judged on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

import encdl.data.embedded
import encdl.data.lesions
import encdl.data.mednist  # noqa: F401  # each registers what it has
from encdl.data.base import DATA_SETS, ImageDataModule, Split
from encdl.data.class_folder import ClassFolder
from encdl.data.decathlon import Decathlon
from encdl.data.folder_files import PLAIN, read_as_it_is
from encdl.data.image_folder import ImageFolder
from encdl.data.medmnist import NAMES as MEDMNIST
from encdl.data.medmnist import MedMNIST
from encdl.data.npz import NpzImages
from encdl.data.split_digest import digest
from encdl.data.splits import Group, group_name
from encdl.data.subset import spread
from encdl.files import stores
from encdl.files.file_names import is_encrypted
from encdl.files.levels import DEFAULT
from encdl.files.scans import AS_IT_IS, FlatScan, flat_scan
from encdl.utils.errors import DataError, UsageError

FILES = ("brain_tumor", "acdc")
"""Sets that are one .npz file of that name."""
KNOWN = (
    f"{', '.join(FILES)}, a set of MedMNIST such as pneumoniamnist, or decathlon:TASK (these and mednist from "
    "--data-dir, which is data/ by default), a folder of images, classes:FOLDER with a sub-folder for each class, or "
    "an .npz file"
)
ENOUGH = 100
"""Images of a set that are judged unless told otherwise."""


def open_data(name: str, data_dir: str | None = None) -> ImageDataModule:
    """A data module by its name, with its default settings.

    Args:
        name: `embedded` (MRI slices), `lesions` (the same with SYNTHETIC lesions, labelled), `tissue` (the same with
            masks of grey and white matter), `brain_tumor`, `acdc`, a name of MedMNIST's, `mednist`,
            `decathlon:Task09_Spleen` and the like, the path of a folder of images, `classes:` and the path of a folder
            of images by class, the path of an .npz file, or a name that another package registered in `DATA_SETS`.
            `medmnist:NAME` is `NAME`, and `@` and a folder after a name stand for `data_dir`.
        data_dir: The folder of a set that is not embedded; `data` by default.

    Raises:
        DataError: There is nothing of that name.
        UsageError: MedMNIST has no such set, or a folder was given for data that is not looked for in one.
    """
    if public := _public(name, data_dir):
        return public
    if data_dir is not None:
        raise UsageError(f"--data-dir says where sets such as brain_tumor are: {name or 'no data'} needs none")
    if name in DATA_SETS:
        return _made(name)
    path = Path(name)
    if name.startswith("classes:"):
        return ClassFolder(folder=name.removeprefix("classes:"))
    if path.suffix == ".npz":
        return NpzImages(file=path.name, data_dir=str(path.parent))
    if name and (path.is_dir() or stores.is_folder(path)):
        return ImageFolder(folder=str(path))
    if is_encrypted(path) and path.is_file():
        raise DataError(f"{name}: is encrypted: give the image that it was made of")
    raise DataError(f"{name}: no such data: give {', '.join(sorted(DATA_SETS))}, {KNOWN}")


def _public(name: str, data_dir: str | None) -> ImageDataModule | None:
    """A set that is looked for in a folder: `data_dir`, the one after `@`, or `data`."""
    title, _, behind = name.partition("@")
    folder = behind or data_dir or "data"
    match title.split(":"):
        case [one] if one in FILES:
            return NpzImages(file=f"{one}.npz", data_dir=folder)
        case [one] if one in MEDMNIST:
            return MedMNIST(name=one, data_dir=folder)
        case [one] if one in DATA_SETS and not needs_no_folder(one):
            return _made(one, data_dir=folder)
        case ["medmnist", inner]:
            return MedMNIST(name=inner, data_dir=folder)
        case ["decathlon", inner]:
            return Decathlon(task=inner, data_dir=folder)
    return None


def needs_no_folder(name: str) -> bool:
    """Whether a name of `DATA_SETS` alone opens a set, which then is not looked for in a folder."""
    return name in DATA_SETS and "data_dir" not in {each.name for each in fields(DATA_SETS[name])}


def _made(name: str, **settings: str) -> ImageDataModule:
    try:
        make: Callable[..., ImageDataModule] = DATA_SETS[name]
        return make(**settings)
    except TypeError as error:
        raise UsageError(f"data set {name!r} cannot be opened by its name alone: {error}") from None


def test_images(name: str, most: int) -> list[Tensor]:
    """Up to `most` test images, evenly spread over the test split, uint8 (C, H, W) each.

    Raises:
        DataError: The data set is missing, empty or malformed.
    """
    data = open_data(name)
    data.setup("test")
    dataset = data.test_dataloader().dataset
    count = len(dataset)  # type: ignore[arg-type]
    chosen = [index * count // min(most, count) for index in range(min(most, count))]
    return [torch.as_tensor(dataset[index]["image"]) for index in islice(chosen, most)]


@dataclass(frozen=True)
class Images:
    """Images to judge by, each at its own size.

    Attributes:
        images: uint8 (C, H, W) each.
        groups: The patient or cluster that each belongs to, or a name of its own.
        dataset: Where they are from, in words.
        of: How many there were to choose from.
    """

    images: tuple[Tensor, ...]
    groups: tuple[str, ...]
    dataset: str
    of: int

    @property
    def digest(self) -> str:
        """32 hex digits that change when an image does."""
        return digest([{"image": image} for image in self.images])

    def describe(self) -> str:
        """How many images of how many groups, in words."""
        groups = len(set(self.groups))
        whose = "patient or cluster" if groups == 1 else "patients or clusters"
        several = f" of {groups} {whose}" if groups < len(self.images) else ""
        of = "" if self.of == len(self.images) else f" (of {self.of})"
        return f"{self.dataset}: {len(self.images)} image{'s' * (len(self.images) != 1)}{of}{several}"


def images_to_judge(
    name: str, data_dir: str | None = None, most: int | None = None, split: Split = "test", group: Group = "file"
) -> Images:
    """The images of a split; of a folder without classes all images, whatever splits training would make of it.

    Args:
        name: As in `open_data`; or the path of one image, DICOM file or NIfTI volume.
        data_dir: The same.
        most: How many at the most, spread over patients or clusters; all of a folder and `ENOUGH` of a set if None.
        split: Of a set.
        group: What belongs together in a folder, as in training.

    Raises:
        DataError: The data set is missing, empty or malformed.
        UsageError: As in `open_data`.
    """
    alone = data_dir is None and is_one_file(name)
    data = ImageFolder(name) if alone else open_data(name, data_dir)
    found: Sequence[Tensor]
    if type(data) is ImageFolder:
        chosen, groups, found = _of_folder(Path(name) if alone else data.root, group, most)
        words = name
    else:
        if not data.reading(split):
            dataset = data.samples(split)
            if not dataset:
                raise DataError(f"{type(data).__name__} has no images in its {split} split")
        else:
            data.setup("test" if split == "test" else "validate")
            loader = data.test_dataloader() if split == "test" else data.val_dataloader()
            dataset = loader.dataset  # type: ignore[assignment]
        known = data.groups(split) if isinstance(data, NpzImages) else None
        groups = known or [str(index) for index in range(len(dataset))]
        chosen = spread(groups, ENOUGH if most is None else most)
        found = [torch.as_tensor(dataset[index]["image"]) for index in chosen]
        words = f"{name}, {split} split"
    return Images(tuple(found), tuple(groups[index] for index in chosen), words, len(groups))


def is_one_file(name: str) -> bool:
    """Whether a name is the path of an image, DICOM file or volume, and not of a set."""
    return Path(name).is_file() and PLAIN.wanted(Path(name))


def _of_folder(root: Path, group: Group, most: int | None) -> tuple[list[int], list[str], list[Tensor]]:
    """The numbers of the chosen images below a folder, or in a file, the group of every image, and the chosen ones.

    A slice of a scan is an image, and a scan a group where there is no larger one.
    """
    of: list[tuple[Path, FlatScan | None, int]] = []
    top = root.parent if root.is_file() else root
    groups: list[str] = []
    for unit in PLAIN.units(root):
        scan = None if unit.scan is None and not unit.stack else flat_scan(PLAIN.volume(unit), DEFAULT, AS_IT_IS)
        path, count = unit.sources[0].path, 1 if scan is None else len(scan)
        of += [(path, scan, index) for index in range(count)]
        groups += [group_name(path.relative_to(top), group)] * count
    chosen = spread(groups, most)
    picked = [of[index] for index in chosen]
    found = [read_as_it_is(path) if scan is None else scan.image(index) for path, scan, index in picked]
    return chosen, groups, [torch.from_numpy(image) for image in found]
