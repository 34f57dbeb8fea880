"""`encdl audit`: how secure a trained cipher is, measured like an attacker would."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encdl.commands.common import add_map, progress, usable_device, warn
from encdl.errors import UsageError

if TYPE_CHECKING:
    from encdl.audit.run import Order

EXIT_FAILED = 1
"""The audit was carried out, and the cipher failed it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    audited = parser.add_mutually_exclusive_group()
    audited.add_argument(
        "--weights",
        default="default",
        metavar="W",
        help="name or file of the cipher's weights (default: default)",
    )
    audited.add_argument(
        "--reference",
        metavar="R",
        help="audit a known scheme instead: aes_256_ctr, or fixed_xor, which fails",
    )
    parser.add_argument(
        "--data",
        default="embedded",
        metavar="D",
        help="pictures to attack: embedded (MNI152 brain slices, the default), a folder of images, or an .npz file",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for audit.json, report.html and plots (default: runs/audit/CIPHER); an audit that was ended goes "
        "on there",
    )
    parser.add_argument("--quick", action="store_true", help="small budgets: about 3 minutes on 2 CPU cores")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute (default: auto)"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="measurements at a time (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all draws (default: 0)")
    add_map(parser)
    parser.add_argument("--no-tracking", action="store_true", help="log nothing to MLflow")


def run(args: argparse.Namespace) -> int:
    """Measure, judge, write; exit code 1 if the cipher fails."""
    from encdl.audit.run import Order  # noqa: PLC0415
    from encdl.keys.maps import check_map  # noqa: PLC0415

    for name, least in (("jobs", 1), ("seed", 0)):
        if getattr(args, name) < least:
            raise UsageError(f"--{name} must be at least {least}, got {getattr(args, name)}")
    check_map(args.map)
    order = Order(
        args.reference or args.weights,
        args.reference is not None,
        args.data,
        usable_device(args.device),
        args.seed,
        args.quick,
        args.map,
    )
    subject = order.subject()
    folder = args.output or Path("runs", "audit", subject.name)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file: give a folder (--output)")
    return _audit(order, folder, args.jobs, tracked=not args.no_tracking)


def _audit(order: Order, folder: Path, jobs: int, tracked: bool) -> int:
    from encdl.atomic import write_bytes  # noqa: PLC0415
    from encdl.audit import record, report, verdict  # noqa: PLC0415
    from encdl.audit.run import labels  # noqa: PLC0415
    from encdl.audit.run import run as measure  # noqa: PLC0415

    started = time.monotonic()
    origin = labels(order)  # before the folder is made: data that cannot be read leave nothing behind
    progress(f"pictures read: {order.data}")
    metrics = record.metrics(measure(order, folder / "parts", jobs, progress))
    checks = verdict.checks(metrics)
    content = record.record(order, metrics, checks, origin, time.monotonic() - started)
    record.write(folder, content)
    progress("plots and report")
    drawn = report.draw(order, metrics)
    (folder / "plots").mkdir(exist_ok=True)
    for name, png in drawn.items():
        write_bytes(folder / "plots" / f"{name}.png", png, force=True)
    write_bytes(folder / "report.html", report.html(content, drawn).encode(), force=True)
    print(record.table(metrics, checks))
    if tracked:
        _track(content, folder)
    print(f"record: {folder / record.RECORD}\nreport: {folder / 'report.html'}")
    return 0 if verdict.passed(checks) else EXIT_FAILED


def _track(content: dict[str, Any], folder: Path) -> None:
    """Log the audit to MLflow; where that cannot be, say so and go on: the audit itself is written."""
    try:
        from encdl.audit.track import track  # noqa: PLC0415

        track(content, folder)
    except UsageError as error:
        warn(f"the audit is not logged to MLflow: {error}")
