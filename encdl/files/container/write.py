"""Writing a container, chunk by chunk."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

from encdl.files.container.header import Header
from encdl.files.container.metadata import Metadata, seal, sealed_length
from encdl.files.container.tags import Buffer, ChunkTags, sealing_key
from encdl.keys.derivation import ImageKeys
from encdl.utils.errors import ContainerError


class ContainerWriter:
    """Writes one container to a stream: everything before the chunks at once, then a chunk at a time.

    Args:
        stream: where to write, from where it stands.
        header: what to say about the array; its `nonce` must be the one that `keys` were made from.
        metadata: what to seal; `header.sealed_bytes` is its `sealed_length`.
        keys: the file's sub-keys.

    Raises:
        ContainerError: header, metadata and keys do not belong together, or this is another version's header.
    """

    def __init__(self, stream: BinaryIO, header: Header, metadata: Metadata, keys: ImageKeys) -> None:
        head = header.to_bytes()
        if keys.nonce != header.nonce_bytes:
            raise ContainerError("the keys were made from another nonce than the header's")
        if header.sealed_bytes != sealed_length(metadata):
            raise ContainerError(
                f"the metadata take {sealed_length(metadata)} bytes, the header says {header.sealed_bytes}"
            )
        self._stream, self._grid = stream, header.grid
        self._tags = ChunkTags(keys, head)
        self._sealed = seal(metadata, sealing_key(keys), head)
        self._all, self._index = hashlib.sha256(), 0
        for part in (head, self._tags.header(), self._sealed):
            stream.write(part)

    def chunk(self, body: Buffer) -> None:
        """Write the next chunk's ciphertext.

        Raises:
            ContainerError: it is not as long as the header says, or one too many.
        """
        expected = self._grid.chunk_bytes(self._index) if self._index < self._grid.count else 0
        if len(body) != expected:
            raise ContainerError(f"chunk {self._index} is {len(body)} bytes, the header says {expected}")
        tag = self._tags.chunk(self._index, body)
        self._stream.write(body)
        self._stream.write(tag)
        self._all.update(tag)
        self._index += 1

    def close(self) -> None:
        """Write the end; the stream stays open.

        Raises:
            ContainerError: chunks are missing.
        """
        if self._index != self._grid.count:
            raise ContainerError(f"{self._index} of {self._grid.count} chunks were written")
        self._stream.write(self._tags.end(self._index, self._sealed, self._all.digest()))
