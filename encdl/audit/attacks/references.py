"""Weak schemes that attacks have to break, so that a failure elsewhere means something."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from encdl.audit.attacks.targets import Target, audit_key, audit_nonce


@dataclass(frozen=True)
class RepeatedKeyXor(Target):
    """A key of 16 x 16 bytes, repeated over every image and XORed to it: one master key, no nonce."""

    mode: str = "default"
    owner: int = 0
    name = "repeated_key_xor"

    def encrypt(self, images: Tensor, first: int = 0) -> Tensor:
        """See `Target.encrypt`."""
        height, width = images.shape[2:]
        tile = self.key.to(images.device).repeat(-(-height // 16), -(-width // 16))
        return images ^ tile[:height, :width]

    @property
    def key(self) -> Tensor:
        """The key: uint8 (16, 16)."""
        secret = audit_key(self.owner).image_keys(audit_nonce(0)).planes
        return torch.frombuffer(bytearray(hashlib.shake_256(secret).digest(256)), dtype=torch.uint8).view(16, 16)

    def under(self, owner: int) -> RepeatedKeyXor:
        """See `Target.under`."""
        return replace(self, owner=owner)


@dataclass(frozen=True)
class ByteShift(Target):
    """One secret byte an image, added to every pixel modulo 256: a fresh key each time, and only 256 of them."""

    mode: str = "default"
    owner: int = 0
    name = "byte_shift"

    def encrypt(self, images: Tensor, first: int = 0) -> Tensor:
        """See `Target.encrypt`."""
        numbers = range(first, first + len(images))
        secrets = [audit_key(self.owner).image_keys(audit_nonce(number)).planes[0] for number in numbers]
        return images + torch.tensor(secrets, dtype=torch.uint8, device=images.device).view(-1, 1, 1, 1)

    def under(self, owner: int) -> ByteShift:
        """See `Target.under`."""
        return replace(self, owner=owner)


@dataclass(frozen=True)
class BlockScrambling(Target):
    """Block scrambling as in encryption-then-compression: blocks are moved, turned, mirrored and negated.

    T. Chuman, W. Sirichotedumrong, H. Kiya, "Encryption-then-compression systems using grayscale-based image
    encryption for JPEG images", IEEE TIFS 14, 2019. Blocks are squares of a quarter of the image's side. In mode
    `default` the key is fresh for every image, in `fixed_key` it is one for all.
    """

    mode: str = "default"
    owner: int = 0
    name = "block_scrambling"

    def encrypt(self, images: Tensor, first: int = 0) -> Tensor:
        """See `Target.encrypt`; images are square, of sides that `BLOCKS` divides.

        Raises:
            ValueError: They are not.
        """
        if self.mode == "fixed_key":
            return self._scrambled(images, 0)
        parts = [self._scrambled(one[None], first + index) for index, one in enumerate(images)]
        return torch.cat(parts)

    def under(self, owner: int) -> BlockScrambling:
        """See `Target.under`."""
        return replace(self, owner=owner)

    def _scrambled(self, images: Tensor, number: int) -> Tensor:
        blocks = to_blocks(images, block_side(images))
        secret = audit_key(self.owner).image_keys(audit_nonce(number)).planes
        generator = torch.Generator().manual_seed(int.from_bytes(secret[:7], "little"))
        count = blocks.shape[1]
        order = torch.randperm(count, generator=generator).to(images.device)
        turns = torch.randint(0, 8, (count,), generator=generator)
        negated = torch.randint(0, 2, (count,), generator=generator).bool().to(images.device)
        moved = blocks[:, order]
        turned = torch.stack([turn_block(moved[:, i], int(turn)) for i, turn in enumerate(turns)], 1)
        turned = torch.where(negated.view(1, -1, 1, 1, 1), 255 - turned, turned)
        return from_blocks(turned, images.shape[2])


BLOCKS = 4
"""Blocks along a side of a scrambled image."""


def block_side(images: Tensor) -> int:
    """Side of a block of images (B, C, S, S) in pixels.

    Raises:
        ValueError: The images are no squares that blocks fill.
    """
    height, width = images.shape[2:]
    if height != width or height % BLOCKS:
        raise ValueError(f"expected squares of a side that {BLOCKS} divides, got {tuple(images.shape)}")
    return height // BLOCKS


def to_blocks(images: Tensor, block: int) -> Tensor:
    """(B, C, S, S) to (B, blocks, C, block, block), row by row."""
    batch, channels, side, _ = images.shape
    grid = images.reshape(batch, channels, side // block, block, side // block, block)
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def from_blocks(blocks: Tensor, side: int) -> Tensor:
    """The inverse of `to_blocks`."""
    batch, _, channels, block, _ = blocks.shape
    grid = blocks.view(batch, side // block, side // block, channels, block, block)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, side, side)


def turn_block(block: Tensor, turn: int) -> Tensor:
    """One of the eight ways to lay a square: (..., b, b), turn 0 to 7; from 4 on mirrored too."""
    turned = torch.rot90(block, turn % 4, (-2, -1))
    return turned.flip(-1) if turn >= 4 else turned
