"""Finding the store and its runs, for commands that look at runs and start none."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from encdl.training.tracking.logger import NOISY_LOGGERS, QUIET, store_of_environment
from encdl.training.tracking.processes import end_lost_runs
from encdl.training.tracking.store_check import check_store, sqlite_uri
from encdl.utils.errors import UsageError

SHORTEST_ID = 6
PAGE = 1000


def open_store(root: str = "runs", tracking_uri: str | None = None) -> Any:
    """An `MlflowClient` of the store that a `RunLogger` with the same arguments writes to; MLflow is pointed at it.

    Runs that were killed outright are ended first.

    Raises:
        UsageError: There is no such store.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    import mlflow  # noqa: PLC0415

    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    uri = tracking_uri or store_of_environment()
    if not uri:
        file = Path(root, "mlflow.db").absolute()
        if not file.is_file():
            raise UsageError(f"{file}: no runs are recorded there: name the folder, or set MLFLOW_TRACKING_URI")
        uri = sqlite_uri(file)
    check_store(uri)
    mlflow.set_tracking_uri(uri)
    try:
        client = mlflow.MlflowClient(uri)
        end_lost_runs(client)
    except mlflow.exceptions.MlflowException as error:
        raise UsageError(f"cannot open the MLflow store {uri}: {' '.join(str(error).split())}") from None
    return client


def find_run(client: Any, name: str) -> Any:
    """The run with this id, this beginning of an id, or this name (the newest of them).

    Raises:
        UsageError: There is none, or several ids begin so.
    """
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = client.search_runs(experiments, max_results=PAGE) if experiments else []
    if len(name) >= SHORTEST_ID:
        found = [run for run in runs if run.info.run_id.startswith(name)]
        if len(found) > 1:
            raise UsageError(f"{name}: {len(found)} runs have ids that begin so: give more of it")
        if found:
            return found[0]
    named = [run for run in runs if run.info.run_name == name]
    if named:
        return named[0]  # MLflow gives the newest first
    raise UsageError(
        f"{name}: no such run: give an id (or its first {SHORTEST_ID} letters) or a name, as MLflow shows it"
    )
