"""The decryption network: repairs a damaged image once its mask has been taken off, and says which pixels were hit.

It runs at half resolution (2x2 pixels become four channels) and is made of residual blocks of parallel dilated
convolutions. A level is shown as a point of the circle of 256 levels, beside its height: noise of a masked pixel wraps
at 256, so black may come as 253, and a network that saw the height alone would see an edge there.

A damaged pixel tells either a little too much or too little (noise) or nothing (it was hit, or lost). So the network
gives both answers, a *correction* of the level that stands there and a *replacement* for it, and mixes them by how far
the level lies from its replacement: convolutions alone tell such a distance badly. A correction starts from the level
or from an estimate that `encdl.ciphers.nn.shrinkage` makes of it, whichever the network weights highest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encdl.ciphers.nn.dilated import DILATIONS, DilatedBlock
from encdl.ciphers.nn.phases import circle
from encdl.ciphers.nn.shrinkage import ESTIMATES, REACH, Shrinkage

INPUTS = 4 + ESTIMATES
"""Channels a pixel: cosine, sine, height, lost, differences of the estimates from the level."""
OUTPUTS = 6 + ESTIMATES
"""Channels a pixel: replacement, correction, offset and slope of the mixture's logit, offset and slope of the hit's,
and the logit of each estimate against that of the level."""
UNSEEN = -3.0
"""An untrained network's logit of each estimate."""
CORRECTION = 8.0
"""Levels that a correction of 1 stands for."""
OFFSET, SLOPE = -8.0, 3.0
"""Of an untrained network's logits of replacing and of a hit: far less likely than not at a distance of 5, level at 13.

Where errors of the replacement have the tail of a power, so has the likelihood of being hit: it is linear in the
logarithm of the distance.
"""
DEEPEST = 1e-5
"""Levels of 0 and 255 become logits of this probability."""
TILE = 1024
"""Rows and columns of an image that are restored at a time, without gradients."""
WHOLE_PIXELS = 1408**2
"""Up to here nothing is cut into tiles: these many pixels take about 0.7 GB at the shipped width."""

MIRRORS: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))
"""Axes of the mirror images that are averaged over."""
SMALL_PIXELS = 256**2
"""Up to here all of them are, below four times as many pixels the first two, beyond the image alone: it takes half a
second on two cores at 512x512."""

Place = tuple[slice, slice]
"""Rows and columns."""


