"""`encdl export`: a small weights file from a training checkpoint."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from encdl.commands.common import add_output
from encdl.utils.messages import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("checkpoint", help="checkpoint of a training run (.ckpt)")
    add_output(parser, "")


def run(args: argparse.Namespace) -> int:
    """Write the weights file."""
    from encdl.ciphers import weights  # noqa: PLC0415
    from encdl.utils.atomic import check_output, different_files, write_bytes  # noqa: PLC0415

    output = check_output(args.output, args.force)
    different_files(output, Path(args.checkpoint))
    loaded = weights.load(args.checkpoint)
    small = io.BytesIO()
    weights.save(loaded.cipher, small, weights.without_places(loaded.training))
    write_bytes(output, small.getvalue(), force=args.force)
    say(f"{output}: {loaded.cipher.name}, weights {loaded.id}, {output.stat().st_size / 1e3:.0f} kB")
    return 0
