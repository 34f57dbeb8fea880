"""Inputs of learned attackers: a ciphertext in several readings, with keystreams estimated from known pairs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LEVELS = 256


class Guesses:
    """Readings of ciphertexts as features.

    From known pairs, the most common c XOR x and c - x at each position: one keystream for all images shows there. In
    each ciphertext by itself, its most common byte, which may be black under a byte that is added everywhere. And the
    ciphertext as it is: circle and bits.

    Args:
        plaintexts: uint8 (N, C, H, W), known.
        ciphertexts: uint8 of the same shape, theirs.
    """

    def __init__(self, plaintexts: Tensor, ciphertexts: Tensor) -> None:
        self.xored = _most_common(ciphertexts ^ plaintexts)
        self.added = _most_common(ciphertexts - plaintexts)

    @staticmethod
    def channels(images: int) -> int:
        """Channels of the features for so many channels of the image."""
        return 13 * images

    def __call__(self, ciphertexts: Tensor) -> Tensor:
        """Float32 (B, 13 C, H, W), of the order of 1."""
        black = _most_common(ciphertexts.flatten(1).T.contiguous()).view(-1, 1, 1, 1)
        read = [ciphertexts ^ self.xored, ciphertexts - self.added, ciphertexts - black]
        angle = ciphertexts.float() * (2 * math.pi / LEVELS)
        bits = [((ciphertexts >> bit) & 1).float() * 2 - 1 for bit in range(8)]
        return torch.cat([*(each.float() / 127.5 - 1 for each in read), angle.cos(), angle.sin(), *bits], 1)


def _most_common(values: Tensor) -> Tensor:
    """The most common byte over the first axis: uint8 (N, ...) -> (...)."""
    flat = values.flatten(1).T.long()
    offsets = LEVELS * torch.arange(len(flat), device=flat.device).unsqueeze(1)
    counts = torch.bincount((flat + offsets).flatten(), minlength=LEVELS * len(flat))
    return counts.view(-1, LEVELS).argmax(1).to(torch.uint8).view(values.shape[1:])
