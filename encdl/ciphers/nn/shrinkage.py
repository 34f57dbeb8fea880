"""Noise removal by shrinking cosine coefficients, as a decryption network's hints.

Every 4x4 block of an image is taken to the cosine domain, small coefficients are set to zero (D. L. Donoho and
I. M. Johnstone, Biometrika 81 (1994) 425-455; over all shifts: R. R. Coifman and D. L. Donoho, Translation-invariant
de-noising, 1995), and what comes out steers a second pass with Wiener weights (as in K. Dabov et al., IEEE TIP 16
(2007) 2080-2095, there with block matching). Nothing is learnt here. Beside the noisy image, a small network would
spend most of its training on finding something like it.

Noise of a masked pixel wraps at 256, and a block with a jump of 256 in it tells nothing. Which pixels wrapped is not
known, so there is one estimate for each supposition: none did, black ones did, white ones did.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encdl.ciphers.nn import compiled_shrinkage

BLOCK = 4
SIGMAS = (1.4, 2.4, 5.6, 9.6)
"""Standard deviations of noise, in levels, that there is an estimate for."""
THRESHOLD = 2.7
"""Coefficients below these many standard deviations are noise."""
BAND = 32
"""Levels from the end of the scale that noise is supposed to carry around it."""
ESTIMATES = 3 * len(SIGMAS)
REACH = 4 * (BLOCK - 1)
"""Pixels to each side that an estimate depends on: two passes, there and back."""


class Shrinkage(nn.Module):
    """Denoised images, one for each of the `SIGMAS` and each supposition about wrapped pixels."""

    basis: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("basis", _basis(), persistent=False)

    @torch.no_grad()
    def forward(self, levels: Tensor) -> Tensor:
        """Make the estimates; they have no gradient.

        Args:
            levels: (N, 1, H, W) float32, 0..255.

        Returns:
            (N, `ESTIMATES`, H, W) float32; levels beyond 0..255 belong to pixels that are supposed to have wrapped.
        """
        black = levels - 256.0 * (levels >= 256 - BAND).float()
        white = levels + 256.0 * (levels < BAND).float()
        supposed = torch.cat([levels, black, white], dim=0) - 128.0  # around 0: tensor cores round to 11 bits
        with torch.autocast(levels.device.type, enabled=False):
            by_supposition = self._denoised(supposed).view(3, len(levels), len(SIGMAS), *levels.shape[-2:])
        return by_supposition.transpose(0, 1).flatten(1, 2) + 128.0

    def _denoised(self, images: Tensor) -> Tensor:
        """(N, 1, H, W) to one estimate for each of the `SIGMAS`: (N, `len(SIGMAS)`, H, W)."""
        if images.device.type == "cpu" and images.dtype == torch.float32 and compiled_shrinkage.available():
            return compiled_shrinkage.denoised(images, SIGMAS, THRESHOLD)
        noisy, found = self._coefficients(images), []
        for sigma in SIGMAS:
            kept = (noisy.abs() > THRESHOLD * sigma).float()
            kept[:, :1] = 1.0
            first = self._image(noisy * kept, 1.0 / kept.sum(1, keepdim=True))
            power = self._coefficients(first).square()
            share = power / (power + sigma**2)
            share[:, :1] = 1.0
            found.append(self._image(noisy * share, 1.0 / share.square().sum(1, keepdim=True)))
        return torch.cat(found, dim=1)

    def _coefficients(self, images: Tensor) -> Tensor:
        """(N, 1, H, W) to the cosine coefficients of all blocks, (N, 16, H + 3, W + 3)."""
        return F.conv2d(F.pad(images, (BLOCK - 1,) * 4, mode="replicate"), self.basis)

    def _image(self, coefficients: Tensor, weights: Tensor) -> Tensor:
        """The mean of all blocks over each pixel, weighted: (N, 1, H, W)."""
        inside = (..., slice(BLOCK - 1, 1 - BLOCK), slice(BLOCK - 1, 1 - BLOCK))
        total = F.conv_transpose2d(coefficients * weights, self.basis)[inside]
        return total / F.conv_transpose2d(weights, torch.ones_like(self.basis[:1]))[inside]


def cosines(side: int) -> Tensor:
    """The orthonormal cosine basis of a line, float64 (side, side), the constant first."""
    at = torch.arange(side, dtype=torch.float64)
    rows = torch.cos(math.pi / side * (at + 0.5) * at[:, None]) * math.sqrt(2 / side)
    rows[0] /= math.sqrt(2)
    return rows


def _basis() -> Tensor:
    """The orthonormal cosine basis of a block: (16, 1, 4, 4), the constant first."""
    rows = cosines(BLOCK)
    return torch.einsum("uy,vx->uvyx", rows, rows).reshape(-1, 1, BLOCK, BLOCK).float()
