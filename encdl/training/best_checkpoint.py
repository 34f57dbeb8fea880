"""`BestCheckpoint`: keeps the weights that did best on the validation images, and says where those are too few."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from encdl.data.base import ImageDataModule
from encdl.utils.messages import warn

LEAST_IMAGES = 100
"""Labelled images: a share of .9 right is known to within .06 by as many (95 %), and one answer moves it by .01."""
LEAST_OF_A_CLASS = 10
LEAST_GROUPS = 20
"""Patients, or scans whose slices are the images: however many images they have."""
LEAST_MASKS = 5
"""Volumes with masks; where volumes are unknown, images: a mask tells more than a label."""
LOSS = "val/loss"


class BestCheckpoint(ModelCheckpoint):
    """Keeps `best.ckpt`: the step with the best figure; of equals the one with the least loss, then the latest.

    A figure such as AUROC takes few values on few images. Where there are fewer than `LEAST_IMAGES` labelled validation
    images, `LEAST_OF_A_CLASS` of a class, `LEAST_GROUPS` patients or scans that they are of, or `LEAST_MASKS` volumes
    with masks, a line at the start says so.

    Args:
        monitor: The figure.
        mode: `max` or `min`: what is better.
    """

    def __init__(self, monitor: str, mode: str = "max") -> None:
        super().__init__(monitor=monitor, mode=mode, filename="best")
        self._loss = float("inf")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say if validation images are too few to choose by."""
        data = getattr(trainer, "datamodule", None)
        if trainer.is_global_zero and isinstance(data, ImageDataModule) and (few := too_few(data)):
            warn(
                f"{few} for validation are too few to choose a checkpoint by: give more (data.init_args.val_share, in "
                "folders), or take last.ckpt"
            )

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether these weights take the place of the best ones."""
        loss = float(trainer.callback_metrics.get(LOSS, torch.tensor(float("inf"))))
        best: bool = super().check_monitor_top_k(trainer, current)
        if not best and current is not None and self.best_model_score is not None:
            best = bool(current == self.best_model_score) and loss <= self._loss
        if best:
            self._loss = loss
        return best

    def state_dict(self) -> dict[str, Any]:
        """Also the loss of the best weights."""
        return super().state_dict() | {"loss": self._loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with it."""
        super().load_state_dict(state_dict)
        self._loss = state_dict.get("loss", float("inf"))


def too_few(data: ImageDataModule) -> str:
    """What there is too little of in the validation split, in words; empty where it suffices or has no answers."""
    samples = data.raw("val")
    if "mask" in samples[0]:
        volumes = {sample.get("volume", -1 - number) for number, sample in enumerate(samples)}
        return _counted(len(volumes), LEAST_MASKS, "volumes or images with masks")
    labels = [sample["label"] for sample in samples if "label" in sample]
    if not labels:
        return ""
    counts = torch.bincount(torch.tensor(labels), minlength=len(data.spec.classes))
    rarest = int(counts.argmin())
    groups = data.groups("val") if hasattr(data, "groups") else None
    return (
        _counted(len(labels), LEAST_IMAGES, "labelled images")
        or _counted(int(counts[rarest]), LEAST_OF_A_CLASS, f"images of class {data.spec.classes[rarest]}")
        or (_counted(len(set(groups)), LEAST_GROUPS, getattr(data, "grouping", "patients")) if groups else "")
    )


def _counted(count: int, least: int, what: str) -> str:
    return f"{count} {what} (fewer than {least})" if count < least else ""
