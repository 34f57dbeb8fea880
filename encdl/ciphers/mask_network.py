"""The encryption network of the `agile` cipher: from the key planes of an image to its mask, in small integers.

Key planes and mask are bytes a pixel, taken as the four phases of the image (`encdl.ciphers.nn.phases`). Phases 0 and 3
make one half, a checkerboard, and phases 1 and 2 the other. With the key bytes a and b of the halves::

    mask_a = a + F(planes of b)          mod 256
    mask_b = b + G(planes of mask_a)     mod 256

F and G are multi-scale dilated networks of two stages (dilations 1, 2, 4, 8). This is a Feistel network of two
rounds: `key_bytes` inverts it, so that it is a bijection of the bytes of an image of any size, whatever F and G are.
Uniformly random key planes therefore give a uniformly random mask, and exactly one stack of eight planes leads from
any image to any ciphertext.

The weights are integers from -7 to 7, drawn once from `SEED` and the same for everyone: the secret is the key.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encdl.ciphers.compiled_ciphers import SEED, drawn_integers, drawn_layer
from encdl.ciphers.nn.dilated import DILATIONS
from encdl.ciphers.nn.integer import shift_clamp
from encdl.ciphers.nn.phases import from_phases, to_phases

HALVES = ((0, 3), (1, 2))
"""The phases of the two halves."""
WIDTH = len(DILATIONS)
"""Channels of a stage: one for each dilation."""
INPUTS = 8 * len(HALVES[0])
"""Planes of a half at one place."""
SHIFTS = (0, 4)
"""Bits that are taken off the sums of the two stages."""
LOW, HIGH = -64, 63
"""The range of an activation: seven bits."""


class FixedConv2d(nn.Module):
    """A "same" 3x3 convolution with fixed integer weights: (N, in, H, W) to (N, out, H, W), integers in float32.

    Weights are -7..7 (a drawn number modulo 15, less 7), in the order (out, in, row, column); then come the biases,
    -127..127. They belong to the code, not to a weights file, and have no gradient.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, in_channels: int, out_channels: int, dilation: int, numbers: Iterator[int]) -> None:
        super().__init__()
        self.dilation = dilation
        weights, biases = map(torch.from_numpy, drawn_layer(numbers, in_channels, out_channels))
        self.register_buffer("weight", weights.view(out_channels, in_channels, 3, 3).float(), persistent=False)
        self.register_buffer("bias", biases.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve; see the class."""
        y = F.conv2d(x, self.weight, self.bias, padding=self.dilation, dilation=self.dilation)
        return y.round_()  # a Winograd or FFT kernel may leave fractions of the order of 1e-3

    def worst_sum(self, input_limit: int) -> int:
        """The largest absolute value that any partial sum can reach for inputs in -limit..limit."""
        total = self.weight.abs().sum(dim=(1, 2, 3)) * input_limit + self.bias.abs()
        return int(total.max())


class HalfNetwork(nn.Module):
    """F or G: the planes of one half to integers for the other; (N, 16, h, w) in {-1, 0, 1} to (N, 2, h, w).

    Phase by phase and plane by plane; 0 stands for what lies outside the image.
    """

    def __init__(self, numbers: Iterator[int]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.ModuleList(FixedConv2d(inputs, 1, d, numbers) for d in DILATIONS) for inputs in (INPUTS, WIDTH)
        )
        self.out = FixedConv2d(WIDTH, len(HALVES[0]), 1, numbers)

    def forward(self, planes: Tensor) -> Tensor:
        """See the class."""
        x = planes
        for stage, shift in enumerate(SHIFTS):
            if x.device.type == "cpu":  # channels last: 4 times faster for these narrow dilated convolutions
                x = x.contiguous(memory_format=torch.channels_last)
            x = shift_clamp(
                torch.cat([branch(x) for branch in self.branches(stage)], dim=1), shift, LOW, HIGH, inplace=True
            )
        y: Tensor = self.out(x)
        return y

    def branches(self, stage: int) -> list[FixedConv2d]:
        """The parallel convolutions of stage 0 or 1, in the order of `DILATIONS`."""
        return [cast(FixedConv2d, layer) for layer in cast(nn.ModuleList, self.stages[stage])]


class MaskNetwork(nn.Module):
    """Key bytes to mask bytes and back, (N, 1, H, W) uint8, on any device, exactly; see the module's text."""

    def __init__(self) -> None:
        super().__init__()
        numbers = drawn_integers(SEED)
        self.f, self.g = HalfNetwork(numbers), HalfNetwork(numbers)

    def forward(self, key_bytes: Tensor) -> Tensor:
        """The mask."""
        a, b, inside = _halves(key_bytes)
        a = _plus(a, self.f(_signs(b, inside[1])))
        b = _plus(b, self.g(_signs(a, inside[0])))
        return _joined(a, b, key_bytes)

    def key_bytes(self, mask: Tensor) -> Tensor:
        """The inverse: the only key bytes that give this mask."""
        a, b, inside = _halves(mask)
        b = _plus(b, -self.g(_signs(a, inside[0])))
        a = _plus(a, -self.f(_signs(b, inside[1])))
        return _joined(a, b, mask)


def _halves(image: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """The halves of bytes (N, 1, H, W), each (N, 2, h, w), and for each where it lies inside the image (1, 2, h, w)."""
    a, b = _split(to_phases(image))
    return a, b, _split(to_phases(torch.ones_like(image[:1])))


def _split(phases: Tensor) -> tuple[Tensor, Tensor]:
    a, b = (torch.stack([phases[:, phase] for phase in half], dim=1) for half in HALVES)
    return a, b


def _signs(half: Tensor, inside: Tensor) -> Tensor:
    """Bits of bytes (N, 2, h, w) as -1 and 1, lowest first, 0 outside the image: float32 (N, 16, h, w)."""
    places = torch.arange(8, dtype=torch.uint8, device=half.device).view(1, 1, 8, 1, 1)
    bits = half.unsqueeze(2).bitwise_right_shift(places).bitwise_and_(1)
    return bits.float().mul_(2).sub_(1).mul_(inside.unsqueeze(2)).flatten(1, 2)


def _plus(half: Tensor, integers: Tensor) -> Tensor:
    """Bytes plus integers in float32, modulo 256."""
    return (half + integers).remainder_(256.0).to(torch.uint8)


def _joined(a: Tensor, b: Tensor, like: Tensor) -> Tensor:
    phases = torch.stack([a[:, 0], b[:, 0], b[:, 1], a[:, 1]], dim=1)
    return from_phases(phases, *like.shape[-2:])
