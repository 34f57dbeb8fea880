"""Several data sets as one, for training a decryption network: random crops from memory, a whole batch at a time.

Nothing but PyTorch makes the batches: a batch is cut out of the stacked images by index, in a few milliseconds, so that
a GPU need not wait for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from encdl.data.base import DATA_SETS, DataSpec, ImageDataModule, Loader, Sample, Split
from encdl.data.batch import ImageBatch
from encdl.data.npz import NpzImages
from encdl.data.registry import needs_no_folder
from encdl.data.samplers import Draw, DrawLoader, DrawSampler, EvalSampler
from encdl.data.subset import evenly
from encdl.utils.errors import DataError, UsageError

MOST_TIMES = 8
"""Small images fill up a batch to its number of pixels, up to this many times its number of images."""


@dataclass(eq=False, repr=False)
class Mixture(ImageDataModule):
    """Grey images of several data sets, each as often as its weight says; the channels of colour images one by one.

    A training batch holds random crops, turned and mirrored; some are taken from a larger crop and made smaller, so
    that sizes between those of the data sets occur too. Images smaller than the crop come whole, in batches of their
    own that hold about as many pixels. Validation and test batches are whole images at their own size.

    Args:
        parts: Weight of each data set in training, by name: `embedded`, or that of an .npz file in `data_dir` without
            its ending.
        data_dir: The folder of the .npz files.
        batches: Training batches an epoch.
        smaller: Probability that a crop is made smaller.
        least_scale: The smallest factor that it is made smaller by.
        judged_images: How many images of each data set are judged, evenly spread over the split; 0 for all.
        batch_size: As in `ImageDataModule`, like all further settings but `repeats`, which does nothing here.

    Raises:
        UsageError: A number is out of its range, or a part's crop cannot be made.
    """

    parts: dict[str, float]
    data_dir: str = "data"
    _: KW_ONLY
    batches: int = 100
    smaller: float = 0.3
    least_scale: float = 0.5
    judged_images: int = 32
    eval_batch_size: int = 32
    name: str = field(default="", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.parts or min(self.parts.values()) < 0 or sum(self.parts.values()) <= 0:
            raise UsageError(f"data setting parts is {self.parts}: give each data set's weight, 0 or more")
        if self.batches < 1 or self.judged_images < 0 or self.crop < 1:
            raise UsageError("data settings: batches and crop must be at least 1, judged_images at least 0")
        if not (0 <= self.smaller <= 1 and 0.1 <= self.least_scale <= 1):
            raise UsageError("data settings: smaller must be 0 to 1, least_scale .1 to 1")
        self.name = "+".join(self.parts)

    @cached_property
    def sources(self) -> dict[str, ImageDataModule]:
        """The data sets by name."""
        return {
            name: DATA_SETS[name]() if needs_no_folder(name) else NpzImages(f"{name}.npz", self.data_dir)
            for name in self.parts
        }

    @property
    def spec(self) -> DataSpec:
        """One channel; height and width of the largest images."""
        specs = [source.spec for source in self.sources.values()]
        notes = "; ".join(dict.fromkeys(spec.note for spec in specs if spec.note))
        return DataSpec(1, max(spec.height for spec in specs), max(spec.width for spec in specs), note=notes)

    def samples(self, split: Split) -> Sequence[Sample]:
        """The images of all data sets, one after the other, each of its own size."""
        return [{"image": sample["image"]} for source in self.sources.values() for sample in source.samples(split)]

    def raw(self, split: Split) -> Sequence[Sample]:
        """What `samples` gives."""
        return self.samples(split)

    def each(self) -> dict[str, Mixture]:
        """Every data set by itself, with the settings of the mixture."""
        return {name: replace(self, parts={name: 1.0}) for name in self.parts}

    def train_dataloader(self) -> DataLoader[Sample]:
        """Batches of random crops."""
        sampler = DrawSampler(self.batches * self._place()[1], 1, self.seed, *self._place())
        loader = self._batches(DrawLoader, self._ready("train"), sampler)
        loader.load_state_dict(self._place_to_resume)
        self._training = loader
        return loader

    def _judging(self, split: Split) -> DataLoader[Sample]:
        dataset = self._ready(split)
        return self._batches(DataLoader, dataset, EvalSampler(len(dataset), 1, *self._place()))

    def _batches(self, kind: type[Loader], dataset: Dataset[Any], sampler: Any) -> Loader:
        """A loader whose data set gives whole batches."""
        return kind(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _dataset(self, split: Split) -> Dataset[Any]:
        stacks = {name: _stack(name, split, source) for name, source in self.sources.items()}
        if split == "train":
            # A copy: this one comes to hold the loader, which cannot be sent to the loader's processes.
            return RandomCrops(replace(self), list(stacks.values()), list(self.parts.values()))
        return WholeImages([*stacks.values()], self.eval_batch_size, self.judged_images)


class WholeImages(Dataset[ImageBatch]):
    """Whole images, stack by stack, in batches of up to `size`.

    Args:
        stacks: uint8 (N, 1, H, W) each.
        size: Images a batch.
        most: Of each stack, evenly spread; 0 for all.
    """

    def __init__(self, stacks: Sequence[Tensor], size: int, most: int) -> None:
        self.batches = [part for stack in stacks for part in torch.split(_spread(stack, most), size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> ImageBatch:
        return {"image": self.batches[index]}


class RandomCrops(Dataset[ImageBatch]):
    """Batches of random crops; a draw's seed fixes its batch.

    Args:
        settings: Crop, batch size, augmentation.
        stacks: uint8 (N, 1, H, W) each.
        weights: How often each stack is drawn from.
    """

    def __init__(self, settings: Mixture, stacks: Sequence[Tensor], weights: Sequence[float]) -> None:
        self.settings = settings
        groups: dict[tuple[int, int], list[tuple[Tensor, float]]] = {}
        for stack, weight in zip(stacks, weights, strict=True):
            if weight > 0:
                size = (min(settings.crop, stack.shape[2]), min(settings.crop, stack.shape[3]))
                groups.setdefault(size, []).append((stack, weight))
        self.groups = list(groups.items())
        self.often = torch.tensor([sum(weight for _, weight in group) for _, group in self.groups])

    def __getitem__(self, draw: Draw) -> ImageBatch:
        random = torch.Generator().manual_seed(draw[1])
        size, group = self.groups[int(torch.multinomial(self.often, 1, generator=random))]
        times = min(MOST_TIMES, self.settings.crop**2 / (size[0] * size[1]))
        count = max(1, int(self.settings.batch_size * times))
        weights = torch.tensor([weight for _, weight in group])
        shares = torch.multinomial(weights, count, replacement=True, generator=random).bincount(minlength=len(group))
        crops = [
            crop
            for (stack, _), share in zip(group, shares.tolist(), strict=True)
            for crop in self._crops(stack, size, share, random)
        ]
        return {"image": _turned(torch.cat(crops), random) if self.settings.augment else torch.cat(crops)}

    def _crops(self, stack: Tensor, size: tuple[int, int], count: int, random: torch.Generator) -> Iterator[Tensor]:
        """`count` crops of a stack in one or two tensors; those made smaller are made so by one factor."""
        scale = 1.0 - (1.0 - self.settings.least_scale) * float(torch.rand((), generator=random))
        larger = tuple(min(round(side / scale), whole) for side, whole in zip(size, stack.shape[2:], strict=True))
        few = int((torch.rand(count, generator=random) < self.settings.smaller).sum()) if self.settings.augment else 0
        if larger == size:
            few = 0
        if count > few:
            yield _cut(stack, size, count - few, random)
        if few:
            cut = _cut(stack, larger, few, random).float()
            smaller = F.interpolate(cut, size, mode="bilinear", antialias=True, align_corners=False)
            yield smaller.round_().clamp_(0, 255).to(torch.uint8)


def _cut(stack: Tensor, size: tuple[int, ...], count: int, random: torch.Generator) -> Tensor:
    """`count` random crops, uint8 (count, 1, *size)."""
    images = torch.randint(len(stack), (count, 1, 1), generator=random)
    rows, columns = (
        torch.randint(whole - side + 1, (count, 1), generator=random) + torch.arange(side)
        for side, whole in zip(size, stack.shape[2:], strict=True)
    )
    return stack[images, 0, rows.unsqueeze(2), columns.unsqueeze(1)].unsqueeze(1)


def _turned(crops: Tensor, random: torch.Generator) -> Tensor:
    """Each crop mirrored and, where it is a square, transposed, or not: with equal chances."""
    for axis in (2, 3):
        crops = torch.where(_coins(crops, random), crops.flip(axis), crops)
    if crops.shape[2] == crops.shape[3]:
        crops = torch.where(_coins(crops, random), crops.transpose(2, 3), crops)
    return crops


def _coins(crops: Tensor, random: torch.Generator) -> Tensor:
    """Bool (N, 1, 1, 1), True for every other one on average."""
    return torch.rand(len(crops), 1, 1, 1, generator=random) < 0.5


def _stack(name: str, split: Split, source: ImageDataModule) -> Tensor:
    """All images of a split, uint8 (N, 1, H, W)."""
    images = [np.asarray(sample["image"]) for sample in source.samples(split)]
    if not images:
        raise DataError(f"{name} has no images in its {split} split")
    if len({image.shape[1:] for image in images}) > 1:
        raise DataError(f"{name} has images of several sizes: a mixture takes data sets of one size each")
    return torch.from_numpy(np.concatenate(list(itertools.chain(images)))).unsqueeze(1)


def _spread(stack: Tensor, most: int) -> Tensor:
    return stack[evenly(range(len(stack)), min(most, len(stack)) if most else len(stack))]
