"""AES-256-GCM around a whole container, for who needs proven confidentiality. See docs/wrap.md.

    magic 8 | version 2 | key id 8 | nonce 16 | salt 32 | study length 2 | study | (ciphertext | GCM tag 16)...

The plaintext is cut into chunks of 64 KiB. Each is sealed under the file's own AES key and a nonce of its number and of
whether it is the last one: the STREAM construction (Hoang, Reyhanitabar, Rogaway and Vizar, CRYPTO 2015) in the form
that the file format age gives it. A chunk that was changed, moved, dropped or added is noticed, and nothing of it is
handed out. Free of torch and numpy.
"""

from __future__ import annotations

import io
import secrets
import struct
from dataclasses import dataclass
from typing import BinaryIO, Final, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from encdl.files.container import recipients
from encdl.files.container.place import Placed
from encdl.keys.derivation import NONCE_BYTES, ImageKeys, check_study, hkdf
from encdl.keys.key import Opener, keys_for
from encdl.keys.secret_files import CONTAINER_MARK
from encdl.utils.errors import ContainerError, UsageError

MAGIC: Final = CONTAINER_MARK + b"W\n"
VERSION: Final = 1
CHUNK: Final = 2**16
"""Bytes of plaintext in every chunk but the last, which has at least one (none only where it is the first too)."""

TAG_BYTES: Final = 16
SALT_BYTES: Final = 32
MAX_STUDY_BYTES: Final = 256

_PREFIX: Final = struct.Struct(f"<8sH8s{NONCE_BYTES}s{SALT_BYTES}sH")
_COPY: Final = "get an intact copy"


@dataclass(frozen=True)
class Header:
    """The header of a wrapped file, readable without a key.

    Attributes:
        key_id: id of the master key, 16 hexadecimal digits.
        nonce: of the container inside, 16 bytes; leads a grant to its file.
        salt: 32 random bytes that make every wrapping's AES key its own.
        study: that the file belongs to, "" for none.
    """

    key_id: str
    nonce: bytes
    salt: bytes
    study: str

    def to_bytes(self) -> bytes:
        """Everything before the first chunk."""
        study = self.study.encode()
        key_id = bytes.fromhex(self.key_id)
        return _PREFIX.pack(MAGIC, VERSION, key_id, self.nonce, self.salt, len(study)) + study


def read_header(stream: BinaryIO, where: object = "data") -> Header:
    """Read what a wrapped file says without a key, unverified; the stream then stands at the first chunk.

    Raises:
        ContainerError: not a wrapped file, of a newer version, cut, or damaged.
    """
    prefix = stream.read(_PREFIX.size)
    if not prefix.startswith(MAGIC):
        raise ContainerError(f"{where}: is not a file that `--wrap aes` made")
    if len(prefix) < _PREFIX.size:
        raise ContainerError(f"{where}: is cut in its header: {_COPY}")
    _, version, key_id, nonce, salt, length = _PREFIX.unpack(prefix)
    if version > VERSION:
        raise ContainerError(
            f"{where}: is wrapped in version {version}, this EncDL reads up to {VERSION}: update EncDL"
        )
    if version < 1 or length > MAX_STUDY_BYTES:
        raise ContainerError(f"{where}: its header is damaged (version {version}): {_COPY}")
    study = stream.read(length)
    if len(study) < length:
        raise ContainerError(f"{where}: is cut in its header: {_COPY}")
    try:
        name = study.decode("utf-8")
        valid = check_study(name) == name
    except (UnicodeDecodeError, UsageError):
        valid = False
    if not valid:
        raise ContainerError(f"{where}: its header is damaged (the study's name): {_COPY}")
    return Header(key_id.hex(), nonce, salt, name)


class Writer(io.RawIOBase):
    """Wraps what is written to it; call `finish` at the end, or what was written is not a whole file.

    Memory: one chunk. It does not close the stream.

    Args:
        stream: where the wrapped file goes.
        keys: of the container that will be written.
        key_id: of the master key behind them.
        study: of the container.
    """

    def __init__(self, stream: BinaryIO, keys: ImageKeys, key_id: str, study: str) -> None:
        super().__init__()
        self.header = header = Header(key_id, keys.nonce, secrets.token_bytes(SALT_BYTES), study)
        self._stream, self._waiting, self._count, self._finished = stream, bytearray(), 0, False
        self._seal = _Seal(keys, header)
        stream.write(header.to_bytes())

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """Take more plaintext; whole chunks go out once it is known that they are not the last one."""
        if self._finished:
            raise ValueError("the wrapped file is finished")
        view = memoryview(data).cast("B")
        start = 0
        while start < len(view):
            if len(self._waiting) == CHUNK:
                self._send(last=False)
            end = start + CHUNK - len(self._waiting)
            self._waiting += view[start:end]
            start = end
        return len(view)

    def finish(self) -> None:
        """Write the last chunk, which says that nothing follows."""
        if not self._finished:
            self._send(last=True)
            self._finished = True

    def _send(self, last: bool) -> None:
        self._stream.write(self._seal.lock(self._count, last, self._waiting))
        self._count += 1
        self._waiting.clear()


