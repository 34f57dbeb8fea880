"""Fixed sub-keys and images for the tests of post-processing."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from encdl.keys.derivation import ImageKeys


def image_keys(count: int, seed: int = 0) -> list[ImageKeys]:
    """Different sub-keys for each of `count` images, the same in every run."""

    def secret(index: int, use: str) -> bytes:
        return hashlib.sha256(f"{seed} {index} {use}".encode()).digest()

    return [
        ImageKeys(
            planes=secret(index, "planes"),
            permutation=secret(index, "permutation"),
            diffusion=secret(index, "diffusion"),
            authentication=secret(index, "authentication"),
            wrap=secret(index, "wrap"),
            reading=secret(index, "reading"),
            nonce=secret(index, "nonce")[:16],
        )
        for index in range(count)
    ]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def changed(keys: ImageKeys, **parts: bytes) -> ImageKeys:
    """The same sub-keys but for some of them."""
    return ImageKeys(**{name: getattr(keys, name) for name in ImageKeys.__slots__} | parts)