class Repaired(NamedTuple):
    """The repair of a damaged image as logits (N, 1, H, W) float32; 255 times a level's sigmoid is the level."""

    level: Tensor
    """The best guess at each level."""
    hit: Tensor
    """Above 0 where the pixel is believed to be wrong."""
    replacement: Tensor
    """The best guess at each level if nothing were known of it but its neighbours."""
    mixture: Tensor
    """Above 0 where the level is rather the replacement than a correction of what stands there."""


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
        self._trained: Callable[[Tensor, Tensor], Repaired] = self._whole
        # Pixels that one output pixel depends on, to each side: the estimates, one 3x3 convolution in, one out,
        # and the blocks.
        self.reach = 2 * (2 + blocks * max(dilations)) + REACH
        self.shrinkage = Shrinkage()
        self.enter = nn.Conv2d(4 * INPUTS, width, 3, padding=1)
        self.blocks = nn.Sequential(*(DilatedBlock(width, dilations) for _ in range(blocks)))
        self.leave = nn.Conv2d(width, 4 * OUTPUTS, 3, padding=1)
        with torch.no_grad():  # estimates are silent at first: they mislead where there is no noise
            self.enter.weight[:, 4 * 3 : 4 * (3 + ESTIMATES)] = 0.0
            self.leave.bias[-4 * ESTIMATES :] += UNSEEN  # type: ignore[index]

    def forward(self, levels: Tensor, lost: Tensor) -> Repaired:
        """Read a damaged image.

        Without gradients, memory does not grow with the image: large ones are read in overlapping tiles.

        Args:
            levels: (N, 1, H, W), the damaged ciphertext with its mask taken off, 0..255, any real dtype; H and W of 1
                and more, odd ones too. What stands in lost pixels does not matter.
            lost: (N, 1, H, W), 1 where a pixel is known to be lost, 0 elsewhere.

        Returns:
            Logits, each (N, 1, H, W) float32.
        """
        lost = lost.float()
        levels = levels.float().masked_fill(lost > 0, 0.0)
        if levels.numel() == 0:
            return Repaired(*(torch.empty_like(levels) for _ in Repaired._fields))
        if self.training and torch.is_grad_enabled():
            return self._trained(levels, lost)
        if torch.is_grad_enabled() or levels.numel() <= WHOLE_PIXELS:
            return self._whole(levels, lost)
        results = [torch.empty_like(levels) for _ in Repaired._fields]
        for tile, around, inside in self._tiles(*levels.shape[-2:]):
            tiles = levels[(..., *around)], lost[(..., *around)]
            several = max(1, WHOLE_PIXELS // tiles[0][0].numel())
            for first in range(0, len(levels), several):
                images = slice(first, first + several)
                found = self._whole(tiles[0][images], tiles[1][images])
                for target, part in zip(results, found, strict=True):
                    target[(images, slice(None), *tile)] = part[(..., *inside)]
        return Repaired(*results)

    @torch.no_grad()
    def averaged(self, levels: Tensor, lost: Tensor) -> Repaired:
        """As `forward`, averaged over mirror images of small ones: a little better, and as many times slower."""
        pixels = levels[:1].numel()
        if pixels >= 4 * SMALL_PIXELS:
            return self(levels, lost)  # type: ignore[no-any-return]
        axes_of = MIRRORS if pixels <= SMALL_PIXELS else MIRRORS[:2]
        ways = [self._mirrored(levels, lost, axes) for axes in axes_of]
        level = torch.stack([way.level.sigmoid() for way in ways]).mean(0)
        others = (torch.stack(several).mean(0) for several in list(zip(*ways, strict=True))[1:])
        return Repaired(level.logit(DEEPEST), *others)

    def _mirrored(self, levels: Tensor, lost: Tensor, axes: tuple[int, ...]) -> Repaired:
        found = self(levels.flip(axes), lost.flip(axes))
        return Repaired(*[each.flip(axes) for each in found])

    def compile_training(self) -> None:
        """Train as CUDA graphs, by `torch.compile`: twice the steps a second, after a minute or less for each shape."""
        self._trained = torch.compile(self._whole, mode="reduce-overhead", dynamic=False)

    def _whole(self, levels: Tensor, lost: Tensor) -> Repaired:
        height, width = levels.shape[-2:]
        padding = (0, width % 2, 0, height % 2)
        seen, gone = (F.pad(each, padding, mode="replicate") for each in (levels, lost))
        hints = self.shrinkage(levels)
        differences = F.pad(((hints - levels) / CORRECTION).clamp(-2.0, 2.0), padding, mode="replicate")
        shown = torch.cat([circle(seen), seen / 255.0, differences], dim=1) * (1.0 - gone)
        # Channels last: a fifth faster on a CPU, and what tensor cores want.
        x = F.pixel_unshuffle(torch.cat([shown, gone], dim=1), 2).contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.trains_in_bfloat16 and self.training):
            x = self.leave(self.blocks(self.enter(x)))
        return _mixed(F.pixel_shuffle(x.float(), 2)[..., :height, :width], levels, lost, hints)

    def _tiles(self, height: int, width: int) -> Iterator[tuple[Place, Place, Place]]:
        """Rows and columns of each tile, those of the tile with its surroundings, and its place within these."""
        for down, across in itertools.product(self._spans(height), self._spans(width)):
            yield tuple(zip(down, across, strict=True))  # type: ignore[misc]  # three pairs

    def _spans(self, size: int) -> Iterator[tuple[slice, slice, slice]]:
        for start in range(0, size, TILE):
            stop = min(start + TILE, size)
            first, last = max(0, start - self.reach), min(size, stop + self.reach)  # `first` is even
            yield slice(start, stop), slice(first, last), slice(start - first, stop - first)


def _mixed(outputs: Tensor, levels: Tensor, lost: Tensor, hints: Tensor) -> Repaired:
    """The network's outputs (N, `OUTPUTS`, H, W) beside what they are about; see the module's text."""
    replacement, correction, *logits = torch.split(outputs[:, :6], 1, dim=1)
    weights = torch.cat([torch.zeros_like(levels), UNSEEN + outputs[:, 6:]], dim=1).softmax(1)
    start = (weights * torch.cat([levels, hints], dim=1)).sum(1, keepdim=True)
    value = replacement.sigmoid()
    distance = (255.0 * value - levels).abs()
    mixture = OFFSET + logits[0] + (SLOPE + logits[1]) * distance.log1p()
    share = mixture.sigmoid().masked_fill(lost > 0, 1.0)
    corrected = ((start + CORRECTION * correction) / 255.0).clamp(0.0, 1.0)
    level = share * value + (1.0 - share) * corrected
    # Hits are told by the distance, but must not move the replacement towards what tells them best.
    hit = OFFSET + logits[2] + (SLOPE + logits[3]) * distance.detach().log1p()
    return Repaired(level.logit(DEEPEST), hit, replacement, mixture)
