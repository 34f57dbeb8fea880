"""The tile attack: what one ciphertext gives away when its key planes repeat over the image. No key needed.

Key planes that repeat with a period make the mask repeat too. Every medical image has a constant
background, so that the most common value at a place of the tile is the mask there (plus the background's
grey level). Subtracting the tile of these values uncovers the image.

The period shows in the index of coincidence: values one period apart agree more often than the one time
in 256 of chance (W. F. Friedman, "The Index of Coincidence and Its Applications in
Cryptography", 1922).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from encdl.utils.errors import UsageError

_LEVELS = 256


@dataclass(frozen=True)
class TileGuess:
    """The attack's best guess.

    Attributes:
        estimate: uint8 (C, H, W), the ciphertext less the tile: the image less its background's grey level,
            where the attack works.
        tile: uint8 (C, period, period), the guessed mask plus the background's grey level.
        period: the side of the tile in pixels.
        confidence: by how many standard deviations the coincidences of this period exceed those of noise.
            The best of 100 periods stays below about 4 on noise.
    """

    estimate: Tensor
    tile: Tensor
    period: int
    confidence: float


@dataclass(frozen=True)
class TileScore:
    """How much of the image an estimate shows.

    Attributes:
        correlation: absolute Pearson correlation of estimate and image, 0 to 1.
        baseline: the largest such figure of the same attack on ciphertexts of pure noise.
    """

    correlation: float
    baseline: float

    @property
    def leaks(self) -> bool:
        """Whether the estimate shows clearly more of the image than noise does: twice the baseline."""
        return self.correlation > 2.0 * self.baseline


def tile_attack(ciphertext: Tensor, periods: Iterable[int] | None = None) -> TileGuess:
    """Look for a repeated mask in one ciphertext and take it off.

    Args:
        ciphertext: uint8 (C, H, W), H and W at least 4.
        periods: candidates, each from 1 to half the shorter side; all of them from 2 on if None. A network
            that works on 2 x 2 blocks doubles an odd period of its key planes.

    Returns:
        the guess for the period whose values coincide most significantly.

    Raises:
        TypeError: the ciphertext is not uint8.
        ValueError: the ciphertext is not (C, H, W), or is too small.
        UsageError: a period is out of range, or there is none.
    """
    if ciphertext.dtype != torch.uint8:
        raise TypeError(f"expected a uint8 ciphertext, got {ciphertext.dtype}")
    if ciphertext.ndim != 3 or min(ciphertext.shape[1:]) < 4:
        raise ValueError(f"expected a ciphertext (C, H, W) with H, W >= 4, got {tuple(ciphertext.shape)}")
    largest = min(ciphertext.shape[1:]) // 2
    candidates = list(range(2, largest + 1) if periods is None else periods)
    if not candidates or min(candidates) < 1 or max(candidates) > largest:
        raise UsageError(f"tile attack: this image takes periods from 1 to {largest}, got {candidates[:5]}")
    confidence, period = max((_confidence(ciphertext, period), -period) for period in candidates)
    estimate, tile = _take_off(ciphertext, -period)
    return TileGuess(estimate, tile, -period, confidence)


def score(guess: TileGuess, image: Tensor, trials: int = 19) -> TileScore:
    """Compare the attack's guess with the plaintext.

    The baseline is measured: the few values at each place of a large tile always hold the most common one, so that
    the attack writes a faint grid into any noise, which correlates with an image more than noise itself does.

    Args:
        guess: what `tile_attack` returned.
        image: uint8 (C, H, W), the plaintext.
        trials: ciphertexts of noise behind the baseline; the same ones in every call.

    Returns:
        the absolute correlation and its baseline; a constant estimate or image has correlation 0.

    Raises:
        ValueError: the image has another shape than the estimate.
    """
    if guess.estimate.shape != image.shape:
        raise ValueError(f"expected an image {tuple(guess.estimate.shape)}, got {tuple(image.shape)}")
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, _LEVELS, (trials, *image.shape), generator=generator, dtype=torch.uint8)
    blind = [_correlation(_take_off(sample.to(image.device), guess.period)[0], image) for sample in noise]
    return TileScore(_correlation(guess.estimate, image), max(blind, default=0.0))


def _correlation(a: Tensor, b: Tensor) -> float:
    pair = torch.stack([a.flatten(), b.flatten()]).double()
    pair = pair - pair.mean(1, keepdim=True)
    scale = pair.square().sum(1).prod().sqrt().item()
    product = (pair[0] * pair[1]).sum().item()
    return min(abs(product / scale), 1.0) if scale else 0.0


def _counts(ciphertext: Tensor, period: int) -> Tensor:
    """How often each value occurs at each place of the tile: int64 (C * period * period, 256)."""
    channels, height, width = ciphertext.shape
    device = ciphertext.device
    rows = torch.arange(height, device=device) % period
    columns = torch.arange(width, device=device) % period
    places = torch.arange(channels, device=device).view(-1, 1, 1) * period + rows.unsqueeze(1)
    keys = (places * period + columns) * _LEVELS + ciphertext
    bins = channels * period * period * _LEVELS
    return torch.bincount(keys.flatten(), minlength=bins).view(-1, _LEVELS)


def _confidence(ciphertext: Tensor, period: int) -> float:
    """Coincidences of the values at a distance of one period, in standard deviations above those of noise.

    Pairs of independent uniform values coincide independently of each other, so their number is binomial.
    """
    down = ciphertext[:, period:] == ciphertext[:, :-period]
    right = ciphertext[:, :, period:] == ciphertext[:, :, :-period]
    pairs = down.numel() + right.numel()
    hits = int(down.sum()) + int(right.sum())
    chance = 1.0 / _LEVELS
    return (hits - pairs * chance) / math.sqrt(pairs * chance * (1.0 - chance))


def _take_off(ciphertext: Tensor, period: int) -> tuple[Tensor, Tensor]:
    """Subtract the most common value at each place of the tile: (estimate, tile)."""
    channels, height, width = ciphertext.shape
    tile = _counts(ciphertext, period).argmax(1).to(torch.uint8).view(channels, period, period)
    repeats = -(-height // period), -(-width // period)
    return ciphertext - tile.repeat(1, *repeats)[:, :height, :width], tile
