"""Targets of attacks: black boxes that encrypt images, ours in each mode and the references beside them."""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from cryptography.hazmat.primitives.ciphers import Cipher as AESCipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from torch import Tensor

from encdl.ciphers import postprocess
from encdl.ciphers.base import Cipher
from encdl.ciphers.nn.plane_tensors import plane_tensor
from encdl.keys.derivation import ImageKeys
from encdl.keys.key import Key, synthetic_nonce
from encdl.keys.planes import PlaneSpec, WeakPlanesWarning
from encdl.keys.sequences import DEFAULT_MAP

CHUNK: Final = 64
"""Images that are encrypted at a time, so that key planes fit into memory."""


class Target(ABC):
    """A black box that encrypts; images are numbered, and the number fixes the nonce, so that runs repeat.

    Attributes:
        name: Of the cipher: "agile", "aes_256_ctr", …
        mode: How it is used: "default" is what a user gets without settings.
    """

    name: str
    mode: str

    @abstractmethod
    def encrypt(self, images: Tensor, first: int = 0) -> Tensor:
        """Encrypt images number `first` and on.

        Args:
            images: uint8 (B, C, H, W).
            first: Number of the first of them. Where nonces are fresh, no two numbers share one.

        Returns:
            uint8 of the same shape, on the same device.
        """

    @abstractmethod
    def under(self, owner: int) -> Target:
        """The same under another master key: attackers may practise with keys of their own. The victim is 0."""


@dataclass(frozen=True)
class CipherTarget(Target):
    """A neural cipher in one mode.

    Attributes:
        cipher: In evaluation mode, on its device.
        mode: See `MODES`.
        spec: Map and expansion of the key planes.
        process: A name of `encdl.ciphers.names.POSTPROCESS`. What is undone without a key (`PostProcess.keyed`) is not
            left on the ciphertexts that `encrypt` gives: the attacker has undone it.
        nonce: "random" (another for each number), "synthetic" (from the image), or "reused" (one for all).
        owner: Whose master key.
    """

    cipher: Cipher
    mode: str
    spec: PlaneSpec
    process: str = postprocess.DEFAULT
    nonce: str = "random"
    owner: int = 0

    @property
    def name(self) -> str:  # type: ignore[override]
        """The cipher's."""
        return self.cipher.name

    @property
    def bare(self) -> bool:
        """Whether `encrypt` gives the network's own ciphertexts."""
        return not postprocess.create(self.process).keyed

    def under(self, owner: int) -> CipherTarget:
        """See `Target.under`."""
        return replace(self, owner=owner)

    def encrypt(self, images: Tensor, first: int = 0) -> Tensor:
        """See `Target.encrypt`."""
        parts = []
        for start in range(0, len(images), CHUNK):
            part = images[start : start + CHUNK]
            keys = self.image_keys(part, first + start)
            ciphertext = self.cipher.encrypt(part, self._planes(keys, part))
            parts.append(ciphertext if self.bare else postprocess.create(self.process).apply(ciphertext, keys))
        return torch.cat(parts)

    def planes(self, images: Tensor, first: int = 0) -> Tensor:
        """The secret key planes behind `encrypt`, packed, uint8 (B, C, H, W): what a white-box attack is judged by."""
        return self._planes(self.image_keys(images, first), images)

    def image_keys(self, images: Tensor, first: int = 0) -> list[ImageKeys]:
        """The secret sub-keys behind `encrypt`."""
        key = audit_key(self.owner)
        if self.nonce == "reused":
            return [key.image_keys(audit_nonce(0))] * len(images)
        if self.nonce == "random":
            return [key.image_keys(audit_nonce(first + index)) for index in range(len(images))]
        shape = str(tuple(images.shape[1:])).encode()
        contents = (image.cpu().contiguous().numpy().tobytes() for image in images)
        return [key.image_keys(synthetic_nonce(key, content, shape)) for content in contents]

    def _planes(self, keys: list[ImageKeys], images: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", WeakPlanesWarning)  # what it warns of is measured here
            return plane_tensor([one.planes for one in keys], self.spec, images.shape[1:], images.device)


MODES: Final[dict[str, dict[str, str]]] = {
    "default": {},
    "confusion": {"process": "confusion"},
    "diffusion": {"process": "diffusion"},
    "synthetic_nonce": {"nonce": "synthetic"},
    "coprime": {"expansion": "coprime"},
    "periodic": {"expansion": "periodic"},
    "reused_nonce": {"nonce": "reused"},
    "reused_nonce_confusion": {"nonce": "reused", "process": "confusion"},
    "reused_nonce_diffusion": {"nonce": "reused", "process": "diffusion"},
}
"""Settings of each mode beside a user's defaults. No command reuses a nonce; a reader for the fixed-key host does."""

PERIOD: Final = 16
"""Of the modes that repeat key planes, in pixels."""


def cipher_target(cipher: Cipher, mode: str = "default", sequence: str = DEFAULT_MAP) -> CipherTarget:
    """A cipher in one of `MODES`, with key planes from the map `sequence`."""
    settings: dict[str, Any] = dict(MODES[mode])
    expansion = settings.pop("expansion", "full")
    period = 0 if expansion == "full" else PERIOD
    return CipherTarget(cipher, mode, PlaneSpec(sequence, expansion, cipher.planes, period), **settings)


@dataclass(frozen=True)
class Aes(Target):
    """AES-256 in counter mode under a fresh nonce for every image: what no attack here should break."""

    mode: str = "default"
    owner: int = 0
    name = "aes_256_ctr"

    def encrypt(self, images: Tensor, first: int = 0) -> Tensor:
        """See `Target.encrypt`."""
        streams = []
        for number in range(first, first + len(images)):
            keys = audit_key(self.owner).image_keys(audit_nonce(number))
            secret = AESCipher(AES(keys.planes), CTR(keys.nonce)).encryptor().update(bytes(images[0].numel()))
            streams.append(torch.frombuffer(bytearray(secret), dtype=torch.uint8).view(images.shape[1:]))
        return images ^ torch.stack(streams).to(images.device)

    def under(self, owner: int) -> Aes:
        """See `Target.under`."""
        return replace(self, owner=owner)


@dataclass(frozen=True)
class FixedXor(Target):
    """One keystream for every image and every key: fixed planes, as if they were part of the software."""

    mode: str = "default"
    name = "fixed_xor"

    def encrypt(self, images: Tensor, first: int = 0) -> Tensor:
        """See `Target.encrypt`."""
        return images ^ Aes(owner=-1).encrypt(torch.zeros_like(images[:1]))

    def under(self, owner: int) -> FixedXor:
        """The same: a key changes nothing."""
        return self


def audit_key(owner: int) -> Key:
    """A master key for measurements: reproducible, hence no secret."""
    return Key(hashlib.sha256(f"encdl audit key {owner}".encode()).digest())


def audit_nonce(number: int) -> bytes:
    """A nonce for measurements."""
    return hashlib.sha256(f"encdl audit nonce {number}".encode()).digest()[:16]
