"""The master key, what opens a file (a `Key` or a `Grant`), and the nonces that give each image its own keys."""

from __future__ import annotations

import hmac
import os
import secrets
from datetime import datetime
from typing import Protocol

from encdl.keys import derivation, passphrases, secret_files
from encdl.keys.derivation import ImageKeys, Unpicklable
from encdl.keys.grant import Grant
from encdl.keys.passphrases import Asked, Passphrase
from encdl.keys.recipients import RecipientKey, unseal_line
from encdl.utils.errors import UsageError, WrongKeyError

__all__ = [
    "NO_KEY",
    "AnyOpener",
    "Grant",
    "ImageKeys",
    "Key",
    "Opener",
    "RecipientKey",
    "RecipientsAlone",
    "load_opener",
    "parse_opener",
    "random_nonce",
    "study_for",
    "synthetic_nonce",
]

NO_KEY = "0" * 16
"""Stands for the key's id in files that no master key opens."""


class Opener(Protocol):
    """The common interface of `Key`, `Grant` and `RecipientKey`: they open files."""

    @property
    def key_id(self) -> str:
        """The id of the master key behind it: 16 hexadecimal characters."""
        ...

    def image_secret(self, nonce: bytes, study: str = "") -> bytes:
        """The secret of the image with this nonce in this study, 32 bytes, or `WrongKeyError`."""
        ...

    def image_keys(self, nonce: bytes, study: str = "") -> ImageKeys:
        """The sub-keys that come from `image_secret`."""
        ...

    def nonce_secret(self, study: str = "") -> bytes:
        """The secret behind synthetic nonces in this study, or `WrongKeyError`."""
        ...

    def owner_secret(self, study: str = "") -> bytes | None:
        """The secret that marks files of this study as its owner's; None for what opens one file alone."""
        ...


