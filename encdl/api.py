"""What the command line does, for Python: keys, arrays and files. `import encdl` offers all of it by name.

Arrays and containers stay in memory; files are streamed slice by slice, as by the verbs. Errors are those of
`encdl.utils.errors`, one line each.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

import numpy as np
import numpy.typing as npt

from encdl.files import container, file_names, formats
from encdl.files.codec import Salvage, Settings
from encdl.files.codecs import WeightsName, codec_of, load_cipher, load_codec
from encdl.files.container import ContainerReader, Header
from encdl.files.decrypting import Damaged, Decryption
from encdl.files.documents import array_of
from encdl.files.encrypting import Encryption, EncryptionSettings
from encdl.files.folders import convert_folder
from encdl.files.levels import Levels
from encdl.files.reading import Readable
from encdl.files.rekeying import Rekeying
from encdl.keys.functional import FunctionalKey
from encdl.keys.grant import Grant, study_for
from encdl.keys.key import AnyOpener, RecipientKey, RecipientsAlone, parse_opener
from encdl.keys.key_source import KeySource
from encdl.keys.passphrases import Passphrase
from encdl.keys.planes import PlaneSpec
from encdl.keys.recipients import RecipientPublicKey
from encdl.keys.signing import PublicKey, SigningKey
from encdl.utils import atomic
from encdl.utils.devices import usable_device
from encdl.utils.errors import ContainerError, UsageError

if TYPE_CHECKING:
    from encdl.audit.evaluation import Result
    from encdl.readers.functional_files import FunctionalPredictor
    from encdl.readers.predictor import Answer, Predictor

__all__ = [
    "EncryptionSettings",
    "Salvaged",
    "convert_folder",
    "decrypt",
    "decrypt_file",
    "decryption",
    "encrypt",
    "encrypt_file",
    "encryption",
    "evaluate",
    "grant",
    "grant_functional",
    "load_codec",
    "load_functional_reader",
    "load_reader",
    "open_key",
    "predict",
    "predict_functional",
    "read_header",
    "rekey_file",
    "rekeying",
    "salvage",
]

Array = npt.NDArray[Any]
Opened = AnyOpener
AnyKey = AnyOpener | str | os.PathLike[str]
"""A key, grant or recipient's key, or the path of its file."""

AnyPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Salvaged:
    """What `salvage` made of a damaged container. UNVERIFIED where it was damaged, and not for diagnosis.

    Attributes:
        array: of the original's shape and type.
        damaged: slices of which a part was damaged or missing, counted from 0; these are guesses, or zero.
        problems: what was found wrong with the file as a whole.
    """

    array: Array
    damaged: list[int]
    problems: list[str] = field(default_factory=list)


def open_key(
    path: AnyPath | None = None,
    *,
    env: str | None = None,
    content: bytes | None = None,
    command: str | None = None,
    token: str | None = None,
    passphrase: str | Callable[[], str] | None = None,
) -> Opened:
    """Load a key, a grant or a recipient's key from one of these places.

    Args:
        path: its file.
        env: name of an environment variable that holds what the file would hold.
        content: what the file would hold.
        command: a program that gives it (docs/keys.md).
        token: URI of a PKCS#11 token and its key (docs/keys.md); its PIN is the passphrase.
        passphrase: the passphrase, or a function that asks for it, in case the key is locked with one.

    Raises:
        UsageError: none or several places are given, or the variable is not set.
        KeyFileError: it is no key or grant, damaged, or locked with another passphrase.
        ExpiredGrantError: it is a grant whose time is over.
    """
    asked = None if passphrase is None else lambda: _passphrase(passphrase)
    if sum(place is not None for place in (path, env, content, command, token)) != 1:
        raise UsageError("open_key takes exactly one of path, env, content, command and token")
    if content is None:
        return KeySource(path, env, command=command, token=token).open(asked)
    opener = parse_opener("content", content, asked)
    if isinstance(opener, Grant):
        opener.check_expiry()
    return opener


def grant(
    key: AnyKey, *, study: str | None = None, file: AnyPath | None = None, expires: datetime | None = None
) -> Grant:
    """A grant for one study or one file; `Grant.save` writes it to a file.

    Args:
        key: the master key; for one file, a grant for its study serves too.
        study: open every file of this study, those to come included.
        file: open this container only; it is verified first.
        expires: when EncDL begins to refuse the grant, with a time zone. Advisory: its holder can get around it.

    Raises:
        UsageError: not exactly one of study and file, or a time without a zone.
        WrongKeyError: the key is a grant for something else.
        ContainerError: the file was changed.
    """
    if (study is None) == (file is None):
        raise UsageError("grant takes exactly one of study and file")
    opener = _opened(key)
    if isinstance(opener, RecipientKey):
        raise UsageError("a recipient's key grants nothing: add the other as a recipient, or ask the owner")
    if file is not None:
        header = container.verify(file, opener)
        return opener.grant_file(header.nonce_bytes, header.study, expires)
    if isinstance(opener, Grant):
        raise UsageError("only the master key can grant a study: ask its owner")
    return opener.grant_study(cast(str, study), expires)


