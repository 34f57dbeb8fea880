"""Reading a container: the header first, then a chunk at a time, each handed out only once its tag was found right."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from encdl.files.container import aes_wrap
from encdl.files.container.header import MAGIC, MAX_HEADER_BYTES, PREFIX, TAG_BYTES, VERSION, Header
from encdl.files.container.metadata import Metadata, unseal
from encdl.files.container.tags import ChunkTags, chunk_keys, sealing_key
from encdl.keys.derivation import ImageKeys
from encdl.keys.key import Opener, keys_for
from encdl.keys.secret_files import CONTAINER_MARK
from encdl.utils.errors import ContainerError, EncdlError

COPY = "get an intact copy"
OLD_VERSIONS = (1, 2)
_NAMED_SLICES = 20


@dataclass(frozen=True)
class Chunk:
    """A chunk as it was read.

    Attributes:
        index: its number.
        body: its ciphertext, filled up with zeros where bytes are missing.
        present: how many bytes of it were there.
        intact: whether its tag is right. If not, anyone may have changed the body.
    """

    index: int
    body: bytes
    present: int
    intact: bool


@dataclass(frozen=True)
class Head:
    """The beginning of a container.

    Attributes:
        header: what it says.
        raw: the bytes themselves, which all tags cover.
    """

    header: Header
    raw: bytes

    @property
    def chunks_start(self) -> int:
        """Where the first chunk begins."""
        return len(self.raw) + TAG_BYTES + self.header.sealed_bytes

    @property
    def file_bytes(self) -> int:
        """How long the whole file is."""
        header = self.header
        return self.chunks_start + header.body_bytes + TAG_BYTES * (header.grid.count + 1)


class ContainerReader:
    """An opened container, also in a wrapping of AES-256-GCM (`encdl.files.container.aes_wrap`).

    Args:
        stream: a binary stream that can seek; the container begins at its start.
        opener: the key, or a grant for the file or its study.
        where: what errors call the file.
        tolerant: read a damaged file as far as it goes: a wrong tag then shows in `Chunk.intact` and `problems`.

    Raises:
        ContainerError: not an EncDL file, of a newer version, cut, or changed after it was written.
        WrongKeyError: made with another key, or the grant is for something else.
    """

    def __init__(
        self,
        stream: BinaryIO,
        opener: Opener,
        where: str | os.PathLike[str] = "data",
        *,
        tolerant: bool = False,
    ) -> None:
        self.where, self.tolerant = str(where), tolerant
        self.problems: list[str] = []
        """What was found wrong with the file as a whole; damaged chunks are not among it."""
        stream, wrapped = aes_wrap.unwrapped(stream, opener, where, tolerant=tolerant)
        self.wrapped: bool = wrapped
        """Whether the container lies in a wrapping."""
        self._stream = stream
        self._head = head = self._read_head(stream)
        self.header: Header = head.header
        if not tolerant:
            check_length(self.where, head, size_of(stream))
        header = self.header
        self._keys = keys_for(
            self.where, "encrypted", opener, header.key_id, header.nonce_bytes, header.study
        )
        self._tags = ChunkTags(self._keys, head.raw)
        if not hmac.compare_digest(stream.read(TAG_BYTES), self._tags.header()):
            self._problem("its header was changed after it was written")
            check_length(self.where, head, size_of(stream))  # else a few bytes could ask for a terabyte
        self._sealed = stream.read(head.header.sealed_bytes)
        self.metadata: Metadata | None = self._unseal()
        """What the file holds beside its pixels; `None` if that is damaged, in a tolerant reader."""

    def keys(self, index: int) -> ImageKeys:
        """The sub-keys of chunk `index`."""
        return chunk_keys(self._keys, index)

    def chunks(self) -> Iterator[Chunk]:
        """Every chunk in order, from the first one each time this is called.

        What was yielded is authentic and in its place (but see `tolerant`). That nothing is missing at the end is
        known only when the iterator has ended: keep what was made of the chunks hidden until then.

        Raises:
            ContainerError: a chunk or the end was changed; names all slices that are damaged.
        """
        grid, tags = self.header.grid, hashlib.sha256()
        self._stream.seek(self._head.chunks_start)
        for index in range(grid.count):
            chunk, tag = self._next(index)
            if not chunk.intact and not self.tolerant:
                raise self._damaged(index)
            tags.update(tag)
            yield chunk
        end = self._stream.read(TAG_BYTES)
        if not hmac.compare_digest(end, self._tags.end(grid.count, self._sealed, tags.digest())):
            self._problem("its end was changed after it was written")

    def verify(self) -> None:
        """Read every chunk; raise `ContainerError` unless all is as it was written."""
        for _ in self.chunks():
            pass

    def nothing_left(self) -> bool:
        """Whether the file ends before its first chunk."""
        return size_of(self._stream) <= self._head.chunks_start

    def slices_of(self, chunks: list[int]) -> list[int]:
        """The slices that chunks lie in, each once, in order."""
        return list(dict.fromkeys(self.header.grid.place(index).slice for index in chunks))

    def _read_head(self, stream: BinaryIO) -> Head:
        try:
            return read_head(stream, self.where)
        except ContainerError:
            if not (self.wrapped and self.tolerant):
                raise
            raise ContainerError(
                f"{self.where}: the beginning of its wrapping is damaged, and the header with it: nothing is left to "
                f"salvage; {COPY}"
            ) from None

    def _next(self, index: int) -> tuple[Chunk, bytes]:
        length = self.header.grid.chunk_bytes(index)
        body = self._stream.read(length)
        tag = self._stream.read(TAG_BYTES)
        intact = len(body) == length and hmac.compare_digest(tag, self._tags.chunk(index, body))
        return Chunk(index, body.ljust(length, b"\0"), len(body), intact), tag

    def _damaged(self, index: int) -> ContainerError:
        """Read on from behind chunk `index`, which is damaged, and tell of all that are."""
        grid = self.header.grid
        damaged = [index]
        for number in range(index + 1, grid.count):
            place = grid.place(number).slice
            if not self._next(number)[0].intact and place != grid.place(damaged[-1]).slice:
                damaged.append(number)
        return ContainerError(
            f"{self.where}: {damaged_slices(self.slices_of(damaged), grid.slices)} changed after it was written "
            f"(the authentication tag does not fit): {COPY}, or try --salvage"
        )

    def _unseal(self) -> Metadata | None:
        try:
            return unseal(self._sealed, sealing_key(self._keys), self._head.raw)
        except ContainerError as error:
            self._problem(str(error))
            return None

    def _problem(self, text: str) -> None:
        if not self.tolerant:
            raise ContainerError(f"{self.where}: {text}: {COPY}, or try --salvage")
        if text not in self.problems:
            self.problems.append(text)


def damaged_slices(damaged: list[int], count: int) -> str:
    """Name slices in a sentence, counted from 1, before the word "changed"."""
    if count == 1:
        return "was"
    shown = ", ".join(str(number + 1) for number in damaged[:_NAMED_SLICES])
    more = f" and {len(damaged) - _NAMED_SLICES} more" if len(damaged) > _NAMED_SLICES else ""
    return f"slice{'s' * (len(damaged) > 1)} {shown}{more} of {count} {'were' if len(damaged) > 1 else 'was'}"


def size_of(stream: BinaryIO) -> int:
    """Bytes in a stream that can seek; it stays where it is."""
    here = stream.tell()
    end = stream.seek(0, os.SEEK_END)
    stream.seek(here)
    return end


def read_head(stream: BinaryIO, where: str) -> Head:
    """Read and check magic, version and header; leave the stream behind them.

    Raises:
        ContainerError: not an EncDL file, of a newer version, cut within the header, or a damaged header.
    """
    prefix = stream.read(PREFIX.size)
    _check_magic(where, prefix)
    if len(prefix) < PREFIX.size:
        raise ContainerError(f"{where}: is cut: {len(prefix)} bytes are no whole header: {COPY}")
    _, version, length = PREFIX.unpack(prefix)
    if version > VERSION:
        raise ContainerError(
            f"{where}: is of container version {version}, this EncDL reads up to {VERSION}: update EncDL"
        )
    if version in OLD_VERSIONS:
        raise ContainerError(
            f"{where}: was made by EncDL 0.1 (container version {version}), which this version does not open: decrypt "
            "it with EncDL 0.1, and encrypt it again"
        )
    if version < VERSION or not 1 <= length <= MAX_HEADER_BYTES:
        raise ContainerError(f"{where}: the header is damaged (version {version}, {length:,} bytes): {COPY}")
    encoded = stream.read(length)
    if len(encoded) < length:
        raise ContainerError(f"{where}: is cut in its header ({len(encoded)} of {length:,} bytes): {COPY}")
    try:
        return Head(Header.from_bytes(encoded), prefix + encoded)
    except EncdlError as error:
        raise ContainerError(f"{where}: {error}: it is damaged: {COPY}") from None


def check_length(where: str, head: Head, actual: int) -> None:
    """Raise `ContainerError` unless the file is as long as its header says."""
    expected = head.file_bytes
    if actual < expected:
        raise ContainerError(f"{where}: is cut ({actual:,} of {expected:,} bytes): {COPY}, or try --salvage")
    if actual > expected:
        raise ContainerError(
            f"{where}: has {actual - expected:,} bytes after its end: {COPY}, or try --salvage"
        )


def _check_magic(where: str, prefix: bytes) -> None:
    if not prefix:
        raise ContainerError(f"{where}: is empty (0 bytes): {COPY}")
    if prefix[: len(MAGIC)] == MAGIC[: len(prefix)]:
        return
    if aes_wrap.is_wrapped(prefix):
        raise ContainerError(
            f"{where}: is wrapped in AES-256-GCM: only with its key can be read what it says about itself"
        )
    if prefix.startswith((CONTAINER_MARK + b"\n", CONTAINER_MARK + b"\r\r")):
        raise ContainerError(f"{where}: was copied as text, which changes its bytes: copy it again as binary")
    raise ContainerError(f"{where}: is not an EncDL file: give a file made by `encdl encrypt`")
