"""The two networks of the `coupled` cipher: the key field F and the content coupling E (see `encdl.ciphers.coupled`).

They compute on integers in float32, with gradients and on any device.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from encdl.ciphers.nn.dilated import DILATIONS
from encdl.ciphers.nn.integer import EXACT_LIMIT, IntegerConv2d, IntegerDilatedStage, shift_clamp, triangle

WIDE_DILATIONS = (1, 4, 8, 16)
"""Dilations of the coupling's second stage: far enough that a flat background, too, takes part."""
INPUT_SHIFT = 1
KEY_LEVEL = 16.0
"""The key bits enter the coupling as plus or minus this, beside content features in -32..32."""


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
    """What the coupling sees of a pixel: levels (N, 1, h, w) in float32 to integers (N, 16, h, w) in -32..32."""
    with torch.no_grad():  # bits have no gradient, and the key has none to take
        places = torch.arange(8, dtype=torch.int32, device=mask.device).view(1, 8, 1, 1)
        signs = mask.detach().int().bitwise_right_shift(places).bitwise_and_(1).float() * 2 - 1
    features = [shift_clamp(triangle(masked, offset), INPUT_SHIFT, -32, 32) for offset in (0, 64)]
    signed = signs * torch.cat(features, dim=1).repeat(1, 4, 1, 1)
    return torch.cat([signed, signs * KEY_LEVEL], dim=1)
