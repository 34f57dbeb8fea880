"""The keys of a container's parts, and the tags that authenticate them.

All come from the sub-keys of the file (`ImageKeys`) by HKDF-Expand, each for one use alone. Chunk i has planes,
permutation and diffusion keys of its own, so that no key plane serves twice.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from encdl.keys.derivation import SECRET_BYTES, ImageKeys

Buffer = bytes | bytearray | memoryview


class ChunkTags:
    """HMAC-SHA256 over what a part is, the whole header, and the part itself."""

    def __init__(self, keys: ImageKeys, head: bytes) -> None:
        self._key = _expand(keys.authentication, b"encdl container tags")
        self._head = hashlib.sha256(head).digest()

    def header(self) -> bytes:
        """The tag behind the header."""
        return self._tag(b"header")

    def chunk(self, index: int, body: Buffer) -> bytes:
        """The tag behind chunk `index`."""
        return self._tag(b"chunk", _number(index), body)

    def end(self, count: int, sealed: Buffer, tags: bytes) -> bytes:
        """The tag at the end: of the number of chunks, the sealed section, and SHA-256 of all chunks' tags."""
        return self._tag(b"end", _number(count), hashlib.sha256(sealed).digest(), tags)

    def _tag(self, part: bytes, *content: Buffer) -> bytes:
        mac = hmac.new(self._key, part.ljust(16, b"\0") + self._head, hashlib.sha256)
        for piece in content:
            mac.update(piece)
        return mac.digest()


def sealing_key(keys: ImageKeys) -> bytes:
    """The key of the file's sealed section, 32 bytes."""
    return _expand(keys.authentication, b"encdl container metadata")


def chunk_keys(keys: ImageKeys, index: int) -> ImageKeys:
    """The sub-keys of chunk `index`: planes, permutation and diffusion are its own."""
    info = b"encdl chunk" + _number(index)
    secrets = keys.planes, keys.permutation, keys.diffusion
    planes, permutation, diffusion = (_expand(secret, info) for secret in secrets)
    return replace(keys, planes=planes, permutation=permutation, diffusion=diffusion)


def _expand(secret: bytes, info: bytes) -> bytes:
    return HKDFExpand(SHA256(), SECRET_BYTES, info).derive(secret)


def _number(value: int) -> bytes:
    return value.to_bytes(8, "little")
