"""Lightning callbacks: panels of images, a table of results at a run's end, averaged weights."""

from __future__ import annotations

import shlex
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from encdl.data.base import ImageDataModule
from encdl.data.batch import ImageBatch
from encdl.training.judged_units import told_interval
from encdl.training.panels import panel_png
from encdl.training.tracking import run_logger
from encdl.utils.errors import UsageError

LABELS = {
    "val/loss": ("validation loss", "{:.4f}"),
    "val/exact_fraction": ("decrypted exactly", "{:.1%} of images"),
    "val/wrong_key_psnr_db": ("wrong key", "{:.1f} dB"),
    "val/mean_image_psnr_db": ("guessing the mean image", "{:.1f} dB"),
    "val/unrestored_psnr_db/": ("decrypted after {}", "{:.1f} dB"),
    "val/restored_psnr_db/": ("restored after {}", "{:.1f} dB"),
    "val/unhit_unchanged_fraction": ("left alone of pixels not hit", "{:.2%}"),
    "val/entropy_bits": ("ciphertext entropy", "{:.4f} of 8 bits"),
    "val/content_activity": ("content activity", "{:.3f} (0: pure keystream)"),
    "val/accuracy/": ("accuracy, {}", "{:.1%} of validation images"),
    "val/balanced_accuracy/": ("balanced accuracy, {}", "{:.1%} (mean over classes)"),
    "val/ece/": ("calibration error, {}", "{:.3f}"),
    "val/auroc/": ("AUROC, {}", "{:.3f} (0.5: chance)"),
    "val/dice/": ("Dice, {}", "{:.3f}"),
    "val/dice_class/": ("Dice of {}", "{:.3f}"),
    "val/hd95_mm_class/": ("Hausdorff distance (95 %) of {}", "{:.1f} mm"),
    "val/hd95_px_class/": ("Hausdorff distance (95 %) of {}", "{:.1f} pixels"),
    "val/hd95_mm/": ("Hausdorff distance (95 %), {}", "{:.1f} mm"),
    "val/hd95_px/": ("Hausdorff distance (95 %), {}", "{:.1f} pixels"),
}
"""Metric, or the beginning of metrics' names, to its label and format; in the order of the table."""


@runtime_checkable
class HasPanel(Protocol):
    """A task that can show itself; one with `captions(batch)` gives a few lines beside each image, too."""

    def panel(self, batch: ImageBatch) -> Mapping[str, Tensor]:
        """Name of a column to images, uint8 (B, C, H, W), in the order in which they are drawn."""
        ...


