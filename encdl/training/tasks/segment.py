"""Training of a segmenter that reads ciphertext, and of those that it is compared with: `SegmentTask`."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.wrappers import ClasswiseWrapper

from encdl.data.base import ImageDataModule
from encdl.data.batch import ImageBatch
from encdl.metrics.segmentation import VolumeDice, hausdorff_95
from encdl.readers import read_windows
from encdl.training.panels import overlaid
from encdl.training.tasks.read import BatchKeys, ReadTask, middle
from encdl.training.tasks.views import Sight
from encdl.utils.errors import DataError

EMPTY, MEAN = "empty_mask", "mean_mask"
"""Rows of answers that look at no image."""
THRESHOLDS = 50


class SegmentTask(ReadTask):
    """Trains a reader to tell the class of each pixel, on what its view shows of each image.

    Class 0 of the data set is the background. The loss is the sum of cross-entropy and the soft Dice loss of the
    foreground over the batch (Milletari et al. 2016, arXiv:1606.04797). Images larger than the training crop are
    read window by window.

    With `balanced`, the loss weighs the classes by the inverse square root of their share of the training pixels, which
    finds small structures sooner; the inverse itself would paint too much of them. See `ReadTask` for the arguments.
    """

    per_pixel: ClassVar[bool] = True
    criterion: nn.Module
    spacing: tuple[float, ...] | None = None
    mean_mask: Tensor
    dice_by_volume: Tensor
    """Of the volumes judged last, in their order: float32 (volumes, classes - 1), NaN where a class is not there."""
    wanted: ClassVar[str] = "is for classification: give a segmenter such as BasicUNet"

    def configure_model(self) -> None:
        """Also weigh the classes and find the mean mask; see `ReadTask.configure_model`.

        Raises:
            DataError: The data set has no masks, or a class beyond the named ones.
        """
        from monai.losses import DiceCELoss  # noqa: PLC0415

        super().configure_model()
        if self.classes and not hasattr(self, "mean_mask"):
            data: ImageDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
            self.spacing = data.spec.spacing_mm
            frequencies = data.mask_frequencies()
            self.criterion = DiceCELoss(
                include_background=False, to_onehot_y=True, softmax=True, batch=True,
                label_smoothing=self.label_smoothing,
                weight=class_weights(frequencies) if self.balanced else torch.ones(len(self.classes)),
            )  # fmt: skip
            # Not in checkpoints: it belongs to the data set that is judged, which may be another one.
            self.register_buffer("mean_mask", mean_mask(frequencies), persistent=False)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out the weights of the loss, as long as there is no data set to be trained on."""
        super().on_load_checkpoint(checkpoint)
        if not hasattr(self, "criterion"):
            state = checkpoint["state_dict"]
            for name in [name for name in state if name.startswith("criterion.")]:
                del state[name]

    def loss(self, logits: Tensor, batch: ImageBatch) -> Tensor:
        """Cross-entropy and soft Dice loss."""
        if "mask" not in batch:
            raise DataError("the data set has images without a mask: segmentation needs one for each")
        loss: Tensor = self.criterion(logits.float(), batch["mask"])
        return loss

    def read(self, sight: Sight) -> Tensor:
        """Logits of each pixel, window by window where the image is larger than the training crop."""
        return read_windows(self.reader, sight.picture, sight.mask, self.size)

    def measure(self, stage: str, row: str, logits: Tensor, batch: ImageBatch) -> None:
        """Collect the Dice coefficient; for the main row also that of each class, and the Hausdorff distance."""
        prediction = logits.argmax(1, keepdim=True)
        self._collect_dice(stage, row, prediction, batch)
        if row == self.view.row:
            self._collect_details(stage, prediction, batch)

    def measure_floor(self, stage: str, batch: ImageBatch) -> None:
        """The Dice coefficients of an empty mask, which are 0, and of the mean mask of training (`mean_mask`)."""
        truth = batch["mask"]
        self._collect_dice(stage, EMPTY, torch.zeros_like(truth), batch)
        mean = F.interpolate(self.mean_mask[None].float(), truth.shape[2:]).expand_as(truth)
        self._collect_dice(stage, MEAN, mean, batch)

    def computed(self, stage: str) -> dict[str, Tensor]:
        """The figures; see `ReadTask.computed`. Leaves the main row's Dice by volume in `dice_by_volume`."""
        main = self.figures[stage]
        values = super().computed(stage)
        dice = main[f"dice/{self.view.row}"]
        assert isinstance(dice, VolumeDice)
        self.dice_by_volume = dice.by_volume.cpu()
        return values

    @torch.no_grad()
    def panel(self, batch: ImageBatch) -> dict[str, Tensor]:
        """The image, what the reader is shown of it, the true mask and the reader's, over the image."""
        image = batch["image"]
        rows = self.view.rows(self.cipher, image, BatchKeys(self, image, "panel", 0))
        columns = {
            "plain": (flat := middle(image)),
            self.view.row: middle(self._shown(rows[self.view.row], image)),
            "truth": overlaid(flat, middle(batch["mask"])),
        }
        for row, name in ((self.view.row, "prediction"), ("wrong_key", "prediction, wrong key")):
            if row in rows:
                under = flat if row == self.view.row else torch.zeros_like(flat)  # it saw no image
                columns[name] = overlaid(under, middle(self.read(rows[row]).argmax(1, keepdim=True)))
        return columns

    def _collect_dice(self, stage: str, row: str, prediction: Tensor, batch: ImageBatch) -> None:
        dice = self.figure(stage, f"dice/{row}", partial(VolumeDice, len(self.classes)))
        dice.update(prediction, batch["mask"], batch.get("volume"))

    def _collect_details(self, stage: str, prediction: Tensor, batch: ImageBatch) -> None:
        count, truth = len(self.classes), batch["mask"]
        if count > 2:  # with one class in the foreground, its Dice coefficient is the mean
            dice = self.figure(stage, "dice_class", self._dice_by_class)
            dice.update(prediction, truth, batch.get("volume"))
        unit = "px" if self.spacing is None else "mm"
        distances = hausdorff_95(prediction, truth, count, self.spacing or ())
        named = {f"hd95_{unit}/{self.view.row}": distances}
        if count > 2:
            named |= {f"hd95_{unit}_class/{name}": distances[:, [k]] for k, name in enumerate(self._labels())}
        for name, values in named.items():
            mean = self.figure(stage, name, partial(MeanMetric, nan_strategy="ignore"))
            mean.update(values.to(self.device))

    def _dice_by_class(self) -> ClasswiseWrapper:
        dice = VolumeDice(len(self.classes), average="none")
        return ClasswiseWrapper(dice, self._labels(), prefix="dice_class/")

    def _labels(self) -> list[str]:
        return [re.sub(r"[^\w.-]+", "_", name) for name in self.classes[1:]]


