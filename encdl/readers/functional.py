"""A reader's first layer for hosts without a key: a learnt integer map W of the image, on which everything else stands.

The host convolves the ciphertext, the key server the mask; the difference is W x exactly (`encdl.keys.functional_map`).
So nothing has to be encrypted in training. Two forms:

- "layer": W over a reading layer in Z_2^32 (`encdl.ciphers.reading_layer`). No sum wraps, so W may average.
- "ciphertext": W over the ciphertext itself, modulo 256; sums wrap, and are read on the circle, as cosine and sine.

Whoever sees the numbers may try to rebuild the image from them. An adversary that does so is trained alongside, and W
against it, by a reversed gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encdl.keys.functional import MAX_NOISE
from encdl.keys.functional_map import WEIGHT_LIMIT, FunctionalMap, check_region, grid, sides, within
from encdl.readers.functional_decoder import FeatureDecoder, reversed_gradient
from encdl.readers.stems import Stem, cropped, padded, placed
from encdl.utils.errors import UsageError

Form = Literal["layer", "ciphertext"]
FORM_BITS: dict[str, int] = {"layer": 32, "ciphertext": 8}
SIGNED = {8: torch.int8, 16: torch.int16, 32: torch.int32}

LEAST_ERROR = 1e-5
"""Mean squared error below which the adversary gains nothing: that is 50 dB."""


class IntegerMap(nn.Module):
    """W with a straight-through gradient: the forward pass takes whole weights, -7 to 7.

    Args:
        channels: C of the images.
        size: Their height and width; of volumes depth, height and width.
        outputs: Numbers at each place of the grid.
        kernel: Side of a window in pixels, a cube of volumes.
        stride: Pixels from window to window.
        bits: Of a word.
        spread: Standard deviation of the first weights.
        region: What W sees of the image; see `FunctionalMap`.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, ...],
        outputs: int,
        kernel: int,
        stride: int,
        bits: int,
        spread: float = 2.0,
        region: tuple[tuple[int, int], ...] = (),
    ) -> None:
        super().__init__()
        check_region(region, size)
        self.size, self.stride, self.bits, self.region = size, stride, bits, region
        self.sides = sides(region, size)
        self.grid = grid(self.sides, kernel, stride)
        self.latent = nn.Parameter(torch.randn(outputs, channels, *(kernel for _ in size)) * (spread / WEIGHT_LIMIT))
        self._kept: tuple[tuple[int, ...], Tensor, Tensor] | None = None

    @property
    def kernel(self) -> int:
        """Side of a window."""
        return self.latent.shape[3]

    def integers(self) -> Tensor:
        """The weights as whole numbers in float32, with the latent weights' gradient."""
        scaled = self.latent * WEIGHT_LIMIT
        return scaled + (scaled.round().clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT) - scaled).detach()

    def frozen(self) -> FunctionalMap:
        """The map as host and key server compute it."""
        weights = self.integers().detach().cpu().numpy().astype(np.int8)
        return FunctionalMap(weights, self.stride, self.size, self.bits, self.region)

    def train(self, mode: bool = True) -> IntegerMap:
        """As of any module."""
        self._kept = None
        return super().train(mode)

    @torch.no_grad()
    def fixed(self) -> tuple[Tensor, Tensor]:
        """The weights in float64, and twice each output's largest magnitude, of levels from 0 to 1: (outputs, 1, ...).

        Twice leaves room for a key server's noise. Between changes of the weights both are computed once: a host reads
        file after file, and on a GPU a dozen small steps take as long as a layer.
        """
        state = (self.latent.data_ptr(), 0 if self.latent.is_inference() else self.latent._version)
        if self._kept is None or self.training or self._kept[0] != state:
            weights = self.integers()
            flat = weights.flatten(1)
            bound = 2 * torch.maximum(flat.clamp(min=0).sum(1), -flat.clamp(max=0).sum(1))
            self._kept = state, weights.double(), bound.view(-1, *[1] * len(self.size))
        return self._kept[1:]

    def forward(self, image: Tensor) -> Tensor:
        """W of levels, float32 (B, C, *size) of whole numbers: (B, outputs, *grid), not yet reduced.

        Sums stay below 2^24, so that float32 holds them exactly whatever the order or the precision of the inputs
        (8 bits of a level and 4 of a weight fit bfloat16).
        """
        with torch.autocast(image.device.type, enabled=False):
            return self._sums(image, self.integers())

    @torch.no_grad()
    def exact(self, words: Tensor, given: Tensor | None = None) -> Tensor:
        """W of any words, modulo 2^bits: signed, `bits` wide, (B, outputs, *grid), the numbers nearest to 0.

        Args:
            words: (B, C, *size) of any type, whole numbers from 0 to 2^bits - 1.
            given: a functional key's numbers, which are taken off.
        """
        with torch.autocast(words.device.type, enabled=False):
            sums = self._sums(words, self.fixed()[0])
            whole = (sums if given is None else sums - given).to(torch.int64)
            return whole.to(SIGNED[self.bits])  # which drops the bits above

    def _sums(self, image: Tensor, weights: Tensor) -> Tensor:
        """Computed in the type of the weights."""
        if image.shape[1:] != (weights.shape[1], *self.size):
            raise UsageError(
                f"this reader takes images of {' x '.join(map(str, (weights.shape[1], *self.size)))} "
                f"({' x '.join('CDHW' if len(self.size) == 3 else 'CHW')}), not {tuple(image.shape[1:])}"
            )
        image = image[within(self.region)]
        beyond = [
            max(0, (count - 1) * self.stride + self.kernel - side)
            for count, side in zip(self.grid, self.sides, strict=True)
        ]
        windows = padded(image, beyond) if any(beyond) else image
        for axis, count in enumerate(self.grid, start=2):
            windows = windows.unfold(axis, self.kernel, self.stride).narrow(axis, 0, count)
        # A product of matrices, not a convolution: no library takes a transform for it that rounds.
        taps = windows.movedim(1, 1 + len(self.size)).to(weights.dtype, memory_format=torch.contiguous_format)
        taps = taps.flatten(1 + len(self.size)).flatten(1, len(self.size))
        sums = torch.matmul(taps, weights.flatten(1).T)
        return sums.movedim(2, 1).reshape(*sums.shape[::2], *self.grid)


