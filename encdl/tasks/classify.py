"""Training of a classifier that reads ciphertext, and of those that it is compared with: `ClassifyTask`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC

from encdl.batch import ImageBatch
from encdl.data.base import ImageDataModule
from encdl.errors import DataError, UsageError
from encdl.keys.planes import PlaneSpec
from encdl.readers import READER_KEY, Backbone, Reader
from encdl.tasks.base import CipherTask
from encdl.tasks.keys import fresh_planes
from encdl.tasks.views import View
from encdl.weights import load as load_cipher

MAJORITY = "majority_class"


@dataclass(frozen=True)
class BatchKeys:
    """Key planes for the pictures of one batch; see `encdl.tasks.views.Keys`."""

    task: CipherTask
    image: Tensor
    stage: str
    step: int

    def fresh(self, purpose: str) -> Tensor:
        """Of another key for each picture of each batch."""
        return self.task._planes(self.image, f"{self.stage} {purpose}", self.step)

    def fixed(self, purpose: str) -> Tensor:
        """Of one key for all pictures, in every stage and process."""
        one = torch.Size((1, *self.image.shape[1:]))
        planes = fresh_planes(
            self.task.planes, one, seed=self.task.seed, rank=0, purpose=f"fixed {purpose}", step=0
        )
        return planes.to(self.image.device).expand(len(self.image), -1, -1, -1, -1).contiguous()


class ClassifyTask(CipherTask):
    """Trains a reader to tell the classes of a data set, on what its view shows of each picture.

    The cipher is frozen. Every picture gets a fresh key and nonce in every epoch, so that the reader
    works with any key.

    Args:
        view: What the reader is shown: ciphertext with the key, or one of the rows to compare with.
        backbone: Makes the network behind the stem for a number of features and of classes.
        weights: The cipher: `default`, `thesis`, or the path of a weights file or checkpoint.
        planes: Map and expansion of the keys.
        balanced: Weigh the classes in the loss by the inverse of how often they occur in training.
        learning_rate: Peak of the one-cycle schedule.
        weight_decay: Of AdamW.
        seed: Fixes the keys.
    """

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
        # Frozen, yet in training mode, which changes nothing in a cipher: Lightning would warn of the other mode.
        super().__init__(loaded.cipher.train(), planes, learning_rate, weight_decay, seed)
        self.view, self.backbone, self.weights_id, self.balanced = view, backbone, loaded.id, balanced
        self.classes: tuple[str, ...] = ()
        self.reader: Reader
        self.class_counts: Tensor
        self.figures: dict[str, dict[str, Metric]] = {"val": {}, "test": {}}

    def configure_model(self) -> None:
        """Build the reader for the data set's channels and classes; does nothing the second time.

        Raises:
            DataError: The data set has no classes.
            UsageError: The backbone gives logits for pixels.
        """
        if self.classes:
            return
        data: ImageDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        spec = data.spec
        if len(spec.classes) < 2:
            raise DataError(
                f"{type(data).__name__} has {len(spec.classes)} classes: a classifier needs pictures with labels "
                "of two classes or more"
            )
        stem = self.view.stem(spec.channels)
        backbone = self.backbone(stem.width, len(spec.classes))
        if backbone.per_pixel:
            raise UsageError(
                f"model.backbone {type(backbone).__name__} is for segmentation: give a classifier such as "
                "encdl.readers.ResNet18"
            )
        self.classes = spec.classes
        self.reader = Reader(stem, backbone)
        self.register_buffer("class_counts", data.class_counts())

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """Weighted cross-entropy of the main row."""
        image, label = batch["image"], batch["label"]
        sight = self.view.train(self.cipher, image, BatchKeys(self, image, "train", self.training_draws))
        loss = F.cross_entropy(self.reader(sight.picture, sight.mask), label, self._class_weights())
        self.log("train/loss", loss, prog_bar=True, batch_size=len(image))
        return loss

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Collect the figures of every row."""
        self._judge("val", batch, batch_idx)

    def test_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """The same on the test split."""
        self._judge("test", batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log `val/accuracy/ROW` and `val/auroc/ROW`, and of the main row `val/accuracy` and `val/auroc`."""
        self._tell("val")

    def on_test_epoch_end(self) -> None:
        """The same under `test/`."""
        self._tell("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also say what the reader is made of, so that `encdl.readers.load` needs neither task nor data set."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[READER_KEY] = {
            "reader": self.reader.config(),
            "view": type(self.view).__name__,
            "classes": list(self.classes),
            "weights_id": self.weights_id,
            "planes": self.planes.to_dict(),
        }

    @torch.no_grad()
    def panel(self, batch: ImageBatch) -> dict[str, Tensor]:
        """The picture and what the reader is shown of it."""
        image = batch["image"]
        rows = self.view.rows(self.cipher, image, BatchKeys(self, image, "panel", 0))
        return {"plain": image, self.view.row: rows[self.view.row].picture}

    def _judge(self, stage: str, batch: ImageBatch, batch_idx: int) -> None:
        image, label = batch["image"], batch["label"]
        for row, sight in self.view.rows(
            self.cipher, image, BatchKeys(self, image, stage, batch_idx)
        ).items():
            logits = self.reader(sight.picture, sight.mask)
            if row == self.view.row:
                loss = F.cross_entropy(logits, label, self._class_weights())
                self.log(f"{stage}/loss", loss, sync_dist=True, batch_size=len(image))
            self._accuracy(stage, row).update(logits.float(), label)
            self._auroc(stage, row).update(logits.float().softmax(1), label)
        majority = self.class_counts.argmax().expand_as(label)
        self._accuracy(stage, MAJORITY).update(majority, label)

    def _accuracy(self, stage: str, row: str) -> Metric:
        """The share of all pictures that are told right."""
        known = self.figures[stage]
        if (name := f"accuracy/{row}") not in known:
            known[name] = MulticlassAccuracy(len(self.classes), average="micro").to(self.device)
        return known[name]

    def _auroc(self, stage: str, row: str) -> Metric:
        """Area under the ROC curve, the mean over the classes, each against the others."""
        known = self.figures[stage]
        if (name := f"auroc/{row}") not in known:
            known[name] = MulticlassAUROC(len(self.classes)).to(self.device)
        return known[name]

    def _tell(self, stage: str) -> None:
        with warnings.catch_warnings():
            # A class that a small split lacks has no AUROC, and the mean is over the others.
            warnings.filterwarnings("ignore", "No (posi|nega)tive samples in targets")
            warnings.filterwarnings("ignore", "Average precision score for one or more classes was `nan`")
            values = {name: metric.compute() for name, metric in self.figures[stage].items()}
        for metric in self.figures[stage].values():
            metric.reset()
        for kind in ("accuracy", "auroc"):
            values[kind] = values[f"{kind}/{self.view.row}"]
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()}, sync_dist=True)

    def _class_weights(self) -> Tensor:
        """Weight of each class in the loss, 1 on average over the training pictures."""
        counts = self.class_counts
        if not self.balanced:
            return torch.ones_like(counts, dtype=torch.float32)
        return counts.sum() / (counts.clamp(min=1) * (counts > 0).sum())
