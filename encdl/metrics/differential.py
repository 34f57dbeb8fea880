"""NPCR, UACI and their critical values: the change of a ciphertext when one pixel of the image changes.

Source: Y. Wu, J. P. Noonan, S. Agaian, "NPCR and UACI Randomness Tests for Image Encryption",
Cyber Journals: JSAT, 2011. Images are uint8 (B, C, H, W), two batches of one shape.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor

from encdl.metrics.statistics import check_pair

_TOP = 255  # the largest grey level, F in the paper


def npcr_pct(a: Tensor, b: Tensor) -> Tensor:
    """Number of pixels change rate: the share of pixels that differ.

    Returns:
        float64 (B,), 0 to 100 percent; 99.6094 is expected of two unrelated uniform images.
    """
    check_pair(a, b)
    return 100.0 * (a != b).flatten(1).double().mean(1)


def uaci_pct(a: Tensor, b: Tensor) -> Tensor:
    """Unified average changing intensity: the mean absolute difference in percent of 255.

    Returns:
        float64 (B,), 0 to 100 percent; 33.4635 is expected of two unrelated uniform images.
    """
    check_pair(a, b)
    difference = (a.to(torch.int16) - b.to(torch.int16)).abs()
    return 100.0 * difference.flatten(1).double().mean(1) / _TOP


def _check_test(n_pixels: int, alpha: float) -> None:
    if n_pixels < 1 or not 0.0 < alpha < 1.0:
        raise ValueError(f"expected n_pixels >= 1 and 0 < alpha < 1, got n_pixels={n_pixels}, alpha={alpha}")


def npcr_critical(n_pixels: int, alpha: float = 0.05) -> float:
    """The NPCR below which two ciphertexts are not like unrelated noise (one-sided test).

    Formula: mean F/(F+1) and variance F/((F+1)^2 n), F = 255, as a normal distribution.

    Args:
        n_pixels: pixels of an image, C*H*W.
        alpha: significance, between 0 and 1.

    Returns:
        percent; 99.5693 for 256 x 256 pixels at .05.
    """
    _check_test(n_pixels, alpha)
    mean = _TOP / (_TOP + 1)
    deviation = math.sqrt(_TOP / n_pixels) / (_TOP + 1)
    return 100.0 * (mean + NormalDist().inv_cdf(alpha) * deviation)


def uaci_critical(n_pixels: int, alpha: float = 0.05) -> tuple[float, float]:
    """The range outside of which a UACI is not like that of unrelated noise (two-sided test).

    Formula: mean (F+2)/(3F+3) and variance (F+2)(F^2+2F+3) / (18 (F+1)^2 F n), F = 255, as a normal
    distribution.

    Args:
        n_pixels: pixels of an image, C*H*W.
        alpha: significance, between 0 and 1, half of it at each end.

    Returns:
        (low, high) in percent; (33.2824, 33.6447) for 256 x 256 pixels at .05.
    """
    _check_test(n_pixels, alpha)
    mean = (_TOP + 2) / (3 * _TOP + 3)
    variance = (_TOP + 2) * (_TOP**2 + 2 * _TOP + 3) / (18 * (_TOP + 1) ** 2 * _TOP * n_pixels)
    margin = NormalDist().inv_cdf(1.0 - alpha / 2.0) * math.sqrt(variance)
    return 100.0 * (mean - margin), 100.0 * (mean + margin)
