"""`encdl experiment`: whole studies, each of many trainings, as one result record."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encdl.commands import reader_cost
from encdl.commands.common import FORCE, OUTPUT, RECORDS, file_name
from encdl.utils import recipes
from encdl.utils.errors import UsageError
from encdl.utils.messages import progress, say

if TYPE_CHECKING:
    from encdl.audit.functional.plan import Plan
    from encdl.audit.studies.run import Study


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare a sub-command for each study."""
    studies = parser.add_subparsers(dest="study", metavar="STUDY", required=True)
    for name, (told, declare, do) in STUDIES.items():
        study = studies.add_parser(name, help=told, description=f"{told[0].upper()}{told[1:]}.", allow_abbrev=False)
        study.add_argument(
            "--config",
            type=file_name,
            required=True,
            metavar="YAML",
            help="recipe of a reader, or of a cipher for `losses`, as for `encdl fit`; for `functional-keys` a file "
            "such as functional-pneumoniamnist; --recipe NAME takes one of EncDL's, --recipe alone lists them",
        )
        declare(study)
        study.set_defaults(run_study=do)


def run(args: argparse.Namespace) -> int:
    """Run the study that was asked for."""
    recipes.check_file(args.config, "experiment")
    done: int = args.run_study(args)
    return done


def _declare_readers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="ROW",
        help="train these alone: plaintext, which must be there, and any of ciphertext, keyless, fixed_key, hardened, "
        "hardened_plaintext (default: all these), and functional, whose map the recipe's view describes",
    )
    _declare_trainings(parser, "experiments/results/readers-DATA.json")


def _declare_losses(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rows", nargs="+", metavar="LOSS", help="train these alone: likelihood, l1, mse, charbonnier (default: all)"
    )
    _declare_trainings(parser, "experiments/results/losses.json")


def _declare_trainings(parser: argparse.ArgumentParser, output: str) -> None:
    parser.add_argument("--data-dir", metavar="DIR", help="where the data set's files are (default: the recipe's)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="trainings of each row (default: 3)")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="trainings at a time; more than 1 for a GPU with room"
    )
    parser.add_argument(
        "--work", type=file_name, metavar="DIR", help="keeps finished trainings (default: runs/STUDY/RECIPE)"
    )
    parser.add_argument("-o", "--output", **OUTPUT, help=f"the record (default: {output})")
    parser.add_argument("--force", **FORCE)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of `encdl fit` for every training, such as trainer.max_epochs=2; may be repeated",
    )


def _run_readers(args: argparse.Namespace) -> int:
    """Train what is missing, measure costs, write the record."""
    from encdl.audit.studies import run as studies  # noqa: PLC0415
    from encdl.audit.studies.parts import ReaderPart  # noqa: PLC0415
    from encdl.audit.studies.rows import FURTHER_VIEWS, VIEWS  # noqa: PLC0415

    rows = _rows(args, VIEWS, FURTHER_VIEWS)
    if "plaintext" not in rows:
        raise UsageError("--rows: plaintext must be there: it is what the others are compared with")
    data = args.config.stem.partition("-")[2] or args.config.stem
    study = _study(args, rows, data, RECORDS / f"readers-{data}.json")
    studies.run(study, ReaderPart, studies.readers_summary, progress, print)
    return 0


def _run_losses(args: argparse.Namespace) -> int:
    """Train what is missing with each loss, write the record."""
    from encdl.audit.studies import run as studies  # noqa: PLC0415
    from encdl.audit.studies.losses import LOSSES, LossPart  # noqa: PLC0415

    study = _study(args, _rows(args, LOSSES), args.config.stem, RECORDS / "losses.json")
    studies.run(study, LossPart, studies.losses_summary, progress, print)
    return 0


def _declare_functional(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir", metavar="DIR", default="data", help="where the data set's file is (default: data)"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="trainings of each setting (default: the file's)")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="trainings at a time, spread over the GPUs (default: 1)"
    )
    parser.add_argument(
        "--work", type=file_name, metavar="DIR", help="keeps finished trainings (default: runs/STUDY/RECIPE)"
    )
    parser.add_argument("-o", "--output", **OUTPUT, help="the record (default: experiments/results/RECIPE.json)")
    parser.add_argument("--force", **FORCE)


