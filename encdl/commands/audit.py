"""`encdl audit`: how secure a trained cipher is, measured like an attacker would."""

from __future__ import annotations

import argparse
from pathlib import Path

from encdl.commands.common import MAP, file_name
from encdl.utils.devices import usable_device
from encdl.utils.errors import UsageError
from encdl.utils.messages import progress

EXIT_FAILED = 1
"""The audit was carried out, and the cipher failed it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments. Those that are settings have no default here, so that a file may give them."""
    parser.add_argument(
        "--config",
        type=file_name,
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
        "--reference", metavar="R", help="audit a known scheme instead: aes_256_ctr, or fixed_xor, which fails"
    )
    parser.add_argument(
        "--data",
        metavar="D",
        help="images to attack: embedded (MNI152 brain slices, the default), brain_tumor, acdc, a set of MedMNIST, a "
        "folder of images, or an .npz file; several sets with + between them",
    )
    parser.add_argument("--data-dir", metavar="DIR", help="folder of sets that are not embedded (default: data)")
    parser.add_argument(
        "-o",
        "--output",
        type=file_name,
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
    parser.add_argument("--map", **MAP)
    parser.add_argument("--no-tracking", action="store_true", help="log nothing to MLflow")


def run(args: argparse.Namespace) -> int:
    """Measure, judge, write; exit code 1 if the cipher fails."""
    from encdl.audit.security.audit import audit  # noqa: PLC0415
    from encdl.audit.security.request import Order  # noqa: PLC0415
    from encdl.audit.security.settings import Settings, read  # noqa: PLC0415

    names = set(Settings.__dataclass_fields__)
    settings = read(args.config, {name: value for name, value in vars(args).items() if name in names})
    order = Order.of(settings, usable_device(settings.device))
    folder = args.output or Path("runs", "audit", order.subject().name)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file: give a folder (--output)")
    return 0 if audit(order, settings, args.config, folder, progress, print, args.no_tracking) else EXIT_FAILED
