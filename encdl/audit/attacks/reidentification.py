"""Re-identification: which of several ciphertexts is of the same patient.

So fell NeuraCrypt, whose encoder is secret but fixed: N. Carlini, S. Garg, S. Jha, S. Mahloujifar, M. Mahmoody,
F. Tramer, "NeuraCrypt is not private", 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encdl.audit.attacks.base import ATTACKS, Attack, Finding, Scene, guessing
from encdl.audit.attacks.references import from_blocks, to_blocks
from encdl.audit.attacks.targets import FixedXor, Target, audit_key, audit_nonce

VICTIM = 10**6
CANDIDATES = 8
"""Ciphertexts to choose from; chance is one in so many."""


@dataclass(frozen=True)
class FixedEncoder(Target):
    """A secret, random, fixed network on patches, shuffled for each image, in the spirit of NeuraCrypt.

    A. Yala et al., "NeuraCrypt: hiding private health data via random neural networks for public training", 2021.
    """

    mode: str = "default"
    owner: int = 0
    name = "fixed_encoder"
    patch: ClassVar[int] = 4

    def encrypt(self, images: Tensor, first: int = 0) -> Tensor:
        """See `Target.encrypt`; images are square, of sides that patches divide."""
        secret = audit_key(self.owner).image_keys(audit_nonce(0)).planes
        weights = torch.Generator().manual_seed(int.from_bytes(secret[:7], "little"))
        blocks = to_blocks(images, self.patch)
        size = blocks[0, 0].numel()
        layers = [torch.randn((size, size), generator=weights).to(images.device) / size**0.5 for _ in range(2)]
        hidden = torch.tanh((blocks.flatten(2).float() / 64 - 2) @ layers[0] * 2) @ layers[1]
        coded = (hidden.sigmoid() * 255).round().to(torch.uint8).view_as(blocks)
        orders = torch.stack(
            [
                torch.randperm(blocks.shape[1], generator=torch.Generator().manual_seed(first + index))
                for index in range(len(images))
            ]
        ).to(images.device)
        rows = torch.arange(len(images), device=images.device).unsqueeze(1)
        return from_blocks(coded[rows, orders], images.shape[2])

    def under(self, owner: int) -> FixedEncoder:
        """See `Target.under`."""
        return FixedEncoder(self.mode, owner)


@ATTACKS.register("re_identification")
class ReIdentification(Attack):
    """Matches two views of one image by their ciphertexts, by simple likenesses and by a trained one."""

    about = (
        "Two views of one image, a little shifted and of other brightness, are encrypted apart. The "
        "attacker has the one and has to find the other among eight ciphertexts: by equal bytes, by like "
        "histograms, or by a network that was trained on pairs of other images under the victim's key, "
        "whichever does best on those."
    )
    modes: ClassVar[tuple[str, ...]] = (
        "default",
        "confusion",
        "diffusion",
        "synthetic_nonce",
        "coprime",
        "periodic",
        "reused_nonce",
        "reused_nonce_diffusion",
    )

    def references(self) -> tuple[Target, ...]:
        """A keystream that repeats, and a secret encoder."""
        return (FixedXor(), FixedEncoder())

    def run(self, target: Target, scene: Scene) -> Finding:
        """Score: share of matches found."""
        practice, steps = scene.budget(384, 4096), scene.budget(50, 600)
        rounds = 8 if scene.quick else 16
        generator = scene.generator()
        known = _encrypted_views(target, scene.train[:practice], 0, generator)
        quarter = len(known[0]) // 4
        network = _trained(tuple(view[quarter:] for view in known), steps, scene)  # type: ignore[arg-type]
        likenesses = {"equal bytes": _equal_bytes, "histograms": _histograms, "trained": _Trained(network)}
        held = tuple(view[:quarter] for view in known)
        found = {name: _hits(likeness, held, generator, 4) for name, likeness in likenesses.items()}
        best = max(found, key=lambda name: found[name][0])
        asked = _encrypted_views(target, scene.test, VICTIM, generator)
        hits, trials = _hits(likenesses[best], asked, generator, rounds)
        # Rounds ask about the same images among other candidates: they count once each for the interval.
        hits, trials = round(hits / rounds), trials // rounds
        budget = f"{practice} pairs of views under the victim's key, {steps} steps; used: {best}"
        return guessing(self, target, hits, trials, 1 / CANDIDATES, budget)


class _Trained:
    """The cosine between embeddings."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return self.network(a) @ self.network(b).T  # type: ignore[no-any-return]


