"""A network that rebuilds images from the numbers of a functional map: adversary in training, attack after it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encdl.readers.stems import KINDS, cropped, padded, placed

SHRINK = 4
"""The body works at this part of the resolution, on stacks of neighbouring pixels."""


class FeatureDecoder(nn.Module):
    """Numbers to the image plane by a learnt transpose of W, then residual dilated convolutions.

    Args:
        inputs: Numbers at each place of the grid.
        channels: C of the image.
        size: Height and width of the image; of volumes depth, height and width.
        kernel: Of W.
        stride: Of W.
        planes: Planes of the image's size that the numbers are projected onto.
        width: Channels of the body.
        blocks: Residual blocks, dilated 1, 2, 4, 1, ...
        region: What W sees of the image. What it does not see a learnt image stands for.
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        size: tuple[int, ...],
        kernel: int,
        stride: int,
        planes: int = 4,
        width: int = 64,
        blocks: int = 3,
        region: Sequence[tuple[int, int]] = (),
    ) -> None:
        super().__init__()
        self.size, self.region = size, region
        axes = len(size)
        convolution, norm = KINDS[axes]
        transposed = nn.ConvTranspose2d if axes == 2 else nn.ConvTranspose3d
        self.norm = norm(inputs, affine=False)
        self.back = transposed(inputs, channels + planes, kernel, stride)
        self.first = convolution((channels + planes) * SHRINK**axes, width, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(width, (1, 2, 4)[number % 3], axes) for number in range(blocks))
        self.last = convolution(width, channels * SHRINK**axes, 3, padding=1)
        self.channels = channels
        self.mean = nn.Parameter(torch.zeros(channels, *size)) if region else None

    def forward(self, numbers: Tensor) -> Tensor:
        """float32 (B, inputs, *grid) to an image of levels -1/2 to 1/2, (B, C, *size)."""
        from monai.networks.utils import pixelshuffle, pixelunshuffle  # noqa: PLC0415

        axes = len(self.size)
        back = placed(self.back(self.norm(numbers)), self.region, self.size)
        back = padded(back, [-side % SHRINK for side in self.size])
        hidden = self.first(pixelunshuffle(back, axes, SHRINK))
        for block in self.blocks:
            hidden = block(hidden)
        image: Tensor = back[:, : self.channels] + pixelshuffle(self.last(F.relu(hidden)), axes, SHRINK)
        image = cropped(image, self.size)
        return image if self.mean is None else image + self.mean


class _Block(nn.Module):
    def __init__(self, width: int, dilation: int, axes: int) -> None:
        super().__init__()
        convolution, norm = KINDS[axes]
        self.body = nn.Sequential(
            norm(width),
            nn.ReLU(),
            convolution(width, width, 3, padding=dilation, dilation=dilation),
            norm(width),
            nn.ReLU(),
            convolution(width, width, 3, padding=1),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        result: Tensor = hidden + self.body(hidden)
        return result


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(context: object, value: Tensor, weight: float) -> Tensor:
        context.weight = weight  # type: ignore[attr-defined]
        return value.view_as(value)

    @staticmethod
    def backward(context: object, gradient: Tensor) -> tuple[Tensor, None]:
        return -context.weight * gradient, None  # type: ignore[attr-defined]


def reversed_gradient(value: Tensor, weight: float) -> Tensor:
    """The value itself; its gradient comes back with the opposite sign, times `weight` (arXiv:1409.7495)."""
    result: Tensor = _Reversed.apply(value, weight)  # type: ignore[no-untyped-call]
    return result
