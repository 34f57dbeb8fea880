"""Tiny ciphers, a handful of small real slices, and a trainer that leaves nothing behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from encdl import ciphers
from encdl.ciphers.base import Cipher
from encdl.data.base import DataSpec, ImageDataModule, Sample, Split
from encdl.training.tasks.encrypt import EncryptTask, LossWeights
from tests.mni import mni_slice

SIDE = 32


class FewSlices(ImageDataModule):
    """The middle of some slices: 4 for training, 3 for validation and 2 for testing, 32 pixels square."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"batch_size": 4, "eval_batch_size": 2, "crop": 0, "augment": False, **settings})

    @property
    def spec(self) -> DataSpec:
        return DataSpec(channels=1, height=SIDE, width=SIDE)

    def samples(self, split: Split) -> Sequence[Sample]:
        slices = {"train": (60, 75, 90, 105), "val": (70, 80, 97), "test": (66, 85)}[split]
        return [{"image": mni_slice(index, SIDE, SIDE)[0].numpy()} for index in slices]


class Losses(Callback):
    """Keeps every step's losses."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.rates: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.steps.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def mean(self, name: str, part: slice) -> float:
        values = [step[name] for step in self.steps[part]]
        return sum(values) / len(values)


def tiny_cipher(name: str = "agile", planes: int = 8) -> Cipher:
    torch.manual_seed(0)
    more = {"field_width": 1, "coupling_width": 1} if name == "coupled" else {}
    return ciphers.create(name, {"planes": planes, "width": 8, "blocks": 1, **more})


def tiny_task(name: str = "agile", **settings: Any) -> EncryptTask:
    weights = LossWeights(activity=1.0 if name == "coupled" else 0.0)
    return EncryptTask(tiny_cipher(name), **{"loss_weights": weights, **settings})


def trainer(folder: Path, steps: int, *callbacks: Callback, **settings: Any) -> Trainer:
    return Trainer(
        **{
            "accelerator": "cpu",
            "max_steps": steps,
            "default_root_dir": str(folder),
            "logger": False,
            "callbacks": list(callbacks),
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "enable_progress_bar": False,
            "log_every_n_steps": 1,
            "check_val_every_n_epoch": None,
            "val_check_interval": steps,
            **settings,
        }
    )
