"""Containers back into the files that they were made from, damaged ones as far as it goes."""

from __future__ import annotations

import contextlib
import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from encdl.files import container, file_names, formats, stores
from encdl.files.codecs import WeightsName, codec_of
from encdl.files.container import ContainerReader
from encdl.files.container.sections import BLOCK_BYTES
from encdl.files.folders import Done, Report, Source, below, silent
from encdl.files.formats.base import content_of
from encdl.files.formats.verbatim import CARRIED
from encdl.files.settings import Salvage
from encdl.keys.key import Opener
from encdl.utils import atomic
from encdl.utils.errors import ContainerError, EncdlError, OutputExistsError, WrongKeyError

Damaged = Literal["refuse", "restore", "blank"]
"""The treatment of a damaged file, and of its damaged slices."""

_FATES = {
    "exact": "damaged, and not needed: the original lies whole among the intact metadata",
    "restore": "damaged and restored, a best guess",
    "blank": "damaged and left blank",
}
_REPORTED = {"exact": "exact", "restore": "restored", "blank": "blank"}


@dataclass(eq=False, repr=False)
class Decryption:
    """Decrypts files alike.

    Args:
        opener: the key, or a grant for the files or their study.
        weights: of the cipher; those that each file names by default.
        device: where to compute.
        damaged: what to do with damaged files.
        keep: files that `into` must not replace, such as the key.
        identity: what the files have to be called by their owner; None for whatever.
    """

    opener: Opener
    weights: WeightsName | None = None
    device: str = "auto"
    damaged: Damaged = "refuse"
    keep: Sequence[Path] = ()
    identity: str | None = None

    what: ClassVar[str] = f"{container.SUFFIX} file"

    def wants(self, path: Path) -> bool:
        """Whether a file of a folder is a container, by its content or ending."""
        return file_names.is_encrypted(path)

    @contextlib.contextmanager
    def opened(self, path: Path) -> Iterator[ContainerReader]:
        """A container; only if it is damaged, and that is not to be refused, as far as it goes."""
        tolerant = self.damaged != "refuse" and not self._intact(path)
        with container.opened(path, self.opener, tolerant=tolerant) as reader:
            if tolerant and reader.nothing_left():
                raise ContainerError(f"{path}: ends with its header: nothing is left to salvage; get an intact copy")
            yield reader

    def _intact(self, path: Path) -> bool:
        try:
            container.verify(path, self.opener)
        except (ContainerError, WrongKeyError):  # the key's id, or the study, may be what is damaged
            return False
        return True

    def write(
        self,
        reader: ContainerReader,
        output: Path,
        *,
        force: bool = False,
        resume: bool = False,
        report: Report = silent,
        name: str | None = None,
    ) -> Done:
        """Write one file, and beside a damaged one's a report.

        Args:
            reader: an opened container.
            output: the file to write, whole or not at all.
            force: replace it if it exists.
            resume: take one that exists for this run's own, if it holds what this container decrypts to.
            report: of the progress.
            name: what `{name}` in the identity stands for; the original's by default.

        Raises:
            OutputExistsError: the output exists.
            ContainerError, WeightsError: as `Codec.decrypt`; nothing is written then.
        """
        header, called = reader.header, self._called(reader, name)
        if resume and output.exists() and not force:
            self._check_finished(reader, output)
            atomic.remove_leftover(output)
            return Done(header.grid.body_bytes, there=True)
        codec = codec_of(header, self.weights, self.device, reader.where)
        salvage = Salvage(restore=self.damaged == "restore") if reader.tolerant else None
        with report(header.grid.body_bytes) as progress:
            document = codec.decrypt(reader, salvage, progress)
            whole, carried = formats.is_whole(document), document.format == CARRIED
            suffix = reader.metadata.suffix if reader.metadata else None
            told, note = "no image" if carried else file_names.picture(header), ""
            told += f", called {called!r} by its owner" if called else ""
            if salvage is None:
                if whole:  # the slices will not be asked for
                    reader.verify()
                formats.write(output, document, force=force, suffix=suffix)
                told += "" if codec.cipher.exact else ", approximate as this cipher is"
            else:
                found = _report(reader, output, "exact" if whole else self.damaged)
                beside = _beside(output)
                # The mark first: no restored file may ever lie there without it.
                atomic.write_bytes(beside, json.dumps(found, indent=2).encode() + b"\n", force=True, mode=0o600)
                try:
                    formats.write(output, document, force=force, suffix=suffix)
                except BaseException:
                    beside.unlink(missing_ok=True)
                    raise
                told += f", salvaged: see {beside.name}"
                note = f"{reader.where}: failed verification: {found['note']}"
        return Done(header.grid.body_bytes, note=note, told=told, carried=carried)

    def into(self, source: Source, folder: Path, *, force: bool = False, report: Report = silent) -> Done:
        """Write one container of many below an output folder, under the original's ending; resumed if it exists.

        Args:
            source: the container.
            folder: where the file goes.
            force: replace a file that exists.
            report: of the progress.

        Raises:
            UsageError: the output would lie elsewhere, or replace an input.
            ContainerError, WeightsError, OutputExistsError: as `write`.
        """
        with self.opened(source.path) as reader:
            name = file_names.original_name(source.relative, reader)
            source.claimed(folder / name)
            if reader.tolerant:
                source.claimed(_beside(folder / name))
            with stores.room(folder, name, force) as near:
                output = below(near, name)
                atomic.different_files(output, source.path, *self.keep)
                return self.write(reader, output, force=force, resume=True, report=report, name=name.as_posix())

    def _called(self, reader: ContainerReader, name: str | None) -> str:
        """The identity of a file; `ContainerError` if it has to be another."""
        called = reader.metadata.identity if reader.metadata else ""
        if self.identity is not None:
            name = name or file_names.original_name(Path(reader.where), reader).name
            wanted = self.identity.replace("{name}", unicodedata.normalize("NFC", name))
            if called != wanted:
                raise ContainerError(f"{reader.where}: its owner does not call it {wanted!r}: it is another file")
        return called

    def _check_finished(self, reader: ContainerReader, output: Path) -> None:
        """Raise `OutputExistsError` unless a file holds what this container decrypts to."""
        codec = codec_of(reader.header, self.weights, self.device, reader.where)
        known = reader.metadata.content if reader.metadata and codec.cipher.exact else ""
        try:
            found = formats.load(output, carry=True)
            content = content_of(found)
        except EncdlError as error:
            raise OutputExistsError(f"{error}; --force replaces it") from None
        metadata = reader.metadata
        if metadata and metadata.format == CARRIED:
            if not formats.same_rest(found.rest, metadata.rest):
                raise OutputExistsError(f"{output}: exists already and is another file: --force replaces it")
            return
        if content != (bytes.fromhex(known) if known else content_of(codec.decrypt(reader))):
            raise OutputExistsError(f"{output}: exists already and is another image: --force replaces it")


