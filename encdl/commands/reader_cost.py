"""`encdl experiment reader-cost`: the time that reading ciphertext takes, beside the ways around it."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from encdl.commands.common import RECORDS, add_output, usable_device
from encdl.utils.errors import UsageError
from encdl.utils.messages import progress

TOLD = (
    "keyed_to_plain",
    "ciphertext_to_plain",
    "ciphertext_to_decrypt_then_infer",
    "ciphertext_to_decrypt_in_memory",
)
"""Ratios that are printed; the record has more."""
CLASSES = ("one", "other")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the study's arguments, beside `--config`."""
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="where files are written, read and removed again, for the disk is timed too (default: runs)",
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute (default: auto)"
    )
    add_output(parser, f"the record (default: {RECORDS}/readers-cost.json)")


def run(args: argparse.Namespace) -> int:
    """Time the reader that a recipe describes, untrained: random weights cost what trained ones do."""
    from encdl.audit.studies import cost  # noqa: PLC0415
    from encdl.audit.studies.files import file_cost  # noqa: PLC0415
    from encdl.ciphers.weights import LoadedCipher, weights_id  # noqa: PLC0415
    from encdl.data.base import DataSpec  # noqa: PLC0415
    from encdl.training.cli import task_of  # noqa: PLC0415
    from encdl.training.tasks.read import ReadTask  # noqa: PLC0415
    from encdl.utils import records  # noqa: PLC0415
    from encdl.utils.atomic import check_output  # noqa: PLC0415

    output = args.output or RECORDS / "readers-cost.json"
    check_output(output, args.force)
    device = usable_device(args.device)
    started = time.monotonic()
    task = task_of(str(args.config))
    if not isinstance(task, ReadTask):
        raise UsageError(
            f"{args.config}: is no recipe of a reader: `encdl fit --recipe` lists recipes (--config)"
        )
    args.work.mkdir(parents=True, exist_ok=True)
    reader = task.new_reader(DataSpec(1, max(cost.SIZES), max(cost.SIZES), CLASSES))
    cipher = task.cipher.to(device).eval()
    loaded = LoadedCipher(cipher, weights_id(cipher), cipher.name)
    progress(
        f"timing a reader with {type(reader.backbone).__name__} on {records.device_name(device)}: in memory"
    )
    in_memory = cost.cost(reader, cipher, task.planes, device, cost.SIZES, cost.batches(device))
    progress("from files")
    from_files = file_cost(reader, CLASSES, loaded, task.planes, args.work, cost.SIZES)
    metrics = {"memory": in_memory, "files": from_files}
    record = records.record(
        output.stem,
        args.study,
        config=str(args.config),
        dataset="uniform noise in memory, embedded MRI slices in files",
        seeds=[],
        metrics=metrics,
        wall_s=time.monotonic() - started,
        device=device,
        cipher=loaded.name,
        weights=loaded.id,
        planes=task.planes.to_dict(),
        reader=reader.config(),
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    records.write(output, record, args.force)
    print("\n".join(_table(metrics)))
    print(f"record: {output}")
    return 0


def _table(metrics: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    lines = []
    flat = {f"memory {name}": times for name, times in metrics["memory"].items()}
    flat |= {
        f"files {name} ({clock} time)": times
        for name, clocks in metrics["files"].items()
        for clock, times in clocks.items()
    }
    for name, times in flat.items():
        told = [f"{each.replace('_', ' ')} {times[each]:.2f}" for each in TOLD if each in times]
        lines.append(f"  {name}: {', '.join(told)}")
    return lines
