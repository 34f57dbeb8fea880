"""The smallest cipher with a decryption network: the mask of a pixel is its key byte."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from encdl.nn.decryption import DecryptionNetwork
from encdl.nn.phases import fold_channels


class AdditiveCipher(nn.Module):
    """Exact; what `encdl.ciphers.Cipher` asks for, by the shortest way."""

    name: ClassVar[str] = "additive"
    exact: ClassVar[bool] = True
    keyed_mask: ClassVar[bool] = True
    revision: ClassVar[int] = 1
    planes = 8

    def __init__(self, width: int = 8, blocks: int = 1) -> None:
        super().__init__()
        self._config = {"width": width, "blocks": blocks}
        self.decryption = DecryptionNetwork(width, blocks)

    def config(self) -> dict[str, Any]:
        return dict(self._config)

    def encryption_modules(self) -> list[nn.Module]:
        return []

    def forward(self, image: Tensor, key_planes: Tensor) -> tuple[Tensor, Tensor]:
        mask = key_planes.float()
        return torch.remainder(image + mask, 256.0), mask

    def repair(self, ciphertext: Tensor, key_planes: Tensor, lost: Tensor) -> tuple[Tensor, Tensor]:
        return self.decryption(torch.remainder(ciphertext - key_planes, 256.0), lost)

    @torch.no_grad()
    def encrypt(self, image: Tensor, key_planes: Tensor) -> Tensor:
        return image + key_planes

    @torch.no_grad()
    def decrypt(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        return ciphertext - key_planes

    def field(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        return key_planes.clone()

    @torch.no_grad()
    def restore(self, ciphertext: Tensor, key_planes: Tensor, lost: Tensor | None = None) -> Tensor:
        lost = torch.zeros_like(ciphertext, dtype=torch.bool) if lost is None else lost
        decrypted = ciphertext - key_planes
        level, hit = self.decryption(fold_channels(decrypted).unsqueeze(1), fold_channels(lost).unsqueeze(1))
        guess = (level.sigmoid() * 255.0).round().to(torch.uint8).view(ciphertext.shape)
        return torch.where(lost | (hit > 0).view(ciphertext.shape), guess, decrypted)
