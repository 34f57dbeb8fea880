"""Ciphers, keys and images that the tests of the ciphers share."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from encdl import ciphers
from encdl.ciphers import Cipher, weights
from encdl.ciphers.postprocess import PostProcess
from encdl.keys.derivation import ImageKeys
from encdl.keys.key import Key
from encdl.keys.planes import PlaneSpec, key_planes

RANDOM: dict[str, tuple[str, dict[str, int]]] = {
    "agile-1": ("agile", {"planes": 1, "width": 8, "blocks": 1}),
    "agile-4": ("agile", {"planes": 4, "width": 4, "blocks": 0}),
    "coupled-1": ("coupled", {"planes": 1, "width": 8, "blocks": 1}),
    "coupled-8": ("coupled", {"coupling_width": 9, "width": 8, "blocks": 1}),
    "keystream-3": ("keystream", {"planes": 3, "width": 4, "blocks": 1}),
    "thesis-3": ("thesis", {"planes": 3, "width": 8, "blocks": 1}),
}
"""Ciphers with random weights: name and settings."""

SHIPPED = ("default", "keystream", "thesis")
EVERY = (*RANDOM, *SHIPPED)
EXACT = tuple(name for name in EVERY if "thesis" not in name)


@functools.cache
def cipher(name: str) -> Cipher:
    """One of `EVERY`, in evaluation mode."""
    if name in SHIPPED:
        return weights.load(name).cipher
    kind, settings = RANDOM[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sum(name.encode()))
        return ciphers.create(kind, dict(settings)).eval().requires_grad_(False)


def image_keys(count: int, seed: int = 0) -> list[ImageKeys]:
    """Sub-keys of `count` images under one master key that no training has seen."""
    master = Key(hashlib.sha256(f"cipher tests {seed}".encode()).digest())
    return [master.image_keys(hashlib.sha256(f"nonce {index}".encode()).digest()[:16]) for index in range(count)]


def planes(one: Cipher, image: Tensor, keys: list[ImageKeys], expansion: str = "full", period: int = 0) -> Tensor:
    """Key planes for a batch of images, packed: uint8 (B, C, H, W)."""
    spec = PlaneSpec(expansion=expansion, period=period, count=one.planes)
    return torch.from_numpy(key_planes([key.planes for key in keys], spec, *image.shape[1:]))


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Random bytes."""
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Pipeline:
    """A cipher and a post-processing, from image to ciphertext and back, as a file's bytes go."""

    cipher: Cipher
    process: PostProcess

    def encrypt(self, image: Tensor, keys: list[ImageKeys]) -> Tensor:
        return self.process.apply(self.cipher.encrypt(image, planes(self.cipher, image, keys)), keys)

    def decrypt(self, ciphertext: Tensor, keys: list[ImageKeys]) -> Tensor:
        bits = planes(self.cipher, ciphertext, keys)
        return self.cipher.decrypt(self.process.undo(ciphertext, keys), bits)

    def restore(self, ciphertext: Tensor, keys: list[ImageKeys], lost: Tensor | None = None) -> Tensor:
        bits = planes(self.cipher, ciphertext, keys)
        reached = None if lost is None else self.process.undo_lost(lost, keys)
        return self.cipher.restore(self.process.undo(ciphertext, keys), bits, reached)
