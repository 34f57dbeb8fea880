"""Entropy and correlation beside what uniform noise of the same size has, so that a test knows what to expect.

Local entropy: Y. Wu, Y. Zhou, G. Saveriades, S. Agaian, J. P. Noonan, P. Natarajan, "Local Shannon entropy measure
with statistical tests for image randomness", Information Sciences 222, 2013. The acceptance interval printed there for
30 blocks of 1936 pixels (7.901901305 to 7.903037329) is too narrow: of uniform noise 26 % fall into it, not 95 %. The
intervals here follow from the exact mean and variance of the entropy of a multinomial sample.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import torch
from scipy.special import xlogy
from scipy.stats import binom, chi2
from torch import Tensor

from encdl.metrics.statistics import LEVELS, check_images, entropy_bits

_REACH = 12.0
"""Standard deviations around the mean count of a grey level that the sums go through."""


def local_entropy_bits(
    images: Tensor, blocks: int = 30, block_pixels: int = 1936, generator: torch.Generator | None = None
) -> Tensor:
    """Mean Shannon entropy of square blocks that do not overlap, drawn at random; channels are drawn from alike.

    Args:
        images: uint8 (B, C, H, W).
        blocks: How many; the same places for every image of the batch.
        block_pixels: A square number.
        generator: Draws the places, on the CPU; the global one if None.

    Returns:
        float64 (B,), 0 to 8 bits.

    Raises:
        ValueError: The pixels of a block are no square number, or the image does not hold so many blocks.
    """
    check_images(images)
    side = math.isqrt(block_pixels)
    if blocks < 1 or side < 1 or side * side != block_pixels:
        raise ValueError(f"expected 1 or more square blocks, got {blocks} of {block_pixels} pixels")
    channels, height, width = images.shape[1:]
    rows, columns = height // side, width // side
    if channels * rows * columns < blocks:
        raise ValueError(
            f"{channels} x {height} x {width} pixels hold no {blocks} blocks of {side} x {side}: "
            f"take at most {channels * rows * columns} of them, or smaller ones"
        )
    grid = images[..., : rows * side, : columns * side].reshape(-1, channels, rows, side, columns, side)
    cells = grid.permute(0, 1, 2, 4, 3, 5).flatten(4).flatten(1, 3)  # (B, cells, pixels)
    chosen = torch.randperm(cells.shape[1], generator=generator)[:blocks].to(images.device)
    picked = cells[:, chosen]
    return entropy_bits(picked.flatten(0, 1)[:, None, None]).view(len(images), blocks).mean(1)


def block_pixels_for(shape: tuple[int, int, int], blocks: int = 30, most: int = 1936) -> int:
    """Pixels of the largest square block, up to `most`, of which an image (C, H, W) holds so many.

    Raises:
        ValueError: It has fewer pixels than `blocks`.
    """
    channels, height, width = shape
    for side in range(math.isqrt(most), 0, -1):
        if channels * (height // side) * (width // side) >= blocks:
            return side * side
    raise ValueError(f"{channels} x {height} x {width} pixels hold no {blocks} blocks")


def local_entropy_interval(blocks: int = 30, block_pixels: int = 1936, alpha: float = 0.05) -> tuple[float, float]:
    """The interval of `local_entropy_bits` of uniform noise at probability 1 - alpha; bits, (low, high)."""
    mean, deviation = noise_entropy(block_pixels)
    margin = _two_sided(alpha) * deviation / math.sqrt(blocks)
    return mean - margin, mean + margin


def entropy_interval(n_pixels: int, alpha: float = 0.05) -> tuple[float, float]:
    """The interval of `entropy_bits` of uniform noise at probability about 1 - alpha; bits, (low, high).

    The entropy is nearly a linear function of chi-square with 255 degrees of freedom, whose quantiles are scaled to the
    exact mean and deviation.
    """
    _two_sided(alpha)  # in range
    mean, deviation = noise_entropy(n_pixels)
    freedom = LEVELS - 1
    quantiles = chi2.ppf((1.0 - alpha / 2.0, alpha / 2.0), freedom)
    high, low = (mean - deviation * (each - freedom) / math.sqrt(2.0 * freedom) for each in quantiles[::-1])
    return float(low), float(high)


def correlation_critical(n_pairs: int, alpha: float = 0.05) -> float:
    """The absolute correlation that uniform noise exceeds with probability alpha, for `n_pairs` pairs of pixels.

    Normal approximation with deviation 1 / sqrt(pairs).
    """
    if n_pairs < 1:
        raise ValueError(f"expected 1 or more pairs, got {n_pairs}")
    return _two_sided(alpha) / math.sqrt(n_pairs)


@lru_cache(maxsize=64)
def noise_entropy(n_pixels: int) -> tuple[float, float]:
    """Mean and standard deviation, in bits, of the entropy of `n_pixels` uniform bytes.

    Both are sums over the counts of one grey level, and of two: the count of one is binomial, that of another given
    the first is too.

    Raises:
        ValueError: Fewer than 2 pixels.
    """
    if n_pixels < 2:
        raise ValueError(f"expected 2 or more pixels, got {n_pixels}")
    middle = n_pixels / LEVELS
    reach = _REACH * math.sqrt(middle + 1.0)
    counts = np.arange(max(0, math.floor(middle - reach)), min(n_pixels, math.ceil(middle + reach)) + 1)
    share = counts / n_pixels
    first = binom.pmf(counts, n_pixels, 1.0 / LEVELS)
    term = -xlogy(share, share) / math.log(2.0)
    mean = float(first @ term)
    off = term - mean
    second = binom.pmf(counts, n_pixels - counts[:, None], 1.0 / (LEVELS - 1))  # given the row's first count
    variance = LEVELS * float(first @ off**2) + LEVELS * (LEVELS - 1) * float(first * off @ second @ off)
    return LEVELS * mean, math.sqrt(max(variance, 0.0))


def _two_sided(alpha: float) -> float:
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"expected 0 < alpha < 1, got {alpha}")
    return NormalDist().inv_cdf(1.0 - alpha / 2.0)
