"""Reading and writing one-line secret files, without a moment in which others could read them.

A file is one line `prefix:field:...:secret`. The last field is base64url (RFC 4648, section 5, no padding)
of the 32 secret bytes and a 4-byte check, the start of SHA-256 over everything else: a mistyped or cut line
is told from a wrong key. No error quotes the content.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import secrets
import stat
from hashlib import sha256
from pathlib import Path
from typing import Final

from encdl.keys.derivation import SECRET_BYTES
from encdl.utils.errors import KeyFileError, OutputExistsError

KEY_PREFIX: Final = "encdl-key-1"
GRANT_PREFIXES: Final = ("encdl-grant-1", "encdl-grant-2")
SIGNING_PREFIX: Final = "encdl-signing-1"
PUBLIC_PREFIX: Final = "encdl-public-1"
RECIPIENT_PREFIX: Final = "encdl-recipient-1"
RECIPIENT_PUBLIC_PREFIX: Final = "encdl-recipient-public-1"
SEALED_PREFIX: Final = "encdl-sealed-1"
SECRET_PREFIXES: Final = (KEY_PREFIX, *GRANT_PREFIXES, SIGNING_PREFIX, RECIPIENT_PREFIX, SEALED_PREFIX)
"""Of all files that are nobody else's; a key behind a passphrase has `encdl.keys.passphrases.PREFIX`."""
_KINDS: Final = {
    KEY_PREFIX: "a master key",
    **dict.fromkeys(GRANT_PREFIXES, "a grant"),
    SIGNING_PREFIX: "a signing key",
    PUBLIC_PREFIX: "a public key",
    RECIPIENT_PREFIX: "a recipient's secret key",
    RECIPIENT_PUBLIC_PREFIX: "a recipient's public key",
    SEALED_PREFIX: "a sealed grant",
}

_CHECK_BYTES: Final = 4
_SECRET_CHARACTERS: Final = (SECRET_BYTES + _CHECK_BYTES) * 4 // 3
_MAX_BYTES: Final = 4096
_PRIVATE_MODE: Final = 0o600
_SHARED_BITS: Final = 0o077
CONTAINER_MARK: Final = b"\x89ENCDL"
"""How every file that EncDL encrypted begins; `encdl.files.container` says what follows."""


def make_line(fields: list[str], secret: bytes) -> bytes:
    """The one line of a secret file, with its line feed.

    Args:
        fields: the prefix and the public fields, free of colons.
        secret: 32 bytes.
    """
    head = ":".join(fields)
    return f"{head}:{encode_field(secret + _check(head, secret))}\n".encode("ascii")


def write(path: str | os.PathLike[str], line: bytes, *, force: bool) -> None:
    """Write a secret file that only its owner can read (mode 0600), whole or not at all.

    Args:
        path: where to.
        line: its content, as `make_line` or `locked.lock` gives it.
        force: replace a file that is there already.

    Raises:
        OutputExistsError: the file is there and `force` is False.
        KeyFileError: it cannot be written.
    """
    target = Path(path)
    try:
        if force and (target.is_symlink() or target.exists()):
            _replace(target, line)
        else:
            _create(target, line)
    except FileExistsError:
        raise OutputExistsError(f"{target} is there already: choose another name, or --force") from None
    except (OSError, ValueError) as error:
        raise KeyFileError(f"cannot write {target}: {_reason(error)}") from None


