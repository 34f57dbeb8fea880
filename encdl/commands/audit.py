"""`encdl audit`: how secure a trained cipher is, measured like an attacker would."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encdl.commands.common import add_map, progress, usable_device, warn
from encdl.utils.errors import UsageError

if TYPE_CHECKING:
    from encdl.audit.security.request import Order
    from encdl.audit.security.settings import Settings

EXIT_FAILED = 1
"""The audit was carried out, and the cipher failed it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments. Those that are settings have no default here, so that a file may give them."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="YAML",
        help="settings, by the names of these options; options go before it; --recipe NAME takes EncDL's own, and "
        "--recipe alone lists them",
    )
    audited = parser.add_mutually_exclusive_group()
    audited.add_argument(
        "--weights",
        metavar="W",
        help="name (default, agile, thesis, ...) or file of the cipher's weights (default: default)",
    )
    audited.add_argument(
        "--reference",
        metavar="R",
        help="audit a known scheme instead: aes_256_ctr, or fixed_xor, which fails",
    )
    parser.add_argument(
        "--data",
        metavar="D",
        help="images to attack: embedded (MNI152 brain slices, the default), brain_tumor, acdc, a set of MedMNIST, a "
        "folder of images, or an .npz file; several sets with + between them",
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", help="folder of sets that are not embedded (default: data)"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for audit.json, report.html and plots (default: runs/audit/CIPHER); an audit that was ended goes "
        "on there",
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        "--budget",
        choices=("quick", "cpu", "accelerator"),
        help="what the attackers have: minutes on 2 cores and the default mode alone; half an hour on a core; minutes "
        "on a GPU of a data centre (default: by the device)",
    )
    budget.add_argument(
        "--quick", action="store_const", const="quick", dest="budget", help="the same as --budget quick"
    )
    parser.add_argument(
        "--size", type=int, metavar="N", help="height and width of attacked images (default: by the budget)"
    )
    parser.add_argument(
        "--images", type=int, metavar="N", help="the attackers' training images (default: by the budget)"
    )
    parser.add_argument(
        "--attacker-seeds",
        type=int,
        metavar="N",
        help="how often each attack that draws is carried out (default: by the budget)",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where to compute (default: auto)")
    parser.add_argument("--jobs", type=int, metavar="N", help="measurements at a time (default: 1)")
    parser.add_argument("--seed", type=int, metavar="N", help="of all draws (default: 0)")
    add_map(parser, None)
    parser.add_argument("--no-tracking", action="store_true", help="log nothing to MLflow")


def run(args: argparse.Namespace) -> int:
    """Measure, judge, write; exit code 1 if the cipher fails."""
    from encdl.audit.security.request import Order  # noqa: PLC0415
    from encdl.audit.security.settings import Settings, read  # noqa: PLC0415

    names = set(Settings.__dataclass_fields__)
    settings = read(args.config, {name: value for name, value in vars(args).items() if name in names})
    order = Order.of(settings, usable_device(settings.device))
    folder = args.output or Path("runs", "audit", order.subject().name)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file: give a folder (--output)")
    return _audit(order, settings, args.config, folder, tracked=not args.no_tracking)


def _audit(order: Order, settings: Settings, config: Path | None, folder: Path, tracked: bool) -> int:
    from encdl.audit.security import page, record, verdict  # noqa: PLC0415
    from encdl.audit.security.measures import cuts  # noqa: PLC0415
    from encdl.audit.security.run import run as measure  # noqa: PLC0415
    from encdl.utils.atomic import write_bytes  # noqa: PLC0415

    started = time.monotonic()
    attacked = cuts(order)  # before the folder is made: data that cannot be read leave nothing behind
    progress(f"images read: {order.data}")
    metrics = record.metrics(measure(order, folder / "parts", settings.jobs, progress))
    checks = verdict.checks(metrics)
    wall_s = time.monotonic() - started
    content = record.record(order, settings, config, metrics, checks, attacked, wall_s)
    record.write(folder, content)
    progress("plots and report")
    drawn = page.draw(order, metrics)
    (folder / "plots").mkdir(exist_ok=True)
    for name, png in drawn.items():
        write_bytes(folder / "plots" / f"{name}.png", png, force=True)
    write_bytes(folder / "report.html", page.html(content, drawn).encode(), force=True)
    print(record.table(metrics, checks))
    if tracked:
        _track(content, folder)
    print(f"record: {folder / record.RECORD}\nreport: {folder / 'report.html'}")
    return 0 if verdict.passed(checks) else EXIT_FAILED


def _track(content: dict[str, Any], folder: Path) -> None:
    """Log the audit to MLflow; where that cannot be, say so and go on: the audit itself is written."""
    try:
        from encdl.audit.security.tracking import track  # noqa: PLC0415

        track(content, folder)
    except UsageError as error:
        warn(f"the audit is not logged to MLflow: {error}")