def _beside(output: Path) -> Path:
    """Where the report on a damaged file goes."""
    return output.with_name(output.name + container.REPORT)


def _report(reader: ContainerReader, output: Path, fate: str) -> dict[str, Any]:
    """The report on a damaged file and its treatment, a key of `_FATES`."""
    damaged, missing, hit = [], 0, 0
    for chunk in reader.chunks():
        if chunk.damaged:
            damaged.append(chunk.index)
            missing += len(chunk.body) - chunk.present
            hit += sum(len(chunk.body[block * BLOCK_BYTES :][:BLOCK_BYTES]) for block in chunk.damaged)
    header = reader.header
    slices = [number + 1 for number in reader.slices_of(damaged)]
    parts = [*reader.problems]
    if slices:
        parts.append(f"{len(slices)} of {header.grid.slices} slices {_FATES[fate]}")
        parts.append(f"{100 * hit / header.grid.body_bytes:.1f} % of the pixels lie in damaged blocks")
    if missing:
        parts.append(f"{100 * missing / header.grid.body_bytes:.1f} % of the pixels are missing")
    return {
        "file": reader.where,
        "output": output.name,  # it lies beside this
        "slices": header.grid.slices,
        "damaged_slices": slices,
        "damaged_slices_are": _REPORTED[fate],
        "damaged_bytes": hit,
        "metadata": "authentic" if reader.metadata is not None else "lost",
        "note": "; ".join([*parts, "not for diagnosis"]),
    }
