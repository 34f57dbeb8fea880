"""The `thesis` cipher: a plain multi-scale dilated encryption autoencoder with the key planes as input.

This is the baseline that the thesis's abstract describes, as far as it can be read from it: an encoder takes the
image and the key planes to a ciphertext between 0 and 1, quantised to 256 levels; a decoder takes ciphertext and
key planes back to the likelihood of a binary image. Nothing makes it exact.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from encdl.ciphers.base import CIPHERS, MAX_BLOCKS, MAX_WIDTH, Cipher, check_setting
from encdl.ciphers.nn.dilated import DilatedNet
from encdl.ciphers.nn.integer import straight_through, wrap
from encdl.ciphers.nn.phases import from_phases, to_phases
from encdl.ciphers.nn.plane_tensors import unpack
from encdl.keys.planes import MAX_PLANES


@CIPHERS.register("thesis")
class ThesisCipher(Cipher):
    """Encoder and decoder of `blocks` dilated blocks each, on phases.

    Args:
        planes: P, key planes a pixel, 1..8.
        width: Channels, a multiple of 4, up to 1024.
        blocks: Dilated blocks of the encoder, and of the decoder, up to 64.
    """

    exact: ClassVar[bool] = False

    def __init__(self, planes: int = 8, width: int = 32, blocks: int = 3) -> None:
        super().__init__()
        check_setting("planes", planes, 1, MAX_PLANES)
        check_setting("width", width, 4, MAX_WIDTH)
        check_setting("blocks", blocks, 0, MAX_BLOCKS)
        self.planes = planes
        self._config = {"planes": planes, "width": width, "blocks": blocks}
        self.encoder = DilatedNet(4 + 4 * planes, 4, width, blocks)
        self.decoder = DilatedNet(4 + 4 * planes, 4, width, blocks)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(self._config)

    def forward(self, image: Tensor, key_planes: Tensor) -> tuple[Tensor, Tensor]:
        """Encrypt with gradients; the mask is what the network added. See `Cipher.forward`."""
        levels = from_phases(self.encoder(self._inputs(image, key_planes)), *image.shape[-2:]).sigmoid() * 255.0
        ciphertext = straight_through(levels.detach().round(), levels)
        return ciphertext, wrap(ciphertext - image)

    def repair(self, ciphertext: Tensor, key_planes: Tensor, lost: Tensor) -> Tensor:
        """The decoder's reading; see `Cipher.repair`. What is known to be lost is shown to it as mid-grey."""
        shown = torch.where(lost > 0, 127.5, ciphertext)
        return from_phases(self.decoder(self._inputs(shown, key_planes)), *ciphertext.shape[-2:])

    def _inputs(self, levels: Tensor, key_planes: Tensor) -> Tensor:
        bits = unpack(key_planes[:, 0], self.planes).float()
        return torch.cat([to_phases(levels) / 127.5 - 1.0, to_phases(bits) * 2 - 1], dim=1)

    def _decrypt(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        levels = ciphertext.float()
        return (self.repair(levels, key_planes, torch.zeros_like(levels)).sigmoid() * 255.0).round()

    def encryption_modules(self) -> list[torch.nn.Module]:
        """Both halves: a ciphertext of another encoder or decoder does not open."""
        return [self.encoder, self.decoder]
