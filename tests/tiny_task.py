"""The smallest task and data set that the training commands can run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from encdl.batch import ImageBatch
from encdl.data.base import DataSpec, ImageDataModule, Sample, Split

METRICS = {
    "val/loss": 0.25,
    "val/exact_fraction": 1.0,
    "val/wrong_key_psnr_db": 8.9,
    "val/mean_image_psnr_db": 14.6,
    "val/restored_psnr_db/salt_pepper_1pct": 29.1,
    "val/entropy_bits": 7.9972,
    "val/content_activity": 0.61,
}


@dataclass(frozen=True)
class Shape:
    """Settings of the kind that a cipher has."""

    map: str = "logistic"
    planes: int = 8


class Shift(torch.nn.Module):
    """One weight."""

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(start))


class TinyTask(LightningModule):
    """Learns the mean of the pictures; fails on request."""

    def __init__(
        self, cipher: torch.nn.Module | None = None, shape: Shape | None = None, fails: str = ""
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.cipher, self.fails = cipher or Shift(), fails

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        if self.fails == "stop":
            raise KeyboardInterrupt
        if self.fails:
            raise ArithmeticError(self.fails)
        loss = (batch["image"].float().mean() / 255 - self.cipher.weight) ** 2  # type: ignore[operator]
        self.log("train/loss", loss)
        result: Tensor = loss
        return result

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        for name, value in METRICS.items():
            self.log(name, value, batch_size=len(batch["image"]), sync_dist=True)

    def panel(self, batch: ImageBatch) -> dict[str, Tensor]:
        plain = batch["image"]
        return {"plain": plain, "ciphertext": 255 - plain, "decrypted": plain, "wrong_key": plain // 2}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class TinyData(ImageDataModule):
    """Eight noisy pictures of 16 x 16 pixels."""

    @property
    def spec(self) -> DataSpec:
        return DataSpec(channels=1, height=16, width=16)

    def samples(self, split: Split) -> Sequence[Sample]:
        noise = np.random.default_rng(0).integers(0, 256, (8, 1, 16, 16), dtype=np.uint8)
        return [{"image": picture} for picture in noise]
