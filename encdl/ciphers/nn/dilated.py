"""Multi-scale dilated blocks in float: the body of the restorer and of the thesis cipher."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, cat, nn
from torch.nn import functional as F

DILATIONS = (1, 2, 4, 8)


class DilatedBlock(nn.Module):
    """A residual block of parallel dilated 3x3 convolutions: (N, width, H, W) to the same.

    There is no normalisation over the batch: an image's result must not depend on its neighbours in the batch.
    Source of the form: multi-scale context aggregation by dilated convolutions (Yu and Koltun 2016, arXiv:1511.07122).

    Args:
        width: Channels, a multiple of the number of dilations.
        dilations: Of the parallel convolutions; each gives an equal share of the channels.

    Raises:
        ValueError: The width is no such multiple.
    """

    def __init__(self, width: int, dilations: Sequence[int] = DILATIONS) -> None:
        super().__init__()
        if width % len(dilations):
            raise ValueError(f"width must be a multiple of {len(dilations)}, got {width}")
        part = width // len(dilations)
        self.branches = nn.ModuleList(nn.Conv2d(width, part, 3, padding=d, dilation=d) for d in dilations)
        self.fuse = nn.Conv2d(width, width, 1)
        # Starting near the identity lets a deep stack train without normalisation.
        nn.init.zeros_(self.fuse.weight)
        assert self.fuse.bias is not None
        nn.init.zeros_(self.fuse.bias)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        hidden = F.gelu(cat([branch(x) for branch in self.branches], dim=1))
        residual: Tensor = self.fuse(hidden)
        return x + residual


class DilatedNet(nn.Sequential):
    """A 3x3 convolution in, `blocks` dilated blocks, a 3x3 convolution out; (N, in, H, W) -> (N, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, width: int, blocks: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, width, 3, padding=1),
            nn.GELU(),
            *(DilatedBlock(width) for _ in range(blocks)),
            nn.Conv2d(width, out_channels, 3, padding=1),
        )
