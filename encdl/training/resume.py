"""Runs that may be stopped at any time: `ResumePoint` keeps their place, `SeededSteps` their random numbers.

`encdl fit --resume FOLDER` uses both; `encdl.training.run_folder` says what is in the folder.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_info

from encdl.training.run_folder import CHECKPOINT, EXIT_PREEMPTED
from encdl.training.tracking import run_logger
from encdl.utils.atomic import write_bytes
from encdl.utils.errors import UsageError

EVERY_S = 300.0
AGREED_EVERY = 8
"""Training batches from one agreement of several processes to the next on whether to save."""


class Preempted(SystemExit):
    """Ends a run that has saved its place; one rank of a run says so to whoever started it."""

    def __init__(self, rank: int, where: str) -> None:
        super().__init__(EXIT_PREEMPTED if rank == 0 else 0)
        self.where = where

    def __str__(self) -> str:
        return f"asked to make room; goes on from {self.where}"


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes checkpoints whole or not at all, whatever kills the process."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Write to a file beside it, which takes the name when it is on the disk."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content.getbuffer(), force=True)


class SeededSteps(Callback):
    """Seeds torch, numpy and Python before each training batch by (seed, rank, number of the batch).

    So dropout and whatever else draws from them is the same in a run that was stopped and went on as in one that was
    not, and never the same on two ranks. The seed is that of `seed_everything`; without one nothing is seeded.
    """

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed."""
        seed = os.environ.get("PL_GLOBAL_SEED")
        if seed is not None:
            number = step_seed(int(seed), trainer.global_rank, trainer.fit_loop.epoch_loop.total_batch_idx)
            torch.manual_seed(number)
            np.random.seed(number)
            random.seed(number)


def step_seed(seed: int, rank: int, batch: int) -> int:
    """A seed of 32 bits for what one rank draws in one training batch."""
    digest = hashlib.shake_256(f"encdl training step/{seed}/{rank}/{batch}".encode()).digest(4)
    return int.from_bytes(digest, "little")


class ResumePoint(Checkpoint):
    """Keeps `last.ckpt` in a folder up to date, and ends the run in good order when SIGUSR1 asks for it.

    It saves between two training batches, or after a validation: what Lightning restores exactly. Right before a
    validation it waits for its end, and between batches whose gradients are summed (`accumulate_grad_batches`) for
    the step of the optimizer: gradients are in no checkpoint. On SIGUSR1, on any rank, all ranks save together and
    stop.

    Args:
        folder: Where the checkpoint goes.
        every_n_steps: Save every so many training batches; 0: only by the clock.
        every_s: Save when this many seconds have passed; also after each validation.

    Raises:
        UsageError: A number is negative.
    """

    def __init__(self, folder: str | os.PathLike[str], every_n_steps: int = 0, every_s: float = EVERY_S) -> None:
        if every_n_steps < 0 or every_s < 0:
            raise UsageError("a run cannot save its place less than never: give 0 or more (--resume_every)")
        self.file = Path(folder).absolute() / CHECKPOINT
        self.every_n_steps, self.every_s = every_n_steps, every_s
        self._asked = False
        self._owed = False
        self._saved_at = time.monotonic()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen for the signal."""
        if stage == "fit":
            self.listen()

    def listen(self) -> None:
        """Listen for the signal; its handler only sets a flag, since a save needs all ranks at one place.

        Called before the trainer runs, it also listens afterwards (Lightning restores what it found): a second signal
        does not kill a run that is saying how it ended.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR1, self._on_signal)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time."""
        number = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        due = bool(self.every_n_steps) and number % self.every_n_steps == 0
        self._owed |= due
        asked = False
        # Several processes have to agree, which lets their GPUs run dry: not at every step.
        if trainer.world_size == 1 or number % AGREED_EVERY == 0:
            late = trainer.is_global_zero and time.monotonic() - self._saved_at >= self.every_s
            self._owed |= trainer.strategy.reduce_boolean_decision(late, all=False)
            asked = trainer.strategy.reduce_boolean_decision(self._asked, all=False)
        if (self._owed or asked) and not (_before_validation(trainer, batch_idx) or _holds_gradients(trainer)):
            if run_logger(trainer) is not None:
                # Lightning logs a batch after this hook: who goes on from here would not. The run keeps one of both.
                trainer._logger_connector.update_train_step_metrics()
            self._save(trainer, asked)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, if this is a validation of a training."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if _holds_gradients(trainer):
            self._owed = True
        else:
            self._save(trainer, trainer.strategy.reduce_boolean_decision(self._asked, all=False))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end, so that the same command has nothing left to do."""
        self._save(trainer, asked=False)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say how to go on, if someone stopped the run."""
        if isinstance(exception, KeyboardInterrupt) and trainer.state.fn == "fit":
            kept = self.file.is_file()
            how = f"goes on from {self.file}" if kept else "begins again, no place was kept"
            rank_zero_info(f"stopped: the same command {how}")

    def _save(self, trainer: Trainer, asked: bool) -> None:
        # With None, the default, Lightning tells each time that it took False.
        trainer.save_checkpoint(self.file, weights_only=False)
        self._owed, self._saved_at = False, time.monotonic()
        if asked:
            rank_zero_info(f"asked to make room: saved at step {trainer.global_step} in {self.file}")
            raise Preempted(trainer.global_rank, str(self.file))

    def _on_signal(self, *_: object) -> None:
        self._asked = True


def _before_validation(trainer: Trainer, batch_idx: int) -> bool:
    """Whether the epoch ends, or a validation may begin, after this batch."""
    progress = trainer.fit_loop.epoch_loop
    every = trainer.val_check_batch or float("inf")
    last = progress.batch_progress.is_last_batch or batch_idx + 1 == trainer.num_training_batches
    return last or (batch_idx + 1) % every == 0 or (progress.total_batch_idx + 1) % every == 0


def _holds_gradients(trainer: Trainer) -> bool:
    """Whether gradients of the batches so far wait for those of the next."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    ready = progress.current.ready
    last = progress.is_last_batch or ready == trainer.num_training_batches  # always followed by a step
    return not last and ready % trainer.accumulate_grad_batches != 0
