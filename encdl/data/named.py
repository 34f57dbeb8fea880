"""Data sets by the short names that the command line takes."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from encdl.data.base import ImageDataModule
from encdl.data.embedded import EmbeddedMRI
from encdl.errors import DataError


def open_data(name: str) -> ImageDataModule:
    """A data module for `embedded`, the path of an .npz file or that of a folder of images.

    Raises:
        DataError: There is nothing of that name.
    """
    path = Path(name)
    if name == "embedded":
        return EmbeddedMRI()
    if path.suffix == ".npz":
        from encdl.data.npz import NpzImages  # noqa: PLC0415

        return NpzImages(file=path.name, data_dir=str(path.parent))
    if name and path.is_dir():
        from encdl.data.folder import ImageFolder  # noqa: PLC0415

        return ImageFolder(folder=str(path))
    raise DataError(f"{name}: no such data: give embedded, a folder of images, or an .npz file")


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
