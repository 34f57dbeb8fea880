"""A small reader of ReLU, strided convolutions and one linear layer: what two parties compute on shares in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encdl.readers.backbones import BACKBONES, Backbone
from encdl.readers.stems import Stem
from encdl.utils.errors import UsageError


class StridedStem(Stem):
    """Reads the levels of an image with a convolution of stride 2: every comparison of a ReLU costs two parties time.

    Args:
        channels: C of the images.
        width: Channels of the result, which is half as high and wide as the image.
    """

    def __init__(self, channels: int, width: int = 16) -> None:
        super().__init__(channels, channels, width)
        self.convolution = nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False)

    def convolved(self, image: Tensor, mask: Tensor | None) -> Tensor:
        """The convolution of the levels, -1/2 to 1/2: (B, width, H/2, W/2), rounded up."""
        result: Tensor = self.convolution(image.float() / 255.0 - 0.5)
        return result


@BACKBONES.register("StridedNet")
class StridedNet(Backbone):
    """A classifier: 3x3 convolutions of stride 2, each with batch normalisation and ReLU, then mean and linear layer.

    Args:
        channels: Features that the stem gives.
        classes: Logits an image.
        widths: Channels of each convolution.

    Raises:
        UsageError: A width is less than 1.
    """

    def __init__(self, channels: int, classes: int, widths: Sequence[int] = (32, 32)) -> None:
        super().__init__()
        if not widths or min(widths) < 1:
            raise UsageError(f"StridedNet: widths are {list(widths)}: give channels of one convolution or more")
        self.widths = list(widths)
        inputs = [channels, *self.widths]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
            for before, after in zip(inputs, self.widths, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in self.widths)
        self.linear = nn.Linear(self.widths[-1], classes)

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments but `channels` and `classes`."""
        return {"widths": self.widths}

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, classes)."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            features = F.relu(norm(convolution(features)))
        logits: Tensor = self.linear(features.mean((2, 3)))
        return logits


@torch.no_grad()
def folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Kernel and bias of the one convolution that both are in evaluation mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    return convolution.weight * factor[:, None, None, None], norm.bias - norm.running_mean * factor
