"""`RunLogger`: Lightning's MLflow logger with this project's defaults."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from PIL import Image

from encdl.training.run_folder import RESUME_TAG
from encdl.training.tracking.names import CONFIG_TAG, PARENT_TAG, SEED_TAG, config_hash, flatten, timed
from encdl.training.tracking.processes import process_tags
from encdl.training.tracking.store_check import check_store, sqlite_uri
from encdl.utils.errors import UsageError
from encdl.utils.processes import Held, held

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
NOISY_LOGGERS = ("alembic", "mlflow.store", "mlflow.system_metrics", "lightning.pytorch.loggers.mlflow")
PARENT_VARIABLE = "ENCDL_PARENT_RUN"
"""Environment variable: id of the run that runs of this process belong to (a study, a sweep)."""
PANEL = re.compile(r"panels/step-(\d+)\.png")

_own_stores: set[str] = set()


class RunLogger(MLFlowLogger):
    """MLflow logger over a data base and a folder of artifacts below one root.

    Args:
        experiment_name: Name of the experiment that the run joins.
        root: Folder of the data base (`mlflow.db`), the artifacts and the checkpoints; by default `runs`, or what
            `encdl fit --trainer.default_root_dir` says.
        run_name: Name of the run; by default what is trained on what with which seed, and the time.
        run_id: Continue this run instead of starting one.
        tracking_uri: Another MLflow store, such as `http://host:5000`; by default the environment variable
            MLFLOW_TRACKING_URI, or else the data base below `root`.
        keep_reader: Keep a trained reader as an MLflow model that can be served (see docs/serving.md).
        register: Register that model under this name.

    Arguments that another logger has too mean the same there: when `--trainer.logger` names another class, jsonargparse
    hands over all that it takes.

    The environment variable ENCDL_PARENT_RUN names a run that this one belongs to: it is shown below that run, and
    joins its experiment.

    Raises:
        UsageError: The store cannot be opened, or `run_id` is not in it.
    """

    def __init__(
        self,
        experiment_name: str = "encdl",
        root: str | None = None,
        run_name: str | None = None,
        run_id: str | None = None,
        tracking_uri: str | None = None,
        keep_reader: bool = True,
        register: str | None = None,
    ) -> None:
        os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
        import mlflow  # noqa: PLC0415

        for name in NOISY_LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        self.root = Path(root or "runs").absolute()
        self.killed = self.discarded = False
        self.resumed = run_id is not None
        self.keep_reader, self.register = keep_reader, register
        self._parameters_logged = False
        self._logged: dict[str, int] = {}
        tracking_uri = tracking_uri or store_of_environment()
        self.unnamed = run_name is None and run_id is None
        if self.unnamed:
            # MLflow would make one up from the random numbers that the run's seed fixes: always the same.
            run_name = timed(experiment_name)
        artifacts = None
        if not tracking_uri:
            tracking_uri = sqlite_uri(self.root / "mlflow.db")
            artifacts = (self.root / "artifacts").as_uri()
            _own_stores.add(tracking_uri)
        if getattr(rank_zero_only, "rank", 0) == 0:
            check_store(tracking_uri)
        try:
            super().__init__(
                experiment_name, run_name, tracking_uri, artifact_location=artifacts, run_id=run_id, save_dir=None
            )
            if run_id is not None:
                self._mlflow_client.get_run(run_id)
        except mlflow.exceptions.MlflowException as error:
            said = " ".join(str(error).split())
            raise UsageError(f"cannot open the MLflow store {tracking_uri}: {said}") from error
        self._mlflow_client = Held(self._mlflow_client)
        self.tags = {**(self.tags or {}), **process_tags()}  # from its first moment on, whatever ends it then
        self._join(os.environ.get(PARENT_VARIABLE))

    @property
    def experiment(self) -> Any:
        """MLflow's client, which Ctrl-C does not break off; the run is begun when this is first asked for."""
        with held():
            if not self._initialized and self._run_id is None and getattr(rank_zero_only, "rank", 0) == 0:
                from mlflow.exceptions import MlflowException  # noqa: PLC0415

                with contextlib.suppress(MlflowException):
                    # It is there already; or else trainings that start at once would all make it, and one would fail.
                    self._mlflow_client.create_experiment(self._experiment_name, self._artifact_location)
            return super().experiment

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
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        try:
            self._mlflow_client.get_run(run_id)
        except MlflowException:
            return
        self._run_id = run_id
        self.resumed = True

    def claim(self, key: str) -> None:
        """Continue the run that was started with this key, or give the key to the one that will be started."""
        experiments = [each.experiment_id for each in self._mlflow_client.search_experiments()]
        found = self._mlflow_client.search_runs(experiments, f"tags.{RESUME_TAG} = '{key}'") if experiments else []
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
        if not known:
            self.experiment.set_tag(self.run_id, CONFIG_TAG, config_hash(config))
            if config.get("seed_everything") is not None:
                self.experiment.set_tag(self.run_id, SEED_TAG, str(config["seed_everything"]))

    def rename(self, name: str) -> None:
        """Give the run a better name than the first one, unless the user chose that."""
        if self.unnamed:
            self.experiment.update_run(self.run_id, name=name)
            self.unnamed = False

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Record a module's hyper-parameters, unless the configuration that they come from is there."""
        if not self._parameters_logged:
            known = self.experiment.get_run(self.run_id).data.params
            self._log_parameters(dict(flatten(vars(params) if hasattr(params, "__dict__") else params)), known)

    @rank_zero_only
    def log_picture(self, png: bytes, path: str) -> None:
        """Store a PNG file as the artifact `path`.

        One that is called `panels/step-NUMBER.png` also becomes MLflow's image `panel` of that step, which its
        comparison of runs shows side by side.
        """
        with TemporaryDirectory() as folder:
            file = Path(folder, Path(path).name)
            file.write_bytes(png)
            self.experiment.log_artifact(self.run_id, str(file), str(Path(path).parent))
        panel = PANEL.fullmatch(path)
        if panel:
            image = Image.open(io.BytesIO(png))
            self.experiment.log_image(self.run_id, image, key="panel", step=int(panel.group(1)), synchronous=True)

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """End the run: FINISHED, FAILED, or KILLED if someone stopped it."""
        if self.discarded:
            return
        super().finalize("KILLED" if status == "failed" and self.killed else status)

    def discard(self) -> None:
        """Leave no run behind: this one never began."""
        self.experiment.delete_run(self.run_id)
        self.discarded = True

    def _join(self, parent: str | None) -> None:
        """Become a run below `parent`, in its experiment, if the store has it."""
        if not parent or self._run_id is not None:
            return
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        try:
            of_parent = self._mlflow_client.get_run(parent).info.experiment_id
            self._experiment_name = self._mlflow_client.get_experiment(of_parent).name
        except MlflowException:
            rank_zero_info(f"{PARENT_VARIABLE} names run {parent}, which this store lacks: the run stands alone")
            return
        self.tags = {**(self.tags or {}), PARENT_TAG: parent}

    def _log_parameters(self, parameters: dict[str, str], known: Mapping[str, str]) -> None:
        changed = {key: value for key, value in parameters.items() if known.get(key, value) != value}
        super().log_hyperparams({key: value for key, value in parameters.items() if key not in known})
        if changed:
            self.experiment.set_tag(self.run_id, "resumed_with", json.dumps(changed)[:5000])


def run_logger(trainer: Trainer) -> RunLogger | None:
    """The trainer's `RunLogger`, if it has one."""
    return next((logger for logger in trainer.loggers if isinstance(logger, RunLogger)), None)


def store_of_environment() -> str | None:
    """The store that the user's environment names. MLflow also writes there, whichever store it uses."""
    named = os.environ.get("MLFLOW_TRACKING_URI")
    return None if named in _own_stores else named