def encrypt(
    array: npt.ArrayLike,
    key: AnyKey | None = None,
    *,
    layout: str | None = None,
    **settings: Unpack[EncryptionSettings],
) -> bytes:
    """Encrypt an array into a container.

    Args:
        array: 1 to 8 axes of integers or floats; a CPU tensor serves too. Any bit pattern comes back.
        key: the key, or a grant for the study, or the path of its file; None if recipients alone shall open it.
        layout: one letter an axis, such as "SHW"; by default up to four values in the last of three or more axes are
            colour, and the two axes before are an image's.
        settings: see `EncryptionSettings`.

    Returns:
        What a `.encdl` file holds. `encdl decrypt` makes a .npy file of it.

    Raises:
        ImageFileError: an array that no file holds.
        UsageError: a wrong setting, or a grant that cannot encrypt.
        WrongKeyError: a grant for another study.
        WeightsError: no such weights.
    """
    how = encryption(key, **settings)
    return how.codec.encrypt_array(np.asarray(array), how.opener, how.settings, layout=layout)


def decrypt(data: bytes, key: AnyKey, *, weights: WeightsName | None = None, device: str = "auto") -> Array:
    """Decrypt a container into the array of its pixels, bit-exact.

    Args:
        data: what a `.encdl` file holds.
        key: the key, or a grant for the file or its study, or the path of its file.
        weights: name or file of the cipher's weights; those that the container names by default.
        device: where to compute.

    Raises:
        ContainerError: something was changed since it was written; nothing is returned then.
        WrongKeyError: the key or grant is for something else.
        WeightsError: the container needs other weights; says which, and how to get them.
    """
    reader = ContainerReader(io.BytesIO(data), _opened(key))
    return array_of(codec_of(reader.header, weights, device).decrypt(reader))


def salvage(
    data: bytes, key: AnyKey, *, restore: bool = True, weights: WeightsName | None = None, device: str = "auto"
) -> Salvaged:
    """Open a damaged container as far as it goes.

    Args:
        data: what is left of a `.encdl` file.
        key: as `decrypt`.
        restore: guess damaged slices with the cipher's decryption network; if not, they stay zero.
        weights: as `decrypt`.
        device: where to compute.

    Raises:
        ContainerError: not even the header is left.
        WrongKeyError, WeightsError: as `decrypt`.
    """
    reader = ContainerReader(io.BytesIO(data), _opened(key), tolerant=True)
    if reader.nothing_left():
        raise ContainerError("data: ends with its header: nothing is left to salvage")
    how = Salvage(restore=restore)
    array = array_of(codec_of(reader.header, weights, device).decrypt(reader, how))
    return Salvaged(array, how.damaged, reader.problems)


def encrypt_file(
    source: AnyPath,
    key: AnyKey | None = None,
    target: AnyPath | None = None,
    *,
    force: bool = False,
    **settings: Unpack[EncryptionSettings],
) -> Path:
    """Encrypt a DICOM, NIfTI, PNG, TIFF or NumPy file with all that it holds.

    Args:
        source: the file.
        key: as `encrypt`.
        target: the file to write, whole or not at all; `source` with the ending .encdl by default.
        force: replace the target if it exists.
        settings: see `EncryptionSettings`.

    Returns:
        The target.

    Raises:
        ImageFileError: the file cannot be read.
        OutputExistsError: the target exists and `force` is not set.
        UsageError, WrongKeyError, WeightsError: as `encrypt`.
    """
    path = Path(source)
    output = file_names.check_container_name(file_names.container_name(path) if target is None else Path(target))
    atomic.check_output(output, force)
    how = encryption(key, **settings)
    document = formats.load(path)
    how.write(document, path, output, force=force)
    return output


def decrypt_file(
    source: AnyPath,
    key: AnyKey,
    target: AnyPath | None = None,
    *,
    force: bool = False,
    weights: WeightsName | None = None,
    device: str = "auto",
) -> Path:
    """Decrypt a `.encdl` file back into the file that it was made from.

    Args:
        source: the container.
        key: as `decrypt`.
        target: the file to write, whole or not at all; `source` with the original's ending by default. With the ending
            of another format (.npy, .png, .tiff) a new file of the pixels alone.
        force: replace the target if it exists.
        weights: as `decrypt`.
        device: where to compute.

    Returns:
        The target.

    Raises:
        ContainerError, WrongKeyError, WeightsError: as `decrypt`; nothing is written then.
        OutputExistsError: the target exists and `force` is not set.
    """
    path, how = Path(source), Decryption(_opened(key), weights, device)
    with how.opened(path) as reader:
        output = file_names.original_name(path, reader) if target is None else Path(target)
        atomic.check_output(output, force)
        how.write(reader, output, force=force)
    return output


