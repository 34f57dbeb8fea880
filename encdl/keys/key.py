"""The master key, and what opens a file: a `Key` or a `Grant`."""

from __future__ import annotations

import hmac
import os
import secrets
from typing import Protocol

from encdl.errors import KeyFileError, UsageError
from encdl.keys import derive, secret_files
from encdl.keys.derive import ImageKeys, Unpicklable
from encdl.keys.grant import Grant

__all__ = ["Grant", "ImageKeys", "Key", "Opener", "load_opener"]


class Opener(Protocol):
    """What a `Key` and a `Grant` have in common: they open files."""

    @property
    def key_id(self) -> str:
        """The id of the master key behind it: 16 hexadecimal characters."""
        ...

    def image_keys(self, nonce: bytes, study: str = "") -> ImageKeys:
        """The sub-keys of the image with this nonce in this study, or `WrongKeyError`."""
        ...

    def nonce_secret(self, study: str = "") -> bytes:
        """The secret behind synthetic nonces in this study, or `WrongKeyError`."""
        ...


class Key(Unpicklable):
    """A master key: 32 random bytes that open all files of their owner.

    The bytes show in no repr, no error and no pickle. Two keys are compared in constant time.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) != derive.SECRET_BYTES:
            raise UsageError(
                f"a key has {derive.SECRET_BYTES} bytes, this one {len(secret)}: use Key.generate()"
            )
        self._secret = bytes(secret)

    @classmethod
    def generate(cls) -> Key:
        """A new key from the operating system's generator."""
        return cls(secrets.token_bytes(derive.SECRET_BYTES))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Key:
        """Read a key file.

        Raises:
            KeyFileError: missing, unreadable, of another kind, or damaged.
        """
        return cls._from_fields(path, *secret_files.read_line(path, (secret_files.KEY_PREFIX,)))

    def save(self, path: str | os.PathLike[str], force: bool = False) -> None:
        """Write the key to a file that only its owner can read.

        Raises:
            OutputExistsError: the file is there and `force` is False.
            KeyFileError: it cannot be written.
        """
        secret_files.write_line(path, [secret_files.KEY_PREFIX], self._secret, force=force)

    @staticmethod
    def is_private(path: str | os.PathLike[str]) -> bool:
        """Whether only its owner may open the file.

        Raises:
            KeyFileError: the file is missing or cannot be looked at.
        """
        return secret_files.is_private(path)

    @property
    def id(self) -> str:
        """The key's public name: 16 hexadecimal characters, which do not lead back to it."""
        return derive.key_fingerprint(self._secret)

    @property
    def key_id(self) -> str:
        """The same as `id`."""
        return self.id

    def image_keys(self, nonce: bytes, study: str = "") -> ImageKeys:
        """The sub-keys of the image with this nonce in this study.

        Raises:
            UsageError: the nonce is not 16 bytes, or the study's name cannot be one.
        """
        secret = derive.image_secret(derive.study_secret(self._secret, study), nonce)
        return derive.image_keys(secret, derive.check_nonce(nonce))

    def nonce_secret(self, study: str = "") -> bytes:
        """The secret behind synthetic nonces (see `encdl.keys.nonces`)."""
        return derive.nonce_secret(derive.study_secret(self._secret, study))

    def grant_study(self, name: str) -> Grant:
        """A grant for every file of a study, those to come included.

        Raises:
            UsageError: the name is empty, or cannot be a study's.
        """
        return Grant("study", name, None, self.id, derive.study_secret(self._secret, name))

    study = grant_study

    def grant_file(self, nonce: bytes, study: str = "") -> Grant:
        """A grant for the one file with this nonce.

        Raises:
            UsageError: the nonce is not 16 bytes, or the study's name cannot be one.
        """
        secret = derive.image_secret(derive.study_secret(self._secret, study), nonce)
        return Grant("file", study, nonce, self.id, secret)

    @classmethod
    def _from_fields(cls, path: str | os.PathLike[str], fields: list[str], secret: bytes) -> Key:
        if len(fields) != 1:
            raise KeyFileError(f"{path} is not a key that this EncDL can read: restore it from your backup")
        return cls(secret)

    def __repr__(self) -> str:
        return f"Key(id={self.id})"

    def __eq__(self, other: object) -> bool:
        return hmac.compare_digest(self._secret, other._secret) if isinstance(other, Key) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)


def load_opener(path: str | os.PathLike[str]) -> Key | Grant:
    """Read a key or a grant, whichever the file holds.

    Raises:
        KeyFileError: missing, unreadable, of another kind, or damaged.
    """
    fields, secret = secret_files.read_line(path, (secret_files.KEY_PREFIX, secret_files.GRANT_PREFIX))
    if fields[0] == secret_files.KEY_PREFIX:
        return Key._from_fields(path, fields, secret)
    return Grant.from_fields(path, fields, secret)
