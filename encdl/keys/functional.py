"""Functional keys: what a host needs to learn W of one image, and nothing else of it, without any key.

The key server computes t = W m from key and nonce; the host computes W c - t = W x (`encdl.keys.functional_map`). The
numbers t are uniform by themselves. With the ciphertext they give W x away, so a functional key is kept as private as
W x is. It names the reader, by its map's id, and the file, by the SHA-256 of its header; a host that pins the key
server's Ed25519 public key refuses one that the server did not make.

Sealed to a recipient a file is: another magic; the id of its public key, 8 bytes; and HPKE's encapsulated key,
ciphertext and tag over what the file would be (`encdl.keys.recipients`).

A file is: magic, version and length of what follows; canonical JSON; the numbers, low byte first; then the signature of
all before (`encdl.keys.signing`), or, unsigned, its SHA-256, which tells damage alone.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from encdl.keys import secret_files
from encdl.keys.derivation import SECRET_BYTES, ImageKeys, check_nonce
from encdl.keys.functional_map import WORDS, FunctionalMap
from encdl.keys.grant import utc_now
from encdl.keys.key_pairs import ID_BYTES
from encdl.keys.recipients import RecipientKey, RecipientPublicKey
from encdl.keys.sequences import DEFAULT_MAP, integer_sequence
from encdl.keys.signing import SIGNATURE_BYTES, PublicKey, SigningKey
from encdl.utils import canonical_json
from encdl.utils.errors import ExpiredGrantError, KeyFileError, UsageError, WrongKeyError
from encdl.utils.frames import framed

SUFFIX: Final = ".fkey"
MAGIC: Final = b"\x89ENCFK\r\n"
SEALED_MAGIC: Final = b"\x89ENCFS\r\n"
VERSION: Final = 1
MAX_BYTES: Final = 1 << 28
MAX_NOISE: Final = 255.0

_PREFIX: Final = struct.Struct("<8sHI")
_SEALED_INFO: Final = b"encdl sealed functional key v1\0"
_NOISE: Final = b"encdl functional noise v1\0"
_DIGEST_BYTES: Final = 32
_FIELDS: Final = {
    "reader": r"[0-9a-f]{64}",
    "header": r"[0-9a-f]{64}",
    "nonce": r"[0-9a-f]{32}",
    "signer": r"([0-9a-f]{16})?",
    "expires": r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\+00:00)?",
}


@dataclass(frozen=True, eq=False)
class FunctionalKey:
    """The key of one file for one reader.

    Attributes:
        reader: Id of the reader's map, 64 hexadecimal characters.
        header: SHA-256 of the file's header, 64 hexadecimal characters.
        nonce: The file's, 16 bytes.
        numbers: W of the mask, less the noise, modulo 2^bits: unsigned, `bits` wide, (slices, outputs, rows, columns);
            of a volume that is read as a whole (1, outputs, slices, rows, columns), of W's grid.
        noise: Standard deviation in levels of what was added to each pixel, 0 for none.
        signer: Id of the public key that verifies it, "" if it is not signed.
        expires: From when on EncDL refuses it, in UTC; None for never. Advisory, as a grant's.
        signature: 72 bytes, or none.
    """

    reader: str
    header: str
    nonce: bytes
    numbers: npt.NDArray[Any]
    noise: float = 0.0
    signer: str = ""
    expires: datetime | None = None
    signature: bytes = b""

    @classmethod
    def issue(
        cls,
        function: FunctionalMap,
        mask: npt.NDArray[Any],
        keys: ImageKeys,
        header: bytes,
        *,
        noise: float = 0.0,
        signing_key: SigningKey | None = None,
        expires: datetime | None = None,
    ) -> FunctionalKey:
        """The functional key of a file; no ciphertext is needed.

        Args:
            function: The reader's map.
            mask: The file's, of what the map reads, whole numbers (slices, C, H, W), or (1, C, D, H, W) of a volume.
                Of a smaller size than the map's it lies in the middle, with zeros around it.
            keys: The file's.
            header: SHA-256 of the whole header, whose tag was verified: a lie about the shape would ask for other
                sums of the same mask.
            noise: Standard deviation in levels. One draw for each slice of a file, in the pixels' domain: every reader
                and every request gets W of the same noisy image, so that asking again averages nothing out.
            signing_key: The key server's.
            expires: When it ends.

        Raises:
            UsageError: The mask does not fit the map, or the noise is out of its range.
        """
        if noise:
            parts = (noisy(mask[at : at + 1], keys, noise, function.bits, at) for at in range(len(mask)))
            numbers = np.concatenate([function.apply(framed(part, function.size)) for part in parts])
        else:
            numbers = function.apply(framed(mask, function.size))
        signer = "" if signing_key is None else signing_key.public.id
        end = None if expires is None else expires.astimezone(UTC).replace(microsecond=0)
        bare = cls(function.id, header.hex(), keys.nonce, numbers, noise, signer, end)
        if signing_key is None:
            return bare
        signature = signing_key.sign(bare._signed_bytes())
        return cls(bare.reader, bare.header, bare.nonce, bare.numbers, noise, signer, end, signature)

    @property
    def count(self) -> int:
        """How many numbers of the file it gives away."""
        return int(self.numbers.size)

    @property
    def given_bits(self) -> int:
        """How many bits of the file it gives away at most."""
        return self.count * self.numbers.dtype.itemsize * 8

    def check(self, function: FunctionalMap, header: bytes, server: PublicKey | None = None) -> None:
        """Refuse a key that is for another reader or file, that is over, or that the server did not make.

        Args:
            function: The reader's map.
            header: SHA-256 of the file's whole header.
            server: The key server's public key, pinned by the host; None trusts whoever gave the key.

        Raises:
            WrongKeyError: says which.
        """
        if self.reader != function.id:
            raise WrongKeyError(
                f"this functional key is for reader {self.reader[:16]}, and this is reader {function.id[:16]}: ask the"
                " key server for one for this reader"
            )
        if self.header != header.hex():
            raise WrongKeyError(
                "this functional key is for another file, or the file's header was changed: ask the key server for one"
                " for this file"
            )
        if self.expires is not None and utc_now() >= self.expires:
            raise ExpiredGrantError(
                f"the functional key expired on {self.expires:%Y-%m-%d at %H:%M:%S} UTC: ask the key server anew"
            )
        words = f"u{function.bits // 8}"
        if self.numbers.shape[1:] != (len(function.weights), *function.grid) or self.numbers.dtype != words:
            raise WrongKeyError("this functional key does not fit its reader's map: ask the key server for a new one")
        if server is not None:
            self._verify(server)

    def seen(self, function: FunctionalMap, words: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """W of the image, modulo 2^bits, from the ciphertext: unsigned (slices, outputs, rows, columns).

        Args:
            function: The reader's map.
            words: The ciphertext that it reads, of the mask's shape (see `issue`).

        Raises:
            WrongKeyError: The key is for another number of slices.
        """
        if len(words) != len(self.numbers):
            raise WrongKeyError(
                f"this functional key is for {len(self.numbers)} slices, and the reading layer has {len(words)}: ask "
                "the key server for a new one"
            )
        found: npt.NDArray[Any] = function.apply(framed(words, function.size)) - self.numbers
        return found

    def save(self, path: str | os.PathLike[str], force: bool = False, to: RecipientPublicKey | None = None) -> None:
        """Write a file that only its owner can read, or seal it to a recipient; errors as `encdl.keys.Key.save`."""
        content = self.to_bytes()
        if to is not None:
            head = SEALED_MAGIC + bytes.fromhex(to.id)
            content = head + to.seal(content, _SEALED_INFO + head)
        secret_files.write(path, content, force=force)

    @classmethod
    def load(cls, path: str | os.PathLike[str], key: RecipientKey | None = None) -> FunctionalKey:
        """Read a file.

        Args:
            path: The file.
            key: What opens it, if it is sealed.

        Raises:
            KeyFileError: missing, unreadable, of another kind, or damaged; or sealed to another, or `key` is missing.
        """
        try:
            with Path(path).open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise KeyFileError(f"cannot read {path}: {error.strerror or error}: check the path") from None
        try:
            return cls.from_bytes(_unsealed(data, key))
        except KeyFileError as error:
            raise KeyFileError(f"{path}: {error}") from None

    def to_bytes(self) -> bytes:
        """The content of its file."""
        signed = self._signed_bytes()
        return signed + (self.signature or hashlib.sha256(signed).digest())

    @classmethod
    def from_bytes(cls, data: bytes) -> FunctionalKey:
        """Read what `to_bytes` gave, from untrusted input.

        Raises:
            KeyFileError: of another kind, or damaged.
        """
        if len(data) < _PREFIX.size or not data.startswith(MAGIC):
            raise KeyFileError("is no functional key: check the path, or make one with 'encdl grant --reader'")
        _, version, length = _PREFIX.unpack_from(data)
        if version != VERSION:
            raise KeyFileError(f"is a functional key of version {version}: update EncDL")
        start = _PREFIX.size + length
        values = _checked(data[_PREFIX.size : start])
        word, shape = np.dtype(f"<u{values['bits'] // 8}"), tuple(values["shape"])
        end = start + math.prod(shape) * word.itemsize
        trailer = data[end:]
        signed = bool(values["signer"])
        if len(data) > MAX_BYTES or len(trailer) != (SIGNATURE_BYTES if signed else _DIGEST_BYTES):
            raise _damaged()
        if not signed and hashlib.sha256(data[:end]).digest() != trailer:
            raise _damaged()
        numbers = np.frombuffer(data[start:end], word).astype(word.newbyteorder("=")).reshape(shape)
        return cls(
            values["reader"],
            values["header"],
            check_nonce(bytes.fromhex(values["nonce"])),
            numbers,
            values["noise"],
            values["signer"],
            datetime.fromisoformat(values["expires"]) if values["expires"] else None,
            trailer if signed else b"",
        )

    def __repr__(self) -> str:
        return f"FunctionalKey(reader={self.reader[:16]}, nonce={self.nonce.hex()}, numbers={self.count})"

    def _signed_bytes(self) -> bytes:
        """All but the trailer."""
        plain = {
            "reader": self.reader,
            "header": self.header,
            "nonce": self.nonce.hex(),
            "signer": self.signer,
            "expires": "" if self.expires is None else self.expires.isoformat(),
            "noise": float(self.noise),
            "bits": self.numbers.dtype.itemsize * 8,
            "shape": list(self.numbers.shape),
        }
        encoded = canonical_json.encoded(plain)
        little = self.numbers.astype(self.numbers.dtype.newbyteorder("<"), copy=False)
        return _PREFIX.pack(MAGIC, VERSION, len(encoded)) + encoded + little.tobytes()

    def _verify(self, server: PublicKey) -> None:
        if not self.signature:
            raise WrongKeyError("this functional key is not signed, and the key server's signature is asked for")
        if not server.verifies(self.signature, self._signed_bytes()):
            raise WrongKeyError(
                f"this functional key was not made by the key server {server.id}, or was changed: do not use it"
            )


def sealed_to(path: str | os.PathLike[str]) -> str | None:
    """Id of the public key that a file says it is sealed to; None for others, and what cannot be read."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(len(SEALED_MAGIC) + ID_BYTES)
    except OSError:
        return None
    return head[len(SEALED_MAGIC) :].hex() if head.startswith(SEALED_MAGIC) else None


