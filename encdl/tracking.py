"""Runs recorded by MLflow in one folder: settings, metrics, pictures, the machine's load, how a run ended.

`RunLogger` is Lightning's MLflow logger with this project's defaults; `RunRecord` is the callback that adds
what a logger cannot see. Nothing here needs the network; MLflow is imported when a `RunLogger` is made.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only

import encdl
from encdl import records
from encdl.errors import UsageError
from encdl.lazy import need
from encdl.places import RESUME_TAG

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
NOISY_LOGGERS = ("alembic", "mlflow.store", "mlflow.system_metrics", "lightning.pytorch.loggers.mlflow")
SYSTEM_METRICS_EVERY_S = 5
LONGEST_PARAMETER = 500

_own_stores: set[str] = set()


class RunLogger(MLFlowLogger):
    """MLflow logger over a data base and a folder of artifacts below one root.

    Args:
        experiment: Name of the experiment that the run joins.
        root: Folder of the data base (`mlflow.db`), the artifacts and the checkpoints.
        run_name: Name of the run; by default the experiment and the time.
        run_id: Continue this run instead of starting one.
        tracking_uri: Another MLflow store, such as `http://host:5000`; by default the environment variable
            MLFLOW_TRACKING_URI, or else the data base below `root`.

    Raises:
        UsageError: MLflow is not installed, the store cannot be opened, or `run_id` is not in it.
    """

    def __init__(
        self,
        experiment: str = "encdl",
        root: str = "runs",
        run_name: str | None = None,
        run_id: str | None = None,
        tracking_uri: str | None = None,
    ) -> None:
        os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
        mlflow = need("mlflow", "tracking runs (trainer.logger)", "set trainer.logger to false")
        for name in NOISY_LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        self.root = Path(root).absolute()
        self.killed = False
        self._parameters_logged = False
        self._logged: dict[str, int] = {}
        tracking_uri = tracking_uri or _store_of_environment()
        if run_name is None and run_id is None:
            # MLflow would make one up from the random numbers that the run's seed fixes: always the same.
            run_name = f"{experiment} {datetime.now(UTC).astimezone():%Y-%m-%d %H:%M:%S}"
        artifacts = None
        if not tracking_uri:
            self.root.mkdir(parents=True, exist_ok=True)
            tracking_uri = f"sqlite:///{self.root / 'mlflow.db'}"
            artifacts = (self.root / "artifacts").as_uri()
            _own_stores.add(tracking_uri)
        try:
            super().__init__(
                experiment, run_name, tracking_uri, artifact_location=artifacts, run_id=run_id, save_dir=None
            )
            if run_id is not None:
                self._mlflow_client.get_run(run_id)
        except mlflow.exceptions.MlflowException as error:
            said = " ".join(str(error).split())
            raise UsageError(f"cannot open the MLflow store {tracking_uri}: {said}") from error

    @property
    def tracking_uri(self) -> str:
        """Where the runs are."""
        return str(self._tracking_uri)

    @property
    def name(self) -> str:
        """Name of the experiment: checkpoints go to root/name/run id/checkpoints."""
        return str(self._experiment_name)

    @property
    def save_dir(self) -> str:
        """Folder below which Lightning puts checkpoints."""
        return str(self.root)

    def resume(self, run_id: str) -> None:
        """Continue run `run_id`, if the store has it; call before anything is logged."""
        mlflow = need("mlflow", "tracking runs")
        try:
            self._mlflow_client.get_run(run_id)
        except mlflow.exceptions.MlflowException:
            return
        self._run_id = run_id

    def claim(self, key: str) -> None:
        """Continue the run that was started with this key, or give the key to the one that will be started."""
        with contextlib.suppress(need("mlflow", "tracking runs").exceptions.MlflowException):
            # It is there already; or else trainings of an array that start at once would all make it.
            self._mlflow_client.create_experiment(self._experiment_name, self._artifact_location)
        experiments = [each.experiment_id for each in self._mlflow_client.search_experiments()]
        found = (
            self._mlflow_client.search_runs(experiments, f"tags.{RESUME_TAG} = '{key}'")
            if experiments
            else []
        )
        if found:
            self.resume(found[0].info.run_id)
        else:
            self.tags = {**(self.tags or {}), RESUME_TAG: key}

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record each metric once a step: what a continued run does again up to where it was stopped is known."""
        known = self._known_steps()
        new = {name: value for name, value in metrics.items() if known.get(name, -1) < (step or 0)}
        if new:
            super().log_metrics(new, step)
            known.update(dict.fromkeys(new, step or 0))

    def _known_steps(self) -> dict[str, int]:
        """The last step of each metric of the run."""
        if not self._logged:
            metrics = self.experiment.get_run(self.run_id).data.metrics
            for name in metrics:
                if not name.startswith("system/"):
                    history = self.experiment.get_metric_history(self.run_id, name)
                    self._logged[name] = max(point.step for point in history)
        return self._logged

    @rank_zero_only
    def log_config(self, config: Mapping[str, Any], text: str) -> None:
        """Record a whole configuration: flattened as parameters, and as written as the artifact config.yaml.

        A continued run keeps its first parameters and config.yaml (MLflow never changes a parameter); the new
        ones are kept as the artifact config-resumed.yaml, and what differs as the tag `resumed_with`.
        """
        known = self.experiment.get_run(self.run_id).data.params
        self.experiment.log_text(self.run_id, text, "config-resumed.yaml" if known else "config.yaml")
        self._log_parameters(dict(flatten(config)), known)
        self._parameters_logged = True

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Record a module's hyper-parameters, unless the configuration that they come from is there."""
        if not self._parameters_logged:
            known = self.experiment.get_run(self.run_id).data.params
            self._log_parameters(
                dict(flatten(vars(params) if hasattr(params, "__dict__") else params)), known
            )

    @rank_zero_only
    def log_picture(self, png: bytes, path: str) -> None:
        """Store a PNG file as the artifact `path`."""
        with TemporaryDirectory() as folder:
            file = Path(folder, Path(path).name)
            file.write_bytes(png)
            self.experiment.log_artifact(self.run_id, str(file), str(Path(path).parent))

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """End the run: FINISHED, FAILED, or KILLED if someone stopped it."""
        super().finalize("KILLED" if status == "failed" and self.killed else status)

    def _log_parameters(self, parameters: dict[str, str], known: Mapping[str, str]) -> None:
        changed = {key: value for key, value in parameters.items() if known.get(key, value) != value}
        super().log_hyperparams({key: value for key, value in parameters.items() if key not in known})
        if changed:
            self.experiment.set_tag(self.run_id, "resumed_with", json.dumps(changed)[:5000])


