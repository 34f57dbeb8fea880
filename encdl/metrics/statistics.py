"""Histogram, entropy, chi-square and neighbour correlation of a ciphertext.

Every function takes a batch of images, uint8 (B, C, H, W), as `check_images` asks for, and pools an image's channels,
so that a colour image gives one figure.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LEVELS = 256

# (rows, columns) from a pixel to its neighbour.
DIRECTIONS: dict[str, tuple[int, int]] = {"horizontal": (0, 1), "vertical": (1, 0), "diagonal": (1, 1)}

# 95 % point of chi-square with 255 degrees of freedom: uniform noise stays below it 19 times in 20.
CHI_SQUARE_CRITICAL = 293.2478


def check_images(images: Tensor) -> None:
    """Refuse what is no batch of 8-bit images.

    Args:
        images: expected to be uint8 (B, C, H, W) with at least one pixel.

    Raises:
        TypeError: the dtype is not uint8.
        ValueError: the shape is not (B, C, H, W), or the images are empty.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"expected uint8 images, got {images.dtype}")
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(f"expected images (B, C, H, W) with C, H, W >= 1, got {tuple(images.shape)}")


def check_pair(a: Tensor, b: Tensor) -> None:
    """Refuse what are no two batches of one shape; errors as of `check_images`."""
    check_images(a)
    check_images(b)
    if a.shape != b.shape:
        raise ValueError(f"expected two batches of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")


def histogram(images: Tensor) -> Tensor:
    """Count every grey level of each image: int64 (B, 256)."""
    check_images(images)
    flat = images.flatten(1).long()
    offsets = LEVELS * torch.arange(len(flat), device=flat.device).unsqueeze(1)
    counts = torch.bincount((flat + offsets).flatten(), minlength=LEVELS * len(flat))
    return counts.view(len(flat), LEVELS)


def entropy_bits(images: Tensor) -> Tensor:
    """Shannon entropy of the grey-level histogram.

    Returns:
        float64 (B,), 0 to 8 bits. Uniform noise stays a little below 8: 7.9972 at 256 x 256 pixels.
    """
    share = histogram(images).double() / images[0].numel()
    nats: Tensor = torch.special.entr(share).sum(1)
    return nats / math.log(2.0)


def chi_square(images: Tensor) -> Tensor:
    """Pearson's chi-square of the histogram against the uniform one (255 degrees of freedom).

    Returns:
        float64 (B,), 0 and up; uniform noise has mean 255 and is below `CHI_SQUARE_CRITICAL` 19 times in 20.
    """
    expected = images[0].numel() / LEVELS
    return ((histogram(images).double() - expected).square() / expected).sum(1)


def lag_correlation(images: Tensor, rows: int, columns: int) -> Tensor:
    """Pearson correlation of every pixel with the pixel `rows` below and `columns` to the right of it.

    All pairs count, none are sampled. Where the correlation is undefined (one side is constant), the
    answer is 1 if every pair is equal, as each pixel of a constant image tells all about its neighbour,
    else 0. An image too small for any such pair gives 0.

    Args:
        images: uint8 (B, C, H, W).
        rows: 0 or more.
        columns: 0 or more.

    Returns:
        float64 (B,), -1 to 1.

    Raises:
        ValueError: a lag is negative.
    """
    check_images(images)
    if rows < 0 or columns < 0:
        raise ValueError(f"lags must be 0 or more, got rows={rows}, columns={columns}")
    height, width = images.shape[-2:]
    if rows >= height or columns >= width:
        return torch.zeros(len(images), dtype=torch.float64, device=images.device)
    here = images[..., : height - rows, : width - columns].flatten(1).double()
    there = images[..., rows:, columns:].flatten(1).double()
    equal = (here == there).all(1)
    here = here - here.mean(1, keepdim=True)
    there = there - there.mean(1, keepdim=True)
    scale = (here.square().sum(1) * there.square().sum(1)).sqrt()
    undefined = scale == 0
    correlation = (here * there).sum(1) / scale.masked_fill(undefined, 1.0)
    return torch.where(undefined, equal.double(), correlation.clamp(-1.0, 1.0))


def adjacent_correlation(images: Tensor, direction: str) -> Tensor:
    """`lag_correlation` of neighbours in one of `DIRECTIONS`; ValueError for another."""
    if direction not in DIRECTIONS:
        raise ValueError(f"direction is {direction!r}: use one of {', '.join(DIRECTIONS)}")
    return lag_correlation(images, *DIRECTIONS[direction])


def mean_adjacent_correlation(images: Tensor) -> Tensor:
    """Mean over the three directions of the absolute correlation of neighbours: float64 (B,), 0 to 1."""
    return torch.stack([adjacent_correlation(images, name).abs() for name in DIRECTIONS]).mean(0)
