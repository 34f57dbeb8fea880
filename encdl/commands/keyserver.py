"""`encdl keyserver`: gives functional keys to hosts over HTTP, by a policy."""

from __future__ import annotations

import argparse
import contextlib
import signal
import ssl
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from encdl.commands.common import add_key, file_name, open_key
from encdl.commands.serve import LOCAL, address_of, listening, log_requests
from encdl.keys.key_source import KeySource
from encdl.keys.signing import SigningKey
from encdl.utils.errors import EncdlError, UsageError
from encdl.utils.messages import progress, say

if TYPE_CHECKING:
    from encdl.serving.keyserver import KeyServer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    key = add_key(parser, "key of the files, or a grant for their study")
    key.add_argument(
        "--new-token", type=file_name, metavar="FILE", help="make a client's token, and tell its digest for the policy"
    )
    key.add_argument(
        "--check-ledger", type=file_name, metavar="DB", help="go through a ledger's log, and tell its last digest"
    )
    parser.add_argument("--policy", type=file_name, metavar="YAML", help="readers, clients, budget")
    parser.add_argument("--sign", type=file_name, metavar="KEY", help="signs functional keys (encdl keygen --signing)")
    parser.add_argument(
        "--ledger",
        type=file_name,
        metavar="DB",
        help="SQLite file of what was given (default: the policy's name with .ledger)",
    )
    parser.add_argument("--host", default=LOCAL[0], metavar="H", help="default: 127.0.0.1; others need --certificate")
    parser.add_argument("--port", type=int, default=8443, metavar="P", help="default: 8443; 0 picks a free one")
    parser.add_argument("--certificate", type=file_name, metavar="PEM", help="speak TLS with this certificate")
    parser.add_argument("--certificate-key", type=file_name, metavar="PEM", help="its key, if it is in another file")
    parser.add_argument(
        "--client-authority",
        type=file_name,
        metavar="PEM",
        help="mutual TLS: answer only clients with a certificate of this authority",
    )


def run(args: argparse.Namespace) -> int:
    """Make a token, check a ledger, or answer until interrupted."""
    if args.new_token is not None:
        from encdl.serving.tokens import new_token  # noqa: PLC0415

        say(f"token: {new_token(args.new_token)}  # of {args.new_token}, for the policy")
        return 0
    from encdl.serving.ledger import Ledger  # noqa: PLC0415

    if args.check_ledger is not None:
        if not args.check_ledger.is_file():
            raise UsageError(f"{args.check_ledger}: no such file: check the name")
        count, digest = Ledger(args.check_ledger).found
        say(f"{args.check_ledger}: {count:,} lines, the chain is whole, the last digest is {digest}")
        return 0
    tls = _tls(args)
    for name in ("policy", "sign"):
        if getattr(args, name) is None:
            raise UsageError(f"--{name} is missing: a key server needs --key, --policy and --sign")
    with listening(args.host, args.port) as bound:
        from encdl.serving.app import serve  # noqa: PLC0415
        from encdl.serving.keyserver import KeyServer, make_app  # noqa: PLC0415
        from encdl.serving.policy import LoadedPolicy  # noqa: PLC0415

        opener, signer = open_key(args.key), SigningKey.load(args.sign, KeySource(args.sign).ask)
        loaded = LoadedPolicy.load(args.policy)
        ledger = Ledger(args.ledger or args.policy.with_suffix(".ledger"))
        count, digest = ledger.found
        log_requests()
        for reader, names in loaded.names.items():
            given = loaded.maps.get(reader) or loaded.networks[reader]
            often = "" if reader in loaded.maps else ", at each reading together with this server"
            progress(f"reader {', '.join(sorted(names))}: {reader}, {given.given_bits:,} bits of an image{often}")
        progress(f"ledger {ledger.path}: {count:,} lines, the last digest is {digest}")
        progress(
            f"giving functional keys at http{'s' if tls else ''}://{address_of(bound)}, signed by {signer.public.id} "
            "(Ctrl-C stops it)"
        )
        with contextlib.closing(ledger):
            server = KeyServer(opener, signer, loaded, ledger)
            if hasattr(signal, "SIGHUP"):
                # In a thread: reading checkpoints takes seconds, in which others are answered.
                again = partial(_reload, server, args.policy)
                signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=again, daemon=True).start())
            serve(make_app(server), args.host, [bound], tls)
    return 0


def _reload(server: KeyServer, path: Path) -> None:
    """Go by the policy's file as it is now, or, if that is none, by the old one."""
    from encdl.serving.policy import LoadedPolicy  # noqa: PLC0415

    try:
        server.use(LoadedPolicy.load(path))
    except EncdlError as error:
        progress(f"the policy stays as it was: {error}")
        return
    progress(f"policy {path}: read again")


def _tls(args: argparse.Namespace) -> ssl.SSLContext | None:
    """TLS with files that can be used; none without a certificate."""
    if args.certificate is None:
        if args.host not in LOCAL:
            raise UsageError(f"--host {args.host}: tokens would travel in clear: give --certificate")
        if args.certificate_key is not None or args.client_authority is not None:
            raise UsageError("--certificate-key and --client-authority are for TLS: give --certificate too")
        return None
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(args.certificate, args.certificate_key)
        if args.client_authority is not None:
            context.load_verify_locations(args.client_authority)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(f"{args.certificate}: TLS cannot use it ({error.strerror or error})") from None
    return context
