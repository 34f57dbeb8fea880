"""The random damage that a restorer is trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from encdl.damage import CropBlock, Damage, Erasure, GaussianNoise, SaltPepper, Scatter


@dataclass(frozen=True)
class RandomDamage:
    """Draws one damage a picture, of random kind and strength.

    Attributes:
        salt_pepper: Largest share of pixels set to 0 or 255.
        gaussian: Largest standard deviation, in levels.
        scatter: Largest share of pixels set to random bytes.
        crop: Largest share of the picture lost as one known block.
        erasure: Largest share of pixels lost here and there, and known to be.
        intact: Probability of no damage at all.
    """

    salt_pepper: float = 0.1
    gaussian: float = 12.0
    scatter: float = 0.1
    crop: float = 0.35
    erasure: float = 0.35
    intact: float = 0.05

    def __call__(self, ciphertext: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) uint8 to the damaged ciphertext and the known-lost mask (bool), of the same shape."""
        pairs = [self._draw(generator)(one.unsqueeze(0), generator) for one in ciphertext]
        return torch.cat([damaged for damaged, _ in pairs]), torch.cat([lost for _, lost in pairs])

    def _draw(self, generator: torch.Generator) -> Damage:
        kind, strength = torch.rand(2, generator=generator).tolist()
        if kind < self.intact:
            return SaltPepper(0.0)
        kinds = [
            SaltPepper(self.salt_pepper * strength),
            GaussianNoise(self.gaussian * strength),
            Scatter(self.scatter * strength),
            CropBlock(self.crop * strength, random_place=True),
            Erasure(self.erasure * strength),
        ]
        return kinds[min(int((kind - self.intact) / (1.0 - self.intact) * len(kinds)), len(kinds) - 1)]