class ImagePanel(Callback):
    """Draws the first batch of each validation as the task shows it, PLAINTEXT images of patients included.

    Where they come from encrypted files, it does not. Of a test it draws a classifier's confusion matrix and
    reliability. The image goes to the MLflow run as `panels/step-00001200.png` (of a test `panels/test-answers.png`);
    without MLflow, to the same place below the other logger's folder, or else below `default_root_dir`.

    Args:
        images: How many images of the batch are drawn.
        every_n_validations: Draw at every n-th validation only.
    """

    def __init__(self, images: int = 3, every_n_validations: int = 1) -> None:
        self.images, self.every_n_validations = images, every_n_validations
        self._validations = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say where the panels go."""
        if stage == "fit" and isinstance(pl_module, HasPanel) and not _sealed(trainer):
            place = "the MLflow run" if run_logger(trainer) is not None else "the run's folder"
            rank_zero_info(f"panels with plaintext images go into {place}: --no-panels leaves them out")

    def on_validation_batch_end(  # Lightning's signature
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the first batch."""
        if batch_idx or dataloader_idx or trainer.sanity_checking:
            return
        self._validations += 1
        due = (self._validations - 1) % self.every_n_validations == 0
        if due and trainer.is_global_zero and isinstance(pl_module, HasPanel) and not _sealed(trainer):
            few = {name: values[: self.images] for name, values in batch.items()}
            with torch.no_grad():
                columns = pl_module.panel(few)  # type: ignore[arg-type]  # a part of an ImageBatch is one
                captions = getattr(pl_module, "captions", lambda _: ())(few)
            title = f"{_subject(trainer, pl_module)}, step {trainer.global_step}"
            png = panel_png(columns, title, self.images, captions)
            self._store(trainer, png, f"panels/step-{trainer.global_step:08d}.png")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw what a classifier told in a test: a confusion matrix and a reliability plot."""
        draw = getattr(pl_module, "test_panel", None)
        if draw is not None and trainer.is_global_zero:
            self._store(trainer, draw(), "panels/test-answers.png")

    def _store(self, trainer: Trainer, png: bytes, path: str) -> None:
        logger = run_logger(trainer)
        if logger is not None:
            logger.log_picture(png, path)
            return
        # Not `trainer.log_dir`: it waits for the other ranks, and only rank 0 is here.
        folder = getattr(trainer.logger, "log_dir", None) or trainer.default_root_dir
        file = Path(folder, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png)
        rank_zero_info(f"panel: {file}")


class AveragedWeights(WeightAveraging):
    """Judges, keeps and exports an exponential moving average of the weights; training goes on from the last ones.

    At step n the average keeps min(decay, (1 + n) / (10 + n)) of itself, so that the first weights are soon forgotten.

    Args:
        decay: Share of the average that stays at each step in the end, 0..1.

    Raises:
        UsageError: It is out of its range.
    """

    def __init__(self, decay: float = 0.998) -> None:
        if not 0 <= decay < 1:
            raise UsageError(f"AveragedWeights: decay is {decay}, it must be 0 or more and below 1")
        self.decay = decay
        self._kept = 0.0
        super().__init__(multi_avg_fn=self._average)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the average; without Lightning's advice on models that are spread over devices."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You're using the WeightAveraging callback with a model that overrides")
            super().setup(trainer, pl_module, stage)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on from the last weights; where a checkpoint is only judged, it is the average that counts."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """After each step, and never at the end of an epoch."""
        if step_idx is None:
            return False
        self._kept = min(self.decay, (1 + step_idx) / (10 + step_idx))
        return True

    def _average(self, averaged: list[Tensor], current: list[Tensor], _: Tensor) -> None:
        """All weights of a type in one call: one by one, a GPU would wait for the CPU."""
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1.0 - self._kept)
        else:
            torch._foreach_copy_(averaged, current)


class EpochBar(TQDMProgressBar):
    """Lightning's progress bar, counting epochs from 1 as `ProgressLines` does."""

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Begin the bar of an epoch."""
        super().on_train_epoch_start(trainer, *_)
        self.train_progress_bar.set_description(_epoch(trainer))


class TellHowToGoOn(Callback):
    """Names, when someone stops a training, the last checkpoint and the command that goes on from it.

    Args:
        words: The command line of `encdl` that started it.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Tell it."""
        if not isinstance(exception, KeyboardInterrupt) or trainer.state.fn != "fit":
            return
        paths = [
            Path(path)
            for each in trainer.checkpoint_callbacks
            for path in (getattr(each, "last_model_path", ""), getattr(each, "best_model_path", ""))
            if path and Path(path).is_file()
        ]
        if paths:
            last = str(max(paths, key=lambda path: path.stat().st_mtime))
            again = shlex.join(["encdl", *self.words, "--ckpt_path", last])
            rank_zero_info(f"stopped; last checkpoint: {last}\nto go on: {again}")
        else:
            rank_zero_info("stopped before the first checkpoint; with --resume FOLDER a run can be stopped at any time")


class ProgressLines(Callback):
    """Prints a line at the beginning, at the end of each epoch, and now and then: for logs, in which no bar can move.

    Args:
        every_s: Seconds after which a line comes within an epoch or a validation, too.
    """

    def __init__(self, every_s: float = 20.0) -> None:
        self._every = every_s
        self._started = self._told = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and say what begins."""
        self._started = self._told = time.monotonic()
        if trainer.is_global_zero:
            print(f"{_epoch(trainer)} begins, {trainer.num_training_batches} batches an epoch", flush=True)

    def on_train_batch_end(  # Lightning's signature
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell how far it is, unless that was told a short time ago or the epoch's line comes next."""
        self._tell_if_due(trainer, trainer.is_last_batch)

    def on_validation_batch_end(  # Lightning's signature
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """The same, of a validation of a training."""
        self._tell_if_due(trainer, trainer.sanity_checking or trainer.state.fn != "fit")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell how far it is; the validation, if there was one, is over."""
        self._tell(trainer)

    def _tell_if_due(self, trainer: Trainer, told_soon: bool) -> None:
        if time.monotonic() - self._told >= self._every and not told_soon:
            self._tell(trainer)

    def _tell(self, trainer: Trainer) -> None:
        self._told = time.monotonic()
        if trainer.is_global_zero:
            print(self._line(trainer), flush=True)

    def _line(self, trainer: Trainer) -> str:
        losses = [
            f", {label} {float(trainer.callback_metrics[name]):.4f}"
            for name, label in (("train/loss", "training loss"), ("val/loss", "validation loss"))
            if name in trainer.callback_metrics
        ]
        head = f"{_epoch(trainer)}, step {trainer.global_step}"
        return f"{head}, {_duration(self._told - self._started)}{''.join(losses)}"


def _sealed(trainer: Trainer) -> bool:
    """Whether the data come from encrypted files, so that no panel shows them."""
    return bool(getattr(getattr(trainer, "datamodule", None), "sealed", False))


def _epoch(trainer: Trainer) -> str:
    several = trainer.max_epochs is not None and trainer.max_epochs > 0
    return f"epoch {trainer.current_epoch + 1}" + (f" of {trainer.max_epochs}" if several else "")


class ResultTable(Callback):
    """Prints, when training ends, what the last validation measured and where the weights and the run are."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the interval of the main figure, over patients where they are known."""
        if trainer.is_global_zero and trainer.world_size == 1 and getattr(trainer.test_loop, "verbose", False):
            told = told_interval(pl_module, getattr(trainer, "datamodule", None))
            if told is not None:
                print(f"{told[0]}: {told[1]}", flush=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Print the table, if what ends is training."""
        if stage != "fit" or not trainer.is_global_zero:
            return
        bar = trainer.progress_bar_callback
        if bar is not None:  # it would draw its last line below the table
            bar.teardown(trainer, pl_module, stage)
        took = _duration(time.monotonic() - self._started)
        heading = f"{_subject(trainer, pl_module)}: {trainer.global_step} steps in {took}"
        print(
            result_table(heading, [*_results(trainer.callback_metrics), *_stopped(trainer), *_places(trainer)]),
            flush=True,
        )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s"


def _subject(trainer: Trainer, task: LightningModule) -> str:
    """The task, and what must be said of the images wherever they are shown."""
    data = getattr(trainer, "datamodule", None)
    note = data.spec.note if isinstance(data, ImageDataModule) else ""
    return f"{type(task).__name__}, {note}" if note else type(task).__name__


def result_table(heading: str, rows: list[tuple[str, str]]) -> str:
    """A heading and rows (label, value) as aligned text."""
    width = max((len(label) for label, _ in rows), default=0)
    return "\n".join(["", heading, *(f"  {label:<{width}}  {value}" for label, value in rows)])


def _results(metrics: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """The table's rows of those metrics that a task logged."""
    rows = []
    for known, (label, form) in LABELS.items():
        for name in [name for name in metrics if name == known or (known.endswith("/") and name.startswith(known))]:
            detail = name.removeprefix(known).replace("_", " ").replace("pct", " %")
            rows.append((label.format(detail), form.format(float(metrics[name]))))
    return rows


def _stopped(trainer: Trainer) -> list[tuple[str, str]]:
    """A row that says why training ended before its last epoch."""
    return [
        (
            "stopped early",
            f"in epoch {each.stopped_epoch + 1}: {each.monitor} was {float(each.best_score):.4f}, and in "
            f"{each.wait_count} validations no better",
        )
        for each in trainer.early_stopping_callbacks
        if each.stopped_epoch
    ]


def _places(trainer: Trainer) -> list[tuple[str, str]]:
    """Rows with the places of checkpoints and run."""
    rows: list[tuple[str, str]] = []
    best: list[str] = []
    last: list[str] = []
    for each in trainer.checkpoint_callbacks:
        path = getattr(each, "best_model_path", "")
        # Without a figure to pick by, Lightning calls the newest one the best.
        (best if getattr(each, "monitor", None) else last).append(path)
        last.insert(0, getattr(each, "last_model_path", ""))
    for label, paths in (("best checkpoint", best), ("last checkpoint", last)):
        rows += [(label, str(path)) for path in paths if path][:1]
    logger = run_logger(trainer)
    if logger is not None:
        rows.append(("MLflow run", str(logger.run_id)))
        rows.append(
            (
                "look at it",
                f"{Path(sys.executable).with_name('mlflow')} ui --backend-store-uri {shlex.quote(logger.tracking_uri)}",
            )
        )
        # Without its end MLflow opens as a tool for chat bots, whose pages show no training.
        rows.append(("and then open", "http://127.0.0.1:5000/#/experiments?workflowType=machine_learning"))
    return rows
