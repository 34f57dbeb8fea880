"""`encdl experiment`: whole studies, each of many trainings, as one result record."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encdl.commands import reader_cost
from encdl.commands.common import RECORDS, add_output, progress, usable_device
from encdl.utils import recipes
from encdl.utils.errors import EncdlError, UsageError

if TYPE_CHECKING:
    from encdl.audit.studies.parts import Part
    from encdl.training.tracking import RunGroup

Write = Callable[..., dict[str, Any]]
"""Makes the metrics of a study's trainings, and writes its record."""

GROUP_FILE = "mlflow-run"
"""Below a study's folder: the id of its run in MLflow."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare a sub-command for each study."""
    studies = parser.add_subparsers(dest="study", metavar="STUDY", required=True)
    for name, (told, declare, do) in STUDIES.items():
        study = studies.add_parser(
            name, help=told, description=f"{told[0].upper()}{told[1:]}.", allow_abbrev=False
        )
        study.add_argument(
            "--config",
            type=Path,
            required=True,
            metavar="YAML",
            help="recipe of a reader, or of a cipher for `losses`, as for `encdl fit`; --recipe NAME takes "
            "one of EncDL's, --recipe alone lists them",
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
        "hardened_plaintext (default: all)",
    )
    _declare_trainings(parser, "experiments/results/readers-DATA.json")


def _declare_losses(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="LOSS",
        help="train these alone: likelihood, l1, mse, charbonnier (default: all)",
    )
    _declare_trainings(parser, "experiments/results/losses.json")


def _declare_trainings(parser: argparse.ArgumentParser, output: str) -> None:
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where the data set's files are (default: the recipe's)"
    )
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="trainings of each row (default: 3)"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="trainings at a time; more than 1 for a GPU with room",
    )
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="keeps finished trainings (default: runs/STUDY/RECIPE)"
    )
    add_output(parser, f"the record (default: {output})")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of `encdl fit` for every training, such as trainer.max_epochs=2; may be repeated",
    )


def _run_readers(args: argparse.Namespace) -> int:
    """Train what is missing, measure costs, write the record."""
    from encdl.audit.studies.parts import ReaderPart  # noqa: PLC0415
    from encdl.audit.studies.rows import VIEWS  # noqa: PLC0415

    rows = _rows(args, VIEWS)
    if "plaintext" not in rows:
        raise UsageError("--rows: plaintext must be there: it is what the others are compared with")
    data = args.config.stem.partition("-")[2] or args.config.stem
    return _run_trainings(args, ReaderPart, rows, data, RECORDS / f"readers-{data}.json", _write_readers)


def _run_losses(args: argparse.Namespace) -> int:
    """Train what is missing with each loss, write the record."""
    from encdl.audit.studies.losses import LOSSES, LossPart  # noqa: PLC0415

    return _run_trainings(
        args, LossPart, _rows(args, LOSSES), args.config.stem, RECORDS / "losses.json", _write_losses
    )


def _rows(args: argparse.Namespace, known: Iterable[str]) -> list[str]:
    """Those asked for, all by default."""
    rows = list(dict.fromkeys(args.rows or known))
    if unknown := [row for row in rows if row not in known]:
        raise UsageError(f"--rows: no row {', '.join(unknown)}: there are {', '.join(known)}")
    return rows


def _run_trainings(
    args: argparse.Namespace, kind: type[Part], rows: Sequence[str], data: str, output: Path, write: Write
) -> int:
    """Train every row with every seed, as far as that is missing, and write the record."""
    from encdl.utils.atomic import check_output  # noqa: PLC0415

    for name in ("seeds", "jobs"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name} must be at least 1, got {getattr(args, name)}")
    output = args.output or output
    check_output(output, args.force)
    folder = args.work or Path("runs", args.study, args.config.stem)
    folder.mkdir(parents=True, exist_ok=True)
    settings = [f"--{setting}" for setting in args.set]
    if args.data_dir:
        settings += ["--data.init_args.data_dir", args.data_dir]
    if not find_spec("mlflow"):
        settings += ["--trainer.logger", "false"]
    parts = [
        kind(str(args.config), row, seed, str(folder), tuple(settings))
        for seed in range(args.seeds)
        for row in rows
    ]
    started = time.monotonic()
    with _group(args, data, folder) as group:
        contents = _train(parts, args.jobs)
        metrics = write(output, data, parts, contents, time.monotonic() - started, args)
        if group is not None:
            group.log(dict(means(metrics)), output)
    return 0


@contextlib.contextmanager
def _group(args: argparse.Namespace, data: str, folder: Path) -> Iterator[RunGroup | None]:
    """The MLflow run that the trainings belong to; that of an earlier call, if the study goes on."""
    if not _is_tracked(args.config, args.set):
        yield None
        return
    from encdl.training.tracking import RunGroup  # noqa: PLC0415

    known = folder / GROUP_FILE
    run_id = known.read_text().strip() if known.is_file() else None
    told = {"config": args.config, "seeds": args.seeds, "settings": " ".join(args.set)}
    with RunGroup(args.study, args.config.stem, parameters=told, tags={"data": data}, run_id=run_id) as group:
        known.write_text(group.run_id)
        yield group


def _is_tracked(config: Path, settings: Sequence[str]) -> bool:
    """Whether the trainings are recorded in MLflow."""
    import yaml  # noqa: PLC0415

    content = yaml.safe_load(config.read_text())
    trainer = content.get("trainer") if isinstance(content, dict) else None
    off = isinstance(trainer, dict) and trainer.get("logger") is False
    given = dict(setting.partition("=")[::2] for setting in settings).get("trainer.logger", "").lower()
    return find_spec("mlflow") is not None and given != "false" and (not off or bool(given))


