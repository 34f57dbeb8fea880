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
from encdl.ciphers.nn.dilated import DILATIONS
from encdl.ciphers.nn.integer import EXACT_LIMIT, IntegerConv2d, IntegerDilatedStage, shift_clamp, triangle, wrap
from encdl.ciphers.nn.phases import from_phases, phases_of, to_phases
from encdl.ciphers.nn.plane_tensors import unpack
from encdl.keys.planes import MAX_PLANES

MAX_COUPLING_WIDTH = 256
"""Any weights of this width keep every sum below `EXACT_LIMIT`."""
WIDE_DILATIONS = (1, 4, 8, 16)
"""Dilations of the coupling's second stage: far enough that a flat background, too, takes part."""
INPUT_SHIFT = 1
KEY_LEVEL = 16.0
"""The key bits enter the coupling as plus or minus this, beside content features in -32..32."""


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
        self, planes: int = 8, field_width: int = 3, coupling_width: int = 6, width: int = 64, blocks: int = 10
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


class KeyField(nn.Module):
    """F: the ±1 planes of phases 1, 2 and 3 to an integer a pixel of phase 0; (N, 3P, h, w) -> (N, 1, h, w)."""

    def __init__(self, planes: int, width: int) -> None:
        super().__init__()
        hidden = width * len(DILATIONS)
        self.planes = planes
        self.first = IntegerDilatedStage(3 * planes, width, DILATIONS, shift=0)
        self.second = IntegerDilatedStage(hidden, width, DILATIONS, shift=4)
        self.out = IntegerConv2d(hidden, 1)

    def forward(self, signs: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.out(self.second(self.first(signs)))
        return out


class ContentCoupling(nn.Module):
    """E: masked phase 0 and its mask to an integer a pixel of phases 1, 2 and 3; two (N, 1, h, w) -> (N, 3, h, w).

    The bits of the mask sign the circular features of the masked phase, so the key decides how content spreads.
    Many small taps, rather than a few strong ones, carry it: with a share p of the pixels damaged the masks move by
    about sqrt(p) of their whole swing, so that damage stays damage and does not become chaos.
    """

    OUTPUT_SHIFT = 1

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = width * len(DILATIONS)
        self.first = IntegerDilatedStage(16, width, DILATIONS, shift=4)
        self.second = IntegerDilatedStage(hidden, width, WIDE_DILATIONS, shift=5)
        self.out = IntegerConv2d(hidden, 3)

    def forward(self, masked: Tensor, mask: Tensor) -> Tensor:
        """See the class."""
        hidden = self.second(self.first(signed_features(masked, mask)))
        return shift_clamp(self.out(hidden), self.OUTPUT_SHIFT, -EXACT_LIMIT, EXACT_LIMIT)


def signed_features(masked: Tensor, mask: Tensor) -> Tensor:
    """The features of a pixel for the coupling: levels (N, 1, h, w) in float32 to integers (N, 16, h, w) in -32..32."""
    with torch.no_grad():  # bits have no gradient, and the key has none to take
        places = torch.arange(8, dtype=torch.int32, device=mask.device).view(1, 8, 1, 1)
        signs = mask.detach().int().bitwise_right_shift(places).bitwise_and_(1).float() * 2 - 1
    features = [shift_clamp(triangle(masked, offset), INPUT_SHIFT, -32, 32) for offset in (0, 64)]
    signed = signs * torch.cat(features, dim=1).repeat(1, 4, 1, 1)
    return torch.cat([signed, signs * KEY_LEVEL], dim=1)
