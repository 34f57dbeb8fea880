"""Augmentation of whole batches of flat images on their device, where a loader's processes would be too slow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from encdl.utils.errors import UsageError


@dataclass(frozen=True)
class DeviceAugmentation:
    """Random changes of a training batch, other ones for each image; masks go with their images.

    Attributes:
        strength: Of turns, shifts, changes of scale and contrast; see `augmented`.
        flip: Mirror half of the images left to right.
        gamma: Largest logarithm of the exponent that levels are raised to.
        noise: Largest standard deviation of Gaussian noise, in levels; half of the images get some.
        erase: Longest side of a rectangle that is blackened, as a share of the image's; half of the images get one.

    Raises:
        UsageError: A number is below 0, or `erase` above 1.
    """

    strength: float = 1.0
    flip: bool = False
    gamma: float = 0.0
    noise: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        if min(self.strength, self.gamma, self.noise, self.erase) < 0 or self.erase > 1:
            raise UsageError("augmentation: strength, gamma, noise and erase must be 0 or more, and erase at most 1")

    def __call__(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Change a copy.

        Args:
            images: uint8 (B, C, H, W).
            targets: int64 (B,) classes of images, or (B, H, W) of pixels.
            generator: On the CPU.

        Raises:
            UsageError: The images are volumes.
        """
        if images.ndim != 4:
            raise UsageError("model.augmentation is for flat images: leave it out, and set data setting augment")
        with torch.autocast(images.device.type, enabled=False):  # half precision would shift pixels by up to one
            return self._changed(images, targets, generator)

    def _changed(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        levels, targets = augmented(images, targets, generator, self.strength, self.flip)
        draw = torch.rand(len(images), 7, generator=generator).to(images.device)
        powers = torch.exp((draw[:, 0] * 2 - 1) * self.gamma).view(-1, 1, 1, 1)
        levels = 255 * (levels / 255) ** powers
        if self.noise:
            seed = int(torch.randint(2**62, (1,), generator=generator))
            drawn = torch.randn(
                levels.shape, generator=torch.Generator(images.device).manual_seed(seed), device=images.device
            )
            levels = levels + drawn * ((draw[:, 1] * 2 - 1).clamp(min=0) * self.noise).view(-1, 1, 1, 1)
        if self.erase:
            levels = levels * ~self._erased(draw[:, 2:], levels.shape[2:])
        return levels.round().clamp(0, 255).to(torch.uint8), targets

    def _erased(self, draw: Tensor, sides: torch.Size) -> Tensor:
        """Where images are blackened: bool (B, 1, H, W)."""
        extent = (draw[:, :2] * self.erase) * (draw[:, [4]] < 0.5)
        rows, columns = (
            (torch.arange(side, device=draw.device) / side - draw[:, [2 + axis]] * (1 - extent[:, [axis]])).unsqueeze(1)
            for axis, side in enumerate(sides)
        )
        inside = [(place >= 0) & (place < extent[:, [axis], None]) for axis, place in enumerate((rows, columns))]
        return inside[0].unsqueeze(-1) & inside[1].unsqueeze(-2)


def augmented(
    images: Tensor, targets: Tensor, generator: torch.Generator, strength: float, flip: bool
) -> tuple[Tensor, Tensor]:
    """Small turns, shifts and changes of scale and contrast, an affine map for each image; targets of pixels alike.

    Args:
        images: uint8 (B, C, H, W).
        targets: int64 (B,) or (B, H, W).
        generator: on the CPU.
        strength: 0 changes nothing, 1 turns by up to 10 degrees and shifts by up to 5 %.
        flip: Mirror half of the images left to right.

    Returns:
        float32 images of whole levels, and targets.
    """
    count, device = len(images), images.device
    draw = torch.rand(count, 8, generator=generator).mul_(2).sub_(1).to(device)
    angle = draw[:, 0] * strength * math.radians(10)
    scale = 1 + draw[:, 1:3] * 0.1 * strength
    turn = torch.zeros(count, 2, 3, device=device)
    turn[:, 0, 0], turn[:, 0, 1] = angle.cos() * scale[:, 0], -angle.sin()
    turn[:, 1, 0], turn[:, 1, 1] = angle.sin(), angle.cos() * scale[:, 1]
    turn[:, :, 2] = draw[:, 3:5] * 0.1 * strength
    if flip:
        turn[:, 0] *= torch.where(draw[:, 5:6] > 0, 1.0, -1.0)
    grid = F.affine_grid(turn, list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    gain, offset = (1 + draw[:, 6] * 0.1 * strength), draw[:, 7] * 10 * strength
    moved = (moved * gain.view(-1, 1, 1, 1) + offset.view(-1, 1, 1, 1) * (moved > 0)).round().clamp(0, 255)
    if targets.ndim == 1:
        return moved, targets
    classes = F.grid_sample(targets[:, None].float(), grid, mode="nearest", align_corners=False)
    return moved, classes[:, 0].long()
