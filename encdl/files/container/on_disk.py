"""Containers on the disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from encdl.files import stores
from encdl.files.container import aes_wrap, recipients, repair
from encdl.files.container.header import SALVAGE, SUFFIX, Header, read_head
from encdl.files.container.read import ContainerReader, PublicReader
from encdl.keys.key import Opener
from encdl.utils.errors import ContainerError

REPORT = ".salvage.json"
"""Ending of the file, beside a damaged one's output, that says which slices are restored or blank."""


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], opener: Opener, *, tolerant: bool = False) -> Iterator[ContainerReader]:
    """Open a container; arguments and errors as `ContainerReader`, and `ContainerError` if it cannot be read."""
    with _stream(path) as stream:
        yield ContainerReader(stream, opener, Path(path), tolerant=tolerant)


def verify(path: str | os.PathLike[str], opener: Opener) -> Header:
    """Read a whole container, and return its header if nothing was changed since it was written.

    Raises:
        ContainerError: as `opened`; or something was changed.
        WrongKeyError: the file was made with another key, or the grant is for something else.
    """
    with opened(path, opener) as reader:
        reader.verify()
        return reader.header


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read what a container says about itself, without a key and therefore unverified.

    Raises:
        ContainerError: not an EncDL file, of a newer version, cut within the header, or a damaged header.
    """
    with _stream(path) as stream:
        return read_head(stream, str(path))[0]


def read_wrapping(path: str | os.PathLike[str]) -> aes_wrap.Header | None:
    """The header of a file's wrapping, without a key; None if the container is not wrapped.

    Raises:
        ContainerError: the file cannot be read, or the wrapping's header is damaged.
    """
    with _stream(path) as stream:
        wrapped = stream.read(len(aes_wrap.MAGIC)) == aes_wrap.MAGIC
        stream.seek(0)
        return aes_wrap.read_header(stream, path) if wrapped else None


def key_id_of(path: str | os.PathLike[str]) -> str:
    """Id of the key that a file says it is under, wrapped or not; errors as `read_header`."""
    wrapping = read_wrapping(path)
    return read_header(path).key_id if wrapping is None else wrapping.key_id


def file_bytes(path: str | os.PathLike[str]) -> int:
    """How long a file is, on a disk or in a store; `ContainerError` if it cannot be read."""
    with _stream(path) as stream:
        return stream.seek(0, os.SEEK_END)


def recipients_of(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Ids of the public keys that a file says it is sealed to, wrapped or not; errors as `read_header`."""
    key_id_of(path)
    with _stream(path) as stream:
        try:
            found, _ = recipients.at_end(stream)
        except ContainerError as error:
            raise ContainerError(f"{path}: {error}: {SALVAGE}") from None
    return found.ids if found else ()


@contextlib.contextmanager
def opened_without_key(
    path: str | os.PathLike[str], *, any_length: bool = False, mend: bool = False
) -> Iterator[PublicReader]:
    """Open what a container shows without a key; `ContainerError` as `PublicReader`, and if it cannot be read.

    With `mend` hits on its beginning are undone by the parity there, which proves nothing; then it may have any length.
    """
    with _stream(path) as stream:
        start, hit = repair.repaired(stream) if mend else (stream, False)
        yield PublicReader(start, path, any_length=any_length or hit)


@contextlib.contextmanager
def _stream(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    where = Path(path)
    if address := stores.address_of(path):
        with stores.opened(address) as stream:
            yield stream
        return
    try:
        if where.is_dir():
            raise ContainerError(f"{where}: is a folder: give one {SUFFIX} file")
        if where.exists() and not where.is_file():
            raise ContainerError(f"{where}: is no regular file: give a file on disk")
        stream = where.open("rb")
    except FileNotFoundError:
        raise ContainerError(f"{where}: no such file: check the name") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise ContainerError(f"{where}: cannot be read ({reason}): check its permissions") from None
    with stream:
        yield stream
