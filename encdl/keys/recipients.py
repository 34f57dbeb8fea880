"""Recipients: X25519 keys to whose public halves secrets are sealed by HPKE (RFC 9180).

The suite is DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305, in base mode; what the secret is for goes into
HPKE's `info`. A sealed grant is one line `encdl-sealed-1:B64(header):B64(encapsulated key, ciphertext and tag)`.
"""

from __future__ import annotations

import json
import os
import re
from typing import Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from encdl.keys import secret_files
from encdl.keys.derivation import ImageKeys
from encdl.keys.key_pairs import PublicHalf, SecretHalf
from encdl.keys.secret_files import decode_field, encode_field
from encdl.utils import canonical_json
from encdl.utils.errors import KeyFileError, UsageError

OVERHEAD: Final = 48
"""Bytes by which a sealed secret is longer: the encapsulated key and the tag."""

_GRANT_INFO: Final = b"encdl sealed grant v1\0"
_SUITE: Final = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)


class RecipientPublicKey(PublicHalf):
    """Seals secrets to its owner."""

    prefix = secret_files.RECIPIENT_PUBLIC_PREFIX

    def seal(self, secret: bytes, info: bytes) -> bytes:
        """Encapsulated key (32 bytes), ciphertext and tag (16 bytes) of a secret.

        Args:
            secret: what to seal.
            info: what it is for, and which file's or grant's it is; opens under the same alone.

        Raises:
            UsageError: the key is one that X25519 agrees on nothing with.
        """
        try:
            return _SUITE.encrypt(secret, X25519PublicKey.from_public_bytes(self.raw), info=info)
        except ValueError:
            raise UsageError(f"the recipient's public key {self.id} is not usable: ask for another") from None


class RecipientKey(SecretHalf):
    """Opens what was sealed to its public half, and so the files that name it as a recipient.

    It stands where a `Key` or `Grant` does; `encdl.files.container` takes from each file what was sealed to it.
    """

    prefix, kind = secret_files.RECIPIENT_PREFIX, "recipient"
    __slots__ = ()

    @property
    def public(self) -> RecipientPublicKey:
        """The public half, with which others seal."""
        key = X25519PrivateKey.from_private_bytes(self._secret)
        return RecipientPublicKey(key.public_key().public_bytes_raw())

    @property
    def key_id(self) -> str:
        """The id of its public half."""
        return self.public.id

    def open(self, sealed: bytes, info: bytes) -> bytes | None:
        """Undo `RecipientPublicKey.seal`; None if it was sealed to another, for something else, or changed."""
        try:
            return _SUITE.decrypt(sealed, X25519PrivateKey.from_private_bytes(self._secret), info=info)
        except (InvalidTag, ValueError):
            return None

    def image_secret(self, nonce: bytes, study: str = "") -> NoReturn:
        """A recipient's key makes no file; raises `UsageError`."""
        raise UsageError(
            f"recipient key {self.key_id} opens files that were sealed to it, and makes none: give a master key or a "
            "grant for a study here, and its public key with --recipient"
        )

    def image_keys(self, nonce: bytes, study: str = "") -> ImageKeys:
        """As `image_secret`."""
        self.image_secret(nonce, study)

    def nonce_secret(self, study: str = "") -> bytes:
        """As `image_secret`."""
        self.image_secret(b"", study)

    def owner_secret(self, study: str = "") -> bytes | None:
        """As `image_secret`."""
        self.image_secret(b"", study)


def seal_line(line: bytes, key_id: str, to: RecipientPublicKey) -> bytes:
    """Seal the line of a grant file to a recipient.

    Args:
        line: as `secret_files.make_line` gives it.
        key_id: id of the master key that the grant comes from; stays readable.
        to: who shall open it.
    """
    header = canonical_json.encoded({"key_id": key_id, "to": to.id})
    head = f"{secret_files.SEALED_PREFIX}:{encode_field(header)}"
    return f"{head}:{encode_field(to.seal(line, _GRANT_INFO + head.encode()))}\n".encode("ascii")


def sealed_to(where: str | os.PathLike[str], line: str) -> dict[str, str] | None:
    """The header of a sealed grant's line, `key_id` and `to`; None if it is no sealed grant.

    Raises:
        KeyFileError: it is one, and damaged.
    """
    if not line.startswith(f"{secret_files.SEALED_PREFIX}:"):
        return None
    try:
        _, field, _ = line.split(":")
        values = json.loads(decode_field(field))
        if set(values) == {"key_id", "to"} and all(re.fullmatch("[0-9a-f]{16}", value) for value in values.values()):
            return dict(values)
    except (ValueError, TypeError, RecursionError):
        pass
    raise KeyFileError(f"{where} is not a sealed grant that this EncDL can read: ask for a new one")


def unseal_line(where: str | os.PathLike[str], line: str, key: RecipientKey | None) -> str:
    """The line of a grant file, opened if it was sealed.

    Raises:
        KeyFileError: it was sealed to another, changed, or `key` is missing.
    """
    header = sealed_to(where, line)
    if header is None:
        return line
    if key is None:
        raise KeyFileError(f"{where} is a grant sealed to recipient {header['to']}: give --recipient-key too")
    head, _, sealed = line.rpartition(":")
    opened = key.open(decode_field(sealed), _GRANT_INFO + head.encode()) if header["to"] == key.key_id else None
    if opened is None:
        mine = "it was changed" if header["to"] == key.key_id else f"yours is {key.key_id}"
        raise KeyFileError(f"{where} is a grant sealed to recipient {header['to']}, and {mine}: ask for a new one")
    return opened.decode("ascii", "replace").strip()
