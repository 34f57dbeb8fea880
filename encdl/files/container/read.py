"""Reading a container: what it says without a key; with the key a chunk at a time, each once its tags were right."""

from __future__ import annotations

import hmac
import io
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from cryptography.exceptions import InvalidTag

from encdl.files.container import aes_wrap, parity, recipients, repair, sections
from encdl.files.container.header import COPY, LOCATOR, PREFIX, SALVAGE, TAG_BYTES, Header, located, read_head
from encdl.files.container.metadata import ONCE, Metadata
from encdl.files.container.recipients import Recipients
from encdl.files.container.sections import (
    BLOCK_BYTES,
    BLOCK_TAG_BYTES,
    METADATA,
    PARITY,
    PIXELS,
    SIGNATURE,
    HashTree,
    Section,
    Tags,
    chunk_keys,
)
from encdl.keys.derivation import ImageKeys
from encdl.keys.key import Opener, keys_for
from encdl.keys.recipients import RecipientPublicKey
from encdl.keys.signing import PublicKey, signer_id
from encdl.utils.errors import ContainerError, WrongKeyError

_NAMED_SLICES = 20
_AT_ONCE = 2**20


@dataclass(frozen=True)
class Chunk:
    """A chunk as it was read.

    Attributes:
        index: its number.
        body: its ciphertext, filled up with zeros where bytes are missing.
        present: how many bytes of it were there.
        damaged: numbers of its blocks of 4 KiB whose tags are wrong; anyone may have changed them.
    """

    index: int
    body: bytes
    present: int
    damaged: tuple[int, ...] = ()


