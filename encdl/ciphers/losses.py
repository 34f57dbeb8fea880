"""Losses of the ciphers: one class a loss, each a module that gives a scalar to minimise.

Shapes: images, ciphertexts and masks are (N, 1, H, W) float32 of levels 0..255; logits are (N, 1, H, W) float32.
A level v is taken as the angle 2*pi*v/256 wherever a loss must not see an edge between 255 and 0.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encdl.ciphers.nn.dilated import DilatedNet
from encdl.ciphers.nn.phases import circle, from_phases, to_phases

TURN = 2.0 * math.pi / 256.0
ERROR_FLOOR = 0.01
"""In units of three levels: below it an image is as good as exact."""


class LevelLoss(nn.Module, ABC):
    """How far the levels that logits stand for are from an image's.

    Attributes:
        near: What an error of three levels on every pixel of middle grey costs. A loss divided by it can stand beside
            others with the same weight, whatever its own unit.
    """

    near: ClassVar[float]

    order: ClassVar[int]
    """The power of a small error that it grows by."""

    @abstractmethod
    def pixels(self, logits: Tensor, image: Tensor) -> Tensor:
        """The loss of each pixel, >= 0; arguments and result of one shape."""

    def forward(self, logits: Tensor, image: Tensor, weight: Tensor | None = None) -> Tensor:
        """Average over pixels.

        Args:
            logits: (N, 1, H, W) float32; 255 times their sigmoid is the image.
            image: Levels 0..255 of the same shape, float32.
            weight: What each pixel counts, >= 0, of the same shape; `None`: all alike.

        Returns:
            A scalar >= 0; 0 where no pixel counts.
        """
        loss = self.pixels(logits, image)
        if weight is None:
            return loss.mean()
        return (loss * weight).sum() / weight.sum().clamp(min=1e-6)

    def by_image(self, logits: Tensor, image: Tensor, emphasis: float) -> Tensor:
        """Average over images of a power of each one's error, e**emphasis / emphasis.

        Averaged over pixels, a few badly damaged images outweigh all that are nearly right, though a decibel won on
        either is worth the same. An exponent near 0 gives each the same say, as the logarithm does; 1 is the mean of
        errors. Errors are in units of three levels.

        Args:
            logits: As in `forward`.
            image: As in `forward`.
            emphasis: The exponent, above 0.

        Returns:
            A scalar above 0.
        """
        loss = self.pixels(logits, image).flatten(1).mean(1) / self.near
        error = (loss + ERROR_FLOOR**self.order) ** (1.0 / self.order)
        return (error**emphasis).mean() / emphasis


class BinaryLikelihoodLoss(LevelLoss):
    """Soft-label binary cross-entropy minus the target's own entropy, in nats a pixel; 0 is perfect, never below.

    The grey target v/255 is read as the likelihood of a binary image ("target image binary reduction" in the
    thesis's words): the loss is the Kullback-Leibler divergence of Bernoulli(sigmoid(logit)) from
    Bernoulli(v/255), averaged over pixels. Its floor does not depend on the image, unlike that of the plain
    cross-entropy.
    """

    near: ClassVar[float] = 2.8e-4
    order: ClassVar[int] = 2

    def pixels(self, logits: Tensor, image: Tensor) -> Tensor:
        """Nats."""
        target = image / 255.0
        entropy = -(torch.xlogy(target, target) + torch.xlogy(1.0 - target, 1.0 - target))
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none") - entropy


class AbsoluteLoss(LevelLoss):
    """Mean absolute error (L1), in parts of 255."""

    near: ClassVar[float] = 3 / 255
    order: ClassVar[int] = 1

    def pixels(self, logits: Tensor, image: Tensor) -> Tensor:
        """Parts of 255."""
        return (logits.sigmoid() - image / 255.0).abs()


class SquaredLoss(LevelLoss):
    """Mean squared error, in squares of parts of 255."""

    near: ClassVar[float] = (3 / 255) ** 2
    order: ClassVar[int] = 2

    def pixels(self, logits: Tensor, image: Tensor) -> Tensor:
        """Squares of parts of 255."""
        return (logits.sigmoid() - image / 255.0).square()


class CharbonnierLoss(LevelLoss):
    """sqrt(error^2 + epsilon^2) - epsilon, in parts of 255: squared near 0, absolute far off.

    P. Charbonnier et al., Two deterministic half-quadratic regularization algorithms for computed imaging, ICIP 1994.
    """

    EPSILON = 1 / 255
    near: ClassVar[float] = (10**0.5 - 1) / 255
    order: ClassVar[int] = 1

    def pixels(self, logits: Tensor, image: Tensor) -> Tensor:
        """Parts of 255."""
        error = logits.sigmoid() - image / 255.0
        return (error.square() + self.EPSILON**2).sqrt() - self.EPSILON


LEVEL_LOSSES: dict[str, type[LevelLoss]] = {
    "likelihood": BinaryLikelihoodLoss,
    "l1": AbsoluteLoss,
    "mse": SquaredLoss,
    "charbonnier": CharbonnierLoss,
}
"""Losses of a decryption network, by the name in settings."""


class UniformityLoss(nn.Module):
    """How far the levels of each ciphertext are from uniform, by the first trigonometric moments; about 0..1.

    The k-th moment is the mean of exp(i k angle); it vanishes for a uniform law (Rayleigh's test is the one of
    k = 1: Mardia and Jupp, Directional Statistics, 2000, chapter 6). What n uniform pixels give by chance, 1/n, is
    taken off.

    Args:
        moments: How many, from k = 1.
    """

    def __init__(self, moments: int = 8) -> None:
        super().__init__()
        self.moments = moments

    def forward(self, ciphertext: Tensor) -> Tensor:
        """(N, 1, H, W) levels to a scalar."""
        angle = ciphertext.flatten(1) * TURN
        orders = torch.arange(1, self.moments + 1, device=angle.device, dtype=angle.dtype).view(-1, 1, 1)
        power = (orders * angle).cos().mean(-1).square() + (orders * angle).sin().mean(-1).square()
        return power.mean() - 1.0 / angle.shape[1]


class AutocorrelationLoss(nn.Module):
    """Circular autocorrelation of each ciphertext at small lags, averaged; about 0 for noise, 1 for a flat image.

    By the Wiener-Khinchin theorem: the inverse Fourier transform of the power spectrum of exp(i angle). What noise
    gives by chance, 1/n, is taken off.

    Args:
        reach: The largest lag in rows and columns.
    """

    def __init__(self, reach: int = 9) -> None:
        super().__init__()
        self.reach = reach

    def forward(self, ciphertext: Tensor) -> Tensor:
        """(N, 1, H, W) levels, H and W above the reach, to a scalar."""
        angle = ciphertext[:, 0] * TURN
        count = angle.shape[-1] * angle.shape[-2]
        spectrum = torch.fft.fft2(torch.complex(angle.cos(), angle.sin())).abs().square()
        correlation = torch.fft.ifft2(spectrum).abs().square()[:, : self.reach + 1, : self.reach + 1]
        power = correlation.flatten(1)[:, 1:] / float(count) ** 2  # lag (0, 0) is 1 whatever the ciphertext
        loss: Tensor = power.mean() - 1.0 / count
        return loss


class ContentActivityLoss(nn.Module):
    """Keeps the masks of two images under one key apart, so that the network is more than a keystream.

    Activity is the mean of 1 - cos of the masks' phase difference: 0 when content does nothing, 1 when the masks are
    unrelated. Only the shortfall from `target` costs, squared, so that the loss does not buy activity that noise
    robustness pays for.

    Args:
        target: Activity wanted, 0..1.
    """

    def __init__(self, target: float = 0.6) -> None:
        super().__init__()
        self.target = target

    def forward(self, mask: Tensor, other: Tensor) -> Tensor:
        """Masks of two different images under the same key planes, of one shape; a scalar in 0..target^2."""
        activity = (1.0 - ((mask - other) * TURN).cos()).mean()
        return (self.target - activity).clamp(min=0.0).square()


class WrongKeyLoss(nn.Module):
    """Makes decryption depend on the key: under a wrong key the image must read no better than its own mean.

    With L the binary-likelihood loss of what a wrong key gives and M that of the image's mean grey,
    max(0, 1 - L / M): 0 once a wrong key tells no more than the mean, 1 when it opens the image. Without it an
    encryption autoencoder learns to ignore its key planes. L and M are averages: an image whose background comes out
    very wrong counts as closed even where its tissue lies open.
    """

    def __init__(self) -> None:
        super().__init__()
        self.likelihood = BinaryLikelihoodLoss()

    def forward(self, wrong_logits: Tensor, image: Tensor) -> Tensor:
        """Logits under wrong key planes and the image, of one shape; a scalar in 0..1."""
        mean = (image / 255.0).mean(dim=(1, 2, 3), keepdim=True).clamp(1 / 512, 1 - 1 / 512)
        floor = self.likelihood(mean.logit().expand_as(image), image).clamp(min=1e-3)
        loss: Tensor = (1.0 - self.likelihood(wrong_logits, image) / floor).clamp(min=0.0)
        return loss


class AdversaryLoss(nn.Module):
    """An attacker network trained at the same time to read the image off the ciphertext without a key.

    The loss is the attacker's own binary-likelihood loss. The attacker minimises it; the gradient that goes back
    into the cipher is reversed and scaled by `strength` (gradient reversal: Ganin and Lempitsky 2015,
    arXiv:1409.7495), so one optimiser trains both sides.

    Args:
        strength: Scale of the reversed gradient; 0 trains the attacker only, as a gauge.
        width: Channels of the attacker, a multiple of 4.
        blocks: Dilated blocks of the attacker.
    """

    def __init__(self, strength: float = 0.1, width: int = 16, blocks: int = 2) -> None:
        super().__init__()
        self.strength = strength
        self.attacker = DilatedNet(8, 4, width, blocks)
        self.likelihood = BinaryLikelihoodLoss()

    def forward(self, ciphertext: Tensor, image: Tensor) -> Tensor:
        """Ciphertext and image (levels) of one shape; a scalar >= 0."""
        seen = _ReverseGradient.apply(ciphertext, self.strength)  # type: ignore[no-untyped-call]
        logits = from_phases(self.attacker(circle(to_phases(seen))), *image.shape[-2:])
        loss: Tensor = self.likelihood(logits, image)
        return loss


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return -ctx.strength * gradients[0], None
