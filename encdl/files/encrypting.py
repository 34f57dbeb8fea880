"""Image files into containers, with one key and one set of settings."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict, Unpack

from encdl.files import container, file_names, formats, series_tags, stores
from encdl.files.codec import Codec
from encdl.files.codecs import WeightsName, load_codec
from encdl.files.container import Metadata
from encdl.files.container.sections import READING, SERIES, SIGNATURE
from encdl.files.folders import Done, Report, Source, below, silent
from encdl.files.formats.base import Document, content_of
from encdl.files.formats.verbatim import CARRIED
from encdl.files.settings import NonceMode, Settings, Wrapping
from encdl.keys.key import AnyOpener, Opener, RecipientsAlone, study_for
from encdl.keys.key_source import AnyKey, opened
from encdl.keys.planes import PlaneSpec
from encdl.keys.recipients import RecipientPublicKey
from encdl.keys.signing import SigningKey, signer_id
from encdl.utils import atomic
from encdl.utils.errors import ContainerError, OutputExistsError, UsageError, WrongKeyError

if TYPE_CHECKING:
    from encdl.files.fitted import Fitted
    from encdl.files.reading import Readable


class EncryptionSettings(TypedDict, total=False):
    """How to encrypt; every one has a default.

    Attributes:
        study: name of the study; anyone can read it. A study's grant has its own.
        wrap: "aes" to seal the container in AES-256-GCM; "none" by default.
        nonce: "random" by default, or "synthetic": equal arrays then give equal containers (but for a wrapping).
        postprocess: a name of `encdl.ciphers.names.POSTPROCESS`.
        planes: how to make the key planes; a mapping names those fields alone that differ from the default.
        readable: how to make a reading layer, which hosts without a key may read; no layer by default. A number is the
            length of its larger side; `readable_for` makes the layer that a reader takes.
        signer: what signs the files; by default they are not signed.
        recipients: whose keys shall open the files too.
        identity: what the owner calls the file, sealed and bound to it; `{name}` in it stands for the file's name.
        series: let those without the key see which DICOM files are of one series; by default they do.
        weights: name or file of the cipher's weights.
        device: where to compute: "auto", "cpu", "cuda", …; the result is the same.
    """

    study: str | None
    wrap: Wrapping
    nonce: NonceMode
    postprocess: str
    planes: PlaneSpec | Mapping[str, Any] | None
    readable: Readable | Fitted | int | None
    signer: SigningKey | None
    recipients: Sequence[RecipientPublicKey]
    identity: str
    series: bool
    weights: WeightsName
    device: str


@dataclass(eq=False, repr=False)
class Encryption:
    """Encrypts files alike.

    Args:
        codec: with the cipher.
        opener: a key, or a grant for the study.
        settings: how to encrypt.
        keep: files that `into` must not replace, such as the key.
        carry: seal files that are no images as they are, instead of refusing them.
    """

    codec: Codec
    opener: Opener
    settings: Settings
    keep: Sequence[Path] = ()
    carry: bool = False

    what: ClassVar[str] = "image file"

    def wants(self, path: Path) -> bool:
        """Whether a file of a folder is an image, or one to carry."""
        if self.carry:
            return file_names.is_to_carry(path) and not atomic.is_one_of(path, self.keep)
        return file_names.is_image(path)

    def write(
        self,
        document: Document,
        source: Path,
        output: Path,
        *,
        force: bool = False,
        resume: bool = False,
        report: Report = silent,
        name: str | None = None,
    ) -> Done:
        """Write the container of one document.

        Args:
            document: what `formats.load` made of `source`.
            source: the file.
            output: the file to write, whole or not at all.
            force: replace it if it exists.
            resume: take one that exists for this run's own, if it is what this run would write, whole and unchanged.
            report: of the progress.
            name: what `{name}` in the identity stands for; that of the source by default.

        Raises:
            OutputExistsError: the output exists.
            ImageFileError, UsageError, WrongKeyError: as `Codec.encrypt`.
        """
        size, carried = math.prod(document.shape) * document.dtype.itemsize, document.format == CARRIED
        called = self.settings.identity.replace("{name}", unicodedata.normalize("NFC", name or source.name))
        settings = replace(self.settings, identity=called)
        if resume and output.exists() and not force:
            self._check_finished(document, source, output, called)
            atomic.remove_leftover(output)
            return Done(size, there=True, carried=carried)
        suffix = file_names.known_ending(source.name)
        with report(size) as progress, atomic.writing(output, force=force) as stream:
            header = self.codec.encrypt(document, self.opener, stream, settings, suffix=suffix, progress=progress)
        what = "no image, sealed as it is" if carried else f"{file_names.picture(header)}, cipher {header.cipher}"
        return Done(size, told=f"{what}, key {header.key_id}", carried=carried)

    def into(self, source: Source, folder: Path, *, force: bool = False, report: Report = silent) -> Done:
        """Write the container of one file of many, below an output folder; one that exists is resumed.

        Args:
            source: the file.
            folder: where the container goes, with .encdl behind the file's name.
            force: replace a container that exists.
            report: of the progress.

        Raises:
            UsageError: the output would lie elsewhere, or replace an input.
            ImageFileError: the file cannot be read.
            OutputExistsError, WrongKeyError: as `write`.
        """
        name = source.relative.with_name(source.relative.name + container.SUFFIX)
        with stores.fetched(source.path) as path:
            document = formats.load(path, carry=self.carry)
            source.claimed(folder / name)
            with stores.room(folder, name, force) as near:
                output = below(near, name)
                atomic.different_files(output, path, *self.keep)
                called = source.relative.as_posix()
                return self.write(document, path, output, force=force, resume=True, report=report, name=called)

    def _check_finished(self, document: Document, source: Path, output: Path, identity: str) -> None:
        """Raise `OutputExistsError` unless a file is what `write` would write."""
        try:
            with container.opened(output, self.opener) as reader:
                reader.verify()
                header, metadata, wrapped = reader.header, reader.metadata, reader.wrapped
                reading, signature = reader.section(READING), reader.section(SIGNATURE)
                recipients = set(reader.recipients.ids if reader.recipients else ())
                series, keys = reader.section(SERIES), reader.image_keys
        except (ContainerError, WrongKeyError) as error:
            raise OutputExistsError(f"{error}; --force replaces it") from None
        settings = self.settings
        made_with = (header.weights, header.planes, header.postprocess, header.study)
        same = made_with == (self.codec.weights_id, settings.planes, settings.postprocess, settings.study)
        length, readable = None, settings.readable
        if readable:
            from encdl.files.reading import layer_bytes  # noqa: PLC0415 - hardly any file has a layer

            length = layer_bytes(readable.shape(header.grid), readable.bits)
        same = same and length == (reading and len(reading)) and header.reading == (readable.placed if readable else {})
        shown = series_tags.section_of(document, self.opener, header.study, keys, settings.series)
        same = same and series in (None, shown)  # files of early versions have none
        signer = settings.signer and settings.signer.public.id
        same = same and signer == (signature and signer_id(signature))
        same = same and recipients == {public.id for public in settings.recipients}
        if not same or wrapped != (settings.wrap == "aes"):
            raise OutputExistsError(f"{output}: exists already, made with other settings: --force replaces it")
        suffix, content = file_names.known_ending(source.name), content_of(document).hex()
        if (
            metadata is None
            or replace(metadata, rest=b"") != Metadata(document.format, suffix, content, identity=identity)
            or not formats.same_rest(metadata.rest, document.rest)
        ):
            raise OutputExistsError(f"{output}: exists already, made from another file: --force replaces it")


def encryption(key: AnyKey | None, keep: Sequence[Path] = (), **settings: Unpack[EncryptionSettings]) -> Encryption:
    """An `Encryption` of files alike, for `convert_folder`; arguments and errors as `encrypt`.

    Args:
        key: as `encrypt`.
        keep: files that are never replaced; a key's that is given by its path is among them.
        settings: see `EncryptionSettings`.
    """
    recipients = tuple(settings.get("recipients", ()))
    if key is None and not recipients:
        raise UsageError("nobody could open the files: give a key, or recipients")
    opener: AnyOpener
    if key is None:
        opener = RecipientsAlone.generate()
    elif isinstance(key, AnyOpener):
        opener = key
    else:
        opener, keep = opened(key), (*keep, Path(key))
    study, planes = study_for(settings.get("study"), opener), settings.get("planes")
    try:
        spec = planes if isinstance(planes, PlaneSpec) else PlaneSpec(**(planes or {}))
    except TypeError:
        known = ", ".join(each.name for each in fields(PlaneSpec))
        raise UsageError(f"planes is a PlaneSpec, or its settings by name ({known}), not {planes!r}") from None
    codec = load_codec(settings.get("weights", "default"), settings.get("device", "auto"))  # takes longest
    cipher: Any = codec.cipher
    if not isinstance(planes, PlaneSpec) and "count" not in (planes or {}):
        spec = replace(spec, count=cipher.planes)
    postprocess, nonce = settings.get("postprocess", Settings.postprocess), settings.get("nonce", "random")
    readable = settings.get("readable")
    if isinstance(readable, int):
        from encdl.files.reading import Readable  # noqa: PLC0415 - as above

        readable = Readable(readable)
    wrap, signer = settings.get("wrap", "none"), settings.get("signer")
    identity, series = settings.get("identity", ""), settings.get("series", True)
    how = Settings(spec, postprocess, nonce, study, wrap, readable, signer, series, recipients, identity)
    return Encryption(codec, opener, how, keep)
