"""What stands between a picture and a backbone: how a reader takes in ciphertext, or whatever else it is shown.

The keyed stem multiplies linear maps of the ciphertext's points on the circle by linear maps of the mask's, pixel by
pixel, and only then convolves. With c the ciphertext, m the mask and x = c - m the picture (as angles),

    cos x = cos c cos m + sin c sin m        sin x = sin c cos m - cos c sin m

and likewise for multiples of the angle. The products of one pixel are kept apart, each a channel that alone shows noise
(c is uniform); sums over them are taken inside the convolution, together with the neighbours. So no tensor holds the
picture. With another mask the products stay noise, and without one there is nothing to multiply by.

The levels 0 and 255 are neighbours on the circle. Several multiples of the angle tell them apart: with the Fourier
series of a sawtooth, x / 2 pi - 1/2 = - sum of sin(k x) / (k pi), the convolution starts as one of the levels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encdl.errors import UsageError

PRODUCTS = 4
"""Products a channel and multiple: cos c cos m, sin c sin m, sin c cos m, cos c sin m."""


def harmonics_of(levels: Tensor, count: int) -> Tensor:
    """Cosine and sine of 1..count times the angle of levels 0..255.

    Args:
        levels: (B, C, H, W), any type.
        count: How many multiples.

    Returns:
        (B, 2 * count * C, H, W) float32: for each channel and multiple the cosine, then the sine.
    """
    angle = levels.float() * (2.0 * math.pi / 256.0)
    cosine, sine = angle.cos(), angle.sin()
    pairs = [torch.stack([cosine, sine], dim=2)]
    for _ in range(count - 1):  # the sum of two angles is cheaper than a cosine
        last_cosine, last_sine = pairs[-1].unbind(2)
        pairs.append(
            torch.stack(
                [last_cosine * cosine - last_sine * sine, last_sine * cosine + last_cosine * sine], dim=2
            )
        )
    return torch.stack(pairs, dim=2).flatten(1, 3)


class Stem(nn.Module, ABC):
    """Pictures to features of the same height and width: (B, C, H, W) uint8 to (B, width, H, W).

    Args:
        channels: C of the pictures.
        inputs: How many features `features` gives.
        width: Channels of the result.
    """

    keyed: ClassVar[bool] = False
    """Whether it takes a mask."""

    def __init__(self, channels: int, inputs: int, width: int) -> None:
        super().__init__()
        if min(channels, width) < 1:
            raise UsageError(
                f"a stem needs one channel and one feature or more, not {channels} and width {width}"
            )
        self.channels, self.width = channels, width
        self.convolution = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments but `channels`, as plain values."""

    @abstractmethod
    def features(self, picture: Tensor, mask: Tensor | None) -> Tensor:
        """Pointwise features of (B, C, H, W) uint8: (B, inputs, H, W) float32."""

    def forward(self, picture: Tensor, mask: Tensor | None = None) -> Tensor:
        """See the class.

        Args:
            picture: uint8 (B, C, H, W): the ciphertext, or whatever the stem is made for.
            mask: `Cipher.field` of it, of the same shape; for keyed stems alone.

        Raises:
            UsageError: The channels do not fit, or a mask is missing or unexpected.
        """
        if picture.ndim != 4 or picture.shape[1] != self.channels:
            raise UsageError(
                f"this stem was made for pictures (B, {self.channels}, H, W), got {tuple(picture.shape)}"
            )
        if self.keyed and (mask is None or mask.shape != picture.shape):
            raise UsageError(
                "a keyed stem needs the mask of each pixel: give `cipher.field(ciphertext, key_planes)`"
            )
        if not self.keyed and mask is not None:
            raise UsageError(f"{type(self).__name__} takes no mask: only a keyed stem does")
        return F.relu(self.norm(self.convolution(self.features(picture, mask))))


