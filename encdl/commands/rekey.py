"""`encdl rekey`: the same content under another key, with the same weights."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from encdl.commands.codecs import Codecs
from encdl.commands.common import (
    add_cipher,
    add_output,
    different_files,
    one_line_warnings,
    open_key,
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
from encdl.files.container import ContainerReader, Header
from encdl.keys.grant import study_for
from encdl.utils import atomic
from encdl.utils.errors import OutputExistsError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_paths(parser, ".encdl files, or folders: every .encdl file in them and below")
    add_key(parser, "key or grant that opens the files now")
    add_key(parser, "key or study grant that shall open them", prefix="new-")
    add_output(
        parser,
        "file to write; of several or a folder: folder to write to (default: replace each file, in one step, "
        "after the new one is verified; a run that was interrupted can be started again)",
    )
    add_cipher(parser, "default: those that the file names, if they come with EncDL")


def run(args: argparse.Namespace) -> int:
    """Encrypt one file anew, or all that there are."""
    return _many(args) if is_batch(args.paths) else _one(args)


def _one(args: argparse.Namespace) -> int:
    from encdl.files import file_names  # noqa: PLC0415

    path = args.paths[0]
    rekeying = _Rekeying(args)
    output = file_names.check_container_name(args.output or path)
    in_place = args.output is None or (output.exists() and path.exists() and output.samefile(path))
    different_files(output, args.key, args.new_key)
    if not in_place:
        atomic.check_output(output, args.force)
    with one_line_warnings(), container.opened(path, rekeying.old) as reader:
        with single_progress(reader.header.body_bytes) as bar:
            fresh = rekeying.write(reader, path, output, bar.update, force=in_place or args.force)
        print(f"{output}: from key {reader.header.key_id} to key {fresh.key_id}")
    return 0


def _many(args: argparse.Namespace) -> int:
    from encdl.files import file_names  # noqa: PLC0415

    sources = find(args.paths, file_names.is_container, f"{container.SUFFIX} file")
    folder = None if args.output is None else check_folder(args.output)
    rekeying = _Rekeying(args)

    def work(source: Source, progress: Callable[[int], None]) -> Done:
        path = source.path
        output = path if folder is None else below(folder, source.relative)
        in_place = output.exists() and output.samefile(path)
        different_files(output, args.key, args.new_key)
        if output.exists() and not args.force and rekeying.finished(path, output, in_place):
            atomic.remove_leftover(output)
            return Done(output.stat().st_size, there=True)
        with container.opened(path, rekeying.old) as reader:
            rekeying.write(reader, path, output, progress, force=in_place or args.force)
            return Done(reader.header.body_bytes)

    with one_line_warnings():
        return Batch(sources, args.jobs, "rekeyed").run(work)


class _Rekeying:
    """The two keys of a run."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.old, self.new = open_key(args.key), open_key(args.new_key)
        self._codecs = Codecs(args)

    def write(
        self,
        reader: ContainerReader,
        path: Path,
        output: Path,
        progress: Callable[[int], object],
        *,
        force: bool,
    ) -> Header:
        """Write the new file, and let it take its name only once it was found to hold the same."""
        from encdl.files.rekeying import rekey  # noqa: PLC0415

        study_for(reader.header.study, self.new)
        codec = self._codecs.of(reader.header, path)
        with atomic.writing(output, force=force) as stream:
            return rekey(codec, reader, self.new, stream, progress)

    def finished(self, path: Path, output: Path, in_place: bool) -> bool:
        """Whether an earlier run wrote the new file already; it is whole and unchanged then.

        Raises:
            OutputExistsError: another file has the output's name.
        """
        key_id = container.key_id_of(output)
        if in_place and (key_id == self.old.key_id or key_id != self.new.key_id):
            return False  # still under the old key
        with container.opened(output, self.new) as made:
            made.verify()
            if in_place:
                return True
            with container.opened(path, self.old) as reader:
                if reader.metadata and made.metadata == reader.metadata and reader.metadata.content:
                    return True
        raise OutputExistsError(f"{output}: exists already, made from another file: --force replaces it")
