"""Damage of a stored ciphertext: noise, random and extreme bytes, lost runs; `DAMAGES` are those of every table.

Every damage is called as `damage(ciphertext, generator)` and returns `(damaged, lost)`: `lost` marks the
pixels that a receiver knows to be missing (an erased block), and stays empty for errors that nobody
announces.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from encdl.utils.errors import UsageError


def _check_fraction(name: str, fraction: float) -> None:
    if not 0.0 <= fraction <= 1.0:
        raise UsageError(f"{name}: fraction is {fraction}, it must be between 0 and 1")


def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw float32 [0, 1) in the shape of `like`; a CPU generator gives the same damage on every device."""
    device = like.device if generator is None else generator.device
    return torch.rand(like.shape, generator=generator, device=device).to(like.device)


def _random_bytes(like: Tensor, generator: torch.Generator | None) -> Tensor:
    device = like.device if generator is None else generator.device
    drawn = torch.randint(0, 256, like.shape, generator=generator, device=device, dtype=torch.uint8)
    return drawn.to(like.device)


class Damage(ABC):
    """Something that happens to a ciphertext."""

    def __call__(self, ciphertext: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Damage a copy of a batch.

        Args:
            ciphertext: uint8 (B, C, H, W); not changed.
            generator: where the random numbers come from, on any device; the global one if None.

        Returns:
            (damaged, lost): uint8 and bool (B, C, H, W); lost is True where a pixel is known to be lost.

        Raises:
            TypeError: the ciphertext is not uint8.
            ValueError: the ciphertext is not (B, C, H, W).
        """
        if ciphertext.dtype != torch.uint8:
            raise TypeError(f"expected a uint8 ciphertext, got {ciphertext.dtype}")
        if ciphertext.ndim != 4:
            raise ValueError(f"expected a ciphertext (B, C, H, W), got {tuple(ciphertext.shape)}")
        return self._damage(ciphertext, generator)

    @abstractmethod
    def _damage(self, ciphertext: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Do the work of `__call__` on a checked ciphertext."""


@dataclass(frozen=True)
class SaltPepper(Damage):
    """Each pixel turns black (0) or white (255) with probability `fraction`, half of them each."""

    fraction: float

    def __post_init__(self) -> None:
        _check_fraction("SaltPepper", self.fraction)

    def _damage(self, ciphertext: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        drawn = _uniform(ciphertext, generator)
        damaged = ciphertext.masked_fill(drawn < self.fraction, 255).masked_fill_(drawn < self.fraction / 2, 0)
        return damaged, torch.zeros_like(ciphertext, dtype=torch.bool)


@dataclass(frozen=True)
class GaussianNoise(Damage):
    """Normal noise of deviation `sigma` (in levels of 255) on every pixel, rounded and clipped to 0..255."""

    sigma: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sigma) and self.sigma >= 0.0):
            raise UsageError(f"GaussianNoise: sigma is {self.sigma}, it must be 0 or more")

    def _damage(self, ciphertext: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        device = ciphertext.device if generator is None else generator.device
        noise = torch.randn(ciphertext.shape, generator=generator, device=device).to(ciphertext.device)
        damaged = (ciphertext + self.sigma * noise).round_().clamp_(0, 255).to(torch.uint8)
        return damaged, torch.zeros_like(ciphertext, dtype=torch.bool)


@dataclass(frozen=True)
class Scatter(Damage):
    """Each pixel is replaced by a random byte with probability `fraction`: errors that nobody announces."""

    fraction: float

    def __post_init__(self) -> None:
        _check_fraction("Scatter", self.fraction)

    def _damage(self, ciphertext: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        hit = _uniform(ciphertext, generator) < self.fraction
        damaged = torch.where(hit, _random_bytes(ciphertext, generator), ciphertext)
        return damaged, torch.zeros_like(ciphertext, dtype=torch.bool)


@dataclass(frozen=True)
class LostRun(Damage):
    """A run of `fraction` of the image's bytes in file order is lost: set to 0, and known to be lost.

    File order is C order, channel after channel and row after row. The run starts at a place drawn for each image,
    and lies inside it: it does not wrap from the last byte to the first.
    """

    fraction: float

    def __post_init__(self) -> None:
        _check_fraction("LostRun", self.fraction)

    def _damage(self, ciphertext: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        count, size = len(ciphertext), math.prod(ciphertext.shape[1:])
        length = round(size * self.fraction)
        source = ciphertext.device if generator is None else generator.device
        start = torch.randint(0, size - length + 1, (count, 1), generator=generator, device=source)
        lost = run_of(start.to(ciphertext.device), length, size).view(ciphertext.shape)
        return ciphertext.masked_fill(lost, 0), lost


def run_of(start: Tensor, length: Tensor | int, size: int) -> Tensor:
    """Bool (count, size), True on the `length` places from `start` on of each row; both (count, 1) or alike."""
    place = torch.arange(size, device=start.device)
    return (place >= start) & (place < start + length)


DAMAGES: dict[str, Damage] = {
    "salt_pepper_1pct": SaltPepper(0.01),
    "salt_pepper_5pct": SaltPepper(0.05),
    "gaussian_2": GaussianNoise(2.0),
    "gaussian_8": GaussianNoise(8.0),
    "quarter_lost": LostRun(0.25),
}
"""The damages of a stored ciphertext in every table; `encdl.ciphers.channel` says how it is stored."""
