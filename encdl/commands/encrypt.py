"""`encdl encrypt`: image files, or folders of them, into containers."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encdl.commands.codecs import Codecs
from encdl.commands.common import (
    add_cipher,
    add_map,
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
from encdl.files.container import Metadata
from encdl.keys.grant import study_for
from encdl.keys.key import Opener
from encdl.keys.planes import EXPANSIONS, PlaneSpec
from encdl.utils import atomic
from encdl.utils.errors import ContainerError, OutputExistsError, WrongKeyError

if TYPE_CHECKING:
    from encdl.files.codec import Codec, Settings
    from encdl.files.formats.base import Document

# Kept here too, so that help needs no torch; a test compares them with `encdl.ciphers.postprocess.NAMES`.
POSTPROCESS = ("interleave", "none", "confusion", "diffusion", "both")
NONCES = ("random", "synthetic")
WRAPPINGS = ("none", "aes")
NAMED = 5
"""Files that are left alone are named up to this number, and then counted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_paths(parser, "image files, or folders: every image file in them and below")
    add_key(parser)
    add_output(
        parser,
        "of one file: file to write (default: PATH with the ending .encdl); of several or a folder: folder to "
        "write to, where a file keeps its place and name and gets .encdl behind it",
    )
    add_cipher(parser, "default: the trained cipher that comes with EncDL")
    parser.add_argument(
        "--nonce",
        choices=NONCES,
        default="random",
        help="random (default), or synthetic: from a keyed hash of the image, so that one changed pixel "
        "changes the whole ciphertext; equal images then give equal files",
    )
    add_map(parser, None)
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
        "--study", metavar="S", help="study that the file belongs to; anyone can read its name"
    )


def run(args: argparse.Namespace) -> int:
    """Encrypt one file, or all that there are."""
    return _many(args) if is_batch(args.paths) else _one(args)


def _one(args: argparse.Namespace) -> int:
    from encdl.files import file_names, formats  # noqa: PLC0415

    path = args.paths[0]
    with one_line_warnings():
        document = formats.load(path)
    output = file_names.check_container_name(args.output or file_names.container_name(path))
    opener = open_key(args.key)
    different_files(output, path, args.key)
    atomic.check_output(output, args.force)
    encrypting = _Encrypting(args, opener)
    with one_line_warnings(), single_progress(_size(document)) as bar:
        header = encrypting.write(document, path, output, bar.update, force=args.force)
    print(f"{output}: {file_names.picture(header)}, cipher {header.cipher}, key {header.key_id}")
    return 0


def _many(args: argparse.Namespace) -> int:
    from encdl.files import file_names, formats  # noqa: PLC0415

    left: list[Path] = []
    sources = find(args.paths, file_names.is_image, "image file", left)
    folder = check_folder(args.output)
    _tell_of([path for path in left if not path.name.startswith(".") and not file_names.is_container(path)])
    opener = open_key(args.key)
    encrypting = _Encrypting(args, opener)

    def work(source: Source, progress: Callable[[int], None]) -> Done:
        document = formats.load(source.path)
        output = below(folder, source.relative.with_name(source.relative.name + container.SUFFIX))
        different_files(output, source.path, args.key)
        if output.exists() and not args.force:
            encrypting.check_finished(document, source.path, output)
            atomic.remove_leftover(output)
            return Done(_size(document), there=True)
        encrypting.write(document, source.path, output, progress, force=args.force)
        return Done(_size(document))

    with one_line_warnings():
        return Batch(sources, args.jobs, "encrypted").run(work)


class _Encrypting:
    """The settings of a run, checked before the first file."""

    def __init__(self, args: argparse.Namespace, opener: Opener) -> None:
        study = study_for(args.study, opener)
        _plane_spec(args, planes=PlaneSpec().planes)  # a wrong setting shows before the network is loaded
        self._codec: Codec = Codecs(args).get(args.weights or "default")
        from encdl.files.codec import Settings  # noqa: PLC0415

        cipher: Any = self._codec.cipher
        if not cipher.exact:
            warn(f"cipher {cipher.name} is a baseline: it does not decrypt exactly and shows outlines")
        if args.nonce == "synthetic":
            warn("--nonce synthetic: equal images under one key and study give equal files, which shows it")
        self._opener = opener
        self._settings: Settings = Settings(
            _plane_spec(args, planes=cipher.planes), args.postprocess, args.nonce, study, args.wrap
        )

    def write(
        self,
        document: Document,
        source: Path,
        output: Path,
        progress: Callable[[int], object],
        *,
        force: bool,
    ) -> container.Header:
        """Write the container of one document."""
        from encdl.files.file_names import kept_suffix  # noqa: PLC0415

        with atomic.writing(output, force=force) as stream:
            return self._codec.encrypt(
                document,
                self._opener,
                stream,
                self._settings,
                suffix=kept_suffix(source, document),
                progress=progress,
            )

    def check_finished(self, document: Document, source: Path, output: Path) -> None:
        """Raise `OutputExistsError` unless a file is what this run would write, whole and unchanged."""
        from encdl.files.documents import content_of  # noqa: PLC0415
        from encdl.files.file_names import kept_suffix  # noqa: PLC0415

        try:
            with container.opened(output, self._opener) as reader:
                reader.verify()
                header, metadata, wrapped = reader.header, reader.metadata, reader.wrapped
        except (ContainerError, WrongKeyError) as error:
            raise OutputExistsError(f"{error}; --force replaces it") from None
        settings = self._settings
        made_with = (header.weights, header.plane_spec(), header.postprocess, header.study)
        same = made_with == (self._codec.weights_id, settings.planes, settings.postprocess, settings.study)
        if not same or wrapped != (settings.wrap == "aes"):
            raise OutputExistsError(
                f"{output}: exists already, made with other settings: --force replaces it"
            )
        suffix = kept_suffix(source, document)
        if metadata != Metadata(document.format, suffix, content_of(document).hex(), document.rest):
            raise OutputExistsError(f"{output}: exists already, made from another file: --force replaces it")


def _tell_of(left: list[Path]) -> None:
    """Say which files of a folder stay readable, so that nobody takes them for encrypted."""
    if left:
        more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
        named = ", ".join(str(path) for path in left[:NAMED])
        warn(f"left alone, NOT encrypted, for they are no images that EncDL reads, or links: {named}{more}")


def _size(document: Document) -> int:
    size = document.dtype.itemsize
    for axis in document.shape:
        size *= axis
    return size


def _plane_spec(args: argparse.Namespace, planes: int) -> PlaneSpec:
    given = {"map": args.map, "expansion": args.expansion, "period": args.period}
    return PlaneSpec(planes=planes, **{name: value for name, value in given.items() if value is not None})
