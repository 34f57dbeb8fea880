"""The `coupled` cipher: content takes part in the masks, as in EncDL 0.1. An ablation; `agile` took its place.

On the four phases x0..x3 of an image (see `encdl.ciphers.nn.phases`), with the bytes b0..b3 that its key planes spell::

    m0 = b0 + F(planes of phases 1, 2, 3)      c0 = x0 + m0      mod 256
    mi = bi + E_i(c0, bits of m0)              ci = xi + mi      mod 256, i = 1, 2, 3

F, the *key field*, and E, the *content coupling*, are trainable multi-scale dilated integer networks. Decryption is
exact and uniform planes give a uniform ciphertext for any weights, as with `agile`. What the coupling costs: damage of
one pixel of phase 0 spreads to the masks around it, and the masks take most of the time that encryption takes. What it
does not buy: under a reused nonce one known pair opens every other image all the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from encdl.ciphers.base import CIPHERS, AdditiveCipher, check_setting, decryption_network
from encdl.ciphers.coupled_networks import ContentCoupling, KeyField
from encdl.ciphers.nn.integer import wrap
from encdl.ciphers.nn.phases import from_phases, phases_of, to_phases
from encdl.ciphers.nn.plane_tensors import unpack
from encdl.keys.planes import MAX_PLANES

MAX_COUPLING_WIDTH = 256
"""Any weights of this width keep every sum below `EXACT_LIMIT`."""


@CIPHERS.register("coupled")
class CoupledCipher(AdditiveCipher):
    """See the module's text.

    Args:
        planes: P, key planes a pixel, 1..8.
        field_width: Channels a dilation of the key field, 1..256.
        coupling_width: Channels a dilation of the content coupling, 1..256.
        width: Channels of the decryption network, a multiple of 4, up to 1024.
        blocks: Its dilated blocks, up to 64.
    """

    def __init__(
        self,
        planes: int = 8,
        field_width: int = 3,
        coupling_width: int = 6,
        width: int = 64,
        blocks: int = 10,
    ) -> None:
        super().__init__()
        check_setting("planes", planes, 1, MAX_PLANES)
        check_setting("field_width", field_width, 1, MAX_COUPLING_WIDTH)
        check_setting("coupling_width", coupling_width, 1, MAX_COUPLING_WIDTH)
        self.planes = planes
        self._config = {
            "planes": planes,
            "field_width": field_width,
            "coupling_width": coupling_width,
            "width": width,
            "blocks": blocks,
        }
        self.key_field = KeyField(planes, field_width)
        self.coupling = ContentCoupling(coupling_width)
        self.decryption = decryption_network(width, blocks)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(self._config)

    def forward(self, image: Tensor, key_planes: Tensor) -> tuple[Tensor, Tensor]:
        """Encrypt with gradients; see `Cipher.forward`."""
        x = to_phases(image)
        m0, key_bytes = self._first_mask(key_planes)
        c0 = wrap(x[:, :1] + m0)
        mask = torch.cat([m0, wrap(key_bytes + self.coupling(c0, m0))], dim=1)
        height, width = image.shape[-2:]
        return from_phases(wrap(x + mask), height, width), from_phases(mask, height, width)

    def _mask_levels(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        m0, key_bytes = self._first_mask(key_planes)
        others = wrap(key_bytes + self.coupling(ciphertext[..., ::2, ::2], m0))
        return from_phases(torch.cat([m0, others], dim=1), *ciphertext.shape[-2:])

    def _first_mask(self, key_planes: Tensor) -> tuple[Tensor, Tensor]:
        """m0 (N, 1, h, w) and the key bytes of phases 1, 2, 3 (N, 3, h, w)."""
        key_bytes = to_phases(self.spelled(key_planes).float())
        bits = unpack(key_planes[:, 0], self.planes).float()
        signs = torch.cat(phases_of(bits)[1:], dim=1).mul_(2).sub_(1)
        return wrap(key_bytes[:, :1] + self.key_field(signs)), key_bytes[:, 1:]

    def encryption_modules(self) -> list[nn.Module]:
        """The parts that decide a ciphertext; their weights are what the weights id names."""
        return [self.key_field, self.coupling]