class _Embedding(nn.Module):
    """Unit vectors from bits at their places, and from what blocks look like wherever they lie."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.by_place = nn.Linear(8 * shape.numel(), 64)
        self.by_block = nn.Sequential(nn.Conv2d(8 * shape[0], 64, 4, 4), nn.ReLU(), nn.Conv2d(64, 64, 1))

    def forward(self, ciphertexts: Tensor) -> Tensor:
        bits = torch.cat([((ciphertexts >> bit) & 1).float() * 2 - 1 for bit in range(8)], 1)
        blocks = self.by_block(bits).flatten(2)
        return F.normalize(torch.cat([self.by_place(bits.flatten(1)), blocks.mean(2), blocks.amax(2)], 1), dim=1)


def _encrypted_views(target: Target, images: Tensor, first: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Ciphertexts of two views of each image, under numbers of their own."""
    return (
        target.encrypt(_view(images, generator), first),
        target.encrypt(_view(images, generator), first + len(images)),
    )


def _view(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each shifted by up to 3 % of its side and made up to 5 % brighter or darker."""
    count = len(images)
    shift, gain = (torch.rand((count, size), generator=generator) * 2 - 1 for size in (2, 1))
    maps = torch.eye(2, 3).repeat(count, 1, 1)
    maps[:, :, 2] = shift * 0.06  # of half the side
    grid = F.affine_grid(maps, list(images.shape), align_corners=False).to(images.device)
    moved = F.grid_sample(images.float(), grid, align_corners=False)
    brighter = moved * (1 + 0.05 * gain).view(-1, 1, 1, 1).to(images.device)
    return brighter.round().clamp(0, 255).to(torch.uint8)


def _hits(likeness: object, views: tuple[Tensor, ...], generator: torch.Generator, rounds: int) -> tuple[int, int]:
    """How often the own partner is the likest of `CANDIDATES`, and how often that was asked."""
    table = likeness(*views)  # type: ignore[operator]
    count, hits = len(table), 0
    own = torch.arange(count).unsqueeze(1)
    for _ in range(rounds):
        drawn = [torch.randperm(count - 1, generator=generator)[: CANDIDATES - 1] for _ in range(count)]
        others = torch.stack(drawn)
        others = (others + (others >= own)).to(table.device)
        hits += int((table.diagonal().unsqueeze(1) > table.gather(1, others)).all(1).sum())
    return hits, count * rounds


def _equal_bytes(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([(one == b).flatten(1).float().mean(1) for one in a])


def _histograms(a: Tensor, b: Tensor) -> Tensor:
    counts = [torch.stack([torch.bincount(one.flatten().long(), minlength=256) for one in view]) for view in (a, b)]
    return torch.stack([torch.minimum(one, counts[1]).sum(1).float() for one in counts[0]])


def _trained(views: tuple[Tensor, Tensor], steps: int, scene: Scene) -> nn.Module:
    """Contrastive training: the partner among the others of the batch."""
    with torch.random.fork_rng(devices=[0] if scene.device.startswith("cuda") else []):
        torch.manual_seed(scene.seed)
        network = _Embedding(views[0].shape[1:]).to(views[0].device)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-2)
    generator = scene.generator()
    for _ in range(steps):
        index = torch.randperm(len(views[0]), generator=generator)[:64].to(views[0].device)
        table = network(views[0][index]) @ network(views[1][index]).T * 10
        loss = F.cross_entropy(table, torch.arange(len(index), device=table.device))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return network.eval()
