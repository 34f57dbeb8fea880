"""`encdl results`: the tables, plots and figures of the documentation, from the records."""

from __future__ import annotations

import argparse
from pathlib import Path

from encdl.commands.common import file_name
from encdl.utils.errors import UsageError
from encdl.utils.messages import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit code 1 if a page differs from a record, one line for each place",
    )
    parser.add_argument(
        "--root",
        type=file_name,
        default=Path(),
        metavar="DIR",
        help="root of the repository: README.md, docs and experiments/results are there (default: .)",
    )


def run(args: argparse.Namespace) -> int:
    """Render the pages, or compare them."""
    from encdl.audit.results import update  # noqa: PLC0415

    root = args.root.resolve()
    if not (root / "README.md").is_file() or not (root / "docs").is_dir():
        raise UsageError(f"{root}: holds no README.md and docs: give --root, the root of EncDL's repository")
    changes = list(update(root, args.check))
    for change in changes:
        say(str(change) if args.check or change.fault else f"{change.page}:{change.line}: {change.what}: rendered")
    return int(bool(changes) if args.check else any(change.fault for change in changes))
