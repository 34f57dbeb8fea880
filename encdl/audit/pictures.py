"""The pictures of an audit: those that an attacker may practise on, those under attack, those of the statistics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from encdl.attacks.base import Scene
from encdl.data.named import open_data, test_images
from encdl.evaluation import resized

LABELLED = {"embedded": "lesions"}
"""Data sets without classes, and what stands in for them where attacks on readers need classes."""

LARGE_SIDE, MARGIN = 256, 64
"""Pixels of the pictures for attacks on repetition, and of the black margin around them, as in a wide field of view."""

SMALLEST_CUT = 0.85
"""Shorter side of the smallest cut from a picture, as a share of the picture's."""


def scene(
    name: str, side: int, train: int, test: int, device: str, seed: int, quick: bool
) -> tuple[Scene, str]:
    """The pictures of the attacks.

    Test pictures are cuts from the data set's test split, so that no slice or patient of theirs is in training.

    Args:
        name: As for `encdl.data.named.open_data`; `embedded` takes its slices with a SYNTHETIC lesion or none.
        side: Height and width in pixels.
        train: How many training pictures.
        test: How many test pictures.
        device: Where attacks compute.
        seed: Fixes the cuts, and the attackers' draws.
        quick: See `Scene`.

    Returns:
        The scene, and in words where its labels come from.

    Raises:
        DataError: The data set is missing, empty or malformed.
    """
    known, test_known, classes = _whole(LABELLED.get(name, name), train)
    generator = torch.Generator().manual_seed(seed)
    (train_pictures, train_labels), (test_pictures, test_labels) = (
        _cuts(samples, count, side, generator) for samples, count in ((known, train), (test_known, test))
    )
    origin = f"classes of the data set: {', '.join(classes)}"
    if not classes:
        origin = "none in the data set: brighter or darker than half of the training pictures"
        middle = train_pictures.float().flatten(1).mean(1).median()
        train_labels, test_labels = (
            (pictures.float().flatten(1).mean(1) > middle).long()
            for pictures in (train_pictures, test_pictures)
        )
    seen = Scene(
        train_pictures.to(device),
        test_pictures.to(device),
        train_labels.to(device),
        test_labels.to(device),
        device,
        seed,
        quick,
        large=F.pad(
            statistic_pictures(name, LARGE_SIDE - 2 * MARGIN, 16 if quick else 64, device, seed), [MARGIN] * 4
        ),
    )
    return seen, origin


def statistic_pictures(name: str, side: int, count: int, device: str, seed: int) -> Tensor:
    """Cuts from test pictures for the statistics: uint8 (count, C, side, side)."""
    samples = [{"image": image} for image in test_images(name, count)]
    return _cuts(samples, count, side, torch.Generator().manual_seed(seed))[0].to(device)


def files_of(name: str) -> list[tuple[str, int, int]]:
    """Names, sizes and times of the files behind a user's own data; none for data sets that have no path."""
    path = Path(name.rpartition("@")[2].removeprefix("classes:"))
    found = sorted(path.rglob("*")) if path.is_dir() else [path] if path.is_file() else []
    stats = ((str(file), file.stat()) for file in found if file.is_file())
    return [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats]


@lru_cache(maxsize=1)
def _whole(name: str, train: int) -> tuple[list[Any], list[Any], tuple[str, ...]]:
    """Training draws and test pictures as a data module gives them, and its classes."""
    data = open_data(name)
    data.crop = 0  # whole pictures, of any size, as those under attack are
    data.setup("fit")
    data.setup("test")
    pictures = len(data.train_dataloader().dataset.pictures)  # type: ignore[attr-defined]
    data.repeats = math.ceil(min(train, 4096) / pictures)
    known: list[Any] = []
    for batch in data.train_dataloader():
        known += list(_samples(batch))
    test_set = data.test_dataloader().dataset
    return known, [test_set[index] for index in range(len(test_set))], data.spec.classes  # type: ignore[arg-type]


def _samples(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
    labels = batch.get("label")
    for index, image in enumerate(batch["image"]):
        yield {"image": image} | ({} if labels is None else {"label": int(labels[index])})


def _cuts(
    samples: Sequence[dict[str, Any]], count: int, side: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """`count` squares from samples in turn, in random order: pictures and labels (0 where there are none)."""

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    order = torch.randperm(count, generator=generator) % len(samples)
    pictures, labels = [], []
    for index in order.tolist():
        image = torch.as_tensor(samples[index]["image"])
        shorter = min(image.shape[1:])
        edge = draw(max(1, round(SMALLEST_CUT * shorter)), shorter)
        top, left = (draw(0, size - edge) for size in image.shape[1:])
        pictures.append(resized(image[:, top : top + edge, left : left + edge], (side, side))[0])
        labels.append(int(samples[index].get("label", 0)))
    return torch.stack(pictures), torch.tensor(labels)
