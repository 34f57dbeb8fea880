"""An additive cipher with a known repair: what a mask from the key alone does, without a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class AdditiveCipher(nn.Module):
    """Image plus the byte that the key planes of a pixel spell, mod 256.

    Its repair paints lost pixels in the mean of the known ones and leaves the rest; `spoils` of the other pixels are
    changed as well, as a network does that does not know what was hit.
    """

    name = "additive"
    exact = True
    keyed_mask = True
    revision = 1

    def __init__(self, planes: int = 8, spoils: bool = False) -> None:
        super().__init__()
        self.planes, self.spoils = planes, spoils

    def config(self) -> dict[str, Any]:
        return {"planes": self.planes}

    def encryption_modules(self) -> list[nn.Module]:
        return []

    def encrypt(self, image: Tensor, key_planes: Tensor) -> Tensor:
        return image + spelled(key_planes)

    def decrypt(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        return ciphertext - spelled(key_planes)

    def restore(self, ciphertext: Tensor, key_planes: Tensor, lost: Tensor | None = None) -> Tensor:
        image = self.decrypt(ciphertext, key_planes)
        missing = torch.zeros_like(image, dtype=torch.bool) if lost is None else lost
        counts = (~missing).flatten(1).sum(1).clamp(min=1)
        means = image.float().masked_fill(missing, 0).flatten(1).sum(1) / counts
        filled = torch.where(missing, means.round().view(-1, 1, 1, 1), image.float()).to(torch.uint8)
        return filled ^ 1 if self.spoils else filled


def spelled(key_planes: Tensor) -> Tensor:
    """The byte of each pixel; planes of 0 and 1 are packed, lowest bit first."""
    if key_planes.ndim == 4:
        return key_planes
    weights = (2 ** torch.arange(key_planes.shape[2], device=key_planes.device)).view(1, 1, -1, 1, 1)
    return (key_planes * weights).sum(2).to(torch.uint8)
