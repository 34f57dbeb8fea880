"""`RunRecord`: the callback that adds to a run what a logger cannot see."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from encdl.data.base import ImageDataModule
from encdl.training.tracking import datasets, names, processes
from encdl.training.tracking.logger import run_logger
from encdl.utils.errors import UsageError
from encdl.utils.processes import held

SYSTEM_METRICS_EVERY_S = 5


class RunRecord(Callback):
    """Adds to an MLflow run: name, tags, data sets with their digests, machine load, and how it ended.

    Runs of this machine that were killed outright before are ended too (`encdl.training.tracking.processes`).

    Its state in a checkpoint holds the run's id, by which `encdl fit --ckpt_path` continues the same run.
    """

    def __init__(self) -> None:
        self._monitor: Any = None
        self._run_id: str | None = None
        self._began = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Name and tag the run, and start watching the machine."""
        logger = run_logger(trainer)
        if logger is None or not trainer.is_global_zero:
            return
        self._run_id = logger.run_id
        logger.rename(names.run_name(trainer, pl_module))
        found = names.tags(trainer, pl_module, stage) | processes.process_tags()
        for name, value in found.items():
            logger.experiment.set_tag(logger.run_id, name, value)
        logger.experiment.update_run(logger.run_id, status="RUNNING")
        if names.ENDED_TAG in logger.experiment.get_run(logger.run_id).data.tags:
            logger.experiment.delete_tag(logger.run_id, names.ENDED_TAG)  # of the attempt that goes on here
        for lost in processes.end_lost_runs(logger.experiment):
            rank_zero_info(f"MLflow run {lost} was killed: its state is set to KILLED")
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, ImageDataModule):
            logger.experiment.log_inputs(logger.run_id, datasets.inputs(data, str(getattr(stage, "value", stage))))
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor  # noqa: PLC0415

        self._monitor = SystemMetricsMonitor(
            logger.run_id,
            sampling_interval=SYSTEM_METRICS_EVERY_S,
            resume_logging=True,
            tracking_uri=logger.tracking_uri,
        )
        self._monitor.start()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that there is something to keep."""
        self._began = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note it, unless this only tries out whether validation works."""
        self._began |= not trainer.sanity_checking

    on_test_start = on_validation_start

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Note whether the run was stopped or failed, and why; one that failed before its first step is removed."""
        logger = run_logger(trainer)
        if logger is not None and trainer.is_global_zero:
            logger.killed = not isinstance(exception, Exception)  # Ctrl-C and SIGTERM are no `Exception`
            said = " ".join(str(exception).split())
            logger.experiment.set_tag(logger.run_id, names.ENDED_TAG, f"{type(exception).__name__}: {said}"[:500])
        self._stop()
        if logger is not None and trainer.is_global_zero and not (self._began or logger.resumed or logger.killed):
            logger.discard()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop watching the machine; say which weights the cipher has now."""
        self._stop()
        logger = run_logger(trainer)
        if logger is not None and trainer.is_global_zero and stage == "fit":
            for name, value in names.cipher_tags(pl_module).items():
                logger.experiment.set_tag(logger.run_id, name, value)

    def state_dict(self) -> dict[str, Any]:
        """The run's id."""
        return {"run_id": self._run_id}

    def _stop(self) -> None:
        if self._monitor is not None:
            with held():
                monitor, self._monitor = self._monitor, None
                monitor.finish()
                # One sample at the end, so that a run shorter than the interval has one.
                monitor.collect_metrics()
                monitor.publish_metrics(monitor.aggregate_metrics())
                monitor.mlflow_logger.flush()


def run_id_of(checkpoint: str | os.PathLike[str]) -> str | None:
    """Id of the MLflow run that wrote a checkpoint; None if it was not tracked.

    Raises:
        UsageError: `checkpoint` is not a readable checkpoint.
    """
    try:
        content = torch.load(checkpoint, weights_only=True, map_location="cpu", mmap=True)
        callbacks = content.get("callbacks", {})
    except Exception as error:
        raise UsageError(f"{checkpoint} is not a checkpoint that can be read: {type(error).__name__}") from error
    run_id = callbacks.get(RunRecord.__qualname__, {}).get("run_id")
    return str(run_id) if run_id else None
