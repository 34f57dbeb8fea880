"""Data sets by the short names that the command line takes."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from encdl.data.base import ImageDataModule
from encdl.data.classes import ClassFolder
from encdl.data.decathlon import Decathlon
from encdl.data.embedded import EmbeddedMRI, EmbeddedTissue
from encdl.data.folder import ImageFolder
from encdl.data.lesions import SyntheticLesionMRI
from encdl.data.medmnist import MedMNIST
from encdl.data.mednist import MedNIST
from encdl.data.npz import NpzImages
from encdl.errors import DataError

EMBEDDED: dict[str, type[ImageDataModule]] = {
    "embedded": EmbeddedMRI,
    "lesions": SyntheticLesionMRI,
    "tissue": EmbeddedTissue,
}
KNOWN = (
    f"{', '.join(EMBEDDED)}, a folder of images, classes:FOLDER with a sub-folder for each class, an .npz file, "
    "medmnist:NAME, mednist or decathlon:TASK (these three with @FOLDER unless they are in data/)"
)


def open_data(name: str) -> ImageDataModule:
    """A data module by its name, with its default settings.

    Args:
        name: `embedded` (MRI slices), `lesions` (the same with SYNTHETIC lesions, labelled), `tissue` (the same with
            masks of grey and white matter), the path of a folder of images, `classes:` and the path of a folder of
            images by class, the path of an .npz file, or `medmnist:pneumoniamnist`, `mednist` or
            `decathlon:Task09_Spleen` and the like, which lie in `data/` unless `@` and another folder follow.

    Raises:
        DataError: There is nothing of that name.
        UsageError: MedMNIST has no such set.
    """
    if name in EMBEDDED:
        return EMBEDDED[name]()
    if public := _public(name):
        return public
    path = Path(name)
    if name.startswith("classes:"):
        return ClassFolder(folder=name.removeprefix("classes:"))
    if path.suffix == ".npz":
        return NpzImages(file=path.name, data_dir=str(path.parent))
    if name and path.is_dir():
        return ImageFolder(folder=str(path))
    raise DataError(f"{name}: no such data: give {KNOWN}")


def _public(name: str) -> ImageDataModule | None:
    """A public data set, in `data/` or in the folder after `@`."""
    title, _, folder = name.partition("@")
    match title.split(":"):
        case ["mednist"]:
            return MedNIST(data_dir=folder or "data")
        case ["medmnist", inner]:
            return MedMNIST(name=inner, data_dir=folder or "data")
        case ["decathlon", inner]:
            return Decathlon(task=inner, data_dir=folder or "data")
    return None


def test_images(name: str, most: int) -> list[Tensor]:
    """Up to `most` test pictures, evenly spread over the test split, uint8 (C, H, W) each.

    Raises:
        DataError: The data set is missing, empty or malformed.
    """
    data = open_data(name)
    data.setup("test")
    dataset = data.test_dataloader().dataset
    count = len(dataset)  # type: ignore[arg-type]
    chosen = [index * count // min(most, count) for index in range(min(most, count))]
    return [torch.as_tensor(dataset[index]["image"]) for index in islice(chosen, most)]
