"""Training of a classifier that reads ciphertext, and of those that it is compared with: `ClassifyTask`."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import CatMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassConfusionMatrix

from encdl.data.batch import ImageBatch
from encdl.metrics.calibration import Calibration
from encdl.training.tasks.read import BatchKeys, ReadTask

MAJORITY = "majority_class"
CONFUSION, RIGHT = "confusion", "right"
"""Of the main row, and not logged: how often each class (row) is told as each (column), and which images are right."""


class ClassifyTask(ReadTask):
    """Trains a reader to tell the classes of a data set, on what its view shows of each image.

    With `balanced`, the loss weighs the classes by the inverse of how often they occur in training. See `ReadTask` for
    the arguments.
    """

    per_pixel: ClassVar[bool] = False
    class_counts: Tensor
    confusion: Tensor
    reliability: Tensor
    right: Tensor
    wanted: ClassVar[str] = "is for segmentation: give a classifier such as ResNet"

    def configure_model(self) -> None:
        """Also count the classes; see `ReadTask.configure_model`."""
        super().configure_model()
        if self.classes and not hasattr(self, "class_counts"):
            self.register_buffer("class_counts", self.trainer.datamodule.class_counts())  # type: ignore[attr-defined]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also take over how many images of each class there were."""
        super().on_load_checkpoint(checkpoint)
        if not hasattr(self, "class_counts"):
            self.register_buffer("class_counts", checkpoint["state_dict"]["class_counts"])

    def loss(self, logits: Tensor, batch: ImageBatch) -> Tensor:
        """Cross-entropy, the classes weighted if `balanced`."""
        return F.cross_entropy(logits, batch["label"], self._class_weights(), label_smoothing=self.label_smoothing)

    def measure(self, stage: str, row: str, logits: Tensor, batch: ImageBatch) -> None:
        """Collect accuracy, the share of images told right, its mean over classes, and AUROC, of each against the rest.

        Of the main row also the expected calibration error, the confusion matrix, and which images were told right.
        """
        classes, label = len(self.classes), batch["label"]
        balanced = partial(MulticlassAccuracy, classes, average="macro")
        self.figure(stage, f"balanced_accuracy/{row}", balanced).update(logits, label)
        if row == self.view.row:
            self.figure(stage, f"ece/{row}", Calibration).update(logits.softmax(1), label)
            self.figure(stage, CONFUSION, partial(MulticlassConfusionMatrix, classes)).update(logits, label)
            self.figure(stage, RIGHT, CatMetric).update((logits.argmax(1) == label).float())
        accuracy = partial(MulticlassAccuracy, classes, average="micro")
        self.figure(stage, f"accuracy/{row}", accuracy).update(logits, label)
        auroc = partial(MulticlassAUROC, classes)
        self.figure(stage, f"auroc/{row}", auroc).update(logits.softmax(1), label)

    def measure_floor(self, stage: str, batch: ImageBatch) -> None:
        """The accuracy of always saying the class that is most frequent in training."""
        label = batch["label"]
        accuracy = partial(MulticlassAccuracy, len(self.classes), average="micro")
        majority = self.class_counts.argmax().expand_as(label)
        self.figure(stage, f"accuracy/{MAJORITY}", accuracy).update(majority, label)

    @torch.no_grad()
    def captions(self, batch: ImageBatch) -> list[str]:
        """Of each image of a panel, its class and what the reader says in each row."""
        image = batch["image"]
        rows = self.view.rows(self.cipher, image, BatchKeys(self, image, "panel", 0))
        lines = [[f"is {self.classes[int(label)]}"] for label in batch["label"]]
        for row, sight in rows.items():
            share, best = self.read(sight).float().softmax(1).max(1)
            for line, index, part in zip(lines, best, share, strict=True):
                line.append(f"{row.replace('_', ' ')}: {self.classes[int(index)]}, {float(part):.0%}")
        return ["\n".join(line) for line in lines]

    def computed(self, stage: str) -> dict[str, Tensor]:
        """The figures; see `ReadTask.computed`. Leaves what is no number in `confusion`, `reliability` and `right`."""
        calibration = self.figures[stage][f"ece/{self.view.row}"]
        with warnings.catch_warnings():
            # A class that a small split lacks has no AUROC, and the mean is over the others.
            warnings.filterwarnings("ignore", "No (posi|nega)tive samples in targets")
            warnings.filterwarnings("ignore", "Average precision score for one or more classes was `nan`")
            values = super().computed(stage)
        self.confusion, self.right = (values.pop(name).cpu() for name in (CONFUSION, RIGHT))
        assert isinstance(calibration, Calibration)
        self.reliability = calibration.bins.cpu()
        return values

    def test_panel(self) -> bytes:
        """The confusion matrix and the reliability plot of the last test, a PNG file."""
        from encdl.training.panels import answers_png  # noqa: PLC0415

        return answers_png(self.confusion.numpy(), self.reliability.numpy(), self.classes)

    def _class_weights(self) -> Tensor:
        """Weight of each class in the loss, 1 on average over the training images."""
        counts = self.class_counts
        if not self.balanced:
            return torch.ones_like(counts, dtype=torch.float32)
        return counts.sum() / (counts.clamp(min=1) * (counts > 0).sum())
