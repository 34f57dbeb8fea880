"""Ed25519 keys (RFC 8032): the owner signs files, and whoever has the public key can verify and not forge.

A signing key's file is one line as a master key's is, and as secret; a public key's is one line for anyone.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from encdl.keys import passphrases, secret_files
from encdl.keys.derivation import Unpicklable
from encdl.keys.passphrases import Asked, Passphrase

SIGNATURE_BYTES: Final = 72
"""Of a signature with the id of its key before it."""
PUBLIC_SUFFIX: Final = ".pub"

_ID_BYTES: Final = 8


class PublicKey:
    """Verifies signatures.

    Args:
        raw: the key, 32 bytes.
    """

    def __init__(self, raw: bytes) -> None:
        self._raw = bytes(raw)
        self._key = Ed25519PublicKey.from_public_bytes(self._raw)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PublicKey:
        """Read a public key's file.

        Raises:
            KeyFileError: missing, unreadable, of another kind, or damaged.
        """
        return cls(secret_files.parse(path, secret_files.read(path), (secret_files.PUBLIC_PREFIX,))[1])

    def save(self, path: str | os.PathLike[str], force: bool = False) -> None:
        """Write the key's file, which anyone may read; errors as `Key.save`."""
        line = secret_files.make_line([secret_files.PUBLIC_PREFIX], self._raw)
        secret_files.write(path, line, force=force)
        if os.name == "posix":
            Path(path).chmod(0o644)

    @property
    def id(self) -> str:
        """The key's name, the start of its SHA-256: 16 hexadecimal characters."""
        return hashlib.sha256(self._raw).hexdigest()[: 2 * _ID_BYTES]

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the owner of this key signed the message."""
        try:
            self._key.verify(signature[_ID_BYTES:], message)
        except InvalidSignature:
            return False
        return signature[:_ID_BYTES].hex() == self.id


class SigningKey(Unpicklable):
    """Signs files; the bytes show in no repr, no error and no pickle.

    Args:
        secret: the seed, 32 bytes.
    """

    __slots__ = ("_key", "_secret", "public")

    def __init__(self, secret: bytes) -> None:
        self._secret = bytes(secret)
        self._key = Ed25519PrivateKey.from_private_bytes(self._secret)
        self.public = PublicKey(self._key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key from the operating system's generator."""
        return cls(secrets.token_bytes(32))

    @classmethod
    def load(cls, path: str | os.PathLike[str], passphrase: Asked = None) -> SigningKey:
        """Read a signing key's file; arguments and errors as `Key.load`."""
        line = passphrases.unlock(path, secret_files.read(path), passphrase)
        return cls(secret_files.parse(path, line, (secret_files.SIGNING_PREFIX,))[1])

    def save(self, path: str | os.PathLike[str], force: bool = False, passphrase: Passphrase | None = None) -> None:
        """Write the key to a file that only its owner can read; arguments and errors as `Key.save`."""
        line = secret_files.make_line([secret_files.SIGNING_PREFIX], self._secret)
        if passphrase is not None:
            line = passphrases.lock(line, "signing", self.public.id, passphrase)
        secret_files.write(path, line, force=force)

    def sign(self, message: bytes) -> bytes:
        """The id of the key, 8 bytes, and the signature of the message, 64."""
        return bytes.fromhex(self.public.id) + self._key.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey(id={self.public.id})"


def signer_id(signature: bytes) -> str:
    """The id of the key that a signature says it was made with; a hint, which proves nothing."""
    return signature[:_ID_BYTES].hex()
