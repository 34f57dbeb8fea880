"""Sub-keys and key planes of a batch of images on a GPU: `encdl.keys.derivation` and `encdl.keys.planes` there."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from encdl.ciphers.device import hashing
from encdl.ciphers.device.keystream import byte_sequences, seed_words
from encdl.ciphers.device.replay import replayed
from encdl.keys.planes import ALL_BITS, PlaneSpec


def plane_seeds(study_secret: bytes, nonces: Tensor) -> Tensor:
    """What seeds the key planes of the images with these nonces, uint8 (N, 16): int32 (N, 8)."""
    device = nonces.device
    salts = nonces.contiguous().view(torch.int32)
    secret = hashing.padded([study_secret], hashing.BLOCK_BYTES, device)
    words = hashing.hmac_sha256(torch.nn.functional.pad(salts, (0, 4)), secret)[:, 0]
    for info in (b"encdl image\x01", b"planes\x01"):
        words = hashing.hmac_sha256(words, hashing.public_messages((info,), hashing.BLOCK_BYTES, device))[:, 0]
    return words


def key_planes(subkeys: Sequence[bytes], spec: PlaneSpec, shape: Sequence[int], device: torch.device | str) -> Tensor:
    """`encdl.keys.planes.key_planes` of the expansion `full` on a device; arguments are checked already."""
    seeds = seed_words(subkeys, device)
    name, pixels = ("planes", spec, *shape), len(subkeys) * math.prod(shape)
    return replayed(lambda given: seeded_planes(given, spec, shape), name, seeds, pixels)


def seeded_planes(seeds: Tensor, spec: PlaneSpec, shape: Sequence[int]) -> Tensor:
    """Key planes of the expansion `full`, uint8 (N, C, H, W), packed.

    Args:
        seeds: int32 (N, 8), such as `plane_seeds`.
        spec: Map and number of planes.
        shape: (C, H, W).
    """
    planes = byte_sequences(spec.map, seeds, math.prod(shape)).reshape(len(seeds), *shape)
    bits = (1 << spec.count) - 1
    return planes if bits == ALL_BITS else planes & bits
