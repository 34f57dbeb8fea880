"""The random damage that a decryption network is trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from encdl.ciphers import postprocess
from encdl.ciphers.channel import file_keys
from encdl.ciphers.damage import run_of
from encdl.training.tasks.key_planes import generator_on
from encdl.utils.errors import UsageError

NOMINAL: dict[str, tuple[float, ...]] = {
    "gaussian": (2.0, 8.0),
    "salt_pepper": (0.01, 0.05),
    "scatter": (0.01, 0.05),
    "erasure": (0.25,),
    "run": (0.25,),
    "block": (0.25,),
}
"""Strengths of each kind around which training draws: those of `encdl.ciphers.damage.DAMAGES`."""
KINDS = tuple(NOMINAL)


@dataclass(frozen=True)
class RandomDamage:
    """Draws one damage an image, of random kind and strength.

    The strength is one of the kind's `NOMINAL` ones, taken times a factor between `weakest` and `strongest` whose
    logarithm is uniform. Damage is drawn for the whole batch at once, on its device.

    Attributes:
        gaussian: How often noise on every pixel is drawn, relative to the other kinds.
        salt_pepper: How often pixels turn to 0 and 255.
        scatter: How often pixels turn to random bytes.
        erasure: How often pixels are lost here and there, and known to be.
        run: How often a run of an interleaved file is lost, and known to be.
        block: How often a rectangle is lost, and known to be.
        intact: Probability of no damage at all.
        weakest: Least factor of a strength.
        strongest: Largest factor of a strength.

    Raises:
        UsageError: A number is out of its range.
    """

    gaussian: float = 2.0
    salt_pepper: float = 1.5
    scatter: float = 0.5
    erasure: float = 0.25
    run: float = 0.75
    block: float = 0.25
    intact: float = 0.05
    weakest: float = 0.5
    strongest: float = 1.65

    def __post_init__(self) -> None:
        if not 0 <= self.intact <= 1 or any(getattr(self, kind) < 0 for kind in KINDS):
            raise UsageError(f"damage: intact must be 0 to 1, and no kind rarer than never (0): {self}")
        if not 0 < self.weakest <= self.strongest <= 4:  # four times the nominal loss is all
            raise UsageError(f"damage: 0 < weakest <= strongest <= 4 must hold: {self}")

    def __call__(self, ciphertext: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Damage a copy of a batch.

        Args:
            ciphertext: uint8 (B, C, H, W), or (B, C, D, H, W) of volumes.
            generator: On the CPU; what is drawn for each pixel comes from one on the batch's device, seeded by it.

        Returns:
            (damaged, lost): uint8 and bool (B, C, H, W); `lost` is True where a pixel is known to be lost, and the
            damaged level there is 0.
        """
        shape, ciphertext = ciphertext.shape, ciphertext.flatten(2, -2)  # slices of a volume below one another
        kinds, strengths = self._draw(len(ciphertext), generator)
        source = generator_on(ciphertext.device, generator)
        table = torch.where(kinds == torch.arange(len(KINDS)).unsqueeze(1), strengths, 0.0)
        amounts = dict(zip(KINDS, table.to(ciphertext.device).view(len(KINDS), -1, 1, 1, 1), strict=True))
        normal = torch.randn(ciphertext.shape, generator=source, device=ciphertext.device)
        damaged = (ciphertext + amounts["gaussian"] * normal).round_().clamp_(0, 255).to(torch.uint8)
        chance = torch.rand(ciphertext.shape, generator=source, device=ciphertext.device)
        drawn = torch.randint(0, 256, ciphertext.shape, generator=source, device=ciphertext.device, dtype=torch.uint8)
        damaged = torch.where(chance < amounts["scatter"], drawn, damaged)
        extreme = (drawn & 1) * 255  # black or white, half of them each
        damaged = torch.where(chance < amounts["salt_pepper"], extreme, damaged)
        lost = (chance < amounts["erasure"]) | self._block(ciphertext, amounts["block"], source)
        runs = (kinds == KINDS.index("run")).nonzero().view(-1)
        if len(runs):
            lost[runs.to(lost.device)] = self._run(ciphertext, strengths[runs], generator)
        lost = lost.expand_as(damaged)
        return damaged.masked_fill_(lost, 0).view(shape), lost.view(shape)

    def _draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Number of the kind (-1: intact) and strength of each image's damage: int64 and float32 (count,)."""
        often = torch.tensor([getattr(self, kind) for kind in KINDS])
        chance, power, pick = torch.rand(3, count, generator=generator)
        kinds = torch.full((count,), -1)
        if float(often.sum()) > 0:
            bounds = often.cumsum(0) / often.sum() * (1 - self.intact) + self.intact
            kinds = torch.bucketize(chance, bounds, right=True).clamp_(max=len(KINDS) - 1)
            kinds[chance < self.intact] = -1
        factor = torch.exp(math.log(self.weakest) + power * math.log(self.strongest / self.weakest))
        weak, strong = (torch.tensor([of[which] for of in NOMINAL.values()]) for which in (0, -1))
        return kinds, torch.where(pick < 0.5, weak[kinds], strong[kinds]) * factor

    @staticmethod
    def _block(ciphertext: Tensor, share: Tensor, source: torch.Generator) -> Tensor:
        """Bool (B, 1, H, W), True on a rectangle of the image's proportions."""
        spans = []
        for size in ciphertext.shape[2:]:
            length = (size * share.view(-1, 1).sqrt()).round()
            place = torch.rand(length.shape, generator=source, device=length.device)
            spans.append(run_of((place * (size - length + 1)).floor(), length, size))
        return (spans[0].unsqueeze(2) & spans[1].unsqueeze(1)).unsqueeze(1)

    @staticmethod
    def _run(ciphertext: Tensor, share: Tensor, generator: torch.Generator) -> Tensor:
        """Bool (len(share), C, H, W): which pixels go with a run of the file's bytes."""
        size = math.prod(ciphertext.shape[1:])
        length = (size * share.view(-1, 1)).round()
        start = (torch.rand(length.shape, generator=generator) * (size - length + 1)).floor()
        start, length = start.to(ciphertext.device), length.to(ciphertext.device)
        lost = run_of(start, length, size).view(-1, *ciphertext.shape[1:])
        return postprocess.create(postprocess.DEFAULT).undo_lost(lost, file_keys(len(lost), generator))
