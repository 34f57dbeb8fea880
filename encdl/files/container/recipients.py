"""The block behind a container that seals its secret to recipients; outside tags and signature, it can be rewritten.

    (recipient 8 | encapsulated key 32 | sealed secret 48)... | MAC 32 | parity | number 2 | magic 8 | its parity 14

It is found from the end of the file.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from encdl.files.container import parity
from encdl.files.container.sections import recipients_key
from encdl.keys.derivation import SECRET_BYTES, ImageKeys
from encdl.keys.grant import Grant
from encdl.keys.key import NO_KEY, Opener, RecipientKey
from encdl.keys.key_pairs import ID_BYTES
from encdl.keys.recipients import OVERHEAD, RecipientPublicKey
from encdl.keys.secret_files import CONTAINER_MARK
from encdl.utils.errors import ContainerError, UsageError, WrongKeyError

MAGIC: Final = CONTAINER_MARK + b"R\n"
MAX_RECIPIENTS: Final = 1024

_MAC_BYTES: Final = 32
_ENTRY_BYTES: Final = ID_BYTES + SECRET_BYTES + OVERHEAD
_FOOT: Final = struct.Struct("<H8s")
_FOOT_PARITY: Final = 14
_NAMED: Final = 5


@dataclass(frozen=True)
class Recipients:
    """A block, as it was read or is to be written.

    Attributes:
        entries: of each recipient the id of its public key, 8 bytes, and the file's secret sealed to it, 80 bytes.
        mac: HMAC-SHA256 under a sub-key of the file.
    """

    entries: tuple[bytes, ...]
    mac: bytes

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the recipients' public keys; hints, which prove nothing."""
        return tuple(entry[:ID_BYTES].hex() for entry in self.entries)

    def to_bytes(self) -> bytes:
        """The block as it stands behind a container."""
        content, foot = b"".join((*self.entries, self.mac)), _FOOT.pack(len(self.entries), MAGIC)
        return content + parity.encoded(content) + foot + parity.encoded(foot, _FOOT.size, _FOOT_PARITY)

    @classmethod
    def made(cls, entries: Sequence[bytes], keys: ImageKeys, head: bytes) -> Recipients:
        """A block of these entries; `UsageError` for more than there may be.

        Args:
            entries: as `sealed` gives them.
            keys: the file's sub-keys.
            head: the file's first bytes, before the header tag; of a wrapped file the wrapping's header.
        """
        if len(entries) > MAX_RECIPIENTS:
            raise UsageError(f"a file has {MAX_RECIPIENTS:,} recipients at the most, not {len(entries):,}")
        return cls(tuple(entries), _mac(entries, keys, head))

    @classmethod
    def of(cls, secret: bytes, to: Sequence[RecipientPublicKey], keys: ImageKeys, head: bytes) -> Recipients:
        """A new file's block; arguments and errors as `made` and `sealed`."""
        return cls.made([sealed(secret, public, head) for public in dict.fromkeys(to)], keys, head)

    def is_authentic(self, keys: ImageKeys, head: bytes) -> bool:
        """Whether somebody who can open the file made the block."""
        return hmac.compare_digest(self.mac, _mac(self.entries, keys, head))

    def secret(self, key: RecipientKey, head: bytes) -> bytes | None:
        """The file's secret, if it was sealed to this key."""
        mine = [entry for entry in self.entries if entry[:ID_BYTES].hex() == key.key_id]
        opened = (key.open(entry[ID_BYTES:], _info(head)) for entry in mine)
        return next((secret for secret in opened if secret and len(secret) == SECRET_BYTES), None)


def sealed(secret: bytes, to: RecipientPublicKey, head: bytes) -> bytes:
    """The entry of a recipient: the file's secret (`Opener.image_secret`) sealed to a public key."""
    return bytes.fromhex(to.id) + to.seal(secret, _info(head))


def at_end(stream: BinaryIO, *, repair: bool = False) -> tuple[Recipients | None, int]:
    """The block that ends a stream, and where the container before it ends; None if there is none.

    Args:
        stream: can seek.
        repair: undo hits by the block's parity, instead of raising.

    Raises:
        ContainerError: there is one, and it is damaged.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _FOOT.size - _FOOT_PARITY))
    raw = stream.read(_FOOT.size + _FOOT_PARITY)
    foot = raw[: _FOOT.size]
    if len(raw) == _FOOT.size + _FOOT_PARITY and repair:
        foot = parity.corrected(foot, raw[_FOOT.size :], _FOOT.size, _FOOT_PARITY) or foot
    if not foot.endswith(MAGIC):
        return None, size
    count, _ = _FOOT.unpack(foot)
    length = count * _ENTRY_BYTES + _MAC_BYTES
    start = size - len(raw) - parity.parity_length(length) - length
    if not 1 <= count <= MAX_RECIPIENTS or start < 0:
        raise ContainerError(f"its list of recipients is damaged ({count:,} of them)")
    stream.seek(start)
    content, theirs = stream.read(length), stream.read(parity.parity_length(length))
    if repair:
        content = parity.corrected(content, theirs) or content
    elif raw[_FOOT.size :] != parity.encoded(foot, _FOOT.size, _FOOT_PARITY) or theirs != parity.encoded(content):
        raise ContainerError("its list of recipients is damaged (its parity does not fit)")
    entries = tuple(content[i : i + _ENTRY_BYTES] for i in range(0, length - _MAC_BYTES, _ENTRY_BYTES))
    return Recipients(entries, content[-_MAC_BYTES:]), start


def resolved(
    where: object, opener: Opener, found: Recipients | None, head: bytes, key_id: str, nonce: bytes, study: str
) -> Opener:
    """The opener of a file: of a recipient's key the grant that was sealed to it, anything else as it is.

    Raises:
        WrongKeyError: the file's secret was not sealed to this recipient.
    """
    if not isinstance(opener, RecipientKey):
        return opener
    secret = found and found.secret(opener, head)
    if not secret:
        ids = found.ids if found else ()
        more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
        others = f"its recipients are {', '.join(ids[:_NAMED])}{more}" if ids else "it has no recipients"
        raise WrongKeyError(
            f"{where}: is not for recipient {opener.key_id}: {others}; whoever can open it adds more with "
            "`encdl recipients add`"
        )
    return Grant("file", study, nonce, key_id, secret)


def check_some_left(where: object, key_id: str, entries: Sequence[bytes]) -> None:
    """Raise `UsageError` if nobody could open the file any more."""
    if key_id == NO_KEY and not entries:
        raise UsageError(f"{where}: no master key opens it, and without a recipient nobody could: leave one")


def _mac(entries: Sequence[bytes], keys: ImageKeys, head: bytes) -> bytes:
    content = hashlib.sha256(head).digest() + b"".join(entries)
    return hmac.digest(recipients_key(keys), content, "sha256")


def _info(head: bytes) -> bytes:
    return b"encdl recipients v1\0" + hashlib.sha256(head).digest()
