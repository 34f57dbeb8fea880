"""`encdl jobs`: what was submitted, what the cluster says of it, and its MLflow runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from encdl.commands.common import file_name
from encdl.commands.submit import ROOT
from encdl.utils.errors import UsageError
from encdl.utils.messages import progress, say

HEADINGS = ("JOB", "TASK", "SLURM", "STATE", "RUN", "STATUS", "SETTINGS")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="jobs to show (default: all)")
    parser.add_argument("--root", type=file_name, default=ROOT, metavar="DIR", help=f"jobs' folders (default: {ROOT})")
    parser.add_argument("--cancel", action="store_true", help="cancel the named jobs")
    parser.add_argument("--again", action="store_true", help="submit the named jobs again: they go on where they ended")


def run(args: argparse.Namespace) -> int:
    """Show, or cancel first."""
    from encdl.cluster import slurm, submission  # noqa: PLC0415

    if (args.cancel or args.again) and not args.names:
        raise UsageError("--cancel and --again want the names of jobs: `encdl jobs` lists them")
    if args.cancel and args.again:
        raise UsageError("--cancel and --again: give one of them")
    jobs = submission.submitted(args.root, args.names)
    if not jobs:
        progress(f"no jobs below {args.root}: `encdl submit` makes them")
        return 0
    if args.cancel:
        for job in jobs:
            slurm.cancel(job.slurm_id)
    if args.again:
        jobs = [submission.again(job) for job in jobs]
    rows = [row for job in jobs for row in submission.rows(job)]
    say(table([HEADINGS, *rows]))
    return 0


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned text."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
