"""`encdl submit`: trainings as jobs of a Slurm cluster, which make room when asked and go on later."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from encdl.commands.common import file_name
from encdl.utils import recipes
from encdl.utils.messages import progress, say

if TYPE_CHECKING:
    from encdl.cluster.grid import Trial
    from encdl.cluster.job import Job

ROOT = Path("runs", "jobs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "--config",
        type=file_name,
        required=True,
        metavar="YAML",
        help="recipe, as for `encdl fit`; --recipe NAME takes one of EncDL's, --recipe alone lists them",
    )
    add_trials(parser)
    parser.add_argument("--name", help="of the job and its folder (default: the recipe's, and the time)")
    add_cluster(parser, required=True)


def add_trials(parser: argparse.ArgumentParser) -> None:
    """Declare what is trained."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="a setting of `encdl fit` for every training, such as trainer.max_epochs=2; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--grid", action="extend", nargs="+", default=[], metavar="KEY=V1,V2",
        help="train every combination of these values, such as model.init_args.learning_rate=1e-3,1e-2",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, metavar="N", help="train each of them with the seeds 0 to N-1")


def add_cluster(parser: argparse.ArgumentParser, required: bool) -> None:
    """Declare where and how."""
    parser.add_argument("--cluster", choices=("slurm",), required=required, help="what the cluster is run by")
    parser.add_argument("--dry-run", action="store_true", help="print the script; write and submit nothing")
    parser.add_argument("--root", type=file_name, default=ROOT, metavar="DIR", help=f"jobs' folders (default: {ROOT})")
    ask = parser.add_argument_group("what each training asks for (default: the cluster's defaults)")
    ask.add_argument("--time", metavar="T", help="HH:MM:SS, D-HH or minutes; longer trainings go on in the next job")
    ask.add_argument("--memory", metavar="M", help="of each node, such as 16G")
    ask.add_argument("--cpus", type=int, default=1, metavar="N", help="cores of each process (default: 1)")
    ask.add_argument("--nodes", type=int, default=1, metavar="N", help="nodes that share one training (default: 1)")
    ask.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs of each node (default: 0)")
    ask.add_argument("--processes", type=int, default=1, metavar="N", help="processes of each node without GPUs")
    ask.add_argument("--partition", metavar="P")
    ask.add_argument("--account", metavar="A")
    ask.add_argument("--at-once", type=int, default=0, metavar="N", help="trainings of an array at a time")
    ask.add_argument(
        "--grace", dest="grace_s", type=int, default=120, metavar="S", help="seconds to save in before the time is over"
    )
    ask.add_argument("--resume-every", type=int, default=0, metavar="N", help="save the place every N batches")
    ask.add_argument(
        "--sbatch", dest="options", action="append", default=[], metavar="OPTION", help="such as --sbatch=--qos=low"
    )
    around = parser.add_argument_group("what it runs in (default: this Python)")
    around.add_argument("--module", action="append", default=[], metavar="M", help="environment module to load")
    around.add_argument("--venv", metavar="DIR", help="virtual environment to activate")
    around.add_argument("--container", metavar="IMAGE", help="image that Apptainer runs `encdl` in")
    around.add_argument("--setup", action="append", default=[], metavar="LINE", help="line of shell to run before")
    around.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="variable to set; no secrets. Of the environment that submits, MLFLOW_TRACKING_URI and ENCDL_PLUGINS "
        "alone come along",
    )


def run(args: argparse.Namespace) -> int:
    """Write the script and hand it in."""
    from encdl.cluster import grid, slurm  # noqa: PLC0415
    from encdl.cluster.script import sbatch_script  # noqa: PLC0415
    from encdl.cluster.submission import hand_in  # noqa: PLC0415

    trials = grid.trials(grid.parse_grid(args.grid), args.seeds)
    job = job_of(args, args.name or timed(args.config.stem), trials)
    script = sbatch_script(job)
    if not args.dry_run:
        slurm.need_slurm()
    check_trials(job)
    if args.dry_run:
        print(script, end="")
        return 0
    number = hand_in(job, script)
    progress(f"submitted: job {number}, {len(trials)} trainings; `encdl jobs` shows what becomes of them")
    say(str(job.folder))
    return 0


def timed(name: str) -> str:
    """A job's name with the time."""
    return f"{name}-{datetime.now(UTC).astimezone():%Y%m%d-%H%M%S}"


def job_of(args: argparse.Namespace, name: str, trials: Sequence[Trial], more: dict[str, str] | None = None) -> Job:
    """The job that the arguments describe.

    Raises:
        UsageError: One of them is out of its range.
    """
    from encdl.cluster.grid import parse_setting  # noqa: PLC0415
    from encdl.cluster.job import Job, Request, surroundings  # noqa: PLC0415

    recipes.check_file(args.config, "submit")
    return Job(
        name=name,
        folder=str((args.root / name).absolute()),
        workdir=str(Path.cwd()),
        config=str(args.config.absolute()),
        settings=tuple(parse_setting(word, "--set") for word in args.set),
        trials=tuple(trials),
        request=Request.of(vars(args)),
        surroundings=surroundings(args.module, args.venv, args.container, args.setup, args.env, more or {}),
        resume_every=args.resume_every,
    )


def check_trials(job: Job) -> None:
    """Refuse now what would fail in the queue; takes the seconds that the libraries need.

    Raises:
        UsageError: A recipe or a setting is wrong.
    """
    from encdl.cluster.grid import words  # noqa: PLC0415
    from encdl.training.cli import check  # noqa: PLC0415

    progress("checking the settings")
    for trial in job.trials:
        check(["fit", "--config", job.config, *words(job.settings), *words(trial)])
