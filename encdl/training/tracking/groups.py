"""`RunGroup`: one run that others belong to, such as the seeds of a study or the trials of a sweep."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from encdl.training.tracking.logger import PARENT_VARIABLE, RunLogger
from encdl.training.tracking.names import ENDED_TAG, timed
from encdl.training.tracking.processes import process_tags
from encdl.utils import records


class RunGroup:
    """A parent run; MLflow shows its children below it.

    Runs started while it is entered, in this process or one that inherits its environment, become its children. It
    ends FINISHED, FAILED on an error, or KILLED if someone stopped it.

    Args:
        experiment: Name of the experiment of the parent and of its children.
        name: Of the parent run; the time is added.
        root: Folder of the store, as for `RunLogger`.
        parameters: What the group is about; flattened.
        tags: Further tags of the parent.
        run_id: Continue this parent, if the store has it.

    Raises:
        UsageError: MLflow's store cannot be opened.
    """

    def __init__(
        self,
        experiment: str,
        name: str,
        root: str = "runs",
        parameters: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        run_id: str | None = None,
    ) -> None:
        self.logger = RunLogger(experiment, root, timed(name))
        if run_id:
            self.logger.resume(run_id)
        self._before: str | None = None
        told = {"kind": "group", "commit": records.commit(), **process_tags(), **(tags or {})}
        for tag, value in told.items():
            self.logger.experiment.set_tag(self.run_id, tag, value)
        self.logger.log_hyperparams(dict(parameters or {}))
        self.logger.experiment.update_run(self.run_id, status="RUNNING")
        if ENDED_TAG in self.logger.experiment.get_run(self.run_id).data.tags:
            self.logger.experiment.delete_tag(self.run_id, ENDED_TAG)

    @property
    def run_id(self) -> str:
        """Id of the parent run."""
        return str(self.logger.run_id)

    def log(self, metrics: Mapping[str, float], *files: Path) -> None:
        """Record what sums up the children: metrics, and files as artifacts. A later call counts instead."""
        for name, value in metrics.items():  # the logger itself would keep the first value of a step
            self.logger.experiment.log_metric(self.run_id, name, value)
        for file in files:
            self.logger.experiment.log_artifact(self.run_id, str(file))

    def __enter__(self) -> Self:
        self._before = os.environ.get(PARENT_VARIABLE)
        os.environ[PARENT_VARIABLE] = self.run_id
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is None:
            os.environ.pop(PARENT_VARIABLE, None)
        else:
            os.environ[PARENT_VARIABLE] = self._before
        if kind is not None:
            said = f"{kind.__name__}: {' '.join(str(error).split())}"
            self.logger.experiment.set_tag(self.run_id, ENDED_TAG, said[:500])
            self.logger.killed = not issubclass(kind, Exception)
        self.logger.finalize("success" if kind is None else "failed")