def read(path: str | os.PathLike[str], public: bool = False) -> str:
    """The one line of a secret file, of whatever kind, without the white space around it.

    Args:
        path: the file.
        public: whether it is that of a public key, for what is advised where there is none.

    Raises:
        KeyFileError: missing, unreadable, or not one line of text.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise KeyFileError(f"{target} is a folder: name the key file in it")
        with target.open("rb") as file:
            return only_line(target, file.read(_MAX_BYTES + 1))
    except FileNotFoundError:
        if public:
            raise KeyFileError(f"no public key file {target}: check the path, or ask the key's owner for it") from None
        raise KeyFileError(
            f"no key file {target}: check the path ('encdl keygen' makes a new key, which opens no older files)"
        ) from None
    except (OSError, ValueError) as error:
        raise KeyFileError(f"cannot read {target}: {_reason(error)}") from None


def only_line(where: object, data: bytes) -> str:
    """The one line that `data` is; editors may have added a byte order mark or white space around it.

    Raises:
        KeyFileError: it is something else. `where` names the place in the message.
    """
    line = data.removeprefix(b"\xef\xbb\xbf").strip()
    if not line:
        raise KeyFileError(f"{where} is empty: restore it from your backup")
    if data.startswith(CONTAINER_MARK):
        raise KeyFileError(f"{where} is an encrypted file, not a key: give the key file here")
    if len(data) > _MAX_BYTES:
        raise KeyFileError(f"{where} is too large for a key file (over {_MAX_BYTES} bytes): check the path")
    if not re.fullmatch(rb"[\x21-\x7e]+", line):
        raise KeyFileError(f"{where} is not a key file (it is not one line of plain text): check the path")
    return line.decode("ascii")


def parse(where: object, text: str, prefixes: tuple[str, ...]) -> tuple[list[str], bytes]:
    """Take the line of a secret file apart.

    Args:
        where: names the place in messages.
        text: the line.
        prefixes: the kinds that the caller takes.

    Returns:
        The prefix and the public fields, and the 32 secret bytes.

    Raises:
        KeyFileError: of another kind, or damaged.
    """
    prefix = text.partition(":")[0]
    if prefix not in prefixes:
        raise KeyFileError(_wrong_kind(where, prefix, prefixes))
    head, _, secret_text = text.rpartition(":")
    raw = decode_field(secret_text) if len(secret_text) == _SECRET_CHARACTERS else b""
    secret, check = raw[:SECRET_BYTES], raw[SECRET_BYTES:]
    if not raw or check != _check(head, secret):
        raise KeyFileError(f"{where} is cut or altered (its check does not fit): restore it from your backup")
    fields = head.split(":")
    if len(fields) > 1 and prefix not in GRANT_PREFIXES:
        raise KeyFileError(f"{where} is not a key that this EncDL can read: restore it from your backup")
    return fields, secret


def is_private(path: str | os.PathLike[str]) -> bool:
    """Whether neither group nor others may read, write or run the file (always True without POSIX modes).

    Raises:
        KeyFileError: the file is missing or cannot be looked at.
    """
    try:
        mode = stat.S_IMODE(Path(path).stat().st_mode)
    except (OSError, ValueError) as error:
        raise KeyFileError(f"cannot look at {path}: {_reason(error)}") from None
    return os.name != "posix" or not mode & _SHARED_BITS


def encode_field(data: bytes) -> str:
    """Bytes as a field: base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode_field(text: str) -> bytes:
    """Bytes of a field; b"" if it is not base64url in its one canonical form."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text) or len(text) % 4 == 1:
        return b""
    padded = (text + "=" * (-len(text) % 4)).encode()
    data = base64.urlsafe_b64decode(padded)
    return data if base64.urlsafe_b64encode(data) == padded else b""


def _create(target: Path, line: bytes) -> None:
    """Create the file; O_EXCL and the mode at creation leave no moment in which others can open it."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if os.name == "posix":
                os.fchmod(file.fileno(), _PRIVATE_MODE)  # a umask may have taken the owner's bits
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            target.unlink()
        raise


def _replace(target: Path, line: bytes) -> None:
    """Put a new file in the place of the old one in a single step."""
    if target.is_dir() and not target.is_symlink():
        raise IsADirectoryError(None, "it is a folder")
    temporary = target.with_name(f".encdl-{secrets.token_hex(8)}.tmp")
    _create(temporary, line)
    try:
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _reason(error: Exception) -> str:
    """The reason of an error, without the path; a ValueError stands for a null character in the path."""
    return getattr(error, "strerror", None) or str(error)


def _wrong_kind(where: object, prefix: str, prefixes: tuple[str, ...]) -> str:
    if prefix == KEY_PREFIX and prefixes == GRANT_PREFIXES:
        return f"{where} is a master key, and a grant is asked for: make one with 'encdl grant'"
    if prefix in GRANT_PREFIXES and prefixes == (KEY_PREFIX,):
        return f"{where} is a grant, and the master key is asked for: ask the key's owner"
    if prefix in _KINDS:
        *others, last = dict.fromkeys(_KINDS[each] for each in prefixes)
        asked = f"{', '.join(others)} or {last}" if others else last
        return f"{where} is {_KINDS[prefix]}, and {asked} is asked for: give that"
    kinds = {"encdl-locked", *(known.rpartition("-")[0] for known in prefixes)}
    if (
        re.fullmatch(
            r"encdl-(key|grant|locked|signing|public|recipient|recipient-public|sealed)-(?!1$)[0-9]{1,4}", prefix
        )
        and prefix.rpartition("-")[0] in kinds
    ):
        return f"{where} was written by a newer EncDL: update this one"
    return f"{where} is not an EncDL key file: check the path"


def _check(head: str, secret: bytes) -> bytes:
    return sha256(b"encdl secret file\0" + head.encode("ascii") + b":" + secret).digest()[:_CHECK_BYTES]
