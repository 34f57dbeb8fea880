"""Handing jobs in, once or again, and what becomes of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from encdl.cluster import grid, slurm
from encdl.cluster.job import RECORD, SCRIPT, Job, Submitted
from encdl.training.run_folder import KEY, RESUME_TAG, run_key
from encdl.utils import records
from encdl.utils.atomic import write_bytes
from encdl.utils.errors import EncdlError, UsageError
from encdl.utils.messages import warn

NONE = "-"
WAITING = {"PENDING", "RUNNING", "COMPLETING", "REQUEUED"}


def hand_in(job: Job, script: str) -> str:
    """Write the job's folder and submit it; the number that the cluster gives it.

    Raises:
        UsageError: There is a folder of that name already.
        EncdlError: The cluster refuses it.
    """
    folder = Path(job.folder)
    try:
        (folder / "logs").mkdir(parents=True)
    except FileExistsError as error:
        raise UsageError(f"{folder}: there is a job of that name: give another --name") from error
    for number in range(len(job.trials)):
        run_key(job.place(number))
    write_bytes(folder / SCRIPT, script.encode(), mode=0o600)
    slurm_id = slurm.submit(folder / SCRIPT)
    Submitted(job, slurm_id, records.now(), os.environ.get("MLFLOW_TRACKING_URI")).write()
    return slurm_id


def submitted(root: Path, names: Sequence[str]) -> list[Submitted]:
    """The named jobs below a folder, or all; oldest first. Warns of those that cannot be read.

    Raises:
        UsageError: There is none of a name.
    """
    if names:
        if missing := [name for name in names if not (root / name / RECORD).is_file()]:
            raise UsageError(f"{root / missing[0]}: no such job: `encdl jobs` lists them")
        return [Submitted.read(root / name) for name in names]
    found = []
    for file in root.glob(f"*/{RECORD}"):
        try:
            found.append(Submitted.read(file.parent))
        except EncdlError as error:
            warn(str(error))
    return sorted(found, key=lambda job: job.date)


def again(job: Submitted) -> Submitted:
    """Submit the same script once more; every training has its place.

    Raises:
        UsageError: It has not ended.
    """
    waiting = set(slurm.states(job.slurm_id, len(job.job.trials))) & WAITING
    if waiting:
        raise UsageError(f"{job.job.name}: is {min(waiting).lower()} yet: cancel it first (--cancel)")
    number = slurm.submit(Path(job.job.folder, SCRIPT))
    new = Submitted(job.job, number, records.now(), job.tracking_uri)
    new.write()
    return new


def rows(job: Submitted) -> list[tuple[str, ...]]:
    """Of each training: job, task, Slurm's number, state, id and status of its run in MLflow, settings."""
    states = slurm.states(job.slurm_id, len(job.job.trials))
    runs = _runs(job)
    told: list[tuple[str, ...]] = []
    for number, (trial, state) in enumerate(zip(job.job.trials, states, strict=True)):
        run_id, status = runs.get(number, (NONE, NONE))
        told.append((job.job.name, str(number), job.slurm_id, state, run_id, status, grid.told(trial) or NONE))
    return told


def _runs(job: Submitted) -> dict[int, tuple[str, str]]:
    """Id and status of each training's MLflow run, where there is one."""
    store = _store(job)
    if store is None:
        return {}
    places = {job.job.place(number): number for number in range(len(job.job.trials))}
    try:
        found = runs_of(store, places)
    except EncdlError as error:
        warn(str(error))
        return {}
    return {places[place]: (run.info.run_id, run.info.status) for place, run in found.items()}


def _store(job: Submitted) -> str | None:
    """The MLflow store of a job's runs: the one that it was submitted with, or that in its working folder."""
    if job.tracking_uri or (named := os.environ.get("MLFLOW_TRACKING_URI")):
        return job.tracking_uri or named
    file = Path(job.job.workdir, "runs", "mlflow.db")
    return f"sqlite:///{file}" if file.is_file() else None


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
