"""`encdl decrypt`: containers back into the files that they were made from."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from encdl.commands.common import (
    DEVICE,
    FORCE,
    JOBS,
    OUTPUT,
    PATHS,
    WEIGHTS,
    add_key,
    file_name,
    file_or_address,
    one_line_warnings,
    open_key,
)
from encdl.commands.many_files import Batch, check_folder, find, is_batch, single_progress
from encdl.files import container
from encdl.files.folders import Done, Left, Progress, Source, to
from encdl.keys.planes import WeakPlanesWarning
from encdl.utils import atomic
from encdl.utils.devices import usable_device
from encdl.utils.errors import UsageError
from encdl.utils.messages import say, warn

if TYPE_CHECKING:
    from encdl.files.decrypting import Damaged, Decryption


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("paths", **PATHS)
    parser.add_argument("--jobs", **JOBS)
    add_key(parser)
    parser.add_argument(
        "-o",
        "--output",
        **OUTPUT | {"type": file_or_address},
        help="of one file: file to write (default: PATH with the original's ending); of several or a folder: folder "
        "to write to, where a file keeps its place",
    )
    parser.add_argument("--force", **FORCE)
    parser.add_argument("--weights", **WEIGHTS)
    parser.add_argument("--device", **DEVICE)
    parser.add_argument(
        "--identity", metavar="TEXT", help="refuse files that their owner called otherwise (`encdl encrypt --identity`)"
    )
    parser.add_argument(
        "--mask",
        type=file_name,
        metavar="MASK",
        help="instead of the file write this mask of it, which a host without the key made on the grid of a reading "
        "layer (encdl predict --functional-key), on the scan's own grid: NIfTI",
    )
    damaged = parser.add_mutually_exclusive_group()
    damaged.add_argument(
        "--salvage",
        action="store_true",
        help="open a damaged or cut file as well as possible, and restore damaged slices: UNVERIFIED and not "
        f"exact; which slices are restored is written to a file beside the output, OUT{container.REPORT}",
    )
    damaged.add_argument(
        "--skip-damaged",
        action="store_true",
        help="open what is intact of a damaged or cut file; damaged slices stay blank and stand in "
        f"OUT{container.REPORT}",
    )


def run(args: argparse.Namespace) -> int:
    """Decrypt one file, or all that there are."""
    if args.mask is not None:
        return _mask(args)
    from encdl.files import file_names, stores  # noqa: PLC0415

    if is_batch(args.paths):
        return _many(args)
    path = args.paths[0]
    with stores.stored(args.output, args.force, args.paths) as chosen:
        if chosen is None and stores.address_of(path):
            raise UsageError(f"{stores.address_of(path)}: give --output, the file or address to write to")
        decryption = _decryption(args)
        # Too late to tell that key planes leak: the file is what it is.
        with one_line_warnings(ignore=WeakPlanesWarning), decryption.opened(path) as reader:
            output = chosen or file_names.original_name(path, reader)
            atomic.different_files(output, path, *args.key.files)
            atomic.check_output(output, args.force)
            done = decryption.write(reader, output, force=args.force, report=single_progress)
        if done.note:
            warn(done.note)
        say(f"{stores.address_of(args.output or output) or output}: {done.told}")
    return 0


def _mask(args: argparse.Namespace) -> int:
    """Put a host's mask on the grid of its scan."""
    from encdl import api  # noqa: PLC0415

    if is_batch(args.paths) or args.output is None:
        raise UsageError("--mask: give the one file that it is of, and with --output the .nii.gz to write")
    atomic.different_files(args.output, *args.key.files)
    api.place_mask(args.mask, args.paths[0], open_key(args.key), args.output, force=args.force)
    say(f"{args.output}: {args.mask} on the grid of {args.paths[0]}")
    return 0


def _many(args: argparse.Namespace) -> int:
    from encdl.files import file_names  # noqa: PLC0415

    left: list[Left] = []
    sources = find(args.paths, file_names.is_encrypted, f"{container.SUFFIX} file", left)
    folder = check_folder(args.output)
    decryption = _decryption(args)

    def work(source: Source, progress: Progress) -> Done:
        return decryption.into(source, folder, force=args.force, report=to(progress))

    with one_line_warnings(ignore=WeakPlanesWarning):
        return Batch(sources, args.jobs, "decrypted", left).run(work)


def _decryption(args: argparse.Namespace) -> Decryption:
    """The settings of a run."""
    opener = open_key(args.key)
    from encdl.files.decrypting import Decryption  # noqa: PLC0415

    damaged: Damaged = "restore" if args.salvage else "blank" if args.skip_damaged else "refuse"
    device = usable_device(args.device)
    return Decryption(opener, args.weights, device, damaged, args.key.files, args.identity)
