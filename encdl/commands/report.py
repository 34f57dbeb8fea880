"""`encdl report`: runs side by side on one HTML page."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from encdl.commands.common import file_name
from encdl.utils import atomic
from encdl.utils.messages import progress, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="ids of runs (the first letters do), or names; of a study or a sweep also all runs that belong to it",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=file_name,
        default=Path("report.html"),
        metavar="OUT",
        help="page to write (default: report.html)",
    )
    parser.add_argument("--force", action="store_true", help="replace the output if it exists")
    parser.add_argument(
        "--root",
        default="runs",
        metavar="DIR",
        help="folder of the runs (default: runs; the environment variable MLFLOW_TRACKING_URI comes first)",
    )


def run(args: argparse.Namespace) -> int:
    """Read the runs, write the page."""
    atomic.check_output(args.output, args.force)
    from encdl.audit.report.gather import gather  # noqa: PLC0415
    from encdl.audit.report.page import html  # noqa: PLC0415
    from encdl.training.tracking import open_store  # noqa: PLC0415

    client = open_store(args.root)
    runs = gather(client, args.runs)
    progress(f"drawing {len(runs)} run{'s' * (len(runs) != 1)}")
    store = re.sub(r"//[^/@]*@", "//", client.tracking_uri)  # without a name and password
    atomic.write_bytes(args.output, html(runs, store).encode(), force=args.force)
    say(f"report: {args.output}")
    return 0
