"""Texture of an image by its grey-level co-occurrence matrix (R. M. Haralick, K. Shanmugam, I. Dinstein, 1973)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from encdl.metrics.statistics import LEVELS, check_images

OFFSETS = ((0, 1), (1, 1), (1, 0), (1, -1))
"""(rows, columns) from a pixel to its partner: 0, 45, 90 and 135 degrees, at a distance of 1."""


def co_occurrence(images: Tensor, levels: int = 8) -> Tensor:
    """Grey-level co-occurrence matrices, normalised and symmetric, one for each of `OFFSETS`.

    Args:
        images: uint8 (B, C, H, W), H and W at least 2; channels are pooled.
        levels: Grey levels are cut into so many of equal width; 2 to 256.

    Returns:
        float64 (B, 4, levels, levels), of sum 1 each.

    Raises:
        ValueError: Another number of levels, or an image without such neighbours.
    """
    check_images(images)
    height, width = images.shape[2:]
    if not 2 <= levels <= LEVELS or min(height, width) < 2:
        raise ValueError(f"expected 2 to 256 levels and at least 2 x 2 pixels, got {levels} and {height} x {width}")
    coarse = images.long() * levels // LEVELS
    batch = torch.arange(len(images), device=images.device).view(-1, 1) * levels * levels
    matrices = []
    for rows, columns in OFFSETS:
        start, stop = max(0, -columns), width - max(0, columns)
        here = coarse[:, :, : height - rows, start:stop].flatten(1)
        there = coarse[:, :, rows:, start + columns : stop + columns].flatten(1)
        found = torch.bincount((batch + here * levels + there).flatten(), minlength=len(images) * levels**2)
        counts = found.view(-1, levels, levels).double()
        counts = counts + counts.transpose(1, 2)
        matrices.append(counts / counts.sum((1, 2), keepdim=True))
    return torch.stack(matrices, dim=1)


def glcm_features(images: Tensor, levels: int = 8) -> dict[str, Tensor]:
    """Haralick's features, means over the four directions.

    Args:
        images: uint8 (B, C, H, W), H and W at least 2.
        levels: See `co_occurrence`.

    Returns:
        float64 (B,) each: `contrast` (0 up; 10.5 for uniform noise at 8 levels), `homogeneity` (with the weights
        1 / (1 + difference) of the figures in print, not of its square; 0 to 1; .389), `asm` (the angular second
        moment, 0 to 1; .0156), `entropy_bits` (0 to 6 at 8 levels) and `correlation` (-1 to 1; 1 for constant images,
        as scikit-image has it).

    Raises:
        ValueError: See `co_occurrence`.
    """
    shares = co_occurrence(images, levels)
    level = torch.arange(levels, dtype=torch.float64, device=images.device)
    apart = (level.unsqueeze(1) - level).abs()
    mean = (shares.sum(3) * level).sum(2)
    variance = (shares.sum(3) * level.square()).sum(2) - mean.square()
    product = (shares * torch.outer(level, level)).sum((2, 3)) - mean.square()
    flat = variance < 1e-12
    features = {
        "contrast": (shares * apart.square()).sum((2, 3)),
        "homogeneity": (shares / (1.0 + apart)).sum((2, 3)),
        "asm": shares.square().sum((2, 3)),
        "entropy_bits": torch.special.entr(shares).sum((2, 3)) / math.log(2.0),
        "correlation": torch.where(flat, 1.0, product / variance.masked_fill(flat, 1.0)),
    }
    return {name: value.mean(1) for name, value in features.items()}
