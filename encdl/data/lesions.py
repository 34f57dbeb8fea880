"""Real brain slices, half of them with a SYNTHETIC lesion: a classification task that needs no download.

The slices are those of the MNI152 template (`encdl.data.embedded`: one brain, the average of 152 people). The lesions
are drawn by this module: dark, soft-edged blobs of 2 to 4 cm, centred in white matter, somewhat as a cyst looks in a
T1-weighted image. They are synthetic, every one. A reader that finds them shows that the method works, and nothing
about disease.
"""

from __future__ import annotations

import importlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from encdl.data.base import DATA_SETS, DataSpec, ImageDataModule, Sample, Split
from encdl.data.embedded import SLABS, axial_slice, volume

HEIGHT, WIDTH = 96, 80
"""Pixels of 2 mm: the middle 192 x 160 mm of a slice, which hold the whole brain."""

CLASSES = ("no lesion", "synthetic lesion")
NOTE = "SYNTHETIC lesions"
SITES = "sites"
"""Key of a sample: bool (H, W), where a lesion may be centred. No batch holds it."""

RADIUS_PX = (5.0, 10.0)
LEVEL = (20.0, 80.0)
"""Brightness of a lesion; white matter is about 210, grey matter 165."""


@DATA_SETS.register("lesions")
@dataclass(eq=False, repr=False, kw_only=True)
class SyntheticLesionMRI(ImageDataModule):
    """MNI152 slices at 2 mm, 96 x 80 pixels, with a SYNTHETIC lesion (label 1) or none (label 0).

    Training draws another lesion each time; validation and test draw `copies` images of each slice and label once,
    from fixed seeds. Every image is also gently augmented, or there would be ten different test images without
    a lesion. Training, validation and test slices are slabs with gaps between them.

    Args:
        batch_size: As for every data module, like the rest but `crop` and `augment`, which are fixed.
        eval_batch_size: See `ImageDataModule`.
        repeats: How often an epoch draws each of the 172 training images.
        copies: Validation and test images of each slice and label.

    Raises:
        UsageError: A number is out of its range.
    """

    batch_size: int = 32
    eval_batch_size: int = 50
    repeats: int = 4
    copies: int = 10
    crop: int = field(default=0, init=False)
    augment: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.copies = max(1, self.copies)

    @property
    def spec(self) -> DataSpec:
        """One channel, 96 x 80 pixels of 2 mm, two classes."""
        return DataSpec(1, HEIGHT, WIDTH, classes=CLASSES, spacing_mm=(2.0, 2.0), note=NOTE)

    def samples(self, split: Split) -> Sequence[Sample]:
        """Training: each slice once a label, undrawn. Validation and test: finished images."""
        undrawn = [
            {"image": half(t1), "label": label, SITES: sites_in(white)}
            for t1, white in self._slices[split]
            for label in range(len(CLASSES))
        ]
        if split == "train":
            return undrawn
        transform, drawn = self._training_transform(), []
        for copy in range(self.copies):
            for index, sample in enumerate(undrawn):
                transform.set_random_state(seed=copy * len(undrawn) + index)
                drawn.append(transform(dict(sample)))
        return drawn

    @cached_property
    def _slices(self) -> dict[Split, list[tuple[np.ndarray, np.ndarray]]]:
        t1, white = volume("t1"), volume("white")
        return {
            split: [(axial_slice(t1, index), axial_slice(white, index)) for slab in slabs for index in slab]
            for split, slabs in SLABS.items()
        }

    def _training_transform(self) -> Any:
        from monai.transforms import Compose  # noqa: PLC0415

        # It draws by functions of this module, which therefore names it only here.
        lesion = importlib.import_module("encdl.data.lesion_transform").SyntheticLesion()
        return Compose([lesion, super()._training_transform()])


def half(image: np.ndarray) -> np.ndarray:
    """The middle of a template slice at half the resolution: uint8 (1, 233, 197) to (1, 96, 80)."""
    top, left = (image.shape[1] - 2 * HEIGHT) // 2, (image.shape[2] - 2 * WIDTH) // 2
    middle = image[:, top : top + 2 * HEIGHT, left : left + 2 * WIDTH]
    means: np.ndarray = middle.reshape(-1, HEIGHT, 2, WIDTH, 2).mean((2, 4))
    return means.round().astype(np.uint8)


def sites_in(white: np.ndarray) -> np.ndarray:
    """Where a lesion may be centred: bool (96, 80), from a template slice's white matter, uint8 (1, 233, 197)."""
    sites: np.ndarray = half(white)[0] > 160
    return sites


def draw_lesion(image: np.ndarray, sites: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """A copy of `image`, uint8 (1, H, W), with one SYNTHETIC lesion.

    Args:
        image: The slice.
        sites: bool (H, W), where its centre may be; anywhere in the brain if nowhere.
        random: Decides place, size, form and brightness.
    """
    rows, columns = np.nonzero(sites if sites.any() else image[0] > 0)
    chosen = random.randint(len(rows))
    y, x = np.mgrid[: image.shape[1], : image.shape[2]]
    down, right = y - rows[chosen], x - columns[chosen]
    angle, radius = random.uniform(0, np.pi), random.uniform(*RADIUS_PX)
    stretch, wobble = random.uniform(0.7, 1.4), random.uniform(0, 0.25)
    along = right * np.cos(angle) + down * np.sin(angle)
    across = (down * np.cos(angle) - right * np.sin(angle)) * stretch
    edge = radius * (1 + wobble * np.sin(3 * np.arctan2(across, along) + random.uniform(0, 2 * np.pi)))
    share = 1 / (1 + np.exp(2.0 * (np.hypot(along, across) - edge)))  # soft over about 2 pixels
    share = share * (image[0] > 0)
    mixed: np.ndarray = image + share * (random.uniform(*LEVEL) - image.astype(np.float64))
    return mixed.round().clip(0, 255).astype(np.uint8)


def _held_out() -> list[int]:
    return [index for split in ("val", "test") for slab in SLABS[split] for index in slab]


def most_samples() -> int:
    """How many samples `sample_slices` has."""
    return 2 * len(_held_out())


def sample_slices(count: int) -> list[tuple[int, bool, np.ndarray]]:
    """Slices that no training has seen, each without and with a SYNTHETIC lesion.

    Args:
        count: how many, up to `most_samples`.

    Returns:
        Of each its number, whether it has a lesion, and its levels, uint8 (96, 80).
    """
    found, held_out = [], _held_out()
    t1, white, slices = volume("t1"), volume("white"), (count + 1) // 2
    for number in range(slices):
        index = held_out[number * len(held_out) // slices]
        image, sites = half(axial_slice(t1, index)), sites_in(axial_slice(white, index))
        lesion = draw_lesion(image, sites, np.random.RandomState(index))
        found += [(index, False, image[0]), (index, True, lesion[0])]
    return found[:count]


def without_sites(sample: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
    """The sample as a batch holds it."""
    return {key: value for key, value in sample.items() if key != SITES}
