"""Files of key pairs: a secret half of 32 bytes, as secret as a master key, and a public half for everyone."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import ClassVar, Final, Self

from encdl.keys import passphrases, secret_files
from encdl.keys.derivation import SECRET_BYTES, Unpicklable
from encdl.keys.passphrases import Asked, Kind, Passphrase

PUBLIC_SUFFIX: Final = ".pub"
ID_BYTES: Final = 8


class PublicHalf:
    """The public half of a pair; a subclass says which.

    Args:
        raw: the key, 32 bytes.
    """

    prefix: ClassVar[str]

    def __init__(self, raw: bytes) -> None:
        self.raw: Final = bytes(raw)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a public key's file.

        Raises:
            KeyFileError: missing, unreadable, of another kind, or damaged.
        """
        return cls(secret_files.parse(path, secret_files.read(path, public=True), (cls.prefix,))[1])

    def save(self, path: str | os.PathLike[str], force: bool = False) -> None:
        """Write the key's file, which anyone may read; errors as `Key.save`."""
        secret_files.write(path, secret_files.make_line([self.prefix], self.raw), force=force)
        if os.name == "posix":
            Path(path).chmod(0o644)

    @property
    def id(self) -> str:
        """The key's name, the start of its SHA-256: 16 hexadecimal characters."""
        return hashlib.sha256(self.raw).hexdigest()[: 2 * ID_BYTES]

    def __eq__(self, other: object) -> bool:
        return self.raw == other.raw if isinstance(other, PublicHalf) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id})"


class SecretHalf(Unpicklable):
    """The secret half of a pair; the bytes show in no repr, no error and no pickle. A subclass says which.

    Args:
        secret: 32 bytes.
    """

    prefix: ClassVar[str]
    kind: ClassVar[Kind]
    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = bytes(secret)

    @property
    def public(self) -> PublicHalf:
        """The public half."""
        raise NotImplementedError

    @classmethod
    def generate(cls) -> Self:
        """A new key from the operating system's generator."""
        return cls(secrets.token_bytes(SECRET_BYTES))

    @classmethod
    def load(cls, path: str | os.PathLike[str], passphrase: Asked = None) -> Self:
        """Read a key's file; arguments and errors as `Key.load`."""
        line = passphrases.unlock(path, secret_files.read(path), passphrase)
        return cls(secret_files.parse(path, line, (cls.prefix,))[1])

    def save(self, path: str | os.PathLike[str], force: bool = False, passphrase: Passphrase | None = None) -> None:
        """Write the key to a file that only its owner can read; arguments and errors as `Key.save`."""
        line = secret_files.make_line([self.prefix], self._secret)
        if passphrase is not None:
            line = passphrases.lock(line, self.kind, self.public.id, passphrase)
        secret_files.write(path, line, force=force)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.public.id})"