def _unsealed(data: bytes, key: RecipientKey | None) -> bytes:
    """What is in a file, opened if it is sealed."""
    if not data.startswith(SEALED_MAGIC):
        return data
    head, sealed = data[: len(SEALED_MAGIC) + ID_BYTES], data[len(SEALED_MAGIC) + ID_BYTES :]
    recipient = head[len(SEALED_MAGIC) :].hex()
    if key is None:
        raise KeyFileError(f"is sealed to recipient {recipient}: give --recipient-key too")
    opened = key.open(sealed, _SEALED_INFO + head) if recipient == key.key_id else None
    if opened is None:
        mine = "it was changed" if recipient == key.key_id else f"yours is {key.key_id}"
        raise KeyFileError(f"is sealed to recipient {recipient}, and {mine}: ask for a new one")
    return opened


def noisy(
    mask: npt.NDArray[Any], keys: ImageKeys, deviation: float, bits: int, number: int = 0
) -> npt.NDArray[np.int64]:
    """A slice's mask less its draw of noise, modulo 2^bits: whoever takes it off the ciphertext has a noisy image.

    Args:
        mask: Of the slice, (1, C, H, W), or of a volume.
        keys: The file's.
        deviation: Of the noise.
        bits: Of a word.
        number: Of the slice in its file.

    Raises:
        UsageError: The noise is out of its range.
    """
    if not 0 <= deviation <= MAX_NOISE:
        raise UsageError(f"noise of a functional key is from 0 to {MAX_NOISE:g} levels, not {deviation}")
    words: npt.NDArray[np.int64] = mask.astype(np.int64)
    return (words - pixel_noise(keys, mask.shape, deviation, number)) & ((1 << bits) - 1) if deviation else words


