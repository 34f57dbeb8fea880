"""Functional keys in `encdl grant`, `keyinfo` and `predict`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encdl.commands.common import file_name
from encdl.files.folders import Source
from encdl.keys.functional import MAGIC, SEALED_MAGIC, SUFFIX, FunctionalKey, sealed_to
from encdl.keys.grant import utc_now
from encdl.keys.key_source import KeySource
from encdl.keys.signing import PublicKey, SigningKey
from encdl.utils.devices import usable_device
from encdl.utils.errors import UsageError, WrongKeyError
from encdl.utils.messages import say

if TYPE_CHECKING:
    from encdl.keys.key import Grant, Key
    from encdl.keys.recipients import RecipientPublicKey
    from encdl.readers.answers import Answer
    from encdl.readers.functional_files import FunctionalPredictor
    from encdl.readers.two_party.files import TwoPartyPredictor
    from encdl.serving.key_client import KeyServerClient


def add_arguments(parser: argparse.ArgumentParser, scope: Any) -> None:
    """Add those of `encdl grant`; `scope` is the group of which one option must be given."""
    scope.add_argument(
        "--reader",
        type=file_name,
        metavar="CKPT",
        help="make a functional key: let this reader (trained on view Functional) read SCAN without a key",
    )
    parser.add_argument("scan", type=file_name, nargs="?", metavar="SCAN", help="with --reader: the .encdl file")
    parser.add_argument(
        "--noise",
        type=float,
        metavar="LEVELS",
        help="with --reader: add noise of this standard deviation to the pixels of the reading layer, one draw a file",
    )
    parser.add_argument(
        "--sign", type=file_name, metavar="KEY", help="with --reader: sign it with this key (encdl keygen --signing)"
    )


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse options that only a functional key has without --reader, and --reader without a file."""
    if args.reader is not None and args.scan is None:
        raise UsageError("--reader: give the .encdl file that it shall read, as in `encdl grant --reader R scan.encdl`")
    given = {"SCAN": args.scan, "--noise": args.noise, "--sign": args.sign}
    if args.reader is None and (alone := [name for name, value in given.items() if value is not None]):
        raise UsageError(f"{alone[0]} is for functional keys: give --reader too, or leave it out")


def make(args: argparse.Namespace, opener: Key | Grant, end: datetime | None, to: RecipientPublicKey | None) -> int:
    """Make the functional key of one file and save it, sealed to a recipient if there is one."""
    from encdl import api  # noqa: PLC0415

    signer = None if args.sign is None else SigningKey.load(args.sign, KeySource(args.sign).ask)
    key = api.grant_functional(args.scan, opener, args.reader, noise=args.noise or 0.0, signer=signer, expires=end)
    key.save(args.output, force=args.force, to=to)
    holder = "Whoever holds it and the file" if to is None else f"Recipient {to.id} alone, with the file,"
    say(f"{args.output}: functional key for {args.scan} and reader {key.reader[:16]}. {holder} learns {_told(key)}.")
    return 0


def is_one(path: Path) -> bool:
    """Whether a file is a functional key; False if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) in (MAGIC, SEALED_MAGIC)
    except OSError:
        return False


def describe(source: KeySource, issuer: Path | None, reader: Path | None) -> list[tuple[str, str]]:
    """The text of `encdl keyinfo` on one, and on its reader's checkpoint.

    Of a sealed one without its recipient's key it says whose it is.

    Raises:
        UsageError: an issuer is asked for, whose mark it does not bear.
        WrongKeyError: it is for another reader.
    """
    if issuer is not None:
        raise UsageError("--issuer: a functional key bears a signature, which `encdl predict --server-key` checks")
    path, recipient = source.files[0], source.recipient_key()
    if (to := sealed_to(path)) and recipient is None:
        told = "functional key, sealed: --recipient-key and its recipient's key tell more"
        return [("kind", told), ("to", f"recipient {to}")]
    key = FunctionalKey.load(path, recipient)
    end = "never" if key.expires is None else f"{key.expires:%Y-%m-%d %H:%M:%S} UTC (advisory)"
    if key.expires is not None and key.expires <= utc_now():
        end += ", is over"
    return [
        ("kind", "functional key: lets one reader read one file"),
        ("reader", key.reader),
        ("nonce", key.nonce.hex()),
        ("gives", f"{_told(key)}, {key.given_bits:,} bits at most"),
        ("noise", f"{key.noise:g} levels"),
        ("signed", f"with {key.signer}" if key.signer else "no"),
        ("sealed", f"to recipient {to}" if to else "no"),
        ("ends", end),
        ("shows", _recorded(key, reader)),
    ]


def _told(key: FunctionalKey) -> str:
    slices = len(key.numbers)
    whole = "the image" if key.numbers.ndim == 4 else "the volume"
    each = whole if slices == 1 else f"{slices} slices, {key.count // slices} of each"
    return f"{key.count} numbers of {each}"


def _recorded(key: FunctionalKey, reader: Path | None) -> str:
    """Attacks on such numbers, as the checkpoint of the key's reader records them."""
    if reader is None:
        return "give --reader, its reader's checkpoint, for what decoders made of such numbers"
    from encdl import readers  # noqa: PLC0415
    from encdl.readers.functional_files import functional_map  # noqa: PLC0415

    loaded = readers.load(reader)
    if functional_map(loaded).id != key.reader:
        raise WrongKeyError(f"{reader}: is another reader than this functional key's")
    found = loaded.leak
    if key.numbers.ndim == 5:
        return "nobody attacked such numbers of a volume: `encdl experiment reader-leak` knows readers of images alone"
    if not found:
        return f"nobody recorded it: `encdl experiment reader-leak --reader {reader}` attacks it"
    return (
        f"the best decoder ({found['decoder']}) rebuilt {found['dataset']} at {found['psnr_db']:.1f} dB, SSIM "
        f"{found['ssim']:.2f}; the mean image has {found['mean_image_psnr_db']:.1f} dB, a thumbnail of as many numbers "
        f"{found['thumbnail_psnr_db']:.1f} dB"
    )


