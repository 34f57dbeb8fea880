"""A generative adversarial attack in the manner of SIA-GAN, made against block scrambling.

K. Madono, M. Tanaka, M. Onishi, T. Ogawa, "SIA-GAN: Scrambling inversion attack using generative adversarial network",
IEEE Access 9, 2021.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encdl.audit.attacks.base import ATTACKS, Attack, Finding, Scene, reconstruction
from encdl.audit.attacks.references import BlockScrambling
from encdl.audit.attacks.targets import Target

VICTIM = 10**6


class Generator(nn.Module):
    """Moves pixels anywhere by one linear map, then repairs by convolutions.

    Args:
        mean: The mean image, uint8 (C, S, S), which it starts from.
        width: Channels of the repair.
    """

    def __init__(self, mean: Tensor, width: int) -> None:
        super().__init__()
        self.move = nn.Linear(mean.numel(), mean.numel())
        nn.init.zeros_(self.move.weight)
        with torch.no_grad():
            self.move.bias.copy_(mean.flatten().float() / 127.5 - 1)
        channels = mean.shape[0]
        self.repair = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, channels, 3, padding=1),
        )

    def forward(self, ciphertexts: Tensor) -> Tensor:
        """uint8 (B, C, S, S) to levels -1..1 of the same shape."""
        moved = self.move(ciphertexts.flatten(1).float() / 127.5 - 1).view(ciphertexts.shape)
        found: Tensor = moved + self.repair(moved)
        return found


@ATTACKS.register("gan_inversion")
class GanInversion(Attack):
    """A generator that has to fool a discriminator, and to come near the images of known pairs."""

    about = (
        "Known plaintext: a generator turns ciphertexts into images that a discriminator cannot tell from "
        "real ones, and that come near the known images of the victim's pairs."
    )
    modes: ClassVar[tuple[str, ...]] = (
        "default",
        "confusion",
        "diffusion",
        "synthetic_nonce",
        "reused_nonce_confusion",
    )

    def references(self) -> tuple[Target, ...]:
        """Block scrambling under one key for all images."""
        return (BlockScrambling("fixed_key"),)

    def run(self, target: Target, scene: Scene) -> Finding:
        """Score: PSNR of what the generator makes of the victim's other ciphertexts."""
        steps = scene.budget(80, 1200)
        batch, width = (32, 12) if scene.quick else (128, 32)
        ciphertexts = scene.ciphertexts(target, scene.train)
        generator = _trained(scene, ciphertexts, steps, batch, width)
        with torch.no_grad():
            found = torch.cat(
                [generator(part) for part in torch.split(scene.ciphertexts(target, scene.test, VICTIM), 256)]
            )
        estimates = ((found + 1) * 127.5).clamp(0, 255)
        size = sum(parameter.numel() for parameter in generator.parameters())
        budget = f"{len(scene.train)} pairs, {steps} steps of {batch}, {size:,} parameters"
        return reconstruction(self, target, scene, estimates, budget)


def _trained(scene: Scene, ciphertexts: Tensor, steps: int, batch: int, width: int) -> Generator:
    plaintexts = scene.train.float() / 127.5 - 1
    with torch.random.fork_rng(devices=[0] if scene.device.startswith("cuda") else []):
        torch.manual_seed(scene.seed)
        generator = Generator(scene.mean_image, width).to(scene.device)
        critic = _critic(plaintexts.shape[1], width).to(scene.device)
    forger = torch.optim.AdamW(generator.parameters(), 1e-3, weight_decay=1e-2)
    judge = torch.optim.AdamW(critic.parameters(), 1e-3)
    draws = scene.generator()
    for _ in range(steps):
        index, other = (
            torch.randint(0, len(plaintexts), (batch,), generator=draws).to(plaintexts.device) for _ in range(2)
        )
        forged = generator(ciphertexts[index])
        loss = F.softplus(critic(forged.detach())).mean() + F.softplus(-critic(plaintexts[other])).mean()
        judge.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        judge.step()
        near = F.mse_loss(forged, plaintexts[index])
        loss = near + 0.01 * F.softplus(-critic(forged)).mean()
        forger.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        forger.step()
    return generator.eval()


def _critic(channels: int, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, width, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 1, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
