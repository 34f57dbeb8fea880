"""Key derivation, and objects that keep secrets out of prints, logs and checkpoints.

The hierarchy (HKDF-SHA256, RFC 5869; every secret is 32 bytes):

    master key
      study secret = HKDF(master, info "encdl study" 0x00 name)
        image secret = HKDF(study secret, salt nonce, info "encdl image")
          planes, permutation, diffusion, authentication, wrap, reading = HKDF-Expand(image secret, info that word)
        nonce secret = HKDF(study secret, info "encdl nonce")
        owner secret = HKDF(study secret, info "encdl owner")
"""

from __future__ import annotations

import hmac
import unicodedata
from typing import Final, NoReturn

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from encdl.utils.errors import UsageError

SECRET_BYTES: Final = 32
NONCE_BYTES: Final = 16
MAX_STUDY_BYTES: Final = 256
OF_NONCES: Final = b"encdl nonce"
"""Under a study's secret: makes synthetic nonces in the study."""
OF_OWNER: Final = b"encdl owner"
"""Under a study's secret: marks its files as its owner's; who has but one file's secret cannot make that mark."""


class Unpicklable:
    """Refuses to be pickled or copied, so that a secret cannot slip into a checkpoint or a log."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} holds a secret and is not pickled: save it to its own file")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        self.__reduce__()


class ImageKeys(Unpicklable):
    """The sub-keys of one image. Treat every attribute but the nonce as secret.

    No dataclass: `dataclasses.asdict` would give the secrets away.

    Args:
        planes: seeds the key planes, 32 bytes.
        permutation: keys the confusion step, 32 bytes.
        diffusion: keys the diffusion step, 32 bytes.
        authentication: keys the container's HMAC-SHA256 tag, 32 bytes.
        wrap: from it come the keys of AES-256-GCM around a whole file (`encdl.files.container.aes_wrap`), 32 bytes.
        reading: seeds the mask of a file's reading layer (`encdl.ciphers.reading_layer`), 32 bytes.
        nonce: the public 16 bytes that the others were derived with.
    """

    planes: bytes
    permutation: bytes
    diffusion: bytes
    authentication: bytes
    wrap: bytes
    reading: bytes
    nonce: bytes
    __slots__ = ("authentication", "diffusion", "nonce", "permutation", "planes", "reading", "wrap")

    def __init__(
        self,
        planes: bytes,
        permutation: bytes,
        diffusion: bytes,
        authentication: bytes,
        wrap: bytes,
        reading: bytes,
        nonce: bytes,
    ) -> None:
        given = locals()
        for name in self.__slots__:
            object.__setattr__(self, name, given[name])

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("sub-keys are derived, and never changed")

    def __repr__(self) -> str:
        return f"ImageKeys(nonce={self.nonce.hex()})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ImageKeys):
            return NotImplemented
        return hmac.compare_digest(self._joined(), other._joined())

    def __hash__(self) -> int:
        return hash(self.nonce)

    def _joined(self) -> bytes:
        secrets = (self.planes, self.permutation, self.diffusion, self.authentication, self.wrap, self.reading)
        return b"".join((*secrets, self.nonce))


def hkdf(secret: bytes, info: bytes, salt: bytes | None = None, length: int = SECRET_BYTES) -> bytes:
    """HKDF-SHA256 (RFC 5869), extract and expand."""
    return HKDF(SHA256(), length, salt, info).derive(secret)


def study_secret(master: bytes, study: str) -> bytes:
    """The secret that opens every file of a study; "" stands for files without a study."""
    return hkdf(master, b"encdl study\0" + check_study(study).encode())


def image_secret(study: bytes, nonce: bytes) -> bytes:
    """The secret that opens the one file with this nonce."""
    return hkdf(study, b"encdl image", salt=check_nonce(nonce))


def image_keys(secret: bytes, nonce: bytes) -> ImageKeys:
    """The sub-keys under an image secret."""
    planes, permutation, diffusion, authentication, wrap, reading = (
        HKDFExpand(SHA256(), SECRET_BYTES, info).derive(secret)
        for info in (b"planes", b"permutation", b"diffusion", b"authentication", b"wrap", b"reading")
    )
    return ImageKeys(planes, permutation, diffusion, authentication, wrap, reading, nonce)


def check_nonce(nonce: bytes) -> bytes:
    """Return the nonce as bytes.

    Raises:
        UsageError: unless it is 16 bytes.
    """
    if len(nonce) != NONCE_BYTES:
        raise UsageError(f"a nonce has {NONCE_BYTES} bytes, this one {len(nonce)}: use random_nonce()")
    return bytes(nonce)


def check_study(study: str) -> str:
    """Return the study's name in Unicode normal form C, so that it is the same typed on any machine.

    Raises:
        UsageError: for a name over 256 bytes of UTF-8, or with control characters or lone surrogates in it.
    """
    name = unicodedata.normalize("NFC", study)
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in name):
        raise UsageError("a study's name cannot hold control characters or broken Unicode: rename the study")
    if len(name.encode()) > MAX_STUDY_BYTES:
        raise UsageError(f"a study's name cannot be longer than {MAX_STUDY_BYTES} bytes: shorten it")
    return name