class _Reading(Placed):
    """The plaintext of a wrapped stream, chunk by chunk, each verified before any of it is handed out."""

    def __init__(self, stream: BinaryIO, opener: Opener, where: object, tolerant: bool) -> None:
        super().__init__()
        self._stream, self._where, self._tolerant = stream, where, tolerant
        stream.seek(0)
        header = read_header(stream, where)
        self._start = stream.tell()
        found, end = recipients.at_end(stream, repair=tolerant)
        facts = header.key_id, header.nonce, header.study
        opener = recipients.resolved(where, opener, found, header.to_bytes(), *facts)
        self._seal = _Seal(keys_for(where, "wrapped", opener, *facts), header)
        self._end, sealed = end, end - self._start
        self._chunks = max(1, -(-sealed // (CHUNK + TAG_BYTES)))
        self._size = max(0, sealed - self._chunks * TAG_BYTES)
        self._held, self._plain = -1, b""
        if sealed < TAG_BYTES or (self._chunks > 1 and self._size <= (self._chunks - 1) * CHUNK):
            self._fail("is cut")
        else:
            self._load(self._chunks - 1)  # proves that the file ends where its writer ended it

    def length(self) -> int:
        """Bytes of plaintext."""
        return self._size

    def part(self, place: int, most: int) -> bytes:
        """From there to the end of a chunk at most."""
        if place >= self._size:
            return b""
        number, start = divmod(place, CHUNK)
        self._load(number)
        return self._plain[start : start + most]

    def _load(self, number: int) -> None:
        if number == self._held:
            return
        place = self._stream.seek(self._start + number * (CHUNK + TAG_BYTES))
        sealed = self._stream.read(min(CHUNK + TAG_BYTES, self._end - place))
        try:
            plain = self._seal.unlock(number, number == self._chunks - 1, sealed)
        except InvalidTag:
            plain = self._mend(number, sealed)
        self._held, self._plain = number, plain

    def _mend(self, number: int, sealed: bytes) -> bytes:
        """Refuse a damaged chunk; for a tolerant reader, zeros in its place, or its text if the end is all it lacks."""
        self._fail("was changed or cut after it was written")
        try:
            return self._seal.unlock(number, False, sealed)
        except InvalidTag:
            return bytes(max(0, len(sealed) - TAG_BYTES))

    def _fail(self, what: str) -> None:
        if not self._tolerant:
            raise ContainerError(
                f"{self._where}: {what} (the authentication tag of AES-256-GCM does not fit): {_COPY}, or try --salvage"
            )


def open_wrapped(stream: BinaryIO, opener: Opener, where: object = "data", *, tolerant: bool = False) -> BinaryIO:
    """The plaintext of a wrapped file, as a stream that can seek.

    Memory: a few chunks, whatever the file claims. What `read` gives is authentic and in its place; that the file ends
    where its writer ended it is checked here, before anything is read.

    Args:
        stream: a binary stream that can seek; the wrapped file begins at its start. It is not closed.
        opener: the key, or a grant for the file or its study.
        where: what errors call the file.
        tolerant: read zeros in the place of what is damaged, instead of raising. What is inside tells them apart by
            its own tags.

    Raises:
        ContainerError: as `read_header`; or a chunk was changed (also while reading), moved, dropped or added.
        WrongKeyError: made with another key, or the grant is for something else.
    """
    return cast(BinaryIO, io.BufferedReader(_Reading(stream, opener, where, tolerant), CHUNK))


def unwrapped(
    stream: BinaryIO, opener: Opener, where: object = "data", *, tolerant: bool = False
) -> tuple[BinaryIO, Header | None]:
    """The container in a stream, wrapped or not, and the wrapping's header if it is; else as `open_wrapped`."""
    stream.seek(0)
    start = stream.read(len(MAGIC))
    stream.seek(0)
    if start != MAGIC:
        return stream, None
    header = read_header(stream, where)
    return open_wrapped(stream, opener, where, tolerant=tolerant), header


class _Seal:
    """Seals chunks under the one AES key that belongs to a header."""

    def __init__(self, keys: ImageKeys, header: Header) -> None:
        # The whole header goes into the key: one changed bit of it, and no chunk opens.
        self._cipher = AESGCM(hkdf(keys.wrap, header.to_bytes(), header.salt))

    def lock(self, number: int, last: bool, plain: bytes | bytearray) -> bytes:
        return self._cipher.encrypt(_nonce(number, last), bytes(plain), None)

    def unlock(self, number: int, last: bool, sealed: bytes) -> bytes:
        return self._cipher.decrypt(_nonce(number, last), sealed, None)


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])
