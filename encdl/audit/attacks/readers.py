"""Attacks on readers of ciphertext: use without a key, and what features show. What others on readers share.

Each trains a small reader of its own on the scene's classes, in the same way for every target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encdl.audit.attacks.base import ATTACKS, Attack, Finding, Scene, guessing, mean_interval, share_interval
from encdl.audit.attacks.known_pair import openers
from encdl.audit.attacks.leakage_probe import LinearProbe
from encdl.audit.attacks.targets import CHUNK, CipherTarget, FixedXor, Target
from encdl.readers.stems import KeyedStem, PlainStem

VICTIM = 10**6


class SmallReader(nn.Module):
    """A stem and a few convolutions: the smallest reader that learns the scene's classes.

    Args:
        channels: Of the images.
        classes: How many.
        keyed: Whether it takes a mask.
    """

    def __init__(self, channels: int, classes: int, keyed: bool) -> None:
        super().__init__()
        self.stem = (KeyedStem if keyed else PlainStem)(channels, 16)
        self.body = nn.Sequential(
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, 2, 1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(1024, classes),
        )

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits of uint8 images, or of ciphertexts and masks."""
        logits: Tensor = self.body(self.stem(image, mask))
        return logits


@dataclass(frozen=True)
class Sighted:
    """The input of a reader: ciphertext and mask, uint8 of one shape."""

    ciphertext: Tensor
    mask: Tensor


class OnReader(Attack):
    """The base of attacks on readers."""

    modes: ClassVar[tuple[str, ...]] = ("default", "reused_nonce")

    def sight(self, target: Target, images: Tensor, first: int) -> Sighted:
        """Ciphertexts with the mask that the right key gives; for a target without one, what lies on the image."""
        ciphertext = target.encrypt(images, first)
        if not isinstance(target, CipherTarget) or not target.bare:
            return Sighted(ciphertext, ciphertext - images)
        masks = [
            target.cipher.field(ciphertext[start : start + CHUNK], target.planes(part, first + start))
            for start, part in zip(range(0, len(images), CHUNK), torch.split(images, CHUNK), strict=True)
        ]
        return Sighted(ciphertext, torch.cat(masks))

    def trained(self, target: Target | None, scene: Scene, images: Tensor, labels: Tensor, steps: int) -> SmallReader:
        """A reader of the target's ciphertexts; of plaintext if there is no target."""
        with torch.random.fork_rng(devices=[0] if scene.device.startswith("cuda") else []):
            torch.manual_seed(scene.seed)
            reader = SmallReader(images.shape[1], int(scene.train_labels.max()) + 1, target is not None)
        reader.to(images.device)
        seen = None if target is None else self.sight(target, images, 0)
        optimiser = torch.optim.AdamW(reader.parameters(), 3e-3, weight_decay=1e-4)
        draws = scene.generator()
        for _ in range(steps):
            index = torch.randint(0, len(images), (32,), generator=draws).to(images.device)
            logits = reader(images[index]) if seen is None else reader(seen.ciphertext[index], seen.mask[index])
            loss = F.cross_entropy(logits, labels[index])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return reader.eval()


