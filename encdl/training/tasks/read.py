"""Base class of tasks that train a reader of ciphertext, classifier or segmenter: `ReadTask`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from encdl.ciphers.channel import stored
from encdl.ciphers.damage import Damage
from encdl.ciphers.weights import load as load_cipher
from encdl.ciphers.weights import weights_id
from encdl.data.base import DataSpec, ImageDataModule
from encdl.data.batch import ImageBatch
from encdl.files.levels import ModalityLevels
from encdl.files.scans import AS_IT_IS
from encdl.keys.planes import PlaneSpec
from encdl.readers import READER_KEY, Backbone, Reader, create
from encdl.training.tasks.base import CipherTask, Stage
from encdl.training.tasks.key_planes import fresh_planes
from encdl.training.tasks.views import Sight, View
from encdl.utils.errors import DataError, UsageError


@dataclass(frozen=True)
class BatchKeys:
    """Key planes for the images of one batch; see `encdl.training.tasks.views.Keys`."""

    task: CipherTask
    image: Tensor
    stage: str
    step: int

    def fresh(self, purpose: str) -> Tensor:
        """Of another key for each image of each batch."""
        return self.task._planes(self.image, f"{self.stage} {purpose}", self.step)

    def fixed(self, purpose: str) -> Tensor:
        """Of one key for all images, in every stage and process."""
        one = torch.Size((1, *self.image.shape[1:]))
        planes = fresh_planes(
            self.task.planes,
            one,
            seed=self.task.seed,
            rank=0,
            purpose=f"fixed {purpose}",
            step=0,
            device=self.image.device,
        )
        return planes.expand(self.image.shape).contiguous()

    def generator(self, purpose: str) -> torch.Generator:
        """Random numbers of this batch."""
        return self.task._generator(f"{self.stage} {purpose}", self.step)


class ReadTask(CipherTask):
    """Trains a reader on what its view shows of each image, and judges it on all rows of the view.

    The cipher is frozen. Every image gets a fresh key and nonce in every epoch, so that the
    reader works with any key.

    Args:
        view: The reader's input: ciphertext with the key, or one of the rows to compare with.
        backbone: Makes the network behind the stem for a number of features and of classes.
        weights: The cipher: `default`, `keystream`, `thesis`, or the path of a weights file or checkpoint.
        planes: Map and expansion of the keys.
        balanced: Weigh the classes in the loss by how rare they are in training.
        learning_rate: Peak of the one-cycle schedule.
        weight_decay: Of AdamW.
        seed: Fixes the keys.
    """

    per_pixel: ClassVar[bool]
    """Whether it needs logits for each pixel."""
    wanted: ClassVar[str]
    """The advice to those who give another backbone."""

    def __init__(
        self,
        view: View,
        backbone: Callable[[int, int], Backbone],
        weights: str = "default",
        planes: PlaneSpec = PlaneSpec(),  # noqa: B008
        balanced: bool = True,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.01,
        seed: int = 0,
    ) -> None:
        loaded = load_cipher(weights)
        # Frozen, yet in training mode, which changes nothing in a cipher: Lightning would warn of another.
        super().__init__(loaded.cipher.train(), planes, learning_rate, weight_decay, seed)
        self.view, self.backbone, self.balanced = view, backbone, balanced
        self.classes: tuple[str, ...] = ()
        self.reader: Reader
        self.size: tuple[int, ...]
        self.scans: dict[str, Any] = {}
        self.damages: Mapping[str, Damage] = {}

    @abstractmethod
    def loss(self, logits: Tensor, batch: ImageBatch) -> Tensor:
        """The loss, a scalar."""

    @abstractmethod
    def measure(self, stage: str, row: str, logits: Tensor, batch: ImageBatch) -> None:
        """Collect the figures of one row over one batch, in `figures`."""

    @abstractmethod
    def measure_floor(self, stage: str, batch: ImageBatch) -> None:
        """Collect the figures of an answer that looks at no image."""

    def configure_model(self) -> None:
        """Build the reader for the data set's channels and classes, unless it is there.

        Without a trainer it waits for `on_load_checkpoint`.

        Raises:
            DataError: The data set has no classes.
            UsageError: The backbone is for another task.
        """
        if self.classes or self._trainer is None:
            return
        data: ImageDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        spec = data.spec
        if len(spec.classes) < 2:
            raise DataError(
                f"{type(data).__name__} has {len(spec.classes)} classes: a reader needs two classes or more to tell"
            )
        self.reader = self.new_reader(spec)
        self.classes = spec.classes
        self.size = (data.crop,) * len(spec.shape) if data.crop else spec.shape
        if spec.geometry != AS_IT_IS:
            self.scans["geometry"] = spec.geometry.to_dict()
        if spec.levels is not None:
            self.scans["levels"] = ModalityLevels.from_dict(spec.levels).to_dict()

    @property
    def dimensions(self) -> int:
        """2 for images, 3 for volumes."""
        return self.reader.stem.dimensions

    def new_reader(self, spec: DataSpec) -> Reader:
        """An untrained reader for the images and classes of a data set.

        Raises:
            UsageError: The backbone is for another task, or is not registered.
        """
        stem = self.view.stem_for(spec)
        backbone = self.backbone(stem.width, len(spec.classes))
        if backbone.dimensions != len(spec.shape):
            raise UsageError(
                f"model.backbone {backbone.title} is for {backbone.dimensions} dimensions, the images have "
                f"{len(spec.shape)}: set model.init_args.backbone.init_args.dimensions to that"
            )
        if backbone.per_pixel != self.per_pixel:
            raise UsageError(f"model.backbone {backbone.title} {self.wanted}")
        reader = Reader(stem, backbone)
        reader.config()  # refuses, before training, what no checkpoint could name
        return reader

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """The loss of the main row."""
        image = batch["image"]
        keys = BatchKeys(self, image, "train", self.training_draws)
        sight = self.view.train(self.cipher, image, keys)
        loss = self.loss(self.reader(sight.picture, sight.mask), batch)
        self.log("train/loss", self.over_ranks(loss), prog_bar=True, batch_size=len(image))
        return loss + self.view.penalty(self.reader, sight)

    def judge(self, stage: Stage, batch: ImageBatch, number: int) -> None:
        """Collect the figures of every row; of the test split as `FIGURE/ROW/DAMAGE`, too, after each of `damages`."""
        image = batch["image"]
        keys = BatchKeys(self, image, stage, number)
        for row, sight in self.view.rows(self.cipher, image, keys).items():
            logits = self.read(sight)
            if row == self.view.row:
                self.figure(stage, "loss").update(self.loss(logits, batch), len(image))
            self.measure(stage, row, logits.float(), batch)
        self.measure_floor(stage, batch)
        for name, damage in self.damages.items() if stage == "test" else ():
            harm = partial(stored, damage, generator=keys.generator(name))
            for row, sight in self.view.damaged(self.cipher, image, keys, harm).items():
                self.measure(stage, f"{row}/{name}", self.read(sight).float(), batch)

    def computed(self, stage: str) -> dict[str, Tensor]:
        """The figures by `FIGURE/ROW`; those of the main row by `FIGURE`, too."""
        values, suffix = super().computed(stage), f"/{self.view.row}"
        main = {name.removesuffix(suffix): value for name, value in values.items() if name.endswith(suffix)}
        return values | main

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also say what the reader is made of, so that `encdl.readers.load` needs neither task nor data set."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[READER_KEY] = {
            "reader": self.reader.config(),
            "view": type(self.view).__name__,
            "classes": list(self.classes),
            "size": list(self.size),
            "weights_id": weights_id(self.cipher),
            "planes": self.planes.to_dict(),
            **self.scans,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the reader that the checkpoint describes, unless it is there."""
        super().on_load_checkpoint(checkpoint)
        if not self.classes:
            kept = checkpoint[READER_KEY]
            self.classes, self.size = tuple(kept["classes"]), tuple(kept["size"])
            self.scans = {name: kept[name] for name in ("levels", "geometry") if name in kept}
            self.reader = create(kept["reader"], len(self.classes))

    def read(self, sight: Sight) -> Tensor:
        """Logits for what is judged, whose size may not be that of training."""
        logits: Tensor = self.reader(sight.picture, sight.mask)
        return logits

    @torch.no_grad()
    def panel(self, batch: ImageBatch) -> dict[str, Tensor]:
        """The image and what the reader is shown of it."""
        image = batch["image"]
        rows = self.view.rows(self.cipher, image, BatchKeys(self, image, "panel", 0))
        return {"plain": middle(image), self.view.row: middle(self._shown(rows[self.view.row], image))}

    def _shown(self, sight: Sight, image: Tensor) -> Tensor:
        """What the panel shows of it, as large as the image."""
        shown = self.view.shown(self.reader, sight)
        if shown.shape == image.shape:
            return shown
        return F.interpolate(shown.float(), image.shape[2:]).to(torch.uint8)


def middle(image: Tensor) -> Tensor:
    """The middle slice of volumes (B, C, D, H, W), and flat images as they are: (B, C, H, W)."""
    return image if image.ndim == 4 else image[:, :, image.shape[2] // 2]
