"""The leakage probe: how much of the image a linear map finds in the features of a network.

At a stage of stride s every feature vector is mapped to the s x s pixels beneath it, by ridge regression: in closed
form, so that the figure depends on no training. A probe of this kind finds what lies open, and is a lower bound: a
deeper attacker finds more.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from encdl.utils.errors import UsageError

RIDGE = 1e-7
"""Regularisation, as a share of the features' mean square."""


class LinearProbe:
    """Learns to read images off features, batch by batch, and tells how well it does on others.

    Sums are kept, not features: any number of images fits.
    """

    def __init__(self) -> None:
        self._stride = 0
        self._moments: Tensor | None = None
        self._products: Tensor | None = None
        self._map: Tensor | None = None
        self._error, self._pixels = 0.0, 0

    def learn(self, features: Tensor, image: Tensor) -> None:
        """Take one batch into the regression.

        Args:
            features: (B, F, h, w), of any floating type.
            image: uint8 (B, C, H, W), with h and w at most H and W.

        Raises:
            UsageError: The shapes do not belong together.
        """
        inputs, patches, _ = self._rows(features, image)
        moments, products = inputs.T @ inputs, inputs.T @ patches
        self._moments = moments if self._moments is None else self._moments + moments
        self._products = products if self._products is None else self._products + products
        self._map = None

    def judge(self, features: Tensor, image: Tensor) -> Tensor:
        """Take the probe's error on one batch of other images into its score.

        Returns:
            The mean squared error of each image, its levels taken as 0..1: float64 (B,).

        Raises:
            UsageError: The shapes do not belong together, or nothing has been learnt.
        """
        if self._moments is None or self._products is None:
            raise UsageError("a probe learns before it is judged")
        if self._map is None:
            ridge = RIDGE * self._moments.diagonal().mean().clamp(min=1e-12)
            damped = self._moments + ridge * torch.eye(len(self._moments), device=self._moments.device)
            self._map = torch.linalg.solve(damped, self._products)
        inputs, patches, inside = self._rows(features, image)
        off = (inputs @ self._map).clamp(0, 1) - patches
        errors = (off.square() * inside).view(len(image), -1).sum(1)
        self._error += float(errors.sum())
        self._pixels += image.numel()
        return errors / image[0].numel()

    @property
    def psnr_db(self) -> float:
        """Of all images judged, in dB: peak 255 over the root of the mean squared error over all of them."""
        return -10.0 * math.log10(max(self._error / max(self._pixels, 1), 1e-12))

    def _rows(self, features: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features with a constant (N, F + 1), patches 0..1 (N, C s s), and which of their pixels are real; float64."""
        height, width = image.shape[-2:]
        rows, columns = features.shape[-2:]
        if features.ndim != 4 or len(features) != len(image) or not (rows <= height and columns <= width):
            raise UsageError(f"features {tuple(features.shape)} are not of images {tuple(image.shape)}")
        stride = max(-(-height // rows), -(-width // columns))
        padding = (0, columns * stride - width, 0, rows * stride - height)
        levels = F.pad(image.double() / 255.0, padding)
        real = F.pad(torch.ones_like(image, dtype=torch.float64), padding)
        patches, inside = (F.pixel_unshuffle(each, stride).permute(0, 2, 3, 1).flatten(0, 2) for each in (levels, real))
        inputs = features.double().permute(0, 2, 3, 1).flatten(0, 2)
        return torch.cat([inputs, torch.ones_like(inputs[:, :1])], dim=1), patches, inside
