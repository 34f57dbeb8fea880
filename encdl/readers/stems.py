"""Stems: the first layers of a reader, which take in ciphertext and mask, or a plaintext image.

A ciphertext is c = x + m mod 256, with x the image and m the mask that `Cipher.field` gives. So, as whole numbers,

    x = c - m + 256 [c < m]

and a convolution, being linear, may be taken of the three terms instead of their sum. That is what the keyed stem does:
its first tensor that depends on the image alone holds features, not pixels. The result is that of the same
convolution over the plaintext, up to rounding. So whatever a plaintext network reaches, the keyed one reaches, and
the weights of the one serve the other.

What this is not: protection from whoever runs the reader. The terms lie a sum away from the image, and a host that
holds the key could decrypt anyway. With another mask they add up to noise, and without one there is nothing to add.

`encdl.readers.keyless_stems` has stems of other kinds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encdl.utils.errors import UsageError

KINDS: dict[int, tuple[Any, Any]] = {2: (nn.Conv2d, nn.BatchNorm2d), 3: (nn.Conv3d, nn.BatchNorm3d)}
"""Convolution and normalisation by the dimensions of an image."""


def cropped(image: Tensor, sides: Sequence[int]) -> Tensor:
    """The first `sides` of the axes behind (B, C): rows and columns, and slices before them in volumes."""
    for axis, side in enumerate(sides, start=2):
        if side < image.shape[axis]:
            image = image.narrow(axis, 0, side)
    return image


def padded(image: Tensor, beyond: Sequence[int]) -> Tensor:
    """With as many zeros behind each of those axes."""
    return F.pad(image, [each for more in reversed(beyond) for each in (0, more)])


def placed(part: Tensor, region: Sequence[tuple[int, int]], size: Sequence[int]) -> Tensor:
    """The part of an image that a region is, cropped or padded to it, with zeros around: (B, C, *size)."""
    ends = region or [(0, side) for side in size]
    beyond = [
        (first, side - first - min(end - first, own))
        for (first, end), side, own in zip(ends, size, part.shape[2:], strict=True)
    ]
    inside = cropped(part, [end - first for first, end in ends])
    around = [each for more in reversed(beyond) for each in more]
    return F.pad(inside, around) if any(around) else inside


class Stem(nn.Module, ABC):
    """Images to features of the same height and width: (B, C, H, W) uint8 to (B, width, H, W).

    Volumes have a further axis, the slices: (B, C, D, H, W).

    Args:
        channels: C of the images.
        inputs: Channels that the convolution takes.
        width: Channels of the result.
        dimensions: 2 for images, 3 for volumes.
    """

    keyed: ClassVar[bool] = False
    """Whether it takes a mask."""

    def __init__(self, channels: int, inputs: int, width: int, dimensions: int = 2) -> None:
        super().__init__()
        if dimensions not in KINDS:
            raise UsageError(f"a stem reads images of 2 or 3 dimensions, not {dimensions}")
        if min(channels, width) < 1:
            raise UsageError(f"a stem needs one channel and one feature or more, not {channels} and width {width}")
        self.channels, self.width, self.dimensions = channels, width, dimensions
        convolution, norm = KINDS[dimensions]
        self.convolution = convolution(inputs, width, 3, padding=1, bias=False)
        self.norm = norm(width)

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments but `channels`, as plain values."""
        return {"width": self.width} | ({"dimensions": self.dimensions} if self.dimensions != 2 else {})

    @abstractmethod
    def convolved(self, image: Tensor, mask: Tensor | None) -> Tensor:
        """The convolution of what the stem makes of (B, C, H, W) uint8: (B, width, H, W)."""

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """See the class.

        Args:
            image: uint8 (B, C, H, W): the ciphertext, or whatever the stem is made for.
            mask: `Cipher.field` of it, of the same shape; for keyed stems alone.

        Raises:
            UsageError: The channels do not fit, or a mask is missing or unexpected.
        """
        if image.ndim != self.dimensions + 2 or image.shape[1] != self.channels:
            sides = "H, W" if self.dimensions == 2 else "D, H, W"
            raise UsageError(f"this stem was made for images (B, {self.channels}, {sides}), got {tuple(image.shape)}")
        if self.keyed and (mask is None or mask.shape != image.shape):
            raise UsageError("a keyed stem needs the mask of each pixel: give `cipher.field(ciphertext, key_planes)`")
        if not self.keyed and mask is not None:
            raise UsageError(f"{type(self).__name__} takes no mask: only a keyed stem does")
        return F.relu(self.norm(self.convolved(image, mask)))


class PlainStem(Stem):
    """Reads the levels of a plaintext image: the row to compare with.

    Args:
        channels: C of the images.
        width: Channels of the result.
        dimensions: 2 for images, 3 for volumes.
    """

    def __init__(self, channels: int, width: int = 16, dimensions: int = 2) -> None:
        super().__init__(channels, channels, width, dimensions)

    def convolved(self, image: Tensor, mask: Tensor | None) -> Tensor:
        """The convolution of the levels, -1/2 to 1/2."""
        result: Tensor = self.convolution(image.float() / 255.0 - 0.5)
        return result


class KeyedStem(Stem):
    """Reads a ciphertext and its mask as the plain stem reads the image; see the module's text.

    It has the weights of a `PlainStem`, by the same names.

    Args:
        channels: C of the images.
        width: Channels of the result.
        dimensions: 2 for images, 3 for volumes.
    """

    keyed: ClassVar[bool] = True

    def __init__(self, channels: int, width: int = 16, dimensions: int = 2) -> None:
        super().__init__(channels, channels, width, dimensions)
        self.factors: Tensor
        self.register_buffer("factors", torch.tensor([1.0, -1.0, 256.0]) / 255.0, persistent=False)

    def convolved(self, image: Tensor, mask: Tensor | None) -> Tensor:
        """The convolutions of ciphertext, mask and carry, summed."""
        assert mask is not None
        kernel = self.convolution.weight
        convolve = F.conv2d if self.dimensions == 2 else F.conv3d
        factors = self.factors.view(1, 3, *[1] * (kernel.ndim - 1))
        # In half precision the terms, each larger than the level they add up to, would round it away.
        with torch.autocast(image.device.type, enabled=False):
            return convolve(_terms(image, mask), (kernel.unsqueeze(1) * factors).flatten(1, 2), padding=1)


def _terms(image: Tensor, mask: Tensor) -> Tensor:
    """Ciphertext, mask and carry, float32 (B, 3 C, …): bytes are written at once where the convolution reads them."""
    if image.dtype != torch.uint8 or mask.dtype != torch.uint8:  # levels that may have a gradient
        return torch.cat([image - 127.5, mask, image < mask], dim=1)
    terms = torch.empty((image.shape[0], 3, *image.shape[1:]), dtype=torch.float32, device=image.device)
    torch.sub(image, 127.5, out=terms[:, 0])
    terms[:, 1] = mask
    torch.lt(image, mask, out=terms[:, 2])
    return terms.flatten(1, 2)
