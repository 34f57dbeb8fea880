"""The images of an audit: those that an attacker may practise on, those under attack, those of the statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from encdl.audit.attacks.base import Scene
from encdl.data.base import ImageDataModule, Sample
from encdl.data.npz import NpzImages
from encdl.data.registry import needs_no_folder, open_data
from encdl.data.split_digest import digest
from encdl.utils.errors import DataError

LABELLED = {"embedded": "lesions"}
"""Data sets without classes, and what stands in for them where attacks on readers need classes."""

LARGE_SIDE, MARGIN = 256, 64
"""Pixels of the images for attacks on repetition, and of the black margin around them, as in a wide field of view."""

SMALLEST_CUT = 0.85
"""Shorter side of the smallest cut from an image, as a share of the image's."""

MOST_DRAWS = 4096
"""Training draws of a data set that draws; cuts of them make as many images as are wanted."""


@dataclass(frozen=True)
class Source:
    """The images of a data set, or of several, that scenes are cut from.

    Attributes:
        train: Training draws.
        test: Test images, at their own sizes.
        classes: Names of the classes; empty where there are none, or where several data sets are mixed.
    """

    train: Sequence[Sample]
    test: Sequence[Sample]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Cuts:
    """The images that all parts of an audit attack.

    Attributes:
        scene: The attacks' images.
        labels: In words, where the labels of the scene come from.
        digest: Changes when an image or a label of the scene does.
    """

    scene: Scene
    labels: str
    digest: str


def cuts(
    name: str, data_dir: str | None, side: int, train: int, test: int, device: str, seed: int, quick: bool
) -> Cuts:
    """The images of the attacks.

    Those under attack are cuts from the test split, so that no slice or patient of theirs is in training.

    Args:
        name: As for `encdl.data.registry.open_data`, several with + between them; `embedded` takes its slices with a
            SYNTHETIC lesion or none.
        data_dir: The folder of sets that are not embedded.
        side: Height and width in pixels.
        train: How many training images.
        test: How many test images.
        device: Where attacks compute.
        seed: Fixes the cuts, and the attackers' draws.
        quick: See `Scene`.

    Raises:
        DataError: The data set is missing, empty or malformed.
    """
    source = _source(LABELLED.get(name, name), data_dir, train)
    generator = torch.Generator().manual_seed(seed)
    (train_images, train_labels), (test_images, test_labels) = (
        _cut(samples, count, side, generator) for samples, count in ((source.train, train), (source.test, test))
    )
    origin = f"classes of the data set: {', '.join(source.classes)}"
    if not source.classes:
        origin = "none in the data set: brighter or darker than half of the training images"
        middle = train_images.float().flatten(1).mean(1).median()
        train_labels, test_labels = (
            (images.float().flatten(1).mean(1) > middle).long() for images in (train_images, test_images)
        )
    large = statistic_images(name, data_dir, LARGE_SIDE - 2 * MARGIN, 16 if quick else 64, device, seed)
    scene = Scene(
        train_images.to(device),
        test_images.to(device),
        train_labels.to(device),
        test_labels.to(device),
        device,
        seed,
        quick,
        large=F.pad(large, [MARGIN] * 4),
    )
    parts = {"train": train_images, "test": test_images, "large": large}
    labelled = {"train_labels": train_labels, "test_labels": test_labels}
    return Cuts(scene, origin, digest([parts | labelled]))