class PublicReader:
    """A container without a key: its header, the bytes of its sections, and whether a signature fits.

    Nothing of it is proven but by `check_signature`.

    Args:
        stream: a binary stream that can seek; the container begins at its start.
        where: what errors call the file.
        any_length: take a file that is cut, or has bytes after its end.

    Raises:
        ContainerError: not an EncDL file, wrapped, of a newer version, damaged, cut, or with bytes after its end.
    """

    def __init__(self, stream: BinaryIO, where: str | os.PathLike[str] = "data", *, any_length: bool = False) -> None:
        self.where = str(where)
        self._stream = stream
        stream.seek(0)
        self.header: Header
        self.header, self._head, locator = read_head(stream, self.where)
        self._header_tag = stream.read(TAG_BYTES)
        start = stream.read(sections.COUNT.size)
        try:
            if len(start) < sections.COUNT.size:
                raise ContainerError("is cut in its table of sections")
            length = sections.table_length(start)
            self._table = start + stream.read(length - len(start))
            if len(self._table) < length:
                raise ContainerError("is cut in its table of sections")
            self.sections: tuple[Section, ...] = sections.parse_table(self._table)
            """In the order in which they lie in the file."""
            grid = self.header.grid
            [pixels] = (section.length for section in self.sections if section.name == PIXELS)
            if pixels != grid.body_bytes + grid.blocks * BLOCK_TAG_BYTES:
                raise ContainerError(f"its table of sections is damaged (pixels of {pixels:,} bytes)")
        except ContainerError as error:
            raise ContainerError(f"{self.where}: {error}: {SALVAGE}") from None
        self._table_tag = stream.read(TAG_BYTES)
        self._starts, self._end = {}, stream.tell()
        for section in self.sections:
            self._starts[section.name] = self._end
            self._end += section.length
        self.recipients: Recipients | None = None
        """Whom the file's secret was sealed to, if anyone; without the key a claim."""
        self._check_recipients(stream, any_length)
        self._length = self.end
        if not any_length:
            self._check_length()
            self._check_locator(locator)

    @property
    def head(self) -> bytes:
        """Magic, version, header and header tag, as `verified_header` takes them; no locator."""
        return self._head + self._header_tag

    def section(self, name: str) -> bytes | None:
        """The content of a section without its tag, unverified; None if the file has no such section.

        Raises:
            ContainerError: the section is longer than 64 MiB, or cut.
        """
        raw = self._raw(name)
        return None if raw is None else raw[: -(BLOCK_TAG_BYTES if name == METADATA else TAG_BYTES)]

    def left(self) -> tuple[int, float, list[str]]:
        """What is there of a cut file: slices in full, the share of the pixels, and the sections in full."""
        size, grid, starts = size_of(self._stream), self.header.grid, self._starts
        lengths = {section.name: section.length for section in self.sections}
        there = max(0, min(lengths[PIXELS], size - starts[PIXELS]))
        sections = [name for name, start in starts.items() if start + lengths[name] <= size]
        return there // (lengths[PIXELS] // grid.slices), there / lengths[PIXELS], sections

    def is_hit(self) -> bool:
        """Whether what stands before the pixels is not what its parity says; by accident: who wants to mends it."""
        return repair.repaired(self._stream)[1]

    def check_signature(self, public: PublicKey) -> None:
        """Read the whole file; raise `ContainerError` unless the owner of the key signed it as it is.

        It covers header, metadata, pixels and every section before the signature. No key is taken from the file.
        """
        signature = self.section(SIGNATURE)
        if signature is None:
            raise ContainerError(f"{self.where}: is not signed: ask its owner for a signed one")
        roots, number = [], list(self._starts).index(SIGNATURE)
        for section in self.sections[:number]:
            tree, left = HashTree(), section.length
            self._stream.seek(self._starts[section.name])
            while left and (part := self._stream.read(min(left, _AT_ONCE))):
                tree.update(part)
                left -= len(part)
            roots.append((section, tree.root()))
        if not public.verifies(signature, sections.signed_message(self._head, roots, self.sections[number])):
            signer = signer_id(signature)
            reason = "was changed after it was signed" if signer == public.id else f"says it was signed with {signer}"
            raise ContainerError(
                f"{self.where}: {reason}; the signature does not fit public key {public.id}: do not use it"
            )

    def _raw(self, name: str) -> bytes | None:
        """A section with its tag."""
        if name not in self._starts:
            return None
        length = self.sections[list(self._starts).index(name)].length
        if length > sections.MAX_SECTION_BYTES:
            raise ContainerError(f"{self.where}: section {name!r} has {length:,} bytes, too many to read at once")
        self._stream.seek(self._starts[name])
        raw = self._stream.read(length)
        if len(raw) < length:
            raise ContainerError(f"{self.where}: is cut in its section {name!r}: {SALVAGE}")
        return raw

    def _check_locator(self, locator: bytes) -> None:
        """Raise `ContainerError` unless the parity is where the locator says, and as long as it has to be."""
        front = self._starts[METADATA] + self.sections[0].length - PREFIX.size - LOCATOR.size
        lengths = {section.name: section.length for section in self.sections}
        wrong = self.sections[0].name != METADATA or locator != located(self._head[: PREFIX.size], front)
        if PARITY in lengths:
            wrong = wrong or self.sections[1].name != PARITY
            wrong = wrong or lengths[PARITY] != parity.parity_length(front) + TAG_BYTES
        if wrong:
            raise ContainerError(f"{self.where}: its beginning is damaged (parity of {front:,} bytes): {SALVAGE}")

    def _check_recipients(self, stream: BinaryIO, any_length: bool) -> None:
        """Find the block of recipients behind a container, or behind its wrapping."""
        try:
            self.recipients, self.end = recipients.at_end(stream, repair=any_length)
        except ContainerError as error:
            self.end = size_of(stream)
            if not any_length:
                raise ContainerError(f"{self.where}: {error}: {SALVAGE}") from None

    def _check_length(self) -> None:
        """Raise `ContainerError` unless the file is as long as it says."""
        actual, expected = self._length, self._end
        if actual < expected:
            raise ContainerError(f"{self.where}: is cut ({actual:,} of {expected:,} bytes): {SALVAGE}")
        if actual > expected:
            raise ContainerError(f"{self.where}: has {actual - expected:,} bytes after its end: {SALVAGE}")


