"""Ed25519 keys (RFC 8032): the owner signs files, and whoever has the public key can verify and not forge."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from encdl.keys import secret_files
from encdl.keys.key_pairs import ID_BYTES, PublicHalf, SecretHalf

SIGNATURE_BYTES: Final = 72
"""Of a signature with the id of its key before it."""


class PublicKey(PublicHalf):
    """Verifies signatures."""

    prefix = secret_files.PUBLIC_PREFIX

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the owner of this key signed the message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature[ID_BYTES:], message)
        except InvalidSignature:
            return False
        return signature[:ID_BYTES].hex() == self.id


class SigningKey(SecretHalf):
    """Signs files; the 32 secret bytes are RFC 8032's seed."""

    prefix, kind = secret_files.SIGNING_PREFIX, "signing"
    __slots__ = ()

    @property
    def public(self) -> PublicKey:
        """The public half, which verifies."""
        return PublicKey(self._key.public_key().public_bytes_raw())

    @property
    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self._secret)

    def sign(self, message: bytes) -> bytes:
        """The id of the key, 8 bytes, and the signature of the message, 64."""
        return bytes.fromhex(self.public.id) + self._key.sign(message)


def signer_id(signature: bytes) -> str:
    """The id of the key that a signature says it was made with; a hint, which proves nothing."""
    return signature[:ID_BYTES].hex()