def statistic_images(name: str, data_dir: str | None, side: int, count: int, device: str, seed: int) -> Tensor:
    """Cuts from test images for the statistics: uint8 (count, C, side, side)."""
    whole = _test_images(name, data_dir)
    most = min(count, len(whole))
    spread = [whole[index * len(whole) // most] for index in range(most)]
    return _cut(spread, count, side, torch.Generator().manual_seed(seed))[0].to(device)


def files_digest(name: str, data_dir: str | None) -> str:
    """Changes with the files behind a name; one and the same for data sets that have no path."""
    if data_dir is None:
        path = Path(name.rpartition("@")[2].removeprefix("classes:"))
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
    else:
        files = sorted(file for part in name.split("+") for file in Path(data_dir).glob(f"{part}*"))
    return digest({"file": str(file)} for file in files if file.is_file())


@lru_cache(maxsize=2)
def _source(name: str, data_dir: str | None, train: int) -> Source:
    sources = [_of_one(data, train) for data in _opened(name, data_dir)]
    if len(sources) == 1:
        return sources[0]
    channels = {torch.as_tensor(each.test[0]["image"]).shape[0] for each in sources}
    if len(channels) > 1:
        raise DataError(f"{name}: some of the images are in colour and some are not: mix sets of one kind")
    # In turn, so that every set has its share of any number of them.
    return Source(_in_turn([each.train for each in sources]), _in_turn([each.test for each in sources]), ())


@lru_cache(maxsize=2)
def _test_images(name: str, data_dir: str | None) -> Sequence[Sample]:
    """Whole test images."""
    return _in_turn([_tested(data) for data in _opened(name, data_dir)])


def _opened(name: str, data_dir: str | None) -> list[ImageDataModule]:
    """The data sets of a name, several with + between them.

    Raises:
        DataError: There is none of a name.
    """
    if "+" in name and not Path(name).exists():
        return [one for part in name.split("+") for one in _opened(part, data_dir)]
    if data_dir is None or needs_no_folder(name):
        return [open_data(name)]
    file = Path(data_dir, f"{name}.npz")
    return [NpzImages(file.name, data_dir) if file.is_file() else open_data(name, data_dir)]


def _of_one(data: ImageDataModule, train: int) -> Source:
    """One data set: finished arrays as they are, anything else as its data module draws it for training."""
    if isinstance(data, NpzImages):
        return Source(data.samples("train"), _tested(data), data.spec.classes)
    data.crop = 0  # whole images, of any size, as those under attack are
    data.setup("fit")
    images = len(data.train_dataloader().dataset.pictures)  # type: ignore[attr-defined]
    data.repeats = math.ceil(min(train, MOST_DRAWS) / images)
    drawn: list[Sample] = []
    for batch in data.train_dataloader():
        labels: Any = batch.get("label")
        for index, image in enumerate(batch["image"]):
            drawn.append({"image": image} | ({} if labels is None else {"label": int(labels[index])}))
    return Source(drawn, _tested(data), data.spec.classes)


def _tested(data: ImageDataModule) -> Sequence[Sample]:
    if isinstance(data, NpzImages):
        return data.samples("test")
    data.setup("test")
    dataset = data.test_dataloader().dataset
    return [dataset[index] for index in range(len(dataset))]  # type: ignore[arg-type]


def _in_turn(several: Sequence[Sequence[Sample]]) -> Sequence[Sample]:
    """All samples of one sequence; of several as many as the largest has, one of each in turn, small ones repeated."""
    if len(several) == 1:
        return several[0]
    most = max(len(each) for each in several)
    return [each[index % len(each)] for index in range(most) for each in several]


def _cut(samples: Sequence[Sample], count: int, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`count` squares from samples in random order: images and labels (0 where there are none)."""
    if not samples:
        raise DataError("the data set has no images in one of its splits: an audit needs training and test images")

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    # All of them equally often, or some of all: data sets may be sorted by their classes.
    order = torch.randperm(max(count, len(samples)), generator=generator)[:count] % len(samples)
    images, labels = [], []
    for index in order.tolist():
        image = torch.as_tensor(samples[index]["image"])
        shorter = min(image.shape[1:])
        edge = draw(max(1, round(SMALLEST_CUT * shorter)), shorter)
        top, left = (draw(0, size - edge) for size in image.shape[1:])
        images.append(_resized(image[:, top : top + edge, left : left + edge], side))
        labels.append(int(samples[index].get("label", 0)))
    return torch.stack(images), torch.tensor(labels)


def _resized(image: Tensor, side: int) -> Tensor:
    """uint8 (C, H, W) to uint8 (C, side, side), bilinear with antialiasing."""
    smooth = F.interpolate(image.unsqueeze(0).float(), (side, side), mode="bilinear", antialias=True)[0]
    return smooth.round().clamp(0, 255).to(torch.uint8)
