"""The smallest cipher that fits the codec: XOR with the byte that the key planes of a pixel spell."""

from __future__ import annotations

import torch
from torch import Tensor


class StubCipher:
    """Exact; its restorer decrypts, and paints what is lost in mid-grey."""

    name = "stub"
    exact = True
    keyed_mask = True

    def encrypt(self, image: Tensor, key_planes: Tensor) -> Tensor:
        assert image.dtype == key_planes.dtype == torch.uint8
        assert key_planes.shape == image.shape
        return image ^ key_planes

    def decrypt(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        return self.encrypt(ciphertext, key_planes)

    def field(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        return ciphertext - self.decrypt(ciphertext, key_planes)

    def restore(self, ciphertext: Tensor, key_planes: Tensor, lost: Tensor | None = None) -> Tensor:
        image = self.decrypt(ciphertext, key_planes)
        return image if lost is None else torch.where(lost, 128, image)
