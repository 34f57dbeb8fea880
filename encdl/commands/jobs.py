"""`encdl jobs`: what was submitted, what the cluster says of it, and its MLflow runs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from encdl.commands.common import progress, warn
from encdl.commands.submit import ROOT
from encdl.utils.errors import EncdlError, UsageError

if TYPE_CHECKING:
    from encdl.cluster.job import Submitted

HEADINGS = ("JOB", "TASK", "SLURM", "STATE", "RUN", "STATUS", "SETTINGS")
NONE = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="jobs to show (default: all)")
    parser.add_argument(
        "--root", type=Path, default=ROOT, metavar="DIR", help=f"jobs' folders (default: {ROOT})"
    )
    parser.add_argument("--cancel", action="store_true", help="cancel the named jobs")
    parser.add_argument(
        "--again", action="store_true", help="submit the named jobs again: they go on where they ended"
    )


def run(args: argparse.Namespace) -> int:
    """Show, or cancel first."""
    from encdl.cluster import slurm  # noqa: PLC0415

    if (args.cancel or args.again) and not args.names:
        raise UsageError("--cancel and --again want the names of jobs: `encdl jobs` lists them")
    if args.cancel and args.again:
        raise UsageError("--cancel and --again: give one of them")
    jobs = _jobs(args.root, args.names)
    if not jobs:
        progress(f"no jobs below {args.root}: `encdl submit` makes them")
        return 0
    if args.cancel:
        for job in jobs:
            slurm.cancel(job.slurm_id)
    if args.again:
        jobs = [_again(job) for job in jobs]
    rows = [row for job in jobs for row in _rows(job)]
    print(table([HEADINGS, *rows]))
    return 0


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned text."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _jobs(root: Path, names: Sequence[str]) -> list[Submitted]:
    """The named jobs, or all; oldest first."""
    from encdl.cluster.job import RECORD, Submitted  # noqa: PLC0415

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


def _again(job: Submitted) -> Submitted:
    """Submit the same script once more; every training has its place."""
    from encdl.cluster import slurm  # noqa: PLC0415
    from encdl.cluster.job import SCRIPT, Submitted  # noqa: PLC0415
    from encdl.utils import records  # noqa: PLC0415

    waiting = set(slurm.states(job.slurm_id, len(job.job.trials))) & {
        "PENDING",
        "RUNNING",
        "COMPLETING",
        "REQUEUED",
    }
    if waiting:
        raise UsageError(f"{job.job.name}: is {min(waiting).lower()} yet: cancel it first (--cancel)")
    number = slurm.submit(Path(job.job.folder, SCRIPT))
    new = Submitted(job.job, number, records.now(), job.tracking_uri)
    new.write()
    return new


def _rows(job: Submitted) -> list[tuple[str, ...]]:
    from encdl.cluster import grid, slurm  # noqa: PLC0415

    states = slurm.states(job.slurm_id, len(job.job.trials))
    runs = _runs(job)
    rows: list[tuple[str, ...]] = []
    for number, (trial, state) in enumerate(zip(job.job.trials, states, strict=True)):
        run_id, status = runs.get(number, (NONE, NONE))
        told = grid.told(trial) or NONE
        rows.append((job.job.name, str(number), job.slurm_id, state, run_id, status, told))
    return rows


def _runs(job: Submitted) -> dict[int, tuple[str, str]]:
    """Id and status of each training's MLflow run, where there is one."""
    from encdl.cluster.runs import runs_of  # noqa: PLC0415

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
    """Where a job's runs are: the store that it was submitted with, or the one in its working folder."""
    if job.tracking_uri or (named := os.environ.get("MLFLOW_TRACKING_URI")):
        return job.tracking_uri or named
    file = Path(job.job.workdir, "runs", "mlflow.db")
    return f"sqlite:///{file}" if file.is_file() else None
