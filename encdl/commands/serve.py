"""`encdl serve`: a trained network behind HTTP, that reads ciphertext sent with a grant, or without any key at all."""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from encdl.commands import functional_keys
from encdl.commands.common import one_line_warnings
from encdl.commands.reader_options import add_reader, reader_of
from encdl.keys.planes import WeakPlanesWarning
from encdl.utils.errors import UsageError
from encdl.utils.messages import progress, warn

if TYPE_CHECKING:
    from encdl.serving.service import Service

LOCAL = ("127.0.0.1", "localhost", "::1")
MAX_MB = 1024
AGAIN_S = 5.0
"""Seconds in which a key server that is down is not asked again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "--reader",
        required=True,
        metavar="CKPT",
        help="checkpoint of a classifier or segmenter, or a model in MLflow: models:/NAME/VERSION, runs:/RUN/reader",
    )
    parser.add_argument(
        "--host",
        default=LOCAL[0],
        metavar="H",
        help="address to listen at (default: 127.0.0.1, this machine alone); grants travel in clear: for others put "
        "a proxy with TLS in front",
    )
    parser.add_argument("--port", type=int, default=8000, metavar="P", help="default: 8000; 0 picks a free one")
    parser.add_argument(
        "--max-mb", type=float, default=16.0, metavar="MB", help="longest request in megabytes (default: 16)"
    )
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="requests computed at a time (default: 1)")
    add_reader(parser)
    parser.add_argument(
        "--keyserver",
        metavar="URL",
        help="read ciphertext sent alone, with functional keys of this server (encdl keyserver): no grants, no keys",
    )
    functional_keys.add_keyserver(parser)


def run(args: argparse.Namespace) -> int:
    """Load the reader and answer until interrupted."""
    _check(args)
    with listening(args.host, args.port) as bound:
        from encdl.serving.app import make_app, serve  # noqa: PLC0415

        service = _service(args)
        predictor = service.predictor
        if args.host not in LOCAL:
            warn(f"listening at {args.host}: requests and answers travel in clear: put a proxy with TLS in front")
        log_requests()
        progress(
            f"serving a {'segmenter' if predictor.per_pixel else 'classifier'} of {', '.join(predictor.classes)} at "
            f"http://{address_of(bound)}/invocations (Ctrl-C stops it)"
        )
        serve(make_app(service, int(args.max_mb * 1e6), args.at_once), args.host, [bound])
    return 0


def _service(args: argparse.Namespace) -> Service:
    """The service that answers records, with a key server's keys or the senders'."""
    from encdl.serving.service import KeylessService, Service  # noqa: PLC0415

    keys = functional_keys.keys_of(args, [], AGAIN_S)
    args.reader = _checkpoint(args.reader)
    if keys is not None:
        return KeylessService(functional_keys.load_reader(args), keys.of)
    with one_line_warnings(ignore=WeakPlanesWarning):
        return Service(reader_of(args, args.reader))


def _check(args: argparse.Namespace) -> None:
    if not 0 < args.max_mb <= MAX_MB:
        raise UsageError(f"--max-mb {args.max_mb}: must be above 0 and at most {MAX_MB}")
    if args.at_once < 1:
        raise UsageError(f"--at-once {args.at_once}: must be at least 1")


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; raise `UsageError` if there can be none."""
    if not 0 <= port < 2**16:
        raise UsageError(f"--port {port}: must be from 0 to 65535")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot listen at {host} port {port} ({reason}): give another --host or --port") from None


def address_of(bound: socket.socket) -> str:
    """Host and port as an address has them."""
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def log_requests() -> None:
    """A line a request on stderr."""
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s")
    logging.getLogger("encdl.serving").setLevel(logging.INFO)


def _checkpoint(reader: str) -> Path:
    """The checkpoint that `--reader` names."""
    if not reader.startswith(("models:/", "runs:/")):
        return Path(reader)
    from encdl.serving.model import checkpoint_of  # noqa: PLC0415
    from encdl.training.tracking import open_store  # noqa: PLC0415

    open_store()
    return checkpoint_of(reader)
