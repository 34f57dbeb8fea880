"""The MLflow runs of trainings that keep their place in a folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from encdl.training.run_folder import KEY, RESUME_TAG
from encdl.utils.errors import EncdlError


def runs_of(store: str, places: Iterable[Path]) -> dict[Path, Any]:
    """The run of each place that has one, as MLflow's `Run`.

    Args:
        store: URI of the MLflow store.
        places: Folders of `encdl fit --resume`.

    Raises:
        EncdlError: The store cannot be asked.
    """
    import mlflow  # noqa: PLC0415

    keys = {(place / KEY).read_text().strip(): place for place in places if (place / KEY).is_file()}
    found: dict[Path, Any] = {}
    try:
        client = mlflow.MlflowClient(store)
        experiments = [each.experiment_id for each in client.search_experiments()]
        for key, place in keys.items() if experiments else ():
            for run in client.search_runs(experiments, f"tags.{RESUME_TAG} = '{key}'", max_results=1):
                found[place] = run
    except mlflow.exceptions.MlflowException as error:
        raise EncdlError(f"cannot ask the MLflow store {store}: {' '.join(str(error).split())}") from error
    return found
