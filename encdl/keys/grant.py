"""Grants: secrets that open one study or one file, and nothing else of the owner's."""

from __future__ import annotations

import hmac
import json
import os
import re
from typing import Literal, cast

from encdl.errors import KeyFileError, UsageError, WrongKeyError
from encdl.keys import derive, secret_files
from encdl.keys.derive import ImageKeys, Unpicklable

Scope = Literal["study", "file"]

_FIELDS = {"key_id", "nonce", "scope", "study"}


class Grant(Unpicklable):
    """A derived secret that opens every file of one study, or one file; a `Key` makes it.

    A grant does not lead back to the master key, nor to other studies or files. Its secret shows in no repr,
    no error and no pickle.
    """

    __slots__ = ("_key_id", "_nonce", "_scope", "_secret", "_study")

    def __init__(self, scope: Scope, study: str, nonce: bytes | None, key_id: str, secret: bytes) -> None:
        if scope not in {"study", "file"} or (scope == "file") != (nonce is not None):
            raise UsageError("a grant is for a study (no nonce) or for a file (with its nonce)")
        self._scope: Scope = scope
        self._study = derive.check_study(study)
        self._nonce = None if nonce is None else derive.check_nonce(nonce)
        if scope == "study" and not self._study:
            raise UsageError(
                "files without a study cannot be granted together: name a study, or grant one file"
            )
        self._key_id = key_id
        if len(secret) != derive.SECRET_BYTES:
            raise UsageError(f"a grant's secret has {derive.SECRET_BYTES} bytes")
        self._secret = bytes(secret)

    @property
    def scope(self) -> Scope:
        """What it opens: a "study", or one "file"."""
        return self._scope

    @property
    def study(self) -> str:
        """The study that it opens, or that its file belongs to ("" for none)."""
        return self._study

    @property
    def nonce(self) -> bytes | None:
        """The nonce of the file that it opens; None for a whole study."""
        return self._nonce

    @property
    def key_id(self) -> str:
        """The id of the master key that it comes from: 16 hexadecimal characters."""
        return self._key_id

    def image_keys(self, nonce: bytes, study: str = "") -> ImageKeys:
        """The sub-keys of the image with this nonce.

        Raises:
            WrongKeyError: the grant is for another study or another file.
            UsageError: the nonce is not 16 bytes, or the study's name cannot be one.
        """
        self._check_study(study)
        nonce = derive.check_nonce(nonce)
        if self._nonce is None:
            return derive.image_keys(derive.image_secret(self._secret, nonce), nonce)
        if nonce != self._nonce:
            raise WrongKeyError(
                f"this grant opens the one file with nonce {self._nonce.hex()}, this file has {nonce.hex()}:"
                " ask the key's owner for a grant for it"
            )
        return derive.image_keys(self._secret, nonce)

    def nonce_secret(self, study: str = "") -> bytes:
        """The secret behind synthetic nonces (see `encdl.keys.nonces`).

        Raises:
            WrongKeyError: the grant is for another study, or for one file.
        """
        self._check_study(study)
        if self._scope == "file":
            raise WrongKeyError(
                "a grant for one file cannot encrypt others: use the key or a grant for a study"
            )
        return derive.nonce_secret(self._secret)

    def grant_file(self, nonce: bytes, study: str | None = None) -> Grant:
        """Grant one file of this grant's study.

        Raises:
            WrongKeyError: the study is another one, or this grant is for one file.
        """
        self._check_study(self._study if study is None else study)
        if self._scope == "file":
            raise WrongKeyError(
                "a grant for one file cannot grant others: use the key or a grant for a study"
            )
        nonce = derive.check_nonce(nonce)
        return Grant("file", self._study, nonce, self._key_id, derive.image_secret(self._secret, nonce))

    def save(self, path: str | os.PathLike[str], force: bool = False) -> None:
        """Write the grant to a file that only its owner can read.

        Raises:
            OutputExistsError: the file is there and `force` is False.
            KeyFileError: it cannot be written.
        """
        nonce = None if self._nonce is None else self._nonce.hex()
        header = {"key_id": self._key_id, "nonce": nonce, "scope": self._scope, "study": self._study}
        text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        fields = [secret_files.GRANT_PREFIX, secret_files.encode_field(text.encode())]
        secret_files.write_line(path, fields, self._secret, force=force)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Grant:
        """Read a grant file.

        Raises:
            KeyFileError: missing, unreadable, of another kind, or damaged.
        """
        fields, secret = secret_files.read_line(path, (secret_files.GRANT_PREFIX,))
        return cls.from_fields(path, fields, secret)

    @classmethod
    def from_fields(cls, path: str | os.PathLike[str], fields: list[str], secret: bytes) -> Grant:
        """Build a grant from a file's parts (untrusted).

        Raises:
            KeyFileError: its header is not a grant's.
        """
        try:
            return cls(*_parse(fields), secret)
        except (ValueError, RecursionError, UsageError):
            raise KeyFileError(f"{path} is not a grant that this EncDL can read: ask for a new one") from None

    def _check_study(self, study: str) -> None:
        if derive.check_study(study) != self._study:
            raise WrongKeyError(
                f"this grant opens {_describe(self._study)}, the file belongs to {_describe(study)}:"
                " ask the key's owner for a grant for it"
            )

    def __repr__(self) -> str:
        nonce = "" if self._nonce is None else f", nonce={self._nonce.hex()}"
        return f"Grant(scope={self._scope}, study={self._study!r}{nonce}, key={self._key_id})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Grant):
            return NotImplemented
        public = (self._scope, self._study, self._nonce, self._key_id)
        others = (other._scope, other._study, other._nonce, other._key_id)
        return hmac.compare_digest(self._secret, other._secret) and public == others

    def __hash__(self) -> int:
        return hash((self._scope, self._study, self._nonce, self._key_id))


def _describe(study: str) -> str:
    return f"study {study!r}" if study else "no study"


def _parse(fields: list[str]) -> tuple[Scope, str, bytes | None, str]:
    """The header of a grant file, strictly checked; ValueError or UsageError if it is not one."""
    if len(fields) != 2:
        raise ValueError("a grant file has one header")
    values = json.loads(secret_files.decode_field(fields[1]).decode())
    if not isinstance(values, dict) or set(values) != _FIELDS:
        raise ValueError("unknown or missing fields")
    scope, study, nonce, key_id = (values[field] for field in ("scope", "study", "nonce", "key_id"))
    if not (isinstance(scope, str) and isinstance(study, str) and _is_hex(key_id, 16)):
        raise ValueError("a field has another type")
    if scope not in {"study", "file"} or not (nonce is None or _is_hex(nonce, 2 * derive.NONCE_BYTES)):
        raise ValueError("a field is out of its range")
    return cast(Scope, scope), study, None if nonce is None else bytes.fromhex(nonce), key_id


def _is_hex(value: object, length: int) -> bool:
    return isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{length}}}", value) is not None
