"""The same content under another key, verified before anyone relies on it."""

from __future__ import annotations

from typing import BinaryIO

from encdl.files.codec import Codec, Progress, Settings, Wrapping
from encdl.files.container import ContainerReader, Header
from encdl.files.documents import content_of
from encdl.keys.key import Opener
from encdl.utils.errors import ContainerError, UsageError


def rekey(
    codec: Codec, reader: ContainerReader, new: Opener, stream: BinaryIO, progress: Progress | None = None
) -> Header:
    """Write a container's content under another key, and read it back to compare.

    Cipher, weights, settings, study and wrapping stay; the nonce is a fresh one.

    Args:
        codec: with the cipher of the file.
        reader: the opened container.
        new: the key, or a grant for the container's study, that shall open it.
        stream: where to write; it can seek and be read back.
        progress: is told how many more bytes of the array are done.

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
    settings = Settings(header.plane_spec(), header.postprocess, "random", header.study, wrapping)
    fresh = codec.encrypt(
        document,
        new,
        stream,
        settings,
        suffix=metadata.suffix if metadata else None,
        content=content,
        progress=progress,
    )
    stream.flush()
    try:
        same = content_of(codec.decrypt(ContainerReader(stream, new, reader.where))) == content
    except ContainerError:
        same = False
    if not same:
        raise ContainerError(
            f"{reader.where}: the new file would not decrypt to the same image: left as it was"
        )
    return fresh
