"""Learned decoders: networks trained on pairs to turn ciphertexts into images."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encdl.audit.attacks.attacker_inputs import Guesses
from encdl.audit.attacks.base import ATTACKS, Attack, Finding, Scene, reconstruction
from encdl.audit.attacks.references import ByteShift
from encdl.audit.attacks.targets import FixedXor, Target

VICTIM = 10**6
"""Number of the first image under attack: no nonce of a training pair, if nonces are fresh."""


class Decoder(nn.Module):
    """Convolutions at three scales, a global branch, and an image of its own that it starts from: the mean.

    Args:
        channels: Of the features.
        mean: The mean image, uint8 (C, S, S), S divisible by 4.
        width: Channels of the first scale.
    """

    def __init__(self, channels: int, mean: Tensor, width: int) -> None:
        super().__init__()
        images, side = mean.shape[0], mean.shape[1]
        level = (mean.float() / 255.0).clamp(0.02, 0.98)
        self.start = nn.Parameter(level.logit())
        self.first = _convolutions(channels, width)
        self.second = _convolutions(width, 2 * width, stride=2)
        self.third = _convolutions(2 * width, 2 * width, stride=2)
        self.narrow = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for _ in range(2))
        spread = nn.Linear(128, images * side * side)
        nn.init.zeros_(spread.weight)
        self.overall = nn.Sequential(nn.Linear(2 * width * (side // 4) ** 2, 128), nn.ReLU(), spread)
        self.leave = _convolutions(3 * width, width)
        self.out = nn.Conv2d(width, images, 1)
        nn.init.zeros_(self.out.weight)
        # A quarter faster on a CPU, and what a GPU's tensor cores want.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, features: Tensor) -> Tensor:
        """Float32 (B, channels, S, S) to levels 0..1 (B, C, S, S)."""
        whole = self.first(features.contiguous(memory_format=torch.channels_last))
        half = self.second(whole)
        quarter = self.third(half)
        size, coarse = features.shape[2:], zip(self.narrow, (half, quarter), strict=True)
        scales = [whole, *(F.interpolate(narrow(each), size, mode="bilinear") for narrow, each in coarse)]
        local = self.out(self.leave(torch.cat(scales, 1)))
        spread = self.overall(quarter.flatten(1)).view(local.shape)
        found: Tensor = (self.start + local + spread).sigmoid()
        return found


class LearnedDecoder(Attack):
    """The base of both decoders: half of the pairs give keystream estimates, the others train the network."""

    @abstractmethod
    def pairs(self, target: Target, scene: Scene) -> Tensor:
        """Ciphertexts of the scene's training images, as the attacker comes by them."""

    def run(self, target: Target, scene: Scene) -> Finding:
        """Score: PSNR of what the network makes of the victim's ciphertexts."""
        plaintexts, ciphertexts = scene.train, self.pairs(target, scene)
        half, eighth = len(plaintexts) // 2, len(plaintexts) // 8
        guesses = Guesses(plaintexts[:half], ciphertexts[:half])
        steps = scene.budget(72, 600)
        batch, width = (32, 16) if scene.quick else (64, 32)
        with torch.random.fork_rng(devices=[0] if scene.device.startswith("cuda") else []):
            torch.manual_seed(scene.seed)
            network = Decoder(Guesses.channels(plaintexts.shape[1]), scene.mean_image, width).to(scene.device)
        train = slice(half, len(plaintexts) - eighth)
        _fit(
            network,
            guesses,
            plaintexts[train],
            ciphertexts[train],
            plaintexts[-eighth:],
            ciphertexts[-eighth:],
            steps,
            batch,
            scene,
        )
        estimates = decoded(network, guesses, scene.ciphertexts(target, scene.test, VICTIM))
        size = sum(parameter.numel() for parameter in network.parameters())
        budget = f"{len(plaintexts)} pairs, {steps} steps of {batch}, {size:,} parameters"
        return reconstruction(self, target, scene, estimates, budget)


@ATTACKS.register("ciphertext_only_decoder")
class CiphertextOnlyDecoder(LearnedDecoder):
    """Trained under the attacker's own keys, set on a victim whose key it has never seen."""

    about = (
        "Ciphertext only: the attacker, who has the software, encrypts images under keys of his own, trains "
        "a network to decode them, and sets it on the victim's ciphertexts."
    )
    modes: ClassVar[tuple[str, ...]] = (
        "default",
        "confusion",
        "diffusion",
        "synthetic_nonce",
        "coprime",
        "periodic",
        "reused_nonce",
    )
    keys: ClassVar[int] = 8

    def references(self) -> tuple[Target, ...]:
        """A keystream that no key changes, and a key of one byte an image."""
        return (FixedXor(), ByteShift())

    def pairs(self, target: Target, scene: Scene) -> Tensor:
        """Under `keys` keys in turn, a share of the images each."""
        shares = scene.train.tensor_split(self.keys)
        return torch.cat([scene.ciphertexts(target.under(1 + owner), share) for owner, share in enumerate(shares)])


@ATTACKS.register("known_plaintext_decoder")
class KnownPlaintextDecoder(LearnedDecoder):
    """Trained on the victim's own pairs."""

    about = (
        "Known plaintext: the attacker has images of the victim's with their ciphertexts under the victim's "
        "key, trains a network on them, and sets it on other ciphertexts under that key. With a reused nonce "
        "it is expected to succeed."
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
        return (FixedXor(),)

    def pairs(self, target: Target, scene: Scene) -> Tensor:
        """Under the victim's key."""
        return scene.ciphertexts(target, scene.train)


@torch.no_grad()
def decoded(network: nn.Module, guesses: Guesses, ciphertexts: Tensor) -> Tensor:
    """The network's images as levels 0..255: float32 (B, C, S, S)."""
    network.eval()
    return torch.cat([network(guesses(part)) for part in torch.split(ciphertexts, 256)]) * 255.0


def _fit(
    network: nn.Module,
    guesses: Guesses,
    plaintexts: Tensor,
    ciphertexts: Tensor,
    held_plaintexts: Tensor,
    held_ciphertexts: Tensor,
    steps: int,
    batch: int,
    scene: Scene,
) -> None:
    """Train; leaves the network as it was when it decoded the held-out pairs best."""
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, steps)
    generator = scene.generator()
    best, kept = float("inf"), {name: value.clone() for name, value in network.state_dict().items()}
    for step in range(steps):
        network.train()
        index = torch.randint(0, len(plaintexts), (batch,), generator=generator).to(plaintexts.device)
        loss = F.mse_loss(network(guesses(ciphertexts[index])), plaintexts[index].float() / 255.0)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if (step + 1) % max(1, steps // 8) == 0:
            found = decoded(network, guesses, held_ciphertexts)
            error = float(F.mse_loss(found, held_plaintexts.float()))
            if error < best:
                best, kept = error, {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(kept)


def _convolutions(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1),
        nn.GroupNorm(4, outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, 1, 1),
        nn.GroupNorm(4, outputs),
        nn.ReLU(),
    )
