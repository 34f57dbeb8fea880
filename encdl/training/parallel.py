"""Trainings of several processes: settings of Lightning's trainer that jobs and CPUs need otherwise."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import DDPStrategy

from encdl.training.resume import AtomicCheckpoints
from encdl.training.tasks.encrypt import EncryptTask
from encdl.utils.errors import UsageError


def plugins_for_jobs(given: Any) -> list[Any]:
    """The configuration's plugins, with whole checkpoints, and without Lightning's own way to requeue jobs.

    That way saves inside a signal handler, where ranks can wait for one another for ever; `ResumePoint` does not.
    """
    plugins = [] if given is None else [*given] if isinstance(given, list) else [given]
    if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        plugins.append(AtomicCheckpoints())
    if SLURMEnvironment.detect() and not any(isinstance(plugin, ClusterEnvironment) for plugin in plugins):
        plugins.append(SLURMEnvironment(auto_requeue=False))
    return plugins


def strategy(given: Any, task: Any) -> Any:
    """The configured strategy, but that `ddp` never broadcasts the buffers of ciphers, which are constants."""
    if given == "ddp" and isinstance(task, EncryptTask):
        return DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
    return given


def synchronised(settings: Any) -> bool:
    """Whether processes share the statistics of batch norm: if asked for, but on the CPU, where torch cannot."""
    accelerator = settings.get("accelerator")
    on_cpu = accelerator == "cpu" or (accelerator in {"auto", None} and not torch.cuda.is_available())
    return bool(settings.get("sync_batchnorm")) and not on_cpu


def check_processes(trainer: Trainer) -> None:
    """Refuse more processes than the machine has cores.

    Raises:
        UsageError: There are more, on a CPU, where each device is a process.
    """
    cores = os.cpu_count() or 1
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > cores:
        raise UsageError(
            f"trainer.devices is {trainer.num_devices}, and this machine has {cores} cores: on a CPU each "
            f"device is a process, so give {cores} or less"
        )
