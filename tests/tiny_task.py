"""The smallest task and data set that the training commands can run."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from encdl.ciphers import AgileCipher
from encdl.data.base import DataSpec, ImageDataModule, Sample, Split
from encdl.data.batch import ImageBatch
from encdl.keys.planes import PlaneSpec
from encdl.training.tasks.base import CipherTask, Stage
from encdl.training.tasks.random_damage import RandomDamage

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
    """Learns the mean of the images; fails on request."""

    def __init__(self, cipher: torch.nn.Module | None = None, shape: Shape | None = None, fails: str = "") -> None:
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


class DrawingTask(CipherTask):
    """A task whose every step hangs on all there is to restore.

    Weights, momentum, learning rate, batch norm, dropout, torch's, numpy's and Python's random numbers, keys, damage,
    and which images come when.

    Args:
        seed: Fixes keys and damage.
        learning_rate: Peak of the schedule.
        pause_s: Rest after each step, so that there is time to stop it.
        tag: Changes nothing.
        keys_file: Where each rank writes a digest of each key that it trains on, as `KEYS_FILE-RANK`.
    """

    def __init__(
        self,
        seed: int = 0,
        learning_rate: float = 0.01,
        pause_s: float = 0.0,
        tag: str = "",
        keys_file: str | None = None,
    ) -> None:
        super().__init__(AgileCipher(width=4, blocks=1), PlaneSpec(), learning_rate, 0.1, seed)
        self.cipher.requires_grad_(False)
        self.pause_s, self.tag, self.keys_file = pause_s, tag, keys_file
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(4, 1),
        )  # fmt: skip

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        image, step = batch["image"], self.training_draws
        planes = self._planes(image, "train", step)
        if self.keys_file:
            with Path(f"{self.keys_file}-{self.global_rank}").open("a") as file:
                file.writelines(f"{sha256(key.cpu().numpy().tobytes()).hexdigest()}\n" for key in planes)
        damaged, _ = RandomDamage()(self.cipher.encrypt(image, planes), self._generator("train", step))
        noise = float(torch.rand(1)) + float(np.random.rand()) + random.random()
        loss = (self.net(damaged.float() / 255) - noise).square().mean()
        self.log("train/loss", loss, sync_dist=True)
        time.sleep(self.pause_s)
        result: Tensor = loss
        return result

    def judge(self, stage: Stage, batch: ImageBatch, number: int) -> None:
        ciphertext = self.cipher.encrypt(batch["image"], self._planes(batch["image"], stage, number))
        self.figure(stage, "loss").update(self.net(ciphertext.float() / 255).mean(), len(ciphertext))


class TinyData(ImageDataModule):
    """Eight noisy images of 16 x 16 pixels."""

    @property
    def spec(self) -> DataSpec:
        return DataSpec(channels=1, height=16, width=16)

    def samples(self, split: Split) -> Sequence[Sample]:
        noise = np.random.default_rng(0).integers(0, 256, (8, 1, 16, 16), dtype=np.uint8)
        return [{"image": image} for image in noise]


class FiveLabelled(TinyData):
    """Five images of two classes, bright and dark, to train on and to judge."""

    @property
    def spec(self) -> DataSpec:
        return DataSpec(channels=1, height=16, width=16, classes=("dark", "bright"))

    def samples(self, split: Split) -> Sequence[Sample]:
        labels = [0, 1, 1, 0, 1]
        return [
            {"image": sample["image"] // 2 + 100 * label, "label": label}
            for sample, label in zip(super().samples(split), labels, strict=False)
        ]


class FourLabelled(FiveLabelled):
    """The first four of them."""

    def samples(self, split: Split) -> Sequence[Sample]:
        return super().samples(split)[:4]


class OneImage(TinyData):
    """A single image."""

    def samples(self, split: Split) -> Sequence[Sample]:
        return super().samples(split)[:1]