class RunRecord(Callback):
    """Adds to an MLflow run: tags (task, data, commit, device, versions), machine load, and how it ended.

    Its state in a checkpoint holds the run's id, by which `encdl fit --ckpt_path` continues the same run.
    """

    def __init__(self) -> None:
        self._monitor: Any = None
        self._run_id: str | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tag the run and start watching the machine."""
        logger = run_logger(trainer)
        if logger is None or not trainer.is_global_zero:
            return
        self._run_id = logger.run_id
        for name, value in _tags(trainer, pl_module, stage).items():
            logger.experiment.set_tag(logger.run_id, name, value)
        logger.experiment.update_run(logger.run_id, status="RUNNING")
        if (
            "ended_by" in logger.experiment.get_run(logger.run_id).data.tags
        ):  # of the attempt that goes on here
            logger.experiment.delete_tag(logger.run_id, "ended_by")
        monitor = need("mlflow.system_metrics.system_metrics_monitor", "tracking runs").SystemMetricsMonitor
        self._monitor = monitor(
            logger.run_id,
            sampling_interval=SYSTEM_METRICS_EVERY_S,
            resume_logging=True,
            tracking_uri=logger.tracking_uri,
        )
        self._monitor.start()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Note whether the run was stopped or failed, and why."""
        logger = run_logger(trainer)
        if logger is not None and trainer.is_global_zero:
            logger.killed = not isinstance(exception, Exception)  # Ctrl-C and SIGTERM are no `Exception`
            said = " ".join(str(exception).split())
            logger.experiment.set_tag(logger.run_id, "ended_by", f"{type(exception).__name__}: {said}"[:500])
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop watching the machine."""
        self._stop()

    def state_dict(self) -> dict[str, Any]:
        """The run's id."""
        return {"run_id": self._run_id}

    def _stop(self) -> None:
        if self._monitor is not None:
            monitor, self._monitor = self._monitor, None
            monitor.finish()
            # One sample at the end, so that a run shorter than the interval has one.
            monitor.collect_metrics()
            monitor.publish_metrics(monitor.aggregate_metrics())
            monitor.mlflow_logger.flush()


def run_logger(trainer: Trainer) -> RunLogger | None:
    """The trainer's `RunLogger`, if it has one."""
    return next((logger for logger in trainer.loggers if isinstance(logger, RunLogger)), None)


def run_id_of(checkpoint: str | os.PathLike[str]) -> str | None:
    """Id of the MLflow run that wrote a checkpoint; None if it was not tracked.

    Raises:
        UsageError: `checkpoint` is not a readable checkpoint.
    """
    try:
        content = torch.load(checkpoint, weights_only=True, map_location="cpu", mmap=True)
        callbacks = content.get("callbacks", {})
    except Exception as error:
        raise UsageError(
            f"{checkpoint} is not a checkpoint that can be read: {type(error).__name__}"
        ) from error
    run_id = callbacks.get(RunRecord.__qualname__, {}).get("run_id")
    return str(run_id) if run_id else None


def flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested mappings and lists of mappings, as (dotted name, text); None is left out."""
    if isinstance(config, Mapping):
        entries = [(str(name), value) for name, value in config.items()]
    elif isinstance(config, list | tuple) and any(isinstance(item, Mapping | list) for item in config):
        entries = [(str(index), value) for index, value in enumerate(config)]
    else:
        if config is not None:
            yield prefix, str(config)[:LONGEST_PARAMETER]
        return
    for name, value in entries:
        yield from flatten(value, f"{prefix}.{name}" if prefix else name)


def _store_of_environment() -> str | None:
    """The store that the user's environment names. MLflow also writes there, whichever store it uses."""
    named = os.environ.get("MLFLOW_TRACKING_URI")
    return None if named in _own_stores else named


def _tags(trainer: Trainer, pl_module: LightningModule, stage: str) -> dict[str, str]:
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    data = getattr(trainer, "datamodule", None)
    return {
        "task": type(pl_module).__name__,
        "data": type(data).__name__ if data is not None else "",
        "stage": str(getattr(stage, "value", stage)),
        "device": f"{trainer.world_size} x {name}",
        "commit": records.commit(),
        "versions": f"encdl {encdl.__version__}, torch {torch.__version__}",
    }
