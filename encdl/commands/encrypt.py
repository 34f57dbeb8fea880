"""`encdl encrypt`: image files, or folders of them, into containers."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from encdl.ciphers.names import POSTPROCESS
from encdl.commands.common import (
    DEVICE,
    FORCE,
    JOBS,
    MAP,
    OUTPUT,
    PATHS,
    RECIPIENTS,
    WEIGHTS,
    add_key,
    file_name,
    file_or_address,
    one_line_warnings,
    open_key,
)
from encdl.commands.many_files import Batch, check_folder, find, is_batch, single_progress
from encdl.commands.reader_options import Window, window_of
from encdl.files.folders import Done, Left, Progress, Source, to
from encdl.keys.key_source import KeySource
from encdl.keys.planes import EXPANSIONS
from encdl.keys.recipients import RecipientPublicKey
from encdl.keys.signing import SigningKey
from encdl.utils import atomic
from encdl.utils.devices import usable_device
from encdl.utils.errors import UsageError
from encdl.utils.messages import say, warn

if TYPE_CHECKING:
    from encdl.files.encrypting import Encryption
    from encdl.files.fitted import Fitted
    from encdl.files.reading import Readable

NONCES = ("random", "synthetic")
WRAPPINGS = ("none", "aes")
FOREIGN = "no images that EncDL reads (--carry-others seals them as they are)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    images = "image files, or folders: every image file in them and below"
    parser.add_argument("paths", **PATHS | {"help": images})
    parser.add_argument("--jobs", **JOBS)
    add_key(parser, "key or grant file; may be left out where recipients alone shall open the files", required=False)
    parser.add_argument(
        "--recipient",
        **RECIPIENTS,
        help="public key file (`encdl keygen --recipient`) of one who shall open the files with a key of their own "
        "(several times for several)",
    )
    parser.add_argument(
        "-o",
        "--output",
        **OUTPUT | {"type": file_or_address},
        help="of one file: file to write (default: PATH with the ending .encdl); of several or a folder: folder to "
        "write to, where a file keeps its place and name and gets .encdl behind it",
    )
    parser.add_argument("--force", **FORCE)
    weights = "name or file of the cipher's weights (default: the trained cipher that comes with EncDL)"
    parser.add_argument("--weights", **WEIGHTS | {"help": weights})
    parser.add_argument("--device", **DEVICE)
    parser.add_argument(
        "--nonce",
        choices=NONCES,
        default="random",
        help="random (default), or synthetic: from a keyed hash of the image, so that one changed pixel "
        "changes the whole ciphertext; equal images then give equal files",
    )
    parser.add_argument("--map", **MAP)
    parser.add_argument("--expansion", choices=tuple(EXPANSIONS), help="of the key planes (default: full)")
    parser.add_argument("--period", type=int, metavar="N", help="of the expansions that repeat")
    parser.add_argument(
        "--postprocess",
        choices=POSTPROCESS,
        default="interleave",
        help="after the network: interleave (default) scatters what is lost in one piece, and needs no key to undo; "
        "confusion and diffusion take the key, hide or spread more, and restore less",
    )
    parser.add_argument(
        "--wrap",
        choices=WRAPPINGS,
        default="none",
        help="aes: seal the finished file in AES-256-GCM, for proven confidentiality; only its key's id, its nonce and "
        "the study's name can then be read without the key",
    )
    parser.add_argument(
        "--readable",
        type=_side_or_reader,
        metavar="N|READER",
        help="add a reading layer: the image with sides of up to N pixels (1 to 512), masked by itself, of which hosts "
        "without the key read what a functional key gives them, and no more; or the checkpoint of a reader: the layer "
        "that it takes, at its size, levels, orientation and spacing, and of a reader of volumes the volume as a whole",
    )
    parser.add_argument(
        "--window",
        action=Window,
        metavar="C,W",
        help="levels of the reading layer from centre and width in Hounsfield units or the image's own (40,400 or "
        "40 400), or by name: brain, lung, … (default: of 8 bits all, else from the smallest to the largest value "
        "there)",
    )
    parser.add_argument(
        "--sign",
        type=file_name,
        metavar="K",
        help="sign with this key of `encdl keygen --signing` (asks for its passphrase, if any): then `encdl inspect "
        "--verify-key` tells without any secret whether a file was changed",
    )
    parser.add_argument(
        "--identity",
        metavar="TEXT",
        default="",
        help="what you call the file, sealed and bound to it; {name} stands for its name. `encdl decrypt --identity` "
        "then refuses any other",
    )
    parser.add_argument(
        "--hide-series",
        action="store_true",
        help="of DICOM files: do not show those without the key which files are of one series, and their order",
    )
    parser.add_argument("--study", metavar="S", help="study that the file belongs to; anyone can read its name")
    parser.add_argument(
        "--carry-others",
        action="store_true",
        help="seal every file that is no image too, as it is (DICOMDIR, reports, texts): decrypt writes it again",
    )


def _side_or_reader(text: str) -> int | Path:
    return int(text) if text.lstrip("-").isdigit() else file_name(text)


def _layer(args: argparse.Namespace) -> Readable | Fitted:
    """How to make the reading layer."""
    window = window_of(args.window)
    if isinstance(args.readable, Path):
        from encdl import api  # noqa: PLC0415

        if re.fullmatch(r"\d+(x\d+)+", str(args.readable)) and not args.readable.exists():
            raise UsageError(
                f"--readable {args.readable}: give a number for images, or the checkpoint of the reader that shall "
                "read the file: the layer gets its form, orientation, spacing and levels"
            )
        return api.readable_for(args.readable, window)
    from encdl.files.reading import Readable  # noqa: PLC0415

    return Readable(args.readable, window=window)


def run(args: argparse.Namespace) -> int:
    """Encrypt one file, or all that there are."""
    from encdl.files import file_names, formats, stores  # noqa: PLC0415

    args.key = args.key or KeySource()
    if is_batch(args.paths):
        return _many(args)
    with stores.fetched(args.paths[0]) as path, stores.stored(args.output, args.force, args.paths) as chosen:
        if chosen is None and stores.address_of(args.paths[0]):
            raise UsageError(f"{stores.address_of(args.paths[0])}: give --output, the file or address to write to")
        with one_line_warnings():
            document = formats.load(path, carry=args.carry_others)
        output = file_names.check_container_name(chosen or file_names.container_name(path))
        atomic.different_files(output, path, *args.key.files)
        atomic.check_output(output, args.force)
        encryption = _encryption(args)
        with one_line_warnings():
            done = encryption.write(document, path, output, force=args.force, report=single_progress)
        say(f"{stores.address_of(args.output or output) or output}: {done.told}")
    return 0


def _many(args: argparse.Namespace) -> int:
    from encdl.files import file_names  # noqa: PLC0415

    left: list[Left] = []

    def wanted(path: Path) -> bool:
        kind = file_names.is_to_carry if args.carry_others else file_names.is_image
        return kind(path) and not atomic.is_one_of(path, args.key.files)

    def explained(one: Left) -> Left:
        silent = one.undone or one.path.name.startswith(".") or file_names.is_encrypted(one.path)
        return one if silent or atomic.is_one_of(one.path, args.key.files) else replace(one, why=FOREIGN)

    sources = find(args.paths, wanted, "image file", left)
    folder = check_folder(args.output)
    left = [explained(one) for one in left]
    encryption = _encryption(args)

    def work(source: Source, progress: Progress) -> Done:
        return encryption.into(source, folder, force=args.force, report=to(progress))

    with one_line_warnings():
        return Batch(sources, args.jobs, "encrypted", left).run(work)


def _encryption(args: argparse.Namespace) -> Encryption:
    """The key and settings of a run, checked before the first file."""
    opener = open_key(args.key) if args.key.places else None  # without one recipients alone shall open the files
    if opener is None and not args.recipients:
        raise UsageError("give --key, or --recipient: nobody could open the files")
    given = {"map": args.map, "expansion": args.expansion, "period": args.period}
    planes = {name: value for name, value in given.items() if value is not None}
    signer = None if args.sign is None else SigningKey.load(args.sign, KeySource(args.sign).ask)
    if args.window and args.readable is None:
        raise UsageError("--window is of a reading layer: give --readable too")
    from encdl.files.encrypting import encryption  # noqa: PLC0415

    how = encryption(
        opener,
        (*args.key.files, *([args.sign] if args.sign else [])),
        study=args.study,
        wrap=args.wrap,
        nonce=args.nonce,
        postprocess=args.postprocess,
        planes=planes,
        readable=None if args.readable is None else _layer(args),
        signer=signer,
        identity=args.identity,
        recipients=[RecipientPublicKey.load(path) for path in args.recipients],
        series=not args.hide_series,
        weights=args.weights or "default",
        device=usable_device(args.device),
    )
    how.carry = args.carry_others
    cipher = how.codec.cipher
    if not cipher.exact:
        warn(f"cipher {cipher.name} is a baseline: it does not decrypt exactly and shows outlines")
    if args.nonce == "synthetic":
        warn("--nonce synthetic: equal images under one key and study give equal files, which shows it")
    return how
