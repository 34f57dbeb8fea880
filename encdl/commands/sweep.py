"""`encdl sweep`: many trainings with other settings, here or on a cluster, summed up in one parent run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encdl.cluster.grid import parse_setting
from encdl.commands.common import file_name
from encdl.commands.submit import add_cluster, check_trials, job_of, timed
from encdl.utils import recipes
from encdl.utils.errors import EncdlError, UsageError
from encdl.utils.messages import progress, say

if TYPE_CHECKING:
    from optuna import Study

    from encdl.cluster.sweep.plan import Sweep
    from encdl.cluster.sweep.space import Space

ROOT = Path("runs", "sweeps")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "--config",
        type=file_name,
        required=True,
        metavar="YAML",
        help="recipe, as for `encdl fit`; --recipe NAME takes one of EncDL's, --recipe alone lists them",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="a setting of `encdl fit` for every training; may be repeated",
    )  # fmt: skip
    parser.add_argument("--grid", action="extend", nargs="+", default=[], metavar="KEY=V1,V2", help="values to try")
    parser.add_argument(
        "--search", action="extend", nargs="+", default=[], metavar="KEY=LOW..HIGH",
        help="a range to search, such as model.init_args.learning_rate=log:1e-4..1e-1; whole numbers stay whole",
    )  # fmt: skip
    parser.add_argument("--metric", default="val/loss", metavar="NAME", help="what to look for (default: val/loss)")
    parser.add_argument("--maximize", action="store_true", help="more of it is better")
    parser.add_argument(
        "--searcher", choices=("grid", "random", "tpe"),
        help="default: grid where there is only --grid; else tpe, and random on a cluster, where all start at once",
    )  # fmt: skip
    parser.add_argument("--trials", type=int, metavar="N", help="trainings of a search")
    parser.add_argument("--seed", type=int, default=0, help="of the searcher (default: 0)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="trainings at a time, here (default: 1)")
    parser.add_argument(
        "--name", help="of the sweep; one that was stopped goes on (default: the recipe's, and the time)"
    )
    parser.add_argument("--experiment", default="sweeps", help="MLflow experiment (default: sweeps)")
    parser.add_argument("--summarise", action="store_true", help="only sum up the sweep of this --name again")
    add_cluster(parser, required=False)
    parser.set_defaults(root=ROOT)


def run(args: argparse.Namespace) -> int:
    """Train every point, or hand them in; or sum up."""
    from encdl.cluster.sweep import search  # noqa: PLC0415
    from encdl.cluster.sweep.plan import RECORD, Sweep  # noqa: PLC0415
    from encdl.cluster.sweep.space import is_grid, parse_space  # noqa: PLC0415

    if args.jobs < 1:
        raise UsageError(f"--jobs must be at least 1, got {args.jobs}")
    name = args.name or timed(args.config.stem)
    folder = (args.root / name).absolute()
    if args.summarise:
        return _summed_up(Sweep.read(folder))
    recipes.check_file(args.config, "sweep")
    space = parse_space(args.grid, args.search)
    wanted = args.searcher or ("grid" if is_grid(space) else "random" if args.cluster else "tpe")
    if args.cluster and wanted == "tpe":
        raise UsageError("--searcher tpe learns from what has ended; on a cluster all start at once: give random")
    if args.dry_run:
        raise UsageError("--dry-run: a sweep's script is that of `encdl submit --grid … --dry-run`")
    if args.cluster and folder.exists():
        raise UsageError(f"{folder}: there is a sweep of that name: give another --name, or --summarise")
    check_trials(job_of(args, name, [()]))
    folder.mkdir(parents=True, exist_ok=True)
    study = search.open_study(folder, wanted, space, args.maximize, args.seed)
    total = search.size(study, wanted, args.trials)
    if (folder / RECORD).is_file():
        progress(f"going on with {folder}")
    return (
        _on_cluster(args, name, study, space, wanted, total)
        if args.cluster
        else _here(args, name, study, space, wanted, total)
    )


def _here(args: argparse.Namespace, name: str, study: Study, space: Space, searcher: str, total: int) -> int:
    """Train what is missing."""
    from encdl.cluster.sweep.run import here  # noqa: PLC0415

    with _group(args, name, searcher, space) as group:
        sweep = _sweep(args, name, searcher, total, group)
        here(sweep, study, space, group, args.jobs)
        return _tell(sweep, study)


def _on_cluster(args: argparse.Namespace, name: str, study: Study, space: Space, searcher: str, total: int) -> int:
    """Hand in all points as one array, and a job behind it that sums up."""
    from encdl.cluster import slurm  # noqa: PLC0415
    from encdl.cluster.sweep.run import on_cluster  # noqa: PLC0415

    slurm.need_slurm()
    group = _group(args, name, searcher, space)
    sweep = _sweep(args, name, searcher, total, group)
    job, number = on_cluster(sweep, study, space, group, lambda trials, more: job_of(args, name, trials, more))
    progress(f"submitted: job {number}, {total} trainings; `encdl jobs --root {args.root}` shows what becomes of them")
    say(str(job.folder))
    return 0


def _summed_up(sweep: Sweep) -> int:
    from encdl.cluster.sweep.run import summarise  # noqa: PLC0415

    return _tell(sweep, summarise(sweep))


def _tell(sweep: Sweep, study: Study) -> int:
    from encdl.cluster.sweep import summary  # noqa: PLC0415

    found = summary.results(study)
    say(summary.table(sweep, found))
    say(f"parent run: {sweep.parent}")
    if summary.best(sweep, found) is None and not any(result.state == "RUNNING" for result in found):
        raise EncdlError(f"no training of the sweep ended with {sweep.metric}: see {sweep.folder}/logs")
    return 0


def _group(args: argparse.Namespace, name: str, searcher: str, space: Space) -> Any:
    """The parent run, the same for a sweep that goes on."""
    from encdl.cluster.sweep.plan import RECORD, Sweep  # noqa: PLC0415
    from encdl.training.tracking import RunGroup  # noqa: PLC0415

    folder = (args.root / name).absolute()
    before = Sweep.read(folder).parent if (folder / RECORD).is_file() else None
    told_space = {f"space.{key}": str(distribution) for key, distribution in space.items()}
    parameters = {"searcher": searcher, "metric": args.metric, "recipe": args.config.stem, **told_space}
    return RunGroup(args.experiment, f"sweep {name}", parameters=parameters, run_id=before)


def _sweep(args: argparse.Namespace, name: str, searcher: str, total: int, group: Any) -> Sweep:
    from encdl.cluster.sweep.plan import Sweep  # noqa: PLC0415

    sweep = Sweep(
        name=name,
        folder=str((args.root / name).absolute()),
        config=str(args.config.absolute()),
        settings=tuple(parse_setting(word, "--set") for word in args.set),
        metric=args.metric,
        maximize=args.maximize,
        searcher=searcher,
        total=total,
        parent=group.run_id,
        store=group.logger.tracking_uri,
        resume_every=args.resume_every,
    )
    sweep.write()
    return sweep