def rekey_file(
    source: AnyPath,
    key: AnyKey,
    new_key: AnyKey,
    target: AnyPath | None = None,
    *,
    force: bool = False,
    weights: WeightsName | None = None,
    device: str = "auto",
    same_key: bool = False,
) -> Path:
    """Encrypt a `.encdl` file anew under another key; cipher, weights, settings and wrapping stay.

    Args:
        source: the container.
        key: what opens it now.
        new_key: the key, or a grant for its study, that shall open it.
        target: the file to write; by default `source` is replaced, in one step, once the new one was compared with it.
        force: replace a target that exists.
        weights: as `decrypt`.
        device: where to compute.
        same_key: let both keys be one, for a fresh nonce; that revokes no grant for a study.

    Returns:
        The target.

    Raises:
        ContainerError, WrongKeyError, WeightsError, OutputExistsError: as `decrypt_file`.
        UsageError: the cipher is not exact, or the new key is a grant for something else, or the old key.
    """
    output = Path(source if target is None else target)
    new = _opened(new_key)
    Rekeying(_opened(key), new, weights, device, same_key=same_key).write(Path(source), output, force=force)
    return output


def encryption(key: AnyKey | None, keep: Sequence[Path] = (), **settings: Unpack[EncryptionSettings]) -> Encryption:
    """What encrypts files alike, for `convert_folder`; arguments and errors as `encrypt`.

    Args:
        key: as `encrypt`.
        keep: files that are never replaced; a key's that is given by its path is among them.
        settings: see `EncryptionSettings`.
    """
    recipients = tuple(settings.get("recipients", ()))
    if key is None and not recipients:
        raise UsageError("nobody could open the files: give a key, or recipients")
    opener = RecipientsAlone.generate() if key is None else _opened(key)
    codec = load_codec(settings.get("weights", "default"), settings.get("device", "auto"))
    cipher: Any = codec.cipher
    planes = settings.get("planes")
    spec = planes if isinstance(planes, PlaneSpec) else PlaneSpec(count=cipher.planes, **(planes or {}))
    postprocess, nonce = settings.get("postprocess", Settings.postprocess), settings.get("nonce", "random")
    study = study_for(settings.get("study"), opener)
    readable = settings.get("readable")
    readable = Readable(readable) if isinstance(readable, int) else readable
    wrap, signer = settings.get("wrap", "none"), settings.get("signer")
    recipients, identity = tuple(settings.get("recipients", ())), settings.get("identity", "")
    series = settings.get("series", True)
    how = Settings(spec, postprocess, nonce, study, wrap, readable, signer, series, recipients, identity)
    return Encryption(codec, opener, how, (*keep, *(() if key is None else _files(key))))


def decryption(
    key: AnyKey, *, damaged: Damaged = "refuse", weights: WeightsName | None = None, device: str = "auto"
) -> Decryption:
    """What decrypts files alike, for `convert_folder`.

    Args:
        key: as `decrypt`, like `weights` and `device`.
        damaged: "refuse" damaged files; "restore" or "blank" their damaged slices, which a file beside then names.
        weights: name or file of the cipher's weights.
        device: where to compute.
    """
    return Decryption(_opened(key), weights, device, damaged, _files(key))


def rekeying(
    key: AnyKey,
    new_key: AnyKey,
    *,
    weights: WeightsName | None = None,
    device: str = "auto",
    same_key: bool = False,
    recipients: Sequence[RecipientPublicKey] = (),
) -> Rekeying:
    """What rekeys files alike, for `convert_folder`; arguments as `rekey_file`."""
    keep = _files(key) + _files(new_key)
    return Rekeying(_opened(key), _opened(new_key), weights, device, keep, same_key, recipients)


def load_reader(
    checkpoint: AnyPath,
    *,
    weights: str | None = None,
    device: str = "auto",
    any_size: bool = False,
    levels: Levels | None = None,
) -> Predictor:
    """A network that reads ciphertext: `read(path, key)` gives its `Answer` about a file.

    Args:
        checkpoint: what training a classifier or segmenter wrote.
        weights: name or file of the cipher weights that the files were made with, if others.
        device: where to compute.
        any_size: let a classifier read images of another size than it was trained on, less reliably.
        levels: how stored integers become levels, such as `Levels(window="lung")`; by default as it was trained.

    Raises:
        WeightsError: a file is missing, damaged or of another kind, or the two do not go together.
    """
    from encdl.readers.predictor import Predictor  # noqa: PLC0415 - MONAI takes seconds

    return Predictor.load(
        checkpoint, weights_of_files=weights, device=usable_device(device), any_size=any_size, levels=levels
    )


