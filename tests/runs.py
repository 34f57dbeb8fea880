"""Recipes of small trainings, and what MLflow knows of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow import MlflowClient

DRAWING = """
model:
  class_path: tests.tiny_task.DrawingTask
  init_args: {pause_s: %s}
data:
  class_path: tests.tiny_task.TinyData
  init_args: {batch_size: 2, eval_batch_size: 3, crop: 8, repeats: 4}
trainer:
  accelerator: cpu
  max_epochs: 3
  enable_progress_bar: false
  enable_model_summary: false
  log_every_n_steps: 1
  logger:
    class_path: encdl.training.tracking.RunLogger
    init_args: {experiment_name: tiny}
"""
"""48 steps in 3 epochs; to be filled with the seconds that each step rests."""


def runs(folder: Path) -> list[Any]:
    """All runs of the store below a folder, oldest first."""
    client = MlflowClient(f"sqlite:///{folder.absolute()}/mlflow.db")
    experiments = [each.experiment_id for each in client.search_experiments()]
    return sorted(client.search_runs(experiments), key=lambda run: run.info.start_time)


def points(folder: Path, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each metric of a run in the order of recording, without the machine's load."""
    client = MlflowClient(f"sqlite:///{folder.absolute()}/mlflow.db")
    names = [name for name in client.get_run(run_id).data.metrics if not name.startswith("system/")]
    return {name: [(point.step, point.value) for point in client.get_metric_history(run_id, name)] for name in names}
