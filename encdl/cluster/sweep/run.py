"""A sweep at work: training its points here, or handing them in, and summing up."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

from encdl.cluster import slurm
from encdl.cluster.grid import Trial, told
from encdl.cluster.job import Job
from encdl.cluster.script import sbatch_script, summary_script
from encdl.cluster.submission import hand_in, runs_of
from encdl.cluster.sweep import search, summary
from encdl.cluster.sweep.plan import Sweep
from encdl.cluster.sweep.space import Space, settings
from encdl.training.tracking import PARENT_VARIABLE, RunGroup
from encdl.training.tracking.processes import HOST, PROCESS
from encdl.utils.atomic import write_bytes
from encdl.utils.messages import progress

if TYPE_CHECKING:
    from optuna import Study

SUMMARY = "summary.sbatch"
STOPPED = {130, 143}
"""Exit codes of a training that someone stopped, with Ctrl-C or SIGTERM."""


def here(sweep: Sweep, study: Study, space: Space, group: RunGroup, jobs: int) -> None:
    """Train what is missing, one after the other or several at a time."""
    stopped = {trial.number: search.params(trial) for trial in search.begun(study)}
    ended = sum(trial.state.is_finished() for trial in study.trials)
    lock, halted, client = Lock(), Event(), group.logger.experiment

    def one(point: tuple[int, dict[str, Any]] | None) -> None:
        if halted.is_set():
            return
        with lock:
            number, chosen = point or search.ask(study, space)
        try:
            value = train(sweep, number, chosen, group.run_id)
        except BaseException:
            halted.set()  # before this thread takes the next point; this one stays begun, and goes on later
            raise
        with lock:
            search.tell(study, number, value)
            found = summary.results(study)
            summary.record(sweep, found, client)
            done = sum(result.state in {"COMPLETE", "FAIL"} for result in found)
            figure = "failed" if value is None else f"{sweep.metric} {value:.6g}"
            progress(f"[{done}/{sweep.total}] {told(settings(chosen))}: {figure}")

    points = [*stopped.items(), *[None] * max(0, sweep.total - ended - len(stopped))]
    with ThreadPoolExecutor(jobs) as pool:
        try:
            list(pool.map(one, points))
        except BaseException:
            halted.set()
            raise


def train(sweep: Sweep, number: int, chosen: dict[str, Any], parent: str) -> float | None:
    """One training in a process of its own; what it prints goes to a file. Its figure, None if it failed."""
    log = Path(sweep.folder, "logs", f"{number}.log")
    log.parent.mkdir(exist_ok=True)
    words = [sys.executable, "-m", "encdl", *sweep.command(number, settings(chosen))]
    variables = {**os.environ, PARENT_VARIABLE: parent, "MLFLOW_TRACKING_URI": sweep.store}
    with log.open("ab") as stream:
        done = subprocess.run(words, stdout=stream, stderr=stream, env=variables, check=False)
    if done.returncode in STOPPED:
        raise KeyboardInterrupt
    if done.returncode:
        progress(f"training {number} failed with code {done.returncode}: see {log}")
        return None
    return summary.value_of(sweep, number)


def on_cluster(
    sweep: Sweep, study: Study, space: Space, group: RunGroup, job_of: Callable[[Sequence[Trial], dict[str, str]], Job]
) -> tuple[Job, str]:
    """Hand in all points as one array, and a job behind it that sums up; the job, and its number."""
    for tag in (HOST, PROCESS):  # this process ends, and the parent run goes on until the last job sums up
        group.logger.experiment.delete_tag(group.run_id, tag)
    trials = [settings(search.ask(study, space)[1]) for _ in range(sweep.total)]
    job = job_of(trials, {PARENT_VARIABLE: sweep.parent, "MLFLOW_TRACKING_URI": sweep.store})
    number = hand_in(job, sbatch_script(job))
    file = Path(job.folder, SUMMARY)
    place = ["--root", str(Path(job.folder).parent), "--name", sweep.name]
    text = summary_script(job, ["sweep", "--config", job.config, *place, "--summarise"])
    write_bytes(file, text.encode(), mode=0o600)
    slurm.submit(file, dependency=f"afterany:{number}")
    return job, number


def summarise(sweep: Sweep) -> Study:
    """Tell the study what has ended, and the parent run the rest."""
    from mlflow import MlflowClient  # noqa: PLC0415

    study = search.existing(Path(sweep.folder))
    client = MlflowClient(sweep.store)
    for trial in search.begun(study):
        place = sweep.place(trial.number)
        run = runs_of(sweep.store, [place]).get(place)
        if run is None or run.info.status in {"FINISHED", "FAILED"}:
            search.tell(study, trial.number, summary.value_of(sweep, trial.number))
    summary.record(sweep, summary.results(study), client)
    if not search.begun(study):
        client.set_terminated(sweep.parent, "FINISHED")
    return study