def predict(source: AnyPath, key: AnyKey, reader: Predictor | AnyPath) -> Answer:
    """What a network says about a .encdl file, without decrypting it.

    Args:
        source: the container.
        key: as `decrypt`.
        reader: of `load_reader`, or the path of a checkpoint.

    Raises:
        ContainerError, WrongKeyError, WeightsError: as `decrypt`.
        UsageError: the image is one that this reader cannot read.
    """
    loaded = load_reader(reader) if isinstance(reader, str | os.PathLike) else reader
    return loaded.read(source, _opened(key))


def grant_functional(
    source: AnyPath,
    key: AnyKey,
    reader: AnyPath,
    *,
    noise: float = 0.0,
    signer: SigningKey | None = None,
    expires: datetime | None = None,
) -> FunctionalKey:
    """What a host needs to read one file with one network, and to learn nothing else of it (docs/functional-keys.md).

    Args:
        source: a container with a reading layer.
        key: as `decrypt`.
        reader: checkpoint of a reader that was trained on view Functional.
        noise: standard deviation of what is added to the levels of the layer's pixels.
        signer: signs it.
        expires: when EncDL begins to refuse it. Advisory.

    Raises:
        ContainerError, WrongKeyError, WeightsError: as `decrypt`.
        UsageError: the file has no reading layer that this reader reads.
    """
    from encdl import readers  # noqa: PLC0415
    from encdl.readers import functional_files  # noqa: PLC0415

    return functional_files.grant_functional(
        source, _opened(key), readers.load(Path(reader)), noise=noise, signer=signer, expires=expires
    )


def load_functional_reader(
    checkpoint: AnyPath, *, device: str = "auto", server: PublicKey | None = None, owner: PublicKey | None = None
) -> FunctionalPredictor:
    """A network that reads files with functional keys: `read(path, functional_key)` gives its `Answer`.

    Args:
        checkpoint: of a reader that was trained on view Functional.
        device: where to compute.
        server: refuse functional keys that were not signed with this key.
        owner: refuse files that were not signed with this key.

    Raises:
        WeightsError: the checkpoint is missing, damaged or of another kind.
    """
    from encdl.readers.functional_files import FunctionalPredictor  # noqa: PLC0415

    return FunctionalPredictor.load(checkpoint, device=usable_device(device), server=server, owner=owner)


def predict_functional(
    source: AnyPath, functional_key: FunctionalKey | AnyPath, reader: FunctionalPredictor | AnyPath
) -> Answer:
    """What a network says about a .encdl file, without any key.

    Args:
        source: the container.
        functional_key: of this file, for this reader; or the path of its file.
        reader: of `load_functional_reader`, or the path of a checkpoint.

    Raises:
        ContainerError, WrongKeyError, WeightsError, UsageError: as `FunctionalPredictor.read`.
        KeyFileError: there is no such functional key, or it is damaged.
    """
    loaded = load_functional_reader(reader) if isinstance(reader, str | os.PathLike) else reader
    key = functional_key if isinstance(functional_key, FunctionalKey) else FunctionalKey.load(functional_key)
    return loaded.read(source, key)


def evaluate(
    config: AnyPath | None = None, *, progress: Callable[[str], None] = lambda step: None, **settings: Any
) -> Result:
    """Measure ciphers: repair of damage beside classical repair, exactness, statistics.

    Args:
        config: YAML file of settings.
        progress: is told what comes next.
        settings: fields of `encdl.audit.evaluation.Settings`; they come before those of the file.

    Raises:
        DataError, UsageError, WeightsError: as `encdl.audit.evaluation.evaluate`.
    """
    from encdl.audit import evaluation  # noqa: PLC0415

    chosen = evaluation.read(None if config is None else Path(config), settings)
    device = usable_device(chosen.device)
    return evaluation.evaluate(chosen, lambda name: load_cipher(name, device), device, progress)


def read_header(path: AnyPath) -> Header:
    """What a container says about itself, without a key and therefore unverified; errors as `encdl inspect`."""
    return container.read_header(path)


def _files(key: AnyKey) -> tuple[Path, ...]:
    return () if isinstance(key, AnyOpener) else (Path(key),)


def _opened(key: AnyKey) -> Opened:
    return key if isinstance(key, AnyOpener) else open_key(key)


def _passphrase(given: str | Callable[[], str]) -> Passphrase:
    return Passphrase(given() if callable(given) else given)
