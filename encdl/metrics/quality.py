"""Image quality (PSNR, SSIM), and the dependence of a mask on the image's content.

Two batches are uint8 (B, C, H, W) of one shape.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from encdl.metrics.statistics import LEVELS, check_pair

SSIM_LEAST = 6
"""Pixels on a side: the window's reach, which the images are mirrored by, has to be shorter."""

PSNR_CAP_DB = 60.0
"""Of one image in a mean over images: nearly equal images would decide it, and equal ones have no finite PSNR."""


def psnr_db(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image, peak 255.

    Returns:
        float64 (B,) in decibel, 0 (black against white) and up; inf where the images are identical.
    """
    check_pair(a, b)
    # float64: a float32 sum over a large image loses the last digits that near-identical images differ in.
    return peak_signal_noise_ratio(
        a.double(), b.double(), data_range=float(LEVELS - 1), reduction="none", dim=(1, 2, 3)
    )


def mean_psnr_db(a: Tensor, b: Tensor) -> Tensor:
    """Mean over a batch of `psnr_db`, each image's capped at `PSNR_CAP_DB`: a scalar in decibel."""
    return psnr_db(a, b).clamp(max=PSNR_CAP_DB).mean()


def mean_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean structural similarity of two batches of images: a scalar, -1 to 1, 1 for equal ones.

    Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, IEEE TIP 2004, with their window of 11 pixels.

    Raises:
        ValueError: The images have fewer than 6 pixels on a side.
    """
    check_pair(a, b)
    if min(a.shape[2:]) < SSIM_LEAST:
        raise ValueError(f"SSIM needs at least {SSIM_LEAST} x {SSIM_LEAST} pixels, got {tuple(a.shape[2:])}")
    found = structural_similarity_index_measure(a.double(), b.double(), data_range=float(LEVELS - 1))
    return torch.as_tensor(found)


def content_activity(mask_a: Tensor, mask_b: Tensor) -> Tensor:
    """Distance of the masks of two images under one key on the circle of 256 levels.

    The mean over the pixels of 1 - cos(2 pi (a - b) / 256): 0 where the mask is a mere keystream that ignores
    the image, 1 where the two masks are unrelated.

    Returns:
        float64 (B,), 0 to 2.
    """
    check_pair(mask_a, mask_b)
    steps = torch.arange(LEVELS, dtype=torch.float64, device=mask_a.device)
    distance = 1.0 - torch.cos(2.0 * math.pi * steps / LEVELS)
    # uint8 subtraction wraps, which is the difference on the circle.
    return distance[(mask_a - mask_b).long()].flatten(1).mean(1)