def pixel_noise(keys: ImageKeys, shape: tuple[int, ...], deviation: float, number: int = 0) -> npt.NDArray[np.int64]:
    """The one draw of noise of a slice of a file: whole levels, normal with this standard deviation, int64 of `shape`.

    Another deviation or shape is another draw: of one draw at two sizes the image would follow without noise. Two draws
    average, so a key server keeps to one deviation.
    """
    drawn = (tuple(shape), float(deviation), *([number] if number else []))
    info = _NOISE + repr(drawn).encode()
    seed = HKDFExpand(SHA256(), SECRET_BYTES, info).derive(keys.reading)
    pairs = (integer_sequence(DEFAULT_MAP, [seed], 2 * math.prod(shape))[0].astype(np.float64) + 0.5) / 2.0**32
    radius = np.sqrt(-2.0 * np.log(pairs[::2]))  # Box and Muller 1958
    normal = radius * np.cos(2.0 * np.pi * pairs[1::2])
    levels: npt.NDArray[np.int64] = np.rint(normal * deviation).astype(np.int64).reshape(shape)
    return levels


def _checked(encoded: bytes) -> dict[str, Any]:
    """The fields of an untrusted key, each of its type and range."""
    try:
        values = canonical_json.decoded(encoded)
        if values.get("expires"):
            datetime.fromisoformat(values["expires"])
    except (ValueError, TypeError):
        raise _damaged() from None
    if set(values) != {*_FIELDS, "noise", "bits", "shape"}:
        raise _damaged()
    texts = all(isinstance(values[name], str) and re.fullmatch(form, values[name]) for name, form in _FIELDS.items())
    shape, noise = values["shape"], values["noise"]
    sizes = isinstance(shape, list) and len(shape) in {4, 5} and all(type(side) is int and side > 0 for side in shape)
    small = sizes and math.prod(shape) * 4 <= MAX_BYTES
    if not texts or not small or values["bits"] not in WORDS or type(noise) is not float or not 0 <= noise <= MAX_NOISE:
        raise _damaged()
    return values


def _damaged() -> KeyFileError:
    return KeyFileError("is cut or altered: ask the key server for the functional key again")
