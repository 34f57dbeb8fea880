"""Files and folders: encrypt, decrypt, rekey."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from encdl.api.openers import AnyPath
from encdl.files import container, file_names, formats
from encdl.files.codecs import WeightsName
from encdl.files.container import Header
from encdl.files.decrypting import Damaged, Decryption
from encdl.files.encrypting import EncryptionSettings, encryption
from encdl.files.rekeying import Rekeying
from encdl.keys.key_source import AnyKey, files_of, opened
from encdl.keys.recipients import RecipientPublicKey
from encdl.utils import atomic


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
    path, how = Path(source), Decryption(opened(key), weights, device)
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
    new = opened(new_key)
    Rekeying(opened(key), new, weights, device, same_key=same_key).write(Path(source), output, force=force)
    return output


def decryption(
    key: AnyKey, *, damaged: Damaged = "refuse", weights: WeightsName | None = None, device: str = "auto"
) -> Decryption:
    """A `Decryption` of files alike, for `convert_folder`.

    Args:
        key: as `decrypt`, like `weights` and `device`.
        damaged: "refuse" damaged files; "restore" or "blank" their damaged slices, which a file beside then names.
        weights: name or file of the cipher's weights.
        device: where to compute.
    """
    return Decryption(opened(key), weights, device, damaged, files_of(key))


def rekeying(
    key: AnyKey,
    new_key: AnyKey,
    *,
    weights: WeightsName | None = None,
    device: str = "auto",
    same_key: bool = False,
    recipients: Sequence[RecipientPublicKey] = (),
) -> Rekeying:
    """A `Rekeying` of files alike, for `convert_folder`; arguments as `rekey_file`."""
    keep = files_of(key) + files_of(new_key)
    return Rekeying(opened(key), opened(new_key), weights, device, keep, same_key, recipients)


def read_header(path: AnyPath) -> Header:
    """The header of a container, read without a key and therefore unverified; errors as `encdl inspect`."""
    return container.read_header(path)