@ATTACKS.register("reader_without_key")
class ReaderWithoutKey(OnReader):
    """Uses a trained reader with masks that need no key."""

    about = (
        "The attacker has a trained reader, ciphertexts and one known pair of the victim's, and no key. He gives the "
        "reader another key's masks, none, or those that the pair leads to: its keystream, its mask, the masks of its "
        "key planes; whichever serves best when he plays the victim under a key of his own. Broken: better than the "
        "commonest class."
    )
    modes: ClassVar[tuple[str, ...]] = ("default", "synthetic_nonce", "reused_nonce")

    def references(self) -> tuple[Target, ...]:
        """A keystream that repeats: the mask of one image serves for all."""
        return (FixedXor(),)

    def run(self, target: Target, scene: Scene) -> Finding:
        """Score: accuracy; baseline: of the commonest class."""
        reader = self.trained(target, scene, scene.train, scene.train_labels, scene.budget(80, 1500))
        practice, labels = scene.train[:256], scene.train_labels[:256]
        known = scene.train[:1]
        other = self.sight(target.under(2), known, 0).mask

        def answers(victim: Target, ciphertexts: Tensor) -> dict[str, Tensor]:
            masks = {"another key's": other, "none": torch.zeros_like(other)}
            found = {name: mask.expand_as(ciphertexts) for name, mask in masks.items()}
            for name, opener in openers(victim, known, victim.encrypt(known)).items():
                found[f"{name} of a known pair"] = ciphertexts - opener(ciphertexts)
            return {name: _answers(reader, ciphertexts, mask) for name, mask in found.items()}

        rehearsed = target.under(1)
        tried = answers(rehearsed, rehearsed.encrypt(practice, VICTIM))
        best = max(tried, key=lambda name: float((tried[name] == labels).float().mean()))
        asked = self.sight(target, scene.test, VICTIM)
        guessed = answers(target, asked.ciphertext)[best]
        hits, trials = int((guessed == scene.test_labels).sum()), len(guessed)
        commonest = float(torch.bincount(scene.test_labels).max() / trials)
        right = int((_answers(reader, asked.ciphertext, asked.mask) == scene.test_labels).sum())
        budget = f"a trained reader, one known pair; mask used: {best}"
        found = guessing(self, target, hits, trials, commonest, budget)
        found.more["accuracy_with_the_key"] = right / trials
        found.more["accuracy_with_the_key_interval"] = share_interval(right, trials)
        return found


@ATTACKS.register("reader_features")
class ReaderFeatures(OnReader):
    """Reads images off the stem's features with a linear probe: with a wrong key, and with the right one."""

    about = (
        "A linear probe reads images off the features of a reader's stem. With a wrong key it must find "
        "nothing. With the right key it finds the image, as in a plaintext network: whoever runs a reader "
        "with the key is trusted."
    )

    def references(self) -> tuple[Target, ...]:
        """A keystream that no key changes: the wrong key is the right one."""
        return (FixedXor(),)

    def run(self, target: Target, scene: Scene) -> Finding:
        """Score: PSNR of a probe on features under a wrong key; baseline: of the best constant image."""
        reader = self.trained(target, scene, scene.train, scene.train_labels, scene.budget(20, 200))
        probes = {name: LinearProbe() for name in ("wrong", "right", "mean")}
        errors: dict[str, Tensor] = {}
        for purpose, images, first in (("learn", scene.train[:256], 0), ("judge", scene.test, VICTIM)):
            own, other = self.sight(target, images, first), self.sight(target.under(1), images, first)
            with torch.no_grad():
                features = {
                    "right": reader.stem(own.ciphertext, own.mask),
                    "wrong": reader.stem(own.ciphertext, other.mask),
                    "mean": torch.zeros_like(images[:, :1, :1, :1], dtype=torch.float),
                }
            for name, probe in probes.items():
                errors[name] = getattr(probe, purpose)(features[name], images)
        psnr = {name: -10 * error.clamp(min=1e-10).log10() for name, error in errors.items()}
        score, low, high = mean_interval(psnr["wrong"])
        advantage, least, most = mean_interval(psnr["wrong"] - psnr["mean"])
        return self.finding(
            target,
            score,
            float(psnr["mean"].mean()),
            "dB",
            least > 0,
            "linear probe on 256 images with their features",
            interval=(low, high),
            advantage_db=advantage,
            advantage_interval=(least, most),
            psnr_db_with_the_key=float(psnr["right"].mean()),
        )


@torch.no_grad()
def _answers(reader: SmallReader, ciphertexts: Tensor, masks: Tensor) -> Tensor:
    """The classes that a reader sees, int64 (B,)."""
    found = [
        reader(c, m).argmax(1) for c, m in zip(torch.split(ciphertexts, 256), torch.split(masks, 256), strict=True)
    ]
    return torch.cat(found)
