"""`encdl rekey`: the same content under another key, with the same weights."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from encdl.commands.common import (
    DEVICE,
    FORCE,
    JOBS,
    OUTPUT,
    PATHS,
    RECIPIENTS,
    WEIGHTS,
    add_key,
    file_name,
    one_line_warnings,
    open_key,
)
from encdl.commands.many_files import Batch, check_folder, find, is_batch, single_progress
from encdl.files import container
from encdl.files.folders import Done, Left, Progress, Source, to
from encdl.keys.recipients import RecipientPublicKey
from encdl.utils import atomic
from encdl.utils.devices import usable_device
from encdl.utils.messages import say, warn

if TYPE_CHECKING:
    from encdl.files.rekeying import Rekeying


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("paths", **PATHS | {"type": file_name})
    parser.add_argument("--jobs", **JOBS)
    add_key(parser, "key or grant that opens the files now")
    add_key(parser, "key or study grant that shall open them", prefix="new-")
    parser.add_argument(
        "--recipient",
        **RECIPIENTS,
        help="public key file (`encdl keygen --recipient`) of one who shall open the new files too; recipients of the "
        "old ones do not",
    )
    parser.add_argument(
        "-o",
        "--output",
        **OUTPUT,
        help="file to write; of several or a folder: folder to write to (default: replace each file, in one step, "
        "after the new one is verified; a run that was interrupted can be started again)",
    )
    parser.add_argument("--force", **FORCE)
    parser.add_argument("--weights", **WEIGHTS)
    parser.add_argument("--device", **DEVICE)
    parser.add_argument(
        "--same-key",
        action="store_true",
        help="let the new key be the old one, for a fresh nonce alone: this revokes no grant for a study. What "
        "revokes is another key, and every copy: old copies stay open to old grants",
    )


def run(args: argparse.Namespace) -> int:
    """Encrypt one file anew, or all that there are."""
    return _many(args) if is_batch(args.paths) else _one(args)


def _one(args: argparse.Namespace) -> int:
    from encdl.files import file_names  # noqa: PLC0415

    path = args.paths[0]
    rekeying = _rekeying(args)
    output = file_names.check_container_name(args.output or path)
    in_place = args.output is None or (output.exists() and path.exists() and output.samefile(path))
    atomic.different_files(output, *args.key.files, *args.new_key.files)
    if not in_place:
        atomic.check_output(output, args.force)
    with one_line_warnings():
        done = rekeying.write(path, output, force=args.force, report=single_progress)
    if done.note:
        warn(done.note)
    say(f"{output}: {done.told}")
    return 0


def _many(args: argparse.Namespace) -> int:
    from encdl.files import file_names  # noqa: PLC0415

    left: list[Left] = []
    sources = find(args.paths, file_names.is_encrypted, f"{container.SUFFIX} file", left)
    folder = None if args.output is None else check_folder(args.output)
    rekeying = _rekeying(args)

    def work(source: Source, progress: Progress) -> Done:
        return rekeying.into(source, folder, force=args.force, report=to(progress))

    with one_line_warnings():
        return Batch(sources, args.jobs, "rekeyed", left).run(work)


def _rekeying(args: argparse.Namespace) -> Rekeying:
    """The two keys of a run."""
    old, new = open_key(args.key), open_key(args.new_key)
    from encdl.files.rekeying import Rekeying  # noqa: PLC0415

    keep = args.key.files + args.new_key.files
    publics = [RecipientPublicKey.load(path) for path in args.recipients]
    return Rekeying(old, new, args.weights, usable_device(args.device), keep, args.same_key, publics)