def class_weights(frequencies: Tensor) -> Tensor:
    """Weights of classes by the inverse square root of their share of the pixels: float32 (classes,), 1 on average.

    Args:
        frequencies: float (classes, H, W) or (classes, D, H, W); see `ImageDataModule.mask_frequencies`.
            A class that never occurs gets the weight 1.
    """
    share = frequencies.flatten(1).mean(1)
    weights = torch.where(share > 0, share.clamp(min=1e-9).rsqrt(), torch.nan)
    return (weights / weights.nanmean()).nan_to_num(1.0)


def mean_mask(frequencies: Tensor) -> Tensor:
    """The mask that one does best with who knows the training masks and sees no image, or close to it.

    Each pixel has its most frequent foreground class, if that is more frequent there than a threshold, and background
    otherwise; the threshold is the one with the best Dice coefficient over all training pixels.

    Args:
        frequencies: float (classes, H, W) or (classes, D, H, W); see `ImageDataModule.mask_frequencies`.

    Returns:
        uint8 (1, H, W) or (1, D, H, W).
    """
    often, winner = frequencies[1:].max(0)
    thresholds = torch.arange(THRESHOLDS) / THRESHOLDS
    candidates = torch.where(often > thresholds.view(-1, *(1 for _ in often.shape)), winner + 1, 0)
    shown = F.one_hot(candidates.flatten(1), len(frequencies)).movedim(-1, 1)[:, 1:].float()
    flat = frequencies[1:].flatten(1)
    common, sizes = (shown * flat).sum(2), shown.sum(2) + flat.sum(1)
    best = (2 * common / sizes.clamp(min=1e-9)).mean(1).argmax()
    return candidates[best].to(torch.uint8)[None]