def centred(numbers: Tensor, ring: float) -> Tensor:
    """Whole numbers as those nearest to 0 with the same remainder: -ring/2 to ring/2 - 1."""
    return torch.remainder(numbers + ring / 2, ring) - ring / 2


def spread_out(layer: nn.Module, points: Tensor) -> Tensor:
    """What a transposed convolution makes, faster by a product of matrices where its windows do not overlap."""
    if not isinstance(layer, nn.ConvTranspose2d | nn.ConvTranspose3d) or layer.kernel_size != layer.stride:
        spread: Tensor = layer(points)
        return spread
    assert layer.bias is not None
    batch, _, *places = points.shape
    axes, width = len(places), layer.out_channels
    rows = points.movedim(1, -1).reshape(-1, layer.in_channels)  # whose product with a small matrix is the fast one
    tiles = torch.matmul(rows, layer.weight.flatten(1)).view(batch, *places, width, *layer.stride)
    order = [each for axis in range(axes) for each in (1 + axis, 2 + axes + axis)]
    whole = tiles.permute(0, 1 + axes, *order).reshape(
        batch, width, *(place * step for place, step in zip(places, layer.stride, strict=True))
    )
    return whole.add_(layer.bias.view(-1, *[1] * axes))


class FunctionalStem(Stem):
    """Reads W of an image, and nothing else of it: see the module's text.

    Args:
        channels: C of the images.
        size: Their height and width; of volumes depth, height and width, and W is taken of the whole volume.
        outputs: Numbers that W gives at each place of its grid.
        kernel: Side of its windows in pixels; the longer side of the image by 0.
        stride: From window to window.
        form: What W is taken of.
        width: Channels of the result.
        expand: How many times as high and wide as the grid the result is; the stride by 0, so that it is as large as
            the image, and backbones keep their settings.
        adversary: Weight of the decoder that W is trained against; 0 trains none.
        dimensions: 2 for images, 3 for volumes.
        noise: Standard deviation, in levels, of what the key server adds to the pixels, one draw a file. Drawn anew
            whenever W of an image is taken here; numbers that come from a key server have it already.
        region: The part of the image that W sees, [first, end] of each axis; all of it by ().
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, ...],
        outputs: int = 4,
        kernel: int = 8,
        stride: int = 8,
        form: Form = "layer",
        width: int = 16,
        expand: int = 0,
        adversary: float = 0.0,
        dimensions: int = 2,
        noise: float = 0.0,
        region: Sequence[Sequence[int]] = (),
    ) -> None:
        if form not in FORM_BITS:
            raise UsageError(f"form of a functional reader is layer or ciphertext, not {form!r}")
        if not 0 <= noise <= MAX_NOISE:
            raise UsageError(f"noise of a functional reader is from 0 to {MAX_NOISE:g} levels, not {noise}")
        if min(outputs, stride) < 1 or min(kernel, expand, adversary) < 0:
            raise UsageError(
                "outputs and stride of a functional reader are 1 or more, kernel, expand and adversary 0 or more"
            )
        self.region = tuple((int(first), int(end)) for first, end in region)
        kernel, expand = kernel or max(sides(self.region, size)), expand or stride
        inputs = outputs * (2 if form == "ciphertext" else 1)
        super().__init__(channels, inputs if expand == 1 else width, width, dimensions)
        self.size, self.form, self.expand, self.adversary = (tuple(map(int, size)), form, expand, adversary)
        self.noise = noise
        self.map = IntegerMap(channels, self.size, outputs, kernel, stride, FORM_BITS[form], region=self.region)
        self.map.frozen()  # refuses what no map can be
        self.scale = type(self.norm)(inputs, affine=False)
        self.spread = self._spreading(inputs) if expand > 1 else nn.Identity()
        shape = channels, self.size, kernel, stride
        self.decoder = FeatureDecoder(inputs, *shape, region=self.region) if adversary else None

    def _spreading(self, inputs: int) -> nn.Module:
        """To the size of the image each number goes where W took it from; to another, to a square of its own."""
        whole = self.expand == self.map.stride
        transposed = nn.ConvTranspose2d if len(self.size) == 2 else nn.ConvTranspose3d
        return transposed(inputs, self.width, self.map.kernel if whole else self.expand, self.expand)

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments but `channels`."""
        return super().settings() | {
            "size": list(self.size),
            "outputs": self.map.latent.shape[0],
            "kernel": self.map.kernel,
            "stride": self.map.stride,
            "form": self.form,
            "expand": self.expand,
            "adversary": self.adversary,
            "noise": self.noise,
            "region": [list(ends) for ends in self.region],
        }

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """As of any stem; with each pixel's mask what the key's holder reads of the ciphertext, without noise."""
        if mask is None:
            return super().forward(image)
        return self.of_centred(self.map.exact(image - mask), whole=True)  # bytes: modulo 256

    def convolved(self, image: Tensor, mask: Tensor | None) -> Tensor:
        """The convolution of W's numbers."""
        return self._convolved(self.seen(image))

    def seen(self, image: Tensor) -> Tensor:
        """All that a host learns of images, as the network takes it: float32 (B, inputs, *grid)."""
        return self.of_levels(self.noisy(image))

    def of_levels(self, levels: Tensor) -> Tensor:
        """What a host learns of levels that have the key server's noise already; as `seen`."""
        return self._points(self.map(levels))

    def noisy(self, image: Tensor) -> Tensor:
        """Levels of any type with a fresh draw of the key server's noise, whole levels; float32 of the same shape."""
        levels = image.float()
        return levels + (torch.randn_like(levels) * self.noise).round() if self.noise else levels

    def read(self, numbers: Tensor, level_bits: int = 8) -> Tensor:
        """The stem's result from the numbers of W: what a host computes.

        Args:
            numbers: what W makes of the ciphertext minus what it makes of the mask, whole numbers of any type.
            level_bits: of a level; a reading layer may have finer ones than the 8-bit images of training.
        """
        return self.of_centred(centred(numbers.double(), float(1 << self.map.bits)).float(), level_bits)

    def of_centred(self, numbers: Tensor, level_bits: int = 8, whole: bool = False) -> Tensor:
        """As `read`, of the numbers nearest to 0.

        Args:
            numbers: those of `IntegerMap.exact`, or of `encdl.keys.functional_map.centred`; whole, or float32.
            level_bits: as of `read`.
            whole: the layer has no hits, as its parity tells.
        """
        points = self._points(numbers, level_bits)
        if self.form == "layer" and not whole:
            # No image gives such numbers: the ciphertext was hit there. The mean says least.
            mean, bound = self.scale.running_mean, self.map.fixed()[1]
            assert mean is not None
            points = torch.where(points.abs() > bound, mean.view(bound.shape), points)
        return F.relu(self.norm(self._convolved(points)), inplace=not torch.is_grad_enabled())

    def of_numbers(self, numbers: Tensor, level_bits: int = 8) -> Tensor:
        """The convolution of W's numbers, whole ones nearest to 0 in float32: (B, width, *size)."""
        return self._convolved(self._points(numbers, level_bits))

    @torch.no_grad()
    def rebuilt(self, image: Tensor) -> Tensor:
        """The adversary's reconstruction of images that it sees W of: uint8 (B, C, H, W); black without one."""
        if self.decoder is None:
            return torch.zeros_like(image, dtype=torch.uint8)
        levels: Tensor = (self.decoder(self.seen(image)).float() + 0.5) * 255.0
        return levels.round().clamp(0, 255).to(torch.uint8)

    def penalty(self, image: Tensor) -> Tensor:
        """Logarithm of the adversary's error; falls for the adversary, and rises for W, times its weight: a scalar."""
        if self.decoder is None:
            return torch.zeros((), device=image.device)
        rebuilt = self.decoder(reversed_gradient(self.seen(image), self.adversary))
        error = F.mse_loss(rebuilt.float(), image.float() / 255.0 - 0.5)
        return error.clamp(min=LEAST_ERROR).log()

    def _points(self, numbers: Tensor, level_bits: int = 8) -> Tensor:
        if self.form == "layer":
            return numbers / (2.0**level_bits - 1)
        angle = centred(numbers, 256.0) * (2.0 * math.pi / 256.0)  # its gradient is that of the numbers
        return torch.cat([angle.cos(), angle.sin()], dim=1)

    def _convolved(self, points: Tensor) -> Tensor:
        spread = spread_out(self.spread, self.scale(points))
        if self.expand > 1:
            whole = self.expand == self.map.stride
            spread = placed(spread, self.region, self.size) if whole else cropped(spread, self.size)
            spread = F.relu(spread, inplace=not torch.is_grad_enabled())
        result: Tensor = self.convolution(spread)
        # Transposed convolutions give channels last, in which a CPU takes a third more time for all that follows.
        return result if result.is_cuda else result.contiguous()
