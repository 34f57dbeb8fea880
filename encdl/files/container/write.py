"""Writing a container: what stands before the pixels, then chunk by chunk, then the sections behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import BinaryIO

from encdl.files.container import parity
from encdl.files.container.header import PREFIX, TAG_BYTES, Header, located
from encdl.files.container.metadata import ONCE, Metadata
from encdl.files.container.sections import (
    BLOCK_TAG_BYTES,
    METADATA,
    PARITY,
    PIXELS,
    READING,
    READING_PARITY,
    SIGNATURE,
    Buffer,
    HashTree,
    Section,
    Tags,
    signed_message,
    table_bytes,
    table_size,
)
from encdl.keys.derivation import ImageKeys
from encdl.keys.signing import SIGNATURE_BYTES, SigningKey
from encdl.utils.errors import ContainerError

_SIGNATURE = Section(SIGNATURE, SIGNATURE_BYTES + TAG_BYTES)


class ContainerWriter:
    """Writes one container to a stream: everything before the pixels at once, then a chunk at a time.

    Args:
        stream: where to write, from where it stands.
        header: what to say about the array; its `nonce` must be the one that `keys` were made from.
        metadata: what to seal.
        keys: the file's sub-keys.
        behind: the sections that will follow the pixels, in order, and the length of each's content. A reading layer
            gets parity behind it by itself.
        signer: signs the file, if given.

    Raises:
        ContainerError: header and keys do not belong together.
    """

    def __init__(
        self,
        stream: BinaryIO,
        header: Header,
        metadata: Metadata,
        keys: ImageKeys,
        behind: Mapping[str, int] | None = None,
        signer: SigningKey | None = None,
    ) -> None:
        head, grid = header.to_bytes(), header.grid
        if keys.nonce != header.nonce_bytes:
            raise ContainerError("the keys were made from another nonce than the header's")
        self._stream, self._grid, self._head, self._signer = stream, grid, head, signer
        self._tags = tags = Tags(keys, head)
        self._behind: dict[str, int] = {}
        for name, length in (behind or {}).items():
            self._behind[name] = length
            if name == READING:
                self._behind[READING_PARITY] = parity.parity_length(length, *parity.LAYER)
        sealed = tags.sealing.encrypt(ONCE, metadata.to_bytes(), head)
        count = 3 + len(self._behind) + (signer is not None)
        front = len(head) - PREFIX.size + TAG_BYTES + table_size(count) + TAG_BYTES + len(sealed)
        sections = [
            Section(METADATA, len(sealed), critical=True),
            Section(PARITY, parity.parity_length(front) + TAG_BYTES),
            Section(PIXELS, grid.body_bytes + grid.blocks * BLOCK_TAG_BYTES, critical=True),
            *(Section(name, length + TAG_BYTES) for name, length in self._behind.items()),
        ]
        self._roots = [(section, HashTree()) for section in sections] if signer else []
        if signer:
            sections.append(_SIGNATURE)
        table = table_bytes(sections)
        start = b"".join((head[PREFIX.size :], tags.tag("header"), table, tags.tag("sections", table)))
        stream.write(head[: PREFIX.size] + located(head[: PREFIX.size], front) + start)
        self._section, self._index = 0, 0
        self._write(sealed)
        self._section = 1
        over = parity.encoded(start + sealed)
        self._write(over + tags.tag(f"section {PARITY}", over))
        self._section = 2

    def chunk(self, body: Buffer) -> None:
        """Write the next chunk's ciphertext.

        Raises:
            ContainerError: it is not as long as the header says, or one too many.
        """
        expected = math.prod(self._grid.form(self._index)) if self._index < self._grid.count else 0
        if len(body) != expected:
            raise ContainerError(f"chunk {self._index} is {len(body)} bytes, the header says {expected}")
        self._write(body)
        self._write(self._tags.blocks(self._index, body))
        self._index += 1

    def section(self, name: str, content: Buffer) -> None:
        """Write the next of the sections behind the pixels.

        Raises:
            ContainerError: it is not the next one, or not as long as was said, or chunks are missing.
        """
        if self._index != self._grid.count:
            raise ContainerError(f"{self._index} of {self._grid.count} chunks were written")
        if [(name, len(content))] != list(self._behind.items())[:1]:
            raise ContainerError(f"section {name!r} of {len(content)} bytes is not what was to come")
        del self._behind[name]
        self._section += 1
        self._write(content)
        self._write(self._tags.tag(f"section {name}", content))
        if name == READING:
            self.section(READING_PARITY, parity.encoded(bytes(content), *parity.LAYER))

    def close(self) -> None:
        """Write the signature, if there is one; the stream stays open.

        Raises:
            ContainerError: chunks or sections are missing.
        """
        if self._index != self._grid.count:
            raise ContainerError(f"{self._index} of {self._grid.count} chunks were written")
        for name in self._behind:
            raise ContainerError(f"section {name!r} was not written")
        if self._signer is not None:
            roots = [(section, tree.root()) for section, tree in self._roots]
            signature = self._signer.sign(signed_message(self._head, roots, _SIGNATURE))
            self._stream.write(signature + self._tags.tag(f"section {SIGNATURE}", signature))

    def _write(self, data: Buffer) -> None:
        self._stream.write(data)
        if self._roots:
            self._roots[self._section][1].update(data)
