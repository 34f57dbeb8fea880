"""Keys and grants locked with a passphrase: scrypt (RFC 7914) and AES-256-GCM around the line of a secret file.

A locked file is one line `encdl-locked-1:B64(header):B64(ciphertext and tag)`. The header is public JSON: the
scrypt cost and salt, and of what is inside its kind and the id of its master key. All that stands before the
last colon is authenticated, so that nobody changes the header of a file that still opens.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import unicodedata
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from encdl.keys.derivation import SECRET_BYTES, Unpicklable
from encdl.keys.secret_files import decode_field, encode_field
from encdl.utils.errors import KeyFileError, UsageError

PREFIX: Final = "encdl-locked-1"
COST = 17
"""log2 of scrypt's N for new files: with r = 8 and p = 1, 128 MiB and about half a second a try."""

COSTS: Final = range(14, 19)
"""The costs that are accepted, 16 to 256 MiB: a crafted file cannot eat the memory, nor one be all too cheap."""

MIN_CHARACTERS: Final = 8
MAX_BYTES: Final = 1024

_BLOCK: Final = 8
_SALT_BYTES: Final = 16
# A key of its own from a fresh salt encrypts this one message: GCM needs no nonce beside it.
_NONCE: Final = bytes(12)

Kind = Literal["key", "grant", "signing", "recipient"]


class Passphrase(Unpicklable):
    """A passphrase that shows in no repr, error, traceback or pickle.

    Args:
        text: any characters; taken in Unicode normal form C, so that it is the same typed on any machine.

    Raises:
        UsageError: it is empty, longer than 1024 bytes of UTF-8, or holds control characters.
    """

    __slots__ = ("_bytes", "_characters")

    def __init__(self, text: str) -> None:
        normal = unicodedata.normalize("NFC", text)
        if any(unicodedata.category(character) in {"Cc", "Cs"} for character in normal):
            raise UsageError("a passphrase cannot hold control characters or broken Unicode")
        self._characters = len(normal)
        self._bytes = normal.encode()
        if not self._bytes:
            raise UsageError("the passphrase is empty: give one")
        if len(self._bytes) > MAX_BYTES:
            raise UsageError(f"a passphrase cannot be longer than {MAX_BYTES} bytes")

    def __repr__(self) -> str:
        return "Passphrase(...)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Passphrase):
            return NotImplemented
        return hmac.compare_digest(self._bytes, other._bytes)

    def __hash__(self) -> int:
        return hash(Passphrase)  # one for all: a hash of the text would be a hint

    def check_new(self) -> Passphrase:
        """Return it, if it may protect a new file.

        Raises:
            UsageError: it is shorter than 8 characters.
        """
        if self._characters < MIN_CHARACTERS:
            raise UsageError(
                f"a new passphrase needs at least {MIN_CHARACTERS} characters: several words make a good one"
            )
        return self

    def reveal(self) -> str:
        """The text itself, for a token that takes it as its PIN."""
        return self._bytes.decode()

    def derive(self, salt: bytes, cost: int) -> bytes:
        """The 32 bytes that scrypt makes of it, with N = 2^cost, r = 8 and p = 1."""
        return Scrypt(salt, SECRET_BYTES, 2**cost, _BLOCK, 1).derive(self._bytes)


Asked = Passphrase | Callable[[], Passphrase] | None
"""A passphrase, or what asks for it when it turns out to be needed."""


@dataclass(frozen=True)
class Header:
    """The header of a locked file, readable without its passphrase.

    Attributes:
        kind: "key", "grant", "signing" or "recipient".
        key_id: id of the master key that it is or comes from.
        cost: log2 of scrypt's N.
        salt: of scrypt, 16 bytes in hexadecimal.
    """

    kind: Kind
    key_id: str
    cost: int
    salt: str

    @property
    def mebibytes(self) -> int:
        """Memory that opening it takes, in MiB."""
        return (128 * _BLOCK << self.cost) >> 20


def is_locked(line: str) -> bool:
    """Whether the line of a secret file is a locked one."""
    return line.startswith(f"{PREFIX}:")


def lock(line: bytes, kind: Kind, key_id: str, passphrase: Passphrase) -> bytes:
    """Lock the line of a secret file.

    Args:
        line: as `secret_files.make_line` gives it.
        kind: what is in it.
        key_id: id of the master key that it is or comes from; stays readable.
        passphrase: what shall open it.

    Returns:
        The line to write in its place.

    Raises:
        UsageError: the passphrase is too short for a new file.
    """
    header = Header(kind, key_id, COST, secrets.token_hex(_SALT_BYTES))
    text = json.dumps(asdict(header) | {"kdf": "scrypt"}, sort_keys=True, separators=(",", ":"))
    head = f"{PREFIX}:{encode_field(text.encode())}"
    key = passphrase.check_new().derive(bytes.fromhex(header.salt), header.cost)
    return f"{head}:{encode_field(AESGCM(key).encrypt(_NONCE, line, head.encode()))}\n".encode("ascii")


def unlock(where: object, line: str, passphrase: Asked) -> str:
    """The line of a secret file, unlocked if it is locked.

    Args:
        where: names the place in messages.
        line: the line, untrusted.
        passphrase: the passphrase, or what asks for it; asked only once the line proved to be well formed.

    Raises:
        KeyFileError: the line is damaged, no passphrase is given, or it is the wrong one.
    """
    if not is_locked(line):
        return line
    header = read_header(where, line)
    head, _, sealed = line.rpartition(":")
    if passphrase is None:
        raise KeyFileError(f"{where} is locked with a passphrase: give the passphrase too")
    given = passphrase() if callable(passphrase) else passphrase
    try:
        key = given.derive(bytes.fromhex(header.salt), header.cost)
        inner = AESGCM(key).decrypt(_NONCE, decode_field(sealed), head.encode())
    except (InvalidTag, ValueError):  # ValueError: shorter than a tag
        raise KeyFileError(f"{where}: wrong passphrase, or the file is damaged: try again") from None
    except MemoryError:
        raise KeyFileError(
            f"{where}: opening it takes {header.mebibytes} MiB, which are not free here: close other programs"
        ) from None
    return inner.decode("ascii", "replace").strip()


def read_header(where: object, line: str) -> Header:
    """The header of a locked line, without its passphrase (untrusted).

    Raises:
        KeyFileError: it is damaged, or asks for more memory than any file that EncDL writes.
    """
    try:
        prefix, field, _ = line.split(":")
        values = json.loads(decode_field(field).decode())
        if prefix != PREFIX or not isinstance(values, dict) or values.pop("kdf", None) != "scrypt":
            raise ValueError("another kind of line, or of key derivation")
        return _checked(values)
    except (ValueError, TypeError, RecursionError):
        raise KeyFileError(
            f"{where} is not a locked key that this EncDL can read: restore it from your backup"
        ) from None


def _checked(values: dict[str, Any]) -> Header:
    """A header of fields from an untrusted file; TypeError or ValueError if one is not what it should be."""
    header = Header(**values)
    if type(header.cost) is not int or header.cost not in COSTS or header.kind not in get_args(Kind):
        raise ValueError("a field is out of its range")
    for text, digits in ((header.key_id, 16), (header.salt, 2 * _SALT_BYTES)):
        if not re.fullmatch(f"[0-9a-f]{{{digits}}}", text):
            raise ValueError("a field is no hexadecimal number")
    return header