class PlainStem(Stem):
    """Reads the levels of a plaintext picture: the row to compare with.

    Args:
        channels: C of the pictures.
        width: Channels of the result.
    """

    def __init__(self, channels: int, width: int = 16) -> None:
        super().__init__(channels, channels, width)

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments but `channels`."""
        return {"width": self.width}

    def features(self, picture: Tensor, mask: Tensor | None) -> Tensor:
        """The levels, -1/2 to 1/2."""
        return picture.float() / 255.0 - 0.5


class KeylessStem(Stem):
    """Reads points on the circle and has no key: what a ciphertext gives away by itself.

    Args:
        channels: C of the pictures.
        width: Channels of the result.
        harmonics: Multiples of the angle.
    """

    def __init__(self, channels: int, width: int = 16, harmonics: int = 4) -> None:
        _check_harmonics(harmonics)
        super().__init__(channels, 2 * harmonics * channels, width)
        self.harmonics = harmonics

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments but `channels`."""
        return {"width": self.width, "harmonics": self.harmonics}

    def features(self, picture: Tensor, mask: Tensor | None) -> Tensor:
        """Cosines and sines of the multiples."""
        return harmonics_of(picture, self.harmonics)


class KeyedStem(Stem):
    """Gates the ciphertext by its mask; see the module's text.

    Args:
        channels: C of the pictures.
        width: Channels of the result.
        harmonics: Multiples of the angle.
        free: Gates that start at random, beside those that start at the identity.
    """

    keyed: ClassVar[bool] = True

    def __init__(self, channels: int, width: int = 16, harmonics: int = 4, free: int = 4) -> None:
        _check_harmonics(harmonics)
        if free < 0:
            raise UsageError(f"a keyed stem cannot have {free} free gates: give 0 or more")
        points, products = 2 * harmonics * channels, PRODUCTS * harmonics * channels
        super().__init__(channels, products + free, width)
        self.harmonics, self.free = harmonics, free
        self.content = nn.Conv2d(points, products + free, 1, bias=False)
        self.key = nn.Conv2d(points, products + free, 1, bias=False)
        self._start_at_identity()

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments but `channels`."""
        return {"width": self.width, "harmonics": self.harmonics, "free": self.free}

    def features(self, picture: Tensor, mask: Tensor | None) -> Tensor:
        """The gated products: (B, 4 * harmonics * C + free, H, W)."""
        assert mask is not None
        gates: Tensor = self.content(harmonics_of(picture, self.harmonics)) * self.key(
            harmonics_of(mask, self.harmonics)
        )
        return gates

    @torch.no_grad()
    def _start_at_identity(self) -> None:
        """Let the gates give the four products, and the convolution take levels and cosines from them."""
        pairs = self.harmonics * self.channels
        for gate in (self.content, self.key):
            gate.weight[: PRODUCTS * pairs] = 0.0
        for pair in range(pairs):
            cosine, sine = 2 * pair, 2 * pair + 1
            for product, (of_content, of_key) in enumerate(
                [(cosine, cosine), (sine, sine), (sine, cosine), (cosine, sine)]
            ):
                self.content.weight[PRODUCTS * pair + product, of_content] = 1.0
                self.key.weight[PRODUCTS * pair + product, of_key] = 1.0
        levels = torch.empty(self.width, self.channels, 3, 3)
        cosines = torch.empty(self.width, self.channels, 3, 3)
        for kernel in (levels, cosines):
            nn.init.kaiming_uniform_(kernel, a=math.sqrt(5))
        weight = self.convolution.weight
        for channel in range(self.channels):
            for multiple in range(1, self.harmonics + 1):
                first = PRODUCTS * (channel * self.harmonics + multiple - 1)
                sine_kernel = _sawtooth(multiple, self.harmonics) * levels[:, channel]
                cosine_kernel = 0.25 * cosines[:, channel] / multiple
                weight[:, first] = weight[:, first + 1] = cosine_kernel
                weight[:, first + 2], weight[:, first + 3] = sine_kernel, -sine_kernel


def _sawtooth(multiple: int, harmonics: int) -> float:
    """Weight of sin(k x) in the sawtooth, smoothed by Lanczos's factor against ringing."""
    share = multiple / (harmonics + 1)
    return -math.sin(math.pi * share) / (math.pi * share) / (math.pi * multiple)


def _check_harmonics(harmonics: int) -> None:
    if not 1 <= harmonics <= 16:
        raise UsageError(f"harmonics must be from 1 to 16, not {harmonics}")


STEMS: dict[str, type[PlainStem | KeylessStem | KeyedStem]] = {
    stem.__name__: stem for stem in (PlainStem, KeylessStem, KeyedStem)
}
"""Stems by the name that a checkpoint keeps."""
