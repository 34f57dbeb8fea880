"""The data module that every data set of EncDL is: splits, batches and draws that one seed fixes.

A data set subclasses `ImageDataModule` and says two things: its `spec`, known before anything is read, and
its `samples` of a split. Loading, augmentation and batching are done here, the order in `encdl.data.samplers`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from encdl.data.samplers import Draw, DrawLoader, DrawSampler, EvalSampler
from encdl.files.levels import Levels, ModalityLevels
from encdl.files.scans import AS_IT_IS, Geometry
from encdl.utils.errors import DataError, EncdlError, UsageError
from encdl.utils.registry import Registry

Split: TypeAlias = Literal["train", "val", "test"]
Sample: TypeAlias = dict[str, Any]
"""One image: `image` uint8 (C, H, W), and `label` int or `mask` uint8 (1, H, W) where there are any.

Of a volume the images are (C, D, H, W), and masks alike: D slices of H rows and W columns.
"""

Loader = TypeVar("Loader", bound=DataLoader[Any])


@dataclass(frozen=True)
class DataSpec:
    """The description of a data set for tasks.

    Attributes:
        channels: Channels of every image.
        height: Height in pixels of a validation or test image.
        width: Its width in pixels.
        classes: Names of the classes, by label; empty where there are none.
        spacing_mm: Size of a pixel along each side of `shape` in millimetres, where the data set knows it.
        note: What must stand beside images and figures of it, such as that something is synthetic; mostly empty.
        depth: Slices of every image that is a volume; 0 of flat ones.
        levels: How the stored integers of a scan became the images' bytes; None leaves it to the reader's defaults.
        geometry: How scans were turned and resampled.
    """

    channels: int
    height: int
    width: int
    classes: tuple[str, ...] = ()
    spacing_mm: tuple[float, ...] | None = None
    note: str = ""
    depth: int = 0
    levels: Levels | ModalityLevels | None = None
    geometry: Geometry = AS_IT_IS

    @property
    def shape(self) -> tuple[int, ...]:
        """Height and width of an image, or depth, height and width of a volume."""
        return (self.depth,) * bool(self.depth) + (self.height, self.width)


class DrawDataset(Dataset[Sample]):
    """Random transforms over a data set of finished images, seeded by the draw.

    Args:
        images: Gives one sample an index.
        transform: A MONAI transform with `set_random_state`.
    """

    def __init__(self, images: Dataset[Sample], transform: Any) -> None:
        self.pictures, self.transform = images, transform

    def __getitem__(self, draw: Draw) -> Sample:
        index, seed = draw
        self.transform.set_random_state(seed=seed)
        result: Sample = self.transform(dict(self.pictures[index]))
        return result


@dataclass(eq=False, repr=False, kw_only=True)
class ImageDataModule(LightningDataModule, ABC):
    """Base of the data sets.

    Training batches are random crops, augmented if asked for; validation and test batches are
    whole images in a fixed order. Every batch is an `encdl.data.batch.ImageBatch`.

    It is a dataclass, so a data set that is one too adds its own settings to these, and gives one of these
    another default, without a constructor.

    Args:
        batch_size: Images a training batch.
        eval_batch_size: Images a validation or test batch.
        crop: Height and width in pixels of a training crop; 0 trains on whole images (and augments them
            gently, so that what a label is about stays in view).
        repeats: How many crops of each image an epoch holds.
        num_workers: Loader processes; 0 loads in the training process. Changes no image.
        seed: Fixes the order, the crops and the augmentation.
        augment: Flip, turn, stretch and change the brightness of training crops (needs albumentations).

    Raises:
        UsageError: A number is out of its range.
    """

    batch_size: int = 16
    eval_batch_size: int = 8
    crop: int = 64
    repeats: int = 1
    num_workers: int = 0
    seed: int = 0
    augment: bool = True
    cache: bool = field(default=True, init=False)

    @property
    def sealed(self) -> bool:
        """Whether its images come from encrypted files: then no panel shows them in the clear."""
        return False

    def __post_init__(self) -> None:
        super().__init__()
        least = {"batch_size": 1, "eval_batch_size": 1, "crop": 0, "repeats": 1, "num_workers": 0, "seed": 0}
        for name, number in least.items():
            if getattr(self, name) < number:
                raise UsageError(f"data setting {name} is {getattr(self, name)}: it must be at least {number}")
        self._datasets: dict[Split, Dataset[Sample]] = {}
        self._training: DrawLoader | None = None
        self._place_to_resume: dict[str, int] = {}

    @property
    @abstractmethod
    def spec(self) -> DataSpec:
        """Channels, size, classes and spacing; needs no `setup()`."""

    @abstractmethod
    def samples(self, split: Split) -> Sequence[Sample]:
        """The images of one split, as dictionaries that `reading()` turns into finished samples.

        Raises:
            DataError: The data set is missing, empty or malformed.
        """

    def class_counts(self) -> Tensor:
        """How often each class of the spec occurs in training: int64 (classes,).

        Raises:
            DataError: The training images have no labels, or a label beyond the classes.
        """
        classes = len(self.spec.classes)
        labels = [sample.get("label") for sample in self.samples("train")]
        if not all(label is not None and 0 <= label < classes for label in labels):
            raise DataError(
                f"{type(self).__name__} has training images without a label from 0 to {classes - 1}: "
                "classification needs one for each"
            )
        return torch.bincount(torch.tensor(labels, dtype=torch.int64), minlength=classes)

    def mask_frequencies(self) -> Tensor:
        """How often each pixel of a training image has each class: float32 (classes, H, W) or (classes, D, H, W).

        Masks of another size than that of `spec` are stretched to it.

        Raises:
            DataError: A training image has no mask, or a class beyond the named ones.
        """
        spec, name = self.spec, type(self).__name__
        # What a data set has yet to decode is taken from its finished images, before augmentation.
        samples = self._ready("train").pictures if self.reading("train") else self.samples("train")
        counts = torch.zeros(len(spec.classes), *spec.shape)
        numbers = torch.arange(len(spec.classes)).view(-1, *(1 for _ in spec.shape))
        for index in range(len(samples)):
            mask = samples[index].get("mask")
            if mask is None:
                raise DataError(f"{name} has training images without a mask: segmentation needs one for each")
            known = torch.as_tensor(mask)
            if int(known.max()) >= len(spec.classes):
                raise DataError(f"{name} has a mask with class {int(known.max())}, and {len(spec.classes)} classes")
            counts += functional.interpolate(known[None].float(), spec.shape)[0] == numbers
        return counts / len(samples)

    def raw(self, split: Split) -> Sequence[Sample]:
        """The result of `samples` for a split, without reading it again if the split is set up."""
        dataset = self._ready(split)
        found: Sequence[Sample] = getattr(dataset, "pictures", dataset).data
        return found

    def reading(self, split: Split) -> list[Any]:
        """Deterministic MONAI transforms from what `samples` gives to a finished `Sample`; none by default.

        Their results stay in memory if `cache` is set.
        """
        return []

    def setup(self, stage: str | None = None) -> None:
        """Read the splits that `stage` (fit, validate, test; None for all) needs."""
        needed: dict[str | None, tuple[Split, ...]] = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
        for split in needed.get(stage, ("train", "val", "test")):
            if split not in self._datasets:
                self._datasets[split] = self._dataset(split)

    def train_dataloader(self) -> DataLoader[Sample]:
        """Batches of random crops, uint8 (batch_size, C, crop, crop); a new draw every epoch."""
        dataset = self._ready("train")
        sampler = DrawSampler(len(dataset.pictures), self.repeats, self.seed, *self._place())
        full_batch = len(sampler) >= self.batch_size
        loader = self._loader(DrawLoader, dataset, self.batch_size, sampler=sampler, drop_last=full_batch)
        loader.load_state_dict(self._place_to_resume)
        self._training = loader
        return loader

    def state_dict(self) -> dict[str, Any]:
        """Where training is within the epoch."""
        return {} if self._training is None else self._training.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on there. Lightning would tell the loader itself, but not where a task asks how long training is."""
        self._place_to_resume = dict(state_dict)

    def val_dataloader(self) -> DataLoader[Sample]:
        """Whole images of the validation split, in a fixed order, dealt out over the ranks batch by batch."""
        return self._judging("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        """Whole images of the test split, in the same way."""
        return self._judging("test")

    def _judging(self, split: Split) -> DataLoader[Sample]:
        dataset = self._ready(split)
        sampler = EvalSampler(len(dataset), self.eval_batch_size, *self._place())
        return self._loader(DataLoader, dataset, sampler.batch_size, sampler=sampler)

    def _place(self) -> tuple[int, int]:
        """This process and how many there are."""
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer else (0, 1)

    def _ready(self, split: Split) -> Any:
        if split not in self._datasets:
            self._datasets[split] = self._dataset(split)
        return self._datasets[split]

    def _loader(self, kind: type[Loader], dataset: Dataset[Sample], batch_size: int, **settings: Any) -> Loader:
        return kind(
            dataset,
            batch_size=batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            **settings,
        )

    def _dataset(self, split: Split) -> Dataset[Sample]:
        """The finished data set of one split; random crops for training."""
        samples = list(self.samples(split))
        if not samples:
            raise DataError(f"{type(self).__name__} has no images in its {split} split")
        from monai import data, transforms  # noqa: PLC0415

        tensors = transforms.EnsureTyped(
            keys=["image", "mask"], dtype=torch.uint8, track_meta=False, allow_missing_keys=True
        )
        reading = self.reading(split)
        random = [self._training_transform()] if split == "train" else []
        if not reading:
            images = data.Dataset(samples, None if random else tensors)
        else:
            steps = reading if random else [*reading, tensors]
            images = self._read(samples, transforms.Compose(steps))
        result: Dataset[Sample] = images
        if random:
            result = DrawDataset(images, transforms.Compose([*random, tensors]))
        return result

    def _read(self, samples: list[Sample], transform: Any) -> Any:
        from monai import data  # noqa: PLC0415

        if not self.cache:
            return data.Dataset(samples, transform)
        try:
            return data.CacheDataset(samples, transform, num_workers=0, progress=False)
        except RuntimeError as error:
            if isinstance(error.__cause__, EncdlError):  # MONAI wraps what a transform raises
                raise error.__cause__ from None
            raise

    def _training_transform(self) -> Any:
        """Random crop to the training size, with augmentation if asked for."""
        spec, size = self.spec, (self.crop, self.crop)
        if spec.depth:
            from encdl.data.augment_volumes import training_transform  # noqa: PLC0415

            return training_transform(self.crop, self.augment)
        if self.crop > min(spec.height, spec.width):
            raise UsageError(
                f"crop is {self.crop}, larger than the {spec.height} x {spec.width} images of "
                f"{type(self).__name__}: set crop to {min(spec.height, spec.width)} or less, or to 0"
            )
        if self.crop == 0:
            size = (spec.height, spec.width)
        if self.augment:
            from encdl.data.augment import Augment  # noqa: PLC0415

            return Augment(size, whole=self.crop == 0)
        from monai import transforms  # noqa: PLC0415

        return transforms.RandSpatialCropd(
            keys=["image", "mask"], roi_size=size, random_size=False, allow_missing_keys=True
        )


DATA_SETS: Registry[type[ImageDataModule]] = Registry("data set", "encdl.data_sets", ImageDataModule)
"""Those that a name alone opens; one with a setting `data_dir` is looked for in a folder."""
