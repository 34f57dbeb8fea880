"""The keys of a container's parts, and the tags that authenticate them.

All come from the sub-keys of the file (`ImageKeys`) by HKDF-Expand, each for one use alone. Chunk i has planes,
permutation and diffusion keys of its own, so that no key plane serves twice.
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from encdl.files.container.sections import BLOCK_BYTES, Buffer
from encdl.keys.derivation import SECRET_BYTES, ImageKeys

BLOCK_TAG_BYTES = 16


class Tags:
    """HMAC-SHA256 over what a part is, the whole header, and the part itself; for the blocks of chunks GMAC.

    GMAC (AES-256-GCM with nothing to encrypt, NIST SP 800-38D) takes a third of the time. Its key is this header's, so
    that a tag fits no other file; its nonce is the place of the block, which a file has once.
    """

    def __init__(self, keys: ImageKeys, head: bytes) -> None:
        self.sealing_key: bytes = _expand(keys.authentication, b"encdl container metadata")
        """Of the metadata."""
        self._key = _expand(keys.authentication, b"encdl container tags")
        self._head = hashlib.sha256(head).digest()
        self._blocks = AESGCM(_expand(keys.authentication, b"encdl container blocks" + self._head)).encrypt

    def header(self) -> bytes:
        """The tag behind the header."""
        return self._tag(b"header", b"")

    def table(self, table: Buffer) -> bytes:
        """The tag behind the table of sections."""
        return self._tag(b"sections", table)

    def section(self, name: str, content: Buffer) -> bytes:
        """The tag at the end of a section."""
        return self._tag(b"section " + name.encode("ascii"), content)

    def blocks(self, index: int, body: Buffer) -> bytes:
        """The tags behind chunk `index`, 16 bytes for every 4 KiB of it."""
        tag, view, chunk = self._blocks, memoryview(body), index.to_bytes(8, "little")
        starts = range(0, len(view), BLOCK_BYTES)
        return b"".join(
            [
                tag(chunk + number.to_bytes(4, "little"), b"", view[start : start + BLOCK_BYTES])
                for number, start in enumerate(starts)
            ]
        )

    def _tag(self, part: bytes, content: Buffer) -> bytes:
        mac = hmac.new(self._key, part.ljust(32, b"\0") + self._head, hashlib.sha256)
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