def _run_functional(args: argparse.Namespace) -> int:
    """Train readers without a key and decoders that attack them, write the record."""
    from encdl.audit.functional import plan, study  # noqa: PLC0415
    from encdl.utils.atomic import check_output  # noqa: PLC0415

    if args.jobs < 1:
        raise UsageError(f"--jobs must be at least 1, got {args.jobs}")
    name = args.config.stem
    record = study.run(
        plan.read(args.config, {"seeds": args.seeds}),
        name,
        args.config,
        args.data_dir,
        args.work or Path("runs", args.study, name),
        check_output(args.output or RECORDS / f"{name}.json", args.force),
        args.jobs,
        args.force,
        progress,
    )
    say(study.table(record))
    return 0


def _declare_further(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir", metavar="DIR", default="data", help="where the data set's file is (default: data)"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="trainings of each setting (default: the file's)")
    parser.add_argument("--work", type=file_name, metavar="DIR", help="of functional-keys: has the kept readers")
    parser.add_argument("--record", type=file_name, required=True, metavar="JSON", help="of functional-keys: gets more")


def _run_further(args: argparse.Namespace) -> int:
    """Attack the kept readers of a study further, and add to its record."""
    import json  # noqa: PLC0415

    from encdl.audit.functional import plan as plans  # noqa: PLC0415
    from encdl.audit.functional import study  # noqa: PLC0415
    from encdl.utils import records  # noqa: PLC0415

    plan = plans.read(args.config, {"seeds": args.seeds})
    try:
        record = json.loads(args.record.read_text())
        jobs = study.jobs_of(plan, args.data_dir, args.work or Path("runs", "functional-keys", args.config.stem))
        study.add_further(record["metrics"], jobs, plan)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"--record {args.record}: it, or the readers that --work keeps, cannot be read ({error}): run the study"
        ) from None
    records.write(args.record, record, force=True)
    say(f"{args.record}: further attacks added")
    return 0


def _declare_leak(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reader", type=file_name, required=True, metavar="CKPT", help="of view Functional; keeps what is found"
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", default="data", help="where the data set's file is (default: data)"
    )


def _run_leak(args: argparse.Namespace) -> int:
    """Attack a reader's numbers, and write what the best decoder made of them into its checkpoint."""
    from encdl.audit.functional import plan, reconstruction  # noqa: PLC0415
    from encdl.utils.devices import usable_device  # noqa: PLC0415

    found = reconstruction.measure(plan.read(args.config, {}), args.data_dir, args.reader, usable_device("auto"))
    reconstruction.keep(found, args.reader)
    say(f"{args.reader}: " + ", ".join(f"{name} {value}" for name, value in found.items()))
    return 0


def _declare_hit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir", metavar="DIR", default="data", help="where the data set's file is (default: data)"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="trainings of each setting (default: the file's)")
    parser.add_argument(
        "--settings", type=int, nargs="+", default=[], metavar="N", help="those of the file, from 0 on (default: all)"
    )
    record = "the record (default: experiments/results/hit-files-DATA.json)"
    parser.add_argument("-o", "--output", **OUTPUT, help=record)
    parser.add_argument("--force", **FORCE)


def _run_hit(args: argparse.Namespace) -> int:
    """Train readers, hit files, read them, write the record."""
    from encdl.audit.functional import hit_files  # noqa: PLC0415
    from encdl.audit.functional import plan as plans  # noqa: PLC0415

    plan = plans.read(args.config, {"seeds": args.seeds})
    name = f"hit-files-{Path(plan.file).stem}"

    def measure() -> dict[str, Any]:
        return hit_files.measure(plan, args.data_dir, args.settings, progress)

    record = _recorded(args, name, plan, range(plan.seeds), measure)
    for row in record["metrics"]["settings"]:
        say(", ".join(f"{each} {row[each]['mean']:.4f}" for each in ("intact", "hit", "difference", "same", "refused")))
    return 0


