"""The sections of a container: the table that lists them, the keys and tags that authenticate them, and the signature.

    number of sections 2 | (name 15 | flags 1 | length 8)... | tag 32

A reader skips what it does not know, unless the section is marked as critical.

All keys come from the sub-keys of the file (`ImageKeys`) by HKDF-Expand, each for one use alone. Chunk i has planes,
permutation and diffusion keys of its own, so that no key plane serves twice. A signature covers an unkeyed tree of
hashes.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from encdl.keys.derivation import SECRET_BYTES, ImageKeys
from encdl.utils.errors import ContainerError

METADATA: Final = "metadata"
PIXELS: Final = "pixels"
PARITY: Final = "parity"
READING: Final = "reading"
READING_PARITY: Final = "reading-parity"
SERIES: Final = "series"
SIGNATURE: Final = "signature"
KNOWN: Final = (METADATA, PARITY, PIXELS, SERIES, READING, READING_PARITY, SIGNATURE)

COUNT: Final = struct.Struct("<H")
MAX_SECTIONS: Final = 64
MAX_SECTION_BYTES: Final = 2**26
"""Of a section that is read as a whole: of all but the pixels and those that are not known."""
BLOCK_BYTES: Final = 4096
"""Ciphertext under one tag, and a leaf of the tree."""

BLOCK_TAG_BYTES: Final = 16

_ENTRY: Final = struct.Struct("<15sBQ")
_NAME: Final = re.compile(rb"([a-z][a-z0-9-]{0,14})\0*")
_CRITICAL: Final = 1
_MAX_LENGTH: Final = 2**48

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Section:
    """An entry of the table.

    Attributes:
        name: 1 to 15 of a-z, 0-9 and hyphen, the first a letter.
        length: bytes in the file, its tag included.
        critical: whether a reader that does not know the section must refuse the file.
    """

    name: str
    length: int
    critical: bool = False

    def to_bytes(self) -> bytes:
        """The entry, 24 bytes."""
        return _ENTRY.pack(self.name.encode("ascii"), self.critical * _CRITICAL, self.length)


def table_bytes(sections: Sequence[Section]) -> bytes:
    """The table without its tag."""
    return COUNT.pack(len(sections)) + b"".join(section.to_bytes() for section in sections)


def table_size(count: int) -> int:
    """Bytes of a table of so many sections, without its tag."""
    return COUNT.size + count * _ENTRY.size


def table_length(start: bytes) -> int:
    """Bytes of a table, without its tag, that begins with these two; `ContainerError` for more sections than may be."""
    count: int = COUNT.unpack(start)[0]
    if not 1 <= count <= MAX_SECTIONS:
        raise ContainerError(f"its table of sections is damaged ({count} sections)")
    return table_size(count)


def parse_table(table: bytes) -> tuple[Section, ...]:
    """The sections of a table from an untrusted file.

    Raises:
        ContainerError: an entry that cannot be, a name that stands twice, or a section that must be known and is not.
    """
    found: list[Section] = []
    for raw, flags, length in _ENTRY.iter_unpack(table[COUNT.size :]):
        name = _NAME.fullmatch(raw)
        if name is None or flags & ~_CRITICAL or length > _MAX_LENGTH:
            raise ContainerError(f"its table of sections is damaged (section {len(found) + 1})")
        found.append(Section(name[1].decode("ascii"), length, bool(flags)))
    names = [section.name for section in found]
    if len(set(names)) < len(names) or not {METADATA, PIXELS} <= set(names):
        raise ContainerError("its table of sections is damaged (a section is missing, or there twice)")
    for section in found:
        if section.critical and section.name not in KNOWN:
            raise ContainerError(f"has a section {section.name!r} that this EncDL does not know: update EncDL")
        if section.name in KNOWN and section.name != PIXELS and section.length > MAX_SECTION_BYTES:
            raise ContainerError(f"its table of sections is damaged ({section.name} of {section.length:,} bytes)")
    return tuple(found)


class Tags:
    """HMAC-SHA256 over what a part is, the whole header, and the part itself; for the blocks of chunks GMAC.

    GMAC (AES-256-GCM with nothing to encrypt, NIST SP 800-38D) takes a third of the time. Its key is this header's, so
    that a tag fits no other file; its nonce is the place of the block, which a file has once.
    """

    def __init__(self, keys: ImageKeys, head: bytes) -> None:
        self.sealing = AESGCM(_expand(keys.authentication, b"encdl container metadata"))
        """Of the metadata, once, together with the file's first bytes."""
        self._key = _expand(keys.authentication, b"encdl container tags")
        self._head = hashlib.sha256(head).digest()
        self._blocks = AESGCM(_expand(keys.authentication, b"encdl container blocks" + self._head)).encrypt

    def blocks(self, index: int, body: Buffer) -> bytes:
        """The tags behind chunk `index`, 16 bytes for every 4 KiB of it."""
        view, chunk = memoryview(body), index.to_bytes(8, "little")
        starts = range(0, len(view), BLOCK_BYTES)
        nonces = [chunk + number.to_bytes(4, "little") for number in range(len(starts))]
        blocks = [view[start : start + BLOCK_BYTES] for start in starts]
        return b"".join(map(self._blocks, nonces, itertools.repeat(b""), blocks))

    def tag(self, part: str, content: Buffer = b"") -> bytes:
        """The tag behind a part: "header", "sections" (the table of them), or "section NAME"."""
        mac = hmac.new(self._key, part.encode("ascii").ljust(32, b"\0") + self._head, hashlib.sha256)
        mac.update(content)
        return mac.digest()


