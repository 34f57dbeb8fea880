"""The decryption network: repairs a damaged image once its mask has been taken off, and says which pixels were hit.

It runs at half resolution (2x2 pixels become four channels) and is made of residual blocks of parallel dilated
convolutions. A level is shown as a point of the circle of 256 levels, beside its height: noise of a masked pixel wraps
at 256, so black may come as 253, and a network that saw the height alone would see an edge there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encdl.nn.dilated import DILATIONS, DilatedBlock
from encdl.nn.phases import circle

INPUTS = 4
"""Channels a pixel: cosine, sine, height, lost."""
OUTPUTS = 2
"""Channels a pixel: level and hit."""
TILE = 1024
"""Rows and columns of an image that are restored at a time, without gradients."""
WHOLE_PIXELS = 1408**2
"""Up to here nothing is cut into tiles: these many pixels take about 0.7 GB at the shipped width."""

Place = tuple[slice, slice]
"""Rows and columns."""


class DecryptionNetwork(nn.Module):
    """A damaged image to what it was, and to which of its pixels are wrong.

    An image's result depends neither on the other images of the batch nor, beyond rounding of the last bits, on
    whether it is computed whole or in tiles.

    Args:
        width: Channels, a multiple of the number of dilations.
        blocks: Dilated residual blocks.
        dilations: Of the parallel convolutions of each block.

    Attributes:
        trains_in_bfloat16: Whether training computes the convolutions in bfloat16; weights, losses and what is
            computed after training stay in float32.

    Raises:
        ValueError: The width is no multiple of the number of dilations.
    """

    def __init__(self, width: int = 64, blocks: int = 10, dilations: Sequence[int] = DILATIONS) -> None:
        super().__init__()
        self.trains_in_bfloat16 = False
        # Pixels that one output pixel depends on, to each side: one 3x3 convolution in, one out, and the blocks.
        self.reach = 2 * (2 + blocks * max(dilations))
        self.enter = nn.Conv2d(4 * INPUTS, width, 3, padding=1)
        self.blocks = nn.Sequential(*(DilatedBlock(width, dilations) for _ in range(blocks)))
        self.leave = nn.Conv2d(width, 4 * OUTPUTS, 3, padding=1)

    def forward(self, levels: Tensor, lost: Tensor) -> tuple[Tensor, Tensor]:
        """Read a damaged image.

        Without gradients, memory does not grow with the image: large ones are read in overlapping tiles.

        Args:
            levels: (N, 1, H, W), the damaged ciphertext with its mask taken off, 0..255, any real dtype; H and W of 1
                and more, odd ones too. What stands in lost pixels does not matter.
            lost: (N, 1, H, W), 1 where a pixel is known to be lost, 0 elsewhere.

        Returns:
            Level logits (255 times their sigmoid is the image) and hit logits (above 0 where the pixel is believed to
            be wrong), each (N, 1, H, W) float32.
        """
        levels, lost = levels.float(), lost.float()
        if levels.numel() == 0:
            return torch.empty_like(levels), torch.empty_like(levels)
        if torch.is_grad_enabled() or levels.numel() <= WHOLE_PIXELS:
            return self._whole(levels, lost)
        level, hit = torch.empty_like(levels), torch.empty_like(levels)
        for tile, around, inside in self._tiles(*levels.shape[-2:]):
            tiles = levels[(..., *around)], lost[(..., *around)]
            several = max(1, WHOLE_PIXELS // tiles[0][0].numel())
            for first in range(0, len(levels), several):
                images = slice(first, first + several)
                found = self._whole(tiles[0][images], tiles[1][images])
                for target, part in zip((level, hit), found, strict=True):
                    target[(images, slice(None), *tile)] = part[(..., *inside)]
        return level, hit

    def _whole(self, levels: Tensor, lost: Tensor) -> tuple[Tensor, Tensor]:
        height, width = levels.shape[-2:]
        if height % 2 or width % 2:
            levels, lost = (
                F.pad(each, (0, width % 2, 0, height % 2), mode="replicate") for each in (levels, lost)
            )
        shown = torch.cat([circle(levels), levels / 255.0], dim=1) * (1.0 - lost)
        # Channels last: a fifth faster on a CPU, and what tensor cores want.
        x = F.pixel_unshuffle(torch.cat([shown, lost], dim=1), 2).contiguous(
            memory_format=torch.channels_last
        )
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.trains_in_bfloat16 and self.training):
            x = self.leave(self.blocks(self.enter(x)))
        level, hit = F.pixel_shuffle(x.float(), 2)[..., :height, :width].unbind(1)
        return level.unsqueeze(1), hit.unsqueeze(1)

    def _tiles(self, height: int, width: int) -> Iterator[tuple[Place, Place, Place]]:
        """Rows and columns of each tile, those of the tile with its surroundings, and its place within these."""
        for down, across in itertools.product(self._spans(height), self._spans(width)):
            yield tuple(zip(down, across, strict=True))  # type: ignore[misc]  # three pairs

    def _spans(self, size: int) -> Iterator[tuple[slice, slice, slice]]:
        for start in range(0, size, TILE):
            stop = min(start + TILE, size)
            first, last = max(0, start - self.reach), min(size, stop + self.reach)  # `first` is even
            yield slice(start, stop), slice(first, last), slice(start - first, stop - first)