def _recorded(
    args: argparse.Namespace, name: str, plan: Plan, seeds: Iterable[int], measure: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """The record of a study on the CPU, which is written."""
    import time  # noqa: PLC0415

    from encdl.utils import records  # noqa: PLC0415
    from encdl.utils.atomic import check_output  # noqa: PLC0415

    output, started = check_output(args.output or RECORDS / f"{name}.json", args.force), time.monotonic()
    metrics = measure()
    record = records.record(
        output.stem,
        args.study,
        config=str(args.config),
        dataset=plan.file,
        seeds=list(seeds),
        metrics=metrics,
        wall_s=time.monotonic() - started,
        device="cpu",
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    records.write(output, record, args.force)
    return record


def _declare_trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir", metavar="DIR", default="data", help="where the data set's file is (default: data)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all trainings (default: 0)")
    parser.add_argument("-o", "--output", **OUTPUT, help="the record (default: experiments/results/trust-models.json)")
    parser.add_argument("--force", **FORCE)


def _run_trust(args: argparse.Namespace) -> int:
    """Train and time a reader of each model, write the record."""
    from encdl.audit.functional import plan as plans  # noqa: PLC0415
    from encdl.audit.trust_models import study  # noqa: PLC0415

    plan = plans.read(args.config, {})

    def measure() -> dict[str, Any]:
        return study.metrics(study.Study(plan, args.data_dir, args.seed, progress).rows(), plan.metric)

    record = _recorded(args, "trust-models", plan, [args.seed], measure)
    say(study.table(record["metrics"]["rows"], plan.metric))
    return 0


def _rows(args: argparse.Namespace, usual: Iterable[str], further: Iterable[str] = ()) -> list[str]:
    """Those asked for, the usual ones by default."""
    rows, known = list(dict.fromkeys(args.rows or usual)), [*usual, *further]
    if unknown := [row for row in rows if row not in known]:
        raise UsageError(f"--rows: no row {', '.join(unknown)}: there are {', '.join(known)}")
    return rows


def _study(args: argparse.Namespace, rows: Sequence[str], data: str, record: Path) -> Study:
    """The settings that the arguments describe."""
    from encdl.audit.studies.run import Study  # noqa: PLC0415
    from encdl.utils.atomic import check_output  # noqa: PLC0415

    for name in ("seeds", "jobs"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name} must be at least 1, got {getattr(args, name)}")
    return Study(
        name=args.study,
        config=args.config,
        data=data,
        rows=rows,
        seeds=args.seeds,
        settings=args.set,
        words=["--data.init_args.data_dir", args.data_dir] if args.data_dir else [],
        jobs=args.jobs,
        folder=args.work or Path("runs", args.study, args.config.stem),
        output=check_output(args.output or record, args.force),
        force=args.force,
    )


STUDIES = {
    "ciphertext-readers": (
        "train readers of ciphertext beside plaintext, wrong key, no key and fixed key",
        _declare_readers,
        _run_readers,
    ),
    "losses": (
        "train a cipher's decryption network by each loss, and judge each on the test images",
        _declare_losses,
        _run_losses,
    ),
    "functional-keys": (
        "train readers without a key, and decoders that attack what they are given",
        _declare_functional,
        _run_functional,
    ),
    "functional-further": (
        "attack the kept readers of `functional-keys` further, and add what is found to its record",
        _declare_further,
        _run_further,
    ),
    "reader-leak": (
        "attack what a functional reader is given, and keep the best decoder's figure in its checkpoint",
        _declare_leak,
        _run_leak,
    ),
    "hit-files": ("read files of which 1 % was hit without a key, beside the intact ones", _declare_hit, _run_hit),
    "trust-models": (
        "read one data set under five models of trust: accuracy, latency, bytes, who sees what",
        _declare_trust,
        _run_trust,
    ),
    "reader-cost": (
        "time reading ciphertext beside reading plaintext and decrypting first, in memory and from files",
        reader_cost.add_arguments,
        reader_cost.run,
    ),
}
"""Name to help, declaration of the arguments, and what runs it."""