def chunk_keys(keys: ImageKeys, index: int) -> ImageKeys:
    """The sub-keys of chunk `index`: planes, permutation and diffusion are its own."""
    info = b"encdl chunk" + index.to_bytes(8, "little")
    secrets = keys.planes, keys.permutation, keys.diffusion
    planes, permutation, diffusion = (_expand(secret, info) for secret in secrets)
    return ImageKeys(planes, permutation, diffusion, keys.authentication, keys.wrap, keys.reading, keys.nonce)


def recipients_key(keys: ImageKeys) -> bytes:
    """The key of the MAC over the block of recipients."""
    return _expand(keys.authentication, b"encdl container recipients")


def _expand(secret: bytes, info: bytes) -> bytes:
    return HKDFExpand(SHA256(), SECRET_BYTES, info).derive(secret)


class HashTree:
    """The root of a Merkle tree of SHA-256 over blocks of 4 KiB, as RFC 6962 has it, of bytes that come in pieces.

    A leaf is SHA-256(00, block), a node SHA-256(01, left, right), and the left side of n leaves holds the largest power
    of two below n. Memory: one block, and a hash a level.
    """

    def __init__(self) -> None:
        self._waiting, self._count, self._roots = bytearray(), 0, list[bytes]()

    def update(self, data: Buffer) -> None:
        """Take in what follows."""
        view = memoryview(data).cast("B")
        start = 0
        if self._waiting:
            start = min(BLOCK_BYTES - len(self._waiting), len(view))
            self._waiting += view[:start]
            if len(self._waiting) == BLOCK_BYTES:
                self._leaf(self._waiting)
                self._waiting.clear()
        whole = start + (len(view) - start) // BLOCK_BYTES * BLOCK_BYTES
        for place in range(start, whole, BLOCK_BYTES):
            self._leaf(view[place : place + BLOCK_BYTES])
        self._waiting += view[whole:]

    def root(self) -> bytes:
        """The root, 32 bytes; that of nothing is the leaf of an empty block."""
        if self._waiting or not self._count:
            self._leaf(self._waiting)
            self._waiting.clear()
        *roots, last = self._roots
        for left in reversed(roots):
            last = _node(left, last)
        return last

    def _leaf(self, block: Buffer) -> None:
        leaf = hashlib.sha256(b"\0")
        leaf.update(block)
        self._count += 1
        found, count = leaf.digest(), self._count
        while count % 2 == 0:  # a whole pair, at this level
            found, count = _node(self._roots.pop(), found), count // 2
        self._roots.append(found)


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def signed_message(head: Buffer, roots: Sequence[tuple[Section, bytes]], signature: Section) -> bytes:
    """The signed message: the file's first bytes, entry and root of every section before it, and its own entry."""
    parts = [b"encdl signature v1\0", hashlib.sha256(head).digest()]
    for section, root in roots:
        parts += [section.to_bytes(), root]
    return b"".join([*parts, signature.to_bytes()])
