"""Multi-scale dilated blocks in float: the body of the restorer and of the thesis cipher."""

from __future__ import annotations

from torch import Tensor, cat, nn
from torch.nn import functional as F

DILATIONS = (1, 2, 4, 8)


class DilatedBlock(nn.Module):
    """A residual block of parallel dilated 3x3 convolutions (dilations 1, 2, 4, 8): (N, width, H, W) to the same.

    There is no normalisation over the batch: a picture's result must not depend on its neighbours in the batch.
    Source of the form: multi-scale context aggregation by dilated convolutions (Yu and Koltun 2016, arXiv:1511.07122).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        if width % len(DILATIONS):
            raise ValueError(f"width must be a multiple of {len(DILATIONS)}, got {width}")
        part = width // len(DILATIONS)
        self.branches = nn.ModuleList(nn.Conv2d(width, part, 3, padding=d, dilation=d) for d in DILATIONS)
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
