"""`encdl two-party`: what a host and a key server need to read a file together."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from encdl.commands.common import file_name
from encdl.utils.errors import UsageError
from encdl.utils.messages import progress, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "action",
        choices=["setup", "network"],
        help="setup: make the environment of SPU, about 1 GB, in ~/.cache/encdl/spu or $ENCDL_SPU; network: tell the "
        "form of a reader, for the key server's policy",
    )
    parser.add_argument(
        "--engine",
        choices=["spu", "tenseal"],
        default="spu",
        help="with setup: spu (default), or tenseal, which `encdl experiment trust-models` compares with",
    )
    parser.add_argument("--reader", type=file_name, metavar="CKPT", help="with network: a reader of view TwoParty")
    parser.add_argument(
        "--python",
        default=sys.executable,
        metavar="P",
        help="with setup: Python 3.10 or 3.11, which SPU has wheels for",
    )


def run(args: argparse.Namespace) -> int:
    """Make the environment, or tell a form."""
    if args.action == "setup":
        from encdl.readers.two_party import environment  # noqa: PLC0415

        progress("fetching packages: some minutes")
        say(f"{environment.make(args.engine, args.python)}: {args.engine} is found there from now on")
        return 0
    if args.reader is None:
        raise UsageError("network: give --reader, a checkpoint of view TwoParty")
    from encdl import readers  # noqa: PLC0415
    from encdl.readers.two_party.network import network_of  # noqa: PLC0415

    network, _ = network_of(readers.load(args.reader))
    say(json.dumps(asdict(network)))
    return 0