def means(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """What a study found, under the names that its trainings log: means, and their deviation as `NAME/std`."""
    for row, figures in metrics.items():
        for figure, found in figures.items() if isinstance(figures, dict) else ():
            if isinstance(found, dict) and found.get("mean") is not None and "std" in found:
                yield f"test/{figure}/{row}", found["mean"]
                yield f"test/{figure}/{row}/std", found["std"]


def _train(parts: Sequence[Part], jobs: int) -> list[dict[str, Any]]:
    """The figures of all parts; those of earlier calls are taken as they are."""
    found = {part.name: content for part in parts if (content := part.known())}
    if found:
        progress(f"{len(found)} of {len(parts)} trainings are there already")
    missing = [part for part in parts if part.name not in found]
    if jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(_apart, part): part for part in missing}
        try:
            for done in as_completed(running):
                part, content = running[done], done.result()
                found[part.name] = content
                progress(
                    f"[{len(found)}/{len(parts)}] {part.name}: {_told(content)} ({content['wall_s']:.0f} s)"
                )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            under_way = sum(one.running() for one in running)
            if under_way:
                progress(f"stopping; {under_way} trainings under way end first, and are kept")
            raise
    return [found[part.name] for part in parts]


def _apart(part: Part) -> dict[str, Any]:
    """Train in a process of its own: nothing that one training leaves behind meets another."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(train_part, part).result()


def train_part(part: Part) -> dict[str, Any]:
    """Run one part; what it prints goes to a file beside its figures.

    Raises:
        EncdlError: It failed; the file has the rest.
    """
    from encdl.training import cli  # noqa: PLC0415

    log = Path(part.folder, f"{part.name}.log")
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    try:
        return part.run(cli.run)
    except EncdlError as error:
        raise type(error)(f"{error} (training {part.name})") from None
    except Exception as error:
        import traceback  # noqa: PLC0415

        traceback.print_exc()
        raise EncdlError(f"training {part.name} failed: {error}: see {log}") from None


def _write_readers(
    output: Path,
    data: str,
    parts: Sequence[Part],
    contents: Sequence[dict[str, Any]],
    wall_s: float,
    args: argparse.Namespace,
) -> dict[str, Any]:
    from encdl import ciphers, readers  # noqa: PLC0415
    from encdl.audit.studies.cost import cost  # noqa: PLC0415
    from encdl.audit.studies.rows import assemble, table  # noqa: PLC0415
    from encdl.keys.planes import PlaneSpec  # noqa: PLC0415

    metrics = assemble(contents)
    print(f"{data}, {len({part.seed for part in parts})} seeds\n{table(metrics)}")
    device = usable_device("auto")
    progress("costs")
    first = contents[0]
    reader, spec = (
        readers.create(first["reader"], len(first["classes"])),
        PlaneSpec.from_dict(first["planes"]),
    )
    # Random weights cost what trained ones do.
    cipher = ciphers.create(first["cipher"]["name"], first["cipher"]["config"]).to(device).eval()
    metrics["cost"] = cost(reader, cipher, spec, device, reader_cost.SIZES, reader_cost.batches(device))
    more = {"cipher": first["cipher"]["name"], "weights": first["cipher"]["id"], "planes": spec.to_dict()}
    _write(output, f"{data} ({first['dataset']})", parts, contents, metrics, wall_s, args, device, more)
    return metrics


def _write_losses(
    output: Path,
    data: str,
    parts: Sequence[Part],
    contents: Sequence[dict[str, Any]],
    wall_s: float,
    args: argparse.Namespace,
) -> dict[str, Any]:
    from encdl.audit.studies.losses import assemble, best, table  # noqa: PLC0415

    metrics, first = assemble(contents), contents[0]
    print(f"{first['dataset']}, {len({part.seed for part in parts})} seeds\n{table(metrics)}")
    more = {
        "best": best(metrics),
        "cipher": first["cipher"]["name"],
        "config_of_cipher": first["cipher"]["config"],
    }
    _write(output, first["dataset"], parts, contents, metrics, wall_s, args, usable_device("auto"), more)
    return metrics


def _write(
    output: Path,
    dataset: str,
    parts: Sequence[Part],
    contents: Sequence[dict[str, Any]],
    metrics: dict[str, Any],
    wall_s: float,
    args: argparse.Namespace,
    device: str,
    more: dict[str, Any],
) -> None:
    """The record of a study of trainings."""
    from encdl.utils import records  # noqa: PLC0415

    record = records.record(
        output.stem,
        args.study,
        config=parts[0].config,
        dataset=dataset,
        seeds=sorted({part.seed for part in parts}),
        metrics=metrics,
        wall_s=wall_s,
        device=device,
        settings=list(args.set),  # but not where the data lie: that is this machine's alone
        steps=contents[0]["steps"],
        training_device=contents[0]["device"],
        training_s={part.name: content["wall_s"] for part, content in zip(parts, contents, strict=True)},
        **more,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    records.write(output, record, args.force)
    print(f"record: {output}")


def _told(content: dict[str, Any]) -> str:
    figures = content["figures"].get(content["row"]) or next(iter(content["figures"].values()))
    plain = {name: value for name, value in figures.items() if isinstance(value, float)}
    nested = next((value for value in figures.values() if isinstance(value, dict)), {})
    return ", ".join(f"{name} {value:.3f}" for name, value in {**plain, **nested}.items())


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
    "reader-cost": (
        "time reading ciphertext beside reading plaintext and decrypting first, in memory and from files",
        reader_cost.add_arguments,
        reader_cost.run,
    ),
}
"""Name to help, declaration of the arguments, and what runs it."""