@dataclass(frozen=True)
class Keys:
    """Where functional keys come from.

    Attributes:
        files: That are read.
        of: The functional key of a file, with this header, for the reader with an id.
    """

    files: Sequence[Path]
    of: Callable[[Path, bytes, str], FunctionalKey]


def add_keyserver(parser: argparse.ArgumentParser) -> None:
    """Add how a host without a key speaks with a key server, and whose signatures it asks for."""
    parser.add_argument(
        "--server-key",
        type=file_name,
        metavar="PUB",
        help="refuse functional keys that were not signed with this public key's signing key",
    )
    parser.add_argument(
        "--owner-key", type=file_name, metavar="PUB", help="refuse files that their owner did not sign, likewise"
    )
    parser.add_argument("--token-file", type=file_name, metavar="F", help="with --keyserver: the client's token")
    parser.add_argument(
        "--tls-authority", type=file_name, metavar="PEM", help="with --keyserver: certificates to trust"
    )
    parser.add_argument(
        "--tls-certificate",
        type=file_name,
        metavar="PEM",
        help="with --keyserver: the client's own certificate and its key, where the server asks for one",
    )


def keys_of(args: argparse.Namespace, sources: Sequence[Source], again_s: float = math.inf) -> Keys | None:
    """Where the functional keys come from; None where a key is given instead.

    Args:
        args: of the command line.
        sources: the files.
        again_s: seconds in which a key server that cannot be reached is not asked again.

    Raises:
        UsageError: one functional key for several files, or options that are for something else.
    """
    given: Path | None = getattr(args, "functional_key", None)
    if args.keyserver is None:
        _without(args, ("token_file", "tls_authority", "tls_certificate"), "--keyserver")
        if given is None:
            _without(args, ("server_key", "owner_key"), "hosts without a key")
            return None
    if args.weights is not None or args.any_size:
        raise UsageError("--weights and --any-size are for readers with a key: leave them out")
    if given is None:
        return _from_server(args, again_s)
    if not given.is_dir() and len(sources) > 1:
        raise UsageError(
            f"--functional-key {given}: is for one file, and there are {len(sources)}: give a folder of them"
        )
    files = {
        source.path: given / source.path.with_suffix(SUFFIX).name if given.is_dir() else given for source in sources
    }
    recipient = (args.key or KeySource()).recipient_key()
    return Keys([*files.values()], lambda path, *_: FunctionalKey.load(files[path], recipient))


def _without(args: argparse.Namespace, names: Sequence[str], wanted: str) -> None:
    for name in names:
        if getattr(args, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is for {wanted}: leave it out")


def _from_server(args: argparse.Namespace, again_s: float) -> Keys:
    if args.token_file is None:
        raise UsageError("--keyserver: give the client's token too, --token-file F")
    client = _client(args, again_s)
    return Keys([args.token_file], lambda _, head, reader: client.key_of(head, reader))


def _client(args: argparse.Namespace, again_s: float = math.inf) -> KeyServerClient:
    from encdl.serving.key_client import KeyServerClient  # noqa: PLC0415
    from encdl.serving.tokens import read_token  # noqa: PLC0415

    token = read_token(args.token_file)
    given = {"authority": args.tls_authority, "certificate": args.tls_certificate}
    return KeyServerClient(args.keyserver, token, **given, again_s=again_s)


def check_two_party(args: argparse.Namespace) -> None:
    """Refuse options that a two-party reading does not have."""
    if not args.two_party:
        return
    if args.keyserver is None or args.functional_key is not None or args.server_key is not None:
        raise UsageError(
            "--two-party: give --keyserver and --token-file, and neither --functional-key nor --server-key"
        )


def two_party_reader(args: argparse.Namespace) -> tuple[TwoPartyPredictor, Callable[[Path], Answer]]:
    """The reader, and what reads a file by it together with the key server."""
    from encdl.readers.two_party.files import TwoPartyPredictor  # noqa: PLC0415

    client, owner = _client(args), None if args.owner_key is None else PublicKey.load(args.owner_key)
    predictor = TwoPartyPredictor(args.reader, owner)
    return predictor, lambda path: predictor.read(path, client.take_part)


def load_reader(args: argparse.Namespace) -> FunctionalPredictor:
    """The reader, with the public keys that the arguments pin."""
    from encdl import api  # noqa: PLC0415

    if args.window:
        raise UsageError("--window is of readers with a key: a reading layer got its own when the file was encrypted")
    server, owner = (None if path is None else PublicKey.load(path) for path in (args.server_key, args.owner_key))
    return api.load_functional_reader(args.reader, device=usable_device(args.device), server=server, owner=owner)
