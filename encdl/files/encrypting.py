"""Image files into containers, with one key and one set of settings."""

from __future__ import annotations

import math
from pathlib import Path

from encdl.files import container, file_names
from encdl.files.codec import Codec, Settings
from encdl.files.container import Metadata
from encdl.files.documents import content_of
from encdl.files.folders import Done, Report, silent
from encdl.files.formats.base import Document
from encdl.keys.key import Opener
from encdl.utils import atomic
from encdl.utils.errors import ContainerError, OutputExistsError, WrongKeyError


class Encryption:
    """Encrypts files alike.

    Args:
        codec: with the cipher.
        opener: a key, or a grant for the study.
        settings: how to encrypt.
    """

    def __init__(self, codec: Codec, opener: Opener, settings: Settings) -> None:
        self.codec, self._opener, self.settings = codec, opener, settings

    def write(
        self,
        document: Document,
        source: Path,
        output: Path,
        *,
        force: bool = False,
        resume: bool = False,
        report: Report = silent,
    ) -> Done:
        """Write the container of one document.

        Args:
            document: what `formats.load` made of `source`.
            source: the file.
            output: the file to write, whole or not at all.
            force: replace it if it exists.
            resume: take one that exists for this run's own, if it is what this run would write, whole and unchanged.
            report: of the progress.

        Raises:
            OutputExistsError: the output exists.
            ImageFileError, UsageError, WrongKeyError: as `Codec.encrypt`.
        """
        size = math.prod(document.shape) * document.dtype.itemsize
        if resume and output.exists() and not force:
            self._check_finished(document, source, output)
            atomic.remove_leftover(output)
            return Done(size, there=True)
        suffix = file_names.kept_suffix(source, document)
        with report(size) as progress, atomic.writing(output, force=force) as stream:
            header = self.codec.encrypt(
                document, self._opener, stream, self.settings, suffix=suffix, progress=progress
            )
        told = f"{file_names.picture(header)}, cipher {header.cipher}, key {header.key_id}"
        return Done(size, told=told)

    def _check_finished(self, document: Document, source: Path, output: Path) -> None:
        """Raise `OutputExistsError` unless a file is what `write` would write."""
        try:
            with container.opened(output, self._opener) as reader:
                reader.verify()
                header, metadata, wrapped = reader.header, reader.metadata, reader.wrapped
        except (ContainerError, WrongKeyError) as error:
            raise OutputExistsError(f"{error}; --force replaces it") from None
        settings = self.settings
        made_with = (header.weights, header.plane_spec(), header.postprocess, header.study)
        same = made_with == (self.codec.weights_id, settings.planes, settings.postprocess, settings.study)
        if not same or wrapped != (settings.wrap == "aes"):
            raise OutputExistsError(
                f"{output}: exists already, made with other settings: --force replaces it"
            )
        suffix = file_names.kept_suffix(source, document)
        if metadata != Metadata(document.format, suffix, content_of(document).hex(), document.rest):
            raise OutputExistsError(f"{output}: exists already, made from another file: --force replaces it")
