"""The same content under another key, verified before anyone relies on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from encdl.files import container, file_names, series_tags
from encdl.files.codec import Codec, Progress
from encdl.files.codecs import WeightsName, codec_of
from encdl.files.container import ContainerReader, Header
from encdl.files.container.sections import READING, SERIES, SIGNATURE
from encdl.files.folders import Done, Report, Source, below, silent
from encdl.files.formats.base import content_of
from encdl.files.reading import ReadingLayer
from encdl.files.settings import Settings, Wrapping
from encdl.keys.key import Opener, study_for
from encdl.keys.recipients import RecipientPublicKey
from encdl.utils import atomic
from encdl.utils.errors import ContainerError, OutputExistsError, UsageError


class Rekeying:
    """Encrypts containers anew under another key.

    Args:
        old: what opens them now.
        new: the key, or a grant for their study, that shall open them.
        weights: of the cipher; those that each file names by default.
        device: where to compute.
        keep: files that `into` must not replace, such as the keys.
        same_key: let `new` belong to the same master key as `old`: a fresh nonce then, and study grants stay good.
        recipients: whose keys shall open the new files too; those of the old ones do not.

    Raises:
        UsageError: both belong to one master key, and `same_key` is not set; or `new` makes no files.
    """

    what = f"{container.SUFFIX} file"

    def __init__(
        self,
        old: Opener,
        new: Opener,
        weights: WeightsName | None = None,
        device: str = "auto",
        keep: Sequence[Path] = (),
        same_key: bool = False,
        recipients: Sequence[RecipientPublicKey] = (),
    ) -> None:
        self._recipients = tuple(recipients)
        study_for(None, new)
        if old.key_id == new.key_id and not same_key:
            raise UsageError(
                f"the old key and the new one are the same ({new.key_id}), so grants for a study would go on opening "
                "the files: give another key, and rekey every copy; --same-key if a fresh nonce is all that is wanted"
            )
        self._old, self._new, self._weights, self._device, self._keep = old, new, weights, device, keep

    def wants(self, path: Path) -> bool:
        """Whether a file of a folder is a container, by its content or ending."""
        return file_names.is_encrypted(path)

    def write(
        self, source: Path, output: Path, *, force: bool = False, resume: bool = False, report: Report = silent
    ) -> Done:
        """Write the new file; it takes its name only once it was found to hold the same.

        Args:
            source: the container.
            output: the file to write; `source` is replaced if it is the same file.
            force: replace another file.
            resume: take one that exists for this run's own, if it is what this run would write.
            report: of the progress.

        Raises:
            OutputExistsError: the output exists.
            ContainerError, WrongKeyError, WeightsError: as `Codec.decrypt`.
            UsageError: the cipher is not exact, or the new key is a grant for something else.
        """
        in_place = output.exists() and source.exists() and output.samefile(source)
        if resume and output.exists() and not force and self._finished(source, output, in_place):
            atomic.remove_leftover(output)
            return Done(output.stat().st_size, there=True)
        with container.opened(source, self._old) as reader:
            header = reader.header
            study_for(header.study, self._new)
            codec = codec_of(header, self._weights, self._device, source)
            signed = any(section.name == SIGNATURE for section in reader.sections)
            gone = set(reader.recipients.ids if reader.recipients else ()) - {one.id for one in self._recipients}
            with report(header.grid.body_bytes) as progress, atomic.writing(output, force=in_place or force) as stream:
                fresh = rekey(codec, reader, self._new, stream, progress, self._recipients)
        told = f"from key {header.key_id} to key {fresh.key_id}"
        notes = ["its signature was of the old file: it has none now"] * signed
        notes += [f"recipient{'s' * (len(gone) != 1)} {', '.join(sorted(gone))} cannot open the new file"] * bool(gone)
        note = f"{output}: {'; '.join(notes)}" if notes else ""
        return Done(header.grid.body_bytes, note=note, told=told)

    def into(self, source: Source, folder: Path | None, *, force: bool = False, report: Report = silent) -> Done:
        """Write one container of many; resumed if it exists.

        Args:
            source: the container.
            folder: where the new one goes; None to replace it.
            force: replace another file.
            report: of the progress.

        Raises:
            UsageError: the output would lie elsewhere, or replace a key; or as `write`.
            ContainerError, WrongKeyError, WeightsError, OutputExistsError: as `write`.
        """
        output = source.claimed(source.path if folder is None else below(folder, source.relative))
        atomic.different_files(output, *self._keep)
        return self.write(source.path, output, force=force, resume=True, report=report)

    def _finished(self, source: Path, output: Path, in_place: bool) -> bool:
        """Whether an earlier run wrote the new file already; it is whole and unchanged then.

        Raises:
            OutputExistsError: another file has the output's name.
        """
        key_id = container.key_id_of(output)
        if in_place and (key_id == self._old.key_id or key_id != self._new.key_id):
            return False  # still under the old key
        with container.opened(output, self._new) as made:
            made.verify()
            if in_place:
                return True
            with container.opened(source, self._old) as reader:
                if reader.metadata and made.metadata == reader.metadata and reader.metadata.content:
                    return True
        raise OutputExistsError(f"{output}: exists already, made from another file: --force replaces it")


def rekey(
    codec: Codec,
    reader: ContainerReader,
    new: Opener,
    stream: BinaryIO,
    progress: Progress | None = None,
    recipients: tuple[RecipientPublicKey, ...] = (),
) -> Header:
    """Write a container's content under another key, and read it back to compare.

    Cipher, weights, settings, study, wrapping and reading layer stay; the nonce is a fresh one. A signature goes, as
    it was of the old ciphertext.

    Args:
        codec: with the cipher of the file.
        reader: the opened container.
        new: the key, or a grant for the container's study, that shall open it.
        stream: where to write; it can seek and be read back.
        progress: is told how many more bytes of the array are done.
        recipients: whose keys shall open it too.

    Returns:
        The new header.

    Raises:
        UsageError: the cipher does not decrypt exactly, so that the content would suffer; or a grant for one file.
        ContainerError: the file was changed, or the new one would not decrypt to the same.
        WrongKeyError: a grant for another study.
    """
    header, metadata = reader.header, reader.metadata
    if not codec.cipher.exact:
        raise UsageError(
            f"{reader.where}: cipher {header.cipher!r} does not decrypt exactly, so rekeying would lose quality: "
            "encrypt the original again"
        )
    document = codec.decrypt(reader)
    content = bytes.fromhex(metadata.content if metadata else "") or content_of(document)
    wrapping: Wrapping = "aes" if reader.wrapped else "none"
    shown = reader.wrapped or series_tags.shows_series(reader.section(SERIES), reader.image_keys)
    settings = Settings(
        header.planes,
        header.postprocess,
        "random",
        header.study,
        wrapping,
        series=shown,
        recipients=recipients,
        identity=metadata.identity if metadata else "",
    )
    section = reader.section(READING)
    layer = None if section is None else ReadingLayer.from_bytes(section)
    fresh = codec.encrypt(
        document,
        new,
        stream,
        settings,
        suffix=metadata.suffix if metadata else None,
        content=content,
        layer=None if layer is None else (layer.levels(reader.image_keys), layer.level_bits, header.reading),
        progress=progress,
    )
    stream.flush()
    try:
        same = content_of(codec.decrypt(ContainerReader(stream, new, reader.where))) == content
    except ContainerError:
        same = False
    if not same:
        raise ContainerError(f"{reader.where}: the new file would not decrypt to the same image: left as it was")
    return fresh
