"""`encdl experiment reader-cost`: the time that reading ciphertext takes, beside the ways around it."""

from __future__ import annotations

import argparse
from pathlib import Path

from encdl.commands.common import FORCE, OUTPUT, RECORDS, file_name
from encdl.utils.devices import usable_device
from encdl.utils.errors import UsageError
from encdl.utils.messages import progress, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the study's arguments, beside `--config`."""
    parser.add_argument(
        "--work",
        type=file_name,
        default=Path("runs"),
        metavar="DIR",
        help="where files are written, read and removed again, for the disk is timed too (default: runs)",
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute (default: auto)"
    )
    parser.add_argument("-o", "--output", **OUTPUT, help=f"the record (default: {RECORDS}/readers-cost.json)")
    parser.add_argument("--force", **FORCE)


def run(args: argparse.Namespace) -> int:
    """Time the reader that a recipe describes, and write the record."""
    from encdl.audit.studies.reader_cost import measure, table  # noqa: PLC0415
    from encdl.training.cli import task_of  # noqa: PLC0415
    from encdl.training.tasks.read import ReadTask  # noqa: PLC0415
    from encdl.utils import records  # noqa: PLC0415
    from encdl.utils.atomic import check_output  # noqa: PLC0415

    output = args.output or RECORDS / "readers-cost.json"
    check_output(output, args.force)
    device = usable_device(args.device)
    task = task_of(str(args.config))
    if not isinstance(task, ReadTask):
        raise UsageError(f"{args.config}: is no recipe of a reader: `encdl fit --recipe` lists recipes (--config)")
    record = measure(task, args.config, args.work, output.stem, device, progress)
    output.parent.mkdir(parents=True, exist_ok=True)
    records.write(output, record, args.force)
    say(table(record["metrics"]))
    say(f"record: {output}")
    return 0