class Key(Unpicklable):
    """A master key: 32 random bytes that open all files of their owner.

    The bytes show in no repr, no error and no pickle. Two keys are compared in constant time.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) != derivation.SECRET_BYTES:
            raise UsageError(f"a key has {derivation.SECRET_BYTES} bytes, this one {len(secret)}: use Key.generate()")
        self._secret = bytes(secret)

    @classmethod
    def generate(cls) -> Key:
        """A new key from the operating system's generator."""
        return cls(secrets.token_bytes(derivation.SECRET_BYTES))

    @classmethod
    def load(cls, path: str | os.PathLike[str], passphrase: Asked = None) -> Key:
        """Read a key file.

        Args:
            path: the file.
            passphrase: the passphrase, or what asks for it, in case the file is locked with one.

        Raises:
            KeyFileError: missing, unreadable, of another kind, damaged, or locked with another passphrase.
        """
        line = passphrases.unlock(path, secret_files.read(path), passphrase)
        return cls(secret_files.parse(path, line, (secret_files.KEY_PREFIX,))[1])

    def save(self, path: str | os.PathLike[str], force: bool = False, passphrase: Passphrase | None = None) -> None:
        """Write the key to a file that only its owner can read.

        Args:
            path: where to.
            force: replace a file that is there already.
            passphrase: lock the file with it.

        Raises:
            OutputExistsError: the file is there and `force` is False.
            KeyFileError: it cannot be written.
            UsageError: the passphrase is too short.
        """
        line = secret_files.make_line([secret_files.KEY_PREFIX], self._secret)
        if passphrase is not None:
            line = passphrases.lock(line, "key", self.id, passphrase)
        secret_files.write(path, line, force=force)

    is_private = staticmethod(secret_files.is_private)

    @property
    def key_id(self) -> str:
        """The key's public name: 16 hexadecimal characters, which do not lead back to it."""
        return derivation.hkdf(self._secret, b"encdl key id", length=8).hex()

    id = key_id

    def image_secret(self, nonce: bytes, study: str = "") -> bytes:
        """The secret of the image with this nonce in this study, 32 bytes.

        Raises:
            UsageError: the nonce is not 16 bytes, or the study's name cannot be one.
        """
        return derivation.image_secret(derivation.study_secret(self._secret, study), nonce)

    def image_keys(self, nonce: bytes, study: str = "") -> ImageKeys:
        """The sub-keys of the image with this nonce in this study; errors as `image_secret`."""
        return derivation.image_keys(self.image_secret(nonce, study), bytes(nonce))

    def nonce_secret(self, study: str = "") -> bytes:
        """The secret behind synthetic nonces (see `encdl.keys.key`)."""
        return derivation.hkdf(derivation.study_secret(self._secret, study), derivation.OF_NONCES)

    def owner_secret(self, study: str = "") -> bytes:
        """The secret that marks files of a study as its owner's."""
        return derivation.hkdf(derivation.study_secret(self._secret, study), derivation.OF_OWNER)

    def grant_study(self, name: str, expires: datetime | None = None) -> Grant:
        """A grant for every file of a study, those to come included.

        Args:
            name: the study.
            expires: when EncDL's tools shall begin to refuse it, with a time zone; None for never.

        Raises:
            UsageError: the name is empty, or cannot be a study's; or `expires` has no time zone.
        """
        secret = derivation.study_secret(self._secret, name)
        return Grant.issue(self._secret, name, None, self.id, secret, expires)

    study = grant_study

    def grant_file(self, nonce: bytes, study: str = "", expires: datetime | None = None) -> Grant:
        """A grant for the one file with this nonce.

        Args:
            nonce: the file's, 16 bytes.
            study: the study that the file belongs to.
            expires: when EncDL's tools shall begin to refuse it, with a time zone; None for never.

        Raises:
            UsageError: the nonce is not 16 bytes, the study's name cannot be one, or `expires` has no time zone.
        """
        of_study = derivation.study_secret(self._secret, study)
        secret = derivation.image_secret(of_study, nonce)
        return Grant.issue(of_study, study, nonce, self.id, secret, expires)

    def has_issued(self, grant: Grant) -> bool:
        """Whether scope and expiry of a grant are as they were when it was made from this key.

        Of a grant for one file, whoever holds the grant for its study could have made it too. Files of version 1
        have no mark, so that the answer is no.
        """
        of_study = derivation.study_secret(self._secret, grant.study)
        secret = of_study if grant.nonce is None else derivation.image_secret(of_study, grant.nonce)
        issuer = self._secret if grant.nonce is None else of_study
        return grant.key_id == self.id and grant.is_issued_by(issuer, secret)

    def __repr__(self) -> str:
        return f"Key(id={self.id})"

    def __eq__(self, other: object) -> bool:
        return hmac.compare_digest(self._secret, other._secret) if isinstance(other, Key) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)


class RecipientsAlone(Key):
    """A key that is thrown away: what it encrypts opens for recipients, and for no master key."""

    __slots__ = ()

    @property
    def key_id(self) -> str:
        """Sixteen zeros."""
        return NO_KEY

    id = key_id


AnyOpener = Key | Grant | RecipientKey


def load_opener(
    path: str | os.PathLike[str], passphrase: Asked = None, recipient: RecipientKey | None = None
) -> AnyOpener:
    """Read a key, a grant or a recipient's key, whichever the file holds.

    Args:
        path: the file.
        passphrase: the passphrase, or what asks for it, in case the file is locked with one.
        recipient: opens it, in case it is a grant that was sealed.

    Raises:
        KeyFileError: missing, unreadable, of another kind, damaged, or locked with another passphrase.
    """
    return opener_in_line(path, secret_files.read(path), passphrase, recipient)


def parse_opener(
    where: str, content: bytes, passphrase: Asked = None, recipient: RecipientKey | None = None
) -> AnyOpener:
    """Read a key, a grant or a recipient's key from what its file holds, for example out of the environment.

    Args:
        where: names the place in messages.
        content: what a key or grant file holds: one line.
        passphrase: the passphrase, or what asks for it, in case it is locked with one.
        recipient: opens it, in case it is a grant that was sealed.

    Raises:
        KeyFileError: of another kind, damaged, or locked with another passphrase.
    """
    return opener_in_line(where, secret_files.only_line(where, content), passphrase, recipient)


