"""Averaged weights: judged, kept, exported, and gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from encdl.ciphers import weights
from encdl.training.callbacks import AveragedWeights
from encdl.utils.errors import UsageError
from tests.training.tasks.support import FewSlices, tiny_task, trainer

NAME = "cipher.decryption.enter.weight"


class Seen(Callback):
    """The weights after each step, and those that were judged."""

    def __init__(self) -> None:
        self.trained: list[Tensor] = []
        self.judged: list[Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self.trained.append(pl_module.state_dict()[NAME].clone())

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self.judged.append(pl_module.state_dict()[NAME].clone())


def average(trained: list[Tensor], decay: float) -> Tensor:
    found = trained[0]
    for step, weight in enumerate(trained[1:], 1):
        kept = min(decay, (1 + step) / (10 + step))
        found = kept * found + (1 - kept) * weight
    return found


def test_the_average_is_judged_kept_and_exported(tmp_path: Path) -> None:
    seen, task = Seen(), tiny_task()
    fitting = trainer(tmp_path, 6, AveragedWeights(0.3), seen, val_check_interval=5)
    fitting.fit(task, FewSlices())
    after_five, after_six = (average(seen.trained[:steps], 0.3) for steps in (5, 6))
    torch.testing.assert_close(seen.judged[-1], after_five)
    torch.testing.assert_close(task.state_dict()[NAME], after_six)
    assert not torch.equal(seen.trained[-1], after_six)
    fitting.save_checkpoint(tmp_path / "last.ckpt")
    torch.load(tmp_path / "last.ckpt", weights_only=True)
    kept = weights.load(tmp_path / "last.ckpt").cipher.state_dict()
    torch.testing.assert_close(kept[NAME.removeprefix("cipher.")], after_six)


def test_the_trainer_that_trained_judges_the_kept_average(tmp_path: Path) -> None:
    keep, task = ModelCheckpoint(tmp_path, filename="best"), tiny_task()
    fitting = trainer(tmp_path, 4, AveragedWeights(0.3), keep, val_check_interval=4, enable_checkpointing=True)
    fitting.fit(task, FewSlices())
    kept = torch.load(tmp_path / "best.ckpt", weights_only=True)
    fitting.validate(task, FewSlices(), ckpt_path=str(tmp_path / "best.ckpt"), verbose=False, weights_only=True)
    torch.testing.assert_close(task.state_dict()[NAME], kept["state_dict"][NAME])
    assert not torch.equal(kept["state_dict"][NAME], kept["current_model_state"][NAME])


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_stopped_run_goes_on_from_the_last_weights(tmp_path: Path) -> None:
    def fitting(folder: str) -> Trainer:
        keep = ModelCheckpoint(tmp_path / folder, filename="{step}", every_n_train_steps=4, save_top_k=-1)
        return trainer(tmp_path, 8, AveragedWeights(0.3), keep, enable_checkpointing=True)

    whole, resumed = tiny_task(), tiny_task()
    fitting("whole").fit(whole, FewSlices(batch_size=2))
    fitting("again").fit(resumed, FewSlices(batch_size=2), ckpt_path=tmp_path / "whole" / "step=4.ckpt")
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_a_decay_out_of_range(decay: float) -> None:
    with pytest.raises(UsageError, match="AveragedWeights"):
        AveragedWeights(decay)
