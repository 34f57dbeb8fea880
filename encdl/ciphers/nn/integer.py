"""Integer-exact layers: float tensors that only ever hold integers, with straight-through gradients.

A sum of integers below 2**24 is exact in float32 (and in TF32, whose inputs hold 11 significant bits) whatever the
order of the additions. That is what makes a ciphertext the same on every device, precision, thread count and batch
size. Gradients pass every rounding and clamp as if it were not there (straight-through estimator: Bengio, Leonard
and Courville 2013, arXiv:1308.3432).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WEIGHT_LIMIT = 7
"""Integer weights lie in -7..7: four bits with the sign."""

EXACT_LIMIT = 2**24
"""Integers up to this size are exact in float32."""

INPUT_LIMIT = 2**11
"""Integers up to this size are exact as TF32 inputs of a convolution (11 significant bits)."""


def straight_through(exact: Tensor, smooth: Tensor) -> Tensor:
    """Value of `exact`, gradient of `smooth` (same shapes)."""
    return smooth + (exact - smooth).detach() if smooth.requires_grad else exact


def shift_clamp(x: Tensor, shift: int, low: int, high: int, inplace: bool = False) -> Tensor:
    """Arithmetic right shift by `shift` bits, then clamp to `low..high`; the gradient ignores the floor.

    With `inplace` the result may take the memory of `x`, where no gradient needs that.
    """
    if inplace and not x.requires_grad:
        return x.div_(1 << shift).floor_().clamp_(low, high)
    scaled = x / (1 << shift)  # a power of two: the division is exact
    if not scaled.requires_grad:
        return scaled.floor_().clamp_(low, high)
    return straight_through(scaled.floor().clamp(low, high), scaled.clamp(low - 1, high + 1))


def wrap(x: Tensor) -> Tensor:
    """`x` modulo 256, in 0..255; the gradient is that of `x` (the circle has no edge)."""
    return straight_through(torch.remainder(x.detach(), 256.0), x)


def triangle(x: Tensor, offset: int) -> Tensor:
    """A triangular wave of the circle of 256 levels, in -64..64, shifted by `offset` levels.

    Two of them 64 levels apart are an integer stand-in for cosine and sine: no jump between 255 and 0, so a small
    change of a pixel stays a small change of the feature.
    """
    return (torch.remainder(x + offset, 256.0) - 128.0).abs() - 64.0


class IntegerConv2d(nn.Module):
    """A "same" 3x3 convolution whose weights and biases are integers.

    Input (N, in, H, W), integers in float32; output (N, out, H, W), integers in float32. The latent weights are
    floats; their rounded, clamped values act. The bias is an integer in -127..127.
    """

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.dilation = dilation
        # Uniform over the integers: a Gaussian start would round mostly to zero.
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3).uniform_(-3.5, 3.5))
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-8, 8))

    def integer_weight(self) -> Tensor:
        """The weights that act: integers in -7..7."""
        w = self.weight
        return straight_through(w.detach().round().clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT), w)

    def integer_bias(self) -> Tensor:
        """The bias that acts: integers in -127..127."""
        return straight_through(self.bias.detach().round().clamp(-127, 127), self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve; see the class."""
        y = F.conv2d(x, self.integer_weight(), self.integer_bias(), padding=self.dilation, dilation=self.dilation)
        # A Winograd or FFT kernel may leave fractions of the order of 1e-3: take them off before any shift.
        return straight_through(y.detach().round(), y) if y.requires_grad else y.round_()

    @torch.no_grad()
    def worst_sum(self, input_limit: int) -> int:
        """The largest absolute value that any partial sum can reach for inputs in -limit..limit."""
        total = self.integer_weight().abs().sum(dim=(1, 2, 3)) * input_limit + self.integer_bias().abs()
        return int(total.max())


class IntegerDilatedStage(nn.Module):
    """Parallel dilated integer convolutions, concatenated, shifted and clamped to seven bits.

    (N, in, H, W) -> (N, width * len(dilations), H, W), integers in -64..63.
    """

    LOW, HIGH = -64, 63

    def __init__(self, in_channels: int, width: int, dilations: tuple[int, ...], shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.branches = nn.ModuleList(IntegerConv2d(in_channels, width, d) for d in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if x.device.type == "cpu":  # channels last: 4 times faster for these narrow dilated convolutions
            x = x.contiguous(memory_format=torch.channels_last)
        y = torch.cat([branch(x) for branch in self.branches], dim=1)
        return shift_clamp(y, self.shift, self.LOW, self.HIGH, inplace=True)