def opener_in_line(
    where: str | os.PathLike[str], line: str, passphrase: Asked, recipient: RecipientKey | None = None
) -> AnyOpener:
    """As `parse_opener`, from the line that the content is."""
    if line.startswith(secret_files.SEALED_PREFIX):
        line = unseal_line(where, line, recipient)
    if line.startswith(passphrases.PREFIX):
        line = passphrases.unlock(where, line, passphrase)
    prefixes = (secret_files.KEY_PREFIX, *secret_files.GRANT_PREFIXES, secret_files.RECIPIENT_PREFIX)
    fields, secret = secret_files.parse(where, line, prefixes)
    if fields[0] == secret_files.KEY_PREFIX:
        return Key(secret)
    if fields[0] == secret_files.RECIPIENT_PREFIX:
        return RecipientKey(secret)
    return Grant.from_fields(where, fields, secret)


def keys_for(where: object, done: str, opener: Opener, key_id: str, nonce: bytes, study: str) -> ImageKeys:
    """The sub-keys of a file, for the opener that it was made with.

    Args:
        where: The file, for the message.
        done: What was done to it with the key: "encrypted" or "wrapped".
        opener: A key or grant.
        key_id: Of the key that the file names.
        nonce: The file's, 16 bytes.
        study: The file's.

    Raises:
        WrongKeyError: Another key, or a grant for something else.
    """
    if key_id == NO_KEY != opener.key_id:
        raise WrongKeyError(f"{where}: was {done} for its recipients alone: give the key of one of them")
    if opener.key_id != key_id:
        raise WrongKeyError(f"{where}: was {done} with key {key_id}, yours is {opener.key_id}: give the right key")
    try:
        return opener.image_keys(nonce, study)
    except WrongKeyError as error:
        raise type(error)(f"{where}: {error}") from None


def study_for(study: str | None, opener: object) -> str:
    """The study to encrypt for: a study's grant serves its own study alone.

    Args:
        study: what is asked for; None for the grant's own, or none with a key.
        opener: a `Key` or `Grant`.

    Raises:
        UsageError: a grant for one file, or for another study; or a recipient's key.
    """
    if isinstance(opener, RecipientKey):
        opener.image_secret(b"")
    if not isinstance(opener, Grant):
        return study or ""
    if opener.scope != "study":
        raise UsageError("a grant for one file cannot encrypt: use the key, or a grant for a study")
    if study is not None and study != opener.study:
        raise UsageError(f"the grant is for study {opener.study!r}, not {study!r}: use the key, or that study")
    return opener.study


def random_nonce() -> bytes:
    """A nonce from the operating system's generator: encrypting an image twice gives unrelated files."""
    return secrets.token_bytes(derivation.NONCE_BYTES)


def synthetic_nonce(
    opener: Opener, plaintext: bytes | bytearray | memoryview, context: bytes, study: str = ""
) -> bytes:
    """A nonce from a keyed hash of the plaintext: one changed pixel changes every sub-key.

    The same image under the same key and study gives the same nonce, so that whoever sees two files can tell
    that they hold the same image; nothing else shows. Modelled on SIV (P. Rogaway and T. Shrimpton,
    EUROCRYPT 2006).

    Args:
        opener: the key, or a grant for the study.
        plaintext: the image's bytes, C-contiguous.
        context: all else that tells images apart (shape, dtype, layout, ...), encoded without ambiguity.
        study: the study that the file belongs to.

    Returns:
        The first 16 bytes of HMAC-SHA256 over context and plaintext, each after its length as 8 bytes, the
        low byte first.

    Raises:
        WrongKeyError: the grant is for another study, or for one file.
    """
    view = memoryview(plaintext)
    digest = hmac.new(opener.nonce_secret(study), digestmod="sha256")
    digest.update(len(context).to_bytes(8, "little") + context)
    digest.update(view.nbytes.to_bytes(8, "little"))
    digest.update(view.cast("B") if view.nbytes else b"")
    return digest.digest()[: derivation.NONCE_BYTES]