class ContainerReader(PublicReader):
    """A container opened with its key, also in a wrapping of AES-256-GCM (`encdl.files.container.aes_wrap`).

    Args:
        stream: a binary stream that can seek; the container begins at its start.
        opener: the key, or a grant for the file or its study.
        where: what errors call the file.
        tolerant: read a damaged file as far as it goes: a wrong tag then shows in `Chunk.damaged` and `problems`.

    Raises:
        ContainerError: not an EncDL file, of a newer version, cut, or changed after it was written.
        WrongKeyError: made with another key, or the grant is for something else.
    """

    def __init__(
        self, stream: BinaryIO, opener: Opener, where: str | os.PathLike[str] = "data", *, tolerant: bool = False
    ) -> None:
        self.tolerant = tolerant
        self.problems: list[str] = []
        """Defects of the file as a whole; damaged chunks are not among them."""
        inner, wrapping = aes_wrap.unwrapped(stream, opener, where, tolerant=tolerant)
        self.wrapped = wrapping is not None
        hit = False
        if tolerant:
            inner, hit = repair.repaired(inner)
        try:
            super().__init__(inner, where, any_length=tolerant)
        except ContainerError as error:
            if not tolerant:
                raise
            wrapped = f"{where}: the beginning of its wrapping is damaged, and the header with it: nothing is left"
            told = f"{wrapped} to salvage; {COPY}" if self.wrapped else str(error).replace(SALVAGE, COPY)
            raise ContainerError(told) from None
        if hit:
            self._problem("its beginning was hit, and repaired from the parity there")
        if wrapping is not None:
            self._check_recipients(stream, tolerant)
        self._addressed = self._head if wrapping is None else wrapping.to_bytes()
        facts = self.header.key_id, self.header.nonce_bytes, self.header.study
        try:
            self._opener = recipients.resolved(self.where, opener, self.recipients, self._addressed, *facts)
            self.image_keys: ImageKeys = keys_for(self.where, "encrypted", self._opener, *facts)
            """The sub-keys of the file; those of its chunks come from them."""
        except WrongKeyError:
            if tolerant or not repair.repaired(inner)[1]:
                raise
            raise ContainerError(f"{where}: its header is damaged, what it says of its key too: {SALVAGE}") from None
        self._tags = tags = Tags(self.image_keys, self._head)
        for what, found, right in (
            ("header", self._header_tag, tags.tag("header")),
            ("table of sections", self._table_tag, tags.tag("sections", self._table)),
        ):
            if not hmac.compare_digest(found, right):
                self._problem(f"its {what} was changed after it was written")
                self._check_length()  # else a few bytes could ask for a terabyte
        if self.recipients and not self.recipients.is_authentic(self.image_keys, self._addressed):
            self._problem("its list of recipients was changed after it was written")
        self.metadata: Metadata | None = self._unsealed()
        """The file's metadata; `None` if they are damaged, in a tolerant reader."""
        owner = self._opener.owner_secret(self.header.study)
        made = self.metadata
        if owner and made and not hmac.compare_digest(made.mark, made.marked(owner, self.image_keys.nonce).mark):
            self._problem("it was not made with the key, but by one who can open this file alone")

    def keys(self, index: int) -> ImageKeys:
        """The sub-keys of chunk `index`."""
        return chunk_keys(self.image_keys, index)

    def section(self, name: str) -> bytes | None:
        """The content of a section, once its tag was found right; None if there is none.

        Raises:
            ContainerError: it is longer than 64 MiB, cut or was changed; or it is the metadata, which `metadata` has.
        """
        raw = self._raw(name)
        if raw is None:
            return None
        content, tag = raw[:-TAG_BYTES], raw[-TAG_BYTES:]
        if name == METADATA or not hmac.compare_digest(tag, self._tags.tag(f"section {name}", content)):
            raise ContainerError(f"{self.where}: its section {name!r} was changed after it was written: {SALVAGE}")
        return content

    def readdressed(self, add: Sequence[RecipientPublicKey], remove: Sequence[str]) -> Recipients | None:
        """The block of recipients with some more, and without those of these ids; None if none is left.

        Raises:
            UsageError: nobody could open the file any more, or there are too many.
        """
        header, old = self.header, self.recipients
        there = {} if old is None else dict(zip(old.ids, old.entries, strict=True))
        secret = self._opener.image_secret(header.nonce_bytes, header.study)
        more = {public.id: recipients.sealed(secret, public, self._addressed) for public in add}
        entries = [entry for name, entry in (there | more | there).items() if name not in remove]
        recipients.check_some_left(self.where, header.key_id, entries)
        return Recipients.made(entries, self.image_keys, self._addressed) if entries else None

    def chunks(self, number: int | None = None) -> Iterator[Chunk]:
        """Every chunk in order, from the first one each time this is called; or those of slice `number` alone.

        What was yielded is authentic and in its place (but see `tolerant`). That nothing is missing at the end is
        known only when the iterator has ended: keep what was made of the chunks hidden until then.

        Raises:
            ContainerError: a chunk was changed; names all slices that are damaged. Or a section behind them was.
        """
        grid, place = self.header.grid, self._starts[PIXELS]
        tiles, length = grid.count // grid.slices, grid.body_bytes + grid.blocks * BLOCK_TAG_BYTES
        wanted = range(grid.count) if number is None else range(number * tiles, (number + 1) * tiles)
        place += (number or 0) * (length // grid.slices)  # slices are as long as each other
        for index in wanted:
            self._stream.seek(place)  # whoever takes the chunks may read sections meanwhile
            chunk = self._next(index)
            place = self._stream.tell()
            if chunk.damaged and not self.tolerant:
                raise self._damaged(index)
            yield chunk
        for section in self.sections if number is None else ():
            if section.name not in (METADATA, PIXELS) and section.length <= sections.MAX_SECTION_BYTES:
                try:
                    self.section(section.name)
                except ContainerError as error:
                    self._problem(str(error).removeprefix(f"{self.where}: ").partition(": ")[0])

    def verify(self) -> None:
        """Read every chunk and section; raise `ContainerError` unless all is as it was written."""
        for _ in self.chunks():
            pass

    def nothing_left(self) -> bool:
        """Whether the file ends before its first chunk."""
        return size_of(self._stream) <= self._starts[PIXELS]

    def slices_of(self, chunks: list[int]) -> list[int]:
        """The slices that chunks lie in, each once, in order."""
        return list(dict.fromkeys(self.header.grid.place(index).slice for index in chunks))

    def _next(self, index: int) -> Chunk:
        length = math.prod(self.header.grid.form(index))
        read = self._stream.read(length)
        body = read if len(read) == length else read.ljust(length, b"\0")
        right = self._tags.blocks(index, body)
        tags = self._stream.read(len(right))
        if hmac.compare_digest(tags, right):
            return Chunk(index, body, length)
        size = BLOCK_TAG_BYTES
        damaged = [
            number
            for number in range(len(right) // size)
            if not hmac.compare_digest(
                tags[number * size : (number + 1) * size], right[number * size : (number + 1) * size]
            )
            or min((number + 1) * BLOCK_BYTES, length) > len(read)
        ]
        return Chunk(index, body, len(read), tuple(damaged))

    def _damaged(self, index: int) -> ContainerError:
        """Read on from behind chunk `index`, which is damaged, and tell of all that are."""
        grid = self.header.grid
        damaged = [index]
        for number in range(index + 1, grid.count):
            place = grid.place(number).slice
            if self._next(number).damaged and place != grid.place(damaged[-1]).slice:
                damaged.append(number)
        return ContainerError(
            f"{self.where}: {damaged_slices(self.slices_of(damaged), grid.slices)} changed after it was written "
            f"(the authentication tag does not fit): {SALVAGE}"
        )

    def _unsealed(self) -> Metadata | None:
        try:
            return Metadata.from_bytes(self._tags.sealing.decrypt(ONCE, self._raw(METADATA) or b"", self._head))
        except InvalidTag:
            self._problem("its metadata were changed after they were written")
            return None
        except ContainerError as error:  # cut, or another program sealed what is no metadata
            self._problem(str(error).removeprefix(f"{self.where}: "))
            return None

    def _problem(self, text: str) -> None:
        if not self.tolerant:
            raise ContainerError(f"{self.where}: {text}: {SALVAGE}")
        if text not in self.problems:
            self.problems.append(text)


def verified_header(head: bytes, opener: Opener, where: object = "header") -> tuple[Header, ImageKeys]:
    """The header in a file's first bytes (`PublicReader.head`), and the file's sub-keys, without the rest of it.

    Raises:
        ContainerError: they are no header, or the tag is not the key's.
        WrongKeyError: made with another key, or the grant is for something else.
    """
    stream = io.BytesIO(head)
    header, raw, _ = read_head(stream, str(where), locator=False)
    keys = keys_for(where, "encrypted", opener, header.key_id, header.nonce_bytes, header.study)
    if not hmac.compare_digest(stream.read(), Tags(keys, raw).tag("header")):
        raise ContainerError(f"{where}: was changed after it was written: {COPY}")
    return header, keys


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
