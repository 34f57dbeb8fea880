"""Pixel-unshuffled images: a 2x2 block of pixels becomes four phases of half the height and width.

Phase 0 holds the pixels of even row and even column, phase 1 even row and odd column, phase 2 odd row and even
column, phase 3 odd row and odd column. Odd heights and widths are padded for the network and cropped again;
phase 0 is never padded, so what the padding holds never decides a ciphertext pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def to_phases(x: Tensor) -> Tensor:
    """(N, K, H, W) -> (N, 4K, ceil(H/2), ceil(W/2)), zeros where H or W is odd; channel k goes to 4k..4k+3."""
    return F.pixel_unshuffle(_even(x), 2)


def phases_of(x: Tensor) -> tuple[Tensor, ...]:
    """The four phases of (N, K, H, W), each (N, K, ceil(H/2), ceil(W/2)), as views where H and W are even."""
    x = _even(x)
    return tuple(x[..., row::2, column::2] for row in (0, 1) for column in (0, 1))


def _even(x: Tensor) -> Tensor:
    """`x` with zeros below and to the right where height or width is odd."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, width % 2, 0, height % 2)) if height % 2 or width % 2 else x


def from_phases(x: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `to_phases`: (N, 4K, h, w) -> (N, K, height, width)."""
    return F.pixel_shuffle(x, 2)[..., :height, :width]


def fold_channels(x: Tensor) -> Tensor:
    """(B, C, ..., H, W) -> (B*C, ..., H, W): each channel is enciphered as an image of its own."""
    return x.flatten(0, 1)


def circle(x: Tensor) -> Tensor:
    """Levels 0..255 of shape (N, K, H, W) as points of a circle: (N, 2K, H, W), cosines then sines."""
    angle = x * (2.0 * torch.pi / 256.0)
    return torch.cat([angle.cos(), angle.sin()], dim=1)
