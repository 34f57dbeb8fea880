"""Telling ciphertexts of two chosen images apart: the game behind indistinguishability under chosen plaintexts."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encdl.audit.attacks.base import ATTACKS, Attack, Finding, Scene, guessing
from encdl.audit.attacks.references import RepeatedKeyXor
from encdl.audit.attacks.targets import CHUNK, FixedXor, Target

VICTIM = 10**6
"""Number of the first ciphertext to be told apart: no nonce of a practice ciphertext, if nonces are fresh."""


class Distinguisher(nn.Module):
    """A linear reading of every bit at its place, and convolutions whose means and deviations are read.

    Args:
        shape: (C, H, W) of the ciphertexts.
        width: Channels of the convolutions.
    """

    def __init__(self, shape: torch.Size, width: int) -> None:
        super().__init__()
        self.by_place = nn.Linear(8 * shape.numel(), 1)
        nn.init.zeros_(self.by_place.weight)
        self.local = nn.Sequential(
            nn.Conv2d(8 * shape[0], width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=8, dilation=8),
        )
        self.local.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster on a CPU
        self.overall = nn.Linear(2 * width, 1)

    def forward(self, ciphertexts: Tensor) -> Tensor:
        """Logits (B,) of the second image; uint8 (B, C, H, W) in."""
        bits = torch.cat([((ciphertexts >> bit) & 1).float() * 2 - 1 for bit in range(8)], 1)
        found = self.local(bits.contiguous(memory_format=torch.channels_last)).flatten(2)
        moments = torch.cat([found.mean(2), found.std(2)], 1)
        logits: Tensor = self.by_place(bits.flatten(1)) + self.overall(moments)
        return logits[:, 0]


class TwoImages(Attack):
    """The base of both games; an image that was seen before under the same ciphertext is recognised first."""

    @abstractmethod
    def drawn(self, images: Tensor, which: Tensor, generator: torch.Generator) -> Tensor:
        """The images to encrypt: uint8 (B, C, H, W), for `which` of the two, 0 or 1, each."""

    def run(self, target: Target, scene: Scene) -> Finding:
        """Score: share of right answers."""
        practice, trials = scene.budget(384, 4096), scene.budget(400, 4000)
        steps, width = scene.budget(60, 500), 16 if scene.quick else 48
        black = torch.zeros_like(scene.train[:1])
        images = torch.cat([black, scene.train[:1]])
        generator = scene.generator()

        def game(count: int, first: int) -> tuple[Tensor, Tensor]:
            which = torch.randint(0, 2, (count,), generator=generator)
            plaintexts = self.drawn(images, which, generator)
            parts = [target.encrypt(part, first + CHUNK * i) for i, part in enumerate(torch.split(plaintexts, CHUNK))]
            return torch.cat(parts), which.to(images.device)

        seen, known = game(practice, 0)
        asked, truth = game(trials, VICTIM)
        network = _trained(seen, known, steps, width, scene)
        with torch.no_grad():
            answers = torch.cat([network(part) for part in torch.split(asked, 256)]) > 0
        twins = {one.cpu().numpy().tobytes(): int(which) for one, which in zip(seen, known, strict=True)}
        recognised = [twins.get(one.cpu().numpy().tobytes()) for one in asked]
        final = torch.tensor(
            [int(guess) if twin is None else twin for guess, twin in zip(answers.tolist(), recognised, strict=True)]
        )
        hits = int((final == truth.cpu()).sum())
        budget = f"{practice} ciphertexts of the two under the victim's key, {steps} steps"
        return guessing(self, target, hits, trials, 0.5, budget)


@ATTACKS.register("differential_distinguisher")
class DifferentialDistinguisher(TwoImages):
    """The two images with other noise in the two lowest bits each time, so that no image comes twice."""

    about = (
        "Chosen plaintext: the victim encrypts one of two images of the attacker's choice, with a little "
        "noise so that none comes twice; a network trained on ciphertexts of both under the victim's key "
        "tells which it was."
    )
    modes: ClassVar[tuple[str, ...]] = (
        "default",
        "confusion",
        "diffusion",
        "synthetic_nonce",
        "coprime",
        "periodic",
        "reused_nonce",
        "reused_nonce_confusion",
        "reused_nonce_diffusion",
    )

    def references(self) -> tuple[Target, ...]:
        """A keystream that repeats."""
        return (FixedXor(), RepeatedKeyXor())

    def drawn(self, images: Tensor, which: Tensor, generator: torch.Generator) -> Tensor:
        """With random two lowest bits."""
        shape = (len(which), *images.shape[1:])
        noise = torch.randint(0, 4, shape, generator=generator, dtype=torch.uint8).to(images.device)
        return (images[which.to(images.device)] & 252) | noise


@ATTACKS.register("equality_distinguisher")
class EqualityDistinguisher(TwoImages):
    """The same two images each time: whoever encrypts deterministically shows that an image came back."""

    about = (
        "As before with the very same two images each time. A synthetic nonce makes encryption "
        "deterministic: equal images give equal files, which shows that they are equal, and nothing else. "
        "That is what it is for."
    )
    modes: ClassVar[tuple[str, ...]] = (
        "default",
        "confusion",
        "diffusion",
        "synthetic_nonce",
        "reused_nonce_diffusion",
    )

    def references(self) -> tuple[Target, ...]:
        """A keystream that repeats."""
        return (FixedXor(),)

    def drawn(self, images: Tensor, which: Tensor, generator: torch.Generator) -> Tensor:
        """As they are."""
        return images[which.to(images.device)]


def _trained(seen: Tensor, known: Tensor, steps: int, width: int, scene: Scene) -> Distinguisher:
    with torch.random.fork_rng(devices=[0] if scene.device.startswith("cuda") else []):
        torch.manual_seed(scene.seed)
        network = Distinguisher(seen.shape[1:], width).to(seen.device)
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-2)
    generator = scene.generator()
    for _ in range(steps):
        index = torch.randint(0, len(seen), (64,), generator=generator).to(seen.device)
        loss = F.binary_cross_entropy_with_logits(network(seen[index]), known[index].float())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return network.eval()
