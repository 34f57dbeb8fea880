"""`encdl decrypt`: containers back into the files that they were made from."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from encdl.commands.codecs import Codecs
from encdl.commands.common import (
    add_cipher,
    add_output,
    different_files,
    one_line_warnings,
    open_key,
    warn,
)
from encdl.commands.key_options import add_key
from encdl.commands.many_files import (
    Batch,
    Done,
    Source,
    add_paths,
    below,
    check_folder,
    find,
    is_batch,
    single_progress,
)
from encdl.files import container
from encdl.files.container import ContainerReader
from encdl.keys.key import Opener
from encdl.keys.planes import WeakPlanesWarning
from encdl.utils import atomic
from encdl.utils.errors import ContainerError, EncdlError, OutputExistsError

REPORT = ".salvage.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_paths(parser, ".encdl files, or folders: every .encdl file in them and below")
    add_key(parser)
    add_output(
        parser,
        "of one file: file to write (default: PATH with the original's ending); of several or a folder: folder "
        "to write to, where a file keeps its place",
    )
    add_cipher(parser, "default: those that the file names, if they come with EncDL")
    damaged = parser.add_mutually_exclusive_group()
    damaged.add_argument(
        "--salvage",
        action="store_true",
        help="open a damaged or cut file as well as possible, and restore damaged slices: UNVERIFIED and not "
        f"exact; which slices are restored is written to a file beside the output, OUT{REPORT}",
    )
    damaged.add_argument(
        "--skip-damaged",
        action="store_true",
        help=f"open what is intact of a damaged or cut file; damaged slices stay blank and stand in OUT{REPORT}",
    )


def run(args: argparse.Namespace) -> int:
    """Decrypt one file, or all that there are."""
    return _many(args) if is_batch(args.paths) else _one(args)


def _one(args: argparse.Namespace) -> int:
    from encdl.files import file_names  # noqa: PLC0415

    path = args.paths[0]
    opener = open_key(args.key)
    decrypting = _Decrypting(args, opener)
    # Too late to tell that key planes leak: the file is what it is.
    with one_line_warnings(ignore=WeakPlanesWarning), decrypting.opened(path) as reader:
        output = args.output or file_names.original_name(path, reader)
        different_files(output, path, args.key)
        atomic.check_output(output, args.force)
        with single_progress(reader.header.body_bytes) as bar:
            told, note = decrypting.write(reader, output, bar.update, force=args.force)
    if note:
        warn(note)
    print(f"{output}: {told}")
    return 0


def _many(args: argparse.Namespace) -> int:
    from encdl.files import file_names  # noqa: PLC0415

    sources = find(args.paths, file_names.is_container, f"{container.SUFFIX} file")
    folder = check_folder(args.output)
    decrypting = _Decrypting(args, open_key(args.key))

    def work(source: Source, progress: Callable[[int], None]) -> Done:
        with decrypting.opened(source.path) as reader:
            output = below(folder, file_names.original_name(source.relative, reader))
            different_files(output, source.path, args.key)
            size = reader.header.body_bytes
            if output.exists() and not args.force:
                decrypting.check_finished(reader, output)
                atomic.remove_leftover(output)
                return Done(size, there=True)
            _, note = decrypting.write(reader, output, progress, force=args.force)
            return Done(size, note=note)

    with one_line_warnings(ignore=WeakPlanesWarning):
        return Batch(sources, args.jobs, "decrypted").run(work)


class _Decrypting:
    """The settings of a run."""

    def __init__(self, args: argparse.Namespace, opener: Opener) -> None:
        self._opener, self._codecs = opener, Codecs(args)
        self._restore, self._tolerant = args.salvage, args.salvage or args.skip_damaged

    @contextlib.contextmanager
    def opened(self, path: Path) -> Iterator[ContainerReader]:
        """A container; with `--salvage` or `--skip-damaged`, and only if it is damaged, as far as it goes."""
        tolerant = self._tolerant and not self._intact(path)
        with container.opened(path, self._opener, tolerant=tolerant) as reader:
            if tolerant and reader.nothing_left():
                raise ContainerError(
                    f"{path}: ends with its header: nothing is left to salvage; get an intact copy"
                )
            yield reader

    def _intact(self, path: Path) -> bool:
        try:
            container.verify(path, self._opener)
        except ContainerError:
            return False
        return True

    def write(
        self, reader: ContainerReader, output: Path, progress: Callable[[int], object], *, force: bool
    ) -> tuple[str, str]:
        """Write one file; returns what to say of it, and a warning or nothing."""
        from encdl.files import file_names, formats  # noqa: PLC0415
        from encdl.files.codec import Salvage  # noqa: PLC0415

        told = file_names.picture(reader.header)
        codec = self._codecs.of(reader.header, Path(reader.where))
        salvage = Salvage(restore=self._restore) if reader.tolerant else None
        document = codec.decrypt(reader, salvage, progress)
        whole = formats.is_whole(document)
        if salvage is None:
            if whole:  # the slices will not be asked for
                reader.verify()
            formats.write(output, document, force=force)
            return told + ("" if codec.cipher.exact else ", approximate as this cipher is"), ""
        report = _report(reader, output, "exact" if whole else "restored" if self._restore else "blank")
        beside = output.with_name(output.name + REPORT)
        # The mark first: no restored file may ever lie there without it.
        atomic.write_bytes(beside, json.dumps(report, indent=2).encode() + b"\n", force=True)
        try:
            formats.write(output, document, force=force)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        return f"{told}, salvaged: see {beside}", f"{reader.where}: failed verification: {report['note']}"

    def check_finished(self, reader: ContainerReader, output: Path) -> None:
        """Raise `OutputExistsError` unless a file holds what this container decrypts to."""
        from encdl.files import formats  # noqa: PLC0415
        from encdl.files.documents import content_of  # noqa: PLC0415

        codec = self._codecs.of(reader.header, Path(reader.where))
        known = reader.metadata.content if reader.metadata and codec.cipher.exact else ""
        try:
            content = content_of(formats.load(output))
        except EncdlError as error:
            raise OutputExistsError(f"{error}; --force replaces it") from None
        if content != (bytes.fromhex(known) if known else content_of(codec.decrypt(reader))):
            raise OutputExistsError(f"{output}: exists already and is another picture: --force replaces it")


_FATES = {
    "exact": "damaged, and not needed: the original lies whole among the intact metadata",
    "restored": "damaged and restored, a best guess",
    "blank": "damaged and left blank",
}


def _report(reader: ContainerReader, output: Path, fate: str) -> dict[str, Any]:
    """What is damaged in a file, and what becomes of it: a key of `_FATES`."""
    damaged, missing = [], 0
    for chunk in reader.chunks():
        if not chunk.intact:
            damaged.append(chunk.index)
            missing += len(chunk.body) - chunk.present
    header = reader.header
    slices = [number + 1 for number in reader.slices_of(damaged)]
    parts = [*reader.problems]
    if slices:
        parts.append(f"{len(slices)} of {header.grid.slices} slices {_FATES[fate]}")
    if missing:
        parts.append(f"{100 * missing / header.body_bytes:.1f} % of the pixels are missing")
    return {
        "file": reader.where,
        "output": str(output),
        "slices": header.grid.slices,
        "damaged_slices": slices,
        "damaged_slices_are": fate,
        "metadata": "authentic" if reader.metadata is not None else "lost",
        "note": "; ".join([*parts, "not for diagnosis"]),
    }
