"""Stems that read levels as points on a circle, on which addition modulo 256 is a turn."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from encdl.readers.stems import Stem
from encdl.utils.errors import UsageError


def harmonics_of(levels: Tensor, count: int) -> Tensor:
    """Cosine and sine of 1..count times the angle of levels 0..255.

    Args:
        levels: (B, C, H, W), or (B, C, D, H, W) of volumes, any type.
        count: How many multiples.

    Returns:
        (B, 2 * count * C, ...) float32: for each channel and multiple the cosine, then the sine.
    """
    angle = levels.float() * (2.0 * math.pi / 256.0)
    cosine, sine = angle.cos(), angle.sin()
    pairs = [torch.stack([cosine, sine], dim=2)]
    for _ in range(count - 1):  # the sum of two angles is cheaper than a cosine
        last_cosine, last_sine = pairs[-1].unbind(2)
        pairs.append(
            torch.stack([last_cosine * cosine - last_sine * sine, last_sine * cosine + last_cosine * sine], dim=2)
        )
    return torch.stack(pairs, dim=2).flatten(1, 3)


class KeylessStem(Stem):
    """Reads points on the circle and has no key: what a ciphertext gives away by itself.

    Args:
        channels: C of the images.
        width: Channels of the result.
        harmonics: Multiples of the angle.
        dimensions: 2 for images, 3 for volumes.
    """

    def __init__(self, channels: int, width: int = 16, harmonics: int = 4, dimensions: int = 2) -> None:
        _check_harmonics(harmonics)
        super().__init__(channels, 2 * harmonics * channels, width, dimensions)
        self.harmonics = harmonics

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments but `channels`."""
        return {**super().settings(), "harmonics": self.harmonics}

    def convolved(self, image: Tensor, mask: Tensor | None) -> Tensor:
        """The convolution of cosines and sines of the multiples."""
        result: Tensor = self.convolution(harmonics_of(image, self.harmonics))
        return result


class PositionalStem(KeylessStem):
    """Reads ciphertexts that were all made under one key and nonce, without having either.

    Under one mask for all images a pixel's mean over the data set, as a point on the circle, points to that pixel's
    mask; where the mask also depends on content, the mean vanishes. The stem keeps a running mean and turns each pixel
    back by it. That it can is the weakness of a fixed key.

    Args:
        channels: C of the images.
        size: Height and width in pixels of every image; of volumes depth, height and width.
        width: Channels of the result.
        harmonics: Multiples of the angle.
    """

    MOMENTUM = 0.02

    def __init__(
        self, channels: int, size: tuple[int, ...], width: int = 16, harmonics: int = 4, dimensions: int = 2
    ) -> None:
        super().__init__(channels, width, harmonics, dimensions)
        self.size = tuple(map(int, size))
        self.mean: Tensor
        self.batches: Tensor
        self.register_buffer("mean", torch.zeros(2 * harmonics * channels, *self.size))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments but `channels`."""
        return {"size": list(self.size), **super().settings()}

    def convolved(self, image: Tensor, mask: Tensor | None) -> Tensor:
        """The convolution of the points, turned back by the mean of their place.

        Raises:
            UsageError: The image has another size.
        """
        if tuple(image.shape[2:]) != self.size:
            raise UsageError(f"this stem was made for {self.size} pixels, got {tuple(image.shape[2:])}")
        points = harmonics_of(image, self.harmonics)
        if self.training:
            with torch.no_grad():
                self.batches += 1
                share = (1.0 / self.batches).clamp(min=self.MOMENTUM)
                self.mean += share * (points.mean(0) - self.mean)
        cosine, sine = points[:, ::2], points[:, 1::2]
        mean_cosine, mean_sine = self.mean[::2], self.mean[1::2]
        turned = [cosine * mean_cosine + sine * mean_sine, sine * mean_cosine - cosine * mean_sine]
        result: Tensor = self.convolution(torch.cat(turned, dim=1))
        return result


def _check_harmonics(harmonics: int) -> None:
    if not 1 <= harmonics <= 16:
        raise UsageError(f"harmonics must be from 1 to 16, not {harmonics}")
