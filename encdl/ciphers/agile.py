"""`agile`, the default cipher: an integer network makes its mask from the key planes, a dilated network repairs damage.

    ciphertext = image + mask(key planes)     modulo 256

What hides the image is the sequence behind the key planes. The encryption network (`encdl.ciphers.mask_network`) is a
bijection from key planes to masks, so that with eight uniformly random planes exactly one stack leads from any image to
any ciphertext (Shannon's perfect secrecy, 1949): the network can spoil nothing, and it adds no secrecy that could be
shown. What remains to trust is the sequence and the freshness of the nonce.

As no mask depends on the image, damage of a ciphertext is damage of the same pixels of the image, and nothing more: the
decryption network (`encdl.ciphers.nn.decryption`) says which pixels were hit, and what they were.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from encdl.ciphers import compiled_ciphers, device
from encdl.ciphers.base import CIPHERS, KeyedMaskCipher
from encdl.ciphers.mask_network import MaskNetwork
from encdl.utils import compiled


@CIPHERS.register("agile")
class AgileCipher(KeyedMaskCipher):
    """See the module's text; for the arguments `KeyedMaskCipher`."""

    revision: ClassVar[int] = 2

    def __init__(self, planes: int = 8, width: int = 64, blocks: int = 10) -> None:
        super().__init__(planes, width, blocks)
        self.encryption = MaskNetwork()

    def key_mask(self, key_planes: Tensor) -> Tensor:
        """The mask under key planes, both (N, 1, H, W) uint8: by compiled code or a GPU's kernels where possible."""
        spelled = self.spelled(key_planes)
        if spelled.device.type == "cpu" and compiled_ciphers.available():
            return torch.from_numpy(compiled_ciphers.masks(spelled.numpy(), compiled.threads()))
        if device.available(spelled.device):
            from encdl.ciphers import device_mask_network  # noqa: PLC0415

            return device_mask_network.masks(spelled)
        mask: Tensor = self.encryption(spelled)
        return mask

    def encryption_modules(self) -> list[nn.Module]:
        """The mask network, which is the same in all weights."""
        return [self.encryption]
